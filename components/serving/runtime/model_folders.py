"""The folders of models: their versions, which are complete, and which to serve."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from kerasline.components.core.errors import ArtifactError
from kerasline.components.models.versions import LATEST, version_number
from kerasline.components.pusher.disk import DiskDestination
from kerasline.components.serving.runtime.settings import ModelSource

SAVED_MODEL = ("saved_model.pb", "saved_model.pbtxt")
# Version number of a SavedModel whose folder is not named after a number.
ONLY_VERSION = 1
# Models with at most this size of weights execute faster without oneDNN.
SMALL_BYTES = 4 << 20
# Value for a `latest` that names no version.
INVALID_LATEST = -1
# Name, size, modification time and inode of each file.
Fingerprint = tuple[tuple[str, int, int, int], ...]


def find_versions(source: ModelSource) -> dict[int, Path]:
    """Return the version folders that contain a SavedModel and may be loaded, by number.

    If the source itself is a SavedModel, it is the only version. Its number is the name of its folder, or 1.
    """
    if _is_saved_model(source.path):
        return {version_number(source.path.name) or ONLY_VERSION: source.path}
    try:
        folders = list(source.path.iterdir())
    except OSError:
        return {}
    found = {}
    for folder in folders:
        number = version_number(folder.name)
        if number is not None and (not source.only or number in source.only) and _is_saved_model(folder):
            found[number] = folder
    return found


def read_latest(source: ModelSource) -> int | None:
    """Return the version that `latest` names, which Pusher writes and `rollback` moves.

    Return None if there is no `latest`, and INVALID_LATEST if it names no version.
    """
    pointer = source.path / LATEST
    if not (os.path.islink(pointer) or os.path.isfile(pointer)):
        return None
    number = DiskDestination(source.path).latest()
    return INVALID_LATEST if number is None else number


def check_sources(sources: Iterable[ModelSource]) -> None:
    """Check that each model has something to serve.

    Raises:
        ArtifactError: a folder does not exist, cannot be read, or contains no SavedModel, or not a version that the
            source names.
    """
    for source in sources:
        path = source.path
        try:
            path.stat()
            is_empty = path.is_dir() and not any(path.iterdir())
        except FileNotFoundError:
            raise ArtifactError(f"serve: {path}: no such folder") from None
        except OSError as error:
            raise ArtifactError(f"serve: {path} cannot be read: {error.strerror}") from error
        if not path.is_dir():
            raise ArtifactError(f"serve: {path}: not a folder; expected a SavedModel or a folder of versions")
        versions = find_versions(replace(source, only=()))
        if not versions:
            what = "is empty" if is_empty else "holds no SavedModel and no folder VERSION/saved_model.pb"
            raise ArtifactError(f"serve: {path} {what}; push a model there first")
        named = [("", number) for number in source.only]
        named += [(f"label {label}: ", number) for label, number in source.labels.items()]
        for where, number in named:
            if number not in versions:
                known = ", ".join(map(str, sorted(versions)))
                raise ArtifactError(f"serve: {where}{path} has no version {number}; it has {known}")
            if source.only and number not in source.only:
                only = ", ".join(map(str, source.only))
                raise ArtifactError(f"serve: {where}expected one of the versions to load, {only}, received {number}")


def are_fast_models(folders: Iterable[Path]) -> bool:
    """Return whether the models are fast to execute: few weights, and no convolution, which is slow with few."""
    try:
        for folder in folders:
            if sum(p.stat().st_size for p in (folder / "variables").glob("*")) > SMALL_BYTES:
                return False
            if any(b"Conv" in (folder / name).read_bytes() for name in SAVED_MODEL if (folder / name).is_file()):
                return False
    except OSError:  # loading reports it
        return False
    return True


def fingerprint(folder: Path) -> Fingerprint:
    """Return name, size, modification time and inode of each file in a folder, to detect changes."""
    try:
        files = [(str(p.relative_to(folder)), p.stat()) for p in sorted(folder.rglob("*")) if p.is_file()]
    except OSError:
        return ()
    return tuple((name, stat.st_size, stat.st_mtime_ns, stat.st_ino) for name, stat in files)


def changed_before(folder: Path, seconds: float) -> bool:
    """Return whether all files were last changed more than `seconds` ago, by the clock of this machine."""
    try:
        newest = max(p.stat().st_ctime for p in (folder, *folder.rglob("*")))
    except OSError:  # removed meanwhile
        return False
    return time.time() - newest > seconds


def _is_saved_model(folder: Path) -> bool:
    return any(os.path.isfile(folder / name) for name in SAVED_MODEL)
