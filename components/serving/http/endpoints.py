"""The REST endpoints: TensorFlow Serving's API, health, readiness and metrics."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gzip
import re
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple
from urllib.parse import unquote

import numpy as np
from aiohttp import web
from multidict import CIMultiDict

from kerasline.components.core import garbage_collection
from kerasline.components.models.session import SavedModelSession
from kerasline.components.models.signatures import DEFAULT_SIGNATURE, Signature
from kerasline.components.models.versions import HIGHEST
from kerasline.components.serving.http import generation, json_codec, wide_rows
from kerasline.components.serving.http.connections import SERVER_NAME, Connection
from kerasline.components.serving.http.openapi import describe_api
from kerasline.components.serving.runtime import examples
from kerasline.components.serving.runtime.admission import (
    REPEATED_HEADERS,
    AdmissionControl,
    RequestRecord,
    Reservation,
)
from kerasline.components.serving.runtime.batching import Inputs, count_rows
from kerasline.components.serving.runtime.errors import RequestError, from_exception, invalid, not_found
from kerasline.components.serving.runtime.metadata import metadata_json, status_json
from kerasline.components.serving.runtime.metrics import Metrics
from kerasline.components.serving.runtime.models import Models, Version
from kerasline.components.serving.runtime.signatures import find_signature

# Endpoints of one model, by what follows /v1/models/NAME[/versions/N | /labels/LABEL]: HTTP method and operation.
MODEL_ENDPOINTS = {
    ":predict": ("POST", "predict"),
    ":classify": ("POST", "classify"),
    ":regress": ("POST", "regress"),
    ":generate": ("POST", "generate"),
    "": ("GET", "status"),
    "/metadata": ("GET", "metadata"),
}
# Endpoints of the whole server, all GET: the method of RestEndpoints that answers.
SERVER_ENDPOINTS = {
    "/v1/models": "_list_models",
    "/openapi.json": "_describe",
    "/metrics": "_report_metrics",
    "/monitoring/prometheus/metrics": "_report_metrics",
}
# The same, answered without an API key.
OPEN_ENDPOINTS = {"/healthz": "_report_health", "/readyz": "_report_readiness"}

JSON = "application/json"
# Bodies and outputs from this size on are converted in a thread.
LARGE_BYTES = 1 << 16
# Responses from this size on are compressed for clients that accept it.
COMPRESSED_BYTES = 1 << 12
COMPRESSION_LEVEL = 1
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
TIMEOUT_HEADER = "X-Request-Timeout"
CORS_HEADERS = f"Content-Type, Authorization, X-API-Key, {TIMEOUT_HEADER}, {', '.join(REPEATED_HEADERS)}"
_MODEL_PATH = re.compile(
    r"(?i:/v1/models/)(?P<name>[^/:]+)(?:(?i:/versions/)(?P<version>[0-9]+)|(?i:/labels/)(?P<label>[^/:]+))?"
    rf"(?P<endpoint>{'|'.join(filter(None, MODEL_ENDPOINTS))}|)"
)
_ORIGIN = re.compile(r"\Ahttps?://[^/]*", re.IGNORECASE)


# The body of a response, or its parts, and its content type.
Answer = tuple[bytes | AsyncGenerator[bytes, None], str]


class Target(NamedTuple):
    """The model, the version and the operation that a path names."""

    model: str
    version: int | None
    label: str | None
    operation: str
    http_method: str


class RestEndpoints:
    """Answer the requests of one `aiohttp.web.Server`."""

    def __init__(self, models: Models, admission: AdmissionControl, metrics: Metrics, cors_origins: Sequence[str] = ()):
        self._cors_origins = cors_origins
        self._models, self._admission, self._metrics = models, admission, metrics
        self._target = functools.lru_cache(maxsize=1024)(_parse_path)
        # One thread: parsers hold Python's global interpreter lock, so several would only stop the event loop longer.
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="json")

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.raw_path
        record = RequestRecord(request.method, path.partition("?")[0])  # a query may contain secrets
        record.repeat_headers(request.headers.get)
        connection = request.protocol
        assert isinstance(connection, Connection), "BoundedServer creates the connections"
        connection.begin(record.started)
        try:
            body, content_type = await self._answer(request, path, record)
            status = 200
            if not isinstance(body, bytes):
                return await self._stream(body, content_type, request, record)
        except RequestError as error:
            record.set_error(error)
            body, content_type, status = generation.error_body(error, record.path), JSON, error.http_status
        except (ConnectionError, asyncio.CancelledError):  # the client hung up
            record.code = "CANCELLED"
            client = request.remote if self._admission.writes_log else None
            self._admission.finish(record, protocol="rest", client=client, status=499, size_out=0)
            raise
        except Exception as raised:
            failure = from_exception(raised)
            record.set_error(failure)
            body, content_type, status = generation.error_body(failure, record.path), JSON, failure.http_status
        headers = self._headers(content_type, request, record)
        if status in (429, 503):
            headers["Retry-After"] = "1"
        if status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        if len(body) >= COMPRESSED_BYTES and accepts_gzip(request.headers.get("Accept-Encoding", "")):
            body = await self._compressed(body)
            headers["Content-Encoding"] = "gzip"
            headers.add("Vary", "Accept-Encoding")
        response = web.Response(body=body, status=status, headers=headers)
        if self._admission.is_draining or status == 408:
            response.force_close()
        client = request.remote if self._admission.writes_log else None
        self._admission.finish(record, protocol="rest", client=client, status=status, size_out=len(body))
        connection.end(time.monotonic())
        return response

    async def _stream(
        self, events: AsyncGenerator[bytes, None], content_type: str, request: web.BaseRequest, record: RequestRecord
    ) -> web.StreamResponse:
        """Send events as they come. A client that hung up ends the iterator."""
        headers = self._headers(content_type, request, record)
        headers.update({"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})  # for proxies
        response = web.StreamResponse(headers=headers)
        size = 0
        async with contextlib.aclosing(events):
            await response.prepare(request)
            try:
                async for event in events:
                    size += len(event)
                    await response.write(event)
            except ConnectionError:
                raise
            except Exception as raised:  # the status was sent before
                error = from_exception(raised)
                record.set_error(error)
                await response.write(generation.error_event(error, record.path))
        await response.write_eof()
        if self._admission.is_draining:
            response.force_close()
        client = request.remote if self._admission.writes_log else None
        self._admission.finish(record, protocol="rest", client=client, status=200, size_out=size)
        connection = request.protocol
        assert isinstance(connection, Connection), "BoundedServer creates the connections"
        connection.end(time.monotonic())
        return response

    def _headers(self, content_type: str, request: web.BaseRequest, record: RequestRecord) -> CIMultiDict[str]:
        headers = CIMultiDict({"Content-Type": content_type, "Server": SERVER_NAME})
        if self._cors_origins and (origin := request.headers.get("Origin")) is not None:
            headers.update(self._cors_headers(origin, request))
        headers.update(record.repeated)
        return headers

    async def _compressed(self, body: bytes) -> bytes:
        compress = functools.partial(gzip.compress, body, COMPRESSION_LEVEL, mtime=0)
        if len(body) < LARGE_BYTES:
            return compress()
        return await asyncio.get_running_loop().run_in_executor(None, compress)

    async def _answer(self, request: web.BaseRequest, path: str, record: RequestRecord) -> Answer:
        path = path.partition("?")[0]
        if not path.startswith("/"):  # the absolute form, as a proxy may send it
            path = _ORIGIN.sub("", path) or "/"
        method = "GET" if request.method == "HEAD" else request.method  # aiohttp leaves out the body
        if method == "OPTIONS" and self._cors_origins and "Access-Control-Request-Method" in request.headers:
            return b"", "text/plain"  # a preflight request, which has no API key
        if path in OPEN_ENDPOINTS:
            return getattr(self, OPEN_ENDPOINTS[path])()
        admission = self._admission
        if admission.needs_key:
            admission.check_key(request.headers.get("x-api-key"), request.headers.get("authorization"))
        if path == generation.COMPLETIONS and method == "POST":
            record.method = "completions"
            return await self._complete(request, record)
        target = self._target(path)
        if target is None:
            return self._answer_server_endpoint(method, path)
        record.method = target.operation
        if method != target.http_method:
            raise invalid(f"Malformed request: {request.method} {path}")
        if target.operation == "status":
            return json_codec.write(status_json(self._models.status(*target[:3]))), JSON
        version = self._models.find(*target[:3])
        record.set_target(version, "")
        if target.operation == "metadata":
            return json_codec.write(metadata_json(version)), JSON
        deadline = admission.deadline(_requested_seconds(request))
        with Reservation(admission) as reserved:
            body = await self._read(request, deadline, reserved)
            record.size_in = len(body)
            if target.operation == "generate":
                version = self._models.find(*target[:3])
                record.set_target(version, DEFAULT_SIGNATURE)
                record.rows = 1
                return await _begun(generation.generate(version, body, deadline))
            return await self._infer(target, body, record, deadline), JSON

    async def _complete(self, request: web.BaseRequest, record: RequestRecord) -> Answer:
        """Answer a request of OpenAI's API, whose body names the model."""
        deadline = self._admission.deadline(_requested_seconds(request))
        with Reservation(self._admission) as reserved:
            body = await self._read(request, deadline, reserved)
            record.size_in = len(body)
            completion = generation.read_completion(body)
            version = self._models.find(completion.model)
            record.set_target(version, DEFAULT_SIGNATURE)
            record.rows = len(completion.prompts)
            return await _begun(generation.complete(version, completion, deadline))

    def _cors_headers(self, origin: str, request: web.BaseRequest) -> dict[str, str]:
        """Return the headers that let a page of an allowed origin read the response."""
        if "*" not in self._cors_origins and origin not in self._cors_origins:
            return {}
        headers = {"Access-Control-Allow-Origin": "*" if "*" in self._cors_origins else origin, "Vary": "Origin"}
        if request.method == "OPTIONS":
            headers["Access-Control-Allow-Methods"] = "GET, POST"
            headers["Access-Control-Allow-Headers"] = CORS_HEADERS
            headers["Access-Control-Max-Age"] = "3600"
        return headers

    async def _infer(self, target: Target, body: bytes, record: RequestRecord, deadline: float) -> bytes:
        version = self._models.find(*target[:3])  # again: the version may have changed while the body arrived
        with version.in_use() as session:
            read = functools.partial(_read_request, session, target.operation, body)
            if len(body) < LARGE_BYTES:
                given = read()
            else:
                reading = asyncio.get_running_loop().run_in_executor(self._reader, _without_collection, read)
                try:
                    given = await asyncio.wait_for(reading, deadline - time.monotonic())
                except TimeoutError:
                    raise RequestError("DEADLINE_EXCEEDED", "the deadline of the request was exceeded") from None
            signature = given.signature
            record.set_target(version, signature.name)
            record.rows = given.rows
            outputs = await version.run(signature, given.inputs, deadline, record.method)
            write = functools.partial(_write_response, session, target.operation, given, outputs)
            if sum(output.nbytes for output in outputs) < LARGE_BYTES:
                return write()
            return await asyncio.get_running_loop().run_in_executor(self._reader, write)

    async def _read(self, request: web.BaseRequest, deadline: float, reserved: Reservation) -> bytes:
        """Read the body, after its bytes were reserved."""
        content = request.content
        reserved.add(request.content_length or 0)
        if content.is_eof():
            body = content.read_nowait()
            self._reserve(len(body), reserved)
            return body
        if request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(CONTINUE)
            request.writer.output_size = 0  # not part of the response
        seconds = min(deadline - time.monotonic(), self._admission.limits.idle_seconds)
        try:
            return await asyncio.wait_for(self._read_blocks(content, reserved), seconds)
        except web.RequestPayloadError as error:
            raise invalid(f"the request body is malformed: {error}") from None
        except TimeoutError:
            message = "the request body did not arrive in time"
            raise RequestError("DEADLINE_EXCEEDED", message, http_status=408) from None

    async def _read_blocks(self, content: Any, reserved: Reservation) -> bytes:
        blocks, size = [], 0
        async for block in content.iter_any():
            size += len(block)
            self._reserve(size, reserved)
            blocks.append(block)
        return b"".join(blocks)

    def _reserve(self, size: int, reserved: Reservation) -> None:
        """Reserve bytes for a body longer than announced: chunked, or compressed."""
        self._admission.check_size(size)
        if size > reserved.size:
            reserved.add(size - reserved.size)

    def _answer_server_endpoint(self, method: str, path: str) -> tuple[bytes, str]:
        if method == "GET" and path in SERVER_ENDPOINTS:
            return getattr(self, SERVER_ENDPOINTS[path])()
        if path == generation.CHAT:
            raise not_found(f"models here continue a text: expected {generation.COMPLETIONS} with a prompt")
        if path.startswith("/v1/"):
            raise invalid(f"Malformed request: {method} {path[:200]}")
        raise not_found(f"Not found: {path[:200]}")

    def _report_health(self) -> tuple[bytes, str]:
        return b'{"status":"alive"}', JSON

    def _report_readiness(self) -> tuple[bytes, str]:
        if self._admission.is_draining:
            raise RequestError("UNAVAILABLE", "the server is shutting down")
        if not self._models.is_ready():
            raise RequestError("UNAVAILABLE", "models are loading")
        return b'{"status":"ready"}', JSON

    def _report_metrics(self) -> tuple[bytes, str]:
        return self._metrics.exposition()

    def _list_models(self) -> tuple[bytes, str]:
        states = {name: _states(self._models, name) for name in self._models.names()}
        cards = [{"id": name, "object": "model", "created": 0, "owned_by": "kerasline"} for name in states]
        openai = {"object": "list", "data": cards}
        return json_codec.write({"models": states, **openai, **self._models.configuration()}), JSON

    def _describe(self) -> tuple[bytes, str]:
        return json_codec.write(describe_api()), JSON


