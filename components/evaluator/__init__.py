"""How good a model is, where and how surely: predictions, metrics by slice, intervals, verdicts."""
