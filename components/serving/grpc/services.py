"""The gRPC services: PredictionService, ModelService, and gRPC's health check and reflection."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NamedTuple, TypeVar

import numpy as np
from google.protobuf.message import DecodeError

from kerasline.components.models.session import SavedModelSession
from kerasline.components.models.signatures import DEFAULT_SIGNATURE, Signature
from kerasline.components.serving.grpc import protocol, streamed
from kerasline.components.serving.grpc.reflection import answer_reflection
from kerasline.components.serving.runtime import examples, tensor_codec
from kerasline.components.serving.runtime.admission import KEY_HEADERS, AdmissionControl, RequestRecord, Reservation
from kerasline.components.serving.runtime.batching import Inputs, count_rows
from kerasline.components.serving.runtime.errors import RequestError, from_exception, invalid
from kerasline.components.serving.runtime.messages import HEALTH_STATES, RESPONSE_STREAMS, SERVICES, messages
from kerasline.components.serving.runtime.metadata import metadata_message, status_message
from kerasline.components.serving.runtime.models import Models, Version
from kerasline.components.serving.runtime.signatures import find_signature

# Tensors of requests from this size on are converted in a thread.
LARGE_BYTES = 1 << 16
# Interval between checks whether the state that a client watches has changed.
WATCH_SECONDS = 0.2
T = TypeVar("T")


class Method(NamedTuple):
    """A method of a gRPC service.

    Attributes:
        name: the name in metrics and the access log.
        request_class: the message of its requests.
        answer: computes the response from the request and its context. That of a stream reads and answers the call
            itself, given the class of its requests and its context, and returns the size of its responses.
        is_open: whether it needs no API key.
        is_stream: whether it sends several responses.
    """

    name: str
    request_class: Any
    answer: Callable[..., Awaitable[Any]]
    is_open: bool
    is_stream: bool


class CallContext(NamedTuple):
    """What a method needs besides the request.

    Attributes:
        record: record of the request, for metrics and the access log.
        deadline: time at which the client stops waiting.
        reserved: reservation of the memory of the request.
    """

    record: RequestRecord
    deadline: float
    reserved: Reservation


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
        self._messages = messages()
        self._calls = 0
        self._methods = {
            f"/{service}/{method}": self._method(method, request)
            for service, methods in SERVICES.items()
            for method, (request, _response) in methods.items()
        }

    def _method(self, name: str, request: str) -> Method:
        answers: dict[str, tuple[str, Callable[..., Awaitable[Any]]]] = {
            "Predict": ("predict", self._predict),
            "PredictStreamed": ("predict_streamed", self._predict_streamed),
            "Classify": ("classify", self._classify),
            "Regress": ("regress", self._regress),
            "MultiInference": ("multi_inference", self._multi_inference),
            "GetModelMetadata": ("metadata", self._metadata),
            "GetModelStatus": ("status", self._status),
            "HandleReloadConfigRequest": ("reload", self._reload),
            "Check": ("health", self._health),
            "Watch": ("health_watch", self._watch),
            "ServerReflectionInfo": ("reflection", self._reflect),
        }
        label, answer = answers[name]
        return Method(
            label,
            getattr(self._messages, request),
            answer,
            is_open=request == "HealthCheckRequest",
            is_stream=name in RESPONSE_STREAMS,
        )

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
        name = method.name if method else "unknown"
        record = RequestRecord(name, name)
        record.repeat_headers(lambda name: _text(headers.get(name.encode())))
        limits = self._admission.limits
        with Reservation(self._admission) as reserved:
            call = protocol.Call(receive, send, headers, limits=limits, reserved=reserved, repeated=record.repeated)
            if method is None:
                await call.fail(RequestError("UNIMPLEMENTED", f"Method not found: {scope['path'][:200]}"))
                return
            size_out = 0
            try:
                if "http.response.trailers" not in scope["extensions"]:
                    raise RequestError(
                        "UNKNOWN", "missing header te: expected trailers, which carry the status of a call"
                    )
                size_out = await self._answer(method, headers, call, record)
            except (asyncio.CancelledError, protocol.ClientDisconnected):
                record.code = "CANCELLED"
                raise
            except Exception as raised:
                error = from_exception(raised)
                record.set_error(error)
                await call.fail(error)
            finally:
                client = _peer(scope) if self._admission.writes_log else None
                self._admission.finish(record, protocol="grpc", client=client, status=record.code, size_out=size_out)

    async def _answer(
        self, method: Method, headers: dict[bytes, bytes], call: protocol.Call, record: RequestRecord
    ) -> int:
        """Answer a call and return the size of the response. Limits are checked before messages are read and parsed."""
        admission = self._admission
        if self._calls > admission.limits.connections:
            raise RequestError("RESOURCE_EXHAUSTED", "too many calls in progress; try again")
        if admission.needs_key and not method.is_open:
            admission.check_key(*(_text(headers.get(name.encode())) for name in KEY_HEADERS))
        context = CallContext(record, admission.deadline(protocol.timeout_seconds(headers)), call.reserved)
        if method.is_stream:
            size: int = await method.answer(call, method.request_class, context)
            await call.finish()
            return size
        body = await call.read_only()
        record.size_in = len(body)
        request = _parsed(method.request_class, body)
        response = (await method.answer(request, context)).SerializeToString()
        await call.finish(response)
        return len(response)

    async def _predict(self, request: Any, context: CallContext) -> Any:
        spec = request.model_spec
        version = self._find(spec)
        with version.in_use() as session:
            signature = session.signatures.get(spec.signature_name or DEFAULT_SIGNATURE)
            if signature is None:  # TensorFlow Serving has another code here than in Classify and Regress
                name = spec.signature_name or DEFAULT_SIGNATURE
                raise RequestError("FAILED_PRECONDITION", f'Serving signature key "{name}" not found.')
            context.record.set_target(version, signature.name)
            tensor_codec.check_names(request.inputs, signature)
            tensor_codec.check_output_filter(request.output_filter, signature)
            inputs: Inputs | None = tensor_codec.single_row(request.inputs, signature)
            if inputs is None:
                context.reserved.add(tensor_codec.filled_bytes(request.inputs, signature))
                if request.ByteSize() < LARGE_BYTES:
                    inputs = tensor_codec.predict_arrays(request.inputs, signature)
                else:
                    loop = asyncio.get_running_loop()
                    inputs = await loop.run_in_executor(None, tensor_codec.predict_arrays, request.inputs, signature)
            context.record.rows = count_rows(inputs)
            outputs = await version.run(signature, inputs, context.deadline, context.record.method)
        response = self._messages.PredictResponse()
        _set_spec(response.model_spec, version, signature.name)
        tensor_codec.fill_outputs(response.outputs, signature, outputs, request.output_filter)
        return response

    async def _predict_streamed(self, call: protocol.Call, request_class: Any, context: CallContext) -> int:
        """Send the pieces of a generated answer as they come, until the client leaves."""
        record, body = context.record, await call.read_only()
        record.size_in = len(body)
        request = _parsed(request_class, body)
        version = self._find(request.model_spec)
        if (name := request.model_spec.signature_name or DEFAULT_SIGNATURE) != DEFAULT_SIGNATURE:
            message = f"signature_name: expected {DEFAULT_SIGNATURE}, which can be streamed, received {name[:99]}"
            raise RequestError("FAILED_PRECONDITION", message)
        generations, size, record.rows = version.streamed(), 0, 1
        record.set_target(version, DEFAULT_SIGNATURE)
        left = asyncio.ensure_future(call.wait_for_end())
        with version.in_use() as session:
            signature = session.signatures[DEFAULT_SIGNATURE]
            columns, sampling = streamed.read_inputs(request.inputs, signature)
            pieces = generations.generate(columns, sampling, context.deadline)
            try:
                while (piece := await _unless(left, anext(pieces, None))) is not None:
                    response = self._messages.PredictResponse()
                    _set_spec(response.model_spec, version, DEFAULT_SIGNATURE)
                    streamed.fill_response(response.outputs, piece, generations.model.text, signature)
                    message = response.SerializeToString()
                    size += len(message)
                    await call.send(message)
                version.log_request(signature, [columns[name] for name in signature.inputs])
            finally:
                left.cancel()
                await pieces.aclose()
        return size

    async def _classify(self, request: Any, context: CallContext) -> Any:
        response = self._messages.ClassificationResponse()
        ran = await self._run_examples(request.model_spec, request.input, context)
        _set_spec(response.model_spec, ran.version, ran.signature.name)
        _fill_classes(response.result, ran)
        return response

    async def _regress(self, request: Any, context: CallContext) -> Any:
        response = self._messages.RegressionResponse()
        ran = await self._run_examples(request.model_spec, request.input, context)
        _set_spec(response.model_spec, ran.version, ran.signature.name)
        _fill_regressions(response.result, ran)
        return response

    async def _multi_inference(self, request: Any, context: CallContext) -> Any:
        """Classify and regress the same Examples with several signatures of one model."""
        tasks = request.tasks
        if not tasks:
            raise invalid("Inference request must specify at least one task")
        if len({task.model_spec.name for task in tasks}) > 1:
            raise invalid("All ModelSpecs in a MultiInferenceRequest must access the same model name.")
        names = [task.model_spec.signature_name for task in tasks]
        for task in tasks:
            if names.count(task.model_spec.signature_name) > 1:
                raise invalid(f"Duplicate evaluation of signature: {task.model_spec.signature_name}")
            if task.method_name not in (examples.CLASSIFY_METHOD, examples.REGRESS_METHOD):
                raise RequestError("UNIMPLEMENTED", f"Unsupported signature method_name: {task.method_name}")
        response = self._messages.MultiInferenceResponse()
        for task in tasks:
            ran = await self._run_examples(task.model_spec, request.input, context)
            result = response.results.add()
            _set_spec(result.model_spec, ran.version, ran.signature.name)
            if task.method_name == examples.CLASSIFY_METHOD:
                _fill_classes(result.classification_result, ran)
            else:
                _fill_regressions(result.regression_result, ran)
        return response

    async def _run_examples(self, spec: Any, given: Any, context: CallContext) -> RanExamples:
        version = self._find(spec)
        with version.in_use() as session:
            signature = find_signature(session, spec.signature_name)
            context.record.set_target(version, signature.name)
            rows = tensor_codec.read_examples(given)
            context.record.rows = len(rows)
            arrays = examples.to_inputs(rows, signature, fills_missing=session.fills_missing)
            outputs = await version.run(signature, arrays, context.deadline, context.record.method)
        return RanExamples(version, session, signature, outputs, len(rows))

    async def _metadata(self, request: Any, context: CallContext) -> Any:
        if not request.HasField("model_spec"):
            raise invalid("Missing ModelSpec")
        return metadata_message(self._find(request.model_spec), request.metadata_field)

    async def _status(self, request: Any, context: CallContext) -> Any:
        if not request.HasField("model_spec"):
            raise invalid("Missing ModelSpec")
        return status_message(self._models.status(*_address(request.model_spec)))

    async def _health(self, request: Any, context: CallContext) -> Any:
        if request.service and request.service not in SERVICES:
            raise RequestError("NOT_FOUND", f"no service {request.service[:200]}")
        return self._messages.HealthCheckResponse(status=self._health_state(request.service))

    def _health_state(self, service: str) -> int:
        """Return the state of a service. The empty name stands for the whole server."""
        if service and service not in SERVICES:
            return HEALTH_STATES["SERVICE_UNKNOWN"]
        is_ready = self._models.is_ready() and not self._admission.is_draining
        return HEALTH_STATES["SERVING" if is_ready else "NOT_SERVING"]

    async def _watch(self, call: protocol.Call, request_class: Any, context: CallContext) -> int:
        """Send the state of a service at once and whenever it changes, until the client leaves or the server stops."""
        service = _parsed(request_class, await call.read_only()).service
        left = asyncio.ensure_future(call.wait_for_end())
        sent = None
        try:
            while not left.done():
                state = self._health_state(service)
                if state != sent:
                    await call.send(self._messages.HealthCheckResponse(status=state).SerializeToString())
                    sent = state
                if self._admission.is_draining:
                    raise RequestError("UNAVAILABLE", "the server is shutting down")
                await asyncio.wait((left,), timeout=WATCH_SECONDS)
            raise protocol.ClientDisconnected
        finally:
            left.cancel()

    async def _reflect(self, call: protocol.Call, request_class: Any, context: CallContext) -> int:
        while (message := await self._unless_draining(call.read())) is not None:
            await call.send(answer_reflection(_parsed(request_class, message)).SerializeToString())
        return 0

    async def _reload(self, request: Any, context: CallContext) -> Any:
        """Replace the configuration of models, and answer when they are loaded, however long this takes."""
        await self._models.reload_from(request.config)
        return self._messages.ReloadConfigResponse(status={})

    async def _unless_draining(self, work: Coroutine[Any, Any, T]) -> T:
        """Return the result of the work. Raise UNAVAILABLE when the server stops before."""
        task = asyncio.ensure_future(work)
        try:
            while not task.done():
                await asyncio.wait((task,), timeout=WATCH_SECONDS)
                if self._admission.is_draining:
                    raise RequestError("UNAVAILABLE", "the server is shutting down")
            return task.result()
        finally:
            task.cancel()

    def _find(self, spec: Any) -> Version:
        if not spec.name:
            raise invalid("ModelSpec has no name specified.")
        return self._models.find(*_address(spec))


async def _unless(left: asyncio.Future[None], work: Awaitable[T]) -> T:
    """Return the result of the work. Raise ClientDisconnected, and cancel it, when the client has left before."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait((task, left), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise protocol.ClientDisconnected
        return task.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait((task,))


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


def _parsed(message_class: Any, body: bytes) -> Any:
    try:
        return message_class.FromString(body)
    except DecodeError:
        raise invalid("the message cannot be parsed") from None


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
