"""Small real problems as artifacts: rows in several shards, preprocessing, and a Keras model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from kerasline import Evaluator
from kerasline.components.core.artifacts import Examples, Model, Preprocessing
from kerasline.components.data.label_columns import column_spec


@dataclass(frozen=True)
class Problem:
    """Artifacts, and what they were made of."""

    examples: Examples
    preprocessing: Preprocessing
    model: Model
    columns: Mapping[str, Any]
    keras_model: Any

    @property
    def answers(self) -> Any:
        """The model's raw answers to all rows."""
        return self.keras_model.predict({"x": self.columns["x"]}, batch_size=1024, verbose=0)


def problem(
    folder: Path,
    columns: Mapping[str, Any],
    model: Any,
    label: Any,
    *,
    weight: str | None = None,
    class_names: Any = None,
    shards: int = 3,
) -> Problem:
    """Writes all artifacts; the model takes the column `x` as it is."""
    import keras

    for name in ("examples/test", "preprocessing", "model"):
        (folder / name).mkdir(parents=True)
    table = pa.table({name: _column(values) for name, values in columns.items()})
    ends = np.linspace(0, len(table), shards + 1).astype(int)
    entries = []
    for number, (start, end) in enumerate(zip(ends, ends[1:])):
        path = f"test/{number:05d}.parquet"
        pq.write_table(table.slice(start, end - start), folder / "examples" / path, row_group_size=200)
        entries.append({"path": path, "rows": int(end - start)})
    examples = Examples(folder / "examples")
    examples.write_json(Examples.MANIFEST, {"splits": {"test": entries, "empty": []}})
    x = keras.Input(np.shape(columns["x"])[1:], name="x")
    keras.Model({"x": x}, {"x": keras.layers.Identity()(x)}).save(folder / "preprocessing" / Preprocessing.FILE)
    preprocessing = Preprocessing(folder / "preprocessing")
    specs = {}
    for name in [*([label] if isinstance(label, str) else label or []), *([weight] if weight else [])]:
        dtype, shape = column_spec(examples, name)
        specs[name] = {"dtype": dtype, "shape": shape}
    facts = {
        "label": label,
        "sample_weight": weight,
        "features": ["x"],
        "label_specs": specs,
        "class_names": class_names,
        "state": [],
    }
    preprocessing.write_json(Preprocessing.FACTS, facts)
    model.save(folder / "model" / Model.FILE)
    return Problem(examples, preprocessing, Model(folder / "model"), columns, model)


def _column(values: Any) -> Any:
    if isinstance(values, np.ndarray) and values.ndim > 1:
        return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(values))
    return values if isinstance(values, pa.Array) else pa.array(values)


def evaluated(given: Problem, folder: Path, beam_options: Any = (), **parameters: Any) -> Any:
    """What the Evaluator gives, with `entries`: the figures by (slicing, slice, metric), of outputs by
    (output, slicing, slice, metric)."""
    component = Evaluator(given.examples, given.preprocessing, given.model, **parameters)
    done = component.execute(folder, **({"beam_options": beam_options} if beam_options else {}))
    done.document = done.evaluation.read_json("metrics.json")
    done.entries = {}
    for entry in done.document["metrics"]:
        done.entries[entry["slicing"], entry["slice"], entry["metric"]] = entry
        done.entries[entry["output"], entry["slicing"], entry["slice"], entry["metric"]] = entry
    done.values = {metric: e["value"] for (*where, metric), e in done.entries.items() if where == ["", ""]}
    return done


def predictions(done: Any) -> pa.Table:
    """All rows of the predictions, in the order of their files."""
    files = sorted((done.evaluation.path / "predictions").iterdir())
    return pa.concat_tables([pq.read_table(file) for file in files], promote_options="default")
