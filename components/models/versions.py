"""What is the same of versions wherever they lie."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from kerasline.components.core.artifacts import SavedModel
from kerasline.components.core.errors import DataError, nearest

LATEST = "latest"
DIGEST = "kerasline-digest.json"
# A push that takes longer than this has died: what it left is removed.
DEAD_AFTER_SECONDS = 24 * 3600
HIGHEST = 2**63 - 1


class Destination(Protocol):
    """A folder of versions.

    Every method raises a DataError where the folder cannot be read or written.
    """

    def push(self, model: Path, keep: int | None = None) -> int:
        """Makes `model` the version to be served; returns that version.

        Safe to kill at any instant, and for several processes at once. The newest version is not pushed again.

        Args:
            keep: how many of the newest versions stay; None keeps all.
        """

    def versions(self) -> list[int]:
        """Those that are whole, the oldest first."""

    def latest(self) -> int | None:
        """Which is to be served; None where nobody has said."""

    def point_to(self, version: int) -> None:
        """Makes a version the one to be served, between one instant and the next."""

    def where(self, version: int) -> str:
        """The path or URL of a version."""


def version_number(name: str) -> int | None:
    """The version that a folder is named after; None where it is no version's folder."""
    if not (name.isascii() and name.isdigit()):
        return None
    return int(name) if int(name) <= HIGHEST else None


def version_numbers(names: Iterable[str]) -> list[int]:
    """The versions among the names of folders, the oldest first."""
    return sorted(number for number in map(version_number, names) if number is not None)


def next_version(newest: int) -> int:
    """The time in seconds, or one more than the newest."""
    return max(int(time.time()), newest + 1)


def superfluous(versions: Iterable[int], latest: int | None, keep: int | None) -> list[int]:
    """Those that go, the oldest first: never the one that is to be served."""
    ordered = sorted(versions)
    return [] if keep is None else [version for version in ordered[:-keep] if version != latest]


def roll_back(destination: Destination, to: int | None = None) -> tuple[int | None, int]:
    """Makes an earlier version the one to be served; by default the one before that which is.

    Returns:
        The version that was to be served, and the one that now is.

    Raises:
        DataError: there is no such version.
    """
    versions, latest = destination.versions(), destination.latest()
    if not versions:
        raise DataError(f"{destination}: no version of a model")
    if to is None:
        serving = latest if latest is not None else versions[-1]
        earlier = [version for version in versions if version < serving]
        if not earlier:
            raise DataError(
                f"{destination}: no version before {serving}, which is the latest; there are {_told(versions)}"
            )
        to = earlier[-1]
    elif to not in versions:
        raise DataError(f"{destination}: no version {to}; {nearest(str(to), map(str, versions))}")
    destination.point_to(to)
    return latest, to


def content_digest(model: Path) -> str:
    """What tells one model from another: the digest in its manifest, which two exports of a model share; of a
    SavedModel from elsewhere the SHA-256 of its files."""
    try:
        return json.loads((model / SavedModel.MANIFEST).read_text(encoding="utf-8"))["digest"]
    except (OSError, ValueError, KeyError):
        pass
    digest = hashlib.sha256()
    for path in sorted(p for p in model.rglob("*") if p.is_file()):
        digest.update(f"{path.relative_to(model)}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _told(versions: list[int]) -> str:
    return ", ".join(map(str, versions[-5:]))
