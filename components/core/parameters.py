"""A component's parameters: how they are declared, and how a given value is checked against its type."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kerasline.components.core.errors import ParameterError, WiringError

REQUIRED: Any = type("Required", (), {"__repr__": lambda self: "<required>"})()


@dataclass(frozen=True)
class ParameterSpec:
    type: Any
    default: Any


def fields_as_parameters(where: str, settings: type) -> dict[str, ParameterSpec]:
    """The parameters that the fields of a frozen dataclass declare.

    Raises:
        WiringError: it is no frozen dataclass.
    """
    if not (dataclasses.is_dataclass(settings) and settings.__dataclass_params__.frozen):
        raise WiringError(f"{where}: Parameters[...] takes a frozen dataclass, not {settings!r}")
    hints = typing.get_type_hints(settings, include_extras=True)
    return {field.name: ParameterSpec(hints[field.name], _default(field)) for field in dataclasses.fields(settings)}


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    return REQUIRED if field.default_factory is dataclasses.MISSING else field.default_factory()


def check_parameter(where: str, spec: ParameterSpec, value: Any) -> Any:
    """The value of a parameter, checked against its type; its default is taken as it is.

    Raises:
        ParameterError: no value was given where one is required, or it is of another type.
    """
    if value is REQUIRED:
        raise ParameterError(f"{where}: no value given, and it has no default")
    return value if value is spec.default else parse_value(where, spec.type, value)


def parse_value(where: str, kind: Any, value: Any) -> Any:
    """Checks `value` against the type `kind`; a text is read as that type where it can be.

    Raises:
        ParameterError: naming `where`, the value and the type.
    """
    from pydantic import ValidationError

    adapter = _adapter(kind)
    attempts: list[Callable[[], Any]] = [lambda: adapter.validate_python(value)]
    if isinstance(value, str):
        attempts.append(lambda: adapter.validate_json(value))
    for attempt in attempts:
        try:
            return attempt()
        except ValidationError as error:
            first = error.errors()[0]
    raise ParameterError(f"{where}: {value!r} given, {_called(kind)} wanted ({first['msg']})")


def _called(kind: Any) -> str:
    """A type in a word: `int` for one with bounds, `int | None` for an optional one."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return _called(parts[0])
    if origin in (typing.Union, types.UnionType):
        return " | ".join(map(_called, parts))
    if origin is typing.Literal:
        return "one of " + ", ".join(map(str, parts))
    return "None" if kind is type(None) else getattr(kind, "__name__", str(kind).replace("typing.", ""))


@functools.cache
def _adapter(kind: Any) -> Any:
    from pydantic import ConfigDict, PydanticUserError, TypeAdapter

    try:
        return TypeAdapter(kind, config=ConfigDict(arbitrary_types_allowed=True))
    except PydanticUserError:  # the type carries its own configuration
        return TypeAdapter(kind)


def json_or_text(value: Any) -> Any:
    """A command line's text as the JSON value that it spells, or itself."""
    import json

    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value
