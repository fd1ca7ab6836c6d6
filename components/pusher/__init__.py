"""Folders of model versions, on disks and in object stores, where servers look for what they serve.

    DESTINATION/1780000000/          a version, whole: a SavedModel and kerasline-digest.json
    DESTINATION/latest               which version is to be served: a symbolic link on a disk, else a small file

MLflow's registry has versions of its own, which `kerasline.components.pusher.mlflow_registry` makes.
"""

from __future__ import annotations

from pathlib import Path

from kerasline.components.models.versions import Destination


def destination(place: str) -> Destination:
    """The folder of versions at a path or an URL that fsspec knows, such as `s3://bucket/models`, or a model of
    MLflow's registry: `models:/NAME`, `mlflow+http://HOST:PORT/NAME`.

    Raises:
        ParameterError: there is no such kind of URL, or its library is not installed.
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
