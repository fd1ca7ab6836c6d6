"""Versions in an object store, or in any other file system of fsspec: objects are atomic, but cannot be renamed.

A version is complete once its last object, `kerasline-digest.json`, exists. `saved_model.pb` is written just before it,
so that a server that only lists folders finds no model in an incomplete version. `latest` is an object with the
version's number. A push first claims a number with the object `.pushing/NUMBER-ID`. If several pushes claim the same
number, each sees the claims of the others and tries another number.
"""

from __future__ import annotations

import contextlib
import json
import random
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from kerasline.components.core.errors import DataError, ParameterError
from kerasline.components.core.remote_folder import RemoteFolder
from kerasline.components.models.versions import (
    DEAD_AFTER_SECONDS,
    DIGEST,
    LATEST,
    content_digest,
    next_version,
    obsolete_versions,
    version_number,
    version_numbers,
)

CLAIMS = ".pushing"
MODEL = "saved_model.pb"


@dataclass(frozen=True)
class ObjectStoreDestination:
    """See `kerasline.components.models.versions.Destination`.

    Attributes:
        folder: the folder of versions.
    """

    folder: RemoteFolder

    @classmethod
    def open(cls, url: str) -> ObjectStoreDestination:
        """Open a URL of fsspec. Its library reads credentials from the environment."""
        try:
            return cls(RemoteFolder(url))
        except ParameterError as error:
            raise ParameterError(f"Pusher.destination {error}") from error

    def __str__(self) -> str:
        return str(self.folder)

    def push(self, model: Path, keep: int | None = None) -> int:
        digest = content_digest(model)
        newest = max(self.versions(), default=0)
        if newest and self._digest_of(newest) == digest:
            version = newest
        else:
            version = self._publish(model, digest)
        self.point_to(version)
        self._clean(version)
        for old in obsolete_versions(self.versions(), version, keep):
            self._remove(old)
        return version

    def versions(self) -> list[int]:
        return [version for version in self._numbers() if self._digest_of(version) is not None]

    def latest(self) -> int | None:
        text = self.folder.read(LATEST)
        return None if text is None else version_number(text.decode("utf-8", "replace").strip())

    def point_to(self, version: int) -> None:
        self.folder.write(LATEST, f"{version}\n".encode())

    def where(self, version: int) -> str:
        return f"{self.folder}/{version}"

    def _publish(self, model: Path, digest: str) -> int:
        """Write a version. On failure remove its objects and its claim, or leave that to `_clean`."""
        version, claim = self._claim()
        try:
            names = [p.relative_to(model).as_posix() for p in model.rglob("*") if p.is_file()]
            self.folder.upload(model, [name for name in names if name != MODEL], str(version))
            self.folder.upload(model, [name for name in names if name == MODEL], str(version))
            self.folder.write(f"{version}/{DIGEST}", (json.dumps({"sha256": digest}) + "\n").encode())
        except BaseException:
            with contextlib.suppress(DataError):
                self._remove(version)
                self.folder.remove([claim])
            raise
        self.folder.remove([claim])
        return version

    def _claim(self) -> tuple[int, str]:
        """Return an unused number, and the object that claims it."""
        version = 0
        while True:
            version = next_version(max([version, *self._numbers()]))
            claim = f"{CLAIMS}/{version}-{uuid.uuid4().hex}"
            self.folder.write(claim, str(time.time()).encode())
            others = [c for c in self._claims() if c.startswith(f"{version}-") and not claim.endswith(c)]
            if not others and version not in self._numbers():
                return version, claim
            self.folder.remove([claim])
            version += random.randrange(10)  # so that competing pushes diverge

    def _clean(self, latest: int) -> None:
        """Remove what killed pushes left."""
        for claim in self._claims():
            since = self.folder.read(f"{CLAIMS}/{claim}")
            version = int(claim.partition("-")[0])
            if since and time.time() - float(since) > DEAD_AFTER_SECONDS:
                if version != latest and version in self._numbers() and self._digest_of(version) is None:
                    self.folder.remove(self.folder.list_files(str(version)))
                self.folder.remove([f"{CLAIMS}/{claim}"])

    def _remove(self, version: int) -> None:
        """Remove a version. Without its digest, which is removed first, it is incomplete."""
        self.folder.remove([f"{version}/{DIGEST}"])
        self.folder.remove(self.folder.list_files(str(version)))

    def _numbers(self) -> list[int]:
        return version_numbers(self.folder.list_names())

    def _claims(self) -> list[str]:
        return self.folder.list_names(CLAIMS)

    def _digest_of(self, version: int) -> str | None:
        text = self.folder.read(f"{version}/{DIGEST}")
        try:
            return None if text is None else json.loads(text)["sha256"]
        except (ValueError, KeyError):
            return None
