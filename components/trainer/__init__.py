"""Trainer. `job` describes a training, `training` runs it; every other module implements one setting or one duty."""
