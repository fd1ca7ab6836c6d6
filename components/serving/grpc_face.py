"""The gRPC face: PredictionService, ModelService and gRPC's health check."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from components.serving import examples, tensor_codec
from components.serving.errors import RequestError, from_exception, invalid
from components.serving.gate import Account, Gate
from components.serving.metadata import metadata_message, status_message
from components.serving.models import Models, Version
from components.serving.protos import HEALTH_STATES, messages
from components.serving.signatures import find_signature

# gRPC's framing around the bytes of a message, with room to spare.
FRAMING_BYTES = 1 << 16
_GATE_CODES = {code.name: code for code in grpc.StatusCode}
_SERVING, _NOT_SERVING = HEALTH_STATES["SERVING"], HEALTH_STATES["NOT_SERVING"]


class GrpcFace:
    """The services, to be added to a `grpc.aio.Server` with `handlers`."""

    def __init__(self, models: Models, gate: Gate):
        self._models, self._gate = models, gate
        self._messages = messages()

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        m = self._messages
        prediction = {
            "Predict": self._method("predict", m.PredictRequest, self._predict),
            "Classify": self._method("classify", m.ClassificationRequest, self._classify),
            "Regress": self._method("regress", m.RegressionRequest, self._regress),
            "GetModelMetadata": self._method("metadata", m.GetModelMetadataRequest, self._metadata),
        }
        model = {"GetModelStatus": self._method("status", m.GetModelStatusRequest, self._status)}
        health = {"Check": self._method("health", m.HealthCheckRequest, self._health, is_open=True)}
        return [
            grpc.method_handlers_generic_handler("tensorflow.serving.PredictionService", prediction),
            grpc.method_handlers_generic_handler("tensorflow.serving.ModelService", model),
            grpc.method_handlers_generic_handler("grpc.health.v1.Health", health),
        ]

    def _method(
        self, name: str, request_class: Any, answer: Callable[..., Awaitable[Any]], *, is_open: bool = False
    ) -> grpc.RpcMethodHandler:
        """A handler of one method. Requests are parsed within the bounds, not before them."""

        async def handle(body: bytes, context: grpc.aio.ServicerContext) -> bytes:
            account = Account(name, name)
            account.size_in = size = len(body)
            is_admitted, response = False, b""
            try:
                if self._gate.needs_key and not is_open:
                    self._check_key(context)
                self._gate.admit(size)
                is_admitted = True
                request = request_class.FromString(body)
                deadline = self._gate.deadline(context.time_remaining())
                response = (await answer(request, account, deadline)).SerializeToString()
                return response
            except asyncio.CancelledError:
                account.code = "CANCELLED"
                raise
            except Exception as raised:
                is_garbled = isinstance(raised, DecodeError)
                error = invalid("the message cannot be parsed") if is_garbled else from_exception(raised)
                account.failed(error)
                await context.abort(_GATE_CODES[error.code], str(error))
            finally:
                if is_admitted:
                    self._gate.release(size)
                client = context.peer() if self._gate.writes_log else None
                self._gate.record(
                    account, protocol="grpc", client=client, status=account.code, size_out=len(response)
                )

        return grpc.unary_unary_rpc_method_handler(handle)

    async def _predict(self, request: Any, account: Account, deadline: float) -> Any:
        spec = request.model_spec
        version = self._find(spec)
        signature = find_signature(version.session, spec.signature_name)
        account.of(version, signature.name)
        arrays = tensor_codec.predict_inputs(request.inputs, signature)
        account.rows = len(arrays[0]) if arrays and arrays[0].ndim else None
        outputs = await version.run(signature, arrays, deadline)
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

    async def _run_examples(
        self, request: Any, account: Account, deadline: float
    ) -> tuple[Any, Any, Any, int]:
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

    def _check_key(self, context: grpc.aio.ServicerContext) -> None:
        sent = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        self._gate.check_key(sent.get("x-api-key"), sent.get("authorization"))


def new_server(face: GrpcFace, gate: Gate) -> grpc.aio.Server:
    """A server that answers with `face`; it has no port yet."""
    limits = gate.limits
    return grpc.aio.server(
        handlers=face.handlers(),
        options=[
            ("grpc.max_receive_message_length", limits.request_bytes + FRAMING_BYTES),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),  # so that a port that is taken is an error
            ("grpc.max_concurrent_streams", limits.connections),
        ],
        maximum_concurrent_rpcs=limits.connections,
    )


def _address(spec: Any) -> tuple[str, int | None, str | None]:
    version = spec.version.value if spec.HasField("version") else None
    return spec.name, version, spec.version_label or None


def _name(spec: Any, version: Version, signature_name: str) -> None:
    spec.name, spec.version.value, spec.signature_name = version.model, version.number, signature_name
