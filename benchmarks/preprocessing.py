"""Measure Transform and the training input: `python benchmarks/preprocessing.py --taxi CSV`.

Each measurement has its own process, without imports:
- adapt: Transform with the preprocessing of the taxi recipe, and Keras's `adapt()` of the same layers;
- span: Transform over ten spans, with the cached results of nine of them and of none;
- input: rows per second of the training input with batches of 1,024 and the taxi preprocessing, and the peak of the
  private memory of the process;
- images: Fashion-MNIST stored as PNG and decoded in preprocessing, compared with the training of the article's network
  on prepared images;
- vocabulary: ten million distinct texts.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))
FASHION = Path("/usr/share/datasets/fashion-mnist")


def own_megabytes() -> float:
    """Return the private memory of this process, without pages of mapped files, which the system can reclaim."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    raise OSError("no RssAnon in /proc/self/status")


class Watch:
    """Measures the seconds, and the peak of `own_megabytes`, of its block."""

    def __enter__(self) -> Watch:
        self.megabytes, self._done = own_megabytes(), threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        self._clock = time.perf_counter()
        return self

    def _look(self) -> None:
        while not self._done.wait(0.02):
            self.megabytes = max(self.megabytes, own_megabytes())

    def __exit__(self, *_error: Any) -> None:
        self.seconds = time.perf_counter() - self._clock
        self._done.set()
        self._thread.join()

    def figures(self, **more: Any) -> dict[str, Any]:
        return {"seconds": round(self.seconds, 2), "own_megabytes": round(self.megabytes), **more}


def taxi_examples(taxi: Path, rows: int, folder: Path) -> Any:
    from benchmarks.data_plane import repeated
    from kerasline import CsvExampleGen

    csv = repeated(taxi, rows, str(folder))
    return CsvExampleGen(str(csv), splits={"train": 1}).execute(folder / "examples").examples


def adapt(taxi: Path, rows: int, folder: Path) -> dict[str, Any]:
    import apache_beam  # noqa: F401
    import tensorflow  # noqa: F401

    from kerasline import Transform
    from kerasline.pipeline.recipes.taxi import preprocessing

    examples = taxi_examples(taxi, rows, folder)
    with Watch() as watch:
        Transform(examples, function=preprocessing, label="big_tipper").execute(folder / "transform")
    return watch.figures(rows_a_second=round(rows / watch.seconds))


def keras_adapt(taxi: Path, rows: int, folder: Path) -> dict[str, Any]:
    import tensorflow as tf

    from kerasline.components.data.model_inputs import feed
    from kerasline.components.preprocessing.adaptation import new_state
    from kerasline.components.preprocessing.adaptation.graph import calls
    from kerasline.pipeline.recipes.taxi import preprocessing

    examples = taxi_examples(taxi, rows, folder)
    with Watch() as watch:
        model = preprocessing()
        columns = feed(examples.read("train", list(model.input)), model.input)
        for layer in model.layers:
            if new_state(layer) is not None:
                ((tensor,),) = calls(model, layer)
                name = next(name for name, other in model.input.items() if other is tensor)
                if columns[name].dtype.kind == "i" and (columns[name] == -1).all():
                    continue  # Keras's `adapt` fails if all values are missing
                layer.adapt(tf.data.Dataset.from_tensor_slices(columns[name]).batch(65536))
    return watch.figures(rows_a_second=round(rows / watch.seconds))


