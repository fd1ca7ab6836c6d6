"""The cases of TensorFlow Serving's own tests of its REST interface. Each is named after its source.

json_tensor_test.cc (J), http_rest_api_handler_test.cc (H), tensorflow_model_server_test.py (S), classifier_test.cc (C),
regressor_test.cc (R) and api_rest.md (A). Cases of functions that no request reaches are left out. What differs on
purpose is in docs/SERVING.md, and its cases are at the end of each list of this file.
"""

from __future__ import annotations

import base64
import json
import math
import urllib.request

import pytest

HALF, CASES = "/v1/models/half_plus_two", "/v1/models/cases"
HELLO, WORLD = {"b64": "aGVsbG8="}, {"b64": "d29ybGQ="}
BIG = 1.7976931348623157e308
nan, inf = math.nan, math.inf


def predict(server, signature: str, **body):
    return server.post(f"{CASES}:predict", {"signature_name": signature, **body})


def same(found, expected) -> bool:
    """Compare JSON values of which NaN equals itself."""
    return json.dumps(found, sort_keys=True) == json.dumps(expected, sort_keys=True)


ROW = {"int_tensor": [[1, 2], [3, 4], [5, 6]], "str_tensor": ["foo", "bar"], "float_tensor": [1.0, nan]}
ECHOES = {
    "J SingleUnnamedTensor": ("int32", [[1, 2], [3, 4], [5, 6]]),
    "J MixedInputForFloatTensor": ("float32", [1, 2.0, 3, 4, 5.003, 0.007, 0.0]),
    "J MixedInputForDoubleTensor": ("float64", [1.0, 2, 3, 4, 0.662, 0, 0.0]),
    "J SingleUnnamedTensorWithSignature": ("int32", [[1, 2]]),
    "J SingleNamedTensorBase64": ("string", [["hello"], ["world"]]),
    "J MultipleNamedTensor": (
        "several",
        [
            {**ROW, "dbl_tensor": [nan]},
            {
                "int_tensor": [[7, 8], [9, 0], [1, 2]],
                "str_tensor": ["baz", "bat"],
                "float_tensor": [2.0, inf],
                "dbl_tensor": [2.0],
            },
        ],
    ),
    "A DT_BOOL": ("bool", [True, False]),
    "A DT_STRING": ("string", ["Hello World!", "héron \N{BIRD}", ""]),
    "A DT_INT8": ("int8", [1, -10, 0, 127, -128]),
    "A DT_UINT8": ("uint8", [1, 0, 255]),
    "A DT_INT16": ("int16", [1, -10, 32767]),
    "A DT_INT32": ("int32", [-(2**31), 2**31 - 1]),
    "A DT_INT64": ("int64", [-(2**63), 2**63 - 1]),
    "A DT_UINT32": ("uint32", [2**32 - 1, 0]),
    "A DT_UINT64": ("uint64", [2**64 - 1, 0]),
    "A DT_FLOAT": ("float32", [1.1, -10.0, 0, nan, inf, -inf, 1e5]),
    "A DT_DOUBLE": ("float64", [1.1, -10.0, 0, nan, inf, -inf, 1e300]),
    "A rows of lists": ("int32", [[[1, 2]], [[3, 4]]]),
    "A scalars": ("string", ["foo", "bar", "baz"]),
    "beyond: DT_HALF": ("float16", [0.5, 2.0]),
}


@pytest.mark.parametrize("case", ECHOES)
def test_rows_and_columns_arrive(cases, case):
    signature, rows = ECHOES[case]
    status, answer = predict(cases, signature, instances=rows)
    assert status == 200 and same(normal(answer["predictions"]), normal(rows)), answer
    columns = {name: [row[name] for row in rows] for name in rows[0]} if isinstance(rows[0], dict) else rows
    status, answer = predict(cases, signature, inputs=columns)
    assert status == 200 and same(normal(answer["outputs"]), normal(columns)), answer


def normal(value):
    """Return numbers as floats, because an answer of floats has no integers."""
    if isinstance(value, dict):
        return {name: normal(one) for name, one in value.items()}
    if isinstance(value, list):
        return [normal(one) for one in value]
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) and value < 2**53 else value


