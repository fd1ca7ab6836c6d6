"""The gRPC services, called with the stubs of tensorflow-serving-api."""

from __future__ import annotations

import grpc
import numpy as np
import pytest

pytest.importorskip("tensorflow_serving", reason="the genuine client stubs, tensorflow-serving-api, are needed")


@pytest.fixture(scope="module")
def stubs(server):
    """PredictionService and ModelService of a server."""
    from tensorflow_serving.apis import (
        model_service_pb2_grpc,
        prediction_service_pb2_grpc,
    )

    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        yield (
            prediction_service_pb2_grpc.PredictionServiceStub(channel),
            model_service_pb2_grpc.ModelServiceStub(channel),
        )


def predict_request(model: str, signature: str = "", **inputs: object):
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2

    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return request


def floats(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_predict_returns_tensors_and_the_version(stubs):
    import tensorflow as tf

    response = stubs[0].Predict(predict_request("half", x=floats(1, 2, 5)), 60)
    np.testing.assert_array_equal(tf.make_ndarray(response.outputs["y"]), floats(3.5, 4, 5.5))
    assert list(response.outputs["y"].float_val) == [3.5, 4.0, 5.5]
    assert response.model_spec.name == "half"
    assert response.model_spec.version.value == 3
    assert response.model_spec.signature_name == "serving_default"


def test_predict_accepts_strings_and_integers(stubs):
    import tensorflow as tf

    request = predict_request(
        "mixed", number=floats(1.5).reshape(1, 1), count=np.array([[7]], np.int64), word=[["héron".encode()]]
    )
    outputs = stubs[0].Predict(request, 60).outputs
    np.testing.assert_array_equal(tf.make_ndarray(outputs["scores"]), [[1.5, 7, 6]])
    assert tf.make_ndarray(outputs["echo_bytes"]).tolist() == [["héron".encode()]]


def test_predict_reads_typed_fields_and_repeats_the_last_value(stubs):
    """A TensorProto may hold fewer values than elements: the last value fills the rest."""
    from tensorflow_serving.apis import predict_pb2

    request = predict_pb2.PredictRequest()
    request.model_spec.name = "half"
    request.inputs["x"].dtype = 1
    request.inputs["x"].tensor_shape.dim.add(size=3)
    request.inputs["x"].float_val.extend([2.0, 4.0])
    assert list(stubs[0].Predict(request, 60).outputs["y"].float_val) == [4.0, 5.0, 5.0]


def test_output_filter_selects_outputs(stubs):
    request = predict_request("mixed", number=floats(1).reshape(1, 1), count=np.array([[7]], np.int64), word=[[b"a"]])
    request.output_filter.append("scores")
    assert list(stubs[0].Predict(request, 60).outputs) == ["scores"]
    request.output_filter.append("nothing")
    with pytest.raises(grpc.RpcError) as refused:
        stubs[0].Predict(request, 60)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "nothing" in refused.value.details()


def test_regress_accepts_examples(stubs):
    import tensorflow as tf
    from tensorflow_serving.apis import regression_pb2

    request = regression_pb2.RegressionRequest()
    request.model_spec.name, request.model_spec.signature_name = "half", "tensorflow/serving/regress"
    for x in (1.0, 2.0):
        feature = tf.train.Feature(float_list=tf.train.FloatList(value=[x]))
        request.input.example_list.examples.append(tf.train.Example(features=tf.train.Features(feature={"x": feature})))
    response = stubs[0].Regress(request, 60)
    assert [one.value for one in response.result.regressions] == [3.5, 4.0]
    assert response.model_spec.version.value == 3


def classification_request(model: str, signature: str, examples: list[dict], context: dict | None = None):
    from tensorflow_serving.apis import classification_pb2

    request = classification_pb2.ClassificationRequest()
    request.model_spec.name, request.model_spec.signature_name = model, signature
    if context is None:
        request.input.example_list.examples.extend(as_example(one) for one in examples)
    else:
        request.input.example_list_with_context.context.CopyFrom(as_example(context))
        request.input.example_list_with_context.examples.extend(as_example(one) for one in examples)
    return request


def as_example(features: dict):
    import tensorflow as tf

    lists = {
        float: ("float_list", tf.train.FloatList),
        int: ("int64_list", tf.train.Int64List),
        bytes: ("bytes_list", tf.train.BytesList),
    }
    made = {}
    for name, value in features.items():
        field, kind = lists[type(value)]
        made[name] = tf.train.Feature(**{field: kind(value=[value])})
    return tf.train.Example(features=tf.train.Features(feature=made))


def test_classify_accepts_examples_with_context(stubs):
    request = classification_request("half", "tensorflow/serving/classify", [{}, {"other": b"a"}], {"x": 2.0})
    response = stubs[0].Classify(request, 60)
    rows = [[(c.label, c.score) for c in row.classes] for row in response.result.classifications]
    assert rows == [[("low", 4.0), ("high", -4.0)]] * 2


def test_metadata_has_the_signatures(stubs):
    from tensorflow_serving.apis import get_model_metadata_pb2

    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "half"
    response = stubs[0].GetModelMetadata(request, 60)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    assert signatures.signature_def["serving_default"].inputs["x"].tensor_shape.dim[0].size == -1
    assert response.model_spec.version.value == 3


def test_status(stubs):
    from tensorflow_serving.apis import get_model_status_pb2

    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "mixed"
    (version,) = stubs[1].GetModelStatus(request, 60).model_version_status
    assert (version.version, version.state, version.status.error_code) == (1, version.AVAILABLE, 0)
    request.model_spec.name = "nobody"
    with pytest.raises(grpc.RpcError) as refused:
        stubs[1].GetModelStatus(request, 60)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    assert refused.value.details() == "Could not find any versions of model nobody"


@pytest.mark.parametrize(
    ("request_of", "code", "words"),
    [
        (
            lambda: predict_request("nobody", x=floats(1)),
            "NOT_FOUND",
            "Servable not found for request: Latest(nobody)",
        ),
        (lambda: predict_request("half", "no", x=floats(1)), "FAILED_PRECONDITION", "not found"),
        (lambda: predict_request("half"), "INVALID_ARGUMENT", "Missing but required: {x}"),
        (lambda: predict_request("half", x=np.array([1], np.int32)), "INVALID_ARGUMENT", ""),
    ],
)
def test_errors(stubs, request_of, code, words):
    with pytest.raises(grpc.RpcError) as refused:
        stubs[0].Predict(request_of(), 60)
    assert refused.value.code().name == code
    assert words in refused.value.details()


class TestBeyondTensorFlowServing:
    """Behavior that TensorFlow Serving lacks or does not specify."""

    @pytest.fixture(scope="class")
    def prediction(self, ours):
        from tensorflow_serving.apis import prediction_service_pb2_grpc

        with grpc.insecure_channel(f"127.0.0.1:{ours.grpc_port}") as channel:
            yield prediction_service_pb2_grpc.PredictionServiceStub(channel)

    def test_labels_and_versions(self, prediction):
        request = predict_request("half", x=floats(1))
        request.model_spec.version_label = "stable"
        assert list(prediction.Predict(request, 60).outputs["y"].float_val) == [2.5]
        request.model_spec.version.value = 3
        assert list(prediction.Predict(request, 60).outputs["y"].float_val) == [3.5]

    def test_named_features_are_fed_from_examples(self, prediction):
        request = classification_request("mixed", "", [{"number": 1.5, "count": 7, "word": b"abc"}])
        (row,) = prediction.Classify(request, 60).result.classifications
        assert [one.score for one in row.classes] == [1.5, 7.0, 3.0]

    def test_missing_feature_is_named(self, prediction):
        with pytest.raises(grpc.RpcError) as refused:
            prediction.Classify(classification_request("mixed", "", [{"number": 1.5, "word": b"abc"}]), 60)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "Feature: count" in refused.value.details()

    def test_huge_shape_with_few_values_is_rejected(self, prediction, ours):
        """A TensorProto of a few bytes must not become an array of gigabytes."""
        from tensorflow_serving.apis import predict_pb2

        before = ours.resident_bytes()
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "half"
        request.inputs["x"].dtype = 1
        request.inputs["x"].tensor_shape.dim.add(size=1 << 40)
        request.inputs["x"].float_val.append(1.0)
        with pytest.raises(grpc.RpcError) as refused:
            prediction.Predict(request, 60)
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert ours.resident_bytes() - before < 100 << 20

    def test_malformed_message_is_rejected(self, ours):
        with grpc.insecure_channel(f"127.0.0.1:{ours.grpc_port}") as channel:
            call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
            with pytest.raises(grpc.RpcError) as refused:
                call(b"\xff\xff\xff", 60)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT

    def test_too_large_message_is_rejected(self, prediction):
        with pytest.raises(grpc.RpcError) as refused:
            prediction.Predict(predict_request("half", x=np.zeros(2 << 20, np.float32)), 60)
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED

    def test_health_check(self, ours):
        with grpc.insecure_channel(f"127.0.0.1:{ours.grpc_port}") as channel:
            check = channel.unary_unary("/grpc.health.v1.Health/Check")
            assert check(b"", 60) == b"\x08\x01"  # HealthCheckResponse(status=SERVING)


def multi_inference_request(*tasks: tuple[str, str]):
    """Tasks as pairs of a signature and a method, for two Examples of x."""
    from tensorflow_serving.apis import inference_pb2

    request = inference_pb2.MultiInferenceRequest()
    for signature, method in tasks:
        task = request.tasks.add(method_name=f"tensorflow/serving/{method}")
        task.model_spec.name, task.model_spec.signature_name = "half", f"tensorflow/serving/{signature}"
    for x in (1.0, 2.0):
        example = request.input.example_list.examples.add()
        example.features.feature["x"].float_list.value.append(x)
    return request


def test_multi_inference_classifies_and_regresses_the_same_examples(stubs):
    response = stubs[0].MultiInference(multi_inference_request(("classify", "classify"), ("regress", "regress")), 60)
    classified, regressed = response.results
    assert [one.value for one in regressed.regression_result.regressions] == [3.5, 4.0]
    rows = [[(one.label, one.score) for one in row.classes] for row in classified.classification_result.classifications]
    assert rows == [[("low", 3.5), ("high", -3.5)], [("low", 4.0), ("high", -4.0)]]
    assert regressed.model_spec.signature_name == "tensorflow/serving/regress"


@pytest.mark.parametrize(
    "tasks", [[], [("regress", "regress")] * 2, [("regress", "predict")]], ids=["none", "duplicate", "predict"]
)
def test_wrong_multi_inference_is_refused(stubs, tasks):
    with pytest.raises(grpc.RpcError) as raised:
        stubs[0].MultiInference(multi_inference_request(*tasks), 60)
    expected = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNIMPLEMENTED)
    assert raised.value.code() in expected
