"""One test for each private name of Keras that `keras_compat` uses. After an upgrade, the failures say which one broke.

The last tests fail if a private name of Keras is used anywhere else in the project.
"""

import ast
import functools
import random
import tracemalloc
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.eager import context as tensorflow_context

from kerasline.components.core import keras_compat
from tests.conftest import REPOSITORY


@keras.saving.register_keras_serializable("tests")
class Block(keras.layers.Layer):
    """A layer that contains other layers."""

    def __init__(self, **options):
        super().__init__(**options)
        self.dense, self.dropout = keras.layers.Dense(3), keras.layers.Dropout(0.5, seed=1)

    def call(self, x, training=None):
        return self.dropout(self.dense(x), training=training)


@pytest.fixture
def model():
    """input -> hidden -> block -> output"""
    x = keras.Input((4,), name="x")
    h = Block(name="block")(keras.layers.Dense(2, name="hidden")(x))
    model = keras.Model({"x": x}, keras.layers.Dense(1, name="output")(h))
    model.compile("adam", "mse", metrics=["mae"])
    return model


def test_flatten_layers(model):
    names = [layer.name for layer in keras_compat.flatten_layers(model)]
    block = model.get_layer("block")
    assert {"x", "hidden", "block", "output", block.dense.name, block.dropout.name} == set(names)
    assert model in keras_compat.flatten_layers(model, include_self=True)
    assert keras_compat.flatten_layers(model.get_layer("hidden")) == []


def test_seed_generators(model):
    (state,) = keras_compat.seed_states(model.get_layer("block").dropout)
    assert state is model.get_layer("block").dropout.seed_generator.state
    assert keras_compat.seed_states(model.get_layer("hidden")) == []


@pytest.mark.parametrize(
    ("layer", "is_stateful"),
    [
        (keras.layers.Dense(2), False),
        (keras.layers.Dense(2, trainable=False), False),
        (keras.layers.Dropout(0.5), True),
        (keras.layers.BatchNormalization(), True),
    ],
)
def test_seed_generators_and_non_trainable_variables(layer, is_stateful):
    layer(np.ones((2, 3), "float32"))
    assert keras_compat.is_stateful(layer) is is_stateful


def test_call_has_training_arg(model):
    assert keras_compat.accepts_training(model.get_layer("block"))
    assert not keras_compat.accepts_training(keras.layers.Flatten())


def test_nodes_by_depth(model):
    nodes = keras_compat.graph_nodes(model)
    assert [node.operation.name for node in nodes] == ["x", "hidden", "block", "output"]
    assert [node.is_input for node in nodes] == [True, False, False, False]
    assert nodes[1].input_tensors[0] is model.inputs[0] and nodes[3].outputs[0] is model.outputs[0]
    values = {id(model.inputs[0]): np.ones((2, 4), "float32")}
    arguments, options = nodes[1].arguments.fill_in(values)
    assert nodes[1].operation(*arguments, **options).shape == (2, 2)
    assert keras_compat.has_graph(model) and not keras_compat.has_graph(keras.layers.Dense(2))


def test_keras_history(model):
    assert keras_compat.source_operation(model.outputs[0]) is model.get_layer("output")


def test_inbound_nodes(model):
    assert keras_compat.source_node(model.outputs[0]) is keras_compat.graph_nodes(model)[-1]
    shared = keras.layers.Dense(4)
    first = shared(model.inputs[0])
    second = shared(first)
    assert [node.outputs[0] for node in keras_compat.call_nodes(shared)] == [first, second]
    assert keras_compat.source_node(second).input_tensors == [first]


def test_run_through_graph_and_functional(model):
    x = np.ones((2, 4), "float32")
    called = []

    def record(operation):
        def call(*arguments, **options):
            called.append(operation.name)
            return operation(*arguments, **options)

        return call

    expected = model({"x": x})
    np.testing.assert_array_equal(keras_compat.run_graph(model, {"x": x}, record), expected)
    assert called == ["hidden", "block", "output"]
    sequential = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    np.testing.assert_array_equal(keras_compat.run_graph(sequential, x, lambda operation: operation), sequential(x))
    assert keras_compat.can_run_graph(model) and keras_compat.can_run_graph(sequential)
    assert not keras_compat.can_run_graph(model.get_layer("block"))


def test_standardize_inputs(model):
    (x,) = keras_compat.standardize_inputs(model, {"x": tf.ones((2, 4), tf.float64)})
    assert x.shape == (2, 4) and x.dtype == tf.float32


def test_symbolic_build(model):
    assert not model.optimizer.built
    keras_compat.build_for_training(model, ({"x": tf.zeros((2, 4))}, tf.zeros((2, 1))))
    assert model.optimizer.built and "mae" in model.get_metrics_result()


