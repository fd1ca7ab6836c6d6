"""AnyExampleGen reads each kind of file, and TensorFlow Datasets; columns may be renamed."""

import gzip
import io
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from kerasline import AnyExampleGen, CsvExampleGen, TfdsExampleGen
from kerasline.components.core.errors import DataError, ParameterError

ROWS = {"en": ["one", "two", "three"], "number": [1, 2, 3]}
ALL = {"all": 1}


def write_csv(path):
    pd.DataFrame(ROWS).to_csv(path, index=False)


def write_tsv(path):
    with gzip.open(path, "wt") as file:
        pd.DataFrame(ROWS).to_csv(file, index=False, sep="\t")


def write_parquet(path):
    pq.write_table(pa.table(ROWS), path)


def write_json(path):
    path.write_text("\n".join(json.dumps({"en": text, "number": n}) for text, n in zip(*ROWS.values())))


@pytest.mark.parametrize(
    ("file", "write"),
    [("a.csv", write_csv), ("a.tsv.gz", write_tsv), ("a.parquet", write_parquet), ("a.jsonl", write_json)],
)
def test_file_is_read_by_its_ending(tmp_path, file, write):
    write(tmp_path / file)
    columns = {"text": "en", "count": "number"}
    done = AnyExampleGen(str(tmp_path / file), splits=ALL, columns=columns).execute(tmp_path / "out")
    assert done.examples.read("all").to_pydict() == {"text": ROWS["en"], "count": ROWS["number"]}


@pytest.mark.parametrize("write", [write_csv, write_tsv, write_parquet, write_json])
@pytest.mark.parametrize("name", ["count", "number"])
def test_a_type_is_declared_by_the_old_or_the_new_name(write, name, tmp_path):
    file = (
        tmp_path / {write_csv: "a.csv", write_tsv: "a.tsv.gz", write_parquet: "a.parquet", write_json: "a.jsonl"}[write]
    )
    write(file)
    stage = AnyExampleGen(str(file), splits=ALL, columns={"count": "number"}, column_types={name: "string"})
    assert stage.execute(tmp_path / "out").examples.read("all").to_pydict() == {"count": ["1", "2", "3"]}


def test_splits_may_be_files(tmp_path):
    write_csv(tmp_path / "a.csv")
    write_csv(tmp_path / "b.csv")
    splits = {"train": "a.csv", "test": "b.csv"}
    done = AnyExampleGen(str(tmp_path), splits=splits).execute(tmp_path / "out")
    assert done.metrics == {"train": 3, "test": 3, "columns": 2}


def test_folder_of_sound_is_read_with_its_labels(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        soundfile.write(tmp_path / "in" / f"{name}.flac", np.zeros(800), 16000)
    (tmp_path / "labels.csv").write_text("path,text\na.flac,one\nb.flac,two\n")
    done = AnyExampleGen(str(tmp_path / "in"), labels=str(tmp_path / "labels.csv"), splits=ALL, sample_rate=8000)
    rows = done.execute(tmp_path / "out").examples.read("all").to_pylist()
    assert [(row["path"], row["text"]) for row in rows] == [("a.flac", "one"), ("b.flac", "two")]
    assert {soundfile.info(io.BytesIO(row["content"])).frames for row in rows} == {400}


def test_name_of_tensorflow_datasets_is_read(tmp_path):
    builder = "kerasline.pipeline.recipes.palmer_penguins:PalmerPenguins"
    columns = {"kind": "species"}
    done = AnyExampleGen(builder, splits=ALL, columns=columns).execute(tmp_path / "out")
    assert done.metrics == {"all": 344, "columns": 1}
    assert done.examples.schema().names == ["kind"]


def test_file_of_unknown_ending_is_refused(tmp_path):
    (tmp_path / "a.xls").write_bytes(b"x")
    with pytest.raises(DataError, match=r"expected a file that ends with .csv, .tsv, .* received .*a\.xls"):
        AnyExampleGen(str(tmp_path / "a.xls"), splits=ALL).execute(tmp_path / "out")


@pytest.mark.parametrize("input", ["/nowhere/photos", "photo", "no such/folder"])
def test_missing_folder_is_refused_in_a_line(tmp_path, input):
    with pytest.raises(DataError, match="neither a folder nor the name of a TFDS dataset") as error:
        AnyExampleGen(input, splits=ALL).execute(tmp_path / "out")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("input", ["nowhere.builders:Garments", "tests.components.data.sources.builders:Garment"])
def test_missing_builder_is_refused_in_a_line(tmp_path, input):
    with pytest.raises(DataError, match="expected `module:Class` of a TFDS builder") as error:
        TfdsExampleGen(input, splits=ALL).execute(tmp_path / "out")
    assert "\n" not in str(error.value)


def test_conditions_and_split_keys_use_the_names_of_the_source(tmp_path):
    write_csv(tmp_path / "a.csv")
    stage = CsvExampleGen(
        str(tmp_path / "a.csv"), splits=ALL, columns={"text": "en"}, rows="number > 1", split_key=["number"]
    )
    assert stage.execute(tmp_path / "out").examples.read("all").to_pydict() == {"text": ["two", "three"]}


def test_renamed_column_keeps_how_its_numbers_were_written(tmp_path):
    (tmp_path / "a.csv").write_text("zip\n01234\n00501\n")
    for columns, name in ((None, "zip"), ({"code": "zip"}, "code")):
        done = CsvExampleGen(str(tmp_path / "a.csv"), splits=ALL, columns=columns).execute(tmp_path / name)
        assert list(done.examples.read_json("examples.json")["spellings"]) == [name]


def test_hash_of_a_row_is_a_further_column(tmp_path):
    write_csv(tmp_path / "a.csv")
    found = {}
    for columns, name in ((None, "whole"), ({"text": "en"}, "renamed")):
        stage = CsvExampleGen(str(tmp_path / "a.csv"), splits=ALL, columns=columns, row_hash="seed")
        seeds = stage.execute(tmp_path / name).examples.read("all")["seed"].to_pylist()
        assert len(set(seeds)) == 3 and all(0 <= seed < 2**31 for seed in seeds)
        found[name] = seeds
    assert found["whole"] != found["renamed"]
    with pytest.raises(DataError, match="ExampleGen.row_hash: the data has a column 'en' already"):
        CsvExampleGen(str(tmp_path / "a.csv"), splits=ALL, row_hash="en").execute(tmp_path / "refused")


def test_constants_are_further_columns(tmp_path):
    write_csv(tmp_path / "a.csv")
    constants = {"speed": 1.5, "voice": "low"}
    for columns, name in ((None, "whole"), ({"text": "en"}, "renamed")):
        stage = CsvExampleGen(str(tmp_path / "a.csv"), splits=ALL, columns=columns, constants=constants)
        found = stage.execute(tmp_path / name).examples.read("all").to_pydict()
        assert found["speed"] == [1.5] * 3 and found["voice"] == ["low"] * 3
        assert ("text" in found) == (columns is not None)
    with pytest.raises(DataError, match="ExampleGen.constants: the data has a column 'en' already"):
        CsvExampleGen(str(tmp_path / "a.csv"), splits=ALL, constants={"en": 1}).execute(tmp_path / "refused")


def test_one_file_has_no_locations_of_splits(tmp_path):
    write_csv(tmp_path / "a.csv")
    stage = AnyExampleGen(str(tmp_path / "a.csv"), splits={"train": "train", "test": "test[20%:]"})
    with pytest.raises(ParameterError, match=r"expected sizes, .*a\.csv; received locations: train, test\[20%:\]"):
        stage.execute(tmp_path / "out")
