"""Which of Beam's runners a pipeline may be given to, told before anything runs."""

from __future__ import annotations

from collections.abc import Sequence

from kerasline.components.core.errors import ParameterError, nearest

ENGINE = "start a job server and give --runner=PortableRunner --job_endpoint=HOST:PORT (docs/RUNNERS.md)"
KNOWN = ("DirectRunner", "PortableRunner", "DataflowRunner")
REFUSED = {
    "DaskRunner": "Beam 2.77's loses what is written, without a word (a text of five lines came out empty); "
    f"use threads or processes here (--direct_num_workers=0 --direct_running_mode=multi_processing), or {ENGINE}",
    "PrismRunner": "it downloads a program from the internet when it runs; leave --runner away, "
    "or give --runner=DirectRunner, to run here",
    "FlinkRunner": f"it starts a job server for each pipeline, which workers cannot do; {ENGINE}",
    "SparkRunner": f"it starts a job server for each pipeline, which workers cannot do; {ENGINE}",
}


def check_runner(options: Sequence[str]) -> None:
    """Checks the runner that Beam's options name, if any; a class by its full path is taken as it is.

    Raises:
        ParameterError: it is not known, or known not to do.
    """
    name = runner_name(options)
    if name is None or name in KNOWN or "." in name:
        return
    if name in REFUSED:
        raise ParameterError(f"--runner={name}: {REFUSED[name]}")
    raise ParameterError(f"--runner={name}: no such runner; {nearest(name, KNOWN)}")


def runs_here(options: Sequence[str]) -> bool:
    """Whether Beam's direct runner does the work, in this process or its children."""
    return runner_name(options) in (None, "DirectRunner")


def runner_name(options: Sequence[str]) -> str | None:
    """The value of `--runner`, as `--runner=NAME` or `--runner NAME`; the last where there are several."""
    return _runner_apart(options)[0]


def without_runner(options: Sequence[str]) -> list[str]:
    """All other options."""
    return _runner_apart(options)[1]


def _runner_apart(options: Sequence[str]) -> tuple[str | None, list[str]]:
    name, rest, waiting = None, [], list(options)
    while waiting:
        option = waiting.pop(0)
        if option == "--runner" and waiting:
            name = waiting.pop(0)
        elif option.startswith("--runner="):
            name = option.partition("=")[2]
        else:
            rest.append(option)
    return name, rest
