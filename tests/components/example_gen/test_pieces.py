"""Data are ingested in pieces, by workers or in this process, with the same bytes either way.

Beam's Python job service acts as the engine. Its workers are threads of this process.
"""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kerasline import CsvExampleGen, JsonExampleGen, ParquetExampleGen
from kerasline.components.core.artifacts import Examples
from kerasline.components.core.errors import DataError
from kerasline.components.data.sources import source

ENGINE = ["--runner=PortableRunner", "--job_endpoint=embed", "--environment_type=LOOPBACK"]
PIECE = 2000


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(source, "PIECE_BYTES", PIECE)


@pytest.fixture
def both(tmp_path):
    """Return a function that runs a stage locally and on the engine and returns its examples if the bytes are equal."""

    def run(stage):
        here, there = (
            stage.execute(tmp_path / name, beam_options=options).examples
            for name, options in (("here", []), ("there", ENGINE))
        )
        assert files_of(here) == files_of(there)
        assert sum(len(here.shards(split)) for split in here.splits) > len(here.splits)
        return here

    return run


def files_of(examples):
    return {str(f.relative_to(examples.path)): f.read_bytes() for f in examples.path.rglob("*") if f.is_file()}


def everything(examples):
    return pa.concat_tables(examples.read(split) for split in examples.splits).to_pandas()


def assert_rows(examples, frame):
    found = everything(examples).sort_values("row").reset_index(drop=True)
    pd.testing.assert_frame_equal(found[list(frame)].astype(frame.dtypes), frame)


@pytest.fixture
def frame():
    """Quoted line breaks, nulls, and columns whose types appear late."""
    rows = np.arange(700)
    return pd.DataFrame(
        {
            "row": rows,
            "text": [f'say "{number}",\nplease' if number % 3 else "plain" for number in rows],
            "fraction": [float(number) if number < 600 else number + 0.5 for number in rows],
            "late": pd.Series(rows * 2, dtype="Int64").mask(rows < 650),
        }
    )


def test_large_csv_file_is_ingested_in_pieces(both, tmp_path, frame):
    frame.to_csv(tmp_path / "rows.csv", index=False)
    examples = both(CsvExampleGen(str(tmp_path / "rows.csv")))
    assert_rows(examples, frame)


def test_small_files_share_pieces(both, tmp_path, frame):
    for number, start in enumerate(range(0, 700, 50)):
        frame[start : start + 50].to_csv(tmp_path / f"{number:02d}.csv{'.gz' if number % 4 == 3 else ''}", index=False)
    assert_rows(both(CsvExampleGen(str(tmp_path / "*.csv*"))), frame)


def test_located_splits_are_ingested_in_pieces(both, tmp_path, frame):
    frame[:400].to_csv(tmp_path / "one.csv", index=False)
    frame[400:].to_csv(tmp_path / "two.csv", index=False)
    examples = both(CsvExampleGen(str(tmp_path), splits={"train": "one.csv", "eval": "two.csv"}))
    assert [examples.read(split).column("row").to_pylist() for split in ("train", "eval")] == [
        list(range(400)),
        list(range(400, 700)),
    ]


def test_first_file_decides_the_types(both, tmp_path):
    (tmp_path / "train.csv").write_text("row,zip\n" + "".join(f"{i},N{i}\n" for i in range(50)))
    (tmp_path / "eval.csv").write_text("row,zip\n" + "".join(f"{i},{10000 + i}\n" for i in range(900)))
    examples = both(CsvExampleGen(str(tmp_path), splits={"train": "train.csv", "eval": "eval.csv"}))
    assert examples.read("eval")["zip"].to_pylist() == [str(10000 + i) for i in range(900)]
    for span, name in ((1, "train"), (2, "eval")):
        (tmp_path / f"{name}.csv").rename(tmp_path / f"zips-{span}.csv")
    spans = CsvExampleGen(str(tmp_path / "zips-{SPAN}.csv"), span="1:2").execute(tmp_path / "spans")
    assert sum(map(spans.examples.rows, spans.examples.splits)) == 950


