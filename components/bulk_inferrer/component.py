"""BulkInferrer: predict every row of a data set with an exported model, and write the predictions as Parquet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kerasline.components.bulk_inferrer.settings import BulkInferrerSettings, check_kept
from kerasline.components.core.artifacts import Blessing, Examples, Predictions, SavedModel
from kerasline.components.core.component import Component, Context, Input, Output, Parameters
from kerasline.components.core.errors import StageSkipped


class BulkInferrer(Component):
    """Predict all rows of the examples with an exported model, shard by shard, with Beam.

    The predictions have the splits and shards of the examples, and a column for each output of the model, next to the
    columns to keep. `label`, the name of a class, is a text column. An output with one number per row is a column of
    numbers, other outputs are columns of tensors. After a kill, the next run keeps the finished shards.

    Args:
        split: str or None, the split to predict. Defaults to None, all splits.
        keep: list of str, columns of the examples to copy, such as an id. Defaults to `[]`.
        prefix: str, prefix of the output columns, for outputs with the name of a copied column. Defaults to `""`.
        batch_size: int, number of rows per call of the model. Defaults to 4096.
        bad_rows: `"quarantine"` writes rows that cannot be predicted to `quarantine.jsonl`, with the reason.
            `"refuse"` fails at the first one. Defaults to `"quarantine"`.

    Raises:
        StageSkipped: the model was refused.
        DataError: a column is missing or has the wrong type, or a row cannot be predicted and `bad_rows` is `"refuse"`.
        ParameterError: a column to keep does not exist, or has the name of an output.

    Example:

    >>> import tensorflow as tf
    >>> module = tf.Module()
    >>> double = tf.function(lambda x: {"y": 2 * x}, input_signature=[tf.TensorSpec([None], name="x")])
    >>> tf.saved_model.save(module, str(folder / "model"), {"serving_default": double})
    >>> examples = kl.InMemoryExampleGen({"x": [1.0, 2.0]}, splits={"test": 1}).execute(folder / "examples").examples
    >>> stage = kl.BulkInferrer(kl.SavedModel(folder / "model"), examples, keep=["x"])
    >>> sorted(stage.execute(folder / "out").predictions.read("test")["y"].to_pylist())
    [2.0, 4.0]
    """

    LIBRARIES = ("tensorflow", "keras")

    saved_model: Input[SavedModel]
    examples: Input[Examples]
    blessing: Input[Blessing] = None
    predictions: Output[Predictions]
    settings: Parameters[BulkInferrerSettings]

    def check(self, inputs: Any) -> None:
        super().check(inputs)
        if inputs.saved_model is not None:
            check_kept(self.settings, inputs.saved_model.outputs)
        if inputs.saved_model is not None and inputs.examples is not None:
            from kerasline.components.data.model_inputs import check_feedable

            check_feedable(inputs.examples.schema(), inputs.saved_model.inputs)

    def run(self, inputs: Any, outputs: Any, context: Context) -> Mapping[str, Any]:
        from kerasline.components.bulk_inferrer.inference import infer

        if inputs.blessing is not None and not inputs.blessing.blessed:
            raise StageSkipped(f"model refused: {'; '.join(inputs.blessing.refusals())}")
        return infer(inputs.saved_model, inputs.examples, outputs.predictions, self.settings, context)
