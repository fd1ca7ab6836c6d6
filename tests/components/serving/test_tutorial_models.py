"""Models as TensorFlow Serving's tutorials export them, and signatures of unusual forms."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.components.serving.case_model import save_half_plus_two
from tests.components.serving.servers import serving

PREDICT = "/v1/models/{}:predict"


def save_unusual(folder: Path) -> None:
    import tensorflow as tf

    class Unusual(tf.Module):
        @tf.function(input_signature=[])
        def constant(self):
            return {"answer": tf.constant([42])}

        @tf.function(input_signature=[tf.TensorSpec([], tf.string, name="name")])
        def greet(self, name):
            return {"greeting": tf.strings.join(["hello ", name])}

        @tf.function(
            input_signature=[tf.TensorSpec([None], tf.float32, name="a"), tf.TensorSpec([None], tf.float32, name="b")]
        )
        def outer(self, a, b):
            return {"product": a[:, None] * b}

        @tf.function(input_signature=[tf.TensorSpec([None, 1], tf.string, name="content")])
        def length(self, content):
            return {"length": tf.strings.length(content)}

    module = Unusual()
    names = ("constant", "greet", "outer", "length")
    tf.saved_model.save(module, str(folder), signatures={name: getattr(module, name) for name in names})


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("served")
    for name, save in (("half_plus_two", save_half_plus_two), ("unusual", save_unusual)):
        (root / name).mkdir()
        save(root / name / "123")
    models = [word for name in ("half_plus_two", "unusual") for word in ("--model", f"{name}={root / name}")]
    with serving(tmp_path_factory.mktemp("log"), *models) as server:
        yield server


def test_half_plus_two_predicts(server):
    answer = server.post(PREDICT.format("half_plus_two"), {"instances": [1.0, 2.0, 5.0]})
    assert answer == (200, {"predictions": [2.5, 3.0, 4.5]})
    answer = server.post(PREDICT.format("half_plus_two"), {"inputs": [[1.0], [2.0]]})
    assert answer == (200, {"outputs": [[2.5], [3.0]]})


def test_half_plus_two_classifies_and_regresses(server):
    body = {"signature_name": "regress_x_to_y", "examples": [{"x": 1.0}, {"x": 2.0}, {}]}
    assert server.post("/v1/models/half_plus_two:regress", body) == (200, {"results": [2.5, 3.0, 2.0]})
    body = {"signature_name": "classify_x_to_y", "examples": [{"x": 1.0}]}
    assert server.post("/v1/models/half_plus_two:classify", body) == (200, {"results": [[["", 2.5]]]})


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"signature_name": "constant", "inputs": {}}, {"outputs": [42]}),
        ({"signature_name": "greet", "inputs": "you"}, {"outputs": "hello you"}),
        ({"signature_name": "outer", "inputs": {"a": [1, 2], "b": [3, 4, 5]}}, {"outputs": [[3, 4, 5], [6, 8, 10]]}),
        ({"signature_name": "length", "instances": [{"content": {"b64": "AAEC"}}]}, {"predictions": [[3]]}),
        ({"signature_name": "length", "instances": ["ab", "abc"]}, {"predictions": [[2], [3]]}),
        ({"signature_name": "length", "inputs": {"content": ["ab"], "more": 1}, "id": 7}, {"outputs": [[2]]}),
    ],
    ids=["no inputs", "scalar text", "different lengths", "base64 in a row", "values", "further keys"],
)
def test_unusual_signatures_are_answered(server, body, expected):
    assert server.post(PREDICT.format("unusual"), body) == (200, expected)


def test_inf_is_read(server):
    assert server.post(PREDICT.format("half_plus_two"), b'{"instances": [-Inf]}') == (
        200,
        {"predictions": [float("-inf")]},
    )
