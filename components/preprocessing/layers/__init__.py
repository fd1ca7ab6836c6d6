"""Keras layers for preprocessing that Keras lacks; see docs/PREPROCESSING.md.

Each is registered with Keras, saves its state with the model, and works inside a SavedModel.
"""

from __future__ import annotations

from kerasline.components.preprocessing.layers.audio import AudioDecoding, LogMel, PowerToDecibels, Resampling
from kerasline.components.preprocessing.layers.augmentation import (
    RandomNoise,
    RandomSpeed,
    RandomTimeShift,
    SpecAugment,
    TokenDropout,
)
from kerasline.components.preprocessing.layers.buckets import BucketIds
from kerasline.components.preprocessing.layers.categories import ClassIndex, Cross, FrequencyLookup
from kerasline.components.preprocessing.layers.date_time import DateTimeParts
from kerasline.components.preprocessing.layers.image import ImageDecoding
from kerasline.components.preprocessing.layers.missing import Imputation, MissingIndicator
from kerasline.components.preprocessing.layers.n_grams import NGrams
from kerasline.components.preprocessing.layers.per_key import BucketsPerKey, ScalingPerKey
from kerasline.components.preprocessing.layers.projection import PrincipalComponents, Whitening
from kerasline.components.preprocessing.layers.random_window import RandomWindow
from kerasline.components.preprocessing.layers.scaling import (
    MinMaxScaling,
    QuantileClipping,
    QuantileTransform,
    RobustScaling,
    SignedLog1p,
)
from kerasline.components.preprocessing.layers.sequences import DocumentSteps, LengthMask, Lengths, SegmentMask
from kerasline.components.preprocessing.layers.subwords import Subwords
from kerasline.components.preprocessing.layers.target_encoding import TargetEncoding
from kerasline.components.preprocessing.layers.text import BagOfWords, TfIdf
from kerasline.components.preprocessing.layers.tokenizer import TokensToText
from kerasline.components.preprocessing.layers.word_piece import WordPiece

__all__ = [
    "AudioDecoding",
    "BagOfWords",
    "BucketIds",
    "BucketsPerKey",
    "ClassIndex",
    "Cross",
    "DateTimeParts",
    "DocumentSteps",
    "FrequencyLookup",
    "ImageDecoding",
    "Imputation",
    "LengthMask",
    "Lengths",
    "LogMel",
    "MinMaxScaling",
    "MissingIndicator",
    "NGrams",
    "PowerToDecibels",
    "PrincipalComponents",
    "QuantileClipping",
    "QuantileTransform",
    "RandomNoise",
    "RandomSpeed",
    "RandomTimeShift",
    "RandomWindow",
    "Resampling",
    "RobustScaling",
    "ScalingPerKey",
    "SegmentMask",
    "SignedLog1p",
    "SpecAugment",
    "Subwords",
    "TargetEncoding",
    "TfIdf",
    "TokenDropout",
    "TokensToText",
    "Whitening",
    "WordPiece",
]
