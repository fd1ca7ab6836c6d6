"""Evaluator: predictions, metrics by slice with confidence intervals, comparisons and thresholds."""
