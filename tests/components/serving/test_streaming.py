"""Answers that are streamed while they are generated: REST, OpenAI's completions, and gRPC."""

import concurrent.futures
import contextlib
import http.client
import json
import signal
import socket

import grpc
import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.components.serving import servers
from tests.components.serving.saved_models import save_half_plus
from tests.components.serving.talker import prompts, save_talker

pytest.importorskip("tensorflow_text", reason="tensorflow-text is not installed")

GENERATE, COMPLETIONS = "/v1/models/talker:generate", "/v1/completions"
NARROW = "/v1/models/narrow:generate"


@pytest.fixture(scope="module")
def talker(tmp_path_factory):
    return save_talker(tmp_path_factory.mktemp("talker"))


@pytest.fixture(scope="module")
def server(talker, tmp_path_factory):
    """The model with four slots; as `narrow` with one, for which one request may wait; and one without generation."""
    folder = tmp_path_factory.mktemp("streaming")
    (folder / "half").mkdir()
    save_half_plus(folder / "half" / "1")
    (folder / "models.toml").write_text(
        f"[models.talker]\npath = '{talker}'\n\n[models.narrow]\npath = '{talker}'\nslots = 1\nqueue = 1\n\n"
        f"[models.half]\npath = '{folder / 'half'}'\n"
    )
    options = ("--slots", "4", "--request-log", str(folder / "log"), "--request-log-share", "1")
    with servers.serving(folder, "--models", str(folder / "models.toml"), *options) as server:
        yield server


@contextlib.contextmanager
def opened(server, path, document, **headers):
    """Send a request, and return its response once its headers have come."""
    connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=60)
    try:
        connection.request("POST", path, json.dumps(document).encode(), headers)
        yield connection.getresponse()
    finally:
        connection.close()


def events(server, path, document, **headers):
    """Return the data of all events of a response."""
    with opened(server, path, document, **headers) as response:
        assert response.status == 200, response.read()
        assert response.headers["Content-Type"] == "text/event-stream"
        *found, rest = response.read().decode().split("\n\n")
    assert rest == "" and all(one.startswith("data: ") for one in found)
    return [one.removeprefix("data: ") for one in found]


def parsed(server, path, document, **headers):
    return [json.loads(one) for one in events(server, path, document, **headers)]


def row(prompt):
    return {"instances": [{"text": prompt}]}


def said(server, prompt, **options):
    return "".join(event["text"] for event in parsed(server, GENERATE, {**row(prompt), **options}))


def whole(server, prompt):
    status, answer = server.post("/v1/models/talker:predict", row(prompt))
    assert status == 200
    return answer["predictions"][0]


@pytest.mark.parametrize("prompt", [*prompts(), "", "🐈"])
def test_streamed_answer_is_the_whole_answer(server, prompt):
    found = parsed(server, GENERATE, row(prompt))
    expected = whole(server, prompt)
    assert "".join(event["text"] for event in found) == expected["said"]
    *parts, last = found
    assert len(parts) > 1 and all(set(part) == {"text"} for part in parts)
    assert last["outputs"]["said"] == expected["said"]
    np.testing.assert_allclose(last["outputs"]["score"], expected["score"], rtol=1e-4)


def test_answers_do_not_depend_on_others(server):
    """Twice as many clients as slots, which join and leave while others generate."""
    requests = [{**row(prompt), "seed": seed} for prompt in prompts() for seed in (1, 7)]
    alone = [parsed(server, GENERATE, request) for request in requests]
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda request: parsed(server, GENERATE, request), requests))
    assert together == alone
    assert len({events[-1]["outputs"]["said"] for events in alone}) > 8
    assert server.metric("kerasline_batch_rows_bucket", model="talker", le="2.0") < server.metric(
        "kerasline_batch_rows_count", model="talker"
    )
    assert server.metric("kerasline_generated_tokens_total") > 100
    assert server.metric("kerasline_first_token_seconds_count") >= 32


def test_whole_answer_on_request(server):
    status, answer = server.post(GENERATE, {"inputs": {"text": ["the cat"]}, "stream": False})
    assert status == 200
    assert answer["outputs"]["said"] == whole(server, "the cat")["said"]
    assert answer["finish_reason"] in ("stop", "length") and answer["generated_tokens"] > 1


def test_tokens_are_limited_on_request(server):
    *_, last = parsed(server, GENERATE, {**row("the cat"), "max_tokens": 5})
    assert (last["finish_reason"], last["generated_tokens"]) == ("length", 5)
    assert whole(server, "the cat")["said"].startswith(last["outputs"]["said"].rstrip("\ufffd"))
    (only,) = parsed(server, GENERATE, {**row("the cat"), "max_tokens": 0})
    assert only["text"] == "the cat"


