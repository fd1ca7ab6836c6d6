"""Prometheus metrics of the server."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """What is counted, in a registry of its own."""

    def __init__(self) -> None:
        from prometheus_client import (
            CollectorRegistry,
            Counter,
            Gauge,
            Histogram,
            PlatformCollector,
            ProcessCollector,
        )

        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)

        def named(kind: Any, name: str, about: str, labels: tuple[str, ...] = (), **more: Any) -> Any:
            return kind(f"kerasline_{name}", about, labels, registry=registry, **more)

        version = ("model", "version")
        self._requests = named(Counter, "requests", "Requests answered.", ("protocol", "model", "method", "code"))
        self._latency = named(
            Histogram,
            "request_seconds",
            "From a request's head to its answer.",
            ("protocol", "model", "method"),
            buckets=SECONDS,
        )
        self._batch_rows = named(Histogram, "batch_rows", "Rows in an execution.", version, buckets=ROWS)
        self._batch_requests = named(Histogram, "batch_requests", "Requests in an execution.", version, buckets=ROWS)
        self._execution = named(Histogram, "execution_seconds", "Time of an execution.", version, buckets=SECONDS)
        self._queued = named(
            Histogram,
            "queue_seconds",
            "How long an execution's first request waited.",
            version,
            buckets=SECONDS,
        )
        self.version_state = named(Gauge, "version_available", "1 where the version answers, else 0.", version)
        self.load_seconds = named(Gauge, "version_load_seconds", "Loading and warming a version.", version)
        self.load_failures = named(Counter, "version_load_failures", "Versions that could not be loaded.", ("model",))
        self.connections = named(Gauge, "rest_connections", "Open REST connections.")
        self._under_way = named(Gauge, "requests_under_way", "Requests that wait for a model.")

    def answered(self, protocol: str, model: str, method: str, code: str, seconds: float) -> None:
        count, latency = self._request_children(protocol, model, method, code)
        count.inc()
        latency.observe(seconds)

    def executed(self, model: str, version: int, requests: int, rows: int, waited: float, seconds: float) -> None:
        children = self._batch_children(model, version)
        for child, value in zip(children, (requests, rows, waited, seconds)):
            child.observe(value)

    def watch_under_way(self, count: Callable[[], float]) -> None:
        """Asks `count` for the requests under way whenever the metrics are read."""
        self._under_way.set_function(count)

    def text(self) -> tuple[bytes, str]:
        """The metrics in Prometheus's format, and its content type."""
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

        return generate_latest(self.registry), CONTENT_TYPE_LATEST

    def forget(self, model: str, version: int) -> None:
        """Drops a version that is gone, so that the metrics do not grow with each swap."""
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

    @functools.lru_cache(maxsize=4096)  # noqa: B019 - as long-lived as the server
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
