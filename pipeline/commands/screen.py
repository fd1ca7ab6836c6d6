"""The screen during and after a run. Output of libraries goes to the log instead."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from kerasline.pipeline.metadata.store import Execution

POLL_SECONDS = 0.2

_STYLES = {"ran": "green", "cached": "cyan", "skipped": "yellow", "failed": "bold red"}
_STYLES |= {"succeeded": "green", "interrupted": "yellow"}


@contextlib.contextmanager
def chatter_to(log: Path) -> Iterator[Console]:
    """Redirect everything that this process and its libraries print to the log file, and yield the real screen.

    TensorFlow writes to file descriptor 2 from C++, so the descriptors are redirected.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [os.dup(1), os.dup(2)]
    file = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o666)
    handler = logging.FileHandler(log, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger()
    logger.addHandler(handler)
    logging.getLogger("kerasline").setLevel(logging.INFO)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
    try:
        with os.fdopen(os.dup(saved[0]), "w", encoding="utf-8") as screen:
            yield console(screen)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for descriptor, copy in zip((1, 2), saved):
            os.dup2(copy, descriptor)
            os.close(copy)
        logger.removeHandler(handler)
        handler.close()


def console(file: Any = None) -> Console:
    """Return the screen, as wide as the terminal. Without a terminal, lines are not wrapped."""
    file = file or sys.stdout
    return Console(file=file, width=None if file.isatty() else 200, highlight=False)


@contextlib.contextmanager
def progress(screen: Console, executions: Callable[[], Sequence[Execution]], nodes: Sequence[str]) -> Iterator[None]:
    """Display the progress of a run within the block: a live table on a terminal, otherwise a line per stage.

    The progress is read from the metadata store, so stages may run anywhere.
    """
    view = _LiveView(screen, nodes) if screen.is_terminal else _LineView(screen, nodes)
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(POLL_SECONDS):
            # A busy database must not end the display. The next poll shows the same.
            with contextlib.suppress(Exception):
                view.show(executions())

    thread = threading.Thread(target=watch, daemon=True)
    with view:
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            view.show(executions())


class _LineView:
    """Prints one plain line when a stage ends."""

    def __init__(self, screen: Console, nodes: Sequence[str]) -> None:
        self._screen = screen
        self._width = max(map(len, nodes), default=0)
        self._printed: set[str] = set()

    def __enter__(self) -> None: ...

    def __exit__(self, *_error: Any) -> None: ...

    def show(self, executions: Sequence[Execution]) -> None:
        for execution in executions:
            if execution.state != "running" and execution.id not in self._printed:
                self._printed.add(execution.id)
                line = Text.assemble(
                    f"{execution.node:<{self._width}}  ",
                    (f"{execution.state:<7}", _STYLES.get(execution.state, "")),
                    f"  {_seconds(execution):>7}  ",
                    _summary(execution),
                )
                self._screen.print(line, soft_wrap=True)


class _LiveView:
    """A table that is updated as the stages progress."""

    def __init__(self, screen: Console, nodes: Sequence[str]) -> None:
        self._nodes = nodes
        self._live = Live(console=screen, refresh_per_second=8, transient=False)
        self._spinner = Spinner("dots")

    def __enter__(self) -> None:
        self._live.start()

    def __exit__(self, *_error: Any) -> None:
        self._live.stop()

    def show(self, executions: Sequence[Execution]) -> None:
        done = {execution.node: execution for execution in executions}
        table = Table(box=None, padding=(0, 1), show_header=False)
        for node in self._nodes:
            execution = done.get(node)
            if execution is None:
                table.add_row(Text(node, style="dim"), Text("waiting", style="dim"), "", "")
            elif execution.state == "running":
                table.add_row(node, self._spinner, "", execution.message or "")
            else:
                state = Text(execution.state, style=_STYLES.get(execution.state, ""))
                table.add_row(node, state, _seconds(execution), _summary(execution))
        self._live.update(table)


def plain_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Return a table for listings. Columns are never truncated, so that ids and paths can be copied."""
    table = Table(box=box.SIMPLE_HEAD)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*[Text(cell, style=_STYLES.get(cell, "")) for cell in row])
    return table


def figures(metrics: Mapping[str, Any]) -> str:
    """Return metrics as text, such as `rows 344, accuracy 0.9855`."""
    return ", ".join(f"{name.replace('_', ' ')} {_figure(value)}" for name, value in metrics.items())


def _figure(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int) or (value.is_integer() and abs(value) >= 1000):
        return f"{int(value):,}"
    return f"{value:.4g}"


def _seconds(execution: Execution) -> str:
    return f"{execution.seconds:.1f} s" if execution.seconds is not None else ""


def _summary(execution: Execution) -> str:
    message = execution.message or ""
    metrics = figures(execution.metrics) if execution.state in ("ran", "cached") else ""
    return "; ".join(part for part in (message, metrics) if part)
