"""A pipeline root on a remote file system that fsspec supports, such as an object store, and its local folder.

    URL/artifacts/PIPELINE/NODE/FINGERPRINT-ID/     published: the files first, execution.json last
    URL/reports/RUN.html

    WORK/NAME/                                      like a root on a disk, but
        outbox/PIPELINE/NODE/FINGERPRINT-ID/        finished outputs that are being uploaded
        artifacts/PIPELINE/NODE/FINGERPRINT-ID/     copies of published outputs, downloaded when they are read

Object stores have no rename, so the manifest makes an execution visible. A folder without a manifest is not an
execution, and an object is either complete or absent. Each publication has its own folder, so that nobody overwrites
another's. Stages only read and write local folders. WORK is the environment variable KERASLINE_WORK, or
`~/.cache/kerasline`. Its content can be deleted while no run is active. The outputs are then downloaded again, and a
metadata store in it is lost.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kerasline.components.core.atomic_files import atomic_write, file_digest, fsync
from kerasline.components.core.component import Component
from kerasline.components.core.errors import ArtifactError, ParameterError, RemoteError
from kerasline.components.core.remote_folder import RemoteFile, RemoteFolder
from kerasline.components.data.beam_runners import runner_name, runs_locally
from kerasline.pipeline.storage.artifact_root import (
    MANIFEST,
    ArtifactRoot,
    Folder,
    Published,
    manifest_text,
    move,
    new_folder_name,
    published_from,
    read_manifest,
    read_published,
)
from kerasline.pipeline.storage.locks import is_held, locked

WORK = "KERASLINE_WORK"


@dataclass(frozen=True)
class RemotePublished(Published):
    """A published execution, as listed in the remote root. `folder` is the place of its local copy.

    Attributes:
        name: its folder below the root.
        files: its remote files, by name in that folder.
    """

    remote: RemoteFolder
    name: str
    files: Mapping[str, RemoteFile]

    @property
    def place(self) -> str:
        return f"{self.remote}/{self.name}"

    def faults(self, output: str, names: Iterable[str] | None = None) -> Iterator[tuple[str, str]]:
        """Yield the files that differ, as for files on a disk. A file of unchanged size and version is not read."""
        files = self.outputs[output]["files"]
        for name in files if names is None else names:
            path, file, remote = f"{output}/{name}", files[name], self.files.get(f"{output}/{name}")
            if remote is None:
                yield name, f"{self.place}/{path} is missing"
            elif remote.size != file["size"]:
                yield name, f"{self.place}/{path} has {remote.size} bytes instead of {file['size']}"
            elif remote.version != file.get("version") and self.remote.digest(f"{self.name}/{path}") != file["sha256"]:
                yield name, f"{self.place}/{path} was changed"


class RemoteRoot(ArtifactRoot):
    """A root on a remote file system. See the docstring of the module.

    Args:
        url: any URL that fsspec supports.

    Raises:
        ParameterError: fsspec does not know the kind of URL, or its library is not installed.
    """

    shared = True

    def __init__(self, url: str) -> None:
        self.remote = RemoteFolder(url)
        super().__init__(work_folder(self.remote.url))

    def __str__(self) -> str:
        return self.remote.url

    @property
    def place(self) -> str:
        return self.remote.url

    def check(self, beam_options: Sequence[str]) -> None:
        """Make one request, so that an unreachable root is reported before any work is done."""
        in_loop = any(option.endswith("LOOPBACK") for option in beam_options)  # alone or after --environment_type=
        if not runs_locally(beam_options) and not in_loop:
            raise ParameterError(
                f"--runner={runner_name(beam_options)}: its workers share a folder of shards, and {self} is none; "
                "set --root to a folder that all workers see, or pass --environment_type=LOOPBACK"
            )
        self.remote.list_names("artifacts")

    def is_run_alive(self, run_id: str) -> bool | None:
        lock = self.run_lock_file(run_id)
        return is_held(lock) if lock.exists() else None

    @property
    def outbox(self) -> Path:
        return self.path / "outbox"

    def candidates(self, pipeline: str, node: str, fingerprint: str) -> list[Published]:
        above = f"artifacts/{pipeline}/{node}"
        folders = _by_folder(self.remote.list_files(above, f"{fingerprint[:12]}-"))
        whole = [(name, files) for name, files in folders.items() if MANIFEST in files]
        whole.sort(key=lambda item: item[1][MANIFEST].modified or 0, reverse=True)
        found = [self._published(name, files) for name, files in whole]
        return [p for p in found if p is not None and p.fingerprint == fingerprint]

    def published_at(self, place: str) -> Published | None:
        name = place.removeprefix(f"{self.place}/")
        files = _by_folder(self.remote.list_files(name)).get(name, {})
        return self._published(name, files) if MANIFEST in files else None

    def publish(
        self, staging: Path, pipeline: str, component: Component, fingerprint: str, facts: Mapping[str, Any]
    ) -> Published:
        """Publish as on a disk. If the upload fails, the outputs stay in the outbox for the next run."""
        self._prepared(staging, pipeline, component, fingerprint, facts)
        box = self.outbox / pipeline / component.name / new_folder_name(fingerprint)
        move(staging, box)
        try:
            return self._upload(box)
        except RemoteError as error:
            raise RemoteError(
                f"{error} (the outputs are complete; run the same command again to upload them)"
            ) from error

    def finish(self, pipeline: str, node: str, fingerprint: str) -> None:
        for box in sorted((self.outbox / pipeline / node).glob(f"{fingerprint[:12]}-*")):
            finished = read_published(box)
            if finished is None or finished.broken():
                shutil.rmtree(box)
            elif finished.fingerprint == fingerprint:
                self._upload(box, resume=True)
                shutil.rmtree(self.state(node, fingerprint), ignore_errors=True)

    def local(self, place: str, *names: str) -> Path:
        """Return the local copy of an output, after downloading files that are missing or changed."""
        name, _, output = place.removeprefix(f"{self.place}/").rpartition("/")
        manifest = self._manifest(name)
        if manifest is None or output not in manifest["outputs"]:
            raise ArtifactError(f"{place} no longer exists; run the stage that produces it again")
        copy = published_from(self.path / name, manifest)
        files = copy.outputs[output]["files"]
        needed = [file for file in names if file in files] if names else list(files)
        if any(copy.faults(output, needed)):
            with locked(self.path / "locks" / f"fetch-{copy.folder.name}.lock"):
                self._fetch(copy, name, output, needed)
        (copy.folder / output).mkdir(parents=True, exist_ok=True)
        return copy.folder / output

    def exists(self, place: str) -> bool:
        """Return whether a published output still exists."""
        name, _, output = place.removeprefix(f"{self.place}/").rpartition("/")
        copy = read_published(self.path / name)
        if copy is not None and output in copy.outputs and not any(copy.faults(output)):
            return True
        return f"{name}/{MANIFEST}" in self.remote.list_files(name)

    def manifest(self, place: str) -> dict[str, Any] | None:
        """Return the manifest of a published folder, or None if there is no readable one."""
        return self._manifest(place.removeprefix(f"{self.place}/"))

    def folders(self) -> Iterator[Folder]:
        for name, files in _by_folder(self.remote.list_files("artifacts")).items():
            times = [file.modified for file in files.values() if file.modified is not None]
            yield Folder(
                f"{self.place}/{name}",
                sum(file.size for file in files.values()),
                MANIFEST in files,
                max(times) if len(times) == len(files) else None,
            )

    def copies(self) -> Iterator[tuple[str, Path]]:
        for path in sorted(self.artifacts.glob("*/*/*")):
            yield f"{self.place}/{path.relative_to(self.path).as_posix()}", path

    def remove(self, place: str) -> None:
        """Delete a published folder. It stops being published with its first object."""
        if not place.startswith(f"{self.place}/"):
            return super().remove(place)
        name = place.removeprefix(f"{self.place}/")
        self.remote.remove([f"{name}/{MANIFEST}"])
        self.remote.remove(self.remote.list_files(name))

    def keep_report(self, *files: Path) -> None:
        for file in files:
            self.remote.write(f"reports/{file.name}", file.read_bytes())

    def _upload(self, box: Path, *, resume: bool = False) -> Published:
        """Upload the files, then the manifest. Repeating an interrupted upload completes it."""
        name = f"artifacts/{box.relative_to(self.outbox).as_posix()}"
        manifest = json.loads((box / MANIFEST).read_text(encoding="utf-8"))
        files = {
            f"{output}/{file}": facts
            for output, described in manifest["outputs"].items()
            for file, facts in described["files"].items()
        }
        uploaded = self.remote.upload(box, files, name, resume=resume)
        for file, facts in files.items():
            if uploaded[file].version is not None:
                facts["version"] = uploaded[file].version
        text = manifest_text(manifest)
        _write(box / MANIFEST, text)
        self.remote.write(f"{name}/{MANIFEST}", text.encode())
        if (self.path / name).exists():  # a reader may have cached a listing between an earlier attempt and this one
            shutil.rmtree(box)
        else:
            move(box, self.path / name)
        published = published_from(self.path / name, manifest)
        return RemotePublished(**vars(published), remote=self.remote, name=name, files=uploaded)

    def _published(self, name: str, files: Mapping[str, RemoteFile]) -> Published | None:
        manifest = self._manifest(name, files[MANIFEST].size)
        try:
            published = None if manifest is None else published_from(self.path / name, manifest)
        except (KeyError, TypeError):
            return None
        return published and RemotePublished(**vars(published), remote=self.remote, name=name, files=files)

    def _manifest(self, name: str, size: int | None = None) -> dict[str, Any] | None:
        """Read the manifest, from a local copy of the same size if there is one. Manifests never change."""
        copy = self.path / name / MANIFEST
        manifest = read_manifest(copy.parent)
        if manifest is not None and size in (None, copy.stat().st_size):
            return manifest
        content = self.remote.read(f"{name}/{MANIFEST}")
        if content is None:
            return None
        _write(copy, content.decode())
        return read_manifest(copy.parent)

    def _fetch(self, copy: Published, name: str, output: str, needed: Iterable[str]) -> None:
        """Download files to a temporary folder, check and move them. The caller holds the lock of the copy."""
        facts = copy.outputs[output]["files"]
        temporary = self.staging / f"fetch-{copy.folder.name}"
        shutil.rmtree(temporary, ignore_errors=True)
        damaged = {file: temporary / file for file, _ in copy.faults(output, needed)}
        try:
            for path in damaged.values():
                if ".." in path.parts:  # not written by kerasline
                    raise ArtifactError(f"{self}/{name}/{MANIFEST} names a file outside its folder: {path}")
                path.parent.mkdir(parents=True, exist_ok=True)
            self.remote.download({f"{name}/{output}/{file}": path for file, path in damaged.items()})
            for file, path in damaged.items():
                if file_digest(path) != facts[file]["sha256"]:
                    raise ArtifactError(
                        f"{self}/{name}/{output}/{file} was changed since it was published; "
                        "run the stage that produced it again"
                    )
                os.utime(path, ns=(facts[file]["mtime_ns"],) * 2)
                fsync(path)
                (copy.folder / output / file).parent.mkdir(parents=True, exist_ok=True)
                path.replace(copy.folder / output / file)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def work_folder(url: str) -> Path:
    """Return the local folder of a remote root."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    above = Path(os.environ.get(WORK) or home / "kerasline")
    readable = re.sub(r"[^A-Za-z0-9.]+", "-", url.partition("://")[2]).strip("-")[-40:]
    return above / f"{readable}-{hashlib.sha256(url.encode()).hexdigest()[:8]}"


def _by_folder(files: Mapping[str, RemoteFile]) -> dict[str, dict[str, RemoteFile]]:
    """Group files by the folder of their execution: artifacts/PIPELINE/NODE/FINGERPRINT-ID."""
    folders: dict[str, dict[str, RemoteFile]] = {}
    for path, file in files.items():
        *above, rest = path.split("/", 4)
        if len(above) == 4:
            folders.setdefault("/".join(above), {})[rest] = file
    return folders


def _write(path: Path, text: str) -> None:
    """Write a file and the folders above it, so that a reader never sees a partial file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path, durable=True) as temporary:
        temporary.write_text(text, encoding="utf-8")
