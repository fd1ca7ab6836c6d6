"""Prepares a model for training: device, precision, optimizer, training data."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from kerasline.components.core.errors import ParameterError, one_line
from kerasline.components.core.keras_compat import build_for_training
from kerasline.components.models.freezing import restart_lora
from kerasline.components.models.precision import Precision, set_precision
from kerasline.components.models.seeding import seed_everything
from kerasline.components.models.targets import Target, check_losses, taken_features, training_target, weight_ranks
from kerasline.components.trainer.devices import Placement, choose_device, choose_precision
from kerasline.components.trainer.job import Job
from kerasline.components.trainer.label_values import check_values
from kerasline.components.trainer.optimizers import keeps_optimizer, prepare_optimizer
from kerasline.components.trainer.rematerialization import rematerialize
from kerasline.components.trainer.replicas import Replicas, create_replicas
from kerasline.components.trainer.training_data import TrainingData


@dataclass(frozen=True)
class PreparedTraining:
    """A model that is ready to be trained, and everything that training needs."""

    model: keras.Model
    placement: Placement
    precision: Precision
    replicas: Replicas
    data: TrainingData

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        """Enter the scope of the strategy and the device."""
        with _scope(self.replicas, self.placement):
            yield


def prepare(job: Job) -> PreparedTraining:
    """Load the model and apply the settings of a job.

    Raises:
        ParameterError: a setting cannot be applied, or a loss does not fit its label.
        DataError: the rows do not match the inputs of the model, or a label or weight is invalid.
    """
    settings = job.settings
    if settings.deterministic:
        tf.config.experimental.enable_op_determinism()
    placement = choose_device(settings.device, settings.gpu_memory_limit)
    precision = choose_precision(settings.precision, placement)
    replicas = create_replicas(settings, placement)
    seed_everything(settings.seed)
    with _scope(replicas, placement):
        model = job.model.load(optimizer=keeps_optimizer(settings))
        restart_lora(model, settings.seed)
        set_precision(model, precision)
        rematerialize(model, settings.rematerialize)
        prepare_optimizer(model, settings, precision)
    check_losses(model, job.preprocessing, "Trainer.loss" if settings.loss else "Trainer.model")
    check_values(job, model)
    target = training_target(model, job.preprocessing)
    _check_evaluation(job, model, target)
    data = TrainingData(job, replicas, taken_features(model), target, weight_ranks(model, job.preprocessing))
    with _scope(replicas, placement):
        build(model, data)
    return PreparedTraining(model, placement, precision, replicas, data)


@contextlib.contextmanager
def _scope(replicas: Replicas, placement: Placement) -> Iterator[None]:
    # A strategy of several devices places variables itself.
    device = tf.device(placement.name) if replicas.count == 1 else contextlib.nullcontext()
    with replicas.strategy.scope(), device:
        yield


def _check_evaluation(job: Job, model: keras.Model, target: Target) -> None:
    """Raise a ParameterError if Keras's `test_step` would need a label that there is not."""
    needs_label = type(model).test_step is keras.Model.test_step and bool(model.get_compile_config().get("loss"))
    if target is None and needs_label and job.eval_split is not None and job.settings.function is None:
        raise ParameterError(
            "Trainer.eval_split: there is no label, and the model overrides train_step but not test_step; override "
            "test_step too, or pass eval_split=None"
        )


def build(model: keras.Model, data: TrainingData) -> None:
    """Create the variables of the optimizer, the loss and the metrics of a model, in place.

    Raises:
        ParameterError: the rows do not fit the model.
    """
    if isinstance(data.element_spec, dict) and type(model).train_step is not keras.Model.train_step:
        model.optimizer.build(model.trainable_variables)  # without a label, the compiled loss cannot be built
        return
    batch = tf.nest.map_structure(lambda spec: _zeros(spec, data.rows_per_replica), data.element_spec)
    try:
        build_for_training(model, batch)
    except (ValueError, TypeError, KeyError) as error:
        raise ParameterError(
            f"the model cannot be trained on the output of Transform, {_describe(data.element_spec)}: {one_line(error)}"
        ) from error


def _zeros(spec: tf.TensorSpec, rows: int) -> tf.Tensor:
    return tf.zeros([rows, *(size or 1 for size in spec.shape[1:])], spec.dtype)


def _describe(element_spec: Any) -> str:
    features, label, _ = keras.utils.unpack_x_y_sample_weight(element_spec)
    labels = "no label" if label is None else ", ".join(label) if isinstance(label, dict) else "one label"
    return f"features {', '.join(features)} and {labels}"
