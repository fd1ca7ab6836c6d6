"""The preprocessing as an author of a model sees it: its layers, vocabularies, classes and shapes."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from kerasline.components.core.errors import UserCodeError, nearest
from kerasline.components.core.keras_compat import call_nodes, flatten_layers, source_operation
from kerasline.components.preprocessing.layers.categories import ClassIndex, FrequencyLookup
from kerasline.components.preprocessing.layers.tokenizer import Tokenizer

UNKNOWN = "[UNK]"


class Prepared:
    """The adapted preprocessing, as `build_model(inputs, hp, prepared)` and `answer(model, features, prepared)` see it.

    A name is that of a feature or label, of a raw column, or of a layer. A feature stands for the last layer before it
    that has a vocabulary, a column for the first one behind it.

    Args:
        model: the Keras model of the preprocessing, with labels and weight if it computes them.
        class_names: names of the classes of the label, or by label if there are several, or None.

    Example:

    >>> def build_model(inputs, hp, prepared):
    ...     x = keras.layers.Embedding(prepared.vocabulary_size("review"), 8)(inputs["review"])
    ...     x = keras.layers.GlobalAveragePooling1D()(x)
    ...     model = keras.Model(inputs, keras.layers.Dense(len(prepared.class_names))(x))
    ...     model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    ...     return model
    >>> import keras
    >>> data = {"review": ["good film", "bad film"], "stars": ["five", "one"]}
    >>> examples = kl.InMemoryExampleGen(data, splits={"train": 1}).execute(folder / "examples").examples
    >>> transform = kl.Transform(examples, features={"review": kl.features.Text(length=4)}, label="stars")
    >>> preprocessing = transform.execute(folder / "prepared").preprocessing
    >>> kl.ModelBuilder(preprocessing, function=build_model).execute(folder / "model").metrics["parameters"]
    58
    """

    def __init__(self, model: keras.Model, class_names: list[str] | dict[str, list[str] | None] | None) -> None:
        self.model, self.class_names = model, class_names

    def layer(self, name: str) -> Any:
        """Return an adapted layer, such as the tokenizer whose `decode` turns ids back into texts.

        Raises:
            UserCodeError: there is no such layer, or none with a vocabulary at a feature or column of that name.
        """
        layers = flatten_layers(self.model)
        with_vocabulary = [layer for layer in layers if _has_vocabulary(layer)]
        if name in self.model.output:
            found = next(filter(_has_vocabulary, _before(source_operation(self.model.output[name]))), None)
        elif name in self.model.input:
            column = source_operation(self.model.input[name])
            found = next((layer for layer in with_vocabulary if column in _before(layer)), None)
        else:
            found = next((layer for layer in layers if layer.name == name), None)
        if found is None and (name in self.model.output or name in self.model.input):
            raise UserCodeError(f"the preprocessing has no layer with a vocabulary for {name!r}")
        if found is None:
            known = dict.fromkeys([*self.model.output, *(layer.name for layer in layers)])
            raise UserCodeError(f"the preprocessing has no layer {name!r}; {nearest(name, known)}")
        return found

    def has_vocabulary(self, feature: str) -> bool:
        """Return whether a layer before a feature has a vocabulary."""
        return any(map(_has_vocabulary, _before(source_operation(self.model.output[feature]))))

    def vocabulary(self, name: str) -> list[str]:
        """Return the texts of a feature, column or layer by their ids, also while a graph is traced.

        Raises:
            UserCodeError: there is none of that name, or it has no vocabulary.
        """
        layer = self.layer(name)
        if not _has_vocabulary(layer):
            raise UserCodeError(f"layer {name!r} of the preprocessing, a {type(layer).__name__}, has no vocabulary")
        with tf.init_scope():
            if hasattr(layer, "get_vocabulary"):
                return [str(word) for word in layer.get_vocabulary()]
        if isinstance(layer, FrequencyLookup) and not isinstance(layer, ClassIndex):
            return ["", *[UNKNOWN] * max(layer.hash_bins, 1), *(layer.vocabulary or [])]
        return list(layer.vocabulary)

    def vocabulary_size(self, name: str) -> int:
        """Return the number of ids of a feature, column or layer: the `input_dim` of an embedding."""
        return len(self.vocabulary(name))

    def special_ids(self, name: str) -> dict[str, int]:
        """Return the ids with a meaning of their own, those that exist of `padding`, `unknown`, `begin` and `end`."""
        layer = self.layer(name)
        if isinstance(layer, Tokenizer):
            ids = {
                "padding": layer.pad_id,
                "unknown": layer.unknown_id,
                "begin": layer.begin_id,
                "end": layer.end_id,
            }
        else:
            tokens = self.vocabulary(name)
            texts = {"padding": "", "unknown": UNKNOWN}
            ids = {kind: tokens.index(text) if text in tokens else -1 for kind, text in texts.items()}
        return {kind: number for kind, number in ids.items() if number >= 0}

    def shape(self, name: str) -> tuple[int | None, ...]:
        """Return the shape of a row of an output of the preprocessing. None is a length that varies."""
        if name not in self.model.output:
            raise UserCodeError(f"the preprocessing has no output {name!r}; {nearest(name, self.model.output)}")
        return tuple(self.model.output[name].shape[1:])


def takes_argument(function: Callable[..., Any], position: int) -> bool:
    """Return whether a function of the user takes a positional argument at this position."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(function).parameters.values()
    return sum(one.kind in kinds for one in parameters) > position


def _has_vocabulary(layer: Any) -> bool:
    return hasattr(layer, "get_vocabulary") or getattr(layer, "vocabulary", None) is not None


def _before(operation: Any) -> list[Any]:
    """Return an operation and those that it is computed from, the nearest first."""
    found = [operation]
    for one in found:
        for node in call_nodes(one):
            new = [source_operation(tensor) for tensor in node.input_tensors]
            found += [other for other in dict.fromkeys(new) if other not in found]
    return found