async def _begun(parts: AsyncGenerator[bytes, None]) -> Answer:
    """Return a response of several parts once the first one is there, so that an error before it has a status.

    A response that is no stream of events is returned as a whole.
    """
    first = await anext(parts)
    if first.startswith(b"{"):
        await anext(parts, None)  # end the iterator
        return first, JSON

    async def all_parts() -> AsyncGenerator[bytes, None]:
        async with contextlib.aclosing(parts):
            yield first
            async for part in parts:
                yield part

    return all_parts(), generation.EVENTS


class Given(NamedTuple):
    """What a request gives to the model. `by_row` is whether it came as `instances`."""

    signature: Signature
    inputs: Inputs
    rows: int | None
    by_row: bool = True


def _read_request(session: SavedModelSession, operation: str, body: bytes) -> Given:
    """Parse the body. The inputs of a large one are converted to arrays, so that the event loop need not."""
    if operation != "predict":
        document = json_codec.parse(body)
        signature = find_signature(session, json_codec.signature_name(document))
        given = json_codec.read_examples(document)
        arrays = examples.to_inputs(given, signature, fills_missing=session.fills_missing)
        return Given(signature, arrays, len(given))
    default = session.signatures.get(DEFAULT_SIGNATURE)
    inputs: Inputs | None = wide_rows.read(body, default)
    if default is not None and inputs is not None:
        return Given(default, inputs, count_rows(inputs))
    document = json_codec.parse(body)
    signature = find_signature(session, json_codec.signature_name(document))
    inputs, by_row = json_codec.predict_inputs(document, signature)
    rows = count_rows(inputs)
    if len(body) >= LARGE_BYTES and not isinstance(inputs, list):
        inputs = list(inputs.arrays())
    return Given(signature, inputs, rows, by_row)


