"""Data parallelism: one model on several devices, each with its share of every batch.

Keras 3's `fit` runs under MirroredStrategy one step at a time and does not run under
MultiWorkerMirroredStrategy (https://keras.io/guides/distributed_training_with_tensorflow/ shows the
first alone); a loop under the strategy, which this is for, runs under both.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import tensorflow as tf

from kerasline.components.core.errors import ParameterError
from kerasline.components.trainer.cluster import host_of
from kerasline.components.trainer.devices import Placement


@dataclass(frozen=True)
class Replicas:
    """Those who train together.

    Attributes:
        strategy: TensorFlow's, under whose scope the model is made.
        count: of all processes together.
        own: the numbers of those in this process.
        devices: of those in this process; of all, with several processes.
        chief: whether this process is the one that writes.
    """

    strategy: tf.distribute.Strategy
    count: int = 1
    own: tuple[int, ...] = (0,)
    devices: tuple[str, ...] = ()
    chief: bool = True

    @property
    def alone(self) -> bool:
        """Whether all are in this process."""
        return len(self.own) == self.count

    def first(self, value: Any) -> Any:
        """What the first replica of this process has of a value for each."""
        if self.count == 1:
            return value
        return tf.nest.map_structure(lambda v: self.strategy.experimental_local_results(v)[0], value)

    def sums(self, numbers: list[float]) -> list[float]:
        """The sum over all processes of what each has to say: they must do the same, and clocks differ.

        Who calls this waits until all have called it.
        """
        if self.alone:
            return numbers
        said, silent = tf.constant(numbers, tf.float64), tf.zeros(len(numbers), tf.float64)
        every = self.values(lambda own: said if own == 0 else silent)
        return self.strategy.reduce("SUM", every, axis=None).numpy().tolist()

    def chiefs(self, numbers: list[float]) -> list[float]:
        """What the chief has to say: it decides for all. Who calls this waits until all have called it."""
        return self.sums(numbers if self.chief else [0.0] * len(numbers))

    def values(self, of_replica: Callable[[int], Any]) -> Any:
        """A value for each replica; with one alone, that value itself.

        Args:
            of_replica: called with the numbers of this process's replicas, counted from 0.
        """
        if self.count == 1:
            return of_replica(0)
        return self.strategy.experimental_distribute_values_from_function(
            lambda context: of_replica(self.own.index(context.replica_id_in_sync_group))
        )


def replicas(settings: SimpleNamespace, placement: Placement) -> Replicas:
    """Those that `distribution` asks for.

    Raises:
        ParameterError: devices are missing, or TF_CONFIG is.
    """
    if settings.distribution == "mirrored":
        devices = _mirrored_devices(settings.replicas, placement)
        strategy = tf.distribute.MirroredStrategy(devices)
        return Replicas(strategy, len(devices), tuple(range(len(devices))), tuple(devices))
    if settings.distribution == "multi_worker":
        return _multi_worker(placement)
    strategy = tf.distribute.OneDeviceStrategy(placement.name) if placement.kind == "GPU" else None
    return Replicas(strategy or tf.distribute.get_strategy(), devices=(placement.name,))


def logical_cpus(count: int) -> None:
    """Splits this process's CPU in several devices, before TensorFlow is at work."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)


def _mirrored_devices(count: int | None, placement: Placement) -> list[str]:
    if placement.kind == "CPU":
        logical_cpus(count or 2)
        return [f"/CPU:{number}" for number in range(count or 2)]
    there = tf.config.list_logical_devices("GPU")
    if count and count > len(there):
        raise ParameterError(f"Trainer.replicas: {count} asked for, and there are {len(there)} GPUs here")
    return [f"/GPU:{number}" for number in range(count or len(there))]


def _multi_worker(placement: Placement) -> Replicas:
    told = json.loads(os.environ.get("TF_CONFIG", "{}"))
    if "cluster" not in told or "task" not in told:
        raise ParameterError(
            "Trainer.distribution: multi_worker wants Trainer.workers (how many here, or the hosts), or the "
            "environment variable TF_CONFIG with `cluster` and `task` on each machine"
        )
    addresses, worker = told["cluster"]["worker"], int(told["task"]["index"])
    _take_gpus(addresses, worker, placement)
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    here = strategy.extended._num_devices_per_worker
    own = tuple(range(worker * here, (worker + 1) * here))
    devices = tuple(f"{address} {placement.kind}:{n}" for address in addresses for n in range(here))
    return Replicas(strategy, strategy.num_replicas_in_sync, own, devices, chief=worker == 0)


def _take_gpus(addresses: list[str], worker: int, placement: Placement) -> None:
    """The strategy takes all GPUs that it sees: of those here, this worker's share is what it is shown."""
    gpus = tf.config.list_physical_devices("GPU")
    own = share_of(gpus, addresses, worker) if placement.kind == "GPU" else []
    if gpus:
        tf.config.set_visible_devices(own, "GPU")
    for gpu in own:
        tf.config.experimental.set_memory_growth(gpu, True)


def share_of(gpus: list[Any], addresses: list[str], worker: int) -> list[Any]:
    """The GPUs of a machine that are a worker's, which other workers there may be beside.

    Raises:
        ParameterError: there are more workers than GPUs; NCCL knows no two ranks on one.
    """
    beside = [number for number, address in enumerate(addresses) if host_of(address) == host_of(addresses[worker])]
    if len(beside) > len(gpus):
        raise ParameterError(
            f"Trainer.workers: {len(beside)} on {host_of(addresses[worker])}, and there are {len(gpus)} GPUs "
            "there; name no more of them than GPUs, or set Trainer.device=cpu"
        )
    each = len(gpus) // len(beside)
    first = beside.index(worker) * each
    return gpus[first : first + each]
