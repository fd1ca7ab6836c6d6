"""Transform: the user's Keras preprocessing, adapted over a whole split with Beam."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kerasline.components.core import keras_files
from kerasline.components.core.artifacts import Examples, Preprocessing, Schema, needed_inputs
from kerasline.components.core.component import Component, Context, Input, Output, Parameters
from kerasline.components.core.errors import DataError, ParameterError, UserCodeError, nearest
from kerasline.components.core.keras_compat import source_operation
from kerasline.components.core.keras_names import check_layer_names
from kerasline.components.core.parameters import PositiveInt, SplitName
from kerasline.components.core.user_code import call, name_of
from kerasline.components.preprocessing.features import Feature
from kerasline.components.preprocessing.features.base import form_of
from kerasline.components.preprocessing.packing import Packing, with_segments, without_segments

if TYPE_CHECKING:
    import keras

    from kerasline.components.preprocessing.adaptation.draft import Draft


@dataclass(frozen=True, kw_only=True)
class TransformSettings:
    """The parameters of Transform, which documents them."""

    function: Callable | None = None
    features: dict[str, Feature] | None = None
    label: str | list[str] | None = None
    sample_weight: str | None = None
    split: SplitName = "train"
    materialize: bool = False
    pack: Packing | None = None
    augment: Callable | None = None
    most_counted: PositiveInt | None = None


class Transform(Component):
    """Computes the state of every preprocessing layer over all rows, and saves the adapted model.

    Pass either `function` or `features`, or connect `initial`.

    Args:
        examples: Examples. The data.
        schema: Schema, optional. Not read. Connecting it makes Transform run after the schema's review.
        initial: Preprocessing, optional. An earlier one, which is used with its state, such as its vocabularies:
            nothing is adapted. The model that was trained on its output can then learn from other data. Also the
            folder of a KerasHub preset: its tokenizer computes `tokens` and the label `next` from the column `text`.
        function: callable, or its name as `file.py:name`. Returns a functional `keras.Model` from raw columns to model
            inputs, both dicts by name, or a `keras.utils.FeatureSpace`. The model may also compute the label.
        features: dict of `kerasline.features` by the name of the model input, instead of a function.
        label: str or list of str. The output of the preprocessing, or else the raw column, to learn. Several for a
            model whose outputs have these names. With `features`, a column of texts becomes class indices (lists of
            texts: multi-hot rows) by `kerasline.layers.ClassIndex`. None, the default, if the features are the target,
            as of an autoencoder.
        sample_weight: str. The output or raw column with the weight of each row, or of each token, in training.
        split: str. The rows on which layers are adapted. Defaults to `"train"`.
        materialize: bool. Store the preprocessed rows of all splits, so that training reads them instead of
            preprocessing raw rows in every epoch. Worth it if preprocessing costs more than reading. Defaults to
            `False`.
        pack: dict of `length`, and optionally `separator` and `padding`: see
            `kerasline.components.preprocessing.packing.Packing`. Stores documents for training one after the other, in
            rows of this length, and adds the features `segment_ids` and `positions`. Each output must have shape
            (None,), such as the tokens and, as the label, the next tokens. Other stages, and the served model, take a
            document per row. Defaults to None.
        augment: callable, or its name as `file.py:name`. `augment(outputs)` changes the outputs of the preprocessing,
            features and labels together, at random, in training alone: from a dict of symbolic tensors to the dict that
            training receives. Outputs that it does not return are not features of the model, and clients do not send
            what only they need. Defaults to None.
        most_counted: int. Maximum number of values that a vocabulary counts at once, to bound its memory. Counts are
            then too low by at most rows / most_counted. None, the default, counts all values exactly.

    Returns:
        preprocessing: Preprocessing. The adapted model, its state in readable files, and the materialized rows.

    Raises:
        UserCodeError: the function raised an error, or returned something else.
        ParameterError: not exactly one of `function`, `features` and `initial` was passed; or a layer needs a label.
        DataError: an input has no column of its name, or the column's values do not fit it; the label or weight is
            text; or the split has no rows.

    Example:

    >>> examples = kl.InMemoryExampleGen({"fare": [1.0, 3.0], "tip": [0, 1]}, splits={"train": 1})
    >>> examples = examples.execute(folder / "examples").examples
    >>> transform = kl.Transform(examples, features={"fare": kl.features.Number()}, label="tip")
    >>> done = transform.execute(folder / "transform")
    >>> done.metrics
    {'adapted_layers': 1, 'passes': 1}
    >>> done.preprocessing.load()({"fare": np.array([[2.0], [4.0]])})["fare"].numpy().tolist()
    [[0.0], [2.0]]
    """

    VERSION = "9"
    LIBRARIES = ("tensorflow", "keras")

    examples: Input[Examples]
    schema: Input[Schema] = None
    initial: Input[Preprocessing] = None
    preprocessing: Output[Preprocessing]
    settings: Parameters[TransformSettings]

    def run(self, inputs: Any, outputs: Any, context: Context) -> Mapping[str, Any]:
        from kerasline.components.preprocessing.adaptation.passes import adapt, label_and_weight

        examples: Examples = inputs.examples
        draft = self._draft(examples, inputs.initial)
        self._check(draft.model, examples)
        beside = label_and_weight(draft.model, self._labels, examples.schema().names, self.name)
        labels = {name: taken["label"] for name, taken in beside.items() if "label" in taken}
        shards = examples.whole_shards(self.settings.split)
        adapted = adapt(draft.model, shards, context, self.settings.most_counted, beside)
        self._check_encoded_labels(draft.model, labels)
        model = draft.finished()
        preprocessing: Preprocessing = outputs.preprocessing
        preprocessing.save(model)
        file = preprocessing.path / Preprocessing.FILE
        if problem := keras_files.difference_after_loading(file, keras_files.contents(model)):
            raise UserCodeError(f"{self._source}: {problem}")
        if any(None in model.output[name].shape[1:] for name in self._labels if name in model.output):
            model = preprocessing.load()  # some layers know their width only once they are adapted
        augmentation = self._augmentation(model, preprocessing)
        facts = self._facts(model, examples, augmentation)
        facts["state"] = preprocessing.write_states(adapted.states, inputs.initial)
        if labels:
            facts["out_of_fold"] = self.settings.split
        preprocessing.write_json(Preprocessing.FACTS, facts)
        metrics: dict[str, Any] = {"adapted_layers": len(adapted.states), "passes": adapted.passes}
        if adapted.remembered:
            metrics["remembered"] = f"{adapted.remembered} of {adapted.remembered + adapted.computed} parts"
        if self.settings.materialize or self.settings.pack:
            from kerasline.components.preprocessing.materialized import materialize

            name = "packed_rows" if self.settings.pack else "materialized_rows"
            metrics[name] = materialize(preprocessing, examples, context)
        return metrics

    def check(self, inputs: Any) -> None:
        super().check(inputs)
        given = [self.settings.function is not None, self.settings.features is not None, "initial" in self.inputs]
        if sum(given) != 1:
            raise ParameterError(f"{self.name}: expected one of `function`, `features` and an `initial` preprocessing")

    @property
    def _source(self) -> str:
        """The name of the preprocessing in messages."""
        if self.settings.function is not None:
            return name_of(self.settings.function)
        return f"{self.name}.{'initial' if self.settings.features is None else 'features'}"

    def _draft(self, examples: Examples, initial: Preprocessing | None) -> Draft:
        from kerasline.components.models.presets import is_preset, load_preprocessing
        from kerasline.components.preprocessing.adaptation import draft

        function, features = self.settings.function, self.settings.features
        if initial is not None:
            if is_preset(initial.path):
                earlier = load_preprocessing(initial.path, f"{self.name}.initial")
            else:
                earlier = without_segments(initial.load())
            found = draft.Draft(earlier, lambda: earlier)
        elif features is not None:
            found = draft.from_features(features, examples.schema(), self._labels)
        else:
            assert function is not None
            found = draft.from_returned_value(call(function), self._source)
        if self.settings.pack is None:
            return found
        packed = with_segments(found.finished(), self.settings.pack, self._taken)
        return draft.Draft(packed, lambda: packed)

    def _check(self, model: keras.Model, examples: Examples) -> None:
        from kerasline.components.data.model_inputs import check_missing_integers, check_spellings
        from kerasline.components.preprocessing.adaptation.graph import complete_inputs, unreachable, unsavable

        for problem in (unreachable(model), unsavable(model)):
            if problem:
                raise UserCodeError(f"{self._source}: {problem}")
        check_layer_names(model, self._source)
        if not examples.rows(self.settings.split):
            raise DataError(f"{self.name}.split: {self.settings.split!r} has no rows to adapt layers on")
        columns = examples.schema().names
        for name in model.input:
            if name not in columns:
                raise DataError(
                    f"the data has no column {name!r}, an input of {self._source}; {nearest(name, columns)}"
                )
        check_spellings(examples, model.input)
        check_missing_integers(examples, model.input, complete_inputs(model))
        known = [*model.output, *columns]
        named = [("label", name) for name in self._labels]
        named += [("sample_weight", self.settings.sample_weight)] if self.settings.sample_weight else []
        for parameter, name in named:
            if name not in known:
                raise DataError(
                    f"{self.name}.{parameter}: {name!r} is neither an output of {self._source} "
                    f"nor a column of the data; {nearest(name, known)}"
                )
            self._check_is_numeric(model, examples, parameter, name)

    @property
    def _labels(self) -> list[str]:
        label = self.settings.label
        return [label] if isinstance(label, str) else label or []

    @property
    def _taken(self) -> list[str]:
        """The labels and the weight."""
        weight = self.settings.sample_weight
        return [*self._labels, *([weight] if weight else [])]

    def _augmentation(self, model: keras.Model, preprocessing: Preprocessing) -> keras.Model | None:
        """Save and return the model that the user's `augment` describes, or None."""
        from kerasline.components.preprocessing.augmentation import augmentation_model

        function = self.settings.augment
        if function is None:
            return None
        found = augmentation_model(function, model.output, self._taken)
        file = preprocessing.path / Preprocessing.AUGMENTATION
        keras_files.save(found, file)
        if problem := keras_files.difference_after_loading(file, keras_files.contents(found)):
            raise UserCodeError(f"{name_of(function)}: {problem}")
        return found

    def _facts(self, model: keras.Model, examples: Examples, augmentation: keras.Model | None) -> dict[str, Any]:
        """Return what later stages know of the model without loading it; see `Preprocessing`."""
        from kerasline.components.models.summary import tensor_forms

        label, weight, features = self.settings.label, self.settings.sample_weight, self._features(model)
        if augmentation is not None:
            features = [name for name in features if name in augmentation.output]
        names = {name: _class_names(model, examples, name) for name in self._labels}
        return {
            "label": label,
            "sample_weight": weight,
            "features": features,
            "label_specs": {
                name: _label_spec(model, examples, name) for name in [*self._labels, *([weight] if weight else [])]
            },
            "augmented": augmentation is not None,
            "packed": self.settings.pack.model_dump() if self.settings.pack else None,
            "class_names": names[label] if isinstance(label, str) else names or None,
            "inputs": tensor_forms(model.input),
            "outputs": tensor_forms(model.output),
            "served_inputs": list(needed_inputs(model.input, {name: model.output[name] for name in features})),
        }

    def _features(self, model: keras.Model) -> list[str]:
        """Return the outputs that the model receives: all but labels and weight.

        Entries of `features` are always received, and labels if there is no other output.
        """
        taken = set(self._taken) - set(self.settings.features or {})
        return [name for name in model.output if name not in taken] or [
            name for name in model.output if name in self._labels
        ]

    def _check_is_numeric(self, model: keras.Model, examples: Examples, parameter: str, name: str) -> None:
        """Raise a DataError if a label or weight is text."""
        if name in model.output:
            dtype, found = str(model.output[name].dtype), f"output {name!r}"
        else:
            dtype, found = form_of(examples.schema().field(name).type)[0], f"column {name!r}"
        if dtype != "string":
            return
        problem = f"{self.name}.{parameter}: {found} is text, expected numbers"
        if parameter == "sample_weight":
            raise DataError(problem)
        raise DataError(
            f"{problem}; compute the label in {self._source}, as the output "
            f'"{name}": kerasline.layers.ClassIndex()(keras.Input((1,), name="{name}", dtype="string"))'
        )

    def _check_encoded_labels(self, model: keras.Model, labels: Mapping[str, str]) -> None:
        """Raise a ParameterError if a layer takes the mean of the indices of more than two classes.

        Args:
            labels: the label of each layer that takes one, by the layer's name.
        """
        for name, label in labels.items():
            classes = _encoded_classes(model, label) or []
            if getattr(model.get_layer(name), "target_type", None) == "numeric" and len(classes) > 2:
                raise ParameterError(
                    f"{self._source}: layer {name!r} encodes by the mean of a number, and the label {label!r} has "
                    f"{len(classes)} classes; pass target_type='multiclass'"
                )


def _label_spec(model: keras.Model, examples: Examples, name: str) -> dict[str, Any]:
    """Return the dtype and the shape of a row of a label or weight."""
    from kerasline.components.data.label_columns import column_spec

    if name not in model.output:
        dtype, shape = column_spec(examples, name)
    else:
        dtype, shape = str(model.output[name].dtype), tuple(model.output[name].shape[1:])
    return {"dtype": dtype, "shape": shape}


def _class_names(model: keras.Model, examples: Examples, label: str) -> list[str] | None:
    """Return the names of the classes that a label numbers, or None if they are unknown."""
    return _encoded_classes(model, label) if label in model.output else examples.class_names(label)


def _encoded_classes(model: keras.Model, label: str) -> list[str] | None:
    """Return the vocabulary of the lookup that computes a label, or None if none does."""
    from kerasline.components.preprocessing.layers.categories import ClassIndex

    layer = source_operation(model.output[label]) if label in model.output else None
    if isinstance(layer, ClassIndex):
        return layer.vocabulary
    if layer is not None and hasattr(layer, "get_vocabulary") and getattr(layer, "num_oov_indices", 1) == 0:
        return [str(value) for value in layer.get_vocabulary()]
    return None
