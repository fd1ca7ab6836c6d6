"""Derive from a pipeline's parameters the settings of an Airflow run: default values, each with a JSON Schema."""

from __future__ import annotations

import fnmatch
import inspect
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kerasline.components.core.component import Component
from kerasline.pipeline.dag import Pipeline
from kerasline.pipeline.runners.airflow.description import Setting

# Types with fields in Airflow's form. Lists and objects can only be set in the file of the pipeline.
_SIMPLE = ("boolean", "integer", "number", "string", "null")
_PASSWORD = re.compile(r"://[^/@:]*:[^@]+@|://.*[?&](password|passwd|pwd|sslpassword)=")
# Keywords that bound the values of these types.
_BOUNDS = {
    ("integer", "number"): ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    ("string",): ("pattern", "minLength", "maxLength"),
}


def settings_of(pipeline: Pipeline, root: str, patterns: Sequence[str] = ("*",)) -> dict[str, Setting]:
    """Return the parameters that are numbers, strings, booleans or choices, by `NODE.PARAM`, in pipeline order.

    Args:
        root: the pipeline root. Defaults below it are kept. Other absolute paths, which belong to this machine, and
            URLs with a password become None, which leaves the value to the pipeline.
        patterns: patterns of `NODE.PARAM`.
    """
    found = {}
    for node in (pipeline.nodes[name] for name in pipeline.order):
        about = _descriptions(type(node))
        for name, default, schema in _simple_parameters(node):
            key = f"{node.name}.{name}"
            if any(fnmatch.fnmatchcase(key, pattern) for pattern in patterns):
                found[key] = _portable(Setting(default, schema, about.get(name.partition(".")[0], "")), root)
    return found


def _simple_parameters(node: Component) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    for name, spec in type(node).spec().parameters.items():
        value = node.parameters[name]
        if isinstance(value, Mapping) and name == "hyperparameters":
            for inner, one in value.items():
                kind = _kind_of(one)
                if kind is not None and "." not in inner:
                    yield f"{name}.{inner}", one, {"type": kind}
            continue
        schema = _simple(_json_schema(spec.type), value)
        if schema is not None and _fits(value, schema):
            yield name, value, schema


def _json_schema(kind: Any) -> dict[str, Any]:
    from pydantic import ConfigDict, PydanticUserError, TypeAdapter
    from pydantic.errors import PydanticInvalidForJsonSchema

    try:
        try:
            return TypeAdapter(kind, config=ConfigDict(arbitrary_types_allowed=True)).json_schema()
        except PydanticUserError as error:
            if isinstance(error, PydanticInvalidForJsonSchema):
                raise
            return TypeAdapter(kind).json_schema()
    except (PydanticInvalidForJsonSchema, PydanticUserError):
        return {}


def _simple(schema: Mapping[str, Any], default: Any) -> dict[str, Any] | None:
    """Return one schema for all simple alternatives of a schema, or None if it has none."""
    options = [option for option in schema.get("anyOf", [schema]) if option.get("type") in _SIMPLE]
    types = list(dict.fromkeys(option["type"] for option in options))
    if not types or types == ["null"]:
        return None
    if "string" in types and "null" in types and default is not None:
        types.remove("null")  # a command line has no way to say None for a text
    found: dict[str, Any] = {"type": types[0] if len(types) == 1 else sorted(types, key=_order)}
    choices = [value for option in options for value in _choices(option)]
    if choices and all(_choices(option) or option["type"] == "null" for option in options):
        found["enum"] = [*choices, *([None] if "null" in types else [])]
    for kinds, keys in _BOUNDS.items():
        bounded = [option for option in options if option["type"] in kinds]
        for key in keys:
            bounds = [option.get(key) for option in bounded]
            if bounds and bounds[0] is not None and bounds.count(bounds[0]) == len(bounds):
                found[key] = bounds[0]  # a bound of one alternative must not bind the others
    return found


def _choices(option: Mapping[str, Any]) -> list[Any]:
    return list(option.get("enum", [option["const"]] if "const" in option else []))


def _order(kind: str) -> tuple[bool, int]:
    """Sort types so that "null" comes first: Airflow's form takes the type of the field from the one after it."""
    return kind != "null", _SIMPLE.index(kind)


def _fits(value: Any, schema: Mapping[str, Any]) -> bool:
    """Return whether the simple alternatives allow the value. They do not allow a list from the pipeline's file."""
    types = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
    kind = "null" if value is None else _kind_of(value)
    return kind in types or (kind == "integer" and "number" in types) or value is None


def _kind_of(value: Any) -> str | None:
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string"}
    return kinds.get(type(value))


def _portable(setting: Setting, root: str) -> Setting:
    value = setting.default
    types = [setting.schema["type"]] if isinstance(setting.schema["type"], str) else list(setting.schema["type"])
    default = None if has_password(value) or _is_elsewhere(value, root) or _is_not_json(value) else value
    schema = dict(setting.schema)
    if default is None and "null" not in types:
        types = ["null", *types]
        schema |= {"enum": [*schema["enum"], None]} if "enum" in schema else {}
    schema["type"] = types[0] if len(types) == 1 else types
    return Setting(default, schema, setting.about)


def has_password(value: Any) -> bool:
    """Return whether a value is a URL with a password, before the host or as an argument, as for a database."""
    return isinstance(value, str) and bool(_PASSWORD.search(value))


def _is_elsewhere(value: Any, root: str) -> bool:
    return isinstance(value, str) and os.path.isabs(value) and not value.startswith(root + os.sep)


def _is_not_json(value: Any) -> bool:  # infinity and NaN
    return isinstance(value, float) and not math.isfinite(value)


def _descriptions(kind: type[Component]) -> dict[str, str]:
    """Return the descriptions of parameters in the docstrings of a component and its bases, a line each."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        section = re.search(r"^Args:\n(.*?)(?=^\S|\Z)", inspect.cleandoc(base.__doc__ or ""), re.M | re.S)
        for names, text in re.findall(
            r"^    (\w+(?:, \w+)*): (.*?)(?=^    [\w*]|\Z)", section[1] if section else "", re.M | re.S
        ):
            found |= dict.fromkeys(names.split(", "), " ".join(text.replace("`", "").split()))
    return found
