"""The artifact root: where a stage writes, how its outputs become visible, and whether they are whole.

    ROOT/staging/NODE-FINGERPRINT/               being written, by whoever holds the lock below
    ROOT/locks/FINGERPRINT.lock                  one worker on a fingerprint at a time
    ROOT/artifacts/PIPELINE/NODE/FINGERPRINT-ID/ published: a folder for each output, and
        execution.json                           the manifest: what it is, and each file's SHA-256

A single rename makes all outputs of an execution visible, so a published folder is always whole;
the manifest in it lets a run that died before it told the metadata store be taken up from there.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.base import Component
from components.syncing import sync, sync_tree

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

    def broken(self) -> str | None:
        """What is missing or changed since publication, or None where all is whole.

        As git does, a file of unchanged size and time of change is taken as unchanged, any other
        is read and hashed.
        """
        for output, facts in self.outputs.items():
            for name, file in facts["files"].items():
                path = self.folder / output / name
                try:
                    status = path.stat()
                except OSError:
                    return f"{path} is missing"
                if status.st_size != file["size"]:
                    return f"{path} has {status.st_size} bytes instead of {file['size']}"
                if status.st_mtime_ns != file["mtime_ns"] and file_digest(path) != file["sha256"]:
                    return f"{path} was changed"
        return None


class ArtifactRoot:
    """The folder of a pipeline root that holds artifacts, staging and locks.

    Args:
        path: the pipeline root.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()

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
        text = json.dumps(manifest, indent=1, default=str)
        (staging / MANIFEST).write_text(text + "\n", encoding="utf-8")
        sync_tree(staging)
        final = self.artifacts / pipeline / component.name / f"{fingerprint[:12]}-{uuid.uuid4().hex[:8]}"
        final.parent.mkdir(parents=True, exist_ok=True)
        staging.rename(final)
        sync(final.parent)
        return Published(final, fingerprint, manifest["metrics"], outputs)


def read_published(folder: Path) -> Published | None:
    """The published execution in a folder; None where there is none that can be read."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        facts = (manifest[key] for key in ("fingerprint", "metrics", "outputs"))
        return Published(folder, *facts)
    except (OSError, ValueError, KeyError, TypeError):
        return None


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


def _mtime(path: Path) -> int:
    return path.stat().st_mtime_ns