@pytest.mark.parametrize("name", ["adam", "adafactor", "nadam", "muon"])
def test_variables_without_values(model, name):
    optimizer = keras.optimizers.get(name)
    with keras_compat.variables_without_values():
        copy = type(optimizer).from_config(optimizer.get_config())
        copy.build(model.trainable_variables)
    optimizer.build(model.trainable_variables)
    assert [v.shape for v in copy.variables] == [v.shape for v in optimizer.variables]
    assert copy.variables[-1].numpy().size == 0


def test_tracing_is_limited():
    def slow(x):
        keras_compat.limit_tracing(0.05)
        while True:
            x = x + 1

    with pytest.raises(TimeoutError, match="longer than 0.05 s"):
        tf.function(slow, autograph=False).get_concrete_function(tf.TensorSpec([], tf.int32))


def test_saving_and_loading_copy_no_weights(tmp_path):
    keras_compat.save_weight_memory()
    model = keras.Sequential([keras.Input((2048,)), keras.layers.Dense(2304)])  # 19 MB, above the limit of large ones
    tracemalloc.start()
    model.save(tmp_path / "model.keras")
    _, saving = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    _, loading = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert saving < 4_000_000  # TensorFlow's own memory is not traced
    assert loading < 25_000_000  # the array that h5py reads, and parts of it
    np.testing.assert_array_equal(loaded.get_weights()[0], model.get_weights()[0])


@pytest.mark.parametrize("name", ["glorot_uniform", "random_normal", "truncated_normal", "orthogonal"])
def test_large_weights_are_initialized_as_keras_does(name):
    keras_compat.save_weight_memory()
    shape = (2, 4 << 20) if name == "orthogonal" else (2048, 2304)
    initializer = keras.initializers.get({"class_name": name, "config": {"seed": 3}})
    variable = keras.Variable(initializer, shape=shape)
    np.testing.assert_array_equal(variable.numpy(), initializer(shape).numpy())


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int64", "bool", "string"])
def test_arrays_share_the_memory_of_tensors(dtype):
    tensor = tf.constant(["a", "b"]) if dtype == "string" else tf.cast(tf.constant([[0.0, 1.0]]), dtype)
    array = keras_compat.shared_array(tensor)
    np.testing.assert_array_equal(array, tensor.numpy())
    assert array.dtype == tensor.numpy().dtype
    if dtype not in ("bfloat16", "string"):
        assert array.ctypes.data == keras_compat.shared_array(tensor).ctypes.data


def test_archive_has_each_weight_once(model, tmp_path):
    archive = keras.export.ExportArchive()
    archive.track(model)
    spec = {"x": tf.TensorSpec((None, 4))}
    archive.add_endpoint("serve", lambda x: model(x, training=False), input_signature=[spec])
    keras_compat.write_archive(archive, str(tmp_path))
    stored = tf.train.load_checkpoint(str(tmp_path / "variables" / "variables")).get_variable_to_shape_map()
    sizes = sorted(np.prod(shape) for name, shape in stored.items() if name != "_CHECKPOINTABLE_OBJECT_GRAPH")
    assert sizes == sorted(np.prod(variable.shape) for variable in model.variables)
    assert len(tf.saved_model.load(str(tmp_path)).variables) == len(model.variables)


@pytest.mark.parametrize("accumulate", [None, 2])
def test_gradient_reduction_of_optimizers(accumulate):
    """`_all_reduce_sum_gradients` and, with accumulation, `_backend_apply_gradients` and everything it calls."""
    strategy = tf.distribute.get_strategy()
    with strategy.scope():
        variable = keras.Variable([1.0, 2.0])
        options = {"gradient_accumulation_steps": accumulate, "use_ema": bool(accumulate), "ema_momentum": 0.5}
        optimizer = keras.optimizers.SGD(0.1, clipvalue=1.0, weight_decay=0.1, **options)
        optimizer.build([variable])
    received = []

    def reduce(gradients):
        received.append(gradients)
        return [3 * gradient for gradient in gradients]

    keras_compat.reduce_gradients_first(optimizer, reduce)
    for _ in range(accumulate or 1):
        strategy.run(lambda: optimizer.apply([tf.constant([0.1, 9.0])], [variable]))
    assert len(received) == (accumulate or 1)
    decayed = np.array([1.0, 2.0]) * (1 - 0.1 * 0.1)
    np.testing.assert_allclose(variable.numpy(), decayed - 0.1 * np.array([0.3, 1.0]), rtol=1e-6)
    if accumulate:
        optimizer.finalize_variable_values([variable])
        assert np.all(variable.numpy() != decayed - 0.1 * np.array([0.3, 1.0]))


def test_lookup_layer():
    layer = keras.layers.TextVectorization(vocabulary=["a", "b"])
    assert keras_compat.lookup_layer(layer).get_vocabulary() == ["", "[UNK]", "a", "b"]


def test_preprocess_of_text_vectorization():
    layer = keras.layers.TextVectorization(vocabulary=["a", "b"])
    tokens = keras_compat.split_into_tokens(layer, np.array(["B, a!", "c"]))
    assert tokens.to_list() == [[b"b", b"a"], [b"c"]]


