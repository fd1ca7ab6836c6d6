"""The command line: its commands (`kerasline.pipeline.commands`) put together, and what goes wrong told in one line."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import typer

from kerasline.components.core import garbage_collection, interruption, malloc
from kerasline.components.core.errors import KeraslineError
from kerasline.pipeline.commands.airflow import airflow
from kerasline.pipeline.commands.keeping import gc, rollback
from kerasline.pipeline.commands.looking import lineage, recipes, report, runs, show
from kerasline.pipeline.commands.output import complain
from kerasline.pipeline.commands.running import plan, run
from kerasline.pipeline.commands.serving import serve

WRONG_CALL, INTERRUPTED = 2, 130

app = typer.Typer(
    name="kerasline",
    help="Pipelines for Keras 3: from raw data to a trained, evaluated, exported model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (run, plan, recipes, runs, show, lineage, report, serve, rollback, airflow, gc):
    app.command()(command)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the command line; what follows `--` are Beam's options."""
    interruption.install()
    garbage_collection.spare_exit()
    malloc.keep_freed()
    given = list(sys.argv[1:] if arguments is None else arguments)
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
    if code == INTERRUPTED:  # some versions of Typer say so by their exit status
        complain("interrupted; the same command takes up where it stopped")
    sys.exit(code)


def _usage_error(error: Exception) -> int:
    """A call that cannot be parsed is told in one line; anything else is ours, and is raised."""
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):
        if error.format_message():
            complain(f"{error.format_message()} (try --help)")
        return WRONG_CALL
    raise error
