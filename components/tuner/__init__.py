"""Tuner: the search for the best hyperparameters."""
