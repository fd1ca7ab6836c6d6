"""CSV files in any format: every value is read as it stands, or an error names its place and the fix."""

import csv
import gzip
import io
import math
import re

import keras
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kerasline import CsvExampleGen, Transform
from kerasline.components.core.errors import DataError, ParameterError
from kerasline.components.data.sources import csv_files, csv_lenient, source
from kerasline.components.data.sources.csv_scan import ScanningReader

ALL = {"all": 1}
BOTH = pytest.mark.parametrize("bad_rows", ["fail", "quarantine"])
ID, TOO_LARGE = 1234567890123456789, 12345678901234567891


def examples(folder, content, **parameters):
    folder.mkdir(exist_ok=True)
    (folder / "a.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    return CsvExampleGen(str(folder / "a.csv"), splits=ALL, **parameters).execute(folder / "out").examples


def read(folder, content, **parameters):
    return examples(folder, content, **parameters).read("all").to_pydict()


@BOTH
@pytest.mark.parametrize(
    ("content", "value"),
    [
        (f"id,y\n{TOO_LARGE},1\n7,0\n", TOO_LARGE),
        (f"id,y\n{ID},1\n0.5,0\n", ID),
        (f"id,y\n{ID},1\n" + "8,0\n" * 500_000 + "0.5,0\n", ID),
        ("id,y\n" + "8,0\n" * 500_000 + f"0.5,0\n{-ID},1\n", -ID),
    ],
)
def test_integer_that_would_be_rounded_is_an_error(tmp_path, content, value, bad_rows):
    with pytest.raises(DataError, match=f"a.csv.*column 'id': {value} .*no exact float64.*column_types.id=string"):
        read(tmp_path, content, bad_rows=bad_rows)


@BOTH
def test_large_integers_can_be_declared(tmp_path, bad_rows):
    content = f"id\n{TOO_LARGE}\n{ID}\n0.5\n"
    text = read(tmp_path / "text", content, column_types={"id": "string"}, bad_rows=bad_rows)
    assert text == {"id": [str(TOO_LARGE), str(ID), "0.5"]}
    rounded = read(tmp_path / "rounded", content, column_types={"id": "double"}, bad_rows=bad_rows)
    assert rounded == {"id": [float(TOO_LARGE), float(ID), 0.5]}


@BOTH
def test_numbers_that_are_exact_are_read(tmp_path, bad_rows):
    content = f"i,f,g\n{2**63 - 1},{2**63},1e300\n{-(2**63)},0.5,-9007199254740992\n"
    assert read(tmp_path, content, bad_rows=bad_rows) == {
        "i": [2**63 - 1, -(2**63)],
        "f": [2.0**63, 0.5],
        "g": [1e300, -(2.0**53)],
    }


def test_integer_over_64_bits_among_others_is_an_error_or_a_bad_row(tmp_path):
    content = "id\n" + "7\n" * 1_100_000 + f"{TOO_LARGE}\n"
    with pytest.raises(
        DataError, match=f"line 1100002, column 'id': expected an integer of at most 64 bits.*{TOO_LARGE}"
    ):
        read(tmp_path / "fail", content)
    content = "id\n" + "7\n" * 40 + f"{TOO_LARGE}\n"
    assert read(tmp_path / "keep", content, bad_rows="quarantine") == {"id": [7] * 40}


def test_integer_over_64_bits_in_every_row_is_no_bad_row(tmp_path):
    with pytest.raises(DataError, match="column 'id': 9999999999999999999 .*column_types.id=string"):
        read(tmp_path, "id\n9999999999999999999\n9999999999999999998\n", bad_rows="quarantine")


@BOTH
def test_missing_numbers_are_words_in_text(tmp_path, bad_rows):
    content = "country,n,flag,word\nNA,NA,true,null\nDE,7,N/A,nan\n,,,\nnull,nan,false,N/A\n"
    assert read(tmp_path, content, bad_rows=bad_rows) == {
        "country": ["NA", "DE", None, "null"],
        "n": [None, 7, None, None],
        "flag": [True, None, None, False],
        "word": ["null", "nan", None, "N/A"],
    }


@BOTH
def test_null_values_are_missing_in_all_columns(tmp_path, bad_rows):
    content = "country,n\nNA,?\nDE,7\n?,NA\nbe?,8\n"
    found = read(tmp_path, content, null_values=["NA", "?"], bad_rows=bad_rows)
    assert found == {"country": [None, "DE", None, "be?"], "n": [None, 7, None, 8]}


@BOTH
def test_column_of_words_for_missing_numbers_alone_is_text(tmp_path, bad_rows):
    assert read(tmp_path, "a,b,c\nNA,,1\nNA,,2\n", bad_rows=bad_rows) == {
        "a": ["NA", "NA"],
        "b": [None, None],
        "c": [1, 2],
    }


@BOTH
def test_column_that_begins_with_words_for_missing_numbers_gets_the_type_of_its_values(tmp_path, bad_rows):
    rows = "NA,NA,x\n" * 400_000
    found = read(tmp_path, f"number,text,c\n{rows}7,Oslo,x\n", bad_rows=bad_rows)
    assert found["number"] == [None] * 400_000 + [7]
    assert found["text"] == ["NA"] * 400_000 + ["Oslo"]


@BOTH
@pytest.mark.parametrize("text", ["2024-01-01", "2024-01-01 10:00:00", "10:00:00", "2024-01-01T10:00:00Z"])
def test_text_that_looks_like_a_date_stays_text(tmp_path, text, bad_rows):
    assert read(tmp_path, f"d,y\n{text},1\n{text},2\n", bad_rows=bad_rows)["d"] == [text, text]


@BOTH
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_file_without_header_gets_its_names(tmp_path, ending, bad_rows):
    content = ending.join(["1,x", "2,y", ""])
    assert read(tmp_path, content, column_names=["n", "t"], bad_rows=bad_rows) == {"n": [1, 2], "t": ["x", "y"]}


def test_wrong_number_of_names_is_an_error(tmp_path):
    with pytest.raises(DataError, match="line 1: expected 3 fields as in ExampleGen.column_names, received 2"):
        read(tmp_path, "1,x\n2,y\n", column_names=["n", "t", "u"])


@BOTH
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (",b\n0,1\n", "column 1 has no name in the header"),
        ("a;b;c\n1,5;2;3\n", "one column named 'a;b;c'; if ';' delimits the fields, set ExampleGen.delimiter=';'"),
        ("a\tb\n1\t2\n", r"one column named 'a\tb'; if '\t' delimits the fields, set ExampleGen.delimiter='\t'"),
        ('a,b\n"1,234",2\n5,3\n', "row 2, column 'a': '1,234' is a number with a thousands separator"),
        ('a,b\n7,2\n"1,5",3\n', "'1,5'"),
        ('a,b\n1 234,2\n"-12 345.5",3\n', "row 2, column 'a': '1 234' is a number"),
        ('a,b\n"x" y,1\nz,2\n', "line 2: .*a quote that neither opens nor closes a field.*ExampleGen.quote=''"),
        ('a,b\n"Great,1\n"Bad" film,0\n', "line 3: .*a quote that neither opens nor closes"),
        ('a,b\nz,1\n"Great,1\nBad,0\n', "line 4: .*a quote that neither opens nor closes"),
    ],
)
def test_format_that_would_be_misread_is_an_error(tmp_path, content, message, bad_rows):
    expected = message if ".*" in message else re.escape(message)
    with pytest.raises(DataError, match=f"a.csv.*{expected}"):
        read(tmp_path, content, bad_rows=bad_rows)


