"""How hyperparameters are searched: what `components.tuner` is made of."""
