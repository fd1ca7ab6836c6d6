"""Exporter: a SavedModel with its signatures, warm-up requests and description, and further forms of the model."""
