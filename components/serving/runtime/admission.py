"""Admission of requests, shared by REST and gRPC: API key, limits, and the record of each request."""

from __future__ import annotations

import hmac
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from kerasline.components.serving.runtime.access_log import AccessLog
from kerasline.components.serving.runtime.errors import RequestError
from kerasline.components.serving.runtime.metrics import Metrics
from kerasline.components.serving.runtime.settings import Limits

if TYPE_CHECKING:
    from kerasline.components.serving.runtime.models import Version

KEY_HEADERS = ("x-api-key", "authorization")
# Request headers that the response and the access log repeat, by the form that they must have: an identifier, and the
# context of a trace (https://www.w3.org/TR/trace-context/#traceparent-header).
REPEATED_HEADERS = {
    "x-request-id": re.compile(r"[\x21-\x7e]{1,128}"),
    "traceparent": re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"),
}
_BEARER = "bearer "


class AdmissionControl:
    """Check API keys and limits, and record what was answered.

    Attributes:
        is_draining: True while the server shuts down. Requests are still answered, but `/readyz` reports unready.
    """

    def __init__(self, limits: Limits, api_key: str | None, metrics: Metrics, log: AccessLog | None):
        self.limits, self._metrics, self._log = limits, metrics, log
        self._key = api_key.encode() if api_key else None
        self._pending_bytes = 0
        self.is_draining = False

    @property
    def needs_key(self) -> bool:
        return self._key is not None

    @property
    def writes_log(self) -> bool:
        return self._log is not None

    def check_key(self, x_api_key: str | None, authorization: str | None) -> None:
        """Raise UNAUTHENTICATED unless one of the two headers holds the API key."""
        assert self._key is not None, "call only if needs_key"
        given = x_api_key
        if given is None and authorization and authorization[: len(_BEARER)].lower() == _BEARER:
            given = authorization[len(_BEARER) :].strip()
        if given is None:
            raise RequestError(
                "UNAUTHENTICATED", "missing API key: expected the header x-api-key or authorization: Bearer"
            )
        if not hmac.compare_digest(given.encode("utf-8", "replace"), self._key):
            raise RequestError("UNAUTHENTICATED", "invalid API key")

    def check_size(self, size: int) -> None:
        """Raise RESOURCE_EXHAUSTED for a request that is too large."""
        if size > self.limits.request_bytes:
            message = f"the request is larger than {self.limits.request_bytes} bytes"
            raise RequestError("RESOURCE_EXHAUSTED", message, http_status=413)

    def admit(self, size: int) -> None:
        """Reserve `size` bytes for a request until `release`. Raise RESOURCE_EXHAUSTED beyond a limit."""
        self.check_size(size)
        if self._pending_bytes + size > self.limits.pending_bytes:
            raise RequestError("RESOURCE_EXHAUSTED", "too many bytes of requests in progress; try again")
        self._pending_bytes += size

    def release(self, size: int) -> None:
        self._pending_bytes -= size

    def deadline(self, requested_seconds: float | None = None) -> float:
        """Return the deadline of a request that starts now, in seconds of `time.monotonic`."""
        seconds = self.limits.timeout_seconds
        if requested_seconds is not None and requested_seconds < seconds:
            seconds = requested_seconds
        return time.monotonic() + seconds

    def finish(
        self, record: RequestRecord, *, protocol: str, client: str | None, status: int | str, size_out: int
    ) -> None:
        """Count and log an answered request."""
        seconds = time.monotonic() - record.started
        self._metrics.count_request(protocol, record.model, record.version, record.method, record.code, seconds)
        if self._log is None:
            return
        self._log.write(
            {
                "time": time.time(),
                "protocol": protocol,
                "client": client,
                "method": record.method,
                "path": record.path,
                "model": record.model,
                "version": record.version,
                "signature": record.signature,
                "status": status,
                "code": record.code,
                "error": record.error,
                "rows": record.rows,
                "bytes_in": record.size_in,
                "bytes_out": size_out,
                "milliseconds": round(seconds * 1e3, 3),
                "request_id": record.repeated.get("x-request-id"),
                "traceparent": record.repeated.get("traceparent"),
            }
        )


class Reservation:
    """The bytes in memory for one request, counted before they arrive or are allocated, and released at the end."""

    __slots__ = ("size", "_admission")

    def __init__(self, admission: AdmissionControl):
        self.size, self._admission = 0, admission

    def __enter__(self) -> Reservation:
        return self

    def __exit__(self, *_error: object) -> None:
        self._admission.release(self.size)

    def add(self, size: int) -> None:
        """Reserve further bytes. Raise RESOURCE_EXHAUSTED beyond a limit."""
        self._admission.admit(size)
        self.size += size


class RequestRecord:
    """What is known about a request so far.

    Attributes:
        model: the name of the model; empty until the model has been found.
        repeated: valid headers of `REPEATED_HEADERS`, by name.
    """

    __slots__ = (
        "started",
        "method",
        "path",
        "model",
        "version",
        "signature",
        "code",
        "error",
        "rows",
        "size_in",
        "repeated",
    )

    def __init__(self, method: str, path: str):
        self.started = time.monotonic()
        self.method, self.path = method, path
        self.model, self.code, self.size_in = "", "OK", 0
        self.version: int | None = None
        self.signature: str | None = None
        self.error: str | None = None
        self.rows: int | None = None
        self.repeated: dict[str, str] = {}

    def repeat_headers(self, header: Callable[[str], str | None]) -> None:
        """Keep the headers that the response repeats. `header` returns the value of a header by name."""
        for name, form in REPEATED_HEADERS.items():
            value = header(name)
            if value is not None and form.fullmatch(value):
                self.repeated[name] = value

    def set_error(self, error: RequestError) -> None:
        self.code, self.error = error.code, str(error)

    def set_target(self, version: Version, signature_name: str) -> None:
        self.model, self.version, self.signature = version.model, version.number, signature_name
