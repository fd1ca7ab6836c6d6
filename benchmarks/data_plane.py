"""Measure the stages from CSV to validated data, by number of rows and runner: `python benchmarks/data_plane.py CSV`.

The CSV is repeated to the number of rows. Each size runs in its own process, which prints the seconds of each stage,
without imports, and its peak memory. For comparison, a plain pyarrow program does the minimum in the same run: read the
CSV, write Parquet, read it, and compute counts, nulls, extremes, mean, deviation, approximate median and distinct
values of every column.

`--against CHECKOUT` compares this version with another one, such as a `git worktree` of an earlier commit, instead of
with pyarrow. The versions alternate, in memory, `--rounds` times. The lowest wall and CPU time of each stage counts:

    git worktree add /tmp/earlier 1382074
    python benchmarks/data_plane.py CSV --against /tmp/earlier --rows 1500000
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
RUNNERS = {
    "in memory": [],
    "2 threads": ["--direct_num_workers=2", "--direct_running_mode=multi_threading"],
    "2 processes": ["--direct_num_workers=2", "--direct_running_mode=multi_processing"],
}


def stages(csv: str, folder: str, beam_options: list[str]) -> dict[str, float]:
    """Return the seconds of each stage on a CSV file, and of the CPU as `STAGE, CPU`."""
    import apache_beam  # noqa: F401

    import kerasline.components.statistics_gen.statistics_proto  # noqa: F401
    from kerasline import CsvExampleGen, ExampleValidator, SchemaGen, StatisticsGen

    found = {}

    def run(stage, **options):
        clock, cpu = time.perf_counter(), time.process_time()
        done = stage.execute(Path(folder, stage.name), **options)
        found[stage.name] = time.perf_counter() - clock
        found[f"{stage.name}, CPU"] = time.process_time() - cpu
        return done

    examples = run(CsvExampleGen(csv)).examples
    statistics = run(StatisticsGen(examples), beam_options=beam_options).statistics
    schema = run(SchemaGen(statistics)).schema
    run(ExampleValidator(statistics, schema, fail_on="never"))
    return found


def plain(csv: str, folder: str, _options: list[str]) -> dict[str, float]:
    """Do the comparable part of the work with pyarrow alone, and return its seconds."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.csv as pcsv
    import pyarrow.parquet as pq

    clock = time.perf_counter()
    path = Path(folder, "plain.parquet")
    reader = pcsv.open_csv(csv, read_options=pcsv.ReadOptions(block_size=4 << 20))
    with pq.ParquetWriter(path, reader.schema, compression="zstd") as writer:
        for batch in reader:
            writer.write_batch(batch)
    written = time.perf_counter()
    for name in pq.read_schema(path).names:
        column = pq.read_table(path, columns=[name]).column(0)
        if pa.types.is_null(column.type):
            continue
        pc.count_distinct(column)
        _ = column.null_count  # counted on access
        if pa.types.is_string(column.type):
            pc.sum(pc.binary_length(column))
            column.value_counts()
        else:
            pc.min_max(column), pc.mean(column), pc.stddev(column), pc.approximate_median(column)
    return {"ExampleGen": written - clock, "StatisticsGen": time.perf_counter() - written}


def in_a_process(
    function: str, csv: Path, options: list[str], checkout: Path = REPOSITORY
) -> tuple[dict[str, float], float]:
    """Run a function of this file in a new process. Return its result and the peak memory in MB.

    Args:
        checkout: the version of the package to import.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            str(Path(__file__).resolve()),
            "--child",
            function,
            str(csv.resolve()),
            folder,
            json.dumps(options),
        ]
        environment = {**os.environ, "PYTHONPATH": str(checkout)}
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment, cwd=checkout)
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(f"{function} failed: {process.stderr.read()}")
    return json.loads(output.splitlines()[-1]), usage.ru_maxrss / 1024


def repeated(sample: Path, rows: int, folder: str) -> Path:
    lines = sample.read_bytes().rstrip(b"\n").split(b"\n")
    path = Path(folder, f"{rows}.csv")
    with path.open("wb") as file:
        file.write(lines[0] + b"\n")
        whole, rest = divmod(rows, len(lines) - 1)
        body = b"\n".join(lines[1:]) + b"\n"
        for _ in range(whole):
            file.write(body)
        file.write(b"\n".join(lines[1 : rest + 1]) + b"\n" if rest else b"")
    return path


def compare(csv: Path, rows: int, other: Path, rounds: int) -> None:
    """Print the lowest times of each stage in this version and in another one, measured alternately."""
    best: dict[Path, dict[str, float]] = {REPOSITORY: {}, other: {}}
    for _ in range(rounds):
        for checkout, least in best.items():
            found, peak = in_a_process("stages", csv, [], checkout)
            for name, value in {**found, "peak MB": peak}.items():
                least[name] = min(value, least.get(name, value))
    for name in best[REPOSITORY]:
        ours, theirs = best[REPOSITORY][name], best[other][name]
        print(f"| {rows:,} | {name} | {theirs:.2f} | {ours:.2f} | {ours / max(theirs, 1e-9):.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("csv", type=Path)
    parser.add_argument("--rows", type=int, nargs="*", default=[15_000, 150_000, 1_500_000, 15_000_000])
    parser.add_argument("--runners", nargs="*", default=list(RUNNERS), choices=list(RUNNERS))
    parser.add_argument("--against", type=Path, help="a checkout of another version to compare with")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if options.against:
        print("| rows | | other version | this version | ratio |\n|---:|---|---:|---:|---:|")
        for rows in options.rows:
            with tempfile.TemporaryDirectory() as folder:
                compare(repeated(options.csv, rows, folder), rows, options.against.resolve(), options.rounds)
        return
    print("| rows | runner | ExampleGen | StatisticsGen | SchemaGen and ExampleValidator | total | rows/s | peak MB |")
    print("|---:|---|---:|---:|---:|---:|---:|---:|")
    for rows in options.rows:
        with tempfile.TemporaryDirectory() as folder:
            csv = repeated(options.csv, rows, folder)
            for name in ["plain pyarrow", *options.runners]:
                function = "plain" if name == "plain pyarrow" else "stages"
                found, peak = in_a_process(function, csv, RUNNERS.get(name, []))
                total = sum(seconds for stage, seconds in found.items() if not stage.endswith("CPU"))
                rest = total - found["ExampleGen"] - found["StatisticsGen"]
                print(
                    f"| {rows:,} | {name} | {found['ExampleGen']:.2f} | {found['StatisticsGen']:.2f} | "
                    f"{rest:.2f} | {total:.2f} | {rows / total:,.0f} | {peak:,.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        _, _, child, csv, folder, options = sys.argv
        print(json.dumps({"plain": plain, "stages": stages}[child](csv, folder, json.loads(options))))
    else:
        main()
