"""Prometheus metrics of the server."""

from __future__ import annotations

import functools
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from kerasline.components.serving.runtime.workers import METRICS_VARIABLE

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """The metrics of one server, in their own registry."""

    def __init__(self) -> None:
        from prometheus_client import (
            CollectorRegistry,
            Counter,
            Gauge,
            Histogram,
            PlatformCollector,
            ProcessCollector,
            values,
        )

        if METRICS_VARIABLE in os.environ:  # of this process, whenever prometheus_client was imported
            values.ValueClass = values.MultiProcessValue()
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)

        def named(kind: Any, name: str, description: str, labels: tuple[str, ...] = (), **more: Any) -> Any:
            return kind(f"kerasline_{name}", description, labels, registry=registry, **more)

        version = ("model", "version")
        self._requests = named(Counter, "requests", "Requests answered.", ("protocol", *version, "method", "code"))
        self._counts_of_unloaded: dict[tuple[str, str, str], float] = defaultdict(float)
        self._latency = named(
            Histogram,
            "request_seconds",
            "From the headers of a request to its response.",
            ("protocol", "model", "method"),
            buckets=SECONDS,
        )
        self._batch_rows = named(Histogram, "batch_rows", "Rows per execution.", version, buckets=ROWS)
        self._batch_requests = named(Histogram, "batch_requests", "Requests per execution.", version, buckets=ROWS)
        self._execution = named(
            Histogram, "execution_seconds", "Duration of an execution.", (*version, "method"), buckets=SECONDS
        )
        self._queued = named(
            Histogram,
            "queue_seconds",
            "Waiting time of the first request of an execution.",
            version,
            buckets=SECONDS,
        )
        self.version_state = named(
            Gauge,
            "version_available",
            "1 if the version answers requests, else 0.",
            version,
            multiprocess_mode="livemin",
        )
        self.load_seconds = named(
            Gauge, "version_load_seconds", "Time to load and warm up a version.", version, multiprocess_mode="livemax"
        )
        self.load_failures = named(Counter, "version_load_failures", "Versions that could not be loaded.", ("model",))
        self.queued = named(
            Gauge,
            "queued_requests",
            "Requests that wait for an execution.",
            version,
            multiprocess_mode="livesum",
        )
        self._tokens = named(Counter, "generated_tokens", "Tokens generated for streamed answers.", version)
        self._first_token = named(
            Histogram,
            "first_token_seconds",
            "From a streamed request to its first token.",
            version,
            buckets=SECONDS,
        )
        self.slots_in_use = named(
            Gauge, "slots_in_use", "Answers that are being generated.", version, multiprocess_mode="livesum"
        )
        self.connections = named(Gauge, "rest_connections", "Open REST connections.", multiprocess_mode="livesum")
        self.in_progress = named(Gauge, "requests_under_way", "Requests in progress.", multiprocess_mode="livesum")

    def count_request(
        self, protocol: str, model: str, version: int | None, method: str, code: str, seconds: float
    ) -> None:
        """Count a request. The version is None if the request failed before it was found."""
        count, latency = self._request_children(protocol, model, version, method, code)
        count.inc()
        latency.observe(seconds)

    def count_execution(
        self, model: str, version: int, method: str, requests: int, rows: int, waited: float, seconds: float
    ) -> None:
        children = self._batch_children(model, version, method)
        for child, value in zip(children, (requests, rows, waited, seconds)):
            child.observe(value)

    def count_step(self, model: str, version: int, slots: int, seconds: float) -> None:
        """Count a step that generated a token in each of some slots."""
        self.count_execution(model, version, "generate", slots, slots, 0.0, seconds)
        self._tokens.labels(model, str(version)).inc(slots)

    def count_first_token(self, model: str, version: int, seconds: float) -> None:
        self._first_token.labels(model, str(version)).observe(seconds)

    def exposition(self) -> tuple[bytes, str]:
        """Return the metrics in Prometheus's text format, of all worker processes, and its content type.

        They are followed by the most used ones of TensorFlow Serving, under its names.
        """
        from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
        from prometheus_client.multiprocess import MultiProcessCollector

        registry = self.registry
        if METRICS_VARIABLE in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)
        theirs = tensorflow_serving_metrics(registry.collect(), self._counts_of_unloaded)
        return generate_latest(registry) + theirs.encode(), CONTENT_TYPE_LATEST

    def forget(self, model: str, version: int) -> None:
        """Remove the metrics of an unloaded version, so that they do not grow with each new version."""
        if METRICS_VARIABLE in os.environ:  # prometheus_client cannot remove those of several processes
            self.version_state.labels(model, str(version)).set(0)
            return
        of_version = {"model": model, "version": str(version)}
        for family in self._requests.collect():
            for name, labels, value, *_ in family.samples:
                if name.endswith("_total") and of_version.items() <= labels.items():
                    self._counts_of_unloaded[model, labels["method"], labels["code"]] += value
        for metric in (
            self._requests,
            self._batch_requests,
            self._batch_rows,
            self._queued,
            self._execution,
            self.version_state,
            self.load_seconds,
            self.queued,
            self._tokens,
            self._first_token,
            self.slots_in_use,
        ):
            metric.remove_by_labels(of_version)
        self._request_children.cache_clear()
        self._batch_children.cache_clear()

    @functools.lru_cache(maxsize=4096)  # noqa: B019 - lives as long as the server
    def _request_children(
        self, protocol: str, model: str, version: int | None, method: str, code: str
    ) -> tuple[Any, Any]:
        number = "" if version is None else str(version)
        return (
            self._requests.labels(protocol, model, number, method, code),
            self._latency.labels(protocol, model, method),
        )

    @functools.lru_cache(maxsize=1024)  # noqa: B019
    def _batch_children(self, model: str, version: int, method: str) -> tuple[Any, ...]:
        labels = (model, str(version))
        by_version = [metric.labels(*labels) for metric in (self._batch_requests, self._batch_rows, self._queued)]
        return (*by_version, self._execution.labels(*labels, method))