def test_answers_end_before_a_stop_text(server):
    expected = whole(server, "the cat")["said"]
    generated = expected.removeprefix("the cat")
    stop = generated[10:14]
    found = parsed(server, GENERATE, {**row("the cat"), "stop": ["no such text", stop]})
    text = "".join(event["text"] for event in found)
    assert text == "the cat" + generated[: generated.index(stop)]
    assert found[-1]["finish_reason"] == "stop" and found[-1]["outputs"]["said"] == text


def test_seed_and_temperature_of_a_request(server):
    assert said(server, "a cat", seed=5) == said(server, "a cat", seed=5) != said(server, "a cat", seed=6)
    assert said(server, "a cat", seed=1) == said(server, "a cat")  # the seed of the answering function
    assert said(server, "a cat", temperature=0) == said(server, "a cat", temperature=0, seed=9)


def test_client_that_hung_up_frees_its_slot(server):
    """With one slot, the next request is answered as soon as the client before has left."""
    with opened(server, NARROW, {**row("the cat"), "temperature": 0}) as response:
        assert response.fp.readline()
        response.close()
    assert parsed(server, NARROW, row("a dog"))
    servers.wait_until(lambda: server.metric("kerasline_slots_in_use", model="narrow") == 0, seconds=10)
    assert server.metric("kerasline_requests_total", code="CANCELLED", method="generate") >= 1


def test_waiting_requests_are_limited(server):
    with concurrent.futures.ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(lambda _: server.post(NARROW, {**row("the cat"), "stream": False}), range(6)))
    statuses = [status for status, _ in answers]
    assert 200 in statuses and 429 in statuses and set(statuses) == {200, 429}
    assert "too many requests wait" in next(body["error"] for status, body in answers if status == 429)


def test_slow_reader_does_not_stall_others(server):
    request = json.dumps(row("the dog")).encode()
    head = f"POST {GENERATE} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(request)}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", server.rest_port)) as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        slow.sendall(head + request)
        expected = whole(server, "a letter")["said"]
        for _ in range(5):
            assert said(server, "a letter") == expected
    assert said(server, "a letter") == expected


def test_deadline_ends_a_stream(server):
    busy = {**row("the cat"), "temperature": 0}
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        others = [threads.submit(parsed, server, GENERATE, busy) for _ in range(4)]
        with opened(server, GENERATE, busy, **{"X-Request-Timeout": "0.05"}) as response:
            body = response.read().decode()
        concurrent.futures.wait(others)
    assert "the deadline of the request was exceeded" in body
    assert response.status in (200, 504)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({**row("a"), "max_token": 3}, "unknown key 'max_token'; did you mean 'max_tokens'?"),
        ({**row("a"), "max_tokens": -1}, "max_tokens: expected 0 or more, received -1"),
        ({**row("a"), "temperature": "hot"}, "temperature: expected a number from 0, received hot"),
        ({**row("a"), "seed": 0.5}, "seed: expected an integer of 64 bits, received 0.5"),
        ({**row("a"), "stop": [""]}, "stop: expected a text"),
        ({**row("a"), "stream": 1}, "stream: expected true or false, received 1"),
        ({"instances": [{"text": "a"}, {"text": "b"}]}, "input text: expected one row"),
        ({"instances": [{"words": "a"}]}, "words"),
        ({}, "Missing 'inputs' or 'instances' key"),
    ],
)
def test_invalid_requests_are_named(server, document, message):
    status, answer = server.post(GENERATE, document)
    assert status == 400 and message in answer["error"]


def test_model_that_generates_nothing_is_named(server):
    status, answer = server.post("/v1/models/half:generate", {"instances": [1.0]})
    assert status == 400
    assert answer["error"] == "half version 1 cannot stream its answers: Exporter needs stream=True"
    status, answer = server.post(COMPLETIONS, {"model": "half", "prompt": "a"})
    assert status == 400 and answer["error"]["type"] == "invalid_request_error"


def test_streamed_requests_are_logged(server):
    """SIGHUP writes the request log."""
    folder = server.log.parent / "log" / "talker" / "serving_default"
    for given in (row("by generate"), {"model": "talker", "prompt": "by completions"}):
        server.post(GENERATE if "instances" in given else COMPLETIONS, {**given, "max_tokens": 1, "stream": False})
    server.process.send_signal(signal.SIGHUP)

    def logged(prompt):
        return any(prompt in str(pq.read_table(file)["text"].to_pylist()) for file in folder.glob("*.parquet"))

    servers.wait_until(lambda: logged("by generate") and logged("by completions"), seconds=20)


