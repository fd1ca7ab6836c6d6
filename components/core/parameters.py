"""Declaring the parameters of a component, and checking values against their types."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Gt

from kerasline.components.core.errors import ParameterError, WiringError

PositiveInt = Annotated[int, Gt(0)]
PositiveFloat = Annotated[float, Gt(0)]

SPLIT, COLUMN = "split", "column"

SplitName = Annotated[str, SPLIT]
"""The name of a split of the stage's input `examples`."""

ColumnName = Annotated[str, COLUMN]
"""The name of a column of the stage's input `examples`."""

REQUIRED: Any = type("Required", (), {"__repr__": lambda self: "<required>"})()


@dataclass(frozen=True)
class ParameterSpec:
    type: Any
    default: Any


def fields_as_parameters(where: str, settings: type) -> dict[str, ParameterSpec]:
    """Return the parameters that the fields of a frozen dataclass declare.

    Args:
        where: the attribute that declares them, for the error message.

    Raises:
        WiringError: `settings` is not a frozen dataclass.
    """
    options = vars(settings).get("__dataclass_params__")
    if options is None or not options.frozen:
        raise WiringError(f"{where}: expected a frozen dataclass in Parameters[...], received {settings!r}")
    hints = typing.get_type_hints(settings, include_extras=True)
    return {field.name: ParameterSpec(hints[field.name], _default(field)) for field in dataclasses.fields(settings)}


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    return REQUIRED if field.default_factory is dataclasses.MISSING else field.default_factory()


def check_parameter(where: str, spec: ParameterSpec, value: Any) -> Any:
    """Return the value of a parameter, converted to its type. The default is not checked.

    Raises:
        ParameterError: a required value is missing, or the value does not match the type.
    """
    if value is REQUIRED:
        raise ParameterError(f"{where}: missing value; this parameter has no default")
    return value if value is spec.default else parse_value(where, spec.type, value)


def names_of(marker: str, kind: Any, value: Any) -> Iterator[str]:
    """Yield the names of splits or columns in the value of a parameter.

    Args:
        marker: `SPLIT` or `COLUMN`.
        kind: the type of the parameter, such as `list[ColumnName] | None`.
        value: the value.
    """
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated and marker not in parts[1:]:
        yield from names_of(marker, parts[0], value)
    elif origin is typing.Annotated and isinstance(value, str):
        yield value
    elif origin in (typing.Union, types.UnionType):
        for part in parts:
            yield from names_of(marker, part, value)
    elif origin is list and isinstance(value, list):
        for item in value:
            yield from names_of(marker, parts[0], item)
    elif origin is dict and isinstance(value, dict):
        for item in value.values():
            yield from names_of(marker, parts[1], item)


def parse_value(where: str, kind: Any, value: Any) -> Any:
    """Convert `value` to the type `kind`. A string is also tried as JSON.

    Raises:
        ParameterError: the value does not match. The message names `where`, the value and the type.
    """
    from pydantic import ValidationError

    adapter = _adapter(kind)
    is_json = isinstance(value, str) and value.startswith(("{", "["))  # a dict or list, also where a text would do
    attempts: list[Callable[[Any], Any]] = [adapter.validate_json] if is_json else []
    attempts.append(adapter.validate_python)
    if isinstance(value, str) and not is_json:
        attempts.append(adapter.validate_json)
    reasons = []
    for attempt in attempts:
        try:
            return attempt(value)
        except ValidationError as error:
            reasons.append(_reason(error.errors()[0]))
    reason = reasons[0] if is_json else reasons[-1]
    raise ParameterError(f"{where}: expected {_type_name(kind)}, received {value!r} ({reason})")


def _reason(error: Any) -> str:
    """Return the message of pydantic's error, with the key that is unknown or missing."""
    if error["type"] in ("extra_forbidden", "missing"):
        return f"{'.'.join(map(str, error['loc']))}: {error['msg']}"
    return error["msg"]


def _type_name(kind: Any) -> str:
    """Return a short name of a type, without its bounds: `int`, `int | None`."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return _type_name(parts[0])
    if origin in (typing.Union, types.UnionType):
        return " | ".join(map(_type_name, parts))
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
    """Parse a string as JSON, or return it unchanged if it is not JSON."""
    import json

    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value