def span(taxi: Path, rows: int, folder: Path) -> dict[str, Any]:
    import apache_beam  # noqa: F401
    import pyarrow.csv as pc
    import pyarrow.parquet as pq
    import tensorflow  # noqa: F401

    from benchmarks.data_plane import repeated
    from kerasline import ParquetExampleGen, Transform
    from kerasline.pipeline.recipes.taxi import preprocessing

    table = pc.read_csv(repeated(taxi, rows // 10, str(folder)))
    for number in range(10):  # spans that differ in every number of at least one column
        fares = table["fare"].to_numpy() + number / 100
        place = table.schema.names.index("fare")
        pq.write_table(table.set_column(place, "fare", [fares]), folder / f"span-{number}.parquet")
    found = {}
    for name, spans in (("nine", "0:8"), ("ten after nine", "0:9")):
        gen = ParquetExampleGen(f"{folder}/span-{{SPAN}}.parquet", span=spans, splits={"train": 1})
        examples = gen.execute(folder / name).examples
        with Watch() as watch:
            transform = Transform(examples, function=preprocessing, label="big_tipper")
            done = transform.execute(folder / f"{name} out", cache_dir=folder / "cache")
        found[f"{name}, seconds"] = round(watch.seconds, 2)
    few = ParquetExampleGen(f"{folder}/span-0.parquet", splits={"train": 1, "rest": 10_000}).execute(folder / "few")
    with Watch() as watch:
        Transform(few.examples, function=preprocessing, label="big_tipper").execute(folder / "few out")
    found["very few rows, seconds"] = round(watch.seconds, 2)
    with Watch() as watch:
        Transform(examples, function=preprocessing, label="big_tipper").execute(folder / "fresh")
    return {
        **found,
        "ten after none, seconds": round(watch.seconds, 2),
        "remembered": done.metrics["remembered"],
    }


def input_rows(taxi: Path, rows: int, folder: Path) -> dict[str, Any]:
    from kerasline import Transform
    from kerasline.components.data.training_input import dataset
    from kerasline.pipeline.recipes.taxi import preprocessing

    examples = taxi_examples(taxi, rows, folder)
    prepared = Transform(examples, function=preprocessing, label="big_tipper").execute(folder / "t").preprocessing
    with Watch() as storing:
        data = dataset(examples, "train", prepared, batch_size=1024, work_dir=folder, seed=1, epochs=None)
        next(iter(data))
    figures = _draw(data, 1024, 4_000_000)
    return {**figures, "first_batch_seconds": round(storing.seconds, 2)}


def _draw(data: Any, batch_size: int, rows: int) -> dict[str, Any]:
    """Read `rows` rows as training does: in TensorFlow, without Python between batches."""
    import tensorflow as tf

    with Watch() as watch:
        data.take(rows // batch_size).reduce(tf.constant(0), lambda count, _: count + 1).numpy()
    return watch.figures(rows_a_second=round(rows / watch.seconds))


def images(_taxi: Path, rows: int, folder: Path) -> dict[str, Any]:
    import gzip

    import keras
    import numpy as np
    import pyarrow as pa
    import tensorflow as tf

    from kerasline import InMemoryExampleGen, Transform
    from kerasline.components.data.training_input import dataset
    from kerasline.components.preprocessing.features import Image
    from kerasline.pipeline.recipes.fashion_mnist import build_model

    with gzip.open(FASHION / "train-images-idx3-ubyte.gz") as file:
        pixels = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28, 1)[:rows]
    encoded = [tf.io.encode_png(image).numpy() for image in pixels]
    table = pa.table({"image": pa.array(encoded, pa.binary()), "label": np.arange(len(encoded)) % 10})
    examples = InMemoryExampleGen(table, splits={"train": 1}).execute(folder / "examples").examples
    features = {"image": Image((28, 28), channels=1)}
    prepared, stored = (
        Transform(examples, features=features, label="label", materialize=way).execute(folder / f"t{way}")
        for way in (False, True)
    )
    found: dict[str, Any] = {"bytes_an_image": round(sum(map(len, encoded)) / len(encoded))}
    inputs = {"pixels": keras.Input((784,), name="pixels")}
    model = build_model(inputs, {"hidden": [128, 64], "learning_rate": 0.01, "momentum": 0.9})
    model.steps_per_execution = 32
    ready = {"pixels": (pixels.reshape(-1, 784) / 255).astype("float32")}
    in_memory = tf.data.Dataset.from_tensor_slices((ready, np.arange(len(pixels)) % 10))
    in_memory = in_memory.batch(64, drop_remainder=True).cache().prefetch(16)
    ways = {
        name: dataset(examples, "train", way.preprocessing, batch_size=64, work_dir=folder, seed=1, epochs=None)
        for name, way in (("decoded", prepared), ("materialized", stored))
    }
    model.fit(in_memory, verbose=0)
    rates: dict[str, list[int]] = {"decoded": [], "materialized": [], "trained on": []}
    for _ in range(5):  # in turn, because the speed of the machine varies
        for name, data in ways.items():
            rates[name].append(_draw(data, 64, 4 * len(encoded))["rows_a_second"])
        with Watch() as watch:
            model.fit(in_memory, verbose=0)
        rates["trained on"].append(round(len(pixels) / watch.seconds))
    medians = {f"{name} a second, batch 64": statistics.median(found) for name, found in rates.items()}
    for name in ways:
        ratios = [a / b for a, b in zip(rates[name], rates["trained on"])]
        found[f"{name} to trained on"] = f"{min(ratios):.2f} to {max(ratios):.2f}"
    return {**found, **medians}


def vocabulary(_taxi: Path, rows: int, folder: Path) -> dict[str, Any]:
    import apache_beam  # noqa: F401
    import keras
    import numpy as np
    import pyarrow as pa

    from kerasline import Transform
    from kerasline.components.core.artifacts import Examples
    from kerasline.components.data.shards import ExamplesWriter

    random = np.random.default_rng(1)
    (folder / "examples").mkdir()
    examples = Examples(folder / "examples")
    with ExamplesWriter(examples, ["train"]) as writer:
        for start in range(0, rows, 1 << 18):  # each text once, and 1,000 others many times
            size = min(1 << 18, rows - start)
            known = [f"frequent {n}" for n in np.minimum(random.zipf(1.1, size // 2), 10**9) % 1000]
            texts = known + [f"text number {n}" for n in range(start, start + size)]
            writer.write("train", pa.RecordBatch.from_pydict({"text": texts}))

    def preprocessing() -> keras.Model:
        text = keras.Input((1,), name="text", dtype="string")
        lookup = keras.layers.StringLookup(max_tokens=501, name="lookup")
        return keras.Model({"text": text}, {"text": lookup(text)})

    found, words = {}, {}
    for most in (100_000, None):
        with Watch() as watch:
            transform = Transform(examples, function=preprocessing, most_counted=most)
            done = transform.execute(folder / f"out {most}").preprocessing
        words[most] = done.load().get_layer("lookup").get_vocabulary()
        figures = watch.figures(counts_too_low_by=done.facts["state"][0]["too_low_by"])
        found[f"most_counted={most}"] = figures
    return {**found, "the same 500 words, in order": words[100_000] == words[None]}


MEASURES: dict[str, tuple[Callable[[Path, int, Path], dict[str, Any]], list[int]]] = {
    "adapt": (adapt, [15_000, 1_500_000]),
    "keras_adapt": (keras_adapt, [15_000, 1_500_000]),
    "span": (span, [6_000_000]),
    "input": (input_rows, [150_000, 1_500_000, 15_000_000]),
    "images": (images, [60_000]),
    "vocabulary": (vocabulary, [10_000_000]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--taxi", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=list(MEASURES), choices=list(MEASURES))
    options = parser.parse_args()
    for name in options.only:
        for rows in MEASURES[name][1]:
            command = [sys.executable, __file__, "--child", name, str(options.taxi), str(rows)]
            done = subprocess.run(
                command, capture_output=True, text=True, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
            )
            if done.returncode:
                raise SystemExit(f"{name} failed: {done.stderr}")
            print(f"{name:12} {rows:>11,} rows  {done.stdout.splitlines()[-1]}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        _, _, child, csv, count = sys.argv
        with tempfile.TemporaryDirectory() as temporary:
            print(json.dumps(MEASURES[child][0](Path(csv), int(count), Path(temporary))))
    else:
        main()
