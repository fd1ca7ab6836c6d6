"""Draws of real rows from a split."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kerasline.components.core.artifacts import Examples, TensorForm
from kerasline.components.core.errors import DataError
from kerasline.components.data import shards
from kerasline.components.infra_validator.cases import draw_rows

INPUTS = {"n": TensorForm("int64", (None, 1))}


@pytest.fixture
def examples(tmp_path):
    """Rows 0 to 99 in two shards, with row groups of 7."""
    (tmp_path / "test").mkdir()
    files = []
    for name, numbers in (("test/0.parquet", range(60)), ("test/1.parquet", range(60, 100))):
        table = pa.table({"other": [0.5] * len(numbers), "n": list(numbers)})
        pq.write_table(table, tmp_path / name, row_group_size=7)
        files.append({"path": name, "rows": len(numbers)})
    examples = Examples(tmp_path)
    examples.write_json(Examples.MANIFEST, {"splits": {"test": files}})
    return examples


def test_rows_are_drawn_in_order_without_repetition_by_seed(examples):
    drawn = draw_rows(examples, "test", INPUTS, rows=20, seed=1)["n"][:, 0]
    assert len(set(drawn.tolist())) == 20 and (np.diff(drawn) > 0).all()
    assert (draw_rows(examples, "test", INPUTS, rows=20, seed=1)["n"][:, 0] == drawn).all()
    assert (draw_rows(examples, "test", INPUTS, rows=20, seed=2)["n"][:, 0] != drawn).any()


def test_small_split_is_used_completely(examples):
    assert draw_rows(examples, "test", INPUTS, rows=1000, seed=0)["n"][:, 0].tolist() == list(range(100))


def test_row_that_cannot_be_fed_is_omitted(make_examples):
    inputs = {"flag": TensorForm("bool", (None, 1))}
    drawn = draw_rows(make_examples({"test": {"flag": [True, None, False]}}), "test", inputs, rows=3, seed=0)
    assert drawn["flag"].tolist() == [[True], [False]]
    nothing = pa.RecordBatch.from_pydict({"flag": pa.array([None, None], pa.bool_())})
    nothing = make_examples({"test": nothing}, name="nothing")
    with pytest.raises(DataError, match="flag"):
        draw_rows(nothing, "test", inputs, rows=3, seed=0)


def test_rows_may_contain_images(tmp_path):
    image = pa.FixedShapeTensorArray.from_numpy_ndarray(np.arange(40, dtype=np.uint8).reshape(10, 2, 2))
    examples = Examples(tmp_path)
    with shards.ExamplesWriter(examples, ["test"]) as writer:
        writer.write("test", pa.RecordBatch.from_pydict({"image": image}))
    drawn = draw_rows(examples, "test", {"image": TensorForm("uint8", (None, 2, 2))}, rows=10, seed=0)["image"]
    assert drawn.shape == (10, 2, 2) and drawn[9].tolist() == [[36, 37], [38, 39]]


def test_empty_split_is_an_error(make_examples):
    nothing = pa.RecordBatch.from_pydict({"n": pa.array([], pa.int64())})
    with pytest.raises(DataError, match="InfraValidator.split: split 'test' has no rows"):
        draw_rows(make_examples({"train": {"n": [1]}, "test": nothing}), "test", INPUTS, rows=1, seed=0)
