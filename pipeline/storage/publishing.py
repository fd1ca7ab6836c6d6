"""The artifact root: where a stage writes, how its outputs become visible, and whether they are whole.

    ROOT/staging/NODE-FINGERPRINT/               being written, by whoever holds the lock below
    ROOT/locks/FINGERPRINT.lock                  one worker on a fingerprint at a time
    ROOT/artifacts/PIPELINE/NODE/FINGERPRINT-ID/ published: a folder for each output, and
        execution.json                           the manifest: what it is, and each file's SHA-256

A single rename makes all outputs of an execution visible, so a published folder is always whole;
the manifest in it lets a run that died before it told the metadata store be taken up from there.

What others keep of a published folder or an output is its place, a text: here its absolute path, of a
remote root (`kerasline.pipeline.storage.remote_root`) its URL. Whoever reads one asks its root for it: `root.local(place)`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kerasline.components.core.component import Component
from kerasline.components.core.durable_files import sync, sync_tree
from kerasline.components.core.errors import ArtifactError
from kerasline.pipeline.storage.locks import is_held

MANIFEST = "execution.json"


@dataclass(frozen=True)
class Published:
    """A published execution, read from its manifest.

    Attributes:
        outputs: by output name: `{"type", "digest", "size_bytes", "files": {path: facts}}`.
    """

    folder: Path
    fingerprint: str
    metrics: Mapping[str, Any]
    outputs: Mapping[str, Mapping[str, Any]]

    @property
    def place(self) -> str:
        """Where it is for everybody: a path, or an URL."""
        return str(self.folder)

    def broken(self) -> str | None:
        """What is missing or changed since publication, or None where all is whole."""
        return next((why for output in self.outputs for _, why in self.faults(output)), None)

    def faults(self, output: str, names: Iterable[str] | None = None) -> Iterator[tuple[str, str]]:
        """The files of an output, all or those named, that are not as they were published, and why.

        As git does, a file of unchanged size and time of change is taken as unchanged, any other
        is read and hashed.
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
        whole: False where it has no manifest, so that nobody sees it.
        modified: when it was last written, in seconds since 1970; None where that is not known.
    """

    place: str
    size_bytes: int
    whole: bool = True
    modified: float | None = None


def root_of(place: str | Path) -> ArtifactRoot:
    """The root at a path or an URL that fsspec knows, such as `s3://bucket/prefix`.

    Raises:
        ParameterError: there is no such kind of URL, or its library is not installed.
    """
    scheme, separator, rest = str(place).partition("://")
    if not separator:
        return ArtifactRoot(place)
    if scheme in ("file", "local"):
        return ArtifactRoot(rest)
    from kerasline.pipeline.storage.remote_root import RemoteRoot

    return RemoteRoot(str(place))


def local(place: str, *names: str) -> Path:
    """The folder of a published output on this machine's disk, whichever root it is of.

    Args:
        names: the files of it that must be there; all by default.

    Raises:
        ArtifactError: the output is gone.
        RemoteError: it cannot be fetched.
    """
    return _root_holding(place).local(place, *names) if "://" in place else Path(place)


class ArtifactRoot:
    """The folder of a pipeline root that holds artifacts, staging and locks.

    Args:
        path: the pipeline root.
    """

    # Whether hosts that know nothing of each other may use it.
    shared = False

    def __init__(self, path: str | Path) -> None:
        self.given = Path(path)
        self.path = self.given.absolute()

    def __str__(self) -> str:
        return str(self.given)

    @property
    def place(self) -> str:
        """What it is called in the metadata store."""
        return str(self.path)

    def check(self, beam_options: Sequence[str]) -> None:
        """Whether a run with these options can begin here.

        Raises:
            KeraslineError: it cannot, and why.
        """

    def is_run_alive(self, run_id: str) -> bool | None:
        """Whether a process of this host works on a run; None where the run may be another host's alone."""
        return is_held(self.run_lock_file(run_id))

    def lock_file(self, fingerprint: str) -> Path:
        return self.path / "locks" / f"{fingerprint[:32]}.lock"

    def run_lock_file(self, run_id: str) -> Path:
        return self.path / "locks" / f"run-{run_id}.lock"

    @property
    def use_lock_file(self) -> Path:
        """Held shared by runs, and alone by whoever removes published folders."""
        return self.path / "locks" / "use.lock"

    def log_file(self, run_id: str) -> Path:
        return self.path / "logs" / f"{run_id}.log"

    @property
    def reports(self) -> Path:
        """As the user gave the root: for the screen."""
        return self.given / "reports"

    def new_staging(self, node: str, fingerprint: str) -> Path:
        """An empty folder to write in. Call it with the fingerprint's lock held: what a dead
        process left there is removed."""
        staging = self.staging / f"{node}-{fingerprint[:32]}"
        if staging.exists():
            shutil.rmtree(staging)
        staging.mkdir(parents=True)
        return staging

    @property
    def staging(self) -> Path:
        return self.path / "staging"

    def state(self, node: str, fingerprint: str) -> Path:
        """Where a work that takes long keeps how far it got, from one process to the next."""
        return self.states / f"{node}-{fingerprint[:32]}"

    @property
    def states(self) -> Path:
        return self.path / "state"

    @property
    def cache(self) -> Path:
        """Partial results of components, by content: `COMPONENT/WHAT/PART`."""
        return self.path / "cache"

    @property
    def artifacts(self) -> Path:
        return self.path / "artifacts"

    def candidates(self, pipeline: str, node: str, fingerprint: str) -> list[Published]:
        """The published executions of a fingerprint, the newest first."""
        folder = self.artifacts / pipeline / node
        found = sorted(folder.glob(f"{fingerprint[:12]}-*"), key=_mtime, reverse=True)
        published = [read_published(path) for path in found]
        return [p for p in published if p is not None and p.fingerprint == fingerprint]

    def finish(self, pipeline: str, node: str, fingerprint: str) -> None:
        """Completes a publication that was cut off. Call it with the fingerprint's lock held."""

    def publish(
        self,
        staging: Path,
        pipeline: str,
        component: Component,
        fingerprint: str,
        facts: Mapping[str, Any],
    ) -> Published:
        """Makes the outputs in `staging` visible, all at once and for good.

        Args:
            facts: what the manifest says besides: parameters, metrics, seconds.
        """
        published = self._prepared(staging, pipeline, component, fingerprint, facts)
        final = self.artifacts / pipeline / component.name / new_folder_name(fingerprint)
        move(staging, final)
        return replace(published, folder=final)

    def local(self, place: str, *names: str) -> Path:
        """See the function `local`."""
        return local(place, *names)

    def holds(self, place: str) -> bool:
        """Whether a published output is still there."""
        return _root_holding(place).holds(place) if "://" in place else Path(place).is_dir()

    def fault(self, place: str) -> str | None:
        """What is missing or changed of a published output; of a remote one None, for fetching it tells."""
        if "://" in place:
            return None
        folder, _, output = place.rpartition("/")
        published = read_published(Path(folder))
        if published is None or output not in published.outputs:
            return f"{place} is missing"
        return next((why for _, why in published.faults(output)), None)

    def manifest(self, place: str) -> dict[str, Any] | None:
        """What the manifest of a published folder says; None where there is none that can be read."""
        return _root_holding(place).manifest(place) if "://" in place else read_manifest(Path(place))

    def folders(self) -> Iterator[Folder]:
        """All that was published."""
        for path in sorted(self.artifacts.glob("*/*/*")):
            yield Folder(str(path), size_of(path))

    def copies(self) -> Iterator[tuple[str, Path]]:
        """Published folders, by place, of which there are copies on this machine's disk."""
        return iter(())

    def remove(self, place: str) -> None:
        """Removes a published folder, or any other of the root's."""
        shutil.rmtree(place)

    def keep_report(self, *files: Path) -> None:
        """Lays a run's report where others find it too."""

    def _prepared(
        self, staging: Path, pipeline: str, component: Component, fingerprint: str, facts: Mapping[str, Any]
    ) -> Published:
        """Writes the manifest of the outputs in `staging`, and is sure that they are on the disk."""
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
        sync_tree(staging)
        return Published(staging, fingerprint, manifest["metrics"], outputs)


