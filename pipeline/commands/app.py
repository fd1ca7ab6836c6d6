"""The command line: all commands in one application. A new command is a function in this folder, listed here."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

from kerasline.pipeline.commands.airflow import airflow
from kerasline.pipeline.commands.housekeeping import gc, rollback
from kerasline.pipeline.commands.inspecting import lineage, recipes, report, runs, show
from kerasline.pipeline.commands.process import new_app, run_app
from kerasline.pipeline.commands.running import plan, run
from kerasline.pipeline.commands.schemas import update_schema
from kerasline.pipeline.commands.serving import serve

app = new_app(run, plan, recipes, runs, show, lineage, report, serve, rollback, airflow, gc, update_schema)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line, and exit with its status.

    Args:
        arguments: the arguments; those of this process by default.
    """
    sys.exit(run_app(app, sys.argv[1:] if arguments is None else arguments))
