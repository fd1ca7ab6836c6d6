"""The folders of models: which versions are there, which are whole, and which is to be served."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from kerasline.components.core.errors import ArtifactError
from kerasline.components.models.versions import DIGEST, LATEST, version_number
from kerasline.components.pusher.disk import DiskDestination
from kerasline.components.serving.settings import ModelSource

SAVED_MODEL = ("saved_model.pb", "saved_model.pbtxt")
SINGLE = 1
SMALL_BYTES = 4 << 20
NOWHERE = -1
Fingerprint = tuple[tuple[str, int, int], ...]


def find_versions(source: ModelSource) -> dict[int, Path]:
    """The version folders that hold a SavedModel, by number; a lone SavedModel is one version.

    A lone SavedModel bears the number that its folder is named after, or 1.
    """
    if _is_saved_model(source.path):
        return {version_number(source.path.name) or SINGLE: source.path}
    try:
        folders = list(source.path.iterdir())
    except OSError:
        return {}
    found = {}
    for folder in folders:
        number = version_number(folder.name)
        if number is not None and _is_saved_model(folder):
            found[number] = folder
    return found


def latest_of(source: ModelSource) -> int | None:
    """The version that `latest` names, which Pusher writes and `rollback` moves.

    None where there is no `latest`; NOWHERE where it names no version.
    """
    pointer = source.path / LATEST
    if not (os.path.islink(pointer) or os.path.isfile(pointer)):
        return None
    number = DiskDestination(source.path).latest()
    return NOWHERE if number is None else number


def check_sources(sources: Iterable[ModelSource]) -> None:
    """Raises ArtifactError where a model's folder has nothing to serve, or cannot be read."""
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
            raise ArtifactError(f"serve: {path}: not a folder; a SavedModel or a folder of versions is wanted")
        versions = find_versions(source)
        if not versions:
            what = "is empty" if is_empty else "holds no SavedModel and no folder VERSION/saved_model.pb"
            raise ArtifactError(f"serve: {path} {what}; push a model there first")
        for label, number in source.labels.items():
            if number not in versions:
                known = ", ".join(map(str, sorted(versions)))
                raise ArtifactError(f"serve: label {label}: {path} has no version {number}; it has {known}")


def are_small(folders: Iterable[Path]) -> bool:
    """Whether the models are light to execute: few weights, and no convolution, which is much work with few."""
    try:
        for folder in folders:
            if sum(p.stat().st_size for p in (folder / "variables").glob("*")) > SMALL_BYTES:
                return False
            if any(b"Conv" in (folder / name).read_bytes() for name in SAVED_MODEL if (folder / name).is_file()):
                return False
    except OSError:  # loading it will tell
        return False
    return True


def fingerprint(folder: Path) -> Fingerprint:
    """Names, sizes and times of change of a folder's files: equal as long as nobody writes there."""
    try:
        files = [(str(p.relative_to(folder)), p.stat()) for p in sorted(folder.rglob("*")) if p.is_file()]
    except OSError:
        return ()
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in files)


def was_pushed(folder: Path) -> bool:
    """Whether Pusher put the folder there, which it does with one rename, whole."""
    return (folder / DIGEST).exists()


def _is_saved_model(folder: Path) -> bool:
    return any(os.path.isfile(folder / name) for name in SAVED_MODEL)
