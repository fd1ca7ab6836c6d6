"""Small SavedModels whose outputs follow a formula."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


def save_half_plus(folder: Path, addend: float = 2.0) -> Path:
    """x / 2 + addend, as in TensorFlow Serving's documentation.

    `serving_default` takes x of shape (None,); `tensorflow/serving/regress` and `.../classify` take
    serialized Examples with a feature x. Classes are `low` and `high`, with scores y and -y.
    """
    import tensorflow as tf

    class HalfPlus(tf.Module):
        def __init__(self):
            super().__init__()
            self.addend = tf.Variable(addend)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
        def predict(self, x):
            return {"y": x / 2 + self.addend}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
        def regress(self, inputs):
            return {"outputs": self._of_examples(inputs)}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
        def classify(self, inputs):
            y = self._of_examples(inputs)
            labels = tf.tile(tf.constant([["low", "high"]]), [tf.shape(y)[0], 1])
            return {"classes": labels, "scores": tf.concat([y, -y], axis=1)}

        def _of_examples(self, inputs):
            x = tf.io.parse_example(inputs, {"x": tf.io.FixedLenFeature([1], tf.float32)})["x"]
            return x / 2 + self.addend

    module = HalfPlus()
    methods = {"regress": module.regress, "classify": module.classify}
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    tf.saved_model.save(
        module,
        str(unfinished),
        signatures={
            "serving_default": module.predict,
            **{f"tensorflow/serving/{name}": method for name, method in methods.items()},
        },
    )
    _set_methods(unfinished, [f"tensorflow/serving/{name}" for name in methods])
    os.rename(unfinished, folder)
    return folder


def save_mixed(folder: Path) -> Path:
    """number (None, 1) float, count (None, 1) int64, word (None, 1) string.

    `serving_default` gives scores (None, 3): number, count, the word's length in bytes; and
    echo_bytes (None, 1): the word. `shapes` takes any list of floats and gives its sum and itself.
    """
    import tensorflow as tf

    specs = {
        "number": tf.TensorSpec([None, 1], tf.float32, name="number"),
        "count": tf.TensorSpec([None, 1], tf.int64, name="count"),
        "word": tf.TensorSpec([None, 1], tf.string, name="word"),
    }

    class Mixed(tf.Module):
        @tf.function(input_signature=[specs["number"], specs["count"], specs["word"]])
        def scores(self, number, count, word):
            length = tf.cast(tf.strings.length(word), tf.float32)
            return {
                "scores": tf.concat([number, tf.cast(count, tf.float32), length], axis=1),
                "echo_bytes": tf.identity(word),
            }

        @tf.function(input_signature=[tf.TensorSpec([None, None], tf.float32, name="values")])
        def shapes(self, values):
            return {"sum": tf.reduce_sum(values, axis=1), "values": tf.identity(values)}

        @tf.function(input_signature=[tf.TensorSpec([], tf.float64, name="a"), tf.TensorSpec([2], tf.int32, name="b")])
        def scalars(self, a, b):
            return {"product": a * tf.cast(tf.reduce_sum(b), tf.float64)}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.int32, name="x")])
        def refuses_negative(self, x):
            with tf.control_dependencies([tf.debugging.assert_non_negative(x, message="negative x")]):
                return {"x": tf.identity(x)}

    module = Mixed()
    names = ("shapes", "scalars", "refuses_negative")
    signatures = {"serving_default": module.scores, **{name: getattr(module, name) for name in names}}
    tf.saved_model.save(module, str(folder), signatures=signatures)
    return folder


def save_heavy(folder: Path, size: int = 3000) -> Path:
    """x (None,) to the sum of a product of two size x size matrices of x: seconds of work."""
    import tensorflow as tf

    class Heavy(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
        def heavy(self, x):
            def one(value):
                full = tf.fill([size, size], value)
                return tf.reduce_mean(tf.linalg.matmul(full, tf.ones([size, size]))) / size

            return {"y": tf.map_fn(one, x)}

    tf.saved_model.save(Heavy(), str(folder), signatures={"serving_default": Heavy().heavy})
    return folder


def write_warm_up(folder: Path, xs: list[float]) -> Path:
    """Record a Predict request for each x, with TensorFlow Serving's own messages."""
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    file = folder / "assets.extra" / "tf_serving_warmup_requests"
    file.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(file)) as writer:
        for x in xs:
            log = prediction_log_pb2.PredictionLog()
            log.predict_log.request.model_spec.name = "half"
            log.predict_log.request.inputs["x"].CopyFrom(tf.make_tensor_proto([x], tf.float32))
            writer.write(log.SerializeToString())
    return file


def _set_methods(folder: Path, names: list[str]) -> None:
    """Set the method names in the file, because TensorFlow 2 writes the one of Predict into each signature."""
    from tensorflow.core.protobuf import saved_model_pb2

    file = folder / "saved_model.pb"
    saved: Any = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    for graph in saved.meta_graphs:
        for name in names:
            graph.signature_def[name].method_name = name
    file.write_bytes(saved.SerializeToString())


def save_functions(folder: Path, functions: dict[str, Any], **tracked: Any) -> Path:
    """Save signatures of one input x and one output y.

    Args:
        functions: by signature: function, shape and dtype of x.
        tracked: variables and tables that the functions use.
    """
    import tensorflow as tf

    module = tf.Module()
    for name, value in tracked.items():
        setattr(module, name, value)
    for name, (function, shape, dtype) in functions.items():
        specs = [tf.TensorSpec(shape, dtype, name="x")]
        setattr(module, name, tf.function(_named_output(function), input_signature=specs))
    signatures = {name: getattr(module, name) for name in functions}
    tf.saved_model.save(module, str(folder), signatures=signatures)
    return folder


def _named_output(function: Any) -> Any:
    return lambda x: {"y": function(x)}
