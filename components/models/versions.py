"""Numbered versions of a model, common to all destinations of Pusher."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from kerasline.components.core.artifacts import SavedModel
from kerasline.components.core.atomic_files import file_digest
from kerasline.components.core.errors import DataError, nearest
from kerasline.components.core.json_files import read_object

LATEST = "latest"
DIGEST = "kerasline-digest.json"
WARM_UP = "assets.extra/tf_serving_warmup_requests"
# After this time, consider an unfinished push dead and remove its files.
DEAD_AFTER_SECONDS = 24 * 3600
# Version numbers are signed 64-bit integers in TensorFlow Serving.
HIGHEST = 2**63 - 1


class Destination(Protocol):
    """A folder of versions.

    Every method raises a DataError if the folder cannot be read or written.
    """

    def push(self, model: Path, keep: int | None = None) -> int:
        """Publish `model` as the version to serve, and return its number.

        It may be killed at any time and called by several processes at once. If the newest version is the same model,
        it is not pushed again.

        Args:
            keep: number of newest versions to keep; None keeps all.
        """
        ...

    def versions(self) -> list[int]:
        """Return the complete versions, oldest first."""
        ...

    def latest(self) -> int | None:
        """Return the version to serve, or None if none was set."""
        ...

    def point_to(self, version: int) -> None:
        """Atomically make a version the one to serve."""
        ...

    def where(self, version: int) -> str:
        """Return the path or URL of a version."""
        ...


def version_number(name: str) -> int | None:
    """Return the version that a folder is named after, or None if its name is not a version."""
    if not (name.isascii() and name.isdigit()):
        return None
    return int(name) if int(name) <= HIGHEST else None


def version_numbers(names: Iterable[str]) -> list[int]:
    """Return the versions among the names of folders, oldest first."""
    return sorted(number for number in map(version_number, names) if number is not None)


def next_version(newest: int) -> int:
    """Return the current time in seconds, or `newest + 1` if that is larger."""
    return max(int(time.time()), newest + 1)


def obsolete_versions(versions: Iterable[int], latest: int | None, keep: int | None) -> list[int]:
    """Return the versions to delete, oldest first. The version to serve is never deleted."""
    ordered = sorted(versions)
    return [] if keep is None else [version for version in ordered[:-keep] if version != latest]


def roll_back(destination: Destination, to: int | None = None) -> tuple[int | None, int]:
    """Make an earlier version the one to serve.

    Args:
        to: the version; None takes the one before the version that is served.

    Returns:
        The previous version to serve (None if none was set) and the new one.

    Raises:
        DataError: the version does not exist.
    """
    versions, latest = destination.versions(), destination.latest()
    if not versions:
        raise DataError(f"{destination}: no version of a model")
    if to is None:
        serving = latest if latest is not None else versions[-1]
        earlier = [version for version in versions if version < serving]
        if not earlier:
            raise DataError(f"{destination}: no version before {serving}, the latest; versions: {_newest(versions)}")
        to = earlier[-1]
    elif to not in versions:
        raise DataError(f"{destination}: no version {to}; {nearest(str(to), map(str, versions))}")
    destination.point_to(to)
    return latest, to


def content_digest(model: Path) -> str:
    """Return a digest that identifies a model.

    It is the digest in Exporter's manifest, which two exports of the same model share. Without a manifest it is the
    SHA-256 of the names and digests of all files.
    """
    manifest = read_object(model / SavedModel.MANIFEST)
    if "digest" in manifest:
        return str(manifest["digest"])
    lines = [f"{name}\0{file_digest(model / name)}\n" for name in _file_names(model) if name != DIGEST]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def file_digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file in a folder except the manifest, by relative path."""
    return {name: file_digest(folder / name) for name in _file_names(folder) if name != SavedModel.MANIFEST}


def has_digests(version: Path) -> bool:
    """Return whether the folder of a version states what its files contain, as those of Exporter and Pusher do."""
    return (version / DIGEST).is_file() or bool(read_object(version / SavedModel.MANIFEST).get("files"))


def find_difference(version: Path) -> str | None:
    """Return how the files of a version differ from its digests, or None. Recorded warm-up requests may be replaced."""
    for name, expected in read_object(version / SavedModel.MANIFEST).get("files", {}).items():
        if name == WARM_UP:
            continue
        try:
            if file_digest(version / name) != expected:
                return f"{name} differs from its digest in {SavedModel.MANIFEST}"
        except OSError as error:
            return f"{name} cannot be read: {error.strerror}"
    pushed = read_object(version / DIGEST).get("sha256")
    if (version / DIGEST).exists() and content_digest(version) != pushed:
        return f"the files differ from the digest in {DIGEST}"
    return None


def _file_names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _newest(versions: list[int]) -> str:
    return ", ".join(map(str, versions[-5:]))
