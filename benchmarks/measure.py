"""Whole-process wall time and peak memory of the main commands: `python benchmarks/measure.py`.

Prints the medians of `--runs` runs, each in a new root. `--taxi CSV` adds the taxi recipe.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HOUSE = Path(__file__).resolve().parent.parent
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


def measure(*arguments: str) -> tuple[float, float]:
    """Return the seconds and the peak megabytes of a command."""
    clock = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, str(HOUSE / "run_pipeline.py"), *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(arguments)}: failed")
    return time.perf_counter() - clock, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--taxi")
    options = parser.parse_args()
    found: dict[str, list[tuple[float, float]]] = {}
    for _ in range(options.runs):
        with tempfile.TemporaryDirectory() as folder:
            root = f"{folder}/root"
            found.setdefault("--help", []).append(measure("--help"))
            found.setdefault("recipes", []).append(measure("recipes"))
            found.setdefault("penguins", []).append(measure("run", "--root", root))
            found.setdefault("penguins, cached", []).append(measure("run", "--root", root))
            if options.taxi:
                taxi = ("run", "taxi", "--root", root, "--set", f"ExampleGen.input={options.taxi}")
                found.setdefault("taxi", []).append(measure(*taxi))
                found.setdefault("taxi, cached", []).append(measure(*taxi))
            for stages in (1, 21):
                file = Path(folder, f"nothing{stages}.py")
                file.write_text(NOTHING.replace("STAGES", str(stages)))
                name = f"{stages} stages that do nothing"
                found.setdefault(name, []).append(measure("run", str(file), "--root", f"{folder}/{stages}"))
    for name, results in found.items():
        seconds, megabytes = (statistics.median(column) for column in zip(*results))
        print(f"{name:28} {seconds:7.2f} s {megabytes:7.0f} MB")
    one, many = (statistics.median(s for s, _ in found[f"{n} stages that do nothing"]) for n in (1, 21))
    print(f"{'orchestration a stage':28} {(many - one) / 20 * 1000:7.0f} ms")


if __name__ == "__main__":
    main()
