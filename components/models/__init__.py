"""How a model is made: what `kerasline.components.model_builder.component` is made of."""