PREDICTIONS = {
    "J SingleUnnamedTensorBase64Scalars": ("string", {"instances": [HELLO, WORLD]}, ["hello", "world"]),
    "J SingleUnnamedTensorBase64Lists": ("string", {"instances": [[HELLO], [WORLD]]}, [["hello"], ["world"]]),
    "J SingleNamedTensorBase64": (
        "string",
        {"instances": [{"default": [[HELLO], [WORLD]]}]},
        [[["hello"], ["world"]]],
    ),
    "J SingleUnnamedTensorColumnarFormat, named": (
        "int32",
        {"inputs": {"default": [[[1, 2], [3, 4], [5, 6]]]}},
        [[[1, 2], [3, 4], [5, 6]]],
    ),
    "J SingleUnnamedTensorColumnarFormat, unnamed": ("int32", {"inputs": [[[1, 2], [3, 4]]]}, [[[1, 2], [3, 4]]]),
    "J MultipleNamedTensorColumnarFormat": (
        "columns",
        {"inputs": {"int_tensor": [[[1, 2], [3, 4]]], "str_tensor": ["foo", "bar"], "bin_tensor": HELLO}},
        {"int_tensor": [[[1, 2], [3, 4]]], "str_tensor": ["foo", "bar"], "bin_tensor": "hello"},
    ),
    "J FromJsonSingleTensor, rows": (
        "integers",
        {"instances": [0]},
        [[[1, 2], [3, 4], [5, 6]], [[7, 8], [9, 0], [1, 2]]],
    ),
    "J FromJsonSingleTensor, columns": (
        "integers",
        {"inputs": 0},
        [[[1, 2], [3, 4], [5, 6]], [[7, 8], [9, 0], [1, 2]]],
    ),
    "J FromJsonSingleScalarTensor": ("vector", {"instances": [0]}, [1, 2, 3, 4, 5]),
    "J FromJsonSingleBytesTensor": ("bytes", {"instances": [["hello", "world"]]}, [[HELLO, WORLD]]),
    "J FromJsonSingleFloatTensorNonFinite": ("not_finite", {"instances": [0]}, [[nan, inf], [3.0, -inf]]),
    "J FromJsonMultipleNamedTensors, rows": (
        "mixed",
        {"instances": [0]},
        [
            {
                "double_scalar_tensor": 8.0,
                "float_tensor": [1.0],
                "int_tensor": [[1, 2], [3, 4], [5, 6]],
                "str_tensor": ["foo", "bar"],
                "str_tensor_bytes": [HELLO, WORLD],
            },
            {
                "double_scalar_tensor": 9.0,
                "float_tensor": [2.0],
                "int_tensor": [[7, 8], [9, 0], [1, 2]],
                "str_tensor": ["baz", "bat"],
                "str_tensor_bytes": [{"b64": "dGY="}, {"b64": "c2VydmluZw=="}],
            },
        ],
    ),
    "J FromJsonMultipleNamedTensors, columns": (
        "mixed",
        {"inputs": 0},
        {
            "double_scalar_tensor": [8.0, 9.0],
            "float_tensor": [[1.0], [2.0]],
            "int_tensor": [[[1, 2], [3, 4], [5, 6]], [[7, 8], [9, 0], [1, 2]]],
            "str_tensor": [["foo", "bar"], ["baz", "bat"]],
            "str_tensor_bytes": [[HELLO, WORLD], [{"b64": "dGY="}, {"b64": "c2VydmluZw=="}]],
        },
    ),
    "J FromJsonSingleZeroBatchTensor": ("no_rows", {"instances": [0]}, []),
    "J FromJsonMultipleZeroBatchTensors": ("no_rows_twice", {"instances": [0]}, []),
    "A columns of different length": (
        "columns",
        {"inputs": {"int_tensor": [1], "str_tensor": ["a", "b"], "bin_tensor": []}},
        {"int_tensor": [1], "str_tensor": ["a", "b"], "bin_tensor": []},
    ),
    "A scalar column": ("float32", {"inputs": 2.5}, 2.5),
    "A further keys of the request": ("float32", {"inputs": [1.0], "id": 7}, [1.0]),
    "A further keys of inputs": ("float32", {"inputs": {"default": [1.0], "more": 1}}, [1.0]),
    "A base64 without padding": ("string", {"instances": [{"b64": "aGVsbG8"}]}, ["hello"]),
    "A base64 with line breaks": ("string", {"instances": [{"b64": "aGVs\nbG8=\n"}]}, ["hello"]),
    "A an object that is no base64 in an input of text": (
        "string",
        {"inputs": {"default": {"b64": "aGVsbG8="}}},
        "hello",
    ),
    "defaults of a SignatureDef, columns": ("sum", {"inputs": {"x": [1.0, 2.0]}}, [11.0, 12.0]),
    "defaults of a SignatureDef, given": ("sum", {"inputs": {"x": [1.0], "y": [2.0]}}, [3.0]),
    "beyond: defaults of a SignatureDef, rows": ("sum", {"instances": [{"x": 1.0}, {"x": 2.0}]}, [11.0, 12.0]),
    "beyond: a signature without inputs": ("reset_counter", {"inputs": {}}, 0.0),
}