def test_is_adapted_of_feature_space():
    space = keras.utils.FeatureSpace({"x": keras.utils.FeatureSpace.float_normalized()})
    with pytest.raises(ValueError, match="adapt"):
        space.get_encoded_features()
    space.preprocessors["x"](space.inputs["x"])
    keras_compat.mark_adapted(space)
    assert space.get_encoded_features().shape == (None, 1)


def test_keras_mask():
    masked = keras.layers.Masking(mask_value=0.0)(np.float32([[[1.0], [0.0]]]))
    np.testing.assert_array_equal(keras_compat.mask_of(masked), [[True, False]])
    prediction = keras.ops.convert_to_tensor([[[3.0], [5.0]]])
    assert keras_compat.mask_of(prediction) is None
    keras_compat.set_mask(prediction, keras_compat.mask_of(masked))
    assert float(keras.losses.MeanSquaredError()(np.float32([[[1.0], [1.0]]]), prediction)) == 4.0


def test_python_random_of_seed_generator():
    original = keras_compat.seed_source()
    seeds = {random.Random(3).randint(1, int(1e9))}
    try:
        keras_compat.replace_seed_source(random.Random(3))
        assert {keras.random.SeedGenerator().state.numpy()[0]} == seeds
    finally:
        keras_compat.replace_seed_source(original)


# No private names of Keras elsewhere

COMPAT = Path("components/core/keras_compat.py")
SOURCES = [
    path for folder in ("components", "pipeline", "kerasline") for path in sorted((REPOSITORY / folder).rglob("*.py"))
]
# Names that Keras defines too, but that are used on objects of other libraries: file, name.
OF_OTHER_LIBRARIES = {
    ("components/models/graph_flops.py", "_get_function"),
    ("components/tuner/search.py", "_storage"),
}


@functools.cache
def keras_private_names():
    """Return the attributes with one leading underscore that classes of Keras define or assign."""
    found = set()
    for path in Path(keras.__file__).parent.joinpath("src").rglob("*.py"):
        if not path.name.endswith("_test.py"):
            tree = ast.parse(path.read_text("utf-8"))
            stored = [n for n in ast.walk(tree) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)]
            found |= defined_names(tree) | {node.attr for node in stored}
    return {name for name in found if name.startswith("_") and not name.startswith("__")}


def defined_names(tree):
    """Return the methods of classes, and the attributes that are assigned on `self`, `cls` or in a class body."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            for item in node.body:
                if isinstance(item, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    found.add(item.name)
                targets = item.targets if isinstance(item, ast.Assign) else [getattr(item, "target", None)]
                found |= {target.id for target in targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _is_self(node.value):
            found.add(node.attr)
    return found


def _is_self(value):
    return isinstance(value, ast.Name) and value.id in ("self", "cls")


def private_uses(text, own):
    """Return the private names of Keras that a file uses on objects other than its own."""
    tree = ast.parse(text)
    here = defined_names(tree)
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in keras_private_names():
            is_on_itself = _is_self(node.value) or ast.unparse(node.value) == "super()"
            if node.attr not in (here | own if is_on_itself else here):
                found.append((node.lineno, node.attr))
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("getattr", "hasattr", "setattr"):
            name = node.args[1].value if len(node.args) > 1 and isinstance(node.args[1], ast.Constant) else ""
            if name in keras_private_names() and name not in here:
                found.append((node.lineno, name))
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            modules = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
            found += [(node.lineno, module) for module in modules if module.startswith("keras.src")]
    return found


def test_private_names_of_keras_are_used_in_one_file_only():
    own = set().union(*(defined_names(ast.parse(path.read_text("utf-8"))) for path in SOURCES))
    wrong = []
    for path in SOURCES:
        relative = path.relative_to(REPOSITORY)
        if relative != COMPAT:
            uses = private_uses(path.read_text("utf-8"), own)
            wrong += [
                f"{relative}:{line}: {name}" for line, name in uses if (str(relative), name) not in OF_OTHER_LIBRARIES
            ]
    assert not wrong, f"use or extend {COMPAT} instead: {wrong}"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("model._flatten_layers()", ["_flatten_layers"]),
        ("getattr(layer, '_seed_generators')", ["_seed_generators"]),
        ("class A(keras.Model):\n    def call(self):\n        self._nodes_by_depth", ["_nodes_by_depth"]),
        ("class A:\n    def f(self):\n        self._layers = []\n        return self._layers", []),
        ("from keras.src.random import seed_generator", ["keras.src.random"]),
        ("row._mapping", []),
    ],
)
def test_scan_for_private_names_finds_them(text, names):
    assert [name for _, name in private_uses(text, set())] == names


def test_every_private_name_in_the_compatibility_file_exists_in_keras():
    tree = ast.parse((REPOSITORY / COMPAT).read_text("utf-8"))
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr.startswith("_")}
    used |= {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and str(n.value).startswith("_")}
    tf.random.set_seed(0)  # creates the attributes of the context
    assert used and used <= keras_private_names() | set(vars(tensorflow_context.context())) | set(dir(tf.Graph))
