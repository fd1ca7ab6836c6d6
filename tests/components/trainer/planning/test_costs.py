"""Estimated FLOPs and memory, compared with formulas and with TensorFlow's profiler."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasline.components.core.errors import ParameterError
from kerasline.components.models import costs
from kerasline.components.models.costs import answer_costs, model_costs
from kerasline.components.trainer.planning import hardware
from kerasline.components.trainer.planning.memory import describe_shortage, memory_need

L = keras.layers


def compiled(inputs, outputs, optimizer="sgd"):
    model = keras.Model(inputs, outputs)
    model.compile(optimizer, "mse")
    return model


def dense():
    x = keras.Input((64,))
    return compiled(x, L.Dense(10)(L.Dense(128)(x))), 2 * (64 * 128 + 128 * 10)


def convolution():
    x = keras.Input((16, 16, 3))
    h = L.Conv2D(8, 3, padding="same")(x)
    return compiled(x, L.Conv2D(4, 5, strides=2, padding="same")(h)), 2 * (256 * 8 * 27 + 64 * 4 * 200)


def depthwise():
    x = keras.Input((16, 16, 6))
    return compiled(x, L.SeparableConv2D(8, 3, padding="same")(x)), 2 * 256 * (6 * 9 + 6 * 8)


def attention():
    x = keras.Input((32, 24))
    projections, scores = 4 * 32 * 24 * 24, 2 * 32 * 32 * 24
    return compiled(x, L.MultiHeadAttention(2, 12)(x, x)), 2 * (projections + scores)


def recurrent():
    x = keras.Input((10, 8))
    return compiled(x, L.GRU(16, reset_after=False)(x)), 10 * 2 * (8 * 48 + 16 * 48)


@pytest.mark.parametrize("made", [dense, convolution, depthwise, attention, recurrent])
def test_flops_agree_with_formulas(made):
    """A multiplication and an addition for each weight and place; all else is a small part."""
    model, products = made()
    costs = model_costs(model, 4)
    assert products <= costs.forward_flops <= 1.35 * products
    # Backward: one product for the gradient of the weights, one for that of the input but the first's.
    assert 1.9 * costs.forward_flops < costs.training_flops < 3.5 * costs.forward_flops


def test_flops_agree_with_tensorflow_profiler():
    model, _ = convolution()
    function = tf.function(lambda x: model(x)).get_concrete_function(tf.TensorSpec((4, 16, 16, 3)))
    options = tf.compat.v1.profiler.ProfileOptionBuilder(tf.compat.v1.profiler.ProfileOptionBuilder.float_operation())
    found = tf.compat.v1.profiler.profile(function.graph, options=options.with_empty_output().build())
    assert model_costs(model, 4).forward_flops * 4 == pytest.approx(found.total_float_ops, rel=0.02)


@pytest.mark.parametrize("bound", [7, None])
def test_answer_counts_a_loop_by_its_bound_or_names_it_unbounded(bound):
    weights, head = tf.Variable(tf.zeros((16, 16))), tf.Variable(tf.zeros((16, 4)))

    def answer(features):
        _, x = tf.while_loop(
            lambda step, x: tf.reduce_sum(x) < 1.0,
            lambda step, x: (step + 1, x @ weights),
            (0, features["x"]),
            maximum_iterations=bound,
        )
        return {"scores": x @ head}

    found = answer_costs(answer, {"x": tf.TensorSpec((None, 16))})
    (loop,) = found.loops
    assert loop.iterations == bound and abs(loop.flops - 2 * 16 * 16) <= 32  # and some scalars
    assert abs(found.flops - ((bound or 1) * loop.flops + 2 * 16 * 4)) <= 2
    assert f"{'any number of' if bound is None else 'at most 7'} steps" in str(found)


def test_tracing_of_an_unrolled_loop_ends_in_time(monkeypatch):
    monkeypatch.setattr(costs, "TRACING_SECONDS", 0.1)

    def answer(features):
        x = features["x"]
        while True:
            x = x + 1

    with pytest.raises(TimeoutError):
        answer_costs(answer, {"x": tf.TensorSpec((None, 16))})
    with pytest.raises(TimeoutError):
        monkeypatch.setattr(costs, "TRACING_SECONDS", 0.0)
        model_costs(dense()[0], 8)


def test_costs_of_a_training_take_no_memory_for_the_optimizer():
    model, _ = dense()
    model.compile("adam", "mse")
    found = model_costs(model, 8)
    assert not model.optimizer.built
    model.optimizer.build(model.trainable_variables)
    assert model_costs(model, 8) == found


def test_bytes_of_weights_gradients_and_optimizer_are_exact():
    model, _ = dense()
    model.compile("adam", "mse")
    weights = 4 * model.count_params()
    costs = model_costs(model, 4)
    assert (costs.weight_bytes, costs.gradient_bytes) == (weights, weights)
    assert 2 * weights <= costs.optimizer_bytes <= 2 * weights + 64
    assert costs.input_bytes == 4 * 4 * 64
    model.layers[1].trainable = False
    model.compile("sgd", "mse")
    assert model_costs(model, 4).gradient_bytes == 4 * (128 * 10 + 10)


def test_half_precision_halves_activations_and_restores_the_model():
    x = h = keras.Input((256,))
    for _ in range(6):
        h = L.Dense(256, activation="gelu")(h)
    model = compiled(x, h)
    full, half = (model_costs(model, 512, precision=p).activation_bytes for p in ("float32", "mixed_bfloat16"))
    assert 0.4 < half / full < 0.75
    assert {layer.dtype_policy.name for layer in model.layers} == {"float32"}


def test_largest_batch_fits_and_a_larger_one_does_not():
    model, _ = dense()
    planned = memory_need(model, 64, "cpu")
    memory = planned.runtime_bytes + (64 << 20)
    largest = planned.largest_batch(memory)
    assert memory_need(model, largest, "cpu").total_bytes <= memory * 1.01
    assert memory_need(model, int(largest * 1.05) + 1, "cpu").total_bytes > memory
    assert planned.largest_batch(planned.runtime_bytes) == 0


def test_memory_shortage_message_has_need_and_advice():
    model, _ = dense()
    found = describe_shortage(model, 10**9, "float32", "cpu")
    assert "a step of 1,000,000,000 rows needs about" in found and "the largest batch_size that fits is about" in found


def test_known_devices_by_name():
    assert hardware.known_device("h200").memory_bytes == 141 << 30
    assert hardware.known_device("a100 80gb").peak["mixed_bfloat16"] == 312e12
    assert "mixed_bfloat16" not in hardware.known_device("T4").peak
    with pytest.raises(ParameterError, match="--device a100: .* one of A100-40GB, A100-80GB"):
        hardware.known_device("a100")
    with pytest.raises(ParameterError, match="--device h300: no such device is known; known: A10, .*H100"):
        hardware.known_device("h300")


def test_local_device_has_memory_and_peak():
    here = hardware.local_device("cpu")
    assert here.memory_bytes > 1 << 30 and here.peak["float32"] > 1e9 and here.is_local
    assert here.peak is not None and np.isfinite(here.peak["float32"])
