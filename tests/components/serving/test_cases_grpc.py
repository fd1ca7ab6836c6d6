"""The cases of TensorFlow Serving's own tests of its gRPC interface. Each is named after its source.

predict_util_test.cc (P), classifier_test.cc (C), regressor_test.cc (R), multi_inference_test.cc (M),
get_model_metadata_impl_test.cc (D), get_model_status_impl_test.cc (G), tensorflow_model_server_test.py (S) and
saved_model_warmup_test.cc (W). What differs on purpose is in docs/SERVING.md.
"""

from __future__ import annotations

import grpc
import numpy as np
import pytest

from tests.components.serving.http2_frames import DATA, END_STREAM, Connection, call, frame, message
from tests.components.serving.test_cases_rest import CLASSES
from tests.components.serving.test_grpc import as_example

pytest.importorskip("tensorflow_serving", reason="the genuine client stubs, tensorflow-serving-api, are needed")
HALF, CASES, METHOD = "half_plus_two", "cases", "tensorflow/serving/{}"


@pytest.fixture(scope="module")
def channel(cases):
    with grpc.insecure_channel(f"127.0.0.1:{cases.grpc_port}") as channel:
        yield channel


@pytest.fixture(scope="module")
def stub(channel):
    from tensorflow_serving.apis import prediction_service_pb2_grpc

    return prediction_service_pb2_grpc.PredictionServiceStub(channel)


@pytest.fixture(scope="module")
def status_of(channel):
    from tensorflow_serving.apis import model_service_pb2_grpc

    return model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus


def proto(dtype: int, shape: list[int] | None = None, **values):
    """Return a TensorProto with values in the typed fields."""
    from tensorflow.core.framework.tensor_pb2 import TensorProto

    tensor = TensorProto(dtype=dtype, **values)
    for size in shape or []:
        tensor.tensor_shape.dim.add(size=size)
    return tensor


def predict_request(model: str | None, signature: str = "", output_filter=(), version: int | None = None, **inputs):
    from tensorflow_serving.apis import predict_pb2

    request = predict_pb2.PredictRequest(output_filter=output_filter)
    if model is not None:
        request.model_spec.name = model
        request.model_spec.signature_name = signature
    if version is not None:
        request.model_spec.version.value = version
    for name, tensor in inputs.items():
        request.inputs[name].CopyFrom(tensor)
    return request


def status(call, request) -> tuple[str, str]:
    """Return code and message of a call that fails."""
    with pytest.raises(grpc.RpcError) as refused:
        call(request, 60)
    return refused.value.code().name, refused.value.details()


FLOAT, DOUBLE, INT32, STRING, HALF_FLOAT, INT64, COMPLEX64, FLOAT_REF = 1, 2, 3, 7, 19, 9, 8, 101
TWO = dict(dtype=FLOAT, shape=[1], float_val=[2.0])


def tensors(**inputs) -> dict:
    return {name: proto(**given) for name, given in inputs.items()}


