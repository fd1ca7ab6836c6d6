"""Charts are well-formed SVG with marks at the positions of their values."""

import math
import re
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerasline.components import charts

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = '<script>alert("1")</script>&\'"'

anything = st.one_of(st.none(), st.floats(), st.integers(-(10**9), 10**9))
texts = st.text(max_size=30).filter(lambda text: not re.search("[\x00-\x08\x0b-\x1f\ud800-\udfff\ufffe\uffff]", text))


def parsed(svg):
    """Parse a drawing, and assert that all its numbers are finite."""
    root = ElementTree.fromstring(svg)
    for element in root.iter():
        for name in ("x", "y", "cx", "cy", "width", "height", "d", "viewBox"):
            assert not re.search("nan|inf", element.get(name, "").lower()), element.attrib
    return root


def marks(root, tag, kind):
    return [e for e in root.iter(f"{SVG}{tag}") if e.get("class") == kind]


def every_kind(name, a, b, c):
    """Draw a chart of each kind with the same name and values."""
    yield charts.line_chart([charts.Series(name, [a, b, c], [c, a, b], [a, a, a], [b, b, b])], title=name, x_label=name)
    yield charts.line_chart(
        [charts.Series(name, [a, b], [b, c], steps=True)] * 2, title=name, diagonal=True, x_log=True
    )
    yield charts.bar_chart([charts.Bar(name, a, b, c), charts.Bar(name, b)], title=name, label=name)
    yield charts.histogram([(a, b, c), (b, c, a)], title=name, label=name)
    yield charts.interval_plot(
        [charts.Interval(name, a, b, c, True, name)], title=name, reference=charts.Interval(name, b, a, c)
    )
    yield charts.scatter(
        [charts.Dot(a, b, name), charts.Dot(b, c, name, "strong")], title=name, y_label=name, x_log=True
    )
    yield charts.scatter([charts.Dot(name, b), charts.Dot(c, a, kind="hollow")], title=name, choice=True)
    yield charts.standalone(
        [charts.heat_map([name, name], [name, name], [[1, 2], [0, 0]], title=name, row_label=name)], 400, 300
    )


@given(name=texts, a=anything, b=anything, c=anything)
def test_any_name_and_any_value_give_well_formed_svg(name, a, b, c):
    for svg in every_kind(name, a, b, c):
        parsed(svg)


def test_names_are_escaped():
    for svg in every_kind(HOSTILE, 1.0, 2.0, 3.0):
        assert HOSTILE not in svg
        assert not list(parsed(svg).iter(f"{SVG}script"))


def test_empty_data_give_well_formed_svg():
    parsed(charts.line_chart([], title="none"))
    parsed(charts.bar_chart([], title="none"))
    parsed(charts.histogram([], title="none"))
    parsed(charts.interval_plot([], title="none"))
    parsed(charts.scatter([], title="none"))
    parsed(charts.heat_map([], [], [], title="none"))
    parsed(charts.standalone([], 10, 10))


def test_drawings_have_a_title_and_scale():
    root = parsed(charts.bar_chart([charts.Bar("a", 1)], title="How much"))
    assert root.get("aria-label") == "How much" and root.get("role") == "img" and root.get("viewBox")


def test_bars_have_the_length_and_label_of_their_values():
    root = parsed(charts.bar_chart([charts.Bar("a", 10), charts.Bar("b", 30, 20, 40)], title="t"))
    a, b = marks(root, "rect", "bar")
    assert float(b.get("width")) == pytest.approx(3 * float(a.get("width")), rel=0.01)
    assert a.get("x") == b.get("x")
    assert {e.text for e in root.iter(f"{SVG}title")} == {"a: 10", "b: 30 (20 to 40)"}


def test_negative_bars_end_at_the_baseline():
    root = parsed(charts.bar_chart([charts.Bar("a", -1), charts.Bar("b", 1)], title="t"))
    left, right = marks(root, "rect", "bar")
    assert float(left.get("x")) + float(left.get("width")) == pytest.approx(float(right.get("x")), abs=0.05)


def test_histogram_buckets_have_the_heights_of_their_counts():
    root = parsed(charts.histogram([(0, 1, 5), (1, 2, 10), (2, 4, 0)], title="t"))
    one, two, three = (float(e.get("height")) for e in marks(root, "rect", "bar"))
    assert two == pytest.approx(2 * one, rel=0.01) and three == 0
    wide = [float(e.get("width")) for e in marks(root, "rect", "bar")]
    assert wide[2] + 1 == pytest.approx(2 * (wide[0] + 1), rel=0.01)


def test_line_follows_its_values_with_a_gap_at_a_missing_one():
    series = charts.Series("s", [0, 1, 2, 3, 4], [0.0, 1.0, None, 2.0, 4.0])
    root = parsed(charts.line_chart([series], title="t"))
    (line,) = marks(root, "path", "line")
    points = [tuple(map(float, pair.split())) for pair in re.findall(r"[ML]([\d. ]+)", line.get("d"))]
    assert line.get("d").count("M") == 2 and len(points) == 4
    (x0, y0), (x1, y1), (x3, y3), (x4, y4) = points
    assert x4 - x3 == pytest.approx(x1 - x0, abs=0.2) and x3 - x1 == pytest.approx(2 * (x1 - x0), abs=0.2)
    assert y0 - y1 == pytest.approx((y0 - y4) / 4, abs=0.2)


