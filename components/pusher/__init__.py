"""Pusher: folders of model versions, on disks and in object stores, that servers watch.

    DESTINATION/1780000000/          a complete version: a SavedModel and kerasline-digest.json
    DESTINATION/latest               the version to serve: a symbolic link on a disk, elsewhere a small file

MLflow's registry numbers its versions itself: see `kerasline.components.pusher.mlflow_registry`.
"""

from __future__ import annotations

from pathlib import Path

from kerasline.components.models.versions import Destination


def destination(place: str) -> Destination:
    """Return a destination for model versions.

    Args:
        place: a path, a URL that fsspec supports such as `s3://bucket/models`, or a model in MLflow's registry:
            `models:/NAME`, `mlflow+http://HOST:PORT/NAME`.

    Raises:
        ParameterError: the kind of URL is unknown, or its library is not installed.
        DataError: MLflow's server does not answer.
    """
    if place.startswith(("models:/", "mlflow+")):
        from kerasline.components.pusher.mlflow_registry import MlflowDestination

        return MlflowDestination.open(place)
    scheme, separator, rest = place.partition("://")
    if not separator or scheme in ("file", "local"):
        from kerasline.components.pusher.disk import DiskDestination

        return DiskDestination(Path(rest if separator else place).absolute())
    from kerasline.components.pusher.object_store import ObjectStoreDestination

    return ObjectStoreDestination.open(place)
