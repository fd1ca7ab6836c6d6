"""Which answers of a served model are texts, and not bytes such as an encoded image."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from kerasline.components.core.errors import UserCodeError
from kerasline.components.core.user_code import name_of
from kerasline.components.data.media import sniff
from kerasline.components.exporter.served_model import LABEL, RAW, ServedModel, Written

BYTES_SUFFIX = "_bytes"  # of names of binary values, as in TensorFlow Serving's REST API


def text_answers(serving: ServedModel, written: Written, rows: Mapping[str, np.ndarray]) -> list[str]:
    """Return the names of the string answers that are texts, judged by the answers to some rows.

    If the model cannot answer them, every string answer is a text whose name does not end with `_bytes`.

    Args:
        rows: raw features, arrays (rows, ...), by name.

    Raises:
        UserCodeError: an answer does not have an entry for each row.
    """
    if serving.answering is None:
        return [LABEL] if serving.labelled else []
    texts = [name for name, spec in serving.outputs.items() if spec.dtype == tf.string]
    texts = [name for name in texts if not name.endswith(BYTES_SUFFIX)]
    function, _ = written.signatures[RAW]
    try:
        answers = function({name: tf.constant(array) for name, array in rows.items()})
    except (tf.errors.OpError, ValueError):  # the warm-up reports it
        return texts
    count = len(next(iter(rows.values())))
    for name, answer in answers.items():
        if answer.shape[:1] != (count,):
            raise UserCodeError(
                f"{name_of(serving.answering.function)}: answer {name!r} is of shape {tuple(answer.shape)} for "
                f"{count} rows; expected one entry per row"
            )
    return [name for name in texts if all(map(_is_text, answers[name].numpy().reshape(-1)))]


def _is_text(value: bytes) -> bool:
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return sniff(value) is None
