"""Measure Evaluator: `python benchmarks/evaluation.py metrics|inference|taxi [--taxi CSV]`.

Each measurement has its own process, without imports, and all sides are measured in one run:
- metrics: stored binary predictions, 20 slices and 15 metrics with intervals, for a growing number of rows;
- inference: Evaluator's predictions of a million rows, compared with `model.predict` of the same Keras model with its
  preprocessing, on arrays of the same rows in memory, with the same batch size;
- taxi: the whole Evaluator on the held-out rows of the taxi recipe, with one slicing into three slices.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))
from benchmarks.preprocessing import Watch  # noqa: E402
from benchmarks.recipe_runs import run_recipe  # noqa: E402

SLICES = 20
SHARD_ROWS = 8 * 65536


def metrics(rows: int) -> dict[str, Any]:
    """Measure and estimate metrics of predictions in Parquet files."""
    from kerasline.components.core.component import Context
    from kerasline.components.metrics.binary import BinaryLosses, BinaryScores, BinaryThresholds
    from kerasline.components.metrics.measuring import Measure, measure
    from kerasline.components.metrics.metric_values import ALL_OTHERS, estimate
    from kerasline.components.metrics.resampling import Resampling
    from kerasline.components.metrics.slices import SliceTable

    names = tuple(f"slice {number}" for number in range(SLICES))
    with tempfile.TemporaryDirectory() as folder:
        files = _write_predictions(Path(folder), rows, names)
        families = {"o": (BinaryThresholds(), BinaryScores(), BinaryLosses())}
        request = Measure(families, SliceTable({"s": names}, {"s": 0}), Resampling(0, 200), weighted=False)
        with Watch() as watch:
            measured = measure(Path(folder), files, request, Context(Path(folder)))
            compared = [None, *[ALL_OTHERS] * SLICES]
            estimates = [estimate(measured, request, "o", g, compared=other) for g, other in enumerate(compared)]
            intervals = [figures.estimate.interval(0.95) for one in estimates for figures in one.values()]
    return watch.figures(rows=rows, metrics=len(estimates[0]), intervals=len(intervals))


def _write_predictions(folder: Path, rows: int, names: tuple[str, ...]) -> list[str]:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    random, files = np.random.default_rng(0), []
    for start in range(0, rows, SHARD_ROWS):
        count = min(SHARD_ROWS, rows - start)
        score = (1 / (1 + np.exp(-random.normal(0, 2, count)))).astype(np.float32)
        label = (random.random(count) < score).astype(np.int64)
        slices = pa.array(names).take(pa.array(random.integers(0, len(names), count))).dictionary_encode()
        columns = {"row": np.arange(start, start + count), "label.o": label, "prediction.o": score, "slice.s": slices}
        files.append(f"{start:012d}.parquet")
        pq.write_table(pa.table(columns), folder / files[-1], compression="zstd", row_group_size=65536)
    return files


def _taxi(folder: Path, taxi: str, rows: int | None) -> dict[str, Any]:
    """Run the taxi recipe up to Exporter, and return its artifacts, with the test rows repeated to `rows`."""
    from kerasline.components.core.artifacts import Examples, Model, Preprocessing, SavedModel

    nodes, _ = run_recipe("taxi", folder / "root", [f"ExampleGen.input={taxi}"], last="Exporter")
    outputs = {name: node["outputs"] for name, node in nodes.items()}
    examples = Examples(outputs["ExampleGen"]["examples"])
    return {
        "examples": examples if rows is None else _repeated(examples, folder / "many", rows),
        "preprocessing": Preprocessing(outputs["Transform"]["preprocessing"]),
        "model": Model(outputs["Trainer"]["trained_model"]),
        "saved_model": SavedModel(outputs["Exporter"]["saved_model"]),
    }


def _repeated(examples: Any, folder: Path, rows: int) -> Any:
    from kerasline.components.core.artifacts import Examples
    from kerasline.components.data.shards import ExamplesWriter

    table = examples.read("test").combine_chunks()
    folder.mkdir()
    with ExamplesWriter(Examples(folder), ["test"]) as writer:
        for _ in range(-(-rows // len(table))):
            for batch in table.to_batches():
                writer.write("test", batch)
    return Examples(folder)


def inference(taxi: str, rows: int, side: str, batch_size: int) -> dict[str, Any]:
    """Measure one side: `evaluator` writes predictions to Parquet, `predict` is Keras's on arrays in memory."""
    import numpy as np

    from kerasline.components.data.model_inputs import feed

    with tempfile.TemporaryDirectory() as folder:
        artifacts = _taxi(Path(folder), taxi, rows)
        examples = artifacts["examples"]
        preprocessing, model = artifacts["preprocessing"].load(), artifacts["model"].load()
        if side == "evaluator":
            from types import SimpleNamespace

            from kerasline.components.core.artifacts import Blessing, Evaluation
            from kerasline.components.core.component import Context
            from kerasline.components.evaluator.component import Evaluator
            from kerasline.components.evaluator.evaluate import Evaluating
            from kerasline.components.metrics.slices import SliceTable
            from kerasline.components.models.prediction_files import predict

            stage = Evaluator(examples, artifacts["preprocessing"], artifacts["model"], batch_size=batch_size)
            outputs = SimpleNamespace(evaluation=Evaluation(Path(folder)), blessing=Blessing(Path(folder)))
            context = Context(Path(folder))
            inputs = stage.input_artifacts(stage.inputs)
            work = Evaluating(inputs, outputs, stage.settings, context, awaits_baseline=False)
            plan = work.plan([], SliceTable({}, {}))
            with Watch() as watch:
                predict(examples, "test", plan, context)
        else:
            import keras
            import tensorflow as tf

            raw = {name: keras.Input(t.shape[1:], name=name, dtype=t.dtype) for name, t in preprocessing.input.items()}
            prepared = dict(preprocessing(raw))
            whole = keras.Model(raw, model({name: prepared[name] for name in model.input}))
            parts = [feed(batch, preprocessing.input) for batch in examples.batches("test")]
            arrays = {name: tf.constant(np.concatenate([part[name] for part in parts])) for name in raw}
            with Watch() as watch:
                whole.predict(arrays, batch_size=batch_size, verbose=0)
    return watch.figures(side=side, rows=rows)


