"""Preprocessing in one line a feature, for `Transform(features={...})`.

Each key is the name of a model input, and of its column unless the feature has `column`::

    Transform(examples, label="tips", features={
        "fare": Number(),                                # z-scores; a missing one is the mean
        "miles": Number(scale="robust", clip=(0.01, 0.99)),
        "latitude": Buckets(10, encode="one_hot"),
        "company": Category(top=1000, unknown=10),
        "driver": TargetEncoded(),                       # the mean of the label, out-of-fold in training
        "review": Text(encode="tf_idf", top=5000),
        "started": DateTime(["hour", "weekday"], cyclic=True),
        "place": Cross(["company", "payment_type"], buckets=500),
        "photo": Image((64, 64), augment=["flip", "rotate"]),
    })

Features are plain values, so importing this module does not import Keras. `preprocessing_model` builds their layers:
those of Keras and of `kerasline.components.preprocessing.layers`.
"""

from __future__ import annotations

from kerasline.components.preprocessing.features.base import Feature, preprocessing_model
from kerasline.components.preprocessing.features.categories import Category, Cross, Hashed, TargetEncoded
from kerasline.components.preprocessing.features.media import Audio, Image
from kerasline.components.preprocessing.features.numbers import AsIs, Buckets, Components, Number
from kerasline.components.preprocessing.features.texts import DateTime, Text

__all__ = [
    "AsIs",
    "Audio",
    "Buckets",
    "Category",
    "Components",
    "Cross",
    "DateTime",
    "Feature",
    "Hashed",
    "Image",
    "Number",
    "TargetEncoded",
    "Text",
    "preprocessing_model",
]
