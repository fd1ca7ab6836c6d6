"""Base classes for metrics of one's own, for `Evaluator(metrics=...)`, and a metric that Keras lacks: `kl.metrics`."""

from kerasline.components.metrics.base import CellMetrics, Metrics, Rows, State, StateMetrics, SumMetrics
from kerasline.components.metrics.token_accuracy import TokenAccuracy

__all__ = ["CellMetrics", "Metrics", "Rows", "State", "StateMetrics", "SumMetrics", "TokenAccuracy"]