def new_folder_name(fingerprint: str) -> str:
    return f"{fingerprint[:12]}-{uuid.uuid4().hex[:8]}"


def move(folder: Path, to: Path) -> None:
    """Renames a folder that is on the disk, and is sure that the new name is."""
    to.parent.mkdir(parents=True, exist_ok=True)
    folder.rename(to)
    sync(to.parent)


def read_published(folder: Path) -> Published | None:
    """The published execution in a folder; None where there is none that can be read."""
    manifest = read_manifest(folder)
    try:
        return None if manifest is None else published_in(folder, manifest)
    except (KeyError, TypeError):
        return None


def published_in(folder: Path, manifest: Mapping[str, Any]) -> Published:
    return Published(folder, *(manifest[key] for key in ("fingerprint", "metrics", "outputs")))


def read_manifest(folder: Path) -> dict[str, Any] | None:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) else None


def manifest_text(manifest: Mapping[str, Any]) -> str:
    return json.dumps(manifest, indent=1, default=str) + "\n"


def file_digest(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal; memory stays flat."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        buffer = memoryview(bytearray(1 << 20))
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()


def _facts(path: Path) -> dict[str, Any]:
    status = path.stat()
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": file_digest(path)}


def _digest_of(files: Mapping[str, Mapping[str, Any]]) -> str:
    """A folder's digest: the SHA-256 over its files' names and digests."""
    lines = [f"{name}\0{facts['sha256']}\n" for name, facts in sorted(files.items())]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _root_holding(place: str) -> ArtifactRoot:
    """The remote root below which an artifact lies: ROOT/artifacts/PIPELINE/NODE/FINGERPRINT-ID/OUTPUT."""
    root, separator, _ = place.rpartition("/artifacts/")
    if not separator:
        raise ArtifactError(f"{place}: not the place of an artifact")
    return root_of(root)


def _mtime(path: Path) -> int:
    return path.stat().st_mtime_ns
