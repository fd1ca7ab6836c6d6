"""KerasHub presets on disk: folders with the configuration and weights of a model, and the assets of its tokenizer."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kerasline.components.core.errors import ParameterError, one_line

if TYPE_CHECKING:
    import keras

CONFIG = "config.json"
TEXT, TOKENS, NEXT = "text", "tokens", "next"
IGNORED = -1  # the label that counts for nothing, and the id of padding


def is_preset(path: str | Path) -> bool:
    """Return whether a path is the folder of a preset."""
    return os.path.isfile(os.path.join(path, CONFIG))


def load_backbone(folder: Path, where: str) -> keras.Model:
    """Return the backbone of a preset.

    Raises:
        ParameterError: the folder is no preset, or KerasHub cannot load it. The message begins with `where`.
    """
    return _loaded(folder, where, lambda hub: hub.models.Backbone.from_preset(str(folder)))


def load_language_model(folder: Path, inputs: dict[str, keras.KerasTensor], where: str) -> keras.Model:
    """Return the causal language model of a preset, compiled: from `tokens`, padded with -1, to logits `next`.

    Its layer `language_model` is KerasHub's task. In packed rows, documents see those before them.

    Args:
        folder: the preset.
        inputs: symbolic features by name. The model ignores all but `tokens`.
        where: begins the messages of errors.

    Raises:
        ParameterError: as `load_backbone`; or there is no feature `tokens`.
    """
    if TOKENS not in inputs:
        raise ParameterError(
            f"{where}: the preset of a language model needs the feature {TOKENS!r}, as its Transform computes"
        )
    task = _loaded(folder, where, lambda hub: hub.models.CausalLM.from_preset(str(folder), preprocessor=None))
    import keras

    task.name = "language_model"
    tokens = inputs[TOKENS]
    is_token = keras.ops.cast(keras.ops.greater_equal(tokens, 0), "int32")
    logits = task({"token_ids": keras.ops.maximum(tokens, 0), "padding_mask": is_token})
    model = keras.Model(inputs, keras.layers.Activation("linear", dtype="float32", name=NEXT)(logits))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=IGNORED))
    return model


def load_preprocessing(folder: Path, where: str) -> keras.Model:
    """Return the preprocessing of a preset: from `text` to `tokens` and the label `next`, both padded with -1.

    Its layer `words` is the tokenizer.

    Raises:
        ParameterError: as `load_backbone`.
    """
    tokenizer = _loaded(folder, where, lambda hub: hub.tokenizers.Tokenizer.from_preset(str(folder)))
    import keras

    from kerasline.components.preprocessing.layers.hub_tokenizer import HubTokenizer

    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["config"]
    words = HubTokenizer(tokenizer, begin=True, end=True, name="words")
    text = keras.Input((1,), name=TEXT, dtype="string")
    ids = words(text)
    if (length := config.get("max_sequence_length")) is not None:
        ids = ids[:, : length + 1]
    return keras.Model({TEXT: text}, {TOKENS: ids[:, :-1], NEXT: ids[:, 1:]})


def _loaded(folder: Path, where: str, load: Callable[[Any], Any]) -> Any:
    if not is_preset(folder):
        raise ParameterError(f"{where}: {folder} is no KerasHub preset; it has no {CONFIG}")
    try:
        import keras_hub
    except ImportError as error:
        raise ParameterError(f"{where}: {folder} is a preset; install keras-hub to load it") from error
    try:
        return load(keras_hub)
    except (ValueError, OSError, KeyError) as error:
        raise ParameterError(f"{where}: KerasHub cannot load {folder}: {one_line(error, 200)}") from error