ANSWERS = {
    "P PredictionSuccess": ({"x": {"dtype": FLOAT, "float_val": [2.0]}}, "", 3.0),
    "S testPredictSavedModel": ({"x": TWO}, "serving_default", [3.0]),
    "P PredictionWithNamedRegressionSignature": (
        {"inputs": {"dtype": FLOAT, "float_val": [2.0]}},
        "regress_x2_to_y3",
        4.0,
    ),
    "P PredictionWithNamedClassificationSignature": (
        {"inputs": {"dtype": FLOAT, "float_val": [2.0]}},
        "classify_x2_to_y3",
        4.0,
    ),
    "DT_FLOAT_REF of a signature": ({}, "variable", 0.5),
    "the last value fills the rest": (
        {"x": {"dtype": FLOAT, "shape": [3], "float_val": [2.0, 4.0]}},
        "",
        [3.0, 4.0, 4.0],
    ),
    "no values are zeros": ({"x": {"dtype": FLOAT, "shape": [3]}}, "", [2.0, 2.0, 2.0]),
    "values beyond the shape are ignored": ({"x": {"dtype": FLOAT, "shape": [1], "float_val": [2.0, 4.0]}}, "", [3.0]),
    "fields of other types are ignored": (
        {"x": {"dtype": FLOAT, "shape": [1], "float_val": [2.0], "int_val": [7]}},
        "",
        [3.0],
    ),
    "tensor_content": (
        {"x": {"dtype": FLOAT, "shape": [2], "tensor_content": np.array([2, 4], np.float32).tobytes()}},
        "",
        [3.0, 4.0],
    ),
    "no rows": ({"x": {"dtype": FLOAT, "shape": [0]}}, "", []),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_predictions(stub, case):
    import tensorflow as tf

    inputs, signature, expected = ANSWERS[case]
    response = stub.Predict(predict_request(HALF, signature, **tensors(**inputs)), 60)
    (output,) = response.outputs.values()
    np.testing.assert_array_equal(tf.make_ndarray(output), np.array(expected, np.float32))
    assert output.dtype == FLOAT and not output.tensor_content
    spec = response.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == (HALF, 123, signature or "serving_default")


def test_long_tensors_of_one_value_arrive(stub):
    """A TensorProto of zeros or of one repeated value is a few bytes, whatever its shape."""
    for values, expected in (((), 2.0), ((4.0,), 4.0)):
        tensor = proto(FLOAT, [1_000_000], float_val=values)
        output = stub.Predict(predict_request(HALF, x=tensor), 60).outputs["y"]
        assert len(output.float_val) == 1_000_000 and set(output.float_val) == {expected}


def test_long_tensors_count_as_pending_bytes(stub):
    tensor = proto(FLOAT, [1 << 40], float_val=[1.0])
    assert status(stub.Predict, predict_request(HALF, x=tensor))[0] == "RESOURCE_EXHAUSTED"


def test_all_types_are_returned(stub):
    import tensorflow as tf

    for dtype in (
        "int8",
        "uint8",
        "int16",
        "int32",
        "int64",
        "uint32",
        "uint64",
        "float16",
        "float64",
        "bool",
        "complex64",
    ):
        values = np.array([0, 1, 1], dtype)
        output = stub.Predict(predict_request(CASES, dtype, default=tf.make_tensor_proto(values)), 60).outputs[
            "default"
        ]
        found = tf.make_ndarray(output)
        assert found.dtype == values.dtype and found.tolist() == values.tolist()


def test_states_change_in_the_order_of_calls(stub):
    """P PredictionWithCustomizedSignatures."""
    steps = [("get_counter", 0), ("incr_counter", 1), ("reset_counter", 0), ("incr_counter", 1), ("incr_counter_by", 4)]
    stub.Predict(predict_request(CASES, "reset_counter"), 60)
    for signature, expected in steps:
        inputs = tensors(delta={"dtype": FLOAT, "float_val": [3.0]}) if signature == "incr_counter_by" else {}
        output = stub.Predict(predict_request(CASES, signature, **inputs), 60).outputs["output"]
        assert list(output.float_val) == [expected]


@pytest.mark.parametrize(("given", "expected"), [(["x"], [11.0]), (["x", "y"], [2.0])])
def test_defaults_of_a_signature(stub, given, expected):
    inputs = {name: proto(FLOAT, [1], float_val=[1.0]) for name in given}
    assert list(stub.Predict(predict_request(CASES, "sum", **inputs), 60).outputs["sum"].float_val) == expected


X = tensors(x=TWO)
INVALID, NOT_FOUND = "INVALID_ARGUMENT", "NOT_FOUND"
REFUSED = {
    "P MissingOrEmptyModelSpec, none": (lambda: predict_request(None, **X), INVALID, ""),
    "P MissingOrEmptyModelSpec, empty": (lambda: predict_request("", **X), INVALID, ""),
    "P MissingOrEmptyModelSpec, unknown": (lambda: predict_request("test", **X), NOT_FOUND, "Latest(test)"),
    "P an unknown version": (lambda: predict_request(HALF, version=9, **X), NOT_FOUND, f"Specific({HALF}, 9)"),
    "P EmptyInputList": (lambda: predict_request(HALF), INVALID, "Missing but required: {x}"),
    "P InputTensorsDontMatchModelSpecInputs, extra": (
        lambda: predict_request(HALF, unknown_key1=proto(STRING), unknown_key2=proto(FLOAT)),
        INVALID,
        "Sent extra: {unknown_key1,unknown_key2}",
    ),
    "P InputTensorsDontMatchModelSpecInputs, missing": (
        lambda: predict_request(HALF, unknown_key1=proto(STRING), unknown_key2=proto(FLOAT)),
        INVALID,
        "Missing but required: {x}",
    ),
    "P another input": (lambda: predict_request(HALF, z=proto(**TWO)), INVALID, "Sent extra: {z}"),
    "P OutputFiltersDontMatchModelSpecOutputs, unknown": (
        lambda: predict_request(HALF, output_filter=["output_filter"], **X),
        INVALID,
        "output tensor alias not found in signature: output_filter",
    ),
    "P OutputFiltersDontMatchModelSpecOutputs, twice": (
        lambda: predict_request(HALF, output_filter=["y", "y"], **X),
        INVALID,
        "duplicate output tensor alias: y",
    ),
    "P InputTensorsHaveWrongType": (
        lambda: predict_request(HALF, x=proto(STRING, [1], string_val=[b"any_value"])),
        INVALID,
        "expected DT_FLOAT, received DT_STRING",
    ),
    "P ModelMissingSignatures": (
        lambda: predict_request(HALF, "no", **X),
        "FAILED_PRECONDITION",
        'Serving signature key "no" not found.',
    ),
    "an empty TensorProto": (lambda: predict_request(HALF, x=proto(0)), INVALID, "expected DT_FLOAT"),
    "DT_FLOAT_REF of a request": (lambda: predict_request(HALF, x=proto(FLOAT_REF, [1])), INVALID, "expected DT_FLOAT"),
    "an unknown dtype": (lambda: predict_request(HALF, x=proto(4711, [1])), INVALID, "expected DT_FLOAT"),
    "a negative dimension": (lambda: predict_request(HALF, x=proto(FLOAT, [-1])), INVALID, "known shape"),
    "tensor_content of another length": (
        lambda: predict_request(HALF, x=proto(FLOAT, [2], tensor_content=b"1234")),
        INVALID,
        "tensor_content",
    ),
    "a missing input without a default": (
        lambda: predict_request(CASES, "sum", y=proto(**TWO)),
        INVALID,
        "required: {x}",
    ),
    "the model rejects the input": (lambda: predict_request(CASES, "fails", x=proto(**TWO)), INVALID, ""),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_predict_requests_are_refused(stub, case):
    request, code, words = REFUSED[case]
    found, details = status(stub.Predict, request())
    assert found == code and words in details


def examples_request(kind: str, signature: str, examples, context=None, model: str | None = CASES):
    from tensorflow_serving.apis import classification_pb2, inference_pb2, regression_pb2

    request = {
        "classify": classification_pb2.ClassificationRequest,
        "regress": regression_pb2.RegressionRequest,
        "multi": inference_pb2.MultiInferenceRequest,
    }[kind]()
    if kind != "multi" and model is not None:
        request.model_spec.name, request.model_spec.signature_name = model, signature
    if context is not None:
        given = request.input.example_list_with_context
        given.context.CopyFrom(of_features(context))
        given.examples.extend(map(of_features, examples))
    elif examples is not None:
        request.input.example_list.SetInParent()
        request.input.example_list.examples.extend(map(of_features, examples))
    return request


def of_features(features: dict):
    """Return a tf.Example. A list has several values."""
    made = as_example({name: value[0] if isinstance(value, list) else value for name, value in features.items()})
    for name, value in features.items():
        if isinstance(value, list):
            feature = made.features.feature[name]
            getattr(feature, feature.WhichOneof("kind")).value.extend(value[1:])
    return made


SCORED = {"class": [one.encode() for one in CLASSES["class"]], "score": CLASSES["score"]}
PAIRS = [("car", 0.5), ("bike", 0.75), ("bus", 0.25)]
CLASSIFIED = {
    "C ExampleList": ("classify", [SCORED, SCORED], None, [PAIRS] * 2),
    "C ExampleListWithContext": ("classify", [{}, {}], SCORED, [PAIRS] * 2),
    "C ExampleListWithOverlappingContext": (
        "classify",
        [{"score": [1.0, 2.0, 3.0]}, {}],
        SCORED,
        [[("car", 1.0), ("bike", 2.0), ("bus", 3.0)], PAIRS],
    ),
    "C ClassesOnly": ("classify_classes", [SCORED], None, [[("car", 0.0), ("bike", 0.0), ("bus", 0.0)]]),
    "C ScoresOnly": ("classify_scores", [SCORED], None, [[("", 0.5), ("", 0.75), ("", 0.25)]]),
    "C ZeroScoresArePresent": ("classify", [{"class": [b"a"], "score": [0.0]}], None, [[("a", 0.0)]]),
    "C ValidNamedSignature": ("classify_plus_one", [SCORED], None, [[("car", 1.5), ("bike", 1.75), ("bus", 1.25)]]),
}


@pytest.mark.parametrize("case", CLASSIFIED)
def test_classifications(stub, case):
    signature, examples, context, expected = CLASSIFIED[case]
    response = stub.Classify(examples_request("classify", signature, examples, context), 60)
    found = [[(one.label, one.score) for one in row.classes] for row in response.result.classifications]
    assert found == expected and response.model_spec.signature_name == signature


REGRESSED = {
    "R BasicExampleList": ("regress", [{"output": 2.0}, {"output": 3.0}], None, [2.0, 3.0]),
    "R BasicExampleListWithContext": ("regress", [{}, {}], {"output": 3.0}, [3.0, 3.0]),
    "R ValidNamedSignature": ("regress_plus_one", [{"output": 2.0}, {"output": 3.0}], None, [3.0, 4.0]),
}


@pytest.mark.parametrize("case", REGRESSED)
def test_regressions(stub, case):
    signature, examples, context, expected = REGRESSED[case]
    response = stub.Regress(examples_request("regress", signature, examples, context), 60)
    assert [one.value for one in response.result.regressions] == expected


def test_half_plus_two_classifies_and_regresses(stub):
    """S testClassify, testRegress."""
    examples = [{"x": 2.0}]
    response = stub.Classify(examples_request("classify", "classify_x_to_y", examples, model=HALF), 60)
    assert [(one.label, one.score) for one in response.result.classifications[0].classes] == [("", 3.0)]
    response = stub.Regress(examples_request("regress", "regress_x_to_y", examples, model=HALF), 60)
    assert [one.value for one in response.result.regressions] == [3.0]
    assert (response.model_spec.name, response.model_spec.version.value) == (HALF, 123)


def test_a_single_score_has_the_name_of_the_second_class(stub, cases):
    """Beyond TensorFlow Serving: Exporter writes the names of the classes."""
    response = stub.Classify(examples_request("classify", "classify_x_to_y", [{"x": 2.0}] * 2, model="named"), 60)
    rows = [[(one.label, one.score) for one in row.classes] for row in response.result.classifications]
    assert rows == [[("high", 3.0)]] * 2
    body = {"signature_name": "classify_x_to_y", "examples": [{"x": 2.0}]}
    assert cases.post("/v1/models/named:classify", body) == (200, {"results": [[["high", 3.0]]]})


REFUSED_EXAMPLES = {
    "C InvalidNamedSignature": ("classify", "regress", [SCORED], None, "Expected classification signature method_name"),
    "C MalformedScores": ("classify", "classify_rank_3", [SCORED], None, "[batch_size num_classes]"),
    "C MissingClassificationSignature": ("classify", "no", [SCORED], None, "no"),
    "C EmptyInput": ("classify", "classify", None, None, "Input is empty."),
    "C EmptyExampleList": ("classify", "classify", [], None, "Input is empty."),
    "C EmptyExampleListWithContext": ("classify", "classify", [], SCORED, "Input is empty."),
    "C RunsFails": ("classify", "classify", [{"class": 1.0}], None, ""),
    "C ClassesIncorrectTensorType": (
        "classify",
        "classify_numbers",
        [SCORED],
        None,
        "Expected classes Tensor of DT_STRING",
    ),
    "C ScoresIncorrectTensorBatchSize": (
        "classify",
        "classify_one_row",
        [SCORED] * 2,
        None,
        "[batch_size num_classes]",
    ),
    "C MismatchedNumberOfTensorClasses": (
        "classify",
        "classify_other_width",
        [SCORED],
        None,
        "Tensors class and score should match in dim_size(1). Got 3 vs. 1",
    ),
    "R InvalidNamedSignature": ("regress", "classify", [SCORED], None, "Expected regression signature method_name"),
    "R MalformedOutputs": ("regress", "regress_rank_3", [{"output": 2.0}], None, "Expected output Tensor shape"),
    "R MissingRegressionSignature": ("regress", "no", [{"output": 2.0}], None, "no"),
    "R EmptyInput": ("regress", "regress", None, None, "Input is empty."),
    "R EmptyExampleList": ("regress", "regress", [], None, "Input is empty."),
    "R EmptyExampleListWithContext": ("regress", "regress", [], {"output": 3.0}, "Input is empty."),
    "R RunsFails": ("regress", "regress", [{"output": b"text"}], None, ""),
    "R UnexpectedOutputTensorSize": (
        "regress",
        "regress_one_row",
        [{"output": 2.0}] * 2,
        None,
        "Expected output Tensor shape",
    ),
}


@pytest.mark.parametrize("case", REFUSED_EXAMPLES)
def test_wrong_examples_are_refused(stub, case):
    kind, signature, examples, context, words = REFUSED_EXAMPLES[case]
    rpc = stub.Classify if kind == "classify" else stub.Regress
    code, details = status(rpc, examples_request(kind, signature, examples, context))
    assert code == INVALID and words in details


def multi_request(*tasks, examples=({"x": 2.0},)):
    """Tasks as (signature, method) or (signature, method, model)."""
    request = examples_request("multi", "", examples)
    for signature, method, *model in tasks:
        task = request.tasks.add(method_name=METHOD.format(method))
        task.model_spec.name, task.model_spec.signature_name = model[0] if model else HALF, signature
    return request


MULTI = {
    "M ValidSingleSignatureTest": ([("regress_x_to_y", "regress")], [[3.0]]),
    "M MultipleValidRegressSignaturesTest": (
        [("regress_x_to_y", "regress"), ("regress_x_to_y2", "regress")],
        [[3.0], [4.0]],
    ),
    "M RegressAndClassifySignaturesTest": (
        [("regress_x_to_y", "regress"), ("classify_x_to_y", "classify")],
        [[3.0], [("", 3.0)]],
    ),
    "S testMultiInference": ([("classify_x_to_y", "classify"), ("regress_x_to_y", "regress")], [[("", 3.0)], [3.0]]),
}


@pytest.mark.parametrize("case", MULTI)
def test_several_inferences(stub, case):
    tasks, expected = MULTI[case]
    found = []
    for (signature, _), result in zip(tasks, stub.MultiInference(multi_request(*tasks), 60).results):
        spec = result.model_spec
        assert (spec.name, spec.version.value, spec.signature_name) == (HALF, 123, signature)
        if result.WhichOneof("result") == "regression_result":
            found.append([one.value for one in result.regression_result.regressions])
        else:
            found.append([(c.label, c.score) for c in result.classification_result.classifications[0].classes])
    assert found == expected


REGRESS = ("regress_x_to_y", "regress")
REFUSED_MULTI = {
    "M MissingInputTest": (multi_request, [REGRESS], {"examples": None}, INVALID, "Input is empty"),
    "M UndefinedSignatureTest": (multi_request, [("no", "regress")], {}, INVALID, "not found"),
    "M InconsistentModelSpecsInRequestTest": (
        multi_request,
        [REGRESS, ("regress_x_to_y", "regress", "other")],
        {},
        INVALID,
        "must access the same model name",
    ),
    "M EvaluateDuplicateSignaturesTest": (
        multi_request,
        [REGRESS, REGRESS],
        {},
        INVALID,
        "Duplicate evaluation of signature: regress_x_to_y",
    ),
    "M UsupportedSignatureTypeTest": (
        multi_request,
        [("serving_default", "predict")],
        {},
        "UNIMPLEMENTED",
        "Unsupported signature",
    ),
    "M an unknown model": (multi_request, [("regress_x_to_y", "regress", "other")], {}, NOT_FOUND, "Latest(other)"),
    "M a model without name": (multi_request, [("regress_x_to_y", "regress", "")], {}, INVALID, ""),
    "M a method that is not the signature's": (
        multi_request,
        [("classify_x_to_y", "regress")],
        {},
        INVALID,
        "method_name",
    ),
    "M no task": (multi_request, [], {}, INVALID, ""),
}


@pytest.mark.parametrize("case", REFUSED_MULTI)
def test_wrong_multi_inference_is_refused(stub, case):
    build, tasks, more, code, words = REFUSED_MULTI[case]
    found, details = status(stub.MultiInference, build(*tasks, **more))
    assert found == code and words in details


def test_signatures_of_different_inputs_are_accepted(stub):
    """Differs: M SignaturesWithDifferentInputsTest, where one execution answers all tasks."""
    tasks = [("regress", "regress", CASES), ("regress_plus_one", "regress", CASES)]
    results = stub.MultiInference(multi_request(*tasks, examples=[{"output": 2.0}]), 60).results
    assert [one.regression_result.regressions[0].value for one in results] == [2.0, 3.0]


def metadata_request(model: str | None, fields=("signature_def",), version: int | None = None):
    from tensorflow_serving.apis import get_model_metadata_pb2

    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
    if model is not None:
        request.model_spec.name = model
    if version is not None:
        request.model_spec.version.value = version
    return request


@pytest.mark.parametrize(
    ("model", "fields", "code"),
    [
        (None, (), INVALID),
        (HALF, (), INVALID),
        (HALF, ("some_stuff",), INVALID),
        (None, ("signature_def",), INVALID),
        ("", ("signature_def",), INVALID),
        ("test", ("signature_def",), NOT_FOUND),
    ],
)
def test_wrong_metadata_requests_are_refused(stub, model, fields, code):
    """D EmptyOrInvalidMetadataFieldList, MissingOrEmptyModelSpec, ModelSpecOverride."""
    assert status(stub.GetModelMetadata, metadata_request(model, fields))[0] == code


def test_metadata_has_all_signatures(stub):
    """D ReturnsSignaturesForValidModel."""
    from tensorflow_serving.apis import get_model_metadata_pb2

    response = stub.GetModelMetadata(metadata_request(HALF, version=123), 60)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    assert (response.model_spec.name, response.model_spec.version.value) == (HALF, 123)
    assert signatures.signature_def["regress_x_to_y"].method_name == METHOD.format("regress")
    assert signatures.signature_def["serving_default"].outputs["y"].name == "y:0"


def status_request(model: str | None, version: int | None = None):
    from tensorflow_serving.apis import get_model_status_pb2

    request = get_model_status_pb2.GetModelStatusRequest()
    if model is not None:
        request.model_spec.name = model
    if version is not None:
        request.model_spec.version.value = version
    return request


@pytest.mark.parametrize(
    ("model", "version", "code"), [(None, None, INVALID), ("no", None, NOT_FOUND), (HALF, 125, NOT_FOUND)]
)
def test_wrong_status_requests_are_refused(status_of, model, version, code):
    """G MissingOrEmptyModelSpecFailure, InvalidModelNameFailure, InvalidModelVersionFailure, ModelSpecOverride."""
    assert status(status_of, status_request(model, version))[0] == code


@pytest.mark.parametrize("version", [None, 123])
def test_status(status_of, version):
    """G AllVersionsSuccess, SingleVersionSuccess; S testGetModelStatus."""
    (found,) = status_of(status_request(HALF, version), 60).model_version_status
    assert (found.version, found.state, found.status.error_code, found.status.error_message) == (123, 30, 0, "")


class TestHealth:
    """https://github.com/grpc/grpc/blob/master/doc/health-checking.md"""

    PREDICTION = b"\n%\x00"

    @staticmethod
    def request(service: str) -> bytes:
        return b"\x0a" + bytes([len(service)]) + service.encode() if service else b""

    @pytest.mark.parametrize(
        "service",
        ["", "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService", "grpc.health.v1.Health"],
    )
    def test_known_services_are_serving(self, channel, service):
        assert channel.unary_unary("/grpc.health.v1.Health/Check")(self.request(service), 60) == b"\x08\x01"
        watching = channel.unary_stream("/grpc.health.v1.Health/Watch")(self.request(service), 60)
        assert next(watching) == b"\x08\x01"
        watching.cancel()

    def test_an_unknown_service_is_not_found(self, channel):
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert status(check, self.request("tensorflow.serving.Unknown"))[0] == NOT_FOUND
        watching = channel.unary_stream("/grpc.health.v1.Health/Watch")(self.request("unknown"), 60)
        assert next(watching) == b"\x08\x03"  # SERVICE_UNKNOWN
        watching.cancel()


@pytest.mark.parametrize("package", ["grpc.reflection.v1", "grpc.reflection.v1alpha"])
def test_reflection_describes_the_services(channel, package):
    """As grpcurl does: list the services, then build their messages from the descriptors."""
    from google.protobuf import descriptor_pb2, descriptor_pool

    from kerasline.components.serving.runtime.messages import messages

    m = messages()
    reflect = channel.stream_stream(
        f"/{package}.ServerReflection/ServerReflectionInfo",
        m.ServerReflectionRequest.SerializeToString,
        m.ServerReflectionResponse.FromString,
    )
    symbol = "tensorflow.serving.PredictionService"
    questions = [{"list_services": ""}, {"file_containing_symbol": symbol}, {"file_containing_symbol": "no"}]
    listed, described, unknown = reflect(iter([m.ServerReflectionRequest(**one) for one in questions]), timeout=60)
    assert symbol in [one.name for one in listed.list_services_response.service]
    pool = descriptor_pool.DescriptorPool()
    for serialized in described.file_descriptor_response.file_descriptor_proto:
        pool.Add(descriptor_pb2.FileDescriptorProto.FromString(serialized))
    predict = pool.FindServiceByName(symbol).FindMethodByName("Predict")
    assert (
        predict.input_type.fields_by_name["inputs"].message_type.fields_by_name["value"].message_type.name
        == "TensorProto"
    )
    assert unknown.error_response.error_code == 5


def test_calls_without_te_are_refused_in_words(cases):
    """As gRPC's C core does, which checks the header because proxies that drop it also drop trailers."""
    with Connection(cases.grpc_port).begin() as connection:
        connection.send(call(1, te=None) + frame(DATA, END_STREAM, 1, message(b"")))
        answer = connection.answer()
    assert (answer["grpc-status"], answer[":status"]) == ("2", "200") and "te" in answer["grpc-message"]


def record(kind: str):
    """Return a PredictionLog for the signatures of half_plus_two."""
    from tensorflow_serving.apis import prediction_log_pb2

    log = prediction_log_pb2.PredictionLog()
    if kind == "predict":
        log.predict_log.request.CopyFrom(predict_request(HALF, x=proto(**TWO)))
    elif kind in ("regress", "classify"):
        request = examples_request(kind, f"{kind}_x_to_y", [{"x": 2.0}], model=HALF)
        getattr(log, f"{kind}_log").request.CopyFrom(request)
    elif kind == "multi":
        log.multi_inference_log.request.CopyFrom(
            multi_request(("regress_x_to_y", "regress"), ("classify_x_to_y", "classify"))
        )
    elif kind == "session_run":
        log.session_run_log.SetInParent()
    return log.SerializeToString()


WARM_UPS = {
    "W MixedWarmupData": ([record, "predict", "regress", "classify", "multi"], None),
    "W WarmupDataFileEmpty": ([record], None),
    "W a record of nothing": ([record, "nothing"], None),
    "W UnsupportedLogType": ([record, "session_run"], ("UNIMPLEMENTED", "Unsupported log_type for warmup")),
    "W UnsupportedFileFormat": ([None, "predict"], ("DATA_LOSS", "TFRecord")),
    "W UnparsableRecord": ([lambda _: b"\xff\xff", "no"], (INVALID, "record 0 is not a PredictionLog")),
    "W TooManyWarmupRecords": ([record, *["predict"] * 1001], (INVALID, "more than 1000")),
}


@pytest.mark.parametrize("case", WARM_UPS)
def test_warm_up_records(tmp_path_factory, case):
    from pathlib import Path

    import tensorflow as tf

    from kerasline.components.models.session import SavedModelSession
    from kerasline.components.serving.runtime.errors import RequestError
    from kerasline.components.serving.runtime.warmup import warm_up
    from tests.components.serving.case_model import save_half_plus_two

    folder: Path = tmp_path_factory.mktemp("warm") / "1"
    save_half_plus_two(folder)
    (build, *kinds), expected = WARM_UPS[case]
    file = folder / "assets.extra" / "tf_serving_warmup_requests"
    file.parent.mkdir()
    if build is None:
        file.write_bytes(record(kinds[0]) * 10)
    else:
        with tf.io.TFRecordWriter(str(file)) as writer:
            for kind in kinds:
                writer.write(build(kind))
    session = SavedModelSession(folder)
    try:
        if expected is None:
            done = warm_up(session, folder, invent=[])
            assert set(done.recorded) == (
                {"serving_default", "regress_x_to_y", "classify_x_to_y"} if len(kinds) > 1 else set()
            )
            return
        with pytest.raises(RequestError, match=expected[1]) as refused:
            warm_up(session, folder, invent=[])
        assert refused.value.code == expected[0]
    finally:
        session.close()
