import gzip

import pandas as pd
import pytest

from kerasline import CsvExampleGen, TfdsExampleGen
from kerasline.components.core.errors import DataError, ParameterError

NUMBERS = "".join(f"{i},{i}\n" for i in range(5000))


def all_rows(examples):
    return pd.concat([examples.read(split).to_pandas() for split in examples.splits])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"a,b\n", "a header and no rows"),
        (f"a,b\n{NUMBERS}7\n".encode(), "line 5002: expected 2 fields as in the header, received 1"),
        (
            f"a,b\n{NUMBERS}7,abc\n".encode(),
            "line 5002, column 'b': expected a number as in the rows before, received 'abc'",
        ),
        ("a,b\n1,é\n2,x\n".encode("latin-1"), "column 'b': not utf-8 text; set ExampleGen.encoding"),
        (("a,b\n" + "1,x\n" * 5000 + "1,é\n").encode("latin-1"), "column 'b': not utf-8 text"),
        (b"a,a\n1,2\n", "two columns are named 'a'"),
    ],
)
def test_error_of_bad_csv_is_one_line(tmp_path, content, message):
    path = tmp_path / "data.csv"
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        CsvExampleGen(str(path)).execute(tmp_path / "out")
    assert message in str(error.value) and str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["missing.csv", "*.csv"])
def test_missing_csv_is_an_error(tmp_path, name):
    with pytest.raises(DataError, match="no such file"):
        CsvExampleGen(str(tmp_path / name)).execute(tmp_path / "out")


def test_error_without_input_names_the_option(tmp_path):
    with pytest.raises(ParameterError, match="--set ExampleGen.input"):
        CsvExampleGen().execute(tmp_path / "out")


def test_latin_1_text_is_read_with_its_encoding(tmp_path):
    (tmp_path / "data.csv").write_bytes("a,b\n1,é\n2,x\n".encode("latin-1"))
    done = CsvExampleGen(str(tmp_path / "data.csv"), encoding="latin-1", splits={"all": 1}).execute(tmp_path / "out")
    assert done.examples.read("all").column("b").to_pylist() == ["é", "x"]


def test_columns_are_widened_for_later_blocks(tmp_path):
    head = "".join(f"{i},\n" for i in range(900_000))
    (tmp_path / "data.csv").write_text("a,b\n" + head + "0.5,word\n")
    done = CsvExampleGen(str(tmp_path / "data.csv"), splits={"all": 1}).execute(tmp_path / "out")
    table = done.examples.read("all")
    assert [str(kind) for kind in table.schema.types] == ["double", "string"]
    assert table.num_rows == 900_001 and table.column("b")[-1].as_py() == "word"


def test_globs_and_compressed_files_are_read(tmp_path):
    (tmp_path / "1.csv").write_text("a,b\n" + NUMBERS)
    (tmp_path / "2.csv.gz").write_bytes(gzip.compress(b"a,b\n-1,-1\n"))
    done = CsvExampleGen(str(tmp_path / "*.csv*")).execute(tmp_path / "out")
    assert sorted(all_rows(done.examples)["a"]) == list(range(-1, 5000))


def test_file_with_different_columns_is_an_error(tmp_path):
    (tmp_path / "1.csv").write_text("a,b\n1,2\n")
    (tmp_path / "2.csv").write_text("a,c\n1,2\n")
    with pytest.raises(DataError, match=r"2\.csv: the columns differ .* 'b' is missing"):
        CsvExampleGen(str(tmp_path / "*.csv")).execute(tmp_path / "out")


def test_split_key_decides_the_split_in_any_order(tmp_path):
    lines = [f"{i % 100},{i}" for i in range(3000)]
    for name, rows in (("up.csv", lines), ("down.csv", lines[::-1])):
        (tmp_path / name).write_text("key,value\n" + "\n".join(rows) + "\n")
    found = {}
    for name in ("up", "down"):
        done = CsvExampleGen(str(tmp_path / f"{name}.csv"), split_key=["key"]).execute(tmp_path / name)
        found[name] = {s: set(done.examples.read(s).column("key").to_pylist()) for s in done.examples.splits}
    assert found["up"] == found["down"]
    assert sum(map(len, found["up"].values())) == 100  # no key in two splits


def test_empty_split_is_an_error(tmp_path):
    (tmp_path / "data.csv").write_text("a\n1\n2\n")
    with pytest.raises(DataError, match="has no rows"):
        CsvExampleGen(str(tmp_path / "data.csv")).execute(tmp_path / "out")


def test_taxi_rows_match_pandas(tmp_path, taxi_csv):
    done = CsvExampleGen(str(taxi_csv)).execute(tmp_path / "out")
    ours = all_rows(done.examples)
    theirs = pd.read_csv(taxi_csv)
    assert len(ours) == len(theirs) == 15_002
    pd.testing.assert_series_equal(ours.isna().sum(), theirs.isna().sum())
    pd.testing.assert_series_equal(
        ours["fare"].sort_values(ignore_index=True), theirs["fare"].sort_values(ignore_index=True)
    )


def test_tfds_penguins_match_the_package(tmp_path):
    done = TfdsExampleGen(
        "kerasline.pipeline.recipes.palmer_penguins:PalmerPenguins", splits={"train": 7, "test": 3}
    ).execute(tmp_path / "out")
    from palmerpenguins import load_penguins

    ours, theirs = all_rows(done.examples), load_penguins()
    assert len(ours) == 344
    assert done.examples.class_names("species") == ["Adelie", "Chinstrap", "Gentoo"]
    for column in ("bill_length_mm", "body_mass_g", "sex"):
        assert ours[column].isna().sum() == theirs[column].isna().sum()
    assert ours["body_mass_g"].sum() == theirs["body_mass_g"].sum()


def test_unknown_tfds_name_gets_a_suggestion(tmp_path):
    with pytest.raises(DataError, match="did you mean 'fashion_mnist'"):
        TfdsExampleGen("fashion_mnis").execute(tmp_path / "out")


def test_missing_source_file_of_a_dataset_is_an_error(tmp_path):
    (tmp_path / "idx").mkdir()
    with pytest.raises(DataError, match="is missing, a source file of fashion_mnist"):
        TfdsExampleGen(str(tmp_path / "idx"), dataset="fashion_mnist").execute(tmp_path / "out")
