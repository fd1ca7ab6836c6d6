"""The errors that a user can cause or correct. They share one base class, and each prints as one line.

Any other exception is a bug of kerasline. Its full traceback goes to the log.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable

# A model may have hundreds of layers, a table thousands of columns. A message lists up to this many names.
MOST_NAMES = 12


class KeraslineError(Exception):
    """An error whose message says what was wrong, where, and what to do."""

    def __str__(self) -> str:
        return " ".join(super().__str__().split())


class WiringError(KeraslineError):
    """The components of a pipeline do not fit together. Raised before anything runs."""


class ParameterError(KeraslineError):
    """A parameter is unknown, missing or of the wrong type."""


class DataError(KeraslineError):
    """The input data cannot be used."""


class ArtifactError(KeraslineError):
    """The folder of an artifact is missing, incomplete or of another type."""


class UserCodeError(KeraslineError):
    """A function of the user raised an exception, or returned an unusable value."""


class RemoteError(DataError):
    """A remote file system cannot be reached, read or written."""


class StoreError(KeraslineError):
    """The metadata store cannot be opened, read or written."""


class StageSkipped(Exception):
    """Raised by `Component.run` when there is nothing to do for these inputs. It is not a failure.

    The message says why and is displayed. Stages that depend on this one are skipped too.
    """


def at_stage(stage: str, message: object) -> str:
    """Return a message that begins with the name of its stage, as those about a parameter (`Trainer.loss: ...`) do."""
    text = str(message)
    return text if re.match(rf"{re.escape(stage)}[.:]", text) else f"{stage}: {text}"


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the last clause of a message about an unknown name: the closest known name, or some of them."""
    known = sorted(set(known))
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known: {some(known)}" if known else "there are none"


def check_known(where: str, problem: str, names: Iterable[str], known: Collection[str]) -> None:
    """Raise a ParameterError about the first name that is not known.

    Args:
        where: the parameter.
        problem: what to say before the name, such as "no metric".
    """
    for name in names:
        if name not in known:
            raise ParameterError(f"{where}: {problem} {name!r}; {nearest(name, known)}")


def some(names: Iterable[str]) -> str:
    """Return names for a message: the first ones, and the number of the others."""
    names = list(names)
    rest = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + rest


def one_line(error: Exception | str, most: int = 300) -> str:
    """Return the cause in another library's error, in one line.

    TensorFlow's texts begin with stack frames and end with the cause. Keras's end with the arguments of a call, and
    those of a worker process contain a whole traceback. All of these are left out.

    Args:
        error: the error, or its text.
        most: largest number of characters. Longer texts are cut in the middle.
    """
    text = str(getattr(error, "message", "") or error)
    if isinstance(error, KeyError) and "\\n" in text:  # the text of a KeyError is a repr
        text = str(error.args[0])
    text = _ANSI_CODE.sub("", text)
    if "Traceback (most recent call last):" in text:
        before, _, after = text.rpartition("Traceback (most recent call last):")
        text = after if _kept_lines(after) else before
    lines = _kept_lines(_NOTES.sub("", text.partition("\nArguments received by ")[0]))
    line = " ".join(_MODULE_OF_ERROR.sub(r"\1", " ".join(dict.fromkeys(lines))).split())
    if len(line) <= most:
        return line
    head = most // 3
    return f"{line[:head].rstrip()} ... {line[head - most + 5 :].lstrip()}"


def named_cause(error: Exception, most: int = 300) -> str:
    """Return the type and the cause of another library's error in one line: `ValueError: too large`.

    A RuntimeError that repeats the error it was raised from stands for that error. A type at the beginning of the text,
    as in the traceback of a worker process, takes the place of the type.
    """
    inner = error.__cause__ or error.__context__
    if type(error) is RuntimeError and isinstance(inner, Exception) and str(inner) and str(inner) in str(error):
        error = inner
    line = one_line(error, most)
    return line if _BEGINS_WITH_TYPE.match(line) else f"{type(error).__name__}: {line}".rstrip(": ")


_ANSI_CODE = re.compile(r"\x1b\[[0-9;]*m")
_MODULE_OF_ERROR = re.compile(r"\b(?:\w+\.)+(\w+(?:Error|Exception))\b(?=:)")
_BEGINS_WITH_TYPE = re.compile(r"\w+(?:Error|Exception): ")
# Names of graph nodes and of Beam's steps in the text of an error.
_NOTES = re.compile(
    r"\{\{function_node [^}]*\}\}|\[\[[^\]]*\]\]|\[Op:[^\]]*\]( name: ?)?|\[while running '[^']*'\]"
    r"|Error in user-defined function passed to \S+ transformation with iterator: \S+:"
    r"|\d+ root error\(s\) found\.|\(\d+\) [A-Z_]+: |\d+ successful operations?\.|\d+ derived errors? ignored\."
)
_FRAME = re.compile(
    r"""Graph execution error:?$|Detected at node |<stack traces |File "|Traceback \(most recent|\^|[~^ ]+$"""
    r"|During handling of the above|The above exception was"
    r"|Original stack trace for|Errors may have originated|Input Source operations|Exception encountered:$"
)


def _kept_lines(text: str) -> list[str]:
    """Return the lines of an error's text without stack frames and their source code."""
    kept, in_frame = [], False
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith('File "'):
            in_frame = True
        elif in_frame and line.startswith("    "):
            continue
        elif stripped and not _FRAME.match(stripped):
            in_frame = False
            kept.append(stripped)
    return kept
