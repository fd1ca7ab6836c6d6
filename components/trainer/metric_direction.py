"""Whether less or more of a figure is better, by its name."""

from __future__ import annotations

MORE = ("accuracy", "auc", "precision", "recall", "f1_score", "fbeta_score", "r2_score", "iou", "bleu")


def less_is_better(figure: str) -> bool:
    """Losses and errors are to be small; accuracies and their like are not."""
    return not figure.endswith(MORE)
