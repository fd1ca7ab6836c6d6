"""Measure BulkInferrer: `python benchmarks/inference.py --taxi CSV`.

The exported model of the taxi recipe predicts the repeated rows of the sample, and two columns are kept. Each
measurement has its own process, which has only imported its modules. "own memory" is the peak of its private memory,
without its workers'. With `spoilt`, every thousandth row has a list that the model cannot accept.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))
from benchmarks.preprocessing import Watch  # noqa: E402
from benchmarks.recipe_runs import run_recipe  # noqa: E402


def exported(folder: Path, taxi: str) -> dict[str, str]:
    """Run the taxi recipe up to Exporter, and return the paths of its examples and its SavedModel."""
    nodes, _ = run_recipe("taxi", folder / "root", [f"ExampleGen.input={taxi}"], last="Exporter")
    found = {name: path for node in nodes.values() for name, path in node["outputs"].items()}
    return {name: found[name] for name in ("examples", "saved_model")}


def repeated(examples: Any, folder: Path, rows: int, spoilt: bool) -> Any:
    """Repeat the training rows to `rows`. If spoilt, `fare` is a list, which is too long in every thousandth row."""
    import numpy as np
    import pyarrow as pa

    from kerasline.components.core.artifacts import Examples
    from kerasline.components.data.shards import ExamplesWriter

    (batch,) = examples.read("train").combine_chunks().to_batches()
    with ExamplesWriter(Examples(folder), ["train"]) as writer:
        for first in range(0, rows, len(batch)):
            part = batch.slice(0, rows - first)
            if spoilt:
                lengths = np.where(np.arange(first, first + len(part)) % 1000 == 0, 2, 1)
                ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
                fares = part.column("fare").take(pa.array(np.repeat(np.arange(len(part)), lengths)))
                lists = pa.ListArray.from_arrays(pa.array(ends), fares)
                part = part.set_column(part.schema.get_field_index("fare"), "fare", lists)
            writer.write("train", part)
    return Examples(folder)


def measured(folder: Path, rows: int, batch_size: int, processes: int, spoilt: bool) -> dict[str, Any]:
    import apache_beam  # noqa: F401

    import kerasline.components.bulk_inferrer.inference  # noqa: F401
    from kerasline import BulkInferrer
    from kerasline.components.core.artifacts import Examples, SavedModel

    paths = json.loads((folder / "exported.json").read_text())
    options = [f"--direct_num_workers={processes}", "--direct_running_mode=multi_processing"] if processes > 1 else []
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "many").mkdir()
        examples = repeated(Examples(paths["examples"]), Path(scratch) / "many", rows, spoilt)
        stage = BulkInferrer(
            SavedModel(paths["saved_model"]), examples, keep=["company", "trip_start_timestamp"], batch_size=batch_size
        )
        with Watch() as watch:
            done = stage.execute(Path(scratch) / "out", beam_options=options)
        bad = rows // 1000 if spoilt else 0
        if done.metrics != {"rows": rows - bad, "quarantined": bad}:
            raise SystemExit(f"{done.metrics}: rows were lost")
    return watch.figures(
        rows=rows, rows_a_second=round(rows / watch.seconds), batch=batch_size, processes=processes, spoilt=spoilt
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--taxi", required=True)
    parser.add_argument("--here", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        folder, *numbers = options.here
        rows, batch_size, processes, spoilt = map(int, numbers)
        print(json.dumps(measured(Path(folder), rows, batch_size, processes, bool(spoilt))))
        return
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "exported.json").write_text(json.dumps(exported(Path(folder), options.taxi)))
        for case in (
            (100_000, 4096, 1, 0),
            (1_000_000, 4096, 1, 0),
            (1_000_000, 1024, 1, 0),
            (4_000_000, 4096, 1, 0),
            (1_000_000, 4096, 2, 0),
            (1_000_000, 4096, 1, 1),
        ):
            command = [sys.executable, __file__, "--taxi", options.taxi, "--here", folder, *map(str, case)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            print(done.stdout.splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()
