"""InfraValidator: whether a model can be served, found out by serving it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from annotated_types import Gt

from kerasline.components.core.artifacts import Blessing, Examples, InfraValidation, SavedModel, Schema
from kerasline.components.core.component import Component, Context, Input, Output, Parameter

Seconds = Annotated[float, Gt(0)]


class InfraValidator(Component):
    """Starts a server of its own on a free port, loads the model there, and asks it about real and odd rows.

    What is served must be what the model answers in process; what it refuses in process must be refused with the
    same class of error, and the server must go on. A model that cannot be loaded, ends or holds up its process, or
    answers otherwise is refused: a verdict, which Pusher obeys, and no failure of this stage. Odd rows are made of
    a real one by the schema: each feature missing, never seen, or extreme; without the input `schema`, by dtype
    alone. docs/VALIDATING.md says what is sent and how it is compared.

    Parameters:
        rows: real ones, drawn from the split by the seed; asked about together, and each alone.
        split: of the examples.
        seed: of what is drawn.
        requests: of one row each, of which the latency is measured, over REST.
        latency_p99_ms: the most that 99 of 100 of them may take.
        ready_seconds: the most until the model can be asked.
        request_seconds: the most for one request.
        tolerance: by how much a number served may differ; of one greater than 1, that part of it.
        command: the command line of another server with TensorFlow Serving's interfaces, with places to be filled
            in: `tensorflow_model_server --rest_api_port={rest_port} --port={grpc_port} --model_name={name}
            --model_base_path={folder}`. `{saved_model}` is the model itself, as version 1 of `{folder}`. Without
            `{grpc_port}` gRPC is left out.

    Raises:
        DataError: a column that the model takes is missing or of the wrong kind, or the split has no rows.
        ParameterError: the command names no program, or a place that there is not.
        KeraslineError: the server's libraries are not installed, or no port is free.
    """

    LIBRARIES = ("tensorflow", "aiohttp", "h2corn")

    saved_model: Input[SavedModel]
    examples: Input[Examples]
    schema: Input[Schema] = None
    validation: Output[InfraValidation]
    blessing: Output[Blessing]
    rows: Parameter[Annotated[int, Gt(0)]] = 64
    split: Parameter[str] = "test"
    seed: Parameter[int] = 0
    requests: Parameter[Annotated[int, Gt(0)]] = 200
    latency_p99_ms: Parameter[Annotated[float, Gt(0)] | None] = None
    ready_seconds: Parameter[Seconds] = 120.0
    request_seconds: Parameter[Seconds] = 30.0
    tolerance: Parameter[Annotated[float, Gt(0)]] = 1e-4
    command: Parameter[str | None] = None

    def run(self, inputs: Any, outputs: Any, context: Context) -> Mapping[str, Any]:
        from types import SimpleNamespace

        from kerasline.components.infra_validator.validate import Validating

        return Validating(inputs, outputs, SimpleNamespace(**self.parameters), context).run()

    def stale(self, outputs: Any) -> str | None:
        told = outputs.validation.read_json(InfraValidation.FILE)
        return "refused, maybe because the machine was busy: tried again" if told["maybe_the_machine"] else None
