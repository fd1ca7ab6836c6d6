"""Models of scikit-learn's on its data sets, whose figures the tests know.

`HOSTILE` names a feature, a slice and a value, and must never become markup.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path

from sklearn import datasets, linear_model
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

HOSTILE = '<script>alert("x")</script><img src=x onerror=alert(1)>'


@functools.cache
def cancer(strength: float):
    """Return labels and probabilities of the held-out rows, from the model and from one with three features."""
    data = datasets.load_breast_cancer()
    train_x, x, train_y, y = train_test_split(
        data.data, data.target, test_size=0.5, random_state=0, stratify=data.target
    )
    model = make_pipeline(StandardScaler(), linear_model.LogisticRegression(C=strength, max_iter=1000)).fit(
        train_x, train_y
    )
    small = make_pipeline(StandardScaler(), linear_model.LogisticRegression()).fit(train_x[:, :3], train_y)
    return data, x, y, model, model.predict_proba(x)[:, 1], small.predict_proba(x[:, :3])[:, 1]


@functools.cache
def digits():
    """Return labels and predicted probabilities of held-out digits."""
    data = datasets.load_digits()
    train_x, x, train_y, y = train_test_split(data.data / 16, data.target, test_size=0.5, random_state=0)
    return y, linear_model.LogisticRegression(max_iter=300).fit(train_x, train_y).predict_proba(x)


def write_json(path: Path, value) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, default=float))
