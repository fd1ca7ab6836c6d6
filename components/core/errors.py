"""Every error that a user can cause or mend, under one base; each prints as one line.

Anything that is not a `KeraslineError` is our own fault and gets its full traceback in the log.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class KeraslineError(Exception):
    """An error whose message says what was wrong, where, and what to do."""

    def __str__(self) -> str:
        return " ".join(super().__str__().split())


class WiringError(KeraslineError):
    """A pipeline was put together wrongly: found before anything runs."""


class ParameterError(KeraslineError):
    """A parameter is unknown, missing or of the wrong kind."""


class DataError(KeraslineError):
    """The data that came in cannot be used as it is."""


class ArtifactError(KeraslineError):
    """An artifact's folder is missing, incomplete or not what its type says."""


class UserCodeError(KeraslineError):
    """A function that the user handed in raised, or returned what cannot be used."""


class RemoteError(DataError):
    """A file system elsewhere cannot be reached, read or written."""


class StoreError(KeraslineError):
    """The metadata store cannot be opened, read or written."""


class StageSkipped(Exception):
    """Raised by a component's `run` when, on these inputs, it has nothing to do; not a failure.

    The message says why and is shown to the user. What depends on the stage is skipped too.
    """


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error sentence about an unknown name: the likeliest right one, or all of them."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known: {', '.join(known)}" if known else "there are none"


def one_line(error: Exception, most: int = 150) -> str:
    """What an error of another library says, in one line."""
    return " ".join(str(error).split())[:most]
