"""Notice files that functions of the user read while a stage runs, although they are not declared as its inputs.

A change of such a file leaves the cache valid. Python announces each file that it opens to audit hooks. The stack tells
whether a function of the user opens it. Native code of libraries opens files unannounced. Classes and functions that
read weights, vocabularies, Parquet and the files of `tf.data` are made to announce them (`NATIVE_READERS`). What the
graph of a `tf.data.Dataset.map` opens stays unknown.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import sys
import threading
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kerasline.pipeline.code_origin import is_users

SYSTEM_FOLDERS = ("/dev/", "/etc/", "/lib/", "/proc/", "/sys/", "/usr/")
CODE_SUFFIXES = (".py", ".pyc", ".so")
# Module and name of classes and functions that open files in native code. Their first argument is the file, or several.
NATIVE_READERS = (
    ("h5py", "File"),
    ("pyarrow.parquet.core", "ParquetDataset"),
    ("pyarrow.parquet.core", "ParquetFile"),
    ("tensorflow.python.lib.io.file_io", "FileIO"),  # tf.io.gfile
    ("tensorflow.python.ops.lookup_ops", "TextFileInitializer"),
    ("tensorflow.python.data.ops.readers", "FixedLengthRecordDatasetV2"),
    ("tensorflow.python.data.ops.readers", "TextLineDatasetV2"),
    ("tensorflow.python.data.ops.readers", "TFRecordDatasetV2"),
    ("tensorflow.python.data.experimental.ops.readers", "CsvDatasetV2"),
    ("tensorflow._api.v2.io", "read_file"),
)
# A warning names at most this many files.
MOST_NAMED = 3

_EXECUTOR = str(Path(__file__).with_name("executor.py"))  # below it is the program that runs the pipeline


class _Watch:
    """The reads of one stage.

    Attributes:
        found: the place in the user's code, such as "mine.py, line 12", by the path of the undeclared file.
    """

    def __init__(self, declared: Iterable[Path], folders: Sequence[Path]) -> None:
        self.found: dict[str, str] = {}
        self._allowed = {os.path.realpath(path) for path in declared}
        self._folders = tuple(f"{os.path.realpath(folder)}{os.sep}" for folder in folders)

    def notice(self, path: str, place: str, *, is_read: bool) -> None:
        path = os.path.realpath(path)
        if not is_read:
            self._allowed.add(path)  # the stage may read what it has written
        elif (
            path not in self._allowed
            and not path.startswith((*self._folders, *SYSTEM_FOLDERS))
            and not path.endswith(CODE_SUFFIXES)
            and os.path.isfile(path)
            and is_users(path)
        ):
            self.found.setdefault(path, place)


_watches: dict[int, _Watch] = {}  # by the thread in which the stage runs


@contextlib.contextmanager
def watched(declared: Iterable[Path], folders: Sequence[Path]) -> Iterator[Mapping[str, str]]:
    """Watch the stage that runs in this thread within the `with` block.

    Args:
        declared: files that the stage may read.
        folders: folders whose files the stage may read.

    Yields:
        The place in the user's code, such as "mine.py, line 12", by the path of each undeclared file that it read.
    """
    _install()
    watch = _watches[threading.get_ident()] = _Watch(declared, folders)
    try:
        yield watch.found
    finally:
        del _watches[threading.get_ident()]


def warning(node: str, found: Mapping[str, str]) -> str | None:
    """Return a warning that names the files found, or None if there are none."""
    if not found:
        return None
    named = ", ".join(f"{path} ({place})" for path, place in list(found.items())[:MOST_NAMED])
    more = f" and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
    return f"warning: reads {named}{more}; add to files=[...] of {node}, or the cache does not notice changes"


def _install() -> None:
    _add_hook()
    for module, name in NATIVE_READERS:
        if module in sys.modules:
            _announce(module, name)


@functools.cache
def _add_hook() -> None:
    sys.addaudithook(_hook)  # for the life of the process


@functools.cache
def _announce(module: str, name: str) -> None:
    """Make a class or function that opens files in native code announce them, as `open` does."""
    reader = getattr(sys.modules[module], name)
    is_class = inspect.isclass(reader)
    owner, attribute = (reader, "__init__") if is_class else (sys.modules[module], name)
    setattr(owner, attribute, _announcing(getattr(owner, attribute), place=int(is_class)))


def _announcing(function: Callable[..., Any], place: int) -> Callable[..., Any]:
    signature = inspect.signature(function)

    @functools.wraps(function)
    def announcing(*arguments: Any, **named: Any) -> Any:
        with contextlib.suppress(Exception):  # a wrong call, which `function` reports
            bound = signature.bind(*arguments, **named).arguments
            for file in _files(list(bound.values())[place]):
                sys.audit("open", file, bound.get("mode") or "r", 0)
        return function(*arguments, **named)

    return announcing


def _files(given: Any) -> list[Any]:
    """Return the files of an argument: a path, a list of paths, or a tensor with a value."""
    given = given.numpy() if hasattr(given, "numpy") else given
    given = given.tolist() if hasattr(given, "tolist") else given
    return [file for part in given for file in _files(part)] if isinstance(given, (list, tuple)) else [given]


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watches or event not in ("open", "sqlite3.connect"):
        return
    with contextlib.suppress(Exception):  # the file shall be opened whatever happens here
        file, mode, flags = (*arguments, "r", 0)[:3]
        watch = _watches.get(threading.get_ident())
        if watch is None and len(_watches) == 1:  # a thread that the stage started
            watch = next(iter(_watches.values()))
        place = _users_place(sys._getframe(1)) if watch is not None else None
        if watch is not None and place is not None and isinstance(file, (str, bytes, os.PathLike)):
            is_read = not set(mode) & set("wax+") if mode else flags & os.O_ACCMODE == os.O_RDONLY
            watch.notice(os.fsdecode(file), place, is_read=is_read)


def _users_place(frame: types.FrameType | None) -> str | None:
    """Return file and line of the innermost frame of the user's code, or None if a module is being imported first."""
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith("<frozen importlib") or file == _EXECUTOR:
            return None
        if file.endswith(".py") and is_users(file):
            return f"{file}, line {frame.f_lineno}"
        frame = frame.f_back
    return None