# Names of operations in TensorFlow Serving's label `API`.
APIS = {"predict": "Predict", "classify": "Classify", "regress": "Regress", "multi_inference": "MultiInference"}


def tensorflow_serving_metrics(
    families: Iterable[Any], counts_of_unloaded: Mapping[tuple[str, str, str], float]
) -> str:
    """Return the metrics of TensorFlow Serving that dashboards use, in Prometheus's text format.

    `prometheus_client` cannot write them: it appends `_total` to the names of counters.

    Args:
        families: the metrics of this server, as `prometheus_client` collects them.
        counts_of_unloaded: number of requests to versions that were unloaded, by model, method and code. A counter must
            not decrease.
    """
    samples = [sample for family in families for sample in family.samples]
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for (model, method, code), count in counts_of_unloaded.items():
        if method in APIS:
            counts[_escaped(model), code] += int(count)
    latencies: dict[str, list[str]] = {"request": [], "runtime": []}
    for name, labels, value, *_ in samples:
        api = APIS.get(labels.get("method", ""))
        model = _escaped(labels.get("model", ""))
        if name == "kerasline_requests_total" and api and model:
            counts[model, labels["code"]] += int(value)
        elif name.startswith("kerasline_request_seconds_") and api and model:
            given = f'model_name="{model}",API="{api}",entrypoint="{labels["protocol"].upper()}"'
            latencies["request"] += _microseconds(":tensorflow:serving:request_latency", name, given, labels, value)
        elif name.startswith("kerasline_execution_seconds_") and api:
            given = f'model_name="{model}",API="{api}",version="{labels["version"]}",runtime="TF1"'
            latencies["runtime"] += _microseconds(":tensorflow:serving:runtime_latency", name, given, labels, value)
    lines = ["# TYPE :tensorflow:serving:request_count counter"]
    for (model, code), count in counts.items():
        lines.append(f':tensorflow:serving:request_count{{model_name="{model}",status="{code}"}} {count}')
    for name, found in latencies.items():
        lines += [f"# TYPE :tensorflow:serving:{name}_latency histogram", *found]
    return "\n".join(lines) + "\n"


def _microseconds(name: str, ours: str, given: str, labels: Mapping[str, str], value: float) -> list[str]:
    """Return the line for a sample of a histogram of seconds, which TensorFlow Serving measures in microseconds."""
    kind = ours.rpartition("_")[2]
    if kind == "created":
        return []
    if kind == "bucket":
        bound = labels["le"]
        given += f',le="{bound if bound == "+Inf" else format(float(bound) * 1e6, "g")}"'
    return [f"{name}_{kind}{{{given}}} {value * 1e6 if kind == 'sum' else int(value)}"]


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
