"""Dividing CSV files: every range has complete rows, whatever is quoted."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerasline.components.data.sources import csv_ranges
from kerasline.components.data.sources.csv_format import CsvFormat
from kerasline.components.data.sources.csv_ranges import row_ranges

fields = st.text(alphabet='ab",;\n ', max_size=6)
tables = st.lists(st.lists(fields, min_size=2, max_size=2), min_size=1, max_size=12)


@pytest.fixture(scope="module", autouse=True)
def small_blocks():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_ranges, "BLOCK_BYTES", 7)
        yield


@given(tables, st.sampled_from([",", ";"]), st.sampled_from(["\n", "\r\n"]), st.booleans(), st.integers(1, 40))
def test_ranges_have_the_rows_of_the_file(tmp_path_factory, rows, delimiter, end, quoted, most):
    text = io.StringIO()
    how = csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL
    csv.writer(text, delimiter=delimiter, lineterminator=end, quoting=how).writerows(rows)
    file = tmp_path_factory.mktemp("csv") / "rows.csv"
    file.write_bytes(text.getvalue().encode())
    content = file.read_bytes()
    ranges = [content[start:stop] for _, start, stop in row_ranges(file, CsvFormat(delimiter=delimiter), most)]
    assert b"".join(ranges) == content
    read = (csv.reader(io.StringIO(part.decode(), newline=""), delimiter=delimiter) for part in ranges)
    assert [row for part in read for row in part] == rows


def test_ranges_have_nearly_equal_length(tmp_path):
    file = tmp_path / "rows.csv"
    file.write_text("a,b\n" + "12,34\n" * 1000)
    ranges = row_ranges(file, CsvFormat(), 1001)
    assert len(ranges) == 6 and all(abs(one.end - one.start - 6004 / 6) <= 6 for one in ranges)


@pytest.mark.parametrize(
    "content, encoding",
    [
        ('a,b\n5" pipe,2\n"x\ny",3\n' * 9, "utf-8"),  # a quote within a field
        ('a,b\n"x" y,2\n"x\ny",3\n' * 9, "utf-8"),  # text after the closing quote
        ("a,b\n1,2\n" * 99, "utf-16"),  # two bytes a character
    ],
)
def test_file_with_ambiguous_quotes_is_one_range(tmp_path, content, encoding):
    file = tmp_path / "rows.csv"
    file.write_text(content, encoding=encoding)
    assert row_ranges(file, CsvFormat(encoding), 20) == [(file, 0, file.stat().st_size)]
