"""The gRPC services: PredictionService, ModelService and gRPC's health check."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError

from kerasline.components.models.session import SavedModelSession
from kerasline.components.models.signatures import Signature
from kerasline.components.serving.grpc import protocol
from kerasline.components.serving.runtime import examples, tensor_codec
from kerasline.components.serving.runtime.admission import KEY_HEADERS, AdmissionControl, RequestRecord
from kerasline.components.serving.runtime.batching import count_rows
from kerasline.components.serving.runtime.errors import RequestError, from_exception, invalid
from kerasline.components.serving.runtime.messages import HEALTH_STATES, messages
from kerasline.components.serving.runtime.metadata import metadata_message, status_message
from kerasline.components.serving.runtime.models import Models, Version
from kerasline.components.serving.runtime.signatures import find_signature

# Tensors of requests from this size on are converted in a thread.
LARGE_BYTES = 1 << 16
_SERVING, _NOT_SERVING = HEALTH_STATES["SERVING"], HEALTH_STATES["NOT_SERVING"]


class Method(NamedTuple):
    """A method of a gRPC service.

    Attributes:
        name: the name in metrics and the access log.
        answer: computes the response from the request, its record and its deadline.
        is_open: whether it needs no API key.
    """

    name: str
    request_class: Any
    answer: Callable[..., Awaitable[Any]]
    is_open: bool = False


class RanExamples(NamedTuple):
    """The outputs of a signature for Examples."""

    version: Version
    session: SavedModelSession
    signature: Signature
    outputs: list[np.ndarray]
    rows: int


class GrpcServices:
    """The services as an ASGI application."""

    def __init__(self, models: Models, admission: AdmissionControl):
        self._models, self._admission = models, admission
        self._messages = m = messages()
        self._calls = 0
        prediction, model = "/tensorflow.serving.PredictionService", "/tensorflow.serving.ModelService"
        self._methods = {
            f"{prediction}/Predict": Method("predict", m.PredictRequest, self._predict),
            f"{prediction}/Classify": Method("classify", m.ClassificationRequest, self._classify),
            f"{prediction}/Regress": Method("regress", m.RegressionRequest, self._regress),
            f"{prediction}/MultiInference": Method("multi_inference", m.MultiInferenceRequest, self._multi_inference),
            f"{prediction}/GetModelMetadata": Method("metadata", m.GetModelMetadataRequest, self._metadata),
            f"{model}/GetModelStatus": Method("status", m.GetModelStatusRequest, self._status),
            "/grpc.health.v1.Health/Check": Method("health", m.HealthCheckRequest, self._health, is_open=True),
        }

    async def __call__(self, scope: Any, receive: protocol.Receive, send: protocol.Send) -> None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        if not protocol.is_grpc(headers):
            await protocol.reject_other_media(send)
            return
        self._calls += 1
        try:
            await self._handle(scope, headers, receive, send)
        except protocol.ClientDisconnected:
            pass
        finally:
            self._calls -= 1

    async def _handle(
        self, scope: Any, headers: dict[bytes, bytes], receive: protocol.Receive, send: protocol.Send
    ) -> None:
        method = self._methods.get(scope["path"])
        if method is None:
            path = scope["path"][:200]
            await protocol.send_error(send, RequestError("UNIMPLEMENTED", f"Method not found: {path}"))
            return
        record = RequestRecord(method.name, method.name)
        size_out = 0
        reserved: list[int] = []
        try:
            response = await self._answer(method, headers, receive, record, reserved)
            size_out = len(response)
            await protocol.send_message(send, response)
        except (asyncio.CancelledError, protocol.ClientDisconnected):
            record.code = "CANCELLED"
            raise
        except Exception as raised:
            error = from_exception(raised)
            record.set_error(error)
            await protocol.send_error(send, error)
        finally:
            for size in reserved:
                self._admission.release(size)
            client = _peer(scope) if self._admission.writes_log else None
            self._admission.finish(record, protocol="grpc", client=client, status=record.code, size_out=size_out)

    async def _answer(
        self, method: Method, headers: dict[bytes, bytes], receive: Any, record: RequestRecord, reserved: list[int]
    ) -> bytes:
        """Return the response as bytes. Limits are checked before the message is read and parsed."""
        admission = self._admission
        if self._calls > admission.limits.connections:
            raise RequestError("RESOURCE_EXHAUSTED", "too many calls in progress; try again")
        if admission.needs_key and not method.is_open:
            admission.check_key(*(_text(headers.get(name.encode())) for name in KEY_HEADERS))
        deadline = admission.deadline(protocol.timeout_seconds(headers))
        body = await protocol.read_message(receive, headers, admission, reserved)
        record.size_in = len(body)
        try:
            request = method.request_class.FromString(body)
        except DecodeError:
            raise invalid("the message cannot be parsed") from None
        return (await method.answer(request, record, deadline)).SerializeToString()

    async def _predict(self, request: Any, record: RequestRecord, deadline: float) -> Any:
        spec = request.model_spec
        version, session = self._find(spec)
        signature = find_signature(session, spec.signature_name)
        record.set_target(version, signature.name)
        if request.ByteSize() < LARGE_BYTES:
            inputs = tensor_codec.predict_inputs(request.inputs, signature)
        else:
            loop = asyncio.get_running_loop()
            inputs = await loop.run_in_executor(None, tensor_codec.predict_inputs, request.inputs, signature)
        record.rows = count_rows(inputs)
        outputs = await version.run(signature, inputs, deadline)
        response = self._messages.PredictResponse()
        _set_spec(response.model_spec, version, signature.name)
        tensor_codec.fill_outputs(response.outputs, signature, outputs, request.output_filter)
        return response

    async def _classify(self, request: Any, record: RequestRecord, deadline: float) -> Any:
        response = self._messages.ClassificationResponse()
        ran = await self._run_examples(request.model_spec, request.input, record, deadline)
        _set_spec(response.model_spec, ran.version, ran.signature.name)
        _fill_classes(response.result, ran)
        return response

    async def _regress(self, request: Any, record: RequestRecord, deadline: float) -> Any:
        response = self._messages.RegressionResponse()
        ran = await self._run_examples(request.model_spec, request.input, record, deadline)
        _set_spec(response.model_spec, ran.version, ran.signature.name)
        _fill_regressions(response.result, ran)
        return response

    async def _multi_inference(self, request: Any, record: RequestRecord, deadline: float) -> Any:
        """Classify and regress the same Examples with several signatures of one model."""
        tasks = request.tasks
        if not tasks:
            raise invalid("Inference request must specify at least one task")
        names = [task.model_spec.signature_name for task in tasks]
        for task in tasks:
            if task.model_spec.name != tasks[0].model_spec.name:
                raise invalid("All ModelSpecs in a MultiInferenceRequest must access the same model name.")
            if names.count(task.model_spec.signature_name) > 1:
                raise invalid(f"Duplicate evaluation of signature: {task.model_spec.signature_name}")
            if task.method_name not in (examples.CLASSIFY_METHOD, examples.REGRESS_METHOD):
                raise RequestError("UNIMPLEMENTED", f"Unsupported signature method_name: {task.method_name}")
        response = self._messages.MultiInferenceResponse()
        for task in tasks:
            ran = await self._run_examples(task.model_spec, request.input, record, deadline)
            result = response.results.add()
            _set_spec(result.model_spec, ran.version, ran.signature.name)
            if task.method_name == examples.CLASSIFY_METHOD:
                _fill_classes(result.classification_result, ran)
            else:
                _fill_regressions(result.regression_result, ran)
        return response

    async def _run_examples(self, spec: Any, given: Any, record: RequestRecord, deadline: float) -> RanExamples:
        version, session = self._find(spec)
        signature = find_signature(session, spec.signature_name)
        record.set_target(version, signature.name)
        rows = tensor_codec.read_examples(given)
        record.rows = len(rows)
        arrays = examples.to_inputs(rows, signature, fills_missing=session.fills_missing)
        outputs = await version.run(signature, arrays, deadline)
        return RanExamples(version, session, signature, outputs, len(rows))

    async def _metadata(self, request: Any, record: RequestRecord, deadline: float) -> Any:
        if not request.HasField("model_spec"):
            raise invalid("Missing ModelSpec")
        return metadata_message(self._find(request.model_spec)[0], request.metadata_field)

    async def _status(self, request: Any, record: RequestRecord, deadline: float) -> Any:
        if not request.HasField("model_spec"):
            raise invalid("Missing ModelSpec")
        return status_message(self._models.status(*_address(request.model_spec)))

    async def _health(self, request: Any, record: RequestRecord, deadline: float) -> Any:
        service = request.service
        if service and not service.startswith("tensorflow.serving."):
            raise RequestError("NOT_FOUND", f"no service {service}")
        is_ready = self._models.is_ready() and not self._admission.is_draining
        return self._messages.HealthCheckResponse(status=_SERVING if is_ready else _NOT_SERVING)

    def _find(self, spec: Any) -> tuple[Version, SavedModelSession]:
        if not spec.name:
            raise invalid("ModelSpec has no name specified.")
        version = self._models.find(*_address(spec))
        assert version.session is not None, "an available version has a session"
        return version, version.session


def _fill_classes(result: Any, ran: RanExamples) -> None:
    labels, scores = examples.classes(ran.session, ran.signature, ran.outputs, ran.rows)
    score_rows = scores.tolist() if scores is not None else [[0.0] * len(row) for row in labels or []]
    label_rows = labels if labels is not None else [[""] * len(row) for row in score_rows]
    for label_row, score_row in zip(label_rows, score_rows):
        row = result.classifications.add()
        for label, score in zip(label_row, score_row):
            row.classes.add(label=label, score=score)


def _fill_regressions(result: Any, ran: RanExamples) -> None:
    for value in examples.regressions(ran.signature, ran.outputs, ran.rows).tolist():
        result.regressions.add(value=value)


def _text(value: bytes | None) -> str | None:
    return value.decode("latin-1") if value is not None else None


def _peer(scope: Any) -> str | None:
    client = scope.get("client")
    return f"{client[0]}:{client[1]}" if client else None


def _address(spec: Any) -> tuple[str, int | None, str | None]:
    version = spec.version.value if spec.HasField("version") else None
    return spec.name, version, spec.version_label or None


def _set_spec(spec: Any, version: Version, signature_name: str) -> None:
    spec.name, spec.version.value, spec.signature_name = version.model, version.number, signature_name
