"""Errors of requests: gRPC's canonical codes and their HTTP statuses."""

from __future__ import annotations

import logging
import traceback

log = logging.getLogger(__name__)

# The mapping of google.rpc.Code to HTTP, as TensorFlow Serving applies it.
HTTP_STATUSES = {
    "CANCELLED": 499,
    "UNKNOWN": 500,
    "INVALID_ARGUMENT": 400,
    "DEADLINE_EXCEEDED": 504,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "PERMISSION_DENIED": 403,
    "RESOURCE_EXHAUSTED": 429,
    "FAILED_PRECONDITION": 400,
    "ABORTED": 409,
    "OUT_OF_RANGE": 400,
    "UNIMPLEMENTED": 501,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DATA_LOSS": 500,
    "UNAUTHENTICATED": 401,
}
# tensorflow.error.Code numbers them as gRPC does.
CODE_NUMBERS = {
    "OK": 0,
    "CANCELLED": 1,
    "UNKNOWN": 2,
    "INVALID_ARGUMENT": 3,
    "DEADLINE_EXCEEDED": 4,
    "NOT_FOUND": 5,
    "ALREADY_EXISTS": 6,
    "PERMISSION_DENIED": 7,
    "RESOURCE_EXHAUSTED": 8,
    "FAILED_PRECONDITION": 9,
    "ABORTED": 10,
    "OUT_OF_RANGE": 11,
    "UNIMPLEMENTED": 12,
    "INTERNAL": 13,
    "UNAVAILABLE": 14,
    "DATA_LOSS": 15,
    "UNAUTHENTICATED": 16,
}
_CODE_NAMES = {number: name for name, number in CODE_NUMBERS.items()}
MAX_MESSAGE_CHARACTERS = 1000
# Hashes of the tracebacks already logged, and the maximum number of tracebacks to log.
_LOGGED: set[int] = set()
MAX_LOGGED = 1000


class RequestError(Exception):
    """A request was rejected or failed.

    Attributes:
        code: the name of a canonical gRPC code, such as `INVALID_ARGUMENT`.
        http_status: the HTTP status that belongs to the code, unless a more specific one was passed, such as 413.
    """

    def __init__(self, code: str, message: str, *, http_status: int | None = None):
        if len(message) > MAX_MESSAGE_CHARACTERS:
            message = message[:MAX_MESSAGE_CHARACTERS] + "..."
        super().__init__(message)
        self.code = code
        self.http_status = http_status or HTTP_STATUSES[code]


def invalid(message: str) -> RequestError:
    return RequestError("INVALID_ARGUMENT", message)


def not_found(message: str) -> RequestError:
    return RequestError("NOT_FOUND", message)


def unavailable(message: str) -> RequestError:
    return RequestError("UNAVAILABLE", message)


def from_exception(error: BaseException) -> RequestError:
    """Convert an exception to a RequestError. Errors of TensorFlow keep their code; unexpected ones become INTERNAL."""
    if isinstance(error, RequestError):
        return error
    number = getattr(error, "error_code", None)  # tf.errors.OpError
    if isinstance(number, int):
        return RequestError(_CODE_NAMES.get(number, "UNKNOWN"), _first_lines(getattr(error, "message", "")))
    if isinstance(error, UnicodeDecodeError):  # TensorFlow's message quotes bytes of the request
        return invalid("an operation of the model refused bytes of the request, which are not UTF-8")
    if isinstance(error, MemoryError):
        return RequestError("RESOURCE_EXHAUSTED", "not enough memory for this request")
    _log_once(error)
    return RequestError("INTERNAL", f"{type(error).__name__}: {error}")


def _log_once(error: BaseException) -> None:
    """Log each distinct traceback once, so that repeated requests cannot fill the log."""
    stack = "".join(traceback.format_tb(error.__traceback__))
    key = hash((stack, type(error)))
    if key not in _LOGGED and len(_LOGGED) < MAX_LOGGED:
        _LOGGED.add(key)
        log.error("unexpected error in the server or the model:\n%s%s: %s", stack, type(error).__name__, error)


def _first_lines(message: str) -> str:
    """Return TensorFlow's message without the stack of graph nodes that follows it."""
    return " ".join((message or "unknown error").split("\n\nErrors may have originated")[0].split())
