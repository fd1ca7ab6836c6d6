"""ModelBuilder: the user's model, built and initialised, before any training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from components.artifacts import Model, Preprocessing
from components.base import Component, Context, Input, Output, Parameter
from components.errors import UserCodeError
from components.user_code import call, name_of

if TYPE_CHECKING:
    import keras

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
        model.save(outputs.model.path / Model.FILE)
        model.save_weights(outputs.model.path / INITIAL_WEIGHTS)
        summary = summarise(model)
        outputs.model.write_json("summary.json", summary)
        return {"parameters": summary["parameters"]}


def summarise(model: keras.Model) -> dict[str, Any]:
    """The size of a model: parameters in all and by layer, bytes, optimizer and loss."""
    layers = [
        {
            "name": layer.name,
            "class": type(layer).__name__,
            "parameters": layer.count_params(),
            "trainable": layer.trainable,
        }
        for layer in model.layers
    ]
    trainable = sum(int(w.value.shape.num_elements()) for w in model.trainable_weights)
    return {
        "name": model.name,
        "parameters": model.count_params(),
        "trainable_parameters": trainable,
        "bytes": sum(w.value.shape.num_elements() * w.value.dtype.size for w in model.weights),
        "optimizer": type(model.optimizer).__name__,
        "loss": getattr(model.loss, "name", None) or getattr(model.loss, "__name__", str(model.loss)),
        "layers": layers,
    }
