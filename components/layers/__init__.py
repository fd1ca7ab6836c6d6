"""Keras layers of our own, for preprocessing that Keras lacks; see docs/PREPROCESSING.md.

Each is registered, keeps its state in what is saved, and works inside a SavedModel.
"""

from __future__ import annotations

from components.layers.audio import AudioDecoding, Resampling
from components.layers.buckets import BucketIds
from components.layers.categories import Cross, FrequencyLookup
from components.layers.date_time import DateTimeParts
from components.layers.image import ImageDecoding
from components.layers.missing import Imputation, MissingIndicator
from components.layers.per_key import ScalingPerKey
from components.layers.projection import PrincipalComponents, Whitening
from components.layers.scaling import (
    MinMaxScaling,
    QuantileClipping,
    QuantileTransform,
    RobustScaling,
    SignedLog1p,
)
from components.layers.text import BagOfWords, TfIdf

__all__ = [
    "AudioDecoding", "BagOfWords", "BucketIds", "Cross", "DateTimeParts", "FrequencyLookup", "ImageDecoding",
    "Imputation", "MinMaxScaling", "MissingIndicator", "PrincipalComponents", "QuantileClipping",
    "QuantileTransform", "Resampling", "RobustScaling", "ScalingPerKey", "SignedLog1p", "TfIdf", "Whitening",
]  # fmt: skip