def test_column_of_a_single_delimited_name_can_be_declared(tmp_path):
    assert read(tmp_path, "a;b\nx\n", column_types={"a;b": "string"}) == {"a;b": ["x"]}


def test_numbers_with_separators_can_be_declared_as_text(tmp_path):
    content = 'a,b\n"1,234",2\n'
    assert read(tmp_path, content, column_types={"a": "string"}) == {"a": ["1,234"], "b": [2]}


@BOTH
def test_text_with_numbers_and_separators_stays_text(tmp_path, bad_rows):
    content = 'a,b\n"1,234",v1.2\nnone,v1.3\n'
    assert read(tmp_path, content, bad_rows=bad_rows) == {"a": ["1,234", "none"], "b": ["v1.2", "v1.3"]}


@BOTH
def test_quotes_can_be_ordinary_characters(tmp_path, bad_rows):
    texts = ['"Great" film', "it's 5\" long", '"', '""', '"open', 'a,b "', "'"]
    content = "text\tn\n" + "".join(f"{text}\t{number}\n" for number, text in enumerate(texts))
    found = read(tmp_path, content, delimiter="\\t", quote="", bad_rows=bad_rows)
    assert found == {"text": texts, "n": list(range(len(texts)))}


@BOTH
def test_other_quotes_are_read(tmp_path, bad_rows):
    found = read(tmp_path, "a;b\n'x;''y''\n';\"z\n", delimiter=";", quote="'", bad_rows=bad_rows)
    assert found == {"a": ["x;'y'\n"], "b": ['"z']}


def test_quotes_inside_unquoted_fields_are_ordinary(tmp_path):
    assert read(tmp_path, 'a,b\n5" pipe,1\nx "y" z,2\n') == {"a": ['5" pipe', 'x "y" z'], "b": [1, 2]}


