"""Explainer: importances, attributions, partial dependence and the worst rows of a model."""
