"""The tokenizers of KerasHub as a layer from texts to ids, inside an exported model too."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from kerasline.components.preprocessing.layers.tokenizer import Tokenizer


@keras.saving.register_keras_serializable("kerasline")
class HubTokenizer(Tokenizer):
    """Splits texts as a tokenizer of KerasHub does, such as that of a preset.

    Args:
        tokenizer: a `keras_hub.tokenizers.Tokenizer`.
        length: int. Number of ids of a row: longer texts are cut, shorter ones padded with -1, since a vocabulary may
            have no id for padding. Defaults to None: padded to the longest row of the batch.
        begin: bool. Begin each row with the tokenizer's start token, if it has one. Defaults to `False`.
        end: bool. End each row with its end token, if it has one. Defaults to `False`.

    Inputs:
        Texts of shape (rows,) or (rows, 1). Texts have no ids for what the vocabulary does not know.

    Outputs:
        int32 (rows, length).
    """

    pad_id = unknown_id = -1

    def __init__(
        self, tokenizer: Any, length: int | None = None, begin: bool = False, end: bool = False, **options: Any
    ) -> None:
        super().__init__(1, length, begin, end, **options)
        self.tokenizer = tokenizer
        self._known: list[str] | None = None
        # KerasHub splits texts with operations of TensorFlow inside a graph only. One is traced for any number of rows.
        texts, ids = tf.TensorSpec([None], tf.string), tf.RaggedTensorSpec([None, None], tf.int32)
        self._split = tf.function(tokenizer.tokenize, input_signature=[texts], autograph=False)
        self._join = tf.function(tokenizer.detokenize, input_signature=[ids], autograph=False)

    def build(self, shape: Any) -> None:
        """Do nothing: a tokenizer has no weights."""

    @property
    def begin_id(self) -> int:  # type: ignore[override]
        return self._special("start_token_id")

    @property
    def end_id(self) -> int:  # type: ignore[override]
        return self._special("end_token_id")

    @property
    def vocabulary(self) -> list[str] | None:
        if self._known is None and self.tokenizer.vocabulary is not None:
            with tf.init_scope():
                self._known = [self.tokenizer.id_to_token(n) for n in range(self.tokenizer.vocabulary_size())]
        return self._known

    def decode(self, ids: Any) -> tf.Tensor:
        ids = tf.cast(tf.convert_to_tensor(ids), tf.int32)
        if self.begin_id == self.end_id:  # as in GPT-2: the first one ends nothing
            ids = tf.concat([tf.where(ids[..., :1] == self.begin_id, self.pad_id, ids[..., :1]), ids[..., 1:]], axis=-1)
        return super().decode(ids)

    def new_state(self) -> None:
        return None

    def get_config(self) -> dict[str, Any]:
        config = {name: value for name, value in super().get_config().items() if name != "top"}
        return {**config, "tokenizer": keras.saving.serialize_keras_object(self.tokenizer)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> HubTokenizer:
        return cls(keras.saving.deserialize_keras_object(config.pop("tokenizer")), **config)

    def _options(self, length: int | None, begin: bool | None, end: bool | None) -> tuple[int | None, bool, bool]:
        length, begin, end = super()._options(length, begin, end)
        return length, begin and self.begin_id >= 0, end and self.end_id >= 0

    def _tokenize(self, texts: tf.Tensor) -> tf.RaggedTensor:
        ids = tf.cast(self._split(texts), tf.int32)
        return tf.ragged.boolean_mask(ids, ids >= 0)

    def _detokenize(self, ids: tf.RaggedTensor) -> tf.Tensor:
        return self._join(ids)

    def _special(self, name: str) -> int:
        number = getattr(self.tokenizer, name, None)
        return -1 if number is None else int(number)
