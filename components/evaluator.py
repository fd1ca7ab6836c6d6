"""Evaluator: how good the model is on held-out rows, and whether it may go out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from components.artifacts import Blessing, Evaluation, Examples, Model, Preprocessing
from components.base import Component, Context, Input, Output, Parameter
from components.errors import ParameterError, nearest


class Evaluator(Component):
    """Measures the model's own loss and metrics over a whole split, and holds them to thresholds.

    Parameters:
        thresholds: bounds by metric, such as `{"accuracy": {"min": 0.9}, "loss": {"max": 0.5}}`.
            A model that keeps them all is blessed.
        split: the held-out rows.

    Raises:
        ParameterError: a threshold names a metric that the model does not have.
    """

    LIBRARIES = ("tensorflow", "keras")

    examples: Input[Examples]
    preprocessing: Input[Preprocessing]
    model: Input[Model]
    evaluation: Output[Evaluation]
    blessing: Output[Blessing]
    thresholds: Parameter[dict[str, dict[Literal["min", "max"], float]]] = {}
    split: Parameter[str] = "test"
    batch_size: Parameter[int] = 1024

    def run(self, inputs: Any, outputs: Any, context: Context) -> Mapping[str, Any]:
        from components.columnar.training_input import dataset

        model = inputs.model.load()
        data = dataset(
            inputs.examples, self.split, inputs.preprocessing,
            batch_size=self.batch_size, work_dir=context.work_dir,
        )  # fmt: skip
        figures = {k: float(v) for k, v in model.evaluate(data, verbose=0, return_dict=True).items()}
        rules = _judge(figures, self.thresholds)
        blessed = all(rule["kept"] for rule in rules)
        report = {
            "split": self.split,
            "rows": inputs.examples.rows(self.split),
            "metrics": figures,
            "confusion": _confusion(model, data, inputs.preprocessing.facts["class_names"]),
        }
        outputs.evaluation.write_json(Evaluation.FILE, report)
        outputs.blessing.write_json(Blessing.FILE, {"blessed": blessed, "rules": rules})
        refusals = "; ".join(outputs.blessing.refusals())
        return {**figures, "blessed": "yes" if blessed else f"no: {refusals}"}


def _judge(
    figures: Mapping[str, float], thresholds: Mapping[str, Mapping[str, float]]
) -> list[dict[str, Any]]:
    rules = []
    for metric, bounds in thresholds.items():
        if metric not in figures:
            raise ParameterError(
                f"Evaluator.thresholds: the model has no metric {metric!r}; {nearest(metric, figures)}"
            )
        value = figures[metric]
        for kind, bound in bounds.items():
            # A figure that is not a number keeps no bound.
            kept = value >= bound if kind == "min" else value <= bound
            rules.append({"metric": metric, "kind": kind, "bound": bound, "value": value, "kept": kept})
    return rules


def _confusion(model: Any, data: Any, class_names: Any) -> dict[str, Any] | None:
    """Rows by true and predicted class, for a classifier of whole-numbered classes; else None."""
    import numpy as np
    import tensorflow as tf

    classes = model.output.shape[-1] if hasattr(model.output, "shape") else None
    if not isinstance(class_names, list) or classes != len(class_names):
        return None
    predict = tf.function(lambda features: tf.argmax(model(features, training=False), axis=-1))
    counts = np.zeros((classes, classes), np.int64)
    for features, label, *_ in data:
        true = label.numpy().reshape(-1).astype(np.int64)
        np.add.at(counts, (true, predict(features).numpy().reshape(-1)), 1)
    return {"classes": class_names, "counts": counts.tolist()}
