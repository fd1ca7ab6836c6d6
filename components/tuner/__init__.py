"""How hyperparameters are searched: what `kerasline.components.tuner.component` is made of."""