@pytest.mark.parametrize("parameters", [{"delimiter": ",,"}, {"quote": "''"}, {"delimiter": ""}, {"delimiter": "é"}])
def test_delimiter_and_quote_are_single_characters(tmp_path, parameters):
    with pytest.raises(ParameterError, match="expected one ASCII character"):
        read(tmp_path, "a\n1\n", **parameters)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "utf-16"])
@BOTH
def test_encodings_are_decoded(tmp_path, encoding, bad_rows):
    content = 'é,b\n"ä,1",007\nö,8\n'.encode(encoding)
    found = examples(tmp_path, content, encoding=encoding.replace("-sig", ""), bad_rows=bad_rows)
    assert found.read("all").to_pydict() == {"é": ["ä,1", "ö"], "b": [7, 8]}
    assert found.spellings == {"b": "007"}


@BOTH
def test_row_longer_than_a_block_is_read(tmp_path, bad_rows, monkeypatch):
    monkeypatch.setattr(csv_files, "BLOCK_BYTES", 1000)
    content = "a,b\nx,1\n" + "y" * 50_000 + ",2\nz,3.5\n"
    found = examples(tmp_path, content, bad_rows=bad_rows).read("all")
    assert found.to_pydict() == {"a": ["x", "y" * 50_000, "z"], "b": [1.0, 2.0, 3.5]}
    with pytest.raises(DataError, match="line 4: unexpected end of data: a quote that neither opens nor closes"):
        examples(tmp_path / "quote", 'a,b\n"x,1\n' + "y" * 50_000 + ",2\nz,3.5\n", bad_rows=bad_rows)


@BOTH
def test_number_over_the_range_of_floats_is_an_error(tmp_path, bad_rows):
    assert examples(tmp_path / "a", "a\n1e300\n-inf\n1e-400\n", bad_rows=bad_rows).read("all")["a"].to_pylist() == [
        1e300,
        float("-inf"),
        0.0,
    ]
    with pytest.raises(DataError, match="column 'a': -1e400 is over float64's range; read the column as text"):
        examples(tmp_path / "b", "a\n1.5\n-1e400\n", bad_rows=bad_rows)


def test_declared_type_and_compressed_content_are_named(tmp_path):
    with pytest.raises(DataError, match="expected an integer of at most 64 bits as declared, received '1.5'"):
        examples(tmp_path / "a", "a\n1.5\n", column_types={"a": "int64"})
    with pytest.raises(DataError, match="a.csv: .*halffloat.*; declare another type in ExampleGen.column_types"):
        examples(tmp_path / "half", "a\n1.5\n", column_types={"a": "float16"})
    with pytest.raises(DataError, match="compressed with gzip; rename the file to a.csv.gz"):
        examples(tmp_path / "b", gzip.compress(b"a\n1\n"))


def model_of(name):
    text = keras.Input((1,), name=name, dtype="string")
    return lambda: keras.Model({name: text}, {"x": keras.layers.StringLookup(name="look")(text)})


@BOTH
@pytest.mark.parametrize("text", ["01234", "True", "1.0", "0x1F", "+5", "-007", " 7"])
def test_string_input_of_a_retyped_column_is_an_error(tmp_path, text, bad_rows):
    plain = {"True": "False", "1.0": "2.5"}.get(text, "7")
    content = "code,y\n" + f"{plain},0\n" * 30 + f"{text},1\n"
    found = examples(tmp_path, content, bad_rows=bad_rows)
    assert list(found.spellings) == ["code"]
    with pytest.raises(
        DataError, match="column 'code': a string input reads it, .* ExampleGen.column_types.code=string"
    ):
        Transform(found, function=model_of("code"), label="y", split="all").execute(tmp_path / "no")
    declared = examples(tmp_path / "text", content, bad_rows=bad_rows, column_types={"code": "string"})
    assert declared.spellings == {} and declared.read("all")["code"].to_pylist() == [plain] * 30 + [text]


def test_string_input_of_plain_integers_is_fed(tmp_path):
    found = examples(tmp_path, "code,y\n" + "7,0\n10,1\n" * 20)
    done = Transform(found, function=model_of("code"), label="y", split="all").execute(tmp_path / "prepared")
    assert set(done.preprocessing.load().get_layer("look").get_vocabulary()) == {"[UNK]", "7", "10"}


