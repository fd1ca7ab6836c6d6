"""The metric families of an evaluation: those of each output's task, the loss, Keras's and the user's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kerasline.components.core.errors import ParameterError
from kerasline.components.evaluator.settings import EvaluatorSettings
from kerasline.components.metrics.base import Metrics
from kerasline.components.metrics.row_means import FunctionMean, MeanLoss
from kerasline.components.models.tasks import TASKS, Output

if TYPE_CHECKING:
    import keras

    from kerasline.components.metrics.keras_metrics import KerasMetric


def metric_families(
    output: Output, settings: EvaluatorSettings, *, has_loss: bool, has_baseline: bool = False, label_mean: Any = 0.0
) -> tuple[Metrics, ...]:
    """Return the families of an output, except for Keras metrics. The first family with a name provides the metric.

    Args:
        has_loss: whether the model was compiled with a loss for this output.
        has_baseline: whether a baseline is connected.
        label_mean: mean of the label, a number or float64 (numbers,).

    Raises:
        ParameterError: two metrics or families have the same name.
    """
    own = TASKS[output.task].metrics(output, settings, label_mean)
    if has_baseline:
        own = (*own, *TASKS[output.task].comparison(settings))
    loss = [MeanLoss()] if has_loss else []
    families = (*own, *loss, *_user_metrics(settings.metrics))
    _check_names(families)
    return families


def keras_metrics(model: keras.Model, settings: EvaluatorSettings) -> dict[str, tuple[KerasMetric, ...]]:
    """Return the compiled Keras metrics and those of the `metrics` parameter, by output.

    Raises:
        ParameterError: Keras has no metric of a name.
    """
    from kerasline.components.metrics.keras_metrics import KerasMetric, distinct
    from kerasline.components.models.compile_config import compiled_metrics, metric_config
    from kerasline.components.models.compiling import metric

    named = [(metric(one, "Evaluator.metrics"), one) for one in settings.metrics if not _is_custom(one)]
    requested = [metric_config(found, one) for found, one in named if not isinstance(found, str)]
    return {
        output: distinct(map(KerasMetric.of, [*configs, *requested]))
        for output, configs in compiled_metrics(model).items()
    }


def keras_direction(metric: str) -> str:
    """Return whether higher (`"up"`) or lower (`"down"`) values of a Keras metric are better."""
    from kerasline.components.trainer.settings import lower_is_better

    return "down" if lower_is_better(metric) else "up"


def _user_metrics(given: Sequence[Any]) -> tuple[Metrics, ...]:
    """Return the user's functions and metric families among the `metrics` parameter."""
    return tuple(one if isinstance(one, Metrics) else FunctionMean(one) for one in given if _is_custom(one))


def _is_custom(given: Any) -> bool:
    is_of_keras = hasattr(given, "update_state")  # Keras is not imported for this
    return not is_of_keras and (isinstance(given, Metrics) or callable(given))


def _check_names(families: Sequence[Metrics]) -> None:
    names: set[str] = set()
    keys: set[str] = set()
    for family in families:
        taken = names & set(family.directions) if isinstance(family, FunctionMean) else {family.key} & keys
        if taken:
            raise ParameterError(f"Evaluator.metrics: there is already a metric {taken.pop()!r}; rename the other one")
        names |= set(family.directions)
        keys.add(family.key)
