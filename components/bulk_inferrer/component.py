"""BulkInferrer: what a model says of every row of a data set, as Parquet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from annotated_types import Gt

from kerasline.components.core.artifacts import Blessing, Examples, Predictions, SavedModel
from kerasline.components.core.component import Component, Context, Input, Output, Parameter
from kerasline.components.core.errors import StageSkipped


class BulkInferrer(Component):
    """Answers all rows of some examples by an exported model, with Beam, a shard at a time.

    The output has the examples' splits and shards, a column for each output of the model, by its name, and
    those to keep. `label`, the name of a class, is text. An output of one number a row is a number, of several
    a tensor. Killed, the same run goes on: shards that were done are found again.

    Parameters:
        split: answered; all are when left out.
        keep: columns of the examples that go along, such as an id.
        prefix: put before the outputs' names, where a column that is kept has the same.
        batch_size: rows that the model takes at once.
        bad_rows: "quarantine" sets rows that cannot be answered aside, into `quarantine.jsonl` with their
            reasons; with "refuse" the first of them ends the run.

    Raises:
        StageSkipped: the model was refused.
        DataError: a column is missing or of the wrong kind; or a row cannot be answered and none may.
        ParameterError: a column to keep is not there, or is called as an output is.
    """

    LIBRARIES = ("tensorflow", "keras")

    saved_model: Input[SavedModel]
    examples: Input[Examples]
    blessing: Input[Blessing] = None
    predictions: Output[Predictions]
    split: Parameter[str | None] = None
    keep: Parameter[list[str]] = []
    prefix: Parameter[str] = ""
    batch_size: Parameter[Annotated[int, Gt(0)]] = 4096
    bad_rows: Parameter[Literal["quarantine", "refuse"]] = "quarantine"

    def run(self, inputs: Any, outputs: Any, context: Context) -> Mapping[str, Any]:
        from types import SimpleNamespace

        from kerasline.components.bulk_inferrer.inference import infer

        if inputs.blessing is not None and not inputs.blessing.blessed:
            raise StageSkipped(f"model refused: {'; '.join(inputs.blessing.refusals())}")
        settings = SimpleNamespace(**self.parameters)
        return infer(inputs.saved_model, inputs.examples, outputs.predictions, settings, context)
