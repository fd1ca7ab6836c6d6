"""The artifact root: where stages write, how their outputs become visible, and how damage is detected.

    ROOT/staging/NODE-FINGERPRINT/               written by the holder of the lock below
    ROOT/locks/FINGERPRINT.lock                  one worker per fingerprint at a time
    ROOT/artifacts/PIPELINE/NODE/FINGERPRINT-ID/ published: a folder for each output, and
        execution.json                           the manifest, with the SHA-256 of each file

A single rename makes all outputs of an execution visible, so a published folder is always complete. If a run dies
before it records the execution in the metadata store, the next run recovers it from the manifest.

The metadata store identifies a published folder or output by its place: an absolute path here, a URL for a remote
root. `kerasline.pipeline.storage.roots` reads outputs by their place.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kerasline.components.core.atomic_files import file_digest, fsync, fsync_tree
from kerasline.components.core.component import Component
from kerasline.components.core.errors import KeraslineError
from kerasline.components.core.json_files import read_object
from kerasline.pipeline.storage.locks import is_held

MANIFEST = "execution.json"


@dataclass(frozen=True)
class Published:
    """A published execution, as its manifest describes it.

    Attributes:
        outputs: for each output name, `{"type", "digest", "size_bytes", "files": {path: facts}}`.
        undeclared_files: files that functions of the user read, although they are not declared as inputs. See
            `kerasline.pipeline.undeclared_files`.
    """

    folder: Path
    fingerprint: str
    metrics: Mapping[str, Any]
    outputs: Mapping[str, Mapping[str, Any]]
    undeclared_files: Mapping[str, str]

    @property
    def place(self) -> str:
        """The absolute path or URL of the folder."""
        return str(self.folder)

    def broken(self) -> str | None:
        """Return what is missing or changed since publication, or None if nothing is."""
        return next((reason for output in self.outputs for _, reason in self.faults(output)), None)

    def faults(self, output: str, names: Iterable[str] | None = None) -> Iterator[tuple[str, str]]:
        """Yield each file of an output that differs from what was published, and what differs.

        A file with unchanged size and modification time counts as unchanged, as in git. Any other file is hashed.

        Args:
            output: name of the output.
            names: the files to check; all by default.
        """
        files = self.outputs[output]["files"]
        for name in files if names is None else names:
            path, file = self.folder / output / name, files[name]
            try:
                status = path.stat()
            except OSError:
                yield name, f"{path} is missing"
                continue
            if status.st_size != file["size"]:
                yield name, f"{path} has {status.st_size} bytes instead of {file['size']}"
            elif status.st_mtime_ns != file["mtime_ns"] and file_digest(path) != file["sha256"]:
                yield name, f"{path} was changed"


@dataclass(frozen=True)
class Folder:
    """A folder below the root's `artifacts/`.

    Attributes:
        complete: False if it has no manifest, so that it is invisible.
        modified: time of the last write in seconds since 1970, or None if unknown.
    """

    place: str
    size_bytes: int
    complete: bool = True
    modified: float | None = None


class ArtifactRoot:
    """The folder of a pipeline root that holds artifacts, staging and locks.

    Args:
        path: the pipeline root.
    """

    # Whether several hosts may use the root independently of each other.
    shared = False

    def __init__(self, path: str | Path) -> None:
        self.given = Path(path)
        self.path = self.given.absolute()

    def __str__(self) -> str:
        return str(self.given)

    @property
    def place(self) -> str:
        """The name of the root in the metadata store: its absolute path or URL."""
        return str(self.path)

    def check(self, beam_options: Sequence[str]) -> None:
        """Check that a run with these Beam options can use the root.

        Raises:
            KeraslineError: it cannot.
        """

    def is_run_alive(self, run_id: str) -> bool | None:
        """Return whether a process on this host works on a run, or None if only another host may know."""
        return is_held(self.run_lock_file(run_id))

    def lock_file(self, fingerprint: str) -> Path:
        return self.path / "locks" / f"{fingerprint[:32]}.lock"

    def run_lock_file(self, run_id: str) -> Path:
        return self.path / "locks" / f"run-{run_id}.lock"

    @property
    def use_lock_file(self) -> Path:
        """A lock that runs share, and that garbage collection holds exclusively."""
        return self.path / "locks" / "use.lock"

    def log_file(self, run_id: str) -> Path:
        return self.path / "logs" / f"{run_id}.log"

    def new_log_file(self, run_id: str) -> Path:
        """Create the log file of a run, unless it exists.

        Raises:
            KeraslineError: the root cannot be written.
        """
        log = self.log_file(run_id)
        with self.explained():
            log.parent.mkdir(parents=True, exist_ok=True)
            log.touch()
        return log

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """Turn an OSError of the block into a KeraslineError that names the root."""
        try:
            yield
        except OSError as error:
            raise KeraslineError(f"--root {self}: {error.strerror}: {error.filename}") from error

    def report_file(self, run_id: str) -> Path:
        """Return the HTML report of a run, relative if the user gave the root so."""
        return self.given / "reports" / f"{run_id}.html"

    def new_staging(self, node: str, fingerprint: str) -> Path:
        """Create an empty folder to write to, and remove what a dead process left there.

        The caller holds the lock of the fingerprint.
        """
        staging = self.staging / f"{node}-{fingerprint[:32]}"
        if staging.exists():
            shutil.rmtree(staging)
        staging.mkdir(parents=True)
        return staging

    @property
    def staging(self) -> Path:
        return self.path / "staging"

    def state(self, node: str, fingerprint: str) -> Path:
        """Return the folder in which a long stage keeps its progress between processes."""
        return self.states / f"{node}-{fingerprint[:32]}"

    @property
    def states(self) -> Path:
        return self.path / "state"

    @property
    def cache(self) -> Path:
        """Partial results of components, by content."""
        return self.path / "cache"

    @property
    def artifacts(self) -> Path:
        return self.path / "artifacts"

    @property
    def folders_of_stages(self) -> list[Path]:
        """The folders in which stages read and write."""
        return [self.artifacts, self.staging, self.states, self.cache]

    def candidates(self, pipeline: str, node: str, fingerprint: str) -> list[Published]:
        """Return the published executions of a fingerprint, newest first."""
        folder = self.artifacts / pipeline / node
        found = sorted(folder.glob(f"{fingerprint[:12]}-*"), key=_mtime, reverse=True)
        published = [read_published(path) for path in found]
        return [p for p in published if p is not None and p.fingerprint == fingerprint]

    def published_at(self, place: str) -> Published | None:
        """Return the execution published at a place of this root, or None if there is none."""
        return read_published(Path(place))

    def finish(self, pipeline: str, node: str, fingerprint: str) -> None:
        """Complete an interrupted publication. The caller holds the lock of the fingerprint."""

    def publish(
        self,
        staging: Path,
        pipeline: str,
        component: Component,
        fingerprint: str,
        facts: Mapping[str, Any],
    ) -> Published:
        """Publish the outputs in `staging`, all at once.

        Args:
            facts: further entries of the manifest: parameters, metrics, environment.
        """
        published = self._prepared(staging, pipeline, component, fingerprint, facts)
        final = self.artifacts / pipeline / component.name / new_folder_name(fingerprint)
        move(staging, final)
        return replace(published, folder=final)

    def folders(self) -> Iterator[Folder]:
        """Yield all published folders."""
        for path in sorted(self.artifacts.glob("*/*/*")):
            yield Folder(str(path), size_of(path))

    def copies(self) -> Iterator[tuple[str, Path]]:
        """Yield the place and the local copy of each remote folder that has one."""
        return iter(())

    def remove(self, place: str) -> None:
        """Remove a published folder, or another folder of the root."""
        shutil.rmtree(place)

    def keep_report(self, *files: Path) -> None:
        """Upload the report of a run, if the root is remote."""

    def _prepared(
        self, staging: Path, pipeline: str, component: Component, fingerprint: str, facts: Mapping[str, Any]
    ) -> Published:
        """Write the manifest of the outputs in `staging`, and flush all files to disk."""
        outputs = {}
        for name, kind in type(component).spec().outputs.items():
            files = {str(f.relative_to(staging / name)): _facts(f) for f in _files(staging / name)}
            outputs[name] = {
                "type": kind.__name__,
                "digest": _digest_of(files),
                "size_bytes": sum(file["size"] for file in files.values()),
                "files": files,
            }
        manifest = {
            "pipeline": pipeline,
            "node": component.name,
            "fingerprint": fingerprint,
            **facts,
            "outputs": outputs,
        }
        (staging / MANIFEST).write_text(manifest_text(manifest), encoding="utf-8")
        fsync_tree(staging)
        return published_from(staging, manifest)


def new_folder_name(fingerprint: str) -> str:
    return f"{fingerprint[:12]}-{uuid.uuid4().hex[:8]}"


def move(folder: Path, to: Path) -> None:
    """Rename a folder, and flush the new directory entry to disk."""
    to.parent.mkdir(parents=True, exist_ok=True)
    folder.rename(to)
    fsync(to.parent)


def read_published(folder: Path) -> Published | None:
    """Read the published execution in a folder. Return None if it has no readable manifest."""
    manifest = read_manifest(folder)
    try:
        return None if manifest is None else published_from(folder, manifest)
    except (KeyError, TypeError):
        return None


def published_from(folder: Path, manifest: Mapping[str, Any]) -> Published:
    fingerprint, metrics, outputs = (manifest[key] for key in ("fingerprint", "metrics", "outputs"))
    return Published(folder, fingerprint, metrics, outputs, manifest.get("undeclared_files", {}))


def read_manifest(folder: Path) -> dict[str, Any] | None:
    return read_object(folder / MANIFEST) or None


def manifest_text(manifest: Mapping[str, Any]) -> str:
    return json.dumps(manifest, indent=1, default=_as_json) + "\n"


def _as_json(value: Any) -> Any:
    """Return a value that JSON does not have: the fields of a pydantic model that are set, or else a text."""
    return value.model_dump(by_alias=True, exclude_defaults=True) if hasattr(value, "model_dump") else str(value)


def file_state(status: os.stat_result) -> str:
    """Return a text that differs after any change of the file: its size, inode, modification and change time.

    A program can reset the modification time. The kernel sets the change time.
    """
    return f"{status.st_size} {status.st_ino} {status.st_mtime_ns} {status.st_ctime_ns}"


def _facts(path: Path) -> dict[str, Any]:
    status = path.stat()
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": file_digest(path)}


def _digest_of(files: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the SHA-256 of the names and digests of the files."""
    lines = [f"{name}\0{facts['sha256']}\n" for name, facts in sorted(files.items())]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _mtime(path: Path) -> int:
    return path.stat().st_mtime_ns
