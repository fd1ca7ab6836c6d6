"""The REST face: TensorFlow Serving's API, health, readiness and metrics."""

from __future__ import annotations

import asyncio
import functools
import json
import re
import time
from typing import Any, NamedTuple
from urllib.parse import unquote

from aiohttp import web
from multidict import CIMultiDict

from kerasline.components.models.signatures import DEFAULT_SIGNATURE
from kerasline.components.models.versions import HIGHEST
from kerasline.components.serving.http import json_codec, wide_rows
from kerasline.components.serving.http.gate import Account, Gate
from kerasline.components.serving.http.openapi import description
from kerasline.components.serving.runtime import examples
from kerasline.components.serving.runtime.batching import rows_of
from kerasline.components.serving.runtime.errors import RequestError, from_exception, invalid, not_found
from kerasline.components.serving.runtime.metadata import metadata_json, status_json
from kerasline.components.serving.runtime.metrics import Metrics
from kerasline.components.serving.runtime.models import Models, Version
from kerasline.components.serving.runtime.signatures import find_signature

JSON = "application/json"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
TIMEOUT_HEADER = "X-Request-Timeout"
REQUEST_ID = "X-Request-Id"
_MODEL_PATH = re.compile(
    r"/v1/models/(?P<name>[^/:]+)(?:/versions/(?P<version>\d{1,19})|/labels/(?P<label>[^/:]+))?"
    r"(?P<what>:predict|:classify|:regress|/metadata)?"
)
_ORIGIN = re.compile(r"\Ahttps?://[^/]*", re.IGNORECASE)
_PRINTABLE = re.compile(r"[\x21-\x7e]{1,128}")
_METRICS_PATHS = ("/metrics", "/monitoring/prometheus/metrics")
_OPEN_PATHS = ("/healthz", "/readyz")


class Target(NamedTuple):
    """What a path names; `what` is predict, classify, regress, metadata or status."""

    model: str
    version: int | None
    label: str | None
    what: str


