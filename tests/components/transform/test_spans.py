"""States of parts of the rows are cached, so that no part is analyzed twice."""

import keras
import numpy as np
import pytest

from kerasline import ParquetExampleGen, Transform
from kerasline.components.core.component import Context


def preprocessing():
    size, word = keras.Input((1,), name="size"), keras.Input((1,), name="word", dtype="string")
    scaled = keras.layers.Normalization(name="scaled")(size)
    outputs = {
        "size": scaled,
        "bin": keras.layers.Discretization(num_bins=4, name="bin")(scaled),
        "word": keras.layers.StringLookup(name="word_index")(word),
    }
    return keras.Model({"size": size, "word": word}, outputs)


@pytest.fixture
def spans(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    random = np.random.default_rng(2)
    for span in range(10):
        table = pa.table(
            {
                "size": random.normal(span, 2, 400),
                "word": random.choice(["a", "b", "c"], 400),
                "unused": random.normal(size=400),
            }
        )
        pq.write_table(table, tmp_path / f"span-{span}.parquet")
    return f"{tmp_path}/span-{{SPAN}}.parquet"


def run(tmp_path, pattern, span, name, function=preprocessing):
    examples = ParquetExampleGen(pattern, span=span, splits={"train": 3, "eval": 1}).execute(tmp_path / name / "ex")
    transform = Transform(examples.examples, function=function)
    return transform.execute(tmp_path / name / "tr", cache_dir=tmp_path / "cache")


def test_only_a_new_span_is_analyzed(tmp_path, spans):
    first = run(tmp_path, spans, "0:8", "nine")
    assert "remembered" not in first.metrics
    again = run(tmp_path, spans, "0:8", "again")
    assert again.metrics["remembered"] == "18 of 18 parts"  # nine in each of two passes
    ten = run(tmp_path, spans, "0:9", "ten")
    # The second pass sees sizes scaled by another mean: only the first is remembered.
    assert ten.metrics["remembered"] == "9 of 20 parts"
    window = run(tmp_path, spans, "last 9", "window")
    assert window.metrics["remembered"] == "9 of 18 parts"


def test_cached_states_give_the_same_state(tmp_path, spans):
    run(tmp_path, spans, "0:8", "nine")
    ours = run(tmp_path, spans, "0:9", "ten").preprocessing.load()
    examples = ParquetExampleGen(spans, span="0:9", splits={"train": 3, "eval": 1}).execute(tmp_path / "e").examples
    fresh = Transform(examples, function=preprocessing).execute(tmp_path / "fresh").preprocessing.load()
    for name in ("scaled", "word_index", "bin"):
        for one, other in zip(ours.get_layer(name).weights, fresh.get_layer(name).weights, strict=True):
            np.testing.assert_array_equal(one, other)
    assert ours.get_layer("word_index").get_vocabulary() == fresh.get_layer("word_index").get_vocabulary()
    assert ours.get_layer("bin").bin_boundaries == fresh.get_layer("bin").bin_boundaries


def narrower():
    size = keras.Input((1,), name="size")
    return keras.Model({"size": size}, {"bin": keras.layers.Discretization(num_bins=3)(size)})


def test_other_layers_share_no_cached_state(tmp_path, spans):
    run(tmp_path, spans, "0:3", "first")
    assert "remembered" not in run(tmp_path, spans, "0:3", "other", narrower).metrics


def test_automatic_names_of_keras_do_not_matter(tmp_path, spans):
    run(tmp_path, spans, "0:3", "first", narrower)
    assert run(tmp_path, spans, "0:3", "again", narrower).metrics["remembered"] == "4 of 4 parts"


def test_damaged_cache_file_is_computed_again(tmp_path, spans):
    run(tmp_path, spans, "0:3", "first", narrower)
    files = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    files[0].write_bytes(b"")
    files[1].write_bytes(files[1].read_bytes()[:-1] + b"?")
    assert run(tmp_path, spans, "0:3", "again", narrower).metrics["remembered"] == "2 of 4 parts"
    assert Context(tmp_path).cache_dir is None
