"""The label of each output, and which losses fit which labels. Keras itself is the judge of the shapes."""

import itertools

import keras
import numpy as np
import pytest

from kerasline.components.models.compile_config import CompiledLoss
from kerasline.components.models.losses import unreduced_loss
from kerasline.components.models.targets import loss_problem

SHAPES = [(), (1,), (3,), (4,), (4, 1), (4, 3)]
LOSSES = {
    "binary_crossentropy": keras.losses.BinaryCrossentropy,
    "categorical_crossentropy": keras.losses.CategoricalCrossentropy,
    "sparse_categorical_crossentropy": keras.losses.SparseCategoricalCrossentropy,
    "hinge": keras.losses.Hinge,
    "mean_squared_error": keras.losses.MeanSquaredError,
    "kl_divergence": keras.losses.KLDivergence,
}


def runs_in_keras(loss, label, output):
    rows = 5
    try:
        value = LOSSES[loss]()(np.zeros((rows, *label), "float32"), np.full((rows, *output), 0.5, "float32"))
        return np.ndim(value) == 0
    except Exception:
        return False


@pytest.mark.parametrize("loss", LOSSES)
def test_shapes_without_a_problem_run_in_keras(loss):
    accepted = 0
    for label, output in itertools.product(SHAPES, [shape for shape in SHAPES if shape]):
        if loss_problem(loss, label, output) is None:
            accepted += 1
            assert runs_in_keras(loss, label, output), (label, output)
    assert accepted


@pytest.mark.parametrize(
    ("loss", "label", "output", "remedy"),
    [
        ("categorical_crossentropy", (), (3,), "use sparse_categorical_crossentropy"),
        ("categorical_crossentropy", (1,), (3,), "use sparse_categorical_crossentropy"),
        ("categorical_crossentropy", (4,), (4, 3), "use sparse_categorical_crossentropy"),
        ("categorical_crossentropy", (), (1,), "use binary_crossentropy"),
        ("sparse_categorical_crossentropy", (3,), (3,), "use categorical_crossentropy"),
        ("sparse_categorical_crossentropy", (4, 3), (4, 3), "use categorical_crossentropy"),
        ("sparse_categorical_crossentropy", (), (1,), "use binary_crossentropy"),
        ("sparse_categorical_crossentropy", (5,), (4, 3), "it has 5 steps, and the output has 4"),
        ("sparse_categorical_crossentropy", (None,), (4, 3), r"keras.Input\(\(4,\)"),
        ("binary_crossentropy", (), (3,), "give the output 1 unit, or sparse_categorical_crossentropy for 3 classes"),
        ("binary_crossentropy", (4,), (3,), r"received a label of shape \(4,\) and an output of shape \(3,\)"),
        ("mean_squared_error", (1,), (3,), "give the output 1 unit"),
        ("kl_divergence", (), (3,), "CategoryEncoding"),
    ],
)
def test_a_problem_names_the_remedy(loss, label, output, remedy):
    with pytest.raises(AssertionError, match=remedy):
        raise AssertionError(loss_problem(loss, label, output))


@pytest.mark.parametrize(
    ("loss", "label", "output"),
    [
        ("sparse_categorical_crossentropy", (), (3,)),
        ("sparse_categorical_crossentropy", (4,), (4, 3)),
        ("sparse_categorical_crossentropy", (None,), (None, 3)),
        ("categorical_crossentropy", (3,), (3,)),
        ("binary_crossentropy", (), (1,)),
        ("binary_crossentropy", (3,), (3,)),
        ("mean_squared_error", (), (1,)),
        ("own_loss", (7,), (3,)),
    ],
)
def test_fitting_losses_have_no_problem(loss, label, output):
    assert loss_problem(loss, label, output) is None


@pytest.mark.parametrize("loss", ["mse", "MeanSquaredError", keras.losses.MeanSquaredError()])
def test_losses_are_known_by_every_name(loss):
    assert "1 unit" in loss_problem(CompiledLoss(unreduced_loss(loss)).kind, (), (3,))
