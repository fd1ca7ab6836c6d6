"""Open the artifact root at a path or URL, and read published outputs wherever they are.

The place of a published output is its absolute path or its URL. Both determine the root that holds it, so these
functions also read outputs of other roots that share the metadata store.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kerasline.components.core.errors import ArtifactError
from kerasline.pipeline.storage.artifact_root import ArtifactRoot, read_manifest, read_published
from kerasline.pipeline.storage.remote_root import RemoteRoot


def root_of(place: str | Path) -> ArtifactRoot:
    """Open the root at a path or at a URL that fsspec supports, such as `s3://bucket/prefix`.

    Raises:
        ParameterError: the scheme of the URL is unknown, or its library is not installed.
    """
    scheme, separator, rest = str(place).partition("://")
    if not separator:
        return ArtifactRoot(place)
    return ArtifactRoot(rest) if scheme in ("file", "local") else RemoteRoot(str(place))


def local(place: str, *names: str) -> Path:
    """Return the local folder of a published output, after downloading what is missing.

    Args:
        place: the output, as the metadata store records it.
        names: the files that are needed; all by default.

    Raises:
        ArtifactError: the output no longer exists.
        RemoteError: it cannot be downloaded.
    """
    return _remote_root(place).local(place, *names) if "://" in place else Path(place)


def exists(place: str) -> bool:
    """Return whether a published output still exists."""
    return _remote_root(place).exists(place) if "://" in place else Path(place).is_dir()


def manifest(place: str) -> dict[str, Any] | None:
    """Return the manifest of a published execution, or None if there is no readable one."""
    return _remote_root(place).manifest(place) if "://" in place else read_manifest(Path(place))


def fault(place: str) -> str | None:
    """Return what is missing or changed in a published output, or None.

    Remote outputs are verified when they are downloaded, so for them the result is None.
    """
    if "://" in place:
        return None
    folder, _, output = place.rpartition("/")
    published = read_published(Path(folder))
    if published is None or output not in published.outputs:
        return f"{place} is missing"
    return next((reason for _, reason in published.faults(output)), None)


def _remote_root(place: str) -> RemoteRoot:
    """Return the root of ROOT/artifacts/PIPELINE/NODE/FINGERPRINT-ID/OUTPUT."""
    root, separator, _ = place.rpartition("/artifacts/")
    if not separator:
        raise ArtifactError(f"{place}: expected the URL of an artifact, with '/artifacts/' in it")
    return RemoteRoot(root)