@pytest.mark.parametrize("case", PREDICTIONS)
def test_predictions(cases, case):
    signature, body, expected = PREDICTIONS[case]
    status, answer = predict(cases, signature, **body)
    assert status == 200, answer
    assert same(answer["predictions" if "instances" in body else "outputs"], expected)


def test_six_digits_of_floats_are_kept(cases):
    """J FromJsonSingleFloatTensorSixDigitPrecision: the same numbers, some with other digits."""
    body = b'{"signature_name": "six_digits", "instances": [0]}'
    with urllib.request.urlopen(urllib.request.Request(cases.url(f"{CASES}:predict"), body)) as answer:
        text = answer.read().decode().replace(" ", "")
    assert json.loads(text)["predictions"] == [[9e6, 999999.0, 0.5], [0.0003, 3e-05, 555557.5]]
    assert "9000000.0" in text and "999999.0" in text  # floats are recognizable


REFUSED_BODIES = {
    "J SingleUnnamedTensorErrors, empty": ("int32", b"", "document is empty"),
    "H PredictRequestErrors, no JSON": ("int32", b"instances = [1, 2]", "JSON Parse error"),
    "J TensorFromNonNullTerminatedBuffer, text after the document": (
        "int32",
        b'{"instances": [[1]]}X',
        "JSON Parse error",
    ),
    "J no object": ("int32", b"[1, 2]", "Is not object"),
    "J single quotes": ("int32", b"{'instances': [1]}", "JSON Parse error"),
    "J trailing comma": ("int32", b'{"instances": [1,]}', "JSON Parse error"),
    "J comment": ("int32", b'{"instances": [1] /* one */}', "JSON Parse error"),
    "J invalid UTF-8": ("string", b'{"instances": ["\xff"]}', "JSON Parse error"),
}


@pytest.mark.parametrize("case", REFUSED_BODIES)
def test_malformed_documents_are_refused(cases, case):
    _, body, words = REFUSED_BODIES[case]
    status, answer = cases.post(f"{CASES}:predict", body)
    assert (status, list(answer)) == (400, ["error"]) and words in answer["error"]