class RestFace:
    """Answers the requests of one `aiohttp.web.Server`."""

    def __init__(self, models: Models, gate: Gate, metrics: Metrics):
        self._models, self._gate, self._metrics = models, gate, metrics
        self._target = functools.lru_cache(maxsize=1024)(_parse_path)

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.raw_path
        account = Account(request.method, path)
        request.protocol.busy_since = account.started
        try:
            body, content_type = await self._answer(request, path, account)
            status = 200
        except RequestError as error:
            account.failed(error)
            body, content_type, status = _error_body(error), JSON, error.http_status
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception as raised:
            error = from_exception(raised)
            account.failed(error)
            body, content_type, status = _error_body(error), JSON, error.http_status
        headers = CIMultiDict({"Content-Type": content_type, "Server": "kerasline"})
        if status in (429, 503):
            headers["Retry-After"] = "1"
        if status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        request_id = request.headers.get(REQUEST_ID)
        if request_id is not None and _PRINTABLE.fullmatch(request_id):
            account.request_id = headers[REQUEST_ID] = request_id
        response = web.Response(body=body, status=status, headers=headers)
        if self._gate.is_draining or status == 408:
            response.force_close()
        client = request.remote if self._gate.writes_log else None
        self._gate.record(account, protocol="rest", client=client, status=status, size_out=len(body))
        request.protocol.busy_since = None
        request.protocol.idle_since = time.monotonic()
        return response

    async def _answer(self, request: web.BaseRequest, path: str, account: Account) -> tuple[bytes, str]:
        path = path.partition("?")[0]
        if not path.startswith("/"):  # the absolute form, which a proxy may send
            path = _ORIGIN.sub("", path) or "/"
        if path in _OPEN_PATHS:
            return self._health(path)
        gate = self._gate
        if gate.needs_key:
            gate.check_key(request.headers.get("x-api-key"), request.headers.get("authorization"))
        target = self._target(path)
        if target is None:
            return self._other(request.method, path)
        account.method = target.what
        is_read = target.what in ("status", "metadata")
        if request.method != ("GET" if is_read else "POST"):
            raise invalid(f"Malformed request: {request.method} {path}")
        if target.what == "status":
            return json_codec.write(status_json(self._models.status(*target[:3]))), JSON
        version = self._models.find(*target[:3])
        account.of(version, "")
        if target.what == "metadata":
            return json_codec.write(metadata_json(version)), JSON
        deadline = gate.deadline(_asked_seconds(request))
        taken = []
        try:
            body = await self._read(request, deadline, taken)
            account.size_in = len(body)
            return await self._infer(target, body, account, deadline), JSON
        finally:
            for size in taken:
                gate.release(size)

    async def _infer(self, target: Target, body: bytes, account: Account, deadline: float) -> bytes:
        version = self._models.find(*target[:3])  # again: reading the body may have taken long
        session = version.session
        if target.what == "predict":
            signature = session.signatures.get(DEFAULT_SIGNATURE)
            inputs, by_row = wide_rows.read(body, signature), True
            if inputs is None:
                document = json_codec.parse(body)
                signature = find_signature(session, json_codec.signature_name(document))
                inputs, by_row = json_codec.predict_inputs(document, signature)
            account.of(version, signature.name)
            account.rows = rows_of(inputs)
            outputs = await version.run(signature, inputs, deadline)
            return json_codec.predict_answer(list(signature.outputs), outputs, rows=by_row)
        document = json_codec.parse(body)
        signature = find_signature(session, json_codec.signature_name(document))
        account.of(version, signature.name)
        given = examples.from_json(document)
        account.rows = len(given)
        arrays = examples.to_inputs(given, signature, fills_missing=session.fills_missing)
        outputs = await version.run(signature, arrays, deadline)
        if target.what == "regress":
            return json_codec.write({"results": examples.values(signature, outputs, len(given))})
        labels, scores = examples.classes(session, signature, outputs, len(given))
        return json_codec.write({"results": _pairs(labels, scores)})

    async def _read(self, request: web.BaseRequest, deadline: float, taken: list[int]) -> bytes:
        """The body. What it takes of the bound on bytes is put into `taken` as it comes."""
        gate, content = self._gate, request.content
        length = request.content_length
        if length is not None:
            gate.admit(length)
            taken.append(length)
        if content.is_eof():
            body = content.read_nowait()
            self._take(len(body), taken)
            return body
        if request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(CONTINUE)
            request.writer.output_size = 0  # it is no part of the answer
        seconds = min(deadline - time.monotonic(), gate.limits.idle_seconds)
        try:
            return await asyncio.wait_for(self._read_blocks(content, taken), seconds)
        except web.RequestPayloadError as error:
            raise invalid(f"the request's body is malformed: {error}") from None
        except TimeoutError:
            message = "the request's body did not come in time"
            raise RequestError("DEADLINE_EXCEEDED", message, http_status=408) from None

    async def _read_blocks(self, content: Any, taken: list[int]) -> bytes:
        blocks, size = [], 0
        async for block in content.iter_any():
            size += len(block)
            self._take(size, taken)
            blocks.append(block)
        return b"".join(blocks)

    def _take(self, size: int, taken: list[int]) -> None:
        """Accounts for a body longer than announced: one that came in chunks, or compressed."""
        if size > self._gate.limits.request_bytes:
            self._gate.admit(size)
        if size > (so_far := sum(taken)):
            self._gate.admit(size - so_far)
            taken.append(size - so_far)

    def _health(self, path: str) -> tuple[bytes, str]:
        if path == "/healthz":
            return b'{"status":"alive"}', JSON
        if self._gate.is_draining:
            raise RequestError("UNAVAILABLE", "the server is draining")
        if not self._models.is_ready():
            raise RequestError("UNAVAILABLE", "models are being loaded")
        return b'{"status":"ready"}', JSON

    def _other(self, method: str, path: str) -> tuple[bytes, str]:
        if method == "GET" and path in _METRICS_PATHS:
            return self._metrics.text()
        if method == "GET" and path == "/v1/models":
            states = {name: _states(self._models, name) for name in self._models.names()}
            return json_codec.write({"models": states}), JSON
        if method == "GET" and path == "/openapi.json":
            return json_codec.write(description()), JSON
        if path.startswith("/v1/"):
            raise invalid(f"Malformed request: {method} {path[:200]}")
        raise not_found(f"Not found: {path[:200]}")


def _parse_path(path: str) -> Target | None:
    match = _MODEL_PATH.fullmatch(path)
    if match is None:
        return None
    version = match["version"]
    if version is not None and int(version) > HIGHEST:
        raise invalid(f"Failed to convert version: {version} to numeric.")
    label = unquote(match["label"]) if match["label"] else None
    return Target(unquote(match["name"]), int(version) if version else None, label, (match["what"] or ":status")[1:])


def _asked_seconds(request: web.BaseRequest) -> float | None:
    given = request.headers.get(TIMEOUT_HEADER)
    if given is None:
        return None
    try:
        seconds = float(given)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        raise invalid(f"{TIMEOUT_HEADER}: {given[:40]}: seconds wanted, such as 0.5")
    return seconds


def _pairs(labels: Any, scores: Any) -> list[list[list[Any]]]:
    if scores is None:
        return [[[label, 0.0] for label in row] for row in labels]
    if labels is None:
        return [[["", score] for score in row] for row in scores]
    return [[[label, score] for label, score in zip(*row)] for row in zip(labels, scores)]


def _states(models: Models, name: str) -> list[dict[str, str]]:
    try:
        versions: list[Version] = models.status(name)
    except RequestError:
        return []
    return [{"version": str(version.number), "state": version.state} for version in versions]


def _error_body(error: RequestError) -> bytes:
    return json.dumps({"error": str(error)}, ensure_ascii=True).encode()
