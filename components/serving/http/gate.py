"""What every request passes, by REST or gRPC: the key, the bounds, and the account of it."""

from __future__ import annotations

import hmac
import time
from typing import Any

from kerasline.components.serving.http.access_log import AccessLog
from kerasline.components.serving.runtime.errors import RequestError
from kerasline.components.serving.runtime.metrics import Metrics
from kerasline.components.serving.settings import Limits

KEY_HEADERS = ("x-api-key", "authorization")
_BEARER = "bearer "


class Gate:
    """Attributes:
    is_draining: set when the server is ending; requests are still answered, readiness is not.
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
        """Raises UNAUTHENTICATED."""
        given = x_api_key
        if given is None and authorization and authorization[: len(_BEARER)].lower() == _BEARER:
            given = authorization[len(_BEARER) :].strip()
        if given is None:
            raise RequestError("UNAUTHENTICATED", "an API key is needed: x-api-key or authorization: Bearer")
        if not hmac.compare_digest(given.encode("utf-8", "replace"), self._key):
            raise RequestError("UNAUTHENTICATED", "the API key is wrong")

    def admit(self, size: int) -> None:
        """Takes `size` bytes of a request into account until `release`. Raises RESOURCE_EXHAUSTED."""
        if size > self.limits.request_bytes:
            raise RequestError(
                "RESOURCE_EXHAUSTED",
                f"the request is larger than {self.limits.request_bytes} bytes",
                http_status=413,
            )
        if self._pending_bytes + size > self.limits.pending_bytes:
            raise RequestError("RESOURCE_EXHAUSTED", "too many bytes of requests are under way; try again")
        self._pending_bytes += size

    def release(self, size: int) -> None:
        self._pending_bytes -= size

    def deadline(self, asked_seconds: float | None = None) -> float:
        """When the request's time is up, in seconds of `time.monotonic`."""
        seconds = self.limits.timeout_seconds
        if asked_seconds is not None and asked_seconds < seconds:
            seconds = asked_seconds
        return time.monotonic() + seconds

    def record(self, account: Account, *, protocol: str, client: str | None, status: int | str, size_out: int) -> None:
        """Counts an answered request, and logs it."""
        seconds = time.monotonic() - account.started
        self._metrics.answered(protocol, account.model, account.method, account.code, seconds)
        if self._log is None:
            return
        self._log.write(
            {
                "time": time.time(),
                "protocol": protocol,
                "client": client,
                "method": account.method,
                "path": account.path,
                "model": account.model,
                "version": account.version,
                "signature": account.signature,
                "status": status,
                "code": account.code,
                "error": account.error,
                "rows": account.rows,
                "bytes_in": account.size_in,
                "bytes_out": size_out,
                "milliseconds": round(seconds * 1e3, 3),
                "request_id": account.request_id,
            }
        )


class Account:
    """What is known of a request so far. `model` is only set once it is known to exist."""

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
        "request_id",
    )

    def __init__(self, method: str, path: str):
        self.started = time.monotonic()
        self.method, self.path = method, path
        self.model, self.version, self.signature = "", None, None
        self.code, self.error, self.rows = "OK", None, None
        self.size_in, self.request_id = 0, None

    def failed(self, error: RequestError) -> None:
        self.code, self.error = error.code, str(error)

    def of(self, version: Any, signature_name: str) -> None:
        self.model, self.version, self.signature = version.model, version.number, signature_name
