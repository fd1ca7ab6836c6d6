"""Prometheus metrics of the server."""

from __future__ import annotations

import functools
import os
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
        self._requests = named(Counter, "requests", "Requests answered.", ("protocol", "model", "method", "code"))
        self._latency = named(
            Histogram,
            "request_seconds",
            "From the headers of a request to its response.",
            ("protocol", "model", "method"),
            buckets=SECONDS,
        )
        self._batch_rows = named(Histogram, "batch_rows", "Rows per execution.", version, buckets=ROWS)
        self._batch_requests = named(Histogram, "batch_requests", "Requests per execution.", version, buckets=ROWS)
        self._execution = named(Histogram, "execution_seconds", "Duration of an execution.", version, buckets=SECONDS)
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
        self.connections = named(Gauge, "rest_connections", "Open REST connections.", multiprocess_mode="livesum")
        self.in_progress = named(Gauge, "requests_under_way", "Requests in progress.", multiprocess_mode="livesum")

    def count_request(self, protocol: str, model: str, method: str, code: str, seconds: float) -> None:
        count, latency = self._request_children(protocol, model, method, code)
        count.inc()
        latency.observe(seconds)

    def count_execution(
        self, model: str, version: int, requests: int, rows: int, waited: float, seconds: float
    ) -> None:
        children = self._batch_children(model, version)
        for child, value in zip(children, (requests, rows, waited, seconds)):
            child.observe(value)

    def exposition(self) -> tuple[bytes, str]:
        """Return the metrics in Prometheus's text format, of all worker processes, and its content type."""
        from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
        from prometheus_client.multiprocess import MultiProcessCollector

        registry = self.registry
        if METRICS_VARIABLE in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)
        return generate_latest(registry), CONTENT_TYPE_LATEST

    def forget(self, model: str, version: int) -> None:
        """Remove the metrics of an unloaded version, so that they do not grow with each new version."""
        if METRICS_VARIABLE in os.environ:  # prometheus_client cannot remove those of several processes
            self.version_state.labels(model, str(version)).set(0)
            return
        for metric in (
            self._batch_requests,
            self._batch_rows,
            self._queued,
            self._execution,
            self.version_state,
            self.load_seconds,
        ):
            try:
                metric.remove(model, str(version))
            except KeyError:
                pass
        self._batch_children.cache_clear()

    @functools.lru_cache(maxsize=4096)  # noqa: B019 - lives as long as the server
    def _request_children(self, protocol: str, model: str, method: str, code: str) -> tuple[Any, Any]:
        return (
            self._requests.labels(protocol, model, method, code),
            self._latency.labels(protocol, model, method),
        )

    @functools.lru_cache(maxsize=1024)  # noqa: B019
    def _batch_children(self, model: str, version: int) -> tuple[Any, ...]:
        labels = (model, str(version))
        return tuple(
            metric.labels(*labels) for metric in (self._batch_requests, self._batch_rows, self._queued, self._execution)
        )
