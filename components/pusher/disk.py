"""Versions on a disk: a version and `latest`, a symbolic link, are published by renaming."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kerasline.components.core.atomic_files import fsync, fsync_tree
from kerasline.components.core.errors import DataError
from kerasline.components.models.versions import (
    DIGEST,
    LATEST,
    content_digest,
    next_version,
    obsolete_versions,
    version_numbers,
)

LOCK, STAGING, TRASH = ".push.lock", ".pushing", ".removing"


@dataclass(frozen=True)
class DiskDestination:
    """See `kerasline.components.models.versions.Destination`."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def push(self, model: Path, keep: int | None = None) -> int:
        with self._errors_named():
            self.path.mkdir(parents=True, exist_ok=True)
            digest = content_digest(model)
            with self._locked():
                newest = max(self.versions(), default=0)
                if newest and self._digest_of(newest) == digest:
                    version = newest
                else:
                    version = self._publish(model, digest, next_version(newest))
                self._link(version)
                for old in obsolete_versions(self.versions(), version, keep):
                    self._remove(old)
        return version

    def versions(self) -> list[int]:
        with self._errors_named():
            if not self.path.exists():
                return []
            return version_numbers(path.name for path in self.path.iterdir())

    def latest(self) -> int | None:
        try:
            link = self.path / LATEST
            text = os.readlink(link) if link.is_symlink() else link.read_text(encoding="utf-8")
            return int(text)
        except (OSError, ValueError):
            return None

    def point_to(self, version: int) -> None:
        with self._errors_named(), self._locked():
            if version not in self.versions():
                raise DataError(f"{self}: version {version} no longer exists")
            self._link(version)

    def where(self, version: int) -> str:
        return str(self.path / str(version))

    def _publish(self, model: Path, digest: str, version: int) -> int:
        staging = self.path / STAGING  # the lock is held, so what a killed push left can be removed
        shutil.rmtree(staging, ignore_errors=True)
        try:
            shutil.copytree(model, staging, copy_function=_link_or_copy)
            (staging / DIGEST).write_text(json.dumps({"sha256": digest}) + "\n", encoding="utf-8")
            fsync_tree(staging)
            staging.rename(self.path / str(version))
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        fsync(self.path)
        return version

    def _link(self, version: int) -> None:
        if self.latest() == version:
            return
        staging = self.path / f".{LATEST}"
        staging.unlink(missing_ok=True)
        try:
            staging.symlink_to(str(version), target_is_directory=True)
        except OSError:  # a file system without symbolic links
            staging.write_text(f"{version}\n", encoding="utf-8")
        staging.replace(self.path / LATEST)
        fsync(self.path)

    def _remove(self, version: int) -> None:
        """Rename the version before deleting it, so that no server sees an incomplete one."""
        trash = self.path / TRASH
        shutil.rmtree(trash, ignore_errors=True)
        (self.path / str(version)).rename(trash)
        shutil.rmtree(trash)

    def _digest_of(self, version: int) -> str | None:
        try:
            return json.loads((self.path / str(version) / DIGEST).read_text(encoding="utf-8"))["sha256"]
        except (OSError, ValueError, KeyError):
            return None

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Lock the destination. The kernel releases the lock when the process ends."""
        handle = os.open(self.path / LOCK, os.O_CREAT | os.O_RDWR, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    @contextlib.contextmanager
    def _errors_named(self) -> Iterator[None]:
        try:
            yield
        except shutil.Error as error:  # of copytree: a list of source, target and reason
            source, _, reason = error.args[0][0]
            raise DataError(f"{self}: {source} cannot be copied: {reason}") from error
        except OSError as error:
            raise DataError(f"{self}: {error.strerror or error}: {error.filename}") from error


def _link_or_copy(source: str, target: str) -> None:
    """Create a hard link, which takes no space, or a copy on another file system or one without links.

    Published files are never changed, so that versions may share them.
    """
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
