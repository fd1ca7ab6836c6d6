"""ModelBuilder: a model, built and initialised, before any training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Gt

from kerasline.components.core.artifacts import Hyperparameters, Model, Preprocessing
from kerasline.components.core.component import Component, Context, Input, Output, Parameter
from kerasline.components.core.errors import ParameterError, UserCodeError
from kerasline.components.core.user_code import call, name_of

if TYPE_CHECKING:
    import keras

INITIAL_WEIGHTS = "initial.weights.h5"
PICTURE = "graph.svg"


class ModelBuilder(Component):
    """Builds a model from a function or a description, or takes an earlier one on, and saves it untrained.

    Parameters:
        function: gets a dict of `keras.Input` by feature name and the hyperparameters; returns a
            compiled functional `keras.Model`.
        description: instead of a function, the model as data: see `kerasline.components.model_builder.description`.
        hyperparameters: what `hp` holds, and what `"$name"` in a description stands for; single ones
            are set as `hyperparameters.NAME`. Those of the input, a Tuner's best, go before them.
        seed: decides the initial weights: the same seed, the same weights.
        warm_start: what is taken of the input `initial`, an earlier model: "all", what is "matching" by
            name and shape, or by layer `{new: earlier}`. Without function and description the earlier
            model itself goes on.
        freeze: patterns of layers that training leaves as they are, such as `encoder*`.
        lora_rank: of low-rank updates beside frozen kernels.
        lora_layers: patterns of layers that get them; all that can by default.

    Raises:
        ParameterError: neither or both of function and description were given, or a setting fits nothing.
        UserCodeError: the function raised, or returned something else.
    """

    VERSION = "2"
    LIBRARIES = ("tensorflow", "keras")

    preprocessing: Input[Preprocessing]
    initial: Input[Model] = None
    best: Input[Hyperparameters] = None
    model: Output[Model]
    function: Parameter[Callable | None] = None
    description: Parameter[dict[str, Any] | None] = None
    hyperparameters: Parameter[dict[str, Any]] = {}
    seed: Parameter[int] = 0
    warm_start: Parameter[Literal["all", "matching"] | dict[str, str]] = "matching"
    freeze: Parameter[list[str]] = []
    lora_rank: Parameter[Annotated[int, Gt(0)] | None] = None
    lora_layers: Parameter[list[str]] = []

    def run(self, inputs: Any, outputs: Any, context: Context) -> Mapping[str, Any]:
        from kerasline.components.model_builder.picture import picture
        from kerasline.components.models.summary import summarise

        hyperparameters = {**self.hyperparameters, **(inputs.best.values if inputs.best else {})}
        model, taken = self.build(inputs.preprocessing, hyperparameters, inputs.initial)
        artifact: Model = outputs.model
        model.save(artifact.path / Model.FILE)
        model.save_weights(artifact.path / INITIAL_WEIGHTS)
        summary = summarise(model)
        artifact.write_json("summary.json", summary)
        (artifact.path / PICTURE).write_text(picture(model), encoding="utf-8")
        return _figures(summary, taken)

    def build(
        self, preprocessing: Preprocessing, hyperparameters: Mapping[str, Any], initial: Model | None = None
    ) -> tuple[keras.Model, str | None]:
        """The model, compiled, its optimizer built; and what it has of the initial one."""
        from kerasline.components.model_builder.warm_start import warm_start
        from kerasline.components.models.freezing import enable_lora, freeze
        from kerasline.components.models.seeding import seed_everything
        from kerasline.components.trainer.optimizers import recompile

        if self.function is not None and self.description is not None:
            raise ParameterError(f"{self.name}: give one of `function` and `description`")
        seed_everything(self.seed)
        taken = None
        if self.function is None and self.description is None:
            model, taken = self._earlier(initial), "all"
        else:
            model = self._made(preprocessing, hyperparameters)
            if initial is not None:
                taken = warm_start(model, initial.load(), self.warm_start)
        freeze(model, self.freeze)
        if self.lora_rank is not None:
            enable_lora(model, self.lora_rank, self.lora_layers)
        if self.freeze or self.lora_rank is not None:
            recompile(model)
        model.optimizer.build(model.trainable_variables)  # or Keras warns of what it lacks when loaded
        return model, taken

    def _earlier(self, initial: Model | None) -> keras.Model:
        if initial is None:
            raise ParameterError(f"{self.name}: give `function` or `description`, or an `initial` model")
        return initial.load()

    def _made(self, preprocessing: Preprocessing, hyperparameters: Mapping[str, Any]) -> keras.Model:
        import keras

        features = preprocessing.load_features().output
        inputs = {
            name: keras.Input(tensor.shape[1:], dtype=tensor.dtype, name=name) for name, tensor in features.items()
        }
        if self.description is not None:
            from kerasline.components.model_builder.description import build

            return build(self.description, inputs, hyperparameters, f"{self.name}.description")
        model = call(self.function, inputs, dict(hyperparameters))
        if not isinstance(model, keras.Model) or not model.compiled:
            came = "one not compiled" if isinstance(model, keras.Model) else type(model).__name__
            raise UserCodeError(f"{name_of(self.function)} must return a compiled keras.Model, it returned {came}")
        return model


def _figures(summary: Mapping[str, Any], taken: str | None) -> dict[str, Any]:
    figures: dict[str, Any] = {"parameters": summary["parameters"]}
    if summary["trainable_parameters"] != summary["parameters"]:
        figures["trainable_parameters"] = summary["trainable_parameters"]
    if summary["flops"]:
        figures["flops_a_row"] = summary["flops"]["forward"]
    if taken is not None:
        figures["warm_started"] = taken
    return figures
