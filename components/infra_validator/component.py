"""InfraValidator: find out whether a model can be served, by serving it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kerasline.components.core.artifacts import Blessing, Examples, InfraValidation, SavedModel, Schema
from kerasline.components.core.component import Component, Context, Input, Output, Parameters
from kerasline.components.infra_validator.command import check_command, check_installed
from kerasline.components.infra_validator.settings import InfraValidatorSettings


class InfraValidator(Component):
    """Serve a model on a free port and compare its answers with those of the model without a server.

    The server answers real rows and edge cases. An edge case is a real row in which one feature is missing, unknown or
    extreme, according to the input `schema` or, without it, to the dtypes. The served answers must equal the
    model's own. A row that the model itself refuses must be refused with the same class of status, and the server must
    continue. A model that cannot be loaded, that crashes or blocks its process, or that answers differently is
    refused. This is a verdict for Pusher and not a failure of the stage. docs/VALIDATING.md has the details.

    Whether an answer depends on the other rows of its batch, so that a server must not batch the requests of several
    clients, is no rule but a note in the validation.

    Args:
        rows: int, number of real rows, sent together and one by one. Defaults to 64.
        split: str, split that the real rows are drawn from. Defaults to `"test"`.
        seed: int, seed of that draw. Defaults to 0.
        requests: int, number of REST requests of one row for the latency. Defaults to 200.
        latency_p99_ms: float or None, upper bound of the 99th percentile of the latency in milliseconds. Defaults to
            None, no bound.
        ready_seconds: float, time limit for loading the model. Defaults to 120.
        request_seconds: float, time limit for one request. Defaults to 30.
        tolerance: float, largest allowed difference of a number, relative for numbers above 1. Defaults to 1e-4.
        command: str or None, command line of another server with TensorFlow Serving's interfaces, such as
            `tensorflow_model_server --rest_api_port={rest_port} --port={grpc_port} --model_name={name}
            --model_base_path={folder}`. `{folder}` contains the model as version 1. `{saved_model}` is the model
            itself. Without `{grpc_port}` gRPC is not tested. Defaults to None, kerasline's own server.

    Raises:
        DataError: a column of the model is missing or has the wrong type, or the split has no rows.
        ParameterError: the command names an unknown program or placeholder.
        KeraslineError: the server's libraries are not installed, or no port is free.

    Example:

    >>> import tensorflow as tf
    >>> module = tf.Module()
    >>> double = tf.function(lambda x: {"y": 2 * x}, input_signature=[tf.TensorSpec([None], name="x")])
    >>> tf.saved_model.save(module, str(folder / "model"), {"serving_default": double})
    >>> examples = kl.InMemoryExampleGen({"x": [1.0, 2.0]}, splits={"test": 1}).execute(folder / "examples").examples
    >>> stage = kl.InfraValidator(kl.SavedModel(folder / "model"), examples, requests=5)
    >>> stage.execute(folder / "validated").blessing.blessed  # doctest: +SKIP
    True
    """

    LIBRARIES = ("tensorflow", "aiohttp", "h2corn")

    VERSION = "4"

    saved_model: Input[SavedModel]
    examples: Input[Examples]
    schema: Input[Schema] = None
    validation: Output[InfraValidation]
    blessing: Output[Blessing]
    settings: Parameters[InfraValidatorSettings]

    def check(self, inputs: Any) -> None:
        super().check(inputs)
        check_command(self.settings.command)
        if inputs.saved_model is not None and inputs.examples is not None:
            from kerasline.components.data.model_inputs import check_feedable

            check_feedable(inputs.examples.schema(), inputs.saved_model.inputs)

    def check_machine(self) -> None:
        check_command(self.settings.command)
        check_installed(self.settings.command)

    def run(self, inputs: Any, outputs: Any, context: Context) -> Mapping[str, Any]:
        from kerasline.components.infra_validator.validate import Validation

        return Validation(inputs, outputs, self.settings, context).run()

    def stale(self, outputs: Any) -> str | None:
        validation = outputs.validation.read_json(InfraValidation.FILE)
        return "refused, perhaps because the machine was busy: retrying" if validation["may_be_transient"] else None
