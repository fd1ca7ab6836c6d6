"""A model made ready for training: on its device, in its precision, with its optimizer built."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from kerasline.components.core.errors import ParameterError, one_line
from kerasline.components.models.freezing import revive_lora
from kerasline.components.models.seeding import seed_everything
from kerasline.components.trainer.devices import Placement, place, precision_for
from kerasline.components.trainer.job import Job
from kerasline.components.trainer.optimizers import prepare_optimizer
from kerasline.components.trainer.precision import Precision, set_precision
from kerasline.components.trainer.rematerialization import rematerialize
from kerasline.components.trainer.replicas import Replicas, replicas
from kerasline.components.trainer.supply import Supply


@dataclass(frozen=True)
class Prepared:
    """What training works with."""

    model: keras.Model
    placement: Placement
    precision: Precision
    replicas: Replicas
    supply: Supply

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        with _scope(self.replicas, self.placement):
            yield


def prepare(job: Job) -> Prepared:
    """Loads the model and does what the job's settings ask for.

    Raises:
        ParameterError: a setting cannot be met.
        DataError: the rows cannot be fed to the model.
    """
    settings = job.settings
    if settings.deterministic:
        tf.config.experimental.enable_op_determinism()
    placement = place(settings.device, settings.gpu_memory_limit)
    precision = precision_for(settings.precision, placement)
    together = replicas(settings, placement)
    seed_everything(settings.seed)
    supply = Supply(job, together)
    with _scope(together, placement):
        model = job.model.load()
        revive_lora(model, settings.seed)
        set_precision(model, precision)
        rematerialize(model, settings.rematerialize)
        prepare_optimizer(model, settings, precision)
        _build(model, supply)
    return Prepared(model, placement, precision, together, supply)


@contextlib.contextmanager
def _scope(together: Replicas, placement: Placement) -> Iterator[None]:
    # A strategy of several devices places variables itself.
    device = tf.device(placement.name) if together.count == 1 else contextlib.nullcontext()
    with together.strategy.scope(), device:
        yield


def _build(model: keras.Model, supply: Supply) -> None:
    """Makes the variables of optimizer and metrics, which else appear with the first step."""
    batch = tf.nest.map_structure(lambda spec: _zeros(spec, supply.share), supply.element_spec)
    try:
        model._symbolic_build(data_batch=batch)
    except (ValueError, TypeError, KeyError) as error:
        raise ParameterError(
            f"the model cannot be trained on what Transform gives, {_told(supply.element_spec)}: {one_line(error, 300)}"
        ) from error


def _zeros(spec: tf.TensorSpec, rows: int) -> tf.Tensor:
    return tf.zeros([rows, *(size or 1 for size in spec.shape[1:])], spec.dtype)


def _told(element_spec: Any) -> str:
    features, label, *_ = element_spec
    labels = ", ".join(label) if isinstance(label, dict) else "one label"
    return f"features {', '.join(features)} and {labels}"
