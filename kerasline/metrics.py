"""Base classes for metrics of one's own, for `Evaluator(metrics=...)`: `kl.metrics`."""

from kerasline.components.metrics.base import CellMetrics, Metrics, Rows, State, StateMetrics, SumMetrics

__all__ = ["CellMetrics", "Metrics", "Rows", "State", "StateMetrics", "SumMetrics"]
