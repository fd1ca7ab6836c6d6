"""Measure stages by number of rows, features and workers.

    python benchmarks/scaling.py rows chicago_taxi_simple.csv
    python benchmarks/scaling.py features
    python benchmarks/scaling.py workers flink chicago_taxi_simple.csv

`rows` repeats the CSV. `features` generates numeric columns. Each size runs in its own process, which prints the wall
time of each stage without imports, its CPU time in brackets, and its peak memory. A line is fitted to the CPU time:
start + each * rows * features. `workers` alternates clusters of one and of two workers, which have run some jobs
before, as long-lived clusters have. It prints the wall time and the CPU time of the whole machine. Evaluator reads the
tenth of the rows for testing, as in a pipeline, and then the four fifths for training. The model is untrained, since
its predictions cost the same.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from benchmarks.data_plane import repeated  # noqa: E402

STAGES = ["ExampleGen", "StatisticsGen", "Transform", "Evaluator", "BulkInferrer"]
LARGE_EVALUATOR = "Evaluator, of 80% of the rows"
WARM_UP_JOBS = 3  # on a small CSV
CLUSTER = REPOSITORY / "benchmarks" / "clusters" / "cluster.py"


def main() -> None:
    given = _parsed()
    if given.measure == "rows":
        _print_sizes((rows, 18, *_measured(given.csv, rows, None)) for rows in given.rows)
    elif given.measure == "features":
        _print_sizes((given.rows[0], count, *_measured(None, given.rows[0], count)) for count in given.features)
    else:
        _print_workers(given)


def stages(csv: str, folder: str, features: int | None, beam_options: list[str]) -> dict[str, list[float]]:
    """Return, for each stage, its seconds, and the processor seconds of this process and of the whole machine."""
    from kerasline.pipeline.runners.worker_pool import PRELOADED

    for name in [
        *PRELOADED,
        "kerasline.components.statistics_gen.statistics_proto",
        "apache_beam.runners.portability.portable_runner",
    ]:
        importlib.import_module(name)
    from kerasline import BulkInferrer, CsvExampleGen, Evaluator, Exporter, ModelBuilder, StatisticsGen, Transform
    from kerasline.components.preprocessing.features import Number
    from kerasline.pipeline.recipes import taxi

    found = {}

    def run(stage, options=(), name=None):
        name = name or stage.name
        clock, own, busy = time.perf_counter(), time.process_time(), _busy_seconds()
        done = stage.execute(Path(folder, name), beam_options=list(options))
        now = time.perf_counter(), time.process_time(), _busy_seconds()
        found[name] = [now[0] - clock, now[1] - own, now[2] - busy]
        return done

    examples = run(CsvExampleGen(csv), beam_options).examples
    run(StatisticsGen(examples), beam_options)
    options = {"function": taxi.preprocessing, "label": "big_tipper"}
    if features:
        options = {"features": {f"x{number}": Number() for number in range(features)}, "label": "label"}
    preprocessing = run(Transform(examples, **options), beam_options).preprocessing
    build, hyperparameters = (
        _small if features else taxi.build_model,
        {"hidden": [100, 70, 50, 25], "learning_rate": 1e-3},
    )
    model = run(ModelBuilder(preprocessing, function=build, hyperparameters=hyperparameters, seed=7)).model
    saved = run(Exporter(preprocessing, model)).saved_model
    run(Evaluator(examples, preprocessing, model, saved_model=saved), beam_options)
    run(BulkInferrer(saved, examples), beam_options)
    if beam_options:
        large = Evaluator(examples, preprocessing, model, saved_model=saved, split="train")
        run(large, beam_options, LARGE_EVALUATOR)
    return found


def _small(inputs, hp):
    import keras

    joined = keras.layers.Concatenate()(list(inputs.values()))
    for units in hp["hidden"]:
        joined = keras.layers.Dense(units, activation="relu")(joined)
    model = keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid", name="label")(joined))
    model.compile("adam", loss="binary_crossentropy")
    return model


def _busy_seconds() -> float:
    """Return the seconds that all processors of this machine have worked since it started."""
    user, nice, system = map(int, Path("/proc/stat").read_text().split()[1:4])
    return (user + nice + system) / os.sysconf("SC_CLK_TCK")


def _measured(sample: Path | None, rows: int, features: int | None) -> tuple[dict[str, list[float]], float]:
    with tempfile.TemporaryDirectory() as folder:
        csv = repeated(sample, rows, folder) if sample else _generated(rows, features, folder)
        return in_a_process(csv, folder, features, [])


def in_a_process(csv: Path, folder: str, features: int | None, options: list[str]):
    """Run `stages` in a new process. Return its result and the peak memory in MB."""
    command = [sys.executable, __file__, "child", str(csv), json.dumps([folder, features, options])]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    output, errors = process.stdout.read(), process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"failed: {errors[-3000:]}")
    return json.loads(output.splitlines()[-1]), usage.ru_maxrss / 1024


def _generated(rows: int, features: int, folder: str) -> Path:
    import numpy as np
    import pyarrow as pa
    from pyarrow import csv

    random = np.random.default_rng(7)
    columns = {f"x{number}": random.normal(size=rows).astype(np.float32) for number in range(features)}
    columns["label"] = (columns["x0"] > 0).astype(np.int64)
    path = Path(folder, "generated.csv")
    csv.write_csv(pa.table(columns), path)
    return path


def _print_sizes(sizes: Iterator[tuple[int, int, dict[str, list[float]], float]]) -> None:
    import numpy as np

    measured = []
    print("| rows | features | " + " | ".join(STAGES) + " | peak MB |")
    print("|---:" * (len(STAGES) + 3) + "|")
    for rows, features, found, peak in sizes:
        measured.append((rows, features, found, peak))
        seconds = " | ".join(f"{found[stage][0]:.1f} ({found[stage][1]:.1f})" for stage in STAGES)
        print(f"| {rows:,} | {features} | {seconds} | {peak:.0f} |", flush=True)
    if len(measured) < 2:
        return
    cells = np.array([rows * features for rows, features, *_ in measured], float)
    print("\n| stage | start, s | a million cells, s | largest relative error |\n|---|---:|---:|---:|")
    for stage in STAGES:
        seconds = np.array([found[stage][1] for *_, found, _ in measured])
        # Minimize relative errors, so that each size has the same weight.
        design = np.stack([np.ones_like(cells), cells], axis=1) / seconds[:, None]
        start, each = np.linalg.lstsq(design, np.ones_like(cells), rcond=None)[0]
        off = np.abs((start + each * cells) / seconds - 1).max()
        print(f"| {stage} | {start:.2f} | {each * 1e6:.4f} | {off:.0%} |")


def _print_workers(given: argparse.Namespace) -> None:
    from benchmarks.clusters.cluster import ClusterError

    found: dict[int, list[dict[str, list[float]]]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder:
        csv = repeated(given.csv, given.rows[0], folder)
        for turn in range(given.rounds):
            for workers in (1, 2) if turn % 2 == 0 else (2, 1):
                home = Path(folder, "cluster")
                call = [sys.executable, str(CLUSTER)]
                started = subprocess.run(
                    [*call, "start", given.engine, "--home", home, f"--workers={workers}"],
                    stdout=subprocess.PIPE,
                    text=True,
                )
                if started.returncode:
                    raise ClusterError(started.stdout)
                options = started.stdout.split()
                try:
                    for warming in range(WARM_UP_JOBS):
                        in_a_process(given.csv, str(Path(folder, f"warm-{turn}-{workers}-{warming}")), None, options)
                    measured, _ = in_a_process(csv, str(Path(folder, f"{turn}-{workers}")), None, options)
                finally:
                    subprocess.run([*call, "stop", given.engine, "--home", home], check=True)
                found[workers].append(measured)
                load = f"load {os.getloadavg()[0]:.1f}"
                print(workers, json.dumps(measured), load, file=sys.stderr, flush=True)
    print("| stage | one worker, s | two, s | speed-up | processor seconds, one / two |\n|---|---:|---:|---:|---:|")
    large = [LARGE_EVALUATOR if stage == "Evaluator" else stage for stage in STAGES]
    sums = {"all five": STAGES, f"all five, {LARGE_EVALUATOR}": large}
    for name, taken in {**{name: [name] for name in [*STAGES, LARGE_EVALUATOR]}, **sums}.items():
        seconds, busy = (
            [statistics.median(sum(run[stage][which] for stage in taken) for run in found[n]) for n in (1, 2)]
            for which in (0, 2)
        )
        print(
            f"| {name} | {seconds[0]:.1f} | {seconds[1]:.1f} | {seconds[0] / seconds[1]:.2f} "
            f"| {busy[0]:.0f} / {busy[1]:.0f} |"
        )


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measure", choices=["rows", "features", "workers"])
    parser.add_argument("more", nargs="*", help="the engine, flink or spark; the CSV")
    parser.add_argument("--rows", type=int, nargs="*")
    parser.add_argument("--features", type=int, nargs="*", default=[16, 64, 256])
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    defaults = {"rows": [15_000, 150_000, 1_500_000, 15_000_000], "features": [150_000], "workers": [1_500_000]}
    given.rows = given.rows or defaults[given.measure]
    given.engine = given.more[0] if given.measure == "workers" else None
    given.csv = Path(given.more[-1]) if given.measure != "features" else None
    return given


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        from kerasline.components.core import malloc

        malloc.retain_freed()  # as the command line does
        folder, features, options = json.loads(sys.argv[3])
        print(json.dumps(stages(sys.argv[2], folder, features, options)))
    else:
        main()
