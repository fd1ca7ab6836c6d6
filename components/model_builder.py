"""ModelBuilder: the user's model, built and initialised, before any training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from components.artifacts import Model, Preprocessing
from components.base import Component, Context, Input, Output, Parameter
from components.errors import UserCodeError
from components.user_code import call, name_of

INITIAL_WEIGHTS = "initial.weights.h5"


class ModelBuilder(Component):
    """Calls `function(inputs, hp)` and saves the compiled, untrained model.

    Parameters:
        function: gets a dict of `keras.Input` by feature name and the hyperparameters; returns a
            compiled functional `keras.Model`.
        hyperparameters: what `hp` holds; single ones are set as `hyperparameters.NAME`.
        seed: decides the initial weights: the same seed, the same weights.

    Raises:
        UserCodeError: the function raised, or returned something else.
    """

    LIBRARIES = ("tensorflow", "keras")

    preprocessing: Input[Preprocessing]
    model: Output[Model]
    function: Parameter[Callable]
    hyperparameters: Parameter[dict[str, Any]] = {}
    seed: Parameter[int] = 0

    def run(self, inputs: Any, outputs: Any, context: Context) -> Mapping[str, Any]:
        import keras

        from components.building.summary import summarise

        features = inputs.preprocessing.load_features().output
        keras.utils.set_random_seed(self.seed)
        model_inputs = {
            name: keras.Input(tensor.shape[1:], dtype=tensor.dtype, name=name)
            for name, tensor in features.items()
        }
        model = call(self.function, model_inputs, dict(self.hyperparameters))
        if not isinstance(model, keras.Model) or not model.compiled:
            came = "one not compiled" if isinstance(model, keras.Model) else type(model).__name__
            raise UserCodeError(
                f"{name_of(self.function)} must return a compiled keras.Model, it returned {came}"
            )
        model.optimizer.build(model.trainable_variables)  # or Keras warns of what it lacks when loaded
        model.save(outputs.model.path / Model.FILE)
        model.save_weights(outputs.model.path / INITIAL_WEIGHTS)
        summary = summarise(model)
        outputs.model.write_json("summary.json", summary)
        return {"parameters": summary["parameters"]}
