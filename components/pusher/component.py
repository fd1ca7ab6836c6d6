"""Pusher: publish a blessed model as the next version in a folder that servers watch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kerasline.components.core.artifacts import Blessing, PushedModel, SavedModel
from kerasline.components.core.component import Component, Context, Input, Output, Parameters
from kerasline.components.core.errors import DataError, StageSkipped
from kerasline.components.core.parameters import PositiveInt


@dataclass(frozen=True, kw_only=True)
class PusherSettings:
    """The parameters of Pusher, which documents them."""

    destination: str
    keep: PositiveInt | None = None


class Pusher(Component):
    """Copy a SavedModel atomically to `destination/VERSION`, and point `latest` to it.

    A version number is the time in seconds, or one more than the newest version, and is never reused. A model that is
    already the newest version is not copied again. If another model was pushed after it, repeating its run pushes it
    again. After a rollback, repeating the run changes nothing.

    Args:
        destination: str, folder of versions in the layout of TensorFlow Serving: a path, a URL that fsspec supports,
            such as `s3://bucket/models` (its library reads credentials from the environment), or a model in MLflow's
            registry, `models:/NAME` or `mlflow+http://HOST:PORT/NAME`.
        keep: int or None, number of newest versions to keep. The version that `latest` points to is always kept.
            Defaults to None, all versions.

    Raises:
        StageSkipped: the model was refused.
        DataError: the destination cannot be written.
        ParameterError: the kind of destination is not supported.

    Example:

    >>> _ = (folder / "model").mkdir()
    >>> _ = (folder / "model" / "saved_model.pb").write_bytes(b"")
    >>> stage = kl.Pusher(kl.SavedModel(folder / "model"), destination=str(folder / "served"))
    >>> version = stage.execute(folder / "pushed").metrics["version"]
    >>> sorted(path.name for path in (folder / "served" / version).iterdir())
    ['kerasline-digest.json', 'saved_model.pb']
    """

    saved_model: Input[SavedModel]
    blessing: Input[Blessing] = None
    infra_blessing: Input[Blessing] = None
    pushed: Output[PushedModel]
    settings: Parameters[PusherSettings]

    def check_machine(self) -> None:
        from kerasline.components.pusher import destination

        destination(self.settings.destination)

    def run(self, inputs: Any, outputs: Any, context: Context) -> Mapping[str, Any]:
        from kerasline.components.pusher import destination

        verdicts = [verdict for verdict in (inputs.blessing, inputs.infra_blessing) if verdict is not None]
        if not all(verdict.blessed for verdict in verdicts):
            raise StageSkipped(f"model refused: {'; '.join(why for v in verdicts for why in v.refusals())}")
        target = destination(self.settings.destination)
        try:
            version = target.push(inputs.saved_model.path, self.settings.keep)
        except DataError as error:
            raise DataError(f"{self.name}.destination {error}") from error
        facts = {"destination": str(target), "version": version, "path": target.where(version)}
        outputs.pushed.write_json(PushedModel.FILE, facts)
        return {"version": str(version), "path": facts["path"]}

    def stale(self, outputs: Any) -> str | None:
        from kerasline.components.pusher import destination

        facts = outputs.pushed.read_json(PushedModel.FILE)
        target, version = destination(facts["destination"]), facts["version"]
        versions = target.versions()
        if version not in versions:
            return f"the pushed model {facts['path']} no longer exists"
        if version not in (versions[-1], target.latest()):
            return f"version {versions[-1]} was pushed after version {version} of this model"
        return None