def test_late_spelling_is_found_in_every_piece(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "PIECE_BYTES", 2000)
    found = examples(tmp_path, "code,y\n" + "7,0\n" * 2000 + "007,1\n" + "8,0\n" * 2000)
    assert found.spellings == {"code": "007"}
    (tmp_path / "a.csv").unlink()
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"code,y\n" + b"7,0\n" * 2000 + b"007,1\n"))
    stage = CsvExampleGen(str(tmp_path / "a.csv.gz"), splits=ALL)
    assert stage.execute(tmp_path / "packed").examples.spellings == {"code": "007"}


SPELLED = ["00", "007", "-01", "0a", "0x1F", '"007"', " 7", " 007", '" 12"']
PLAIN = [
    "0",
    "1",
    "10",
    "0.5",
    "-0",
    "a0",
    "0 1",
    "2024-01-02",
    "05:30",
    '"a""b"',
    " a7g",
    "St. 7",
    "A - 71 B",
    "a 007",
]
fields = st.tuples(st.sampled_from([*SPELLED, *PLAIN]), st.sampled_from(",\n"))


@given(st.lists(fields, min_size=1), st.sampled_from([1, 3, 7, 4096]), st.sampled_from(",;|\t"))
def test_unusual_integers_are_found_across_blocks(fields, size, delimiter):
    content = "h,i\n" + "".join(map("".join, fields)) + "\n"
    reader = ScanningReader(io.BytesIO(content.replace(",", delimiter).encode()), delimiter, '"')
    while reader.read(size):
        pass
    assert reader.unusual_integers == any(field in SPELLED for field, _ in fields)
    assert not reader.irregular_quotes


texts = st.text(alphabet="ab01.,;-\"'\t\n ÄNA", max_size=6)
cells = st.one_of(
    texts,
    st.sampled_from(["NA", "null", "nan", "true", "True", "0x1F", "2024-01-01", "01", "1,234", "1e5", "inf"]),
    st.integers(-(10**20), 10**20).map(str),
    st.floats(allow_nan=False).map(repr),
)


def equal(text, value):
    """Return whether a value is what a text in a file means."""
    if text == "" or value is None:
        return value is None and (text == "" or text in csv_files.pcsv.ConvertOptions().null_values)
    if isinstance(value, bool):
        return text.strip().lower() in (("true", "1") if value else ("false", "0"))
    if isinstance(value, int):
        return int(text, 16 if "x" in text.lower() else 10) == value
    if isinstance(value, float):
        number = float(text)
        if math.isnan(number):
            return math.isnan(value)
        return number == value and ("." in text or "e" in text.lower() or "n" in text or int(text) == value)
    return text == value


@pytest.mark.parametrize("kind", [csv_files.CsvSource, csv_lenient.LenientCsvSource])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(rows=st.lists(st.tuples(cells, cells), min_size=1, max_size=6), delimiter=st.sampled_from(",;\t"))
def test_written_files_are_read_equal_or_refused(tmp_path, kind, rows, delimiter):
    from kerasline.components.data.quarantine import Quarantine
    from kerasline.components.data.sources.csv_format import CsvFormat

    path = tmp_path / "rows.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter, lineterminator="\n").writerows([("a", "b"), *rows])
    bad = Quarantine(tmp_path / "bad.jsonl")
    arguments = (bad,) if kind is csv_lenient.LenientCsvSource else ()
    reader = kind({}, CsvFormat(delimiter=delimiter), *arguments)
    while True:
        try:
            batches = list(reader.batches([path]))
            if not reader.merge_inferred([reader.inferred]):
                break
        except source.SchemaChanged:
            pass
        except DataError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            return
        finally:
            bad.close()
        bad.restart()
    found = pa.Table.from_batches(batches).to_pylist()
    if bad.rows:
        assert len(found) + bad.rows == len(rows)
        return
    assert len(found) == len(rows)
    for texts, row in zip(rows, found):
        for name, text in zip("ab", texts):
            assert equal(text, row[name]), (text, row[name])


def test_frames_of_pandas_come_back(tmp_path):
    frame = pd.DataFrame(
        {
            "id": [2**62, -5, 0],
            "x": [0.1, 1e-300, -2.5],
            "t": ['a "b", c', "NA\nnull", "2024-01-01"],
            "b": [True, False, True],
            "n": pd.array([1, None, 3], dtype="Int64"),
        }
    )
    for number, options in enumerate([{}, {"sep": ";"}, {"quoting": csv.QUOTE_ALL}]):
        frame.to_csv(tmp_path / f"{number}.csv", index=False, **options)
        stage = CsvExampleGen(str(tmp_path / f"{number}.csv"), splits=ALL, delimiter=options.get("sep", ","))
        found = stage.execute(tmp_path / f"out{number}").examples.read("all").to_pandas()
        pd.testing.assert_frame_equal(found.astype({"n": "Int64"}), frame, check_dtype=False)
