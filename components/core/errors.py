"""The errors that a user can cause or correct. They share one base class, and each prints as one line.

Any other exception is a bug of kerasline. Its full traceback goes to the log.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

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


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the last clause of a message about an unknown name: the closest known name, or some of them."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known: {some(known)}" if known else "there are none"


def some(names: Iterable[str]) -> str:
    """Return names for a message: the first ones, and the number of the others."""
    names = list(names)
    rest = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + rest


def one_line(error: Exception, most: int = 150) -> str:
    """Return the message of another library's error in one line of at most `most` characters."""
    return " ".join(str(error).split())[:most]
