"""Run a Typer application as a process: exit status, and errors in one line."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import typer

from kerasline.components.core import garbage_collection, interruption, malloc
from kerasline.components.core.errors import KeraslineError
from kerasline.pipeline.commands.output import complain

WRONG_CALL, INTERRUPTED = 2, 130


def new_app(*commands: Callable[..., Any]) -> typer.Typer:
    """Return an application with these commands. A single command is called without its name."""
    app = typer.Typer(
        name="kerasline",
        help="Pipelines for Keras 3: from raw data to a trained, evaluated, exported model.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    for command in commands:
        app.command()(command)
    return app


def run_app(app: typer.Typer, arguments: Sequence[str]) -> int:
    """Run an application in this process, and return its exit status.

    Args:
        arguments: the arguments of the command line. Options of Beam follow after "--".
    """
    interruption.install()
    garbage_collection.skip_at_exit()
    malloc.retain_freed()
    given = list(arguments)
    beam_options: list[str] = []
    if "--" in given:
        split = given.index("--")
        given, beam_options = given[:split], given[split + 1 :]
    try:
        code = app(given, standalone_mode=False, obj=beam_options) or 0
    except typer.Exit as stop:
        code = stop.exit_code
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except KeraslineError as error:
        complain(str(error))
        code = WRONG_CALL
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = 0
    except Exception as error:
        code = _usage_error(error)
    if code == INTERRUPTED:  # some versions of Typer return it instead of raising
        complain("interrupted; the same command takes up where it stopped")
    return code


def _usage_error(error: Exception) -> int:
    """Print a call that cannot be parsed in one line. Any other error is a bug, and is raised."""
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):
        if error.format_message():
            complain(f"{error.format_message()} (try --help)")
        return WRONG_CALL
    raise error