def test_steps_are_hidden_from_clients(server):
    """The signatures by which the server generates cannot be called, nor do they appear in the metadata."""
    status, answer = server.post("/v1/models/talker:predict", {"signature_name": "__stream_step", "inputs": {}})
    assert status == 400 and "not found" in answer["error"]
    assert "__stream" not in json.dumps(server.get("/v1/models/talker/metadata")[1])


# OpenAI's API (https://platform.openai.com/docs/api-reference/completions)


def test_completion_continues_the_prompt(server):
    status, answer = server.post(COMPLETIONS, {"model": "talker", "prompt": "the cat", "seed": 1, "user": "me"})
    assert status == 200
    assert answer["object"] == "text_completion" and answer["model"] == "talker" and answer["id"].startswith("cmpl-")
    (choice,) = answer["choices"]
    assert "the cat" + choice["text"] == whole(server, "the cat")["said"]
    assert choice["index"] == 0 and choice["logprobs"] is None and choice["finish_reason"] in ("stop", "length")
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > usage["prompt_tokens"] > 1


def test_completions_are_streamed(server):
    request = {"model": "talker", "prompt": "the cat", "stream": True, "stream_options": {"include_usage": True}}
    *found, done = events(server, COMPLETIONS, request)
    assert done == "[DONE]"
    *chunks, usage = map(json.loads, found)
    assert {chunk["object"] for chunk in chunks} == {"text_completion"} and len({chunk["id"] for chunk in chunks}) == 1
    text = "".join(chunk["choices"][0]["text"] for chunk in chunks)
    assert "the cat" + text == whole(server, "the cat")["said"]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1]["choices"][0]["finish_reason"] in ("stop", "length")
    assert usage["choices"] == [] and usage["usage"]["completion_tokens"] > 1


def test_completions_of_several_prompts(server):
    given = prompts()[:6]
    _, answer = server.post(COMPLETIONS, {"model": "talker", "prompt": given, "echo": True})
    assert [choice["text"] for choice in answer["choices"]] == [whole(server, prompt)["said"] for prompt in given]
    chunks = events(server, COMPLETIONS, {"model": "talker", "prompt": given, "echo": True, "stream": True})[:-1]
    texts = dict.fromkeys(range(len(given)), "")
    for choice in (json.loads(chunk)["choices"][0] for chunk in chunks):
        texts[choice["index"]] += choice["text"]
    assert list(texts.values()) == [choice["text"] for choice in answer["choices"]]


def test_models_are_listed_as_openai_lists_them(server):
    _, answer = server.get("/v1/models")
    assert answer["object"] == "list" and [one["id"] for one in answer["data"]] == ["talker", "narrow", "half"]


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ({"model": "nobody"}, 404, "Servable not found"),
        ({"prompt": [1, 2]}, 400, "prompt: expected a text or a list of texts"),
        ({"n": 2}, 400, "n: expected 1 or no value, received 2"),
        ({"logprobs": 3}, 400, "logprobs: expected no value, received 3"),
        ({"top_p": 0.5}, 400, "top_p: expected 1 or the model's own, 0.95, received 0.5"),
        ({"model": None}, 400, "model: expected the name of a model"),
    ],
)
def test_errors_have_openais_form(server, change, status, message):
    found, answer = server.post(COMPLETIONS, {"model": "talker", "prompt": "a", **change})
    assert found == status
    assert message in answer["error"]["message"] and set(answer["error"]) == {"message", "type", "code"}


@pytest.fixture
def openai_client(server):
    openai = pytest.importorskip("openai", reason="OpenAI's client is not installed: pip install openai")
    with openai.OpenAI(base_url=f"http://127.0.0.1:{server.rest_port}/v1", api_key="any", max_retries=0) as client:
        yield client


def test_openais_client_completes_and_streams(server, openai_client):
    request = {"model": "talker", "prompt": "the cat", "seed": 1}
    answer = openai_client.completions.create(**request, user="me")
    (choice,) = answer.choices
    assert "the cat" + choice.text == whole(server, "the cat")["said"]
    assert choice.finish_reason in ("stop", "length") and answer.usage.completion_tokens > 1
    options = {"include_usage": True}
    *chunks, usage = openai_client.completions.create(**request, stream=True, stream_options=options)
    assert "".join(chunk.choices[0].text for chunk in chunks) == choice.text and len(chunks) > 2
    assert chunks[-1].choices[0].finish_reason == choice.finish_reason
    assert (usage.choices, usage.usage) == ([], answer.usage)
    assert [model.id for model in openai_client.models.list()] == ["talker", "narrow", "half"]


