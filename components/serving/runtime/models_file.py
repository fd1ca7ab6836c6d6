"""The configuration of several models: a file of `serve --models`, or a request to reload."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt

from kerasline.components.core.errors import KeraslineError, ParameterError, check_known
from kerasline.components.core.parameters import parse_value
from kerasline.components.serving.runtime.messages import model_server_config
from kerasline.components.serving.runtime.model_folders import check_sources
from kerasline.components.serving.runtime.settings import (
    Batching,
    BatchSettings,
    ModelDefaults,
    ModelSource,
    check_names,
)

PLATFORM = "tensorflow"
# Keys of a model in TOML, named as the options of `serve`, with their types.
_KEYS: dict[str, Any] = {
    "path": str,
    "versions": Literal["all"] | list[Annotated[int, Ge(1)]],
    "keep": Annotated[int, Ge(1)],
    "labels": dict[str, int],
    "batching": Batching,
    "batch_rows": Annotated[int, Ge(1)],
    "batch_delay": Annotated[float, Ge(0)],
    "queue": Annotated[int, Ge(1)],
    "executors": Annotated[int, Ge(1)],
    "slots": Annotated[int, Ge(1)],
    "timeout": Annotated[float, Gt(0)],
}
_BATCH_FIELDS = {"batching": "mode", "batch_rows": "rows", "timeout": "timeout_seconds"}


class ModelsFile:
    """A file that names models: TOML if its name ends in `.toml`, otherwise TensorFlow Serving's ModelServerConfig.

    Args:
        path: the file. Relative paths in it begin at its folder.
        defaults: settings of models that have none of their own.
    """

    def __init__(self, path: Path, defaults: ModelDefaults):
        self.path, self._defaults = path.absolute(), defaults
        self._stamp: tuple[int, int, int] | None = None

    def has_changed(self) -> bool:
        """Return whether the file has changed since `read` was called."""
        return self._current_stamp() != self._stamp

    def read(self) -> tuple[ModelSource, ...]:
        """Return the models. Their folders exist and have the versions that the file names.

        Raises:
            ParameterError: the file cannot be read, is malformed, or names no model.
            ArtifactError: a folder contains no SavedModel, or not a version that the file names.
        """
        self._stamp = self._current_stamp()
        try:
            text = self.path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ParameterError(f"{self.path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
        sources = self._from_toml(text) if self.path.suffix == ".toml" else self._from_proto(text)
        return _checked(sources, str(self.path))

    def _current_stamp(self) -> tuple[int, int, int] | None:
        try:
            stat = self.path.stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_size, stat.st_ino

    def _from_toml(self, text: str) -> tuple[ModelSource, ...]:
        try:
            tables = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ParameterError(f"{self.path}: {error}") from error
        check_known(str(self.path), "expected the table models, received", tables, ("models",))
        models = tables.get("models")
        if not isinstance(models, dict) or not models:
            raise ParameterError(f"{self.path}: no model; expected a table for each, such as [models.half]")
        return tuple(self._from_table(name, table) for name, table in models.items())

    def _from_table(self, name: str, table: Any) -> ModelSource:
        where = f"{self.path}: models.{name}"
        if not isinstance(table, dict):
            raise ParameterError(f"{where}: expected a table, received {table!r}")
        check_known(where, "unknown key", table, _KEYS)
        values = {key: parse_value(f"{where}.{key}", _KEYS[key], value) for key, value in table.items()}
        if "path" not in values:
            raise ParameterError(f"{where}: path is missing, the folder of the model's versions")
        versions = values.get("versions")
        if versions is not None and "keep" in values:
            raise ParameterError(f"{where}: expected keep or versions, received both")
        return ModelSource(
            name,
            self.path.parent / values["path"],
            labels=values.get("labels", {}),
            keep=None if versions else values.get("keep", self._defaults.keep),
            only=() if versions in (None, "all") else tuple(versions),
            batch=self._batch_settings(values),
        )

    def _batch_settings(self, values: Mapping[str, Any]) -> BatchSettings:
        changes = {_BATCH_FIELDS.get(key, key): value for key, value in values.items()}
        if "batch_delay" in values:
            changes["delay_seconds"] = values["batch_delay"] / 1e3
        known = {field.name for field in fields(BatchSettings)}
        return replace(self._defaults.batch, **{key: value for key, value in changes.items() if key in known})

    def _from_proto(self, text: str) -> tuple[ModelSource, ...]:
        from google.protobuf import text_format

        config = model_server_config()()
        try:
            text_format.Parse(text, config)
        except text_format.ParseError as error:
            place = f"line {error.GetLine()}, column {error.GetColumn()}: " if error.GetLine() else ""
            message = str(error).rpartition(" : ")[2]
            raise ParameterError(f"{self.path}: {place}{message}") from error
        return _sources(config, str(self.path), self.path.parent, self._defaults)


def read_message(config: Any, defaults: ModelDefaults) -> tuple[ModelSource, ...]:
    """Return the models of a ModelServerConfig from a client. Raise as `ModelsFile.read` does."""
    return _checked(_sources(config, "config", None, defaults), "config")


def _checked(sources: tuple[ModelSource, ...], where: str) -> tuple[ModelSource, ...]:
    try:
        check_names(sources)
        check_sources(sources)
    except KeraslineError as error:
        raise type(error)(f"{where}: {str(error).removeprefix('serve: ')}") from error
    return sources


def _sources(config: Any, where: str, folder: Path | None, defaults: ModelDefaults) -> tuple[ModelSource, ...]:
    """Return the models of a ModelServerConfig.

    Args:
        where: what to name in errors.
        folder: where relative paths begin; None refuses them.
        defaults: settings of models that have none of their own.

    Raises:
        ParameterError: the configuration names no model, or has something that is not supported.
    """
    if config.WhichOneof("config") == "custom_model_config":
        raise ParameterError(f"{where}: custom_model_config is not supported; expected model_config_list")
    if not config.model_config_list.config:
        raise ParameterError(f'{where}: no model; expected model_config_list {{ config {{ name: "half" ... }} }}')
    sources: list[ModelSource] = []
    for one in config.model_config_list.config:
        place = f"{where}: model {one.name or len(sources) + 1}"
        if one.model_platform not in ("", PLATFORM):
            raise ParameterError(f"{place}: model_platform: expected {PLATFORM!r}, received {one.model_platform!r}")
        if not one.base_path:
            raise ParameterError(f"{place}: base_path is missing, the folder of the model's versions")
        path = Path(one.base_path)
        if folder is None and not path.is_absolute():
            raise ParameterError(f"{place}: base_path: expected an absolute path, received {one.base_path!r}")
        keep, only = _versions(one.model_version_policy, place, defaults)
        labels = dict(one.version_labels)
        sources.append(ModelSource(one.name, (folder or path) / path, labels, keep, only, defaults.batch))
    return tuple(sources)


def _versions(policy: Any, where: str, defaults: ModelDefaults) -> tuple[int | None, tuple[int, ...]]:
    """Return `keep` and `only` of a model."""
    match policy.WhichOneof("policy_choice"):
        case "latest":
            return policy.latest.num_versions or 1, ()
        case "all":
            return None, ()
        case "specific":
            if not policy.specific.versions:
                raise ParameterError(f"{where}: model_version_policy: specific names no version")
            return None, tuple(policy.specific.versions)
    return defaults.keep, ()
