"""The REST API as TensorFlow Serving documents it (api_rest.md)."""

from __future__ import annotations

import base64
import http.client
import json
import math
import socket
import urllib.request

import numpy as np
import pytest

from kerasline.components.serving.runtime.errors import RequestError

ROW = {"number": [1.5], "count": [7], "word": ["héron"]}


def test_status_of_a_model(server):
    status, answer = server.get("/v1/models/mixed")
    assert status == 200
    assert answer == {
        "model_version_status": [
            {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        ]
    }


def test_predict_in_row_form(server):
    assert server.post("/v1/models/half:predict", {"instances": [1.0, 2.0, 5.0]}) == (
        200,
        {"predictions": [3.5, 4.0, 5.5]},
    )


def test_predict_in_column_form(server):
    assert server.post("/v1/models/half:predict", {"inputs": [1.0, 2.0]}) == (200, {"outputs": [3.5, 4.0]})
    assert server.post("/v1/models/half:predict", {"inputs": {"x": [1.0]}}) == (200, {"outputs": [3.5]})


def test_named_inputs_in_rows_give_objects(server):
    other = {"number": [-2], "count": [0], "word": [{"b64": base64.b64encode(b"\xff\x00").decode()}]}
    status, answer = server.post("/v1/models/mixed:predict", {"instances": [ROW, other]})
    assert status == 200
    assert answer == {
        "predictions": [
            {"scores": [1.5, 7.0, 6.0], "echo_bytes": [{"b64": base64.b64encode("héron".encode()).decode()}]},
            {"scores": [-2.0, 0.0, 2.0], "echo_bytes": [{"b64": "/wA="}]},
        ]
    }


def test_named_inputs_in_columns_give_an_object(server):
    columns = {name: [value] for name, value in ROW.items()}
    status, answer = server.post("/v1/models/mixed:predict", {"inputs": columns})
    assert status == 200 and answer["outputs"]["scores"] == [[1.5, 7.0, 6.0]]


def test_scalars_and_fixed_shapes_in_columns(server):
    body = {"signature_name": "scalars", "inputs": {"a": 2.5, "b": [3, 4]}}
    assert server.post("/v1/models/mixed:predict", body) == (200, {"outputs": 17.5})


def test_whole_floats_are_written_as_decimals(server):
    request = urllib.request.Request(server.url("/v1/models/half:predict"), b'{"instances": [2]}')
    with urllib.request.urlopen(request) as answer:
        assert b"4.0" in answer.read()
        assert answer.headers["Content-Type"] == "application/json"


def test_float32_reads_back_exactly_and_short(server):
    request = urllib.request.Request(server.url("/v1/models/half:predict"), b'{"instances": [0.2]}')
    with urllib.request.urlopen(request) as answer:
        text = answer.read().decode()
    assert "3.1" in text and "3.0999" not in text and "3.1000" not in text


def test_nan_and_infinities_are_bare_tokens(server):
    status, answer = server.post("/v1/models/half:predict", b'{"instances": [NaN, Infinity, -Infinity, 1e0]}')
    assert status == 200
    nan, infinite, negative, number = answer["predictions"]
    assert math.isnan(nan) and infinite == math.inf and negative == -math.inf and number == 3.5


def test_version_is_selected_by_number(ours):
    assert ours.post("/v1/models/half/versions/1:predict", {"instances": [1]}) == (
        200,
        {"predictions": [2.5]},
    )
    assert ours.post("/v1/models/half/versions/3:predict", {"instances": [1]}) == (
        200,
        {"predictions": [3.5]},
    )


def test_version_is_selected_by_label(ours):
    assert ours.post("/v1/models/half/labels/stable:predict", {"instances": [1]}) == (
        200,
        {"predictions": [2.5]},
    )
    status, answer = ours.get("/v1/models/half/labels/stable")
    assert [one["version"] for one in answer["model_version_status"]] == ["1"]


def test_unknown_label_is_reported(ours):
    status, answer = ours.post("/v1/models/half/labels/canary:predict", {"instances": [1]})
    assert (status, answer) == (400, {"error": "Unrecognized servable version label: canary"})


def test_regress_accepts_examples(server):
    body = {"signature_name": "tensorflow/serving/regress", "examples": [{"x": 1.0}, {"x": [2.0]}]}
    assert server.post("/v1/models/half:regress", body) == (200, {"results": [3.5, 4.0]})


def test_classify_returns_labels_and_scores(server):
    body = {"signature_name": "tensorflow/serving/classify", "examples": [{"x": 1.0}, {"x": 2.0}]}
    assert server.post("/v1/models/half:classify", body) == (
        200,
        {"results": [[["low", 3.5], ["high", -3.5]], [["low", 4.0], ["high", -4.0]]]},
    )


def test_context_is_shared_by_examples(server):
    body = {
        "signature_name": "tensorflow/serving/regress",
        "context": {"x": 1.0},
        "examples": [{}, {"other": "a"}],
    }
    assert server.post("/v1/models/half:regress", body) == (200, {"results": [3.5, 3.5]})


def test_classify_feeds_named_features_from_examples(ours):
    """TensorFlow Serving rejects this: the signature has inputs by name, as Exporter writes it."""
    body = {"examples": [{"number": 1.5, "count": 7, "word": "abc"}, {"number": [2], "count": [0], "word": [""]}]}
    assert ours.post("/v1/models/mixed:classify", body) == (
        200,
        {"results": [[["", 1.5], ["", 7.0], ["", 3.0]], [["", 2.0], ["", 0.0], ["", 0.0]]]},
    )


def test_missing_features_are_filled_if_the_export_allows_it():
    """As in Transform: NaN, -1 and "" fill short lists; lists of any length are padded to the longest."""
    from kerasline.components.models.signatures import Signature, TensorSpec
    from kerasline.components.serving.runtime.examples import to_inputs

    specs = {
        "number": TensorSpec("a", 1, np.dtype("float32"), (None, 2)),
        "count": TensorSpec("b", 9, np.dtype("int64"), (None, 1)),
        "word": TensorSpec("c", 7, np.dtype("object"), (None, None)),
    }
    signature = Signature("serving_default", "", specs, {})
    given = [{"number": [1.5], "count": [], "word": [b"a", b"b"]}, {"count": [7], "word": [b"c"]}]
    number, count, word = to_inputs(given, signature, fills_missing=True)
    np.testing.assert_array_equal(number, np.array([[1.5, np.nan], [np.nan, np.nan]], np.float32))
    assert count.tolist() == [[-1], [7]] and word.tolist() == [[b"a", b"b"], [b"c", b""]]
    with pytest.raises(RequestError, match="number: expected 2 values, received 3"):
        to_inputs([{"number": [1.0, 2.0, 3.0], "count": [1], "word": [b""]}], signature, fills_missing=True)
    with pytest.raises(RequestError, match="count .* is required"):
        to_inputs([{"number": [1.0, 2.0], "word": [b"a"]}], signature, fills_missing=False)


def test_metadata_has_the_signatures(server):
    status, answer = server.get("/v1/models/half/metadata")
    assert status == 200
    assert answer["model_spec"] == {"name": "half", "signature_name": "", "version": "3"}
    signatures = answer["metadata"]["signature_def"]["signature_def"]
    assert signatures["serving_default"]["inputs"]["x"]["dtype"] == "DT_FLOAT"
    assert signatures["serving_default"]["inputs"]["x"]["tensor_shape"]["dim"][0]["size"] == "-1"
    assert signatures["tensorflow/serving/regress"]["method_name"] == "tensorflow/serving/regress"


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/v1/models/nobody:predict", 404, "Servable not found for request: Latest(nobody)"),
        ("/v1/models/half/versions/9:predict", 404, "Servable not found for request: Specific(half, 9)"),
        ("/v1/models/half:explain", 400, "Malformed request: POST /v1/models/half:explain"),
        ("/v1/models/half", 400, "Malformed request: POST /v1/models/half"),
    ],
)
def test_errors_of_paths(server, path, status, words):
    assert server.post(path, {"instances": [1]}) == (status, {"error": words})


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/v1/models/nobody", "Could not find any versions of model nobody"),
        ("/v1/models/half/versions/9", "Could not find version 9 of model half"),
    ],
)
def test_errors_of_status(server, path, words):
    assert server.get(path) == (404, {"error": words})


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "JSON Parse error: The document is empty"),
        (b"{", "JSON Parse error"),
        (b"[1]", "Is not object"),
        (b'{"instances": [1], "inputs": [1]}', "expecting only one of"),
        (b"{}", "Missing 'inputs' or 'instances' key"),
        (b'{"instances": 1}', "to be an list/array"),
        (b'{"instances": []}', "No values in 'instances' array"),
        (b'{"signature_name": 5, "instances": [1]}', "'signature_name' key must be a string value."),
        (b'{"signature_name": "no", "instances": [1]}', 'Serving signature name: "no" not found'),
        (b'{"instances": ["one"]}', 'JSON Value: "one" Type: String is not of expected type: float'),
        (b'{"instances": [null]}', "JSON Value: null Type: Null is not of expected type: float"),
        (b'{"instances": [{"z": 1}]}', "does not have named input: z"),
        (b'{"instances": [{"x": 1}, [2]]}', "Expecting object but got list at item 1 of input list"),
        (b'{"inputs": {"z": 1}}', "Missing named input: x in 'inputs' object."),
        (b'{"instances": [1e39]}', "without loss of precision"),
    ],
)
def test_errors_of_bodies(server, body, words):
    status, answer = server.post("/v1/models/half:predict", body)
    assert status == 400
    assert words in answer["error"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"instances": [{"number": [1], "count": [1]}]}, "keys must be equal to: count,number,word"),
        ({"instances": [[1]]}, "instances is a plain list, but expecting list of objects"),
        ({"inputs": [[1]]}, "inputs is a plain value/list, but expecting an object"),
        ({"instances": [{**ROW, "count": [1.5]}]}, "is not of expected type: int64"),
        ({"instances": [{**ROW, "word": [{"b64": "!!"}]}]}, "Unable to base64 decode"),
    ],
)
def test_errors_of_named_inputs(server, body, words):
    status, answer = server.post("/v1/models/mixed:predict", body)
    assert status == 400
    assert words in answer["error"]


