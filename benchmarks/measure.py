"""Measure wall time, CPU time and peak memory of the main commands as whole processes: `python benchmarks/measure.py`.

Prints the medians of `--runs` runs, each in a new root. `--taxi CSV` adds the taxi recipe. The recipes alternate
with the same work by hand in `plain_keras.py` and, with `--tfx PYTHON SCRIPT`, with TFX in another environment.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
PROGRAM = [sys.executable, str(REPOSITORY / "run_pipeline.py")]
BY_HAND = [sys.executable, str(REPOSITORY / "benchmarks" / "plain_keras.py")]
NOTHING = """
from kerasline.components.core.artifacts import Report
from kerasline.components.core.component import Component, Input, Output, Parameter
from kerasline.pipeline.dag import Pipeline

class Nothing(Component):
    before: Input[Report] = None
    report: Output[Report]
    number: Parameter[int] = 0
    def run(self, inputs, outputs, context): ...

def pipeline(settings):
    nodes = [Nothing(name="n0")]
    for number in range(1, STAGES):
        nodes.append(Nothing(nodes[-1], number=number, name=f"n{number}"))
    return Pipeline("nothing", nodes)
"""


def measure(*arguments: str, program: Sequence[str] = PROGRAM) -> tuple[float, float, float]:
    """Return the seconds, the processor seconds and the peak megabytes of a command.

    The processor time includes child processes that ended, the memory is that of the largest process.
    """
    clock = time.perf_counter()
    process = subprocess.Popen([*program, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join([*program, *arguments])}: failed")
    return time.perf_counter() - clock, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--taxi")
    parser.add_argument("--tfx", nargs=2, metavar=("PYTHON", "SCRIPT"))
    options = parser.parse_args()
    found: dict[str, list[tuple[float, float, float]]] = {}
    for _ in range(options.runs):
        with tempfile.TemporaryDirectory() as folder:
            root = f"{folder}/root"
            found.setdefault("--help", []).append(measure("--help"))
            found.setdefault("recipes", []).append(measure("recipes"))
            found.setdefault("penguins", []).append(measure("run", "--root", root))
            found.setdefault("penguins, cached", []).append(measure("run", "--root", root))
            found.setdefault("penguins by hand", []).append(measure("penguins", program=BY_HAND))
            if options.taxi:
                taxi = ("run", "taxi", "--root", root, "--set", f"ExampleGen.input={options.taxi}")
                found.setdefault("taxi", []).append(measure(*taxi))
                found.setdefault("taxi, cached", []).append(measure(*taxi))
                found.setdefault("taxi by hand", []).append(measure("taxi", options.taxi, program=BY_HAND))
            if options.tfx:
                found.setdefault("TFX", []).append(measure(program=options.tfx))
            for stages in (1, 21):
                file = Path(folder, f"nothing{stages}.py")
                file.write_text(NOTHING.replace("STAGES", str(stages)))
                name = f"{stages} stages that do nothing"
                found.setdefault(name, []).append(measure("run", str(file), "--root", f"{folder}/{stages}"))
    for name, results in found.items():
        seconds, processor, megabytes = (statistics.median(column) for column in zip(*results))
        print(f"{name:28} {seconds:7.2f} s {processor:7.2f} s of processors {megabytes:7.0f} MB")
    one, many = (statistics.median(s for s, *_ in found[f"{n} stages that do nothing"]) for n in (1, 21))
    print(f"{'orchestration a stage':28} {(many - one) / 20 * 1000:7.0f} ms")


if __name__ == "__main__":
    main()