def test_openais_client_that_closes_a_stream_frees_its_slot(server, openai_client):
    with openai_client.completions.create(model="narrow", prompt="the cat", temperature=0, stream=True) as stream:
        assert next(stream).choices[0].text
    servers.wait_until(lambda: server.metric("kerasline_slots_in_use", model="narrow") == 0, seconds=10)


def test_openais_client_raises_errors_of_its_own(openai_client):
    import openai

    with pytest.raises(openai.NotFoundError, match="Servable not found"):
        openai_client.completions.create(model="nobody", prompt="a")
    with pytest.raises(openai.BadRequestError, match="n: expected 1 or no value, received 2"):
        openai_client.completions.create(model="talker", prompt="a", n=2, stream=True)
    messages = [{"role": "user", "content": "a"}]
    with pytest.raises(openai.NotFoundError, match="expected /v1/completions with a prompt"):
        openai_client.chat.completions.create(model="talker", messages=messages)


# gRPC


@contextlib.contextmanager
def streamed(server, inputs, model="talker", signature=""):
    """Call PredictStreamed. The published stubs do not have it, so the method is called by its name."""
    from tensorflow_serving.apis import predict_pb2

    from tests.components.serving.test_grpc import predict_request

    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        call = channel.unary_stream(
            "/tensorflow.serving.PredictionService/PredictStreamed",
            request_serializer=predict_pb2.PredictRequest.SerializeToString,
            response_deserializer=predict_pb2.PredictResponse.FromString,
        )
        yield call(predict_request(model, signature, **inputs), timeout=60)


def texts_of(responses):
    return [one.outputs["said"].string_val[0].decode() for one in responses]


def test_grpc_streams_the_whole_answer(server):
    prompt = "the cat reads 猫"
    with streamed(server, {"text": np.array([[prompt]], object)}) as call:
        responses = list(call)
    expected = whole(server, prompt)
    assert "".join(texts_of(responses)) == expected["said"] and len(responses) > 2
    last = responses[-1].outputs
    assert last["finish_reason"].string_val[0] in (b"stop", b"length")
    np.testing.assert_allclose(last["score"].float_val[0], expected["score"], rtol=1e-4)
    assert responses[0].model_spec.name == "talker" and responses[0].model_spec.version.value == 1


def test_grpc_takes_settings_as_inputs(server):
    inputs = {"text": np.array([["the cat"]], object), "max_tokens": np.int64(4), "seed": np.int64(3)}
    with streamed(server, {**inputs, "stop": np.array([b"no such text"])}) as call:
        found = "".join(texts_of(call))
    assert found == said(server, "the cat", max_tokens=4, seed=3)


def test_grpc_client_that_cancels_frees_its_slot(server):
    with streamed(server, {"text": np.array([["the cat"]], object), "temperature": np.float32(0)}, "narrow") as call:
        next(call)
        call.cancel()
    assert parsed(server, NARROW, row("a dog"))
    servers.wait_until(lambda: server.metric("kerasline_slots_in_use", model="narrow") == 0, seconds=10)
    assert server.metric("kerasline_requests_total", code="CANCELLED", method="predict_streamed") >= 1


@pytest.mark.parametrize(
    ("inputs", "model", "signature", "code", "message"),
    [
        ({}, "talker", "", "INVALID_ARGUMENT", "Missing but required: {text}"),
        ({"text": np.array([["a"], ["b"]], object)}, "talker", "", "INVALID_ARGUMENT", "expected one row"),
        (
            {"text": np.array([["a"]], object), "seed": np.float32(1)},
            "talker",
            "",
            "INVALID_ARGUMENT",
            "seed: expected",
        ),
        ({"text": np.array([["a"]], object)}, "talker", "other", "FAILED_PRECONDITION", "expected serving_default"),
        ({"x": np.ones(1, np.float32)}, "half", "", "FAILED_PRECONDITION", "cannot stream"),
        ({"text": np.array([["a"]], object)}, "nobody", "", "NOT_FOUND", "Servable not found"),
    ],
)
def test_grpc_errors(server, inputs, model, signature, code, message):
    with streamed(server, inputs, model, signature) as call, pytest.raises(grpc.RpcError) as refused:
        list(call)
    assert refused.value.code() is getattr(grpc.StatusCode, code)
    assert message in refused.value.details()


@pytest.mark.slow
def test_stream_in_progress_ends_before_the_server_does(talker, tmp_path):
    with servers.serving(tmp_path, "--model", f"talker={talker}") as server:
        with opened(server, GENERATE, {**row("the cat"), "temperature": 0}) as response:
            first = response.fp.readline()
            server.process.terminate()
            rest = response.fp.read()
        assert first and b"finish_reason" in rest
        assert server.process.wait(60) == 0
