"""Versions in an object store, or whatever else fsspec reaches: there are no renames, but an object appears whole.

A version counts once its last object, `kerasline-digest.json`, is there; `saved_model.pb` comes just before it,
so that a server that looks at folders alone finds no model in a half-written one. `latest` is an object that
holds the version's number. Who pushes claims a number first, `.pushing/NUMBER-ID`: of several that claim the
same one each sees another's claim, and all go on to other numbers.
"""

from __future__ import annotations

import contextlib
import json
import random
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.errors import DataError, ParameterError, one_line
from components.pushing.versions import (
    DEAD_AFTER_SECONDS,
    DIGEST,
    LATEST,
    content_digest,
    next_version,
    superfluous,
)

CLAIMS = ".pushing"
MODEL = "saved_model.pb"


@dataclass(frozen=True)
class ObjectStoreDestination:
    """See `components.pushing.versions.Destination`.

    Attributes:
        url: as it was given.
        files: fsspec's file system.
        root: the folder's path within it.
    """

    url: str
    files: Any
    root: str

    @classmethod
    def open(cls, url: str) -> ObjectStoreDestination:
        """Opens an URL of fsspec's; what else is needed, such as keys, its library takes from the environment."""
        import fsspec

        try:
            files, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
        except (ImportError, ValueError, TypeError) as error:
            raise ParameterError(f"Pusher.destination {url}: {one_line(error)}") from error
        return cls(url, files, root.rstrip("/"))

    def __str__(self) -> str:
        return self.url

    def push(self, model: Path, keep: int | None = None) -> int:
        digest = content_digest(model)
        with self._told():
            newest = max(self.versions(), default=0)
            if newest and self._digest_of(newest) == digest:
                version = newest
            else:
                version = self._publish(model, digest)
            self._write(LATEST, f"{version}\n")
            self._clean(version)
            for old in superfluous(self.versions(), version, keep):
                self._remove(old)
        return version

    def versions(self) -> list[int]:
        with self._told():
            return [version for version in self._numbers() if self._digest_of(version) is not None]

    def latest(self) -> int | None:
        with self._told():
            text = self._read(LATEST)
        return int(text) if text is not None and text.strip().isdigit() else None

    def point_to(self, version: int) -> None:
        with self._told():
            self._write(LATEST, f"{version}\n")

    def where(self, version: int) -> str:
        return f"{self.url.rstrip('/')}/{version}"

    def _publish(self, model: Path, digest: str) -> int:
        version, claim = self._claim()
        try:
            names = sorted(p.relative_to(model).as_posix() for p in model.rglob("*") if p.is_file())
            for name in sorted(names, key=lambda name: name == MODEL):
                self._put(model / name, f"{version}/{name}")
            self._write(f"{version}/{DIGEST}", json.dumps({"sha256": digest}) + "\n")
        finally:
            self.files.rm(claim)
        return version

    def _claim(self) -> tuple[int, str]:
        """A number that nobody else has, and the object that says so."""
        version = 0
        while True:
            version = next_version(max([version, *self._numbers()]))
            claim = f"{CLAIMS}/{version}-{uuid.uuid4().hex}"
            self._write(claim, str(time.time()))
            others = [c for c in self._claims() if c.startswith(f"{version}-") and not claim.endswith(c)]
            if not others and version not in self._numbers():
                return version, f"{self.root}/{claim}"
            self.files.rm(f"{self.root}/{claim}")
            version += random.randrange(10)  # so that they do not meet again

    def _clean(self, latest: int) -> None:
        """Removes what dead processes left."""
        for claim in self._claims():
            since = self._read(f"{CLAIMS}/{claim}")
            version = int(claim.partition("-")[0])
            if since and time.time() - float(since) > DEAD_AFTER_SECONDS:
                if version != latest and version in self._numbers() and self._digest_of(version) is None:
                    self.files.rm(f"{self.root}/{version}", recursive=True)
                self.files.rm(f"{self.root}/{CLAIMS}/{claim}")

    def _remove(self, version: int) -> None:
        """It counts no more from its first object on."""
        self.files.rm(f"{self.root}/{version}/{DIGEST}")
        self.files.rm(f"{self.root}/{version}", recursive=True)

    def _numbers(self) -> list[int]:
        return sorted(int(name) for name in self._names("") if name.isdigit())

    def _claims(self) -> list[str]:
        return self._names(f"/{CLAIMS}")

    def _names(self, folder: str) -> list[str]:
        try:
            self.files.invalidate_cache()
            found = self.files.ls(f"{self.root}{folder}", detail=False)
        except FileNotFoundError:
            return []
        return [path.rstrip("/").rsplit("/", 1)[-1] for path in found]

    def _digest_of(self, version: int) -> str | None:
        text = self._read(f"{version}/{DIGEST}")
        try:
            return None if text is None else json.loads(text)["sha256"]
        except (ValueError, KeyError):
            return None

    def _read(self, name: str) -> str | None:
        try:
            return self.files.cat_file(f"{self.root}/{name}").decode()
        except FileNotFoundError:
            return None

    def _put(self, file: Path, name: str) -> None:
        self._in_folder(name, lambda path: self.files.put_file(str(file), path))

    def _write(self, name: str, text: str) -> None:
        self._in_folder(name, lambda path: self.files.pipe_file(path, text.encode()))

    def _in_folder(self, name: str, write: Callable[[str], Any]) -> None:
        """Object stores have no folders; elsewhere one is made where there is none. A bucket never is."""
        path = f"{self.root}/{name}"
        try:
            write(path)
        except FileNotFoundError:
            above = self.root.rpartition("/")[0]
            if not above or not self.files.exists(above):
                raise
            self.files.makedirs(path.rpartition("/")[0], exist_ok=True)
            write(path)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """What goes wrong in the store, in one line."""
        try:
            yield
        except (DataError, KeyboardInterrupt):
            raise
        except Exception as error:  # each store has errors of its own
            raise DataError(f"{self}: {type(error).__name__}: {one_line(error)}") from error
