"""Measure the metadata store on SQLite and on PostgreSQL.

python benchmarks/metadata.py [--postgresql postgresql://user:password@host/empty-database]

Without a URL, this starts a server as the tests do (`tests/postgres.py`, without fsync).
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from kerasline.pipeline.metadata.store import Execution, Run, Store, StoredArtifact, now, sqlite_url  # noqa: E402

SECONDS = 5.0
NODES = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--postgresql", help="the URL of an empty database")
    given = parser.parse_args().postgresql
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        urls = {"SQLite": sqlite_url(folder / "metadata.sqlite"), "PostgreSQL": given or _started(stack)}
        print("| | " + " | ".join(urls) + " |\n|---|" + "---:|" * len(urls))
        for name, measure in MEASURES.items():
            print(f"| {name} | " + " | ".join(measure(url) for url in urls.values()) + " |", flush=True)


def _started(stack: ExitStack) -> str:
    from tests.postgres import running_server

    return stack.enter_context(stack.enter_context(running_server()).new_database())


def _records_per_second(writers: int, *, runs: int) -> Callable[[str], str]:
    """Measure executions, each with an input and an output, that concurrent processes record per second."""

    def measure(url: str) -> str:
        store = Store(url)
        for run in range(runs):
            store.begin_run(Run(f"{writers}-{runs}-{run}", "p", "p", "/", "running", now()))
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["kerasline.pipeline.metadata.store"])
        started, counts = context.Barrier(writers), context.Queue()
        arguments = [(url, n, f"{writers}-{runs}-{n % runs}", started, counts) for n in range(writers)]
        processes = [context.Process(target=_write, args=each) for each in arguments]
        for process in processes:
            process.start()
        total = sum(counts.get() for _ in processes)
        for process in processes:
            process.join()
        return f"{total / SECONDS:,.0f}"

    return measure


def _write(url: str, writer: int, run_id: str, started, counts) -> None:
    store, count = Store(url), 0
    started.wait()
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        name = f"{run_id}-{writer}-{count}"
        output, read = StoredArtifact("Report", f"/{name}", "d", 1), StoredArtifact("Report", f"/{run_id}", "d", 1)
        node = f"{writer}-{count % NODES}"
        store.record(
            Execution(
                run_id,
                "p",
                node,
                "c",
                "ran",
                now(),
                name,
                f"/{name}",
                {"loss": 0.5},
                None,
                now(),
                1.0,
                {"read": read},
                {"made": output},
            )
        )
        count += 1
    counts.put(count)


def _milliseconds(call: Callable[[Store], object]) -> Callable[[str], str]:
    def measure(url: str) -> str:
        store = Store(url)
        call(store)
        taken = []
        for _ in range(101):
            clock = time.perf_counter()
            call(store)
            taken.append(time.perf_counter() - clock)
        return f"{statistics.median(taken) * 1000:.2f}"

    return measure


def _hold(store: Store) -> None:
    with store.held("a"):
        pass


def _in_a_process(code: str) -> Callable[[str], str]:
    """Measure code that prints its seconds, in new processes, as the median of nine in milliseconds."""

    def measure(url: str) -> str:
        command = [sys.executable, "-c", code, url]
        taken = [
            float(subprocess.run(command, cwd=REPOSITORY, capture_output=True, check=True).stdout) for _ in range(9)
        ]
        return f"{statistics.median(taken) * 1000:.0f}"

    return measure


OPENING = """
import sys, time
clock = time.perf_counter()
from kerasline.pipeline.metadata.store import Store
{}
print(time.perf_counter() - clock)
"""


MEASURES = {
    "executions recorded per second, 1 writer": _records_per_second(1, runs=1),
    "16 writers, each in its own run": _records_per_second(16, runs=16),
    "16 writers, all in one run": _records_per_second(16, runs=1),
    "look up a fingerprint, ms": _milliseconds(lambda store: store.published("none")),
    "acquire and release a lock against other hosts, ms": _milliseconds(_hold),
    "open a store again in a process, ms": _milliseconds(lambda store: Store(store.url)),
    "import and open a store in a new process, ms": _in_a_process(OPENING.format("Store(sys.argv[1])")),
    "thereof imports, ms": _in_a_process(OPENING.format("")),
}


if __name__ == "__main__":
    main()
