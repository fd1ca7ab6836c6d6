"""SavedModels for the cases of TensorFlow Serving's own tests: its tutorial model, and one of many small signatures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

METHOD = "tensorflow/serving/{}"
# Inputs of the signatures that return their inputs.
ECHOED = {
    "several": {"int_tensor": "int32", "str_tensor": "string", "float_tensor": "float32", "dbl_tensor": "float64"},
    "columns": {"int_tensor": "int32", "str_tensor": "string", "bin_tensor": "string"},
    "bytes": {"str_tensor_bytes": "string"},
    **{
        dtype: {"default": dtype}
        for dtype in "int8 uint8 int16 int32 int64 uint32 uint64 float16 float32 float64 bool string complex64".split()
    },
}


def save_half_plus_two(folder: Path) -> None:
    """Like saved_model_half_plus_two.py of TensorFlow Serving: TensorFlow 1, and no shape in any TensorInfo."""
    import tensorflow as tf
    from tensorflow.core.protobuf import meta_graph_pb2

    v1 = tf.compat.v1

    def signature(inputs, outputs, method):
        def infos(tensors):
            return {
                name: meta_graph_pb2.TensorInfo(name=tensor.name, dtype=tensor.dtype.as_datatype_enum)
                for name, tensor in tensors.items()
            }

        method_name = METHOD.format(method)
        return meta_graph_pb2.SignatureDef(inputs=infos(inputs), outputs=infos(outputs), method_name=method_name)

    with v1.Graph().as_default(), v1.Session() as session:
        a, b, c = (
            v1.get_variable(name, initializer=value, use_resource=False)
            for name, value in (("a", 0.5), ("b", 2.0), ("c", 3.0))
        )
        serialized = v1.placeholder(tf.string, name="tf_example")
        features = {
            "x": tf.io.FixedLenFeature([1], tf.float32, default_value=[0.0]),
            "x2": tf.io.FixedLenFeature([1], tf.float32, default_value=[0.0]),
        }
        parsed = tf.io.parse_example(serialized, features)
        x, x2 = tf.identity(parsed["x"], name="x"), tf.identity(parsed["x2"], name="x2")
        y, y2, y3 = tf.add(a * x, b, name="y"), tf.add(a * x, c, name="y2"), tf.add(a * x2, c, name="y3")
        session.run(v1.global_variables_initializer())
        builder = v1.saved_model.Builder(str(folder))
        builder.add_meta_graph_and_variables(
            session,
            ["serve"],
            {
                "serving_default": signature({"x": x}, {"y": y}, "predict"),
                "regress_x_to_y": signature({"inputs": serialized}, {"outputs": y}, "regress"),
                "regress_x_to_y2": signature({"inputs": serialized}, {"outputs": y2}, "regress"),
                "regress_x2_to_y3": signature({"inputs": x2}, {"outputs": y3}, "regress"),
                "classify_x_to_y": signature({"inputs": serialized}, {"scores": y}, "classify"),
                "classify_x2_to_y3": signature({"inputs": x2}, {"scores": y3}, "classify"),
                "variable": signature({}, {"a": a}, "predict"),  # its dtype is DT_FLOAT_REF
            },
        )
        builder.save()


def save_cases(folder: Path) -> None:
    """Save signatures that return their inputs, return constants, count, and classify or regress `tf.Example`s."""
    import tensorflow as tf

    module = tf.Module()
    module.counter = tf.Variable(0.0)
    signatures = {
        **{name: _echo(tf, inputs) for name, inputs in ECHOED.items()},
        **_constants(tf),
        **_counters(tf, module.counter),
        **_examples(tf),
        "serving_default": _echo(tf, {"default": "float32"}),
        "sum": tf.function(
            lambda x, y: {"sum": x + y},
            input_signature=[tf.TensorSpec([None], tf.float32, "x"), tf.TensorSpec([None], tf.float32, "y")],
        ),
        "fails": tf.function(
            lambda x: {"y": tf.ensure_shape(tf.identity(x), [3])}, input_signature=[tf.TensorSpec(None, name="x")]
        ),
    }
    for name, function in signatures.items():
        setattr(module, f"signature_{name}", function)
    tf.saved_model.save(module, str(folder), signatures=signatures)
    _edit_signatures(tf, folder)


def _echo(tf: Any, inputs: dict[str, str]) -> Any:
    specs = {name: tf.TensorSpec(None, dtype, name) for name, dtype in inputs.items()}

    def echo(**tensors):
        return {name: tf.identity(tensor) for name, tensor in tensors.items()}

    return tf.function(echo).get_concrete_function(**specs)


def _constants(tf: Any) -> dict[str, Any]:
    outputs = {
        "integers": {"int_tensor": [[[1, 2], [3, 4], [5, 6]], [[7, 8], [9, 0], [1, 2]]]},
        "vector": {"int_tensor": [1, 2, 3, 4, 5]},
        "six_digits": {"float_tensor": [[9000000.0, 999999.0, 0.5], [0.0003, 0.00003, 555557.5]]},
        "not_finite": {"float_tensor": [[float("nan"), float("inf")], [3.0, float("-inf")]]},
        "complex": {"tensor": tf.constant([1 + 2j], tf.complex64)},
        "scalar": {"tensor": 1},
        "mixed": {
            "int_tensor": [[[1, 2], [3, 4], [5, 6]], [[7, 8], [9, 0], [1, 2]]],
            "str_tensor": [["foo", "bar"], ["baz", "bat"]],
            "float_tensor": [[1.0], [2.0]],
            "double_scalar_tensor": tf.constant([8.0, 9.0], tf.float64),
            "str_tensor_bytes": [["hello", "world"], ["tf", "serving"]],
        },
        "batch_sizes": {"int_tensor": [[1, 2, 3], [4, 5, 6]], "str_tensor": [["foo", "bar", "baz"]]},
        "no_rows": {"int_tensor": tf.zeros([0, 2], tf.int32)},
        "no_rows_twice": {"str_tensor": tf.fill([0, 1, 2], ""), "float_tensor": tf.zeros([0, 3, 4])},
        "no_rows_once": {"int_tensor": tf.zeros([0, 2], tf.int32), "str_tensor": [["foo", "bar"]]},
    }

    def constant(values):
        return tf.function(lambda x: {name: tf.constant(value) for name, value in values.items()})

    spec = tf.TensorSpec(None, tf.float32, "x")
    return {name: constant(values).get_concrete_function(spec) for name, values in outputs.items()}


def _counters(tf: Any, counter: Any) -> dict[str, Any]:
    functions = {
        "get_counter": lambda: {"output": counter.read_value()},
        "incr_counter": lambda: {"output": counter.assign_add(1.0)},
        "reset_counter": lambda: {"output": counter.assign(0.0)},
    }
    made = {name: tf.function(function, input_signature=[]) for name, function in functions.items()}
    spec = [tf.TensorSpec([], tf.float32, "delta")]
    made["incr_counter_by"] = tf.function(lambda delta: {"output": counter.assign_add(delta)}, input_signature=spec)
    return made


def _examples(tf: Any) -> dict[str, Any]:
    """Return signatures whose outputs are features of the Examples, as in TensorFlow Serving's tests."""

    def of_examples(outputs):
        def run(inputs):
            features = {
                "class": tf.io.RaggedFeature(tf.string),
                "score": tf.io.RaggedFeature(tf.float32),
                "output": tf.io.FixedLenFeature([], tf.float32, 0.0),
            }
            parsed = tf.io.parse_example(inputs, features)
            return outputs(parsed["class"].to_tensor(), parsed["score"].to_tensor(), parsed["output"])

        return tf.function(run, input_signature=[tf.TensorSpec([None], tf.string, "inputs")])

    outputs = {
        "classify": lambda label, score, value: {"classes": label, "scores": score},
        "classify_plus_one": lambda label, score, value: {"classes": label, "scores": score + 1},
        "classify_classes": lambda label, score, value: {"classes": label},
        "classify_scores": lambda label, score, value: {"scores": score},
        "classify_rank_3": lambda label, score, value: {"classes": label, "scores": score[..., None]},
        "classify_numbers": lambda label, score, value: {"classes": score, "scores": score},
        "classify_other_width": lambda label, score, value: {"classes": label, "scores": score[:, :1]},
        "classify_one_row": lambda label, score, value: {"classes": label, "scores": score[:1]},
        "regress": lambda label, score, value: {"outputs": value},
        "regress_plus_one": lambda label, score, value: {"outputs": value[:, None] + 1},
        "regress_rank_3": lambda label, score, value: {"outputs": value[:, None, None]},
        "regress_one_row": lambda label, score, value: {"outputs": value[:1]},
    }
    return {name: of_examples(function) for name, function in outputs.items()}


def _edit_signatures(tf: Any, folder: Path) -> None:
    """Set methods, which TensorFlow 2 writes as Predict, and the default of an input."""
    from tensorflow.core.protobuf import saved_model_pb2

    file = folder / "saved_model.pb"
    saved: Any = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    for name, signature in saved.meta_graphs[0].signature_def.items():
        if name.startswith(("classify", "regress")):
            signature.method_name = METHOD.format(name.split("_")[0])
        if name == "sum":
            signature.defaults["y"].CopyFrom(tf.make_tensor_proto([10.0], tf.float32))
    file.write_bytes(saved.SerializeToString())