def test_band_is_a_closed_outline():
    root = parsed(charts.line_chart([charts.Series("s", [0, 1], [1, 2], [0, 1], [2, 3])], title="t"))
    (band,) = marks(root, "path", "band")
    assert band.get("d").count("L") == 3 and band.get("d").endswith("Z")


def test_steps_hold_until_the_next_value():
    root = parsed(charts.line_chart([charts.Series("s", [0, 1, 2], [0, 1, 2], steps=True)], title="t"))
    (line,) = marks(root, "path", "line")
    assert line.get("d").count("H") == line.get("d").count("V") == 2


def test_legend_appears_with_several_series():
    def words(names):
        root = parsed(charts.line_chart([charts.Series(name, [0, 1], [0, 1]) for name in names], title="t"))
        return {text.text for text in root.iter(f"{SVG}text")} & {"train", "eval"}

    assert words(["train", "eval"]) == {"train", "eval"} and not words(["train"])


def test_reference_interval_is_drawn_as_a_band():
    whole = charts.Interval("all", 0.5, 0.0, 1.0)
    root = parsed(
        charts.interval_plot(
            [charts.Interval("a", 1.0, 0.5, 1.5), charts.Interval("b", 0.0)], title="t", reference=whole
        )
    )
    (band,) = marks(root, "rect", "band")
    a, b = marks(root, "circle", "dot")
    assert float(b.get("cx")) == pytest.approx(float(band.get("x")), abs=0.1)
    assert float(a.get("cx")) == pytest.approx(float(band.get("x")) + float(band.get("width")), abs=0.1)


def test_cells_are_shaded_by_their_share_of_the_row():
    root = parsed(
        charts.heat_map(["a", "b"], ["a", "b"], [[3, 1], [0, 8]], title="t", row_label="true", column_label="predicted")
    )
    shades = [float(e.get("fill-opacity")) for e in marks(root, "rect", "cell")]
    assert shades == pytest.approx([0.04 + 0.96 * share for share in (0.75, 0.25, 0, 1)], abs=1e-3)
    assert "true a, predicted b: 1 (25.0% of the row)" in {e.text for e in root.iter(f"{SVG}title")}


def test_large_confusion_matrix_has_no_numbers_and_fits_its_box():
    names = [f"class {n}" for n in range(100)]
    root = parsed(charts.heat_map(names, names, [[int(r == c) for c in range(100)] for r in range(100)], title="t"))
    assert len(marks(root, "rect", "cell")) == 10_000
    assert {text.text for text in root.iter(f"{SVG}text")} <= set(names)
    width = float(root.get("width"))
    assert all(float(e.get("x")) + float(e.get("width")) <= width for e in marks(root, "rect", "cell"))


def test_chart_file_has_its_style_and_all_charts():
    panel = charts.scatter([charts.Dot(1, 2)], title="t", width=100, height=80)
    root = parsed(charts.standalone([panel] * 4, 100, 80))
    assert root.get("viewBox") == "0 0 300 160" and "--chart-ink" in root.find(f"{SVG}style").text
    places = [g.get("transform") for g in root.findall(f"{SVG}g")]
    assert places == ["translate(0 0)", "translate(100 0)", "translate(200 0)", "translate(0 80)"]


def test_dots_on_a_logarithmic_axis_are_spaced_by_ratio():
    root = parsed(charts.scatter([charts.Dot(10.0**n, n) for n in range(5)], title="t", x_log=True))
    xs = [float(e.get("cx")) for e in root.iter(f"{SVG}circle")]
    gaps = [b - a for a, b in zip(xs, xs[1:])]
    assert all(math.isclose(gap, gaps[0], abs_tol=0.05) for gap in gaps)


def test_graph_has_each_box_below_its_sources_and_a_faint_implied_edge():
    sources = {"c": ("a", "b"), "a": (), "b": ("a",), "d": ("c",), "input": (), HOSTILE: ("d", "input", "a")}
    boxes = {name: charts.Box((name, "ran"), names, color="s1", note=name) for name, names in sources.items()}
    root = parsed(charts.graph(boxes, title="a graph", faint=True))
    texts = {text.text: (float(text.get("x")), float(text.get("y"))) for text in root.iter(f"{SVG}text")}
    names = {name: charts.svg.shortened(name, 19) for name in sources}
    assert all(texts[names[name]][1] > texts[names[one]][1] for name in sources for one in sources[name])
    assert texts["input"][1] == texts["d"][1]  # right above the box that needs it
    assert len(marks(root, "path", "edge")) == 5 and len(marks(root, "path", "edge faint")) == 2
    assert len(marks(root, "rect", "box")) == len(marks(root, "rect", "bar")) == 6
    assert charts.graph({}, title="") == ""


def test_deep_and_wide_graphs_are_drawn_without_overlap():
    chain = {str(n): charts.Box((str(n),), (str(n - 1),) if n else ()) for n in range(1500)}
    assert len(marks(parsed(charts.graph(chain, title="deep", standalone=True)), "path", "edge")) == 1499
    wide = {str(n): charts.Box((str(n),)) for n in range(200)}
    root = parsed(charts.graph({**wide, "sum": charts.Box(("sum",), tuple(wide))}, title="wide"))
    lefts = sorted(float(one.get("x")) for one in marks(root, "rect", "box") if one.get("y") == "6")
    assert len(lefts) == 200 and all(b - a > 156 for a, b in zip(lefts, lefts[1:]))
