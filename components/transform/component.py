"""Transform: the user's Keras preprocessing, adapted over a whole split with Beam."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Gt

from kerasline.components.core.artifacts import Examples, Preprocessing, Schema
from kerasline.components.core.component import Component, Context, Input, Output, Parameter
from kerasline.components.core.errors import DataError, ParameterError, UserCodeError, nearest
from kerasline.components.core.user_code import call, name_of
from kerasline.components.preprocessing.features import Feature

if TYPE_CHECKING:
    import keras

    from kerasline.components.preprocessing.adaptation.draft import Draft


class Transform(Component):
    """Computes the state of every preprocessing layer and saves the model that has it.

    Parameters:
        function: returns a functional `keras.Model` from raw features to model inputs, both dicts
            by name, or a `keras.utils.FeatureSpace`. It may compute the label too.
        features: instead of a function, what becomes of each column: see `kerasline.components.preprocessing.features`.
        label: the output of that model, or else the raw column, that is learned; or several, for a
            model whose outputs are named as they are.
        sample_weight: the output or raw column that says how much a row counts in training.
        split: the rows over which layers are adapted.
        materialize: stores the preprocessed rows of all splits, so that training, however long,
            need not preprocess them again. For preprocessing that costs more than reading.
        most_counted: how many values a vocabulary counts at once. None counts all, in whatever
            memory they take; else counts are too low by rows / most_counted at most.

    Raises:
        UserCodeError: the function raised, or did not return such a model.
        ParameterError: neither or both of function and features were given.
        DataError: no column feeds an input, or its values cannot; the split has no rows.
    """

    VERSION = "3"
    LIBRARIES = ("tensorflow", "keras")

    examples: Input[Examples]
    schema: Input[Schema] = None
    preprocessing: Output[Preprocessing]
    function: Parameter[Callable | None] = None
    features: Parameter[dict[str, Feature] | None] = None
    label: Parameter[str | list[str] | None] = None
    sample_weight: Parameter[str | None] = None
    split: Parameter[str] = "train"
    materialize: Parameter[bool] = False
    most_counted: Parameter[Annotated[int, Gt(0)] | None] = None

    def run(self, inputs: Any, outputs: Any, context: Context) -> Mapping[str, Any]:
        from kerasline.components.preprocessing.adaptation.passes import adapt

        examples: Examples = inputs.examples
        draft = self._draft(examples)
        self._check(draft.model, examples)
        shards = examples.whole_shards(self.split)
        adapted = adapt(draft.model, shards, context, self.most_counted)
        model = draft.finished()
        preprocessing: Preprocessing = outputs.preprocessing
        model.save(preprocessing.path / Preprocessing.FILE)
        facts = self._facts(model, examples)
        facts["state"] = preprocessing.write_states(adapted.states)
        preprocessing.write_json(Preprocessing.FACTS, facts)
        figures = {"adapted_layers": len(adapted.states), "passes": adapted.passes}
        if adapted.remembered:
            figures["remembered"] = f"{adapted.remembered} of {adapted.remembered + adapted.computed} parts"
        if self.materialize:
            from kerasline.components.preprocessing.materialized import materialize

            figures["materialized_rows"] = materialize(preprocessing, examples, context)
        return figures

    @property
    def _told(self) -> str:
        """What to call the preprocessing in messages."""
        return name_of(self.function) if self.function else f"{self.name}.features"

    def _draft(self, examples: Examples) -> Draft:
        from kerasline.components.preprocessing.adaptation import draft

        if (self.function is None) == (self.features is None):
            raise ParameterError(f"{self.name}: give one of `function` and `features`")
        if self.features is not None:
            return draft.of_features(self.features, examples.schema())
        return draft.of_returned(call(self.function), self._told)

    def _check(self, model: keras.Model, examples: Examples) -> None:
        from kerasline.components.preprocessing.adaptation.graph import unreachable, unsavable

        for problem in (unreachable(model), unsavable(model)):
            if problem:
                raise UserCodeError(f"{self._told}: {problem}")
        if not examples.rows(self.split):
            raise DataError(f"{self.name}.split: {self.split!r} has no rows to adapt layers on")
        columns = examples.schema().names
        for name in model.input:
            if name not in columns:
                raise DataError(f"the data has no column {name!r}, which {self._told} wants; {nearest(name, columns)}")
        known = [*model.output, *columns]
        asked = [("label", name) for name in self._labels]
        asked += [("sample_weight", self.sample_weight)] if self.sample_weight else []
        for parameter, name in asked:
            if name not in known:
                raise DataError(
                    f"{self.name}.{parameter}: {name!r} is neither an output of {self._told} "
                    f"nor a column of the data; {nearest(name, known)}"
                )

    @property
    def _labels(self) -> list[str]:
        return [self.label] if isinstance(self.label, str) else self.label or []

    def _facts(self, model: keras.Model, examples: Examples) -> dict[str, Any]:
        names = {label: _class_names(model, examples, label) for label in self._labels}
        only = isinstance(self.label, str)
        return {
            "label": self.label,
            "sample_weight": self.sample_weight,
            "class_names": names[self.label] if only else names or None,
        }


def _class_names(model: keras.Model, examples: Examples, label: str) -> list[str] | None:
    """What the whole numbers of a label mean, where that is known."""
    if label not in model.output:
        return examples.class_names(label)
    layer = model.output[label]._keras_history.operation
    if hasattr(layer, "get_vocabulary") and getattr(layer, "num_oov_indices", 1) == 0:
        return [str(value) for value in layer.get_vocabulary()]
    return None
