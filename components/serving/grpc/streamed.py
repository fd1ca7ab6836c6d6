"""PredictStreamed: a generated answer as a stream of PredictResponses.

Besides the inputs of the signature, a request may have `max_tokens`, `temperature`, `seed` and `stop`. Each response
has the text that follows; the last one also has `finish_reason` and the answers that are no text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from kerasline.components.models.session import import_tensorflow
from kerasline.components.models.signatures import Signature
from kerasline.components.serving.runtime import tensor_codec
from kerasline.components.serving.runtime.errors import invalid
from kerasline.components.serving.runtime.generations import Piece, one_row
from kerasline.components.serving.runtime.sampling import MAX_STOPS, SETTINGS, Sampling, read_sampling

FINISH_REASON = "finish_reason"
_STRING = 7  # of tensorflow.DataType


def read_inputs(inputs: Mapping[str, Any], signature: Signature) -> tuple[Mapping[str, np.ndarray], Sampling]:
    """Return the columns of the only row, and the settings of sampling. Raise INVALID_ARGUMENT for wrong ones."""
    settings = {name: inputs[name] for name in SETTINGS if name in inputs and name not in signature.inputs}
    columns = {name: proto for name, proto in inputs.items() if name not in settings}
    tensor_codec.check_names(columns, signature)
    sampling = read_sampling({name: _values(name, proto) for name, proto in settings.items()})
    return one_row(dict(zip(signature.inputs, tensor_codec.predict_arrays(columns, signature)))), sampling


def _values(name: str, proto: Any) -> Any:
    """Return a number, or the texts of `stop`, from a TensorProto."""
    tf = import_tensorflow()
    most = MAX_STOPS if name == "stop" else 1
    if math.prod(max(0, dim.size) for dim in proto.tensor_shape.dim) > most:
        raise invalid(f"{name}: expected at most {most} values, received a larger tensor")
    try:
        values = tf.make_ndarray(proto).reshape(-1).tolist()
    except (ValueError, TypeError) as error:
        raise invalid(f"{name}: the tensor is malformed") from error
    texts = [one.decode("utf-8", "replace") if isinstance(one, bytes) else one for one in values]
    if name == "stop":
        return texts
    if not texts:
        raise invalid(f"{name}: expected a number, received an empty tensor")
    return texts[0]


def fill_response(outputs: Mapping[str, Any], piece: Piece, text: str, signature: Signature) -> None:
    """Fill the outputs of a PredictResponse.

    Args:
        text: the name of the answer that is streamed.
    """
    new = (piece.prompt + piece.text).encode()
    shape = [1] * len(signature.outputs[text].shape or (1,))
    tensor_codec.to_proto(np.full(shape, new, object), _STRING, outputs[text])
    for name, array in (piece.outputs or {}).items():
        if name != text:
            tensor_codec.to_proto(array, signature.outputs[name].data_type, outputs[name])
    if piece.finish_reason is not None:
        tensor_codec.to_proto(np.full([1], piece.finish_reason.encode(), object), _STRING, outputs[FINISH_REASON])
