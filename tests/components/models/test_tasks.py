"""The registry of tasks: one answer for Evaluator and Explainer, for each Keras loss."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from kerasline.components.core.errors import DataError
from kerasline.components.explainer.explained_output import ExplainedOutput
from kerasline.components.models.compile_config import CompiledLoss
from kerasline.components.models.losses import CTC, unreduced_loss
from kerasline.components.models.tasks import TASKS, Output, has_margins, infer_task

ONE, THREE = (None, 1), (None, 3)
BY_LOSS = {
    "binary_crossentropy": (ONE, ONE, "binary"),
    "binary_focal_crossentropy": (ONE, ONE, "binary"),
    "hinge": (ONE, ONE, "binary"),
    "squared_hinge": (ONE, ONE, "binary"),
    "categorical_crossentropy": (THREE, THREE, "multi_class"),
    "categorical_focal_crossentropy": (THREE, THREE, "multi_class"),
    "categorical_hinge": (THREE, THREE, "multi_class"),
    "sparse_categorical_crossentropy": (ONE, THREE, "multi_class"),
    "mean_squared_error": (ONE, ONE, "regression"),
    "mean_absolute_error": (ONE, ONE, "regression"),
    "mean_absolute_percentage_error": (ONE, ONE, "regression"),
    "mean_squared_logarithmic_error": (ONE, ONE, "regression"),
    "huber": (ONE, ONE, "regression"),
    "log_cosh": (ONE, ONE, "regression"),
    "poisson": (ONE, ONE, "regression"),
    "cosine_similarity": (THREE, THREE, "regression"),
    "kl_divergence": (THREE, THREE, "regression"),
}


def test_frames_of_ctc_are_judged_by_their_loss_alone():
    label, frames = keras.KerasTensor((None, None), "int64"), keras.KerasTensor((None, None, 30))
    assert infer_task(CompiledLoss(unreduced_loss(CTC())).kind, label, frames, None) == "loss"


@pytest.mark.parametrize("loss", BY_LOSS)
def test_evaluator_and_explainer_infer_the_same_task(loss):
    label, output, task = BY_LOSS[loss]
    compiled = CompiledLoss(unreduced_loss(loss))
    label, output = keras.KerasTensor(label, "float32"), keras.KerasTensor(output, "float32")
    assert infer_task(compiled.kind, label, output, None) == task
    assert ExplainedOutput.of(compiled, label, output, None).task == task


@pytest.mark.parametrize("name", ["BinaryCrossentropy", "Hinge", "SquaredHinge", "CategoricalHinge", "Huber"])
def test_loss_objects_have_the_task_of_their_function(name):
    compiled = CompiledLoss(unreduced_loss(getattr(keras.losses, name)()))
    snake = {"BinaryCrossentropy": "binary_crossentropy", "SquaredHinge": "squared_hinge"}
    snake = snake.get(name) or ("categorical_hinge" if name == "CategoricalHinge" else name.lower())
    assert compiled.kind == snake


def test_task_follows_from_the_shape_of_the_output():
    tensor = keras.KerasTensor
    assert infer_task("binary_crossentropy", None, tensor(THREE), None) == "multi_label"
    assert infer_task("hinge", None, tensor(THREE), None) == "multi_label"
    assert infer_task("sparse_categorical_crossentropy", None, tensor((None, 5, 3)), None) == "tokens"


def test_integer_labels_with_one_score_per_class_are_multi_class():
    assert infer_task("own_loss", keras.KerasTensor(ONE, "int64"), keras.KerasTensor(THREE), None) == "multi_class"
    assert infer_task("own_loss", keras.KerasTensor(ONE, "float32"), keras.KerasTensor(THREE), None) == "regression"


@pytest.mark.parametrize("labels", [[-1.0, 1.0, 1.0, -1.0], [0.0, 1.0, 1.0, 0.0]])
def test_hinge_labels_become_zero_and_one(labels):
    output = Output("o", "binary", margins=has_margins("hinge"))
    np.testing.assert_array_equal(output.label(np.array(labels)[:, np.newaxis]), [0, 1, 1, 0])


def test_hinge_decides_at_zero():
    margins = np.array([[-3.0], [-0.01], [0.01], [5.0]], "float32")
    evaluated = Output("o", "binary", margins=True).prediction(margins)
    explained = ExplainedOutput("binary", 1, None, True, None).by_unit(margins).numpy()[:, 0]
    np.testing.assert_array_equal(evaluated > 0.5, [False, False, True, True])
    np.testing.assert_allclose(evaluated, explained, rtol=1e-6)
    assert (np.diff(evaluated) > 0).all()


def test_mixed_hinge_labels_are_refused():
    with pytest.raises(DataError, match="received -1"):
        Output("o", "binary", margins=True).label(np.array([-1.0, 0.0, 1.0]))
    with pytest.raises(DataError, match="received -1"):
        Output("o", "binary").label(np.array([-1.0, 1.0]))


@pytest.mark.parametrize("task", TASKS)
def test_headline_metrics_exist_in_the_families_of_the_task(task):
    from kerasline.components.evaluator.settings import EvaluatorSettings

    output = Output("o", task, ("a", "b", "c") if TASKS[task].has_classes else None)
    families = TASKS[task].metrics(output, EvaluatorSettings(query="q"), 0.0)
    directions = {name: d for family in families for name, d in family.directions.items()}
    assert (directions or task == "loss") and set(TASKS[task].headline) - {"loss", "auc"} <= set(directions)
    assert set(directions.values()) <= {"up", "down", None}


def test_label_of_another_shape_has_only_its_loss():
    boxes, cells = (keras.KerasTensor(shape) for shape in ((None, None, 5), (None, 6, 8, 7)))
    assert infer_task("center_detection", boxes, cells, None) == "loss"
    assert infer_task("", boxes, cells, None) == "regression"  # the task of an answer
    output = Output("cells", "loss")
    assert output.label(np.ones((3, 4, 5))).shape == output.prediction(np.ones((3, 6, 8, 7))).shape == (3,)
