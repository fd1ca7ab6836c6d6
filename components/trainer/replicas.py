"""Data parallelism: one model on several devices, each with its share of every batch.

Keras 3's `fit` runs one step at a time under MirroredStrategy and does not run under MultiWorkerMirroredStrategy
(https://keras.io/guides/distributed_training_with_tensorflow/ covers only the former). A custom loop under the
strategy runs under both.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from kerasline.components.core.errors import ParameterError
from kerasline.components.trainer.cluster import host_of
from kerasline.components.trainer.devices import Placement
from kerasline.components.trainer.settings import TrainerSettings


@dataclass(frozen=True)
class Replicas:
    """The replicas that train together.

    Attributes:
        strategy: the strategy under whose scope the model is created.
        count: number of replicas over all processes.
        local_ids: ids of the replicas in this process.
        devices: names of the devices: those of this process, or of all processes if there are several.
        is_chief: whether this process is the one that writes.
    """

    strategy: tf.distribute.Strategy
    count: int = 1
    local_ids: tuple[int, ...] = (0,)
    devices: tuple[str, ...] = ()
    is_chief: bool = True

    def first_local(self, value: Any) -> Any:
        """Return what the first replica of this process has of a per-replica value."""
        if self.count == 1:
            return value
        return tf.nest.map_structure(lambda v: self.strategy.experimental_local_results(v)[0], value)

    def sum_over_processes(self, numbers: list[float]) -> list[float]:
        """Return the sums of numbers over all processes, so that all of them take the same decisions.

        Waits until all processes have called it.
        """
        if len(self.local_ids) == self.count:
            return numbers
        own, zeros = tf.constant(numbers, tf.float64), tf.zeros(len(numbers), tf.float64)
        values = self.per_replica([own] + [zeros] * (len(self.local_ids) - 1))
        return self.strategy.reduce("SUM", values, axis=None).numpy().tolist()

    def from_chief(self, numbers: list[float]) -> list[float]:
        """Return the numbers that the chief passes. Waits until all processes have called it."""
        return self.sum_over_processes(numbers if self.is_chief else [0.0] * len(numbers))

    def per_replica(self, values: Sequence[Any]) -> Any:
        """Return a per-replica value, or the value itself if there is one replica.

        Args:
            values: one for each replica of this process.
        """
        if self.count == 1:
            return values[0]
        return self.strategy.experimental_distribute_values_from_function(
            lambda context: values[self.local_ids.index(context.replica_id_in_sync_group)]
        )


def create_replicas(settings: TrainerSettings, placement: Placement) -> Replicas:
    """Return the replicas for `settings.distribution`.

    Raises:
        ParameterError: devices or TF_CONFIG are missing.
    """
    if settings.distribution == "mirrored":
        devices = _mirrored_devices(settings.replicas, placement)
        strategy = tf.distribute.MirroredStrategy(devices)
        return Replicas(strategy, len(devices), tuple(range(len(devices))), tuple(devices))
    if settings.distribution == "multi_worker":
        return _multi_worker(placement)
    strategy = tf.distribute.OneDeviceStrategy(placement.name) if placement.kind == "GPU" else None
    return Replicas(strategy or tf.distribute.get_strategy(), devices=(placement.name,))


def split_cpu(count: int) -> None:
    """Split the CPU into logical devices. Only possible before TensorFlow initializes its devices."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)


def _mirrored_devices(count: int | None, placement: Placement) -> list[str]:
    if placement.kind == "CPU":
        split_cpu(count or 2)
        return [f"/CPU:{number}" for number in range(count or 2)]
    gpus = tf.config.list_logical_devices("GPU")
    if count and count > len(gpus):
        raise ParameterError(f"Trainer.replicas: expected at most {len(gpus)}, the number of GPUs, received {count}")
    return [f"/GPU:{number}" for number in range(count or len(gpus))]


def _multi_worker(placement: Placement) -> Replicas:
    config = json.loads(os.environ.get("TF_CONFIG", "{}"))
    if "cluster" not in config or "task" not in config:
        raise ParameterError(
            "Trainer.distribution: multi_worker requires Trainer.workers (the number of local workers, or the hosts), "
            "or the environment variable TF_CONFIG with `cluster` and `task` on each machine"
        )
    addresses, worker = config["cluster"]["worker"], int(config["task"]["index"])
    _reserve_gpus(addresses, worker, placement)
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    local_count = strategy.num_replicas_in_sync // len(addresses)  # the strategy requires the same number everywhere
    local_ids = tuple(range(worker * local_count, (worker + 1) * local_count))
    devices = tuple(f"{address} {placement.kind}:{n}" for address in addresses for n in range(local_count))
    return Replicas(strategy, strategy.num_replicas_in_sync, local_ids, devices, is_chief=worker == 0)


def _reserve_gpus(addresses: list[str], worker: int, placement: Placement) -> None:
    """Make only this worker's share of the machine's GPUs visible, since the strategy uses all visible ones."""
    gpus = tf.config.list_physical_devices("GPU")
    own = gpus_of_worker(gpus, addresses, worker) if placement.kind == "GPU" else []
    if gpus:
        tf.config.set_visible_devices(own, "GPU")
    for gpu in own:
        tf.config.experimental.set_memory_growth(gpu, True)


def gpus_of_worker(gpus: list[Any], addresses: list[str], worker: int) -> list[Any]:
    """Return a worker's share of the GPUs of its machine.

    Args:
        gpus: the GPUs of the machine.
        addresses: the addresses of all workers.
        worker: number of the worker.

    Raises:
        ParameterError: the machine has more workers than GPUs. NCCL does not support two ranks on one GPU.
    """
    host = host_of(addresses[worker])
    on_host = [number for number, address in enumerate(addresses) if host_of(address) == host]
    if len(on_host) > len(gpus):
        raise ParameterError(
            f"Trainer.workers: expected at most one worker per GPU, received {len(on_host)} on {host}, which has "
            f"{len(gpus)} GPUs; remove workers or set Trainer.device=cpu"
        )
    count = len(gpus) // len(on_host)
    first = on_host.index(worker) * count
    return gpus[first : first + count]