def test_wrong_shape_names_the_expected_one(ours):
    status, answer = ours.post("/v1/models/mixed:predict", {"instances": [{**ROW, "number": [1, 2]}]})
    assert (status, answer["error"]) == (400, "input number: expected shape [?,1], received [1,2]")


def test_one_bad_request_does_not_fail_others(ours):
    """Requests that execute together are answered separately."""
    from concurrent.futures import ThreadPoolExecutor

    def ask(number: int) -> tuple[int, object]:
        bodies = ({"inputs": [number]}, {"inputs": [-number]}, {"instances": ["text"]})
        body = {"signature_name": "refuses_negative", **bodies[number % 3]}
        return ours.post("/v1/models/mixed:predict", body)

    numbers = range(3, 303)
    with ThreadPoolExecutor(24) as threads:
        answers = list(threads.map(ask, numbers))
    for number, (status, answer) in zip(numbers, answers):
        if number % 3 == 0:
            assert (status, answer) == (200, {"outputs": [number]})
        else:
            assert status == 400
            assert ("negative x" if number % 3 == 1 else "is not of expected type: int32") in answer["error"]


def test_model_list_and_openapi(ours):
    status, answer = ours.get("/v1/models")
    assert status == 200 and sorted(answer["models"]) == ["half", "mixed"]
    status, answer = ours.get("/openapi.json")
    assert status == 200 and "/v1/models/{model}:predict" in answer["paths"]


