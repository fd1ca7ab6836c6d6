"""A SavedModel in memory: its signatures, and calls of them with NumPy arrays.

A session runs the graph, as in TensorFlow Serving: a call costs a fraction of what a call of
`tf.saved_model.load(...).signatures[...]` does, nothing of Keras is rebuilt, and closing the session
gives its memory back.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kerasline.components.core.artifacts import SavedModel
from kerasline.components.models.signatures import Signature, for_clients, signatures


class SavedModelSession:
    """A loaded SavedModel; its methods may be called from several threads.

    Attributes:
        signatures: by name.
        definitions: the SignatureDef protos by name.
        class_names: the classes of the model's scores, where kerasline's Exporter wrote them.
        fills_missing: whether a missing number may be NaN and a missing text "", as Exporter promises.
    """

    def __init__(self, folder: Path):
        """Raises what TensorFlow raises where the folder holds no SavedModel that can be loaded."""
        tf = _tensorflow()
        # What a request computes is small: the caller's thread runs the graph, without a hand-over to a pool.
        config = tf.compat.v1.ConfigProto(allow_soft_placement=True)
        config.gpu_options.allow_growth = True
        self._lock = threading.Lock()
        self._session = tf.compat.v1.Session(graph=tf.Graph(), config=config)
        try:
            with self._session.graph.as_default():
                graph = tf.compat.v1.saved_model.load(self._session, ["serve"], str(folder))
        except BaseException:
            self._session.close()
            raise
        self._calls: dict[str, Any] = {}
        self.definitions = for_clients(graph.signature_def)
        self.signatures = signatures(self.definitions)
        manifest = _manifest(folder)
        names = manifest.get("class_names")
        self.class_names = [str(name) for name in names] if isinstance(names, list) else None
        self.fills_missing = bool(manifest)

    def call(self, signature: Signature, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The outputs, in the order of `signature.outputs`, for inputs in the order of `signature.inputs`."""
        call = self._calls.get(signature.name) or self._prepare(signature)
        return call(*arrays)

    def close(self) -> None:
        self._calls.clear()
        self._session.close()

    def _prepare(self, signature: Signature) -> Any:
        """The public `make_callable` cannot be told to run in the caller's thread; that is 3 to 7 times slower."""
        from tensorflow.core.protobuf import config_pb2

        options = config_pb2.CallableOptions()
        options.feed.extend(spec.tensor for spec in signature.inputs.values())
        options.fetch.extend(spec.tensor for spec in signature.outputs.values())
        options.run_options.inter_op_thread_pool = -1
        with self._lock:
            if signature.name not in self._calls:
                self._calls[signature.name] = self._session._make_callable_from_options(options)
            return self._calls[signature.name]


def _tensorflow() -> Any:
    """TensorFlow, without the lines that it writes past every setting while it is imported."""
    if "tensorflow" not in sys.modules:
        with open(os.devnull, "wb") as nowhere:
            sys.stderr.flush()
            kept = os.dup(2)
            os.dup2(nowhere.fileno(), 2)
            try:
                import tensorflow  # noqa: F401
            finally:
                os.dup2(kept, 2)
                os.close(kept)
    import tensorflow as tf

    return tf


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / SavedModel.MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
