"""Import the user's files, call the user's functions, and attribute what they raise to them."""

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

from kerasline.components.core.errors import KeraslineError, UserCodeError, named_cause

_imported: list[Path] = []


@functools.cache
def import_file(path: Path) -> types.ModuleType:
    """Import a file under a unique module name. Its folder comes first on the path, for the modules next to it."""
    folder = str(path.parent)
    sys.path[:] = [folder, *(entry for entry in sys.path if entry != folder)]
    name = module_name(path)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserCodeError(f"{path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    _imported.append(path)
    return module


def module_name(path: Path) -> str:
    """Return the name that `import_file` gives to a file's module.

    It is derived from the path: files of the same name in different folders stay apart, and another process that
    unpickles a function of the file finds it again.
    """
    return f"{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"


def imported_files() -> tuple[Path, ...]:
    """Return the user's files that this process imported. A worker process must import them too."""
    return tuple(_imported)


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function of the user.

    Raises:
        UserCodeError: it raised. The message names the function, the line in its file and the exception.
    """
    try:
        return function(*arguments)
    except KeraslineError:
        raise
    except Exception as error:
        raise UserCodeError(f"{name_of(function)} raised {named_cause(error)} ({_place(function, error)})") from error


def name_of(function: Callable[..., Any]) -> str:
    """Return the name of a function for messages, such as `build_model()`."""
    return f"{getattr(function, '__qualname__', type(function).__name__)}()"


def _place(function: Callable[..., Any], error: Exception) -> str:
    """Return file and line of the innermost frame that lies in the function's own file."""
    file = inspect.getsourcefile(inspect.unwrap(function)) if callable(function) else None
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename == file] or frames
    return f"{own[-1].filename}, line {own[-1].lineno}"