def test_metrics_count_requests_and_executions(ours):
    labels = {"protocol": "rest", "model": "half", "version": "3", "method": "predict", "code": "OK"}
    before = ours.metric("kerasline_requests_total", **labels)
    ours.post("/v1/models/half:predict", {"instances": [1]})
    assert ours.metric("kerasline_requests_total", **labels) == before + 1
    assert ours.metric("kerasline_execution_seconds_count", model="half") > 0
    assert ours.metric("kerasline_version_available", model="half", version="3") == 1


def test_expect_100_continue_is_answered(ours):
    """curl sends this header from one megabyte on, and would wait a second for the response."""
    head = "POST /v1/models/half:predict HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nConnection: close\r\n"
    for length, words in ((17, b"HTTP/1.1 100 Continue\r\n\r\n"), (5 << 20, b"HTTP/1.1 413 ")):
        with socket.create_connection(("127.0.0.1", ours.rest_port), 20) as client:
            client.sendall(f"{head}Content-Length: {length}\r\n\r\n".encode())
            assert client.recv(4096).startswith(words)
            if length == 17:
                client.sendall(b'{"instances":[1]}')
                answer = b"".join(iter(lambda: client.recv(4096), b""))
                assert answer.startswith(b"HTTP/1.1 200 OK\r\n") and answer.endswith(b'{"predictions":[3.5]}')


def test_absolute_request_target_is_accepted(ours):
    connection = http.client.HTTPConnection("127.0.0.1", ours.rest_port, timeout=20)
    connection.request("GET", "http://somewhere:80/v1/models/half/versions/3?a=b")
    answer = connection.getresponse()
    assert answer.status == 200 and b"AVAILABLE" in answer.read()
    connection.close()


def test_gzip_bodies_are_accepted(ours):
    import gzip

    body = gzip.compress(json.dumps({"instances": [1]}).encode())
    answer = ours.request("POST", "/v1/models/half:predict", body, **{"Content-Encoding": "gzip"})
    assert answer == (200, {"predictions": [3.5]})
