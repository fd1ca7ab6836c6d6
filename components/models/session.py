"""A loaded SavedModel: its signatures, called with NumPy arrays.

A session runs the graph, as in TensorFlow Serving. A call is several times faster than a call of
`tf.saved_model.load(...).signatures[...]`, Keras objects are not rebuilt, and closing the session frees its memory.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kerasline.components.core.artifacts import SavedModel
from kerasline.components.core.json_files import read_object
from kerasline.components.models.op_libraries import import_op_libraries
from kerasline.components.models.signatures import STREAM, Signature, for_clients, signatures

_LEGACY_KERAS = "TF_USE_LEGACY_KERAS"


class SavedModelSession:
    """A loaded SavedModel. Its methods are thread-safe.

    Attributes:
        signatures: `Signature` by name.
        definitions: SignatureDef protos by name.
        class_names: names of the classes of the scores, or None. Exporter writes them.
        stream: how answers are streamed, as Exporter describes it, or None. `streaming` has the signatures for it.
        fills_missing: whether NaN is accepted as a missing number and "" as a missing text. True for models that
            Exporter wrote.
    """

    def __init__(self, folder: Path):
        """Load a SavedModel, after the libraries that have its operations.

        Raises what TensorFlow raises if the folder has no SavedModel that can be loaded, and an ArtifactError if a
        library is not installed.
        """
        tf = import_tensorflow()
        import_op_libraries(folder)
        # Requests are small: run the graph in the caller's thread instead of a thread pool.
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
        manifest = read_object(folder / SavedModel.MANIFEST)
        names = manifest.get("class_names")
        self.class_names = [str(name) for name in names] if isinstance(names, list) else None
        self.fills_missing = bool(manifest)
        self.streaming = signatures({name: graph.signature_def[name] for name in STREAM if name in graph.signature_def})
        stream = manifest.get("stream")
        self.stream: dict[str, Any] | None = stream if self.streaming and isinstance(stream, dict) else None

    def call(self, signature: Signature, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the outputs, in the order of `signature.outputs`, for inputs in the order of `signature.inputs`."""
        call = self._calls.get(signature.name) or self._prepare(signature)
        return [one if isinstance(one, np.ndarray) else _as_array(one) for one in call(*arrays)]

    def close(self) -> None:
        self._calls.clear()
        self._session.close()

    def _prepare(self, signature: Signature) -> Any:
        """Return a callable for a signature that runs in the caller's thread.

        The public `make_callable` always uses a thread pool, which is 3 to 7 times slower.
        """
        from tensorflow.core.protobuf import config_pb2

        options = config_pb2.CallableOptions()
        options.feed.extend(spec.tensor for spec in signature.inputs.values())
        options.fetch.extend(spec.tensor for spec in signature.outputs.values())
        options.run_options.inter_op_thread_pool = -1
        with self._lock:
            if signature.name not in self._calls:
                self._calls[signature.name] = self._session._make_callable_from_options(options)
            return self._calls[signature.name]


def _as_array(scalar: Any) -> np.ndarray:
    """Return a scalar output, which TensorFlow returns as bytes or as a NumPy scalar, as an array of shape ()."""
    return np.array(scalar, object if isinstance(scalar, bytes) else None)


def import_tensorflow() -> Any:
    """Import TensorFlow without Keras and without the lines that TensorFlow writes to stderr during its import.

    TensorFlow ends its import with that of Keras, which a process that only executes SavedModels does not need, nor the
    100 to 160 MB of Keras and what Keras imports. With TF_USE_LEGACY_KERAS, TensorFlow looks for tf_keras instead, and
    goes on without it. Keras can still be imported later.
    """
    if "tensorflow" not in sys.modules:
        before = os.environ.get(_LEGACY_KERAS)
        os.environ[_LEGACY_KERAS] = "1"
        with open(os.devnull, "wb") as nowhere:
            sys.stderr.flush()
            stderr = os.dup(2)
            os.dup2(nowhere.fileno(), 2)
            try:
                import tensorflow  # noqa: F401
            finally:
                os.dup2(stderr, 2)
                os.close(stderr)
                if before is None:
                    del os.environ[_LEGACY_KERAS]
                else:
                    os.environ[_LEGACY_KERAS] = before
    import tensorflow as tf

    return tf
