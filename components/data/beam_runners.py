"""Which Beam runners are supported, checked before anything runs."""

from __future__ import annotations

from collections.abc import Sequence

from kerasline.components.core.errors import ParameterError, nearest

ENGINE = "start a job server and pass --runner=PortableRunner --job_endpoint=HOST:PORT (docs/RUNNERS.md)"
SUPPORTED = ("DirectRunner", "PortableRunner", "DataflowRunner")
UNSUPPORTED = {
    "DaskRunner": "in Beam 2.77 it silently loses written files (a text file of five lines came out empty); "
    f"use local threads or processes (--direct_num_workers=0 --direct_running_mode=multi_processing), or {ENGINE}",
    "PrismRunner": "it downloads a program from the internet; "
    "omit --runner, or pass --runner=DirectRunner, to run locally",
    "FlinkRunner": f"it starts a job server for each pipeline, which is impossible on workers; {ENGINE}",
    "SparkRunner": f"it starts a job server for each pipeline, which is impossible on workers; {ENGINE}",
}


def check_runner(options: Sequence[str]) -> None:
    """Check the runner that Beam's options name, if any. The full path of a class is not checked.

    Raises:
        ParameterError: the runner is unknown or unsupported.
    """
    name = runner_name(options)
    if name is None or name in SUPPORTED or "." in name:
        return
    if name in UNSUPPORTED:
        raise ParameterError(f"--runner={name}: {UNSUPPORTED[name]}")
    raise ParameterError(f"--runner={name}: no such runner; {nearest(name, SUPPORTED)}")


def runs_locally(options: Sequence[str]) -> bool:
    """Return whether Beam's direct runner runs the pipeline, in this process or its children."""
    return runner_name(options) in (None, "DirectRunner")


def runner_name(options: Sequence[str]) -> str | None:
    """Return the value of the last `--runner=NAME` or `--runner NAME`, or None."""
    return _separate_runner(options)[0]


def without_runner(options: Sequence[str]) -> list[str]:
    """Return the options without `--runner`."""
    return _separate_runner(options)[1]


def _separate_runner(options: Sequence[str]) -> tuple[str | None, list[str]]:
    name, rest, pending = None, [], list(options)
    while pending:
        option = pending.pop(0)
        if option == "--runner" and pending:
            name = pending.pop(0)
        elif option.startswith("--runner="):
            name = option.partition("=")[2]
        else:
            rest.append(option)
    return name, rest