def test_large_file_with_different_columns_is_an_error(tmp_path):
    (tmp_path / "a.csv").write_text("row,zip\n1,2\n")
    (tmp_path / "b.csv").write_text("row,zap\n" + "".join(f"{i},{i}\n" for i in range(900)))
    with pytest.raises(DataError, match="b.csv: the columns differ from those of .*a.csv: 'zip' is missing"):
        CsvExampleGen(str(tmp_path / "*.csv")).execute(tmp_path / "out")


def test_parquet_files_get_the_merged_schema(both, tmp_path):
    for number in range(4):
        columns = {"row": np.arange(100) + 100 * number, f"own{number}": np.random.default_rng(number).random(100)}
        columns["kind"] = columns["row"] if number < 2 else columns["row"] / 2
        pq.write_table(pa.table(columns), tmp_path / f"{number}.parquet")
    found = everything(both(ParquetExampleGen(str(tmp_path / "*.parquet")))).sort_values("row")
    assert found["row"].tolist() == list(range(400)) and found["own2"].notna().sum() == 100
    assert found["kind"].tolist() == [*map(float, range(200)), *(number / 2 for number in range(200, 400))]


def test_json_lines_are_ingested_in_pieces(both, tmp_path):
    for number in range(3):
        lines = [json.dumps({"row": 100 * number + i, "of": {"file": number}}) for i in range(100)]
        (tmp_path / f"{number}.jsonl").write_text("\n".join(lines))
    found = everything(both(JsonExampleGen(str(tmp_path / "*.jsonl")))).sort_values("row")
    assert found["row"].tolist() == list(range(300)) and (found["of.file"] == found["row"] // 100).all()


@pytest.mark.parametrize("options", [[], ENGINE], ids=["here", "engine"])
def test_error_in_a_later_piece_has_its_line(tmp_path, options):
    lines = ["a,b", *(f"{number},{number}" for number in range(2000))]
    lines[1500] = "7,seven"
    (tmp_path / "rows.csv").write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"rows.csv, line 1501, column 'b': expected a number .* received 'seven'"):
        CsvExampleGen(str(tmp_path / "rows.csv")).execute(tmp_path / "out", beam_options=options)


@pytest.mark.parametrize("how", [{"split_by": "ratio"}, {"bad_rows": "quarantine"}])
def test_ratio_and_quarantine_are_sequential_on_an_engine(tmp_path, frame, how):
    frame.to_csv(tmp_path / "rows.csv", index=False)
    examples = CsvExampleGen(str(tmp_path / "rows.csv"), **how).execute(tmp_path / "out", beam_options=ENGINE).examples
    assert isinstance(examples, Examples) and sorted(everything(examples)["row"]) == list(range(700))


@pytest.mark.parametrize(
    "parameters", [{"split_by": "group", "split_key": ["late"]}, {"stratify": "text"}, {"stratify": "fraction_sign"}]
)
def test_exact_shares_are_the_same_on_an_engine(both, tmp_path, frame, parameters):
    frame = frame.assign(fraction_sign=np.where(frame.row % 7, "a", "b"), text=frame.row % 5)
    frame.to_csv(tmp_path / "rows.csv", index=False)
    examples = both(CsvExampleGen(str(tmp_path / "rows.csv"), splits={"train": 4, "test": 1}, **parameters))
    if "stratify" in parameters:
        assert abs(examples.rows("test") - 140) <= 1


def test_selection_is_the_same_in_pieces(both, tmp_path, frame):
    frame.to_csv(tmp_path / "rows.csv", index=False)
    examples = both(CsvExampleGen(str(tmp_path / "rows.csv"), rows="row >= 50 AND text != 'plain'", columns=["row"]))
    assert sorted(everything(examples)["row"]) == [row for row in range(50, 700) if row % 3]
    assert examples.read_json("examples.json")["left_out"] == 700 - sum(row % 3 > 0 for row in range(50, 700))
