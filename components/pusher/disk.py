"""Versions on a disk: a version appears with one rename, and so does `latest`, a symbolic link."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kerasline.components.core.durable_files import sync, sync_tree
from kerasline.components.core.errors import DataError
from kerasline.components.models.versions import (
    DIGEST,
    LATEST,
    content_digest,
    next_version,
    superfluous,
    version_numbers,
)

LOCK, ASIDE, GOING = ".push.lock", ".pushing", ".removing"


@dataclass(frozen=True)
class DiskDestination:
    """See `kerasline.components.models.versions.Destination`."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def push(self, model: Path, keep: int | None = None) -> int:
        with self._told():
            self.path.mkdir(parents=True, exist_ok=True)
            digest = content_digest(model)
            with self._alone():
                newest = max(self.versions(), default=0)
                if newest and self._digest_of(newest) == digest:
                    version = newest
                else:
                    version = self._publish(model, digest, next_version(newest))
                self._link(version)
                for old in superfluous(self.versions(), version, keep):
                    self._remove(old)
        return version

    def versions(self) -> list[int]:
        with self._told():
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
        with self._told(), self._alone():
            if version not in self.versions():
                raise DataError(f"{self}: version {version} is gone")
            self._link(version)

    def where(self, version: int) -> str:
        return str(self.path / str(version))

    def _publish(self, model: Path, digest: str, version: int) -> int:
        aside = self.path / ASIDE  # whoever holds the lock may clear what a dead one left
        shutil.rmtree(aside, ignore_errors=True)
        try:
            shutil.copytree(model, aside)
            (aside / DIGEST).write_text(json.dumps({"sha256": digest}) + "\n", encoding="utf-8")
            sync_tree(aside)
            aside.rename(self.path / str(version))
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        sync(self.path)
        return version

    def _link(self, version: int) -> None:
        if self.latest() == version:
            return
        aside = self.path / f".{LATEST}"
        aside.unlink(missing_ok=True)
        try:
            aside.symlink_to(str(version), target_is_directory=True)
        except OSError:  # a file system without links
            aside.write_text(f"{version}\n", encoding="utf-8")
        aside.replace(self.path / LATEST)
        sync(self.path)

    def _remove(self, version: int) -> None:
        """Out of sight with a rename, then for good: no server meets half of it."""
        going = self.path / GOING
        shutil.rmtree(going, ignore_errors=True)
        (self.path / str(version)).rename(going)
        shutil.rmtree(going)

    def _digest_of(self, version: int) -> str | None:
        try:
            return json.loads((self.path / str(version) / DIGEST).read_text(encoding="utf-8"))["sha256"]
        except (OSError, ValueError, KeyError):
            return None

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Holds the destination; the kernel lets go of it when the process dies."""
        handle = os.open(self.path / LOCK, os.O_CREAT | os.O_RDWR, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except shutil.Error as error:  # of a tree: what it could not copy, each with its reason
            source, _, reason = error.args[0][0]
            raise DataError(f"{self}: {source} cannot be copied: {reason}") from error
        except OSError as error:
            raise DataError(f"{self}: {error.strerror or error}: {error.filename}") from error
