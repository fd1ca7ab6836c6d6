"""The gRPC face: PredictionService, ModelService and gRPC's health check."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError

from kerasline.components.serving.grpc import protocol, tensor_codec
from kerasline.components.serving.grpc.protos import HEALTH_STATES, messages
from kerasline.components.serving.http.gate import KEY_HEADERS, Account, Gate
from kerasline.components.serving.runtime import examples
from kerasline.components.serving.runtime.batching import rows_of
from kerasline.components.serving.runtime.errors import RequestError, from_exception, invalid
from kerasline.components.serving.runtime.metadata import metadata_message, status_message
from kerasline.components.serving.runtime.models import Models, Version
from kerasline.components.serving.runtime.signatures import find_signature

_SERVING, _NOT_SERVING = HEALTH_STATES["SERVING"], HEALTH_STATES["NOT_SERVING"]


class Method(NamedTuple):
    """Attributes:
    is_open: it asks for no API key.
    """

    name: str
    request_class: Any
    answer: Callable[..., Awaitable[Any]]
    is_open: bool = False


class GrpcFace:
    """The services, as an ASGI application."""

    def __init__(self, models: Models, gate: Gate):
        self._models, self._gate = models, gate
        self._messages = m = messages()
        self._calls = 0
        prediction, model = "/tensorflow.serving.PredictionService", "/tensorflow.serving.ModelService"
        self._methods = {
            f"{prediction}/Predict": Method("predict", m.PredictRequest, self._predict),
            f"{prediction}/Classify": Method("classify", m.ClassificationRequest, self._classify),
            f"{prediction}/Regress": Method("regress", m.RegressionRequest, self._regress),
            f"{prediction}/GetModelMetadata": Method("metadata", m.GetModelMetadataRequest, self._metadata),
            f"{model}/GetModelStatus": Method("status", m.GetModelStatusRequest, self._status),
            "/grpc.health.v1.Health/Check": Method("health", m.HealthCheckRequest, self._health, is_open=True),
        }

    async def __call__(self, scope: Any, receive: protocol.Receive, send: protocol.Send) -> None:
        headers = dict(scope["headers"])
        if not protocol.is_grpc(headers):
            await protocol.refuse_other(send)
            return
        self._calls += 1
        try:
            await self._handle(scope, headers, receive, send)
        except protocol.ClientGone:
            pass
        finally:
            self._calls -= 1

    async def _handle(
        self, scope: Any, headers: dict[bytes, bytes], receive: protocol.Receive, send: protocol.Send
    ) -> None:
        method = self._methods.get(scope["path"])
        if method is None:
            path = scope["path"][:200]
            await protocol.refuse(send, RequestError("UNIMPLEMENTED", f"Method not found: {path}"))
            return
        account = Account(method.name, method.name)
        taken, size_out = [], 0
        try:
            response = await self._answer(method, headers, receive, account, taken)
            size_out = len(response)
            await protocol.answer(send, response)
        except (asyncio.CancelledError, protocol.ClientGone):
            account.code = "CANCELLED"
            raise
        except Exception as raised:
            error = from_exception(raised)
            account.failed(error)
            await protocol.refuse(send, error)
        finally:
            for size in taken:
                self._gate.release(size)
            client = _peer(scope) if self._gate.writes_log else None
            self._gate.record(account, protocol="grpc", client=client, status=account.code, size_out=size_out)

    async def _answer(
        self, method: Method, headers: dict[bytes, bytes], receive: Any, account: Account, taken: list[int]
    ) -> bytes:
        """The response's bytes. The message is read and parsed within the bounds, not before them."""
        gate = self._gate
        if self._calls > gate.limits.connections:
            raise RequestError("RESOURCE_EXHAUSTED", "too many calls are under way; try again")
        if gate.needs_key and not method.is_open:
            gate.check_key(*(_text(headers.get(name.encode())) for name in KEY_HEADERS))
        deadline = gate.deadline(protocol.timeout_seconds(headers))
        body = await protocol.read_message(receive, headers, gate, taken)
        account.size_in = len(body)
        try:
            request = method.request_class.FromString(body)
        except DecodeError:
            raise invalid("the message cannot be parsed") from None
        return (await method.answer(request, account, deadline)).SerializeToString()

    async def _predict(self, request: Any, account: Account, deadline: float) -> Any:
        spec = request.model_spec
        version = self._find(spec)
        signature = find_signature(version.session, spec.signature_name)
        account.of(version, signature.name)
        inputs = tensor_codec.predict_inputs(request.inputs, signature)
        account.rows = rows_of(inputs)
        outputs = await version.run(signature, inputs, deadline)
        response = self._messages.PredictResponse()
        _name(response.model_spec, version, signature.name)
        tensor_codec.fill_outputs(response.outputs, signature, outputs, request.output_filter)
        return response

    async def _classify(self, request: Any, account: Account, deadline: float) -> Any:
        version, signature, outputs, count = await self._run_examples(request, account, deadline)
        labels, scores = examples.classes(version.session, signature, outputs, count)
        response = self._messages.ClassificationResponse()
        _name(response.model_spec, version, signature.name)
        rows = scores.tolist() if scores is not None else None
        for number in range(count):
            row = response.result.classifications.add()
            for place in range(len((rows or labels)[number])):
                row.classes.add(
                    label=labels[number][place] if labels else "", score=rows[number][place] if rows else 0.0
                )
        return response

    async def _regress(self, request: Any, account: Account, deadline: float) -> Any:
        version, signature, outputs, count = await self._run_examples(request, account, deadline)
        response = self._messages.RegressionResponse()
        _name(response.model_spec, version, signature.name)
        for value in examples.values(signature, outputs, count).tolist():
            response.result.regressions.add(value=value)
        return response

    async def _run_examples(self, request: Any, account: Account, deadline: float) -> tuple[Any, Any, Any, int]:
        spec = request.model_spec
        version = self._find(spec)
        session = version.session
        signature = find_signature(session, spec.signature_name)
        account.of(version, signature.name)
        given = examples.from_proto(request.input)
        account.rows = len(given)
        arrays = examples.to_inputs(given, signature, fills_missing=session.fills_missing)
        return version, signature, await version.run(signature, arrays, deadline), len(given)

    async def _metadata(self, request: Any, account: Account, deadline: float) -> Any:
        if not request.HasField("model_spec"):
            raise invalid("Missing ModelSpec")
        return metadata_message(self._find(request.model_spec), request.metadata_field)

    async def _status(self, request: Any, account: Account, deadline: float) -> Any:
        if not request.HasField("model_spec"):
            raise invalid("Missing ModelSpec")
        return status_message(self._models.status(*_address(request.model_spec)))

    async def _health(self, request: Any, account: Account, deadline: float) -> Any:
        service = request.service
        if service and not service.startswith("tensorflow.serving."):
            raise RequestError("NOT_FOUND", f"no service {service}")
        is_ready = self._models.is_ready() and not self._gate.is_draining
        return self._messages.HealthCheckResponse(status=_SERVING if is_ready else _NOT_SERVING)

    def _find(self, spec: Any) -> Version:
        if not spec.name:
            raise invalid("ModelSpec has no name specified.")
        return self._models.find(*_address(spec))


def _text(value: bytes | None) -> str | None:
    return value.decode("latin-1") if value is not None else None


def _peer(scope: Any) -> str | None:
    client = scope.get("client")
    return f"{client[0]}:{client[1]}" if client else None


def _address(spec: Any) -> tuple[str, int | None, str | None]:
    version = spec.version.value if spec.HasField("version") else None
    return spec.name, version, spec.version_label or None


def _name(spec: Any, version: Version, signature_name: str) -> None:
    spec.name, spec.version.value, spec.signature_name = version.model, version.number, signature_name
