"""ModelBuilder: builds and initializes a model before training."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kerasline.components.core import keras_files, malloc
from kerasline.components.core.artifacts import Hyperparameters, Model, Preprocessing
from kerasline.components.core.component import Component, Context, Input, Output, Parameters
from kerasline.components.core.errors import ParameterError, UserCodeError
from kerasline.components.core.keras_compat import save_weight_memory
from kerasline.components.core.keras_names import check_layer_names, input_names
from kerasline.components.core.parameters import PositiveInt
from kerasline.components.core.user_code import call, name_of
from kerasline.components.models.presets import is_preset

if TYPE_CHECKING:
    import keras

GRAPH_IMAGE = "graph.svg"


@dataclass(frozen=True, kw_only=True)
class ModelBuilderSettings:
    """The parameters of ModelBuilder, which documents them."""

    function: Callable[..., Any] | None = None
    description: dict[str, Any] | None = None
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    warm_start: Literal["all", "matching"] | dict[str, str] = "matching"
    weights: str | dict[str, str] | None = None
    freeze: list[str] = field(default_factory=list)
    lora_rank: PositiveInt | None = None
    lora_layers: list[str] = field(default_factory=list)


class ModelBuilder(Component):
    """Builds a model from a function, a description or an earlier model, and saves it untrained.

    Args:
        preprocessing: the output of Transform, which defines the inputs of the model.
        initial: an earlier model. See `warm_start`. Also the path of a `.keras` file, or of the folder of a KerasHub
            preset of a causal language model, which receives `tokens` and returns the logits of the `next` ones.
        best: hyperparameters that a Tuner found. They take precedence over `hyperparameters`.

        function: `build_model(inputs, hp)`. Receives a dict of `keras.Input` by feature name and the hyperparameters,
            and returns a compiled functional `keras.Model`. As `build_model(inputs, hp, prepared)` it also receives
            what is known of the preprocessing, such as `prepared.vocabulary_size("source")`; see
            `kerasline.components.models.prepared.Prepared`.
        description: the model as data, instead of a function. See
            `kerasline.components.model_builder.description`.
        hyperparameters: values of `hp`, and of `"$name"` in a description. A single one is set as
            `hyperparameters.NAME`. Those that are the path of a `.weights.h5` or `.keras` file, or of a KerasHub
            preset's folder, count by its content. Defaults to `{}`.
        seed: seed of the initial weights. Defaults to 0.
        warm_start: which weights to take from `initial`: `"all"`, those that are `"matching"` by name and shape, or
            a dict from layers to layers of the earlier model. Without function and description, the earlier model
            itself is used. Layers inside nested models are named by path, such as `backbone/dense`. Defaults to
            `"matching"`.
        weights: weights on disk: a `.weights.h5` or `.keras` file, the `trained.h5` of a trained model, or a KerasHub
            preset folder; or a dict of these by the layer that receives them, such as a nested backbone. They are
            loaded after those of `initial`.
        freeze: patterns of the layers that training leaves unchanged, such as `encoder*`. Defaults to `[]`.
        lora_rank: rank of low-rank updates (LoRA) of frozen kernels. By default there are none.
        lora_layers: patterns of the layers that receive these updates. By default all that support them.

    Outputs:
        model: the compiled model.

    Raises:
        ParameterError: both or neither of function and description were given, a parameter does not apply to the
            model, or a loss does not fit its label.
        UserCodeError: the function raised an exception or returned something else.

    >>> import keras
    >>> def preprocessing():
    ...     x = keras.Input((1,), name="x")
    ...     return keras.Model({"x": x}, {"x": keras.layers.Rescaling(0.5)(x)})
    >>> model = {"layers": [{"layer": "Dense", "units": "$units"}, {"layer": "Dense", "units": 1}], "loss": "mse"}
    >>> data = {"x": [0.0, 1.0, 2.0], "y": [1.0, 3.0, 5.0]}
    >>> examples = kl.InMemoryExampleGen(data, splits={"train": 1}).execute(folder / "examples").examples
    >>> prepared = kl.Transform(examples, function=preprocessing, label="y").execute(folder / "prepared").preprocessing
    >>> builder = kl.ModelBuilder(prepared, description=model, hyperparameters={"units": 4})
    >>> builder.execute(folder / "model").metrics["parameters"]
    13
    """

    VERSION = "4"
    LIBRARIES = ("tensorflow", "keras")

    preprocessing: Input[Preprocessing]
    initial: Input[Model] = None
    best: Input[Hyperparameters] = None
    model: Output[Model]
    settings: Parameters[ModelBuilderSettings]

    def check(self, inputs: Any) -> None:
        super().check(inputs)
        settings = self.settings
        if settings.function is not None and settings.description is not None:
            raise ParameterError(f"{self.name}: expected one of `function` and `description`, received both")
        if settings.function is None and settings.description is None and "initial" not in self.inputs:
            raise ParameterError(f"{self.name}: expected `function`, `description` or an `initial` model")

    def run(self, inputs: Any, outputs: Any, context: Context) -> Mapping[str, Any]:
        from kerasline.components.model_builder.graph_image import draw_graph
        from kerasline.components.models.summary import summarize
        from kerasline.components.models.targets import check_losses

        hyperparameters = {**self.settings.hyperparameters, **(inputs.best.values if inputs.best else {})}
        model, warm_started = self.build(inputs.preprocessing, hyperparameters, inputs.initial)
        check_losses(model, inputs.preprocessing, self.name)
        artifact: Model = outputs.model
        artifact.save(model)
        summary, contents = summarize(model), keras_files.contents(model)
        artifact.write_json("summary.json", summary)
        (artifact.path / GRAPH_IMAGE).write_text(draw_graph(model), encoding="utf-8")
        del model
        malloc.release_model(summary["bytes"])
        if problem := keras_files.difference_after_loading(artifact.path / Model.FILE, contents):
            raise UserCodeError(f"{self._source}: {problem}")
        return _metrics(summary, warm_started)

    def external_inputs(self) -> Sequence[Path | str]:
        weights = self.settings.weights
        paths = [Path(path) for path in ([weights] if isinstance(weights, str) else (weights or {}).values())]
        for path in paths:
            if not path.exists():
                raise ParameterError(f"{self.name}.weights: {path} does not exist")
        paths += [Path(value) for value in self.settings.hyperparameters.values() if _names_weights(value)]
        return [file for path in paths for file in (sorted(path.rglob("*.*")) if path.is_dir() else [path])]

    def build(
        self, preprocessing: Preprocessing, hyperparameters: Mapping[str, Any], initial: Model | None = None
    ) -> tuple[keras.Model, str | None]:
        """Build the model.

        Args:
            preprocessing: the output of Transform.
            hyperparameters: values of `hp`.
            initial: the earlier model, if any.

        Returns:
            The model, compiled and with an optimizer without state, and which weights it took from the earlier model,
            or None.
        """
        from kerasline.components.model_builder.warm_start import load_weights, warm_start
        from kerasline.components.models.compiling import recompile
        from kerasline.components.models.freezing import enable_lora, freeze
        from kerasline.components.models.seeding import seed_everything

        settings = self.settings
        save_weight_memory()
        seed_everything(settings.seed)
        warm_started = None
        if settings.function is None and settings.description is None:
            model, warm_started = self._load(initial, preprocessing), "all"
        else:
            model = self._new_model(preprocessing, hyperparameters)
            if initial is not None:
                warm_started = warm_start(model, initial.load(), settings.warm_start)
        if settings.weights is not None:
            loaded = load_weights(model, settings.weights)
            warm_started = loaded if warm_started is None else f"{warm_started}; {loaded} from disk"
        freeze(model, settings.freeze, "ModelBuilder.freeze")
        if settings.lora_rank is not None:
            enable_lora(model, settings.lora_rank, settings.lora_layers)
        if settings.freeze or settings.lora_rank is not None:
            recompile(model)
        return model, warm_started

    @property
    def _source(self) -> str:
        """Where the model comes from, in messages."""
        settings = self.settings
        if settings.function is not None:
            return name_of(settings.function)
        return f"{self.name}.description" if settings.description is not None else f"{self.name}.initial"

    def _load(self, initial: Model | None, preprocessing: Preprocessing) -> keras.Model:
        from kerasline.components.models.presets import load_language_model

        if initial is None:
            raise ParameterError(f"{self.name}: expected `function`, `description` or an `initial` model")
        if is_preset(initial.path):
            return load_language_model(initial.path, _symbolic_inputs(preprocessing), f"{self.name}.initial")
        return initial.load(optimizer=True)

    def _new_model(self, preprocessing: Preprocessing, hyperparameters: Mapping[str, Any]) -> keras.Model:
        import keras

        from kerasline.components.model_builder.functional import as_functional
        from kerasline.components.models.prepared import Prepared, takes_argument

        inputs, settings = _symbolic_inputs(preprocessing), self.settings
        if settings.description is not None:
            from kerasline.components.model_builder.description import build

            return build(settings.description, inputs, hyperparameters, f"{self.name}.description")
        assert settings.function is not None
        further = []
        if takes_argument(settings.function, position=2):
            further = [Prepared(preprocessing.load(), preprocessing.facts["class_names"])]
        model = call(settings.function, inputs, dict(hyperparameters), *further)
        if not isinstance(model, keras.Model) or not model.compiled:
            received = "an uncompiled model" if isinstance(model, keras.Model) else type(model).__name__
            raise UserCodeError(
                f"{name_of(settings.function)} must return a compiled keras.Model, it returned {received}"
            )
        model = as_functional(model, inputs, name_of(settings.function))
        check_layer_names(model, name_of(settings.function))
        return model


def _symbolic_inputs(preprocessing: Preprocessing) -> dict[str, keras.KerasTensor]:
    """Return an input of the model for each feature, by name."""
    import keras

    features = preprocessing.load_features().output
    names = input_names(features)
    return {
        name: keras.Input(tensor.shape[1:], dtype=tensor.dtype, name=names[name]) for name, tensor in features.items()
    }


def _names_weights(value: Any) -> bool:
    """Return whether a hyperparameter is the path of a file of weights, or of the folder of a KerasHub preset."""
    if not isinstance(value, str):
        return False
    return is_preset(value) or (value.endswith((".h5", ".keras")) and os.path.isfile(value))


def _metrics(summary: Mapping[str, Any], warm_started: str | None) -> dict[str, Any]:
    metrics: dict[str, Any] = {"parameters": summary["parameters"]}
    if summary["trainable_parameters"] != summary["parameters"]:
        metrics["trainable_parameters"] = summary["trainable_parameters"]
    if summary["flops"]:
        metrics["flops_per_row"] = summary["flops"]["forward"]
    if warm_started is not None:
        metrics["warm_started"] = warm_started
    return metrics