def taxi(taxi: str) -> dict[str, Any]:
    """Measure the whole Evaluator in a process that has only imported its modules."""
    import kerasline.components.evaluator.evaluate  # noqa: F401
    from kerasline.components.evaluator.component import Evaluator

    with tempfile.TemporaryDirectory() as folder:
        artifacts = _taxi(Path(folder), taxi, None)
        artifacts.pop("saved_model")
        with Watch() as watch:
            Evaluator(**artifacts, slices=["payment_type"]).execute(Path(folder) / "out")
    return watch.figures()


def _in_a_process(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, __file__, *arguments, "--here"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["metrics", "inference", "taxi"])
    parser.add_argument("--taxi")
    parser.add_argument("--rows", type=int)
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--side", default="evaluator")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        calls = {
            "metrics": lambda: metrics(options.rows),
            "inference": lambda: inference(options.taxi, options.rows, options.side, options.batch_size),
            "taxi": lambda: taxi(options.taxi),
        }
        print(json.dumps(calls[options.part]()))
        return
    if options.part == "metrics":
        for rows in [options.rows] if options.rows else [100_000, 1_000_000, 10_000_000]:
            print(_in_a_process("metrics", "--rows", str(rows)))
    elif options.part == "taxi":
        for _ in range(options.rounds):
            print(_in_a_process("taxi", "--taxi", options.taxi))
    else:
        common = ("--taxi", options.taxi, "--rows", str(options.rows or 1_000_000))
        common += ("--batch-size", str(options.batch_size))
        ratios = []
        for _ in range(options.rounds):
            evaluator, keras = (
                _in_a_process("inference", *common, "--side", side) for side in ("evaluator", "predict")
            )
            ratios.append(evaluator["seconds"] / keras["seconds"])
            print(evaluator, keras, f"ratio {ratios[-1]:.2f}")
        print(f"median ratio {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