REFUSED = {
    "J SingleUnnamedTensorErrors, signature": ({"signature_name": 5, "instances": [[1, 2]]}, "must be a string value"),
    "J SingleUnnamedTensorErrors, both": ({"instances": [[1, 2]], "inputs": [[1, 2]]}, "expecting only one of"),
    "J SingleUnnamedTensorErrors, size": ({"instances": [[1, 2], [3, 4], [5, 6, 7]]}, ""),
    "J SingleUnnamedTensorErrors, shape": ({"instances": [[1, 2], [3, 4], [[5, 6]]]}, ""),
    "J SingleUnnamedTensorErrors, depth": ({"instances": [1, [1]]}, ""),
    "J SingleUnnamedTensorErrors, type": ({"instances": [[1, 2], ["a", "b"]]}, "not of expected type"),
    "J SingleUnnamedTensorErrors, too large": ({"signature_name": "float32", "instances": [BIG]}, "loss of precision"),
    "J no values": ({"instances": []}, "No values in 'instances' array"),
    "J no list": ({"instances": 1}, "to be an list/array"),
    "J neither": ({}, "Missing 'inputs' or 'instances' key"),
    "J null": ({"instances": [None]}, "Type: Null is not of expected type"),
    "J decimal for integer": ({"instances": [1.5]}, "not of expected type"),
    "J text for integer": ({"inputs": ["1"]}, "Type: String is not of expected type"),
    "J object for integer": ({"inputs": [{"a": 1}]}, "Type: Object is not of expected type"),
    "J boolean for integer": ({"instances": [True]}, "is not of expected type"),
    "J number for boolean": (
        {"signature_name": "bool", "instances": [1]},
        "Type: Number is not of expected type: bool",
    ),
    "J number for text": (
        {"signature_name": "string", "instances": [1]},
        "Type: Number is not of expected type: string",
    ),
    "J wrong base64": ({"signature_name": "string", "instances": [{"b64": "!"}]}, "Unable to base64 decode"),
    "J base64 and another key": ({"signature_name": "string", "inputs": [{"b64": "YQ==", "a": 1}]}, "base64 data"),
    "J base64 of a number": ({"signature_name": "string", "inputs": [{"b64": 1}]}, "base64 data"),
    "J base64 for integer": ({"inputs": [{"b64": "YQ=="}]}, "Type: Object is not of expected type"),
    "J unsigned below 0": ({"signature_name": "uint64", "instances": [-1]}, "is not of expected type: uint64"),
    "J int64 too large": ({"signature_name": "int64", "instances": [2**63]}, "is not of expected type: int64"),
    "J unknown signature": ({"signature_name": "no", "instances": [1]}, 'Serving signature name: "no" not found'),
    "J MultipleNamedTensorErrors, object and list": (
        {"signature_name": "columns", "instances": [{"int_tensor": 1, "str_tensor": "a", "bin_tensor": "b"}, [1]]},
        "Expecting object but got list at item 1",
    ),
    "J MultipleNamedTensorErrors, list and object": (
        {"signature_name": "string", "instances": [["baz", "bar"], {"default": ["baz", "bat"]}]},
        "",
    ),
    "J MultipleNamedTensorErrors, shape": (
        {
            "signature_name": "columns",
            "instances": [
                {"int_tensor": [[1, 2]], "str_tensor": ["a"], "bin_tensor": "b"},
                {"int_tensor": [[[7, 8]]], "str_tensor": ["a"], "bin_tensor": "b"},
            ],
        },
        "",
    ),
    "J MultipleNamedTensorErrors, size": (
        {
            "signature_name": "columns",
            "instances": [
                {"int_tensor": [[1, 2], [3, 4]], "str_tensor": ["a"], "bin_tensor": "b"},
                {"int_tensor": [[7, 8]], "str_tensor": ["a"], "bin_tensor": "b"},
            ],
        },
        "",
    ),
    "J missing key of a row": (
        {"signature_name": "columns", "instances": [{"int_tensor": 1}]},
        "keys must be equal to: bin_tensor,int_tensor,str_tensor",
    ),
    "J unknown key of a row": ({"instances": [{"z": 1}]}, "does not have named input: z"),
    "J plain rows for several inputs": ({"signature_name": "columns", "instances": [1]}, "instances is a plain list"),
    "J plain columns for several inputs": (
        {"signature_name": "columns", "inputs": [1]},
        "inputs is a plain value/list",
    ),
    "J missing input": ({"inputs": {"z": 1}}, "Missing named input: default in 'inputs' object."),
    "J FromJsonSingleTensorErrors, complex": (
        {"signature_name": "complex", "instances": [0]},
        "tensor type: complex64",
    ),
    "J FromJsonSingleTensorErrors, scalar": ({"signature_name": "scalar", "instances": [0]}, "no shape information"),
    "J FromJsonMultipleNamedTensorsErrors": (
        {"signature_name": "batch_sizes", "instances": [0]},
        "inconsistent batch size",
    ),
    "J FromJsonMultipleZeroBatchTensorsErrors": (
        {"signature_name": "no_rows_once", "instances": [0]},
        "inconsistent batch size",
    ),
    "the model rejects the input": ({"signature_name": "fails", "instances": [1, 2]}, ""),
    "beyond: int8 out of range, which TensorFlow Serving wraps": (
        {"signature_name": "int8", "instances": [300]},
        "is not of expected type: int8",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_predict_requests_are_refused(cases, case):
    body, words = REFUSED[case]
    status, answer = cases.post(f"{CASES}:predict", {"signature_name": "int32", **body})
    assert (status, list(answer)) == (400, ["error"]) and words in answer["error"]


def test_types_that_json_lacks_are_unimplemented(cases):
    """json_tensor.cc: conversion to another type is UNIMPLEMENTED, which is 501."""
    assert predict(cases, "complex64", instances=[1.0])[0] == 501


@pytest.mark.parametrize("value", [16777217, 9007199254740993])
def test_integers_that_a_float_rounds_are_accepted(cases, value):
    """Differs: J SingleUnnamedTensorErrors refuses what a float32 or float64 must round."""
    name = "float32" if value < 2**32 else "float64"
    assert predict(cases, name, instances=[value]) == (200, {"predictions": [float(value - 1)]})


def test_the_last_of_duplicate_keys_counts(cases):
    """Differs: rapidjson finds the first."""
    body = b'{"signature_name": "no", "signature_name": "float32", "inputs": [1.0], "inputs": [2.0]}'
    assert cases.post(f"{CASES}:predict", body) == (200, {"outputs": [2.0]})


def test_a_byte_order_mark_is_skipped(cases):
    """rapidjson's EncodedInputStream skips it."""
    body = '\ufeff{"signature_name": "float32", "inputs": [1.0]}'.encode()
    assert cases.post(f"{CASES}:predict", body) == (200, {"outputs": [1.0]})


PATHS = {
    "H UnsupportedApiCalls, GET foo": ("GET", "/v1/foo", 400, "Malformed request: GET /v1/foo"),
    "H UnsupportedApiCalls, POST foo": ("POST", "/v1/foo", 400, "Malformed request: POST /v1/foo"),
    "H UnsupportedApiCalls, POST models": ("POST", "/v1/models", 400, "Malformed request"),
    "H UnsupportedApiCalls, GET predict": ("GET", "/v1/models/foo:predict", 400, "Malformed request"),
    "H UnsupportedApiCalls, GET version": ("GET", "/v1/models/foo/version/50:predict", 400, "Malformed request"),
    "H UnsupportedApiCalls, POST version": ("POST", "/v1/models/foo/version/50:regress", 400, "Malformed request"),
    "H UnsupportedApiCalls, no number": ("POST", "/v1/models/foo/versions/HELLO:regress", 400, "Malformed request"),
    "H UnsupportedApiCalls, too large": (
        "POST",
        f"/v1/models/foo/versions/{2**64 - 1}:regress",
        400,
        "Failed to convert version",
    ),
    "H UnsupportedApiCalls, both": ("POST", f"{HALF}/versions/1/labels/a:predict", 400, "Malformed request"),
    "H UnsupportedApiCalls, no operation": ("POST", HALF, 400, "Malformed request"),
    "H UnsupportedApiCalls, unknown operation": ("POST", f"{HALF}:explain", 400, "Malformed request"),
    "H PredictModelNameVersionErrors, name": ("POST", "/v1/models/foo:predict", 404, "Latest(foo)"),
    "H PredictModelNameVersionErrors, both": ("POST", "/v1/models/foo/versions/50:predict", 404, "Specific(foo, 50)"),
    "H PredictModelNameVersionErrors, version": (
        "POST",
        f"{HALF}/versions/99:predict",
        404,
        "Specific(half_plus_two, 99)",
    ),
    "H PredictModelNameVersionErrors, label": (
        "POST",
        f"{HALF}/labels/no:predict",
        400,
        "Unrecognized servable version label",
    ),
    "H Regress, name": ("POST", "/v1/models/foo:regress", 404, "Servable not found"),
    "H Classify, name": ("POST", "/v1/models/foo:classify", 404, "Servable not found"),
    "H GetStatus, name": ("GET", "/v1/models/foo", 404, "Could not find any versions of model foo"),
    "H GetStatus, version": ("GET", f"{HALF}/versions/99", 404, "Could not find version 99 of model half_plus_two"),
    "H GetModelMetadata, name": ("GET", "/v1/models/foo/metadata", 404, "Servable not found"),
    "H GetModelMetadata, version": ("GET", f"{HALF}/versions/99/metadata", 404, "Servable not found"),
    "A another path": ("GET", "/statuspage", 404, "Not found"),
}


@pytest.mark.parametrize("case", PATHS)
def test_wrong_paths_are_refused(cases, case):
    method, path, expected, words = PATHS[case]
    status, answer = cases.request(method, path, b'{"instances": [1]}' if method == "POST" else None)
    assert (status, list(answer)) == (expected, ["error"]) and words in answer["error"]


STATUS = {
    "model_version_status": [
        {"version": "123", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    ]
}
ANSWERS = {
    "H Predict": (
        "POST",
        f"{HALF}:predict",
        {"instances": [[1.0, 2.0], [3.0, 4.0]]},
        {"predictions": [[2.5, 3.0], [3.5, 4.0]]},
    ),
    "H Predict, version": (
        "POST",
        f"{HALF}/versions/123:predict",
        {"instances": [1.0, 2.0]},
        {"predictions": [2.5, 3.0]},
    ),
    "H Predict, signature": (
        "POST",
        f"{HALF}/versions/123:predict",
        {"signature_name": "serving_default", "instances": [3.0, 4.0]},
        {"predictions": [3.5, 4.0]},
    ),
    "H Predict, columns": (
        "POST",
        f"{HALF}/versions/123:predict",
        {"signature_name": "serving_default", "inputs": [3.0, 4.0]},
        {"outputs": [3.5, 4.0]},
    ),
    "H Predict, empty signature": (
        "POST",
        f"{HALF}:predict",
        {"signature_name": "", "inputs": [2.0]},
        {"outputs": [3.0]},
    ),
    "H Regress": (
        "POST",
        f"{HALF}:regress",
        {"signature_name": "regress_x_to_y", "examples": [{"x": 80.0}]},
        {"results": [42.0]},
    ),
    "H Regress, version": (
        "POST",
        f"{HALF}/versions/123:regress",
        {"signature_name": "regress_x_to_y", "examples": [{"x": 80.0}]},
        {"results": [42.0]},
    ),
    "H Classify": (
        "POST",
        f"{HALF}:classify",
        {"signature_name": "classify_x_to_y", "examples": [{"x": 20.0}]},
        {"results": [[["", 12.0]]]},
    ),
    "H Classify, version": (
        "POST",
        f"{HALF}/versions/123:classify",
        {"signature_name": "classify_x_to_y", "examples": [{"x": 10.0}]},
        {"results": [[["", 7.0]]]},
    ),
    "S testClassifyREST": (
        "POST",
        f"{HALF}:classify",
        {"signature_name": "classify_x_to_y", "examples": [{"x": 2.0}]},
        {"results": [[["", 3.0]]]},
    ),
    "S testRegressREST": (
        "POST",
        f"{HALF}:regress",
        {"signature_name": "regress_x_to_y", "examples": [{"x": 2.0}]},
        {"results": [3.0]},
    ),
    "S testPredictREST": ("POST", f"{HALF}:predict", {"instances": [2.0, 3.0, 4.0]}, {"predictions": [3.0, 3.5, 4.0]}),
    "S testPredictColumnarREST": ("POST", f"{HALF}:predict", {"inputs": [2.0, 3.0, 4.0]}, {"outputs": [3.0, 3.5, 4.0]}),
    "S testGetStatusREST": ("GET", HALF, None, STATUS),
    "H GetStatus, version": ("GET", f"{HALF}/versions/123", None, STATUS),
    "H the path in capitals": ("GET", "/V1/MODELS/half_plus_two/VERSIONS/123", None, STATUS),
    "predict with a signature of regress": (
        "POST",
        f"{HALF}:predict",
        {"signature_name": "regress_x2_to_y3", "instances": [2.0]},
        {"predictions": [4.0]},
    ),
    "DT_FLOAT_REF": ("POST", f"{HALF}:predict", {"signature_name": "variable", "inputs": {}}, {"outputs": 0.5}),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_answers(cases, case):
    method, path, body, expected = ANSWERS[case]
    assert cases.request(method, path, body and json.dumps(body).encode()) == (200, expected)


def test_metadata_has_all_signatures(cases):
    """H GetModelMetadata."""
    status, answer = cases.get(f"{HALF}/versions/123/metadata")
    assert status == 200
    assert answer["model_spec"] == {"name": "half_plus_two", "signature_name": "", "version": "123"}
    signatures = answer["metadata"]["signature_def"]["signature_def"]
    assert {"serving_default", "regress_x_to_y", "classify_x_to_y"} <= set(signatures)
    assert signatures["regress_x_to_y"]["inputs"]["inputs"]["name"] == "tf_example:0"
    assert signatures["variable"]["outputs"]["a"]["dtype"] == "DT_FLOAT_REF"


def test_the_list_of_models_is_beyond_tensorflow_serving(cases):
    """Differs: H UnsupportedApiCalls answers GET /v1/models with `Missing model name in request.`"""
    assert cases.get("/v1/models")[0] == 200


EXAMPLES = {
    "J RequestNoContext": ({"examples": [{"output": 2.0, "names": ["foo"]}, {"output": [3.0]}]}, [2.0, 3.0]),
    "J RequestWithContextAndSignature": (
        {
            "context": {"query": "pizza", "output": [8.0]},
            "examples": [
                {"names": ["baz", HELLO], "ints": [1, True, False]},
                {"output": inf},
                {"output": -inf, "names": "bar"},
            ],
        },
        [8.0, inf, -inf],
    ),
    "J RequestWithContextAndSignature, NaN": ({"examples": [{"output": nan}]}, [nan]),
    "R BasicExampleList": ({"examples": [{"output": 2.0}, {"output": 3.0}]}, [2.0, 3.0]),
    "R BasicExampleListWithContext": ({"context": {"output": 3.0}, "examples": [{}, {}]}, [3.0, 3.0]),
    "R ValidNamedSignature": (
        {"signature_name": "regress_plus_one", "examples": [{"output": 2.0}, {"output": 3.0}]},
        [3.0, 4.0],
    ),
}


@pytest.mark.parametrize("case", EXAMPLES)
def test_examples_are_read(cases, case):
    body, expected = EXAMPLES[case]
    status, answer = cases.post(f"{CASES}:regress", {"signature_name": "regress", **body})
    assert status == 200 and same(answer, {"results": expected})


CLASSES = {"class": ["car", "bike", "bus"], "score": [0.5, 0.75, 0.25]}
CLASSIFIED = {
    "J JsonFromClassificationResult": ({}, [["car", 0.5], ["bike", 0.75], ["bus", 0.25]]),
    "C ValidNamedSignature": ({"signature_name": "classify_plus_one"}, [["car", 1.5], ["bike", 1.75], ["bus", 1.25]]),
    "C ClassesOnly": ({"signature_name": "classify_classes"}, [["car", 0.0], ["bike", 0.0], ["bus", 0.0]]),
    "C ScoresOnly": ({"signature_name": "classify_scores"}, [["", 0.5], ["", 0.75], ["", 0.25]]),
}


@pytest.mark.parametrize("case", CLASSIFIED)
def test_classes_and_scores(cases, case):
    body, expected = CLASSIFIED[case]
    body = {"signature_name": "classify", "examples": [CLASSES], **body}
    assert cases.post(f"{CASES}:classify", body) == (200, {"results": [expected]})


REFUSED_EXAMPLES = {
    "J JsonErrors, signature": (
        {"signature_name": ["hello"], "examples": [{}]},
        "'signature_name' key must be a string",
    ),
    "J JsonErrors, context": ({"context": [{"names": ["foo"]}], "examples": [{}]}, "Example must be JSON object"),
    "J JsonErrors, no list": ({"examples": {"names": ["foo"]}}, "list/array"),
    "J JsonErrors, list of lists": ({"examples": [[{"names": ["foo"]}]]}, "Example must be JSON object"),
    "J JsonErrors, null": ({"examples": [{"names": [10, None]}]}, "names has element with unexpected JSON type: Null"),
    "J JsonErrors, mixed": ({"examples": [{"names": [10, 10.0]}]}, "feature: names expecting type: int64"),
    "J JsonErrors, object": ({"examples": [{"names": [10, {"test": 10}]}]}, "unexpected JSON type: Object"),
    "J JsonErrors, list": ({"examples": [{"names": [[10], 20]}]}, "unexpected JSON type: Array"),
    "J JsonErrors, uint64": ({"examples": [{"names": [20, 18446744073709551603]}]}, "Only int64 is supported"),
    "J JsonErrors, too large": ({"examples": [{"names": BIG}]}, "loss of precision"),
    "J examples missing": ({"context": {}}, "key 'examples' is expected and was not found"),
    "J examples empty": ({"examples": []}, "'examples' value is an empty array"),
    "J a number as example": ({"examples": [1]}, "Example must be JSON object but got JSON Number"),
    "J text and number": ({"examples": [{"names": ["a", 1]}]}, "feature: names expecting type: bytes"),
    "R InvalidNamedSignature": ({"signature_name": "no", "examples": [{}]}, "no"),
    "R MalformedOutputs": (
        {"signature_name": "regress_rank_3", "examples": [{"output": 2.0}]},
        "Expected output Tensor shape to be either [batch_size] or [batch_size, 1]",
    ),
    "R UnexpectedOutputTensorSize": (
        {"signature_name": "regress_one_row", "examples": [{"output": 2.0}, {"output": 3.0}]},
        "Expected output Tensor shape",
    ),
    "R a signature of classify": (
        {"signature_name": "classify", "examples": [CLASSES]},
        "Expected regression signature method_name to be tensorflow/serving/regress",
    ),
    "R the model cannot read the type": ({"examples": [{"output": "text"}]}, "output"),
}


@pytest.mark.parametrize("case", REFUSED_EXAMPLES)
def test_wrong_regress_requests_are_refused(cases, case):
    body, words = REFUSED_EXAMPLES[case]
    status, answer = cases.post(f"{CASES}:regress", {"signature_name": "regress", **body})
    assert (status, list(answer)) == (400, ["error"]) and words in answer["error"]


REFUSED_CLASSES = {
    "C InvalidNamedSignature": ("regress", "Expected classification signature method_name"),
    "C MalformedScores": ("classify_rank_3", "[batch_size num_classes]"),
    "C ClassesIncorrectTensorType": ("classify_numbers", "Expected classes Tensor of DT_STRING"),
    "C MismatchedNumberOfTensorClasses": ("classify_other_width", "should match in dim_size(1). Got 3 vs. 1"),
    "C ScoresIncorrectTensorBatchSize": ("classify_one_row", "[batch_size num_classes]"),
    "C MissingClassificationSignature": ("no", "no"),
}


@pytest.mark.parametrize("case", REFUSED_CLASSES)
def test_wrong_outputs_of_classify_are_refused(cases, case):
    signature, words = REFUSED_CLASSES[case]
    status, answer = cases.post(f"{CASES}:classify", {"signature_name": signature, "examples": [CLASSES, CLASSES]})
    assert (status, list(answer)) == (400, ["error"]) and words in answer["error"]


def test_error_messages_are_json(cases):
    """J StatusError: quotation marks are escaped once."""
    status, answer = cases.post(f"{CASES}:predict", {"signature_name": 'a "b" \n', "inputs": 1})
    assert (status, answer["error"]) == (400, 'Serving signature name: "a "b" \n" not found in signature def')


def test_binary_features_arrive(cases):
    """A: a feature of bytes as base64."""
    label = {"b64": base64.b64encode(b"caf\xc3\xa9").decode()}
    body = {"signature_name": "classify", "examples": [{"class": [label], "score": [1.0]}]}
    assert cases.post(f"{CASES}:classify", body) == (200, {"results": [[["café", 1.0]]]})
