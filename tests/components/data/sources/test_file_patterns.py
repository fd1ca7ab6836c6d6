import pytest

from kerasline.components.core.errors import DataError, ParameterError
from kerasline.components.data.sources.file_patterns import find_files


@pytest.fixture
def folder(tmp_path):
    for name in (
        "span-1/version-0/a.csv",
        "span-2/version-0/a.csv",
        "span-2/version-1/a.csv",
        "span-2/version-1/b.csv",
        "span-10/version-0/a.csv",
        "span-x/version-0/a.csv",
        "days/2026-11-03.csv",
        "days/2026-11-04.csv",
        "days/2026-13-45.csv",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("a\n1\n")
    return tmp_path


def names(found, folder):
    return [path.relative_to(folder).as_posix() for path in found.files]


@pytest.mark.parametrize(
    ("span", "files", "spans"),
    [
        (None, ["span-10/version-0/a.csv"], ["10"]),
        ("2", ["span-2/version-1/a.csv", "span-2/version-1/b.csv"], ["2"]),
        ("1:2", ["span-1/version-0/a.csv", "span-2/version-1/a.csv", "span-2/version-1/b.csv"], ["1", "2"]),
        ("last 2", ["span-2/version-1/a.csv", "span-2/version-1/b.csv", "span-10/version-0/a.csv"], ["2", "10"]),
    ],
)
def test_spans_use_their_newest_version(folder, span, files, spans):
    found = find_files(f"{folder}/span-{{SPAN}}/version-{{VERSION}}/*.csv", span)
    assert (names(found, folder), list(found.spans)) == (files, spans)


def test_spans_may_be_dates(folder):
    pattern = f"{folder}/days/{{YYYY}}-{{MM}}-{{DD}}.csv"
    assert names(find_files(pattern), folder) == ["days/2026-11-04.csv"]
    assert find_files(pattern, "2026-11-01:2026-11-03").spans == ["2026-11-03"]


def test_repeated_placeholder_has_one_value(tmp_path):
    for name in ("3/3.csv", "4/3.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert names(find_files(f"{tmp_path}/{{SPAN}}/{{SPAN}}.csv"), tmp_path) == ["3/3.csv"]


@pytest.mark.parametrize(
    ("pattern", "span", "kind", "message"),
    [
        ("{}/span-{{SPAN}}/*/*.csv", "7:9", DataError, "the spans are 1 to 10"),
        ("{}/span-{{SPAN}}/*/*.csv", "newest", ParameterError, "expected a span"),
        ("{}/nowhere/{{SPAN}}", None, DataError, "no file matches"),
        ("{}/{{YYYY}}-{{MM}}.csv", None, ParameterError, "needs either"),
        ("{}/days/*.csv", "3", ParameterError, "has no {SPAN}"),
        ("{}/days", None, DataError, "expected files, received a folder"),
        ("{}/days/*.parquet", None, DataError, "no such file"),
    ],
)
def test_wrong_pattern_or_span_is_an_error(folder, pattern, span, kind, message):
    with pytest.raises(kind, match=message):
        find_files(pattern.format(folder), span)
