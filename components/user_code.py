"""Calling the user's functions, so that what they raise is told as theirs, with the place."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable
from typing import Any

from components.errors import KeraslineError, UserCodeError


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function that the user handed in.

    Raises:
        UserCodeError: it raised; names the function, the place in its file and what it raised.
    """
    try:
        return function(*arguments)
    except KeraslineError:
        raise
    except Exception as error:
        raise UserCodeError(
            f"{name_of(function)} raised {type(error).__name__}: {error} ({_place(function, error)})"
        ) from error


def name_of(function: Callable[..., Any]) -> str:
    return f"{getattr(function, '__qualname__', type(function).__name__)}()"


def _place(function: Callable[..., Any], error: Exception) -> str:
    """The innermost line of the traceback that lies in the function's own file."""
    file = inspect.getsourcefile(inspect.unwrap(function)) if callable(function) else None
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename == file] or frames
    return f"{own[-1].filename}, line {own[-1].lineno}"
