"""How a model is made: what `components.model_builder` is made of."""
