"""Pusher: a blessed model becomes the next version in a folder that servers watch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from annotated_types import Gt

from kerasline.components.core.artifacts import Blessing, PushedModel, SavedModel
from kerasline.components.core.component import Component, Context, Input, Output, Parameter
from kerasline.components.core.errors import DataError, StageSkipped


class Pusher(Component):
    """Copies a SavedModel to `destination/VERSION`, whole or not at all, and points `latest` to it.

    A version is the time in seconds, or one more than the newest, and is never written twice. Pushing the model
    that is the newest version already pushes nothing, so that a repeated push makes no second copy; and one that
    another model was pushed after is pushed again when its run is repeated. Where somebody rolled back, that stays.

    Parameters:
        destination: the folder of versions, as TensorFlow Serving watches it: a path, or an URL that fsspec
            knows, such as `s3://bucket/models` (its library takes keys and addresses from the environment), or a
            model of MLflow's registry, `models:/NAME` or `mlflow+http://HOST:PORT/NAME`.
        keep: how many of the newest versions stay; without it all do. The one that `latest` points to always stays.

    Raises:
        StageSkipped: the model was refused.
        DataError: the destination cannot be written.
        ParameterError: there is no such kind of destination.
    """

    saved_model: Input[SavedModel]
    blessing: Input[Blessing] = None
    infra_blessing: Input[Blessing] = None
    pushed: Output[PushedModel]
    destination: Parameter[str]
    keep: Parameter[Annotated[int, Gt(0)] | None] = None

    def run(self, inputs: Any, outputs: Any, context: Context) -> Mapping[str, Any]:
        from kerasline.components.pusher import destination

        verdicts = [verdict for verdict in (inputs.blessing, inputs.infra_blessing) if verdict is not None]
        if not all(verdict.blessed for verdict in verdicts):
            raise StageSkipped(f"model refused: {'; '.join(why for v in verdicts for why in v.refusals())}")
        target = destination(self.destination)
        try:
            version = target.push(inputs.saved_model.path, self.keep)
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
            return f"the pushed model {facts['path']} is gone"
        if version not in (versions[-1], target.latest()):
            return f"version {versions[-1]} was pushed after the {version} of this model"
        return None
