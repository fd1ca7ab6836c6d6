"""REST, gRPC and in-process calls give the same outputs for any inputs."""

from __future__ import annotations

import json
import math

import grpc
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("tensorflow_serving", reason="the genuine client stubs, tensorflow-serving-api, are needed")

MANY = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
floats = st.floats(width=32, allow_nan=True, allow_infinity=True, allow_subnormal=False)
integers = st.integers(-(2**63), 2**63 - 1)
texts = st.one_of(st.text(max_size=20).map(lambda t: t.encode("utf-8", "replace")), st.binary(max_size=20))
rows = st.lists(st.tuples(floats, integers, texts), min_size=1, max_size=9)
matrices = st.integers(1, 5).flatmap(
    lambda width: st.lists(st.lists(floats, min_size=width, max_size=width), min_size=1, max_size=6)
)


@pytest.fixture(scope="module")
def in_process(model_folders):
    import tensorflow as tf

    return tf.saved_model.load(str(model_folders["mixed"] / "1")).signatures


@pytest.fixture(scope="module")
def predict(ours):
    from tensorflow_serving.apis import prediction_service_pb2_grpc

    with grpc.insecure_channel(f"127.0.0.1:{ours.grpc_port}") as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict


def by_grpc(predict, signature: str, inputs: dict) -> dict:
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2

    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "mixed", signature
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return {name: tf.make_ndarray(proto) for name, proto in predict(request, 60).outputs.items()}


def by_rest(server, signature: str, body: dict) -> dict:
    """`json` writes NaN and the infinities as TensorFlow Serving wants them."""
    text = json.dumps({"signature_name": signature, **body}).encode()
    status, answer = server.post("/v1/models/mixed:predict", text)
    assert status == 200, answer
    return answer


def encoded(text: bytes) -> dict:
    import base64

    return {"b64": base64.b64encode(text).decode()}


def assert_float32(given: object, expected: np.ndarray) -> None:
    """Equal as float32: nothing is lost in JSON. Subnormal sums count as 0, as in some of TensorFlow's threads."""
    tiny = float(np.finfo(np.float32).tiny)
    np.testing.assert_allclose(np.array(given, np.float32), expected, rtol=0, atol=tiny)


@MANY
@given(rows)
def test_named_inputs(ours, predict, in_process, values):
    import tensorflow as tf

    inputs = {
        "number": np.array([[one] for one, _, _ in values], np.float32),
        "count": np.array([[one] for _, one, _ in values], np.int64),
        "word": np.array([[one] for _, _, one in values], object),
    }
    expected = {
        name: value.numpy()
        for name, value in in_process["serving_default"](**{k: tf.constant(v) for k, v in inputs.items()}).items()
    }
    from_grpc = by_grpc(predict, "serving_default", inputs)
    assert_float32(from_grpc["scores"], expected["scores"])
    assert from_grpc["echo_bytes"].tolist() == expected["echo_bytes"].tolist() == inputs["word"].tolist()
    instances = [{"number": [a], "count": [b], "word": [encoded(c)]} for a, b, c in values]
    predictions = by_rest(ours, "serving_default", {"instances": instances})["predictions"]
    assert_float32([one["scores"] for one in predictions], expected["scores"])
    assert [one["echo_bytes"] for one in predictions] == [[encoded(c)] for _, _, c in values]


@MANY
@given(matrices)
def test_matrices_of_any_width(ours, predict, in_process, values):
    import tensorflow as tf

    array = np.array(values, np.float32)
    expected = {name: v.numpy() for name, v in in_process["shapes"](values=tf.constant(array)).items()}
    from_grpc = by_grpc(predict, "shapes", {"values": array})
    outputs = by_rest(ours, "shapes", {"inputs": {"values": values}})["outputs"]
    for name in ("sum", "values"):
        assert_float32(from_grpc[name], expected[name])
        assert_float32(outputs[name], expected[name])


@MANY
@given(st.floats(allow_nan=False), st.lists(st.integers(-(2**20), 2**20), min_size=2, max_size=2))
def test_scalars_keep_their_64_bits(ours, predict, a, b):
    expected = a * sum(b)
    inputs = {"a": np.float64(a), "b": np.array(b, np.int32)}
    from_grpc = [
        by_grpc(predict, "scalars", inputs)["product"][()],
        by_rest(ours, "scalars", {"inputs": {"a": a, "b": b}})["outputs"],
    ]
    for one in from_grpc:
        assert one == expected or (math.isnan(one) and math.isnan(expected))
