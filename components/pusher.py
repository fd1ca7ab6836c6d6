"""Pusher: a blessed model becomes the next version in a folder that servers watch."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from components.artifacts import Blessing, PushedModel, SavedModel
from components.base import Component, Context, Input, Output, Parameter
from components.errors import DataError, StageSkipped

LOCK = ".push.lock"
ASIDE = ".pushing"
DIGEST = "kerasline-digest.json"


class Pusher(Component):
    """Copies a SavedModel to `destination/VERSION`, whole or not at all.

    A version is the time in seconds, or one more than the newest. Pushing the model that is
    the newest version already pushes nothing, so that a repeated push makes no second copy.

    Parameters:
        destination: the folder of versions, as TensorFlow Serving watches it.

    Raises:
        StageSkipped: the model was refused.
        DataError: the destination cannot be written.
    """

    saved_model: Input[SavedModel]
    blessing: Input[Blessing] = None
    pushed: Output[PushedModel]
    destination: Parameter[str]

    def run(self, inputs: Any, outputs: Any, context: Context) -> Mapping[str, Any]:
        if inputs.blessing is not None and not inputs.blessing.blessed:
            raise StageSkipped(f"model refused: {'; '.join(inputs.blessing.refusals())}")
        destination = Path(self.destination).absolute()
        try:
            version = push(inputs.saved_model.path, destination)
        except OSError as error:
            raise DataError(
                f"Pusher.destination {destination}: {error.strerror}: {error.filename}"
            ) from error
        facts = {
            "destination": str(destination),
            "version": version,
            "path": str(destination / str(version)),
        }
        outputs.pushed.write_json(PushedModel.FILE, facts)
        return {"version": str(version), "path": facts["path"]}

    def stale(self, outputs: Any) -> str | None:
        path = outputs.pushed.read_json(PushedModel.FILE)["path"]
        return None if Path(path).is_dir() else f"the pushed model {path} is gone"


def push(model: Path, destination: Path) -> int:
    """Makes `model` the newest version in `destination`; returns the version.

    Safe to kill at any instant, and for several processes at once.
    """
    destination.mkdir(parents=True, exist_ok=True)
    digest = _digest(model)
    with _alone(destination):
        newest = max(_versions(destination), default=0)
        if newest and _pushed_digest(destination / str(newest)) == digest:
            return newest
        aside = destination / ASIDE  # whoever holds the lock may clear what a dead one left
        shutil.rmtree(aside, ignore_errors=True)
        try:
            shutil.copytree(model, aside)
            (aside / DIGEST).write_text(json.dumps({"sha256": digest}) + "\n", encoding="utf-8")
            _sync(aside)
            version = max(int(time.time()), newest + 1)
            aside.rename(destination / str(version))
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        _sync_one(destination)
    return version


@contextlib.contextmanager
def _alone(destination: Path) -> Iterator[None]:
    """Holds the destination; the kernel lets go of it when the process dies."""
    handle = os.open(destination / LOCK, os.O_CREAT | os.O_RDWR, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _versions(destination: Path) -> list[int]:
    return [int(path.name) for path in destination.iterdir() if path.name.isdigit()]


def _pushed_digest(version: Path) -> str | None:
    try:
        return json.loads((version / DIGEST).read_text(encoding="utf-8"))["sha256"]
    except (OSError, ValueError, KeyError):
        return None


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(f"{path.relative_to(folder)}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _sync(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        _sync_one(path)


def _sync_one(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