def _without_collection(read: Callable[[], Given]) -> Given:
    with garbage_collection.paused():
        return read()


def _write_response(session: SavedModelSession, operation: str, given: Given, outputs: Sequence[np.ndarray]) -> bytes:
    signature = given.signature
    if operation == "predict":
        return json_codec.predict_response(list(signature.outputs), outputs, rows=given.by_row)
    count = given.rows or 0
    if operation == "regress":
        return json_codec.write({"results": examples.regressions(signature, outputs, count)})
    labels, scores = examples.classes(session, signature, outputs, count)
    return json_codec.write({"results": _pairs(labels, scores)})


def _parse_path(path: str) -> Target | None:
    match = _MODEL_PATH.fullmatch(path)
    if match is None:
        return None
    version = match["version"]
    if version is not None and (len(version) > len(str(HIGHEST)) or int(version) > HIGHEST):
        raise invalid(f"Failed to convert version: {version[:40]} to numeric.")
    label = unquote(match["label"]) if match["label"] else None
    http_method, operation = MODEL_ENDPOINTS[match["endpoint"]]
    return Target(unquote(match["name"]), int(version) if version else None, label, operation, http_method)


def accepts_gzip(accept_encoding: str) -> bool:
    """Return whether an Accept-Encoding header names gzip with a quality above 0."""
    for one in accept_encoding.lower().split(","):
        coding, _, quality = one.partition(";")
        if coding.strip() == "gzip":
            return quality.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


def _requested_seconds(request: web.BaseRequest) -> float | None:
    given = request.headers.get(TIMEOUT_HEADER)
    if given is None:
        return None
    try:
        seconds = float(given)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        raise invalid(f"{TIMEOUT_HEADER}: expected seconds, such as 0.5, received {given[:40]}")
    return seconds


def _pairs(labels: Any, scores: Any) -> list[list[list[Any]]]:
    if scores is None:
        return [[[label, 0.0] for label in row] for row in labels]
    if labels is None:
        return [[["", score] for score in row] for row in scores]
    return [[[label, score] for label, score in zip(*row)] for row in zip(labels, scores)]


def _states(models: Models, name: str) -> list[dict[str, Any]]:
    try:
        versions: list[Version] = models.status(name)
    except RequestError:
        return []
    return [
        {"version": str(version.number), "state": version.state, "unbatched": dict(version.unbatched)}
        for version in versions
    ]
