"""The user's files and functions: importing them, and telling what they raise as theirs."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import inspect
import sys
import traceback
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kerasline.components.core.errors import KeraslineError, UserCodeError

_imported: list[Path] = []


@functools.cache
def import_file(path: Path) -> types.ModuleType:
    """Imports a file under a name of its own; its neighbours can be imported by their names."""
    folder = str(path.parent)
    sys.path[:] = [folder, *(entry for entry in sys.path if entry != folder)]
    # A name by the path: two files of one name in different folders stay apart, and a function
    # of the file is found again when another worker unpickles it.
    name = f"{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    _imported.append(path)
    return module


def imported_files() -> tuple[Path, ...]:
    """The user's files that this process imported: what a worker process imports too."""
    return tuple(_imported)


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
