"""The command line of another server, and whether it or kerasline's own server can be started here."""

from __future__ import annotations

import importlib.util
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kerasline.components.core.errors import KeraslineError, ParameterError, nearest

# Libraries of our server. It leaves gRPC out if its library is not installed.
SERVER_LIBRARIES = ("aiohttp", "multidict", "orjson", "prometheus_client")
PLACEHOLDERS = ("rest_port", "grpc_port", "name", "folder", "saved_model")


def check_command(command: str | None) -> None:
    """Check the placeholders of a server's command line.

    Raises:
        ParameterError: a placeholder is unknown or missing.
    """
    if command is None:
        return
    words = fill_in(command, dict.fromkeys(PLACEHOLDERS, 0))
    if not words or "{rest_port}" not in command or not ("{folder}" in command or "{saved_model}" in command):
        raise ParameterError(
            f"InfraValidator.command: expected {{rest_port}}, and {{folder}} or {{saved_model}}, received {command!r}"
        )


def check_installed(command: str | None) -> None:
    """Check that the server can be started on this machine.

    Raises:
        KeraslineError: the libraries of our server are not installed.
        ParameterError: there is no such program.
    """
    if command is not None:
        program = fill_in(command, dict.fromkeys(PLACEHOLDERS, 0))[0]
        if shutil.which(program) is None:
            raise ParameterError(f"InfraValidator.command: no program {program!r} found; install it or give its path")
        return
    for library in SERVER_LIBRARIES:
        if importlib.util.find_spec(library) is None:
            raise KeraslineError(
                f"InfraValidator: its server needs {library}, which is not installed; pip install 'kerasline[serve]'"
            )


def server_name(command: str | None) -> str:
    """Return the name of the server, for the record."""
    return "kerasline" if command is None else Path(fill_in(command, dict.fromkeys(PLACEHOLDERS, 0))[0]).name


def fill_in(command: str, values: Mapping[str, Any]) -> list[str]:
    """Return the words of a command line with its placeholders replaced.

    Raises:
        ParameterError: the command line cannot be parsed, or contains an unknown placeholder.
    """
    try:
        return [word.format(**values) for word in shlex.split(command)]
    except KeyError as error:
        name = error.args[0]
        raise ParameterError(
            f"InfraValidator.command: no placeholder {{{name}}}; {nearest(name, PLACEHOLDERS)}"
        ) from None
    except (ValueError, IndexError) as error:
        raise ParameterError(f"InfraValidator.command: {error}; write placeholders as {{rest_port}}") from None
