"""What a report says: the figures of a built run, whose values scikit-learn knows."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics

from kerasline.pipeline.metadata.store import Store, sqlite_url
from kerasline.pipeline.report.render import write_report
from tests.conftest import REPOSITORY
from tests.pipeline.report.builders import EDGES
from tests.pipeline.report.conftest import report, text_of
from tests.pipeline.report.models import HOSTILE, cancer, digits

SVG = "{http://www.w3.org/2000/svg}"
SECTIONS = [
    "overview",
    "compare",
    "stages",
    "data",
    "preprocessing",
    "model",
    "metrics",
    "samples",
    "explanations",
    "validation",
    "environment",
    "card",
]


def figure(value, digits=4):
    return f"{value:.{digits}g}"


def test_sections_are_in_order_of_importance(rich):
    assert [e.get("id") for e in rich.tree.iter("section")] == SECTIONS == rich.summary["sections"]
    assert [a.get("href") for nav in rich.tree.iter("nav") for a in nav.iter("a")] == [f"#{name}" for name in SECTIONS]


def test_overview_has_state_verdict_rules_and_key_metrics(rich):
    _, _, y, _, p, _ = cancer(1.0)
    text = rich.text("overview")
    assert "cells" in text and "succeeded" in text and "83.2 s" in text
    assert "Refused" in text and "accuracy at least 0.9" in text and "not kept" in text
    tiles = [text_of(e) for e in rich.section("overview").iter("div") if e.get("class") == "tile"]
    for name, value in (
        ("accuracy", metrics.accuracy_score(y, p > 0.5)),
        ("recall", metrics.recall_score(y, p > 0.5)),
        ("roc auc", metrics.roc_auc_score(y, p)),
        ("digit/accuracy", metrics.accuracy_score(digits()[0], digits()[1].argmax(1))),
    ):
        assert any(tile.startswith(f"{name} {figure(value)}") for tile in tiles), (name, value, tiles)


def test_metrics_agree_with_scikit_learn(rich):
    _, _, y, _, p, before = cancer(1.0)
    rows = {row[0]: row for row in rich.table("All rows")}
    assert rows["accuracy"][1] == figure(metrics.accuracy_score(y, p > 0.5))
    assert rows["log_loss"][1] == figure(metrics.log_loss(y, p)) and rows["log_loss"][3] == "lower"
    assert rows["brier"][5] == figure(metrics.brier_score_loss(y, before))


def test_rates_at_thresholds_follow_from_their_counts(rich):
    _, _, y, _, p, _ = cancer(1.0)
    rows = [
        list(map(lambda t: float(t.replace(",", "")) if t != "–" else None, row)) for row in rich.table("Thresholds")
    ]
    assert len(rows) == 40 and rows[0][0] == 0 and rows[-1][0] == 1
    for threshold, precision, recall, *_ in rows:
        said_yes = p >= threshold
        if threshold in (0.0, 1.0) or abs(p - threshold).min() < 1e-3:
            continue  # the page has four digits of it
        assert precision == pytest.approx(metrics.precision_score(y, said_yes), abs=1e-4)
        assert recall == pytest.approx(metrics.recall_score(y, said_yes), abs=1e-4)


def test_slices_are_marked_and_plotted_by_metric(rich):
    _, x, y, _, p, _ = cancer(1.0)
    smooth = x[:, 4] > np.quantile(x[:, 4], 0.9)
    (table,) = [t for t in rich.tree.iter("table") if "long" in (t.get("class") or "")]
    rows = {(r.get("data-metric"), text_of(r[0]), text_of(r[1])): r for r in table.find("tbody")}
    assert len(rows) == 6 * (4 + 2)
    small = rows["recall", "smoothness", f"{HOSTILE} small"]
    assert text_of(small[2]) == str(smooth.sum()) and text_of(small[4]) == figure(
        metrics.recall_score(y[smooth], p[smooth] > 0.5)
    )
    plots = [f for f in rich.section("metrics").iter("figure") if f.get("data-metric")]
    assert len(plots) == 6 * 2 and {f.get("data-metric") for f in plots} == {key[0] for key in rows}


def test_infra_validation_is_shown(rich):
    assert rich.table("Requests") == [
        ["edge cases", "REST rows", "12", "9", "3", "0"],
        ["edge cases", "gRPC", "12", "8", "3", "1"],
    ]
    assert [row[0] for row in rich.table("Checks")] == ["kept", "not kept"]
    assert rich.table("Wrong responses")[0][2:] == [f"{' '.join(HOSTILE.split())}: missing", "y: 1 served"]
    text = rich.text("validation")
    assert "p99 latency (ms) 1.25" in text and "was ended by SIGABRT" in text and "latency bound (ms)" not in text
    assert "Refused by InfraValidator" in rich.text("overview")


def test_confusion_matrix_and_classes_agree_with_scikit_learn(rich):
    y, p = digits()
    matrix = metrics.confusion_matrix(y, p.argmax(1))
    drawn = [e for e in rich.section("metrics").iter(f"{SVG}svg") if "Confusion" in e.get("aria-label")]
    cells = [text.text for text in drawn[0].iter(f"{SVG}text") if (text.get("class") or "").startswith("on-")]
    assert cells == [str(count) for count in matrix.ravel()]
    f1 = metrics.f1_score(y, p.argmax(1), average=None)
    assert [row[3] for row in rich.table("Metrics by class")] == [figure(value) for value in f1]


def test_curves_residuals_fairness_forms_and_latency_are_shown(rich):
    text = rich.text("metrics")
    for what in (
        "Receiver operating characteristic",
        "Precision and recall",
        "Calibration",
        "Residuals",
        "Fairness",
        "demographic parity",
        "Error budget",
        "SavedModel",
        "1.2e-7",
        "batch 1 ms",
        "the last blessed model",
    ):
        assert what in text, what


def test_stages_are_drawn_with_their_states_and_edges(rich):
    drawing = next(rich.section("stages").iter(f"{SVG}svg"))
    texts = [text.text for text in drawing.iter(f"{SVG}text")]
    assert {"ExampleGen", "cached", "Trainer", "ran · 10.5 s", "Pusher", "skipped"} <= set(texts)
    edges = [e for e in drawing.iter(f"{SVG}path") if (e.get("class") or "").startswith("edge")]
    assert len(edges) == sum(map(len, EDGES.values()))
    boxes = {}
    for box in drawing.iter(f"{SVG}rect"):
        if box.get("class") == "box":
            boxes.setdefault(float(box.get("y")), []).append(float(box.get("x")))
    for xs in boxes.values():  # boxes of a rank do not touch
        assert all(b - a > 156 for a, b in zip(sorted(xs), sorted(xs)[1:]))


def test_data_has_charts_and_statistics_for_each_split(rich):
    data, x, *_ = cancer(1.0)
    row = next(r for r in rich.table("Feature statistics") if r[0] == "mean radius" and r[1] == "test")
    assert row[4] == figure(x[:, 0].mean()) and row[6] == figure(x[:, 0].min()) and row[8] == figure(x[:, 0].max())
    charts = [e for e in rich.section("data").iter(f"{SVG}svg")]
    assert len(charts) == 4 * 2
    text = rich.text("data")
    assert "Skew and drift" in text and "L-infinity distance 0.12" in text and "1.2% missing" in text


def drawn(rich, section, title):
    """Returns the texts and the bars, as (x, y, width, height), of the charts whose title begins so."""
    found = [e for e in rich.section(section).iter(f"{SVG}svg") if e.get("aria-label").startswith(title)]
    return [
        (
            [text.text for text in svg.iter(f"{SVG}text")],
            np.array([[float(bar.get(k)) for k in ("x", "y", "width", "height")] for bar in svg.iter(f"{SVG}rect")]),
        )
        for svg in found
    ]


def test_categories_of_all_splits_have_one_order_and_one_axis(rich):
    (train, train_bars), (test, test_bars) = drawn(rich, "data", HOSTILE)
    assert train == test and "% of values" in train
    shares = np.array([[205 / 562, 357 / 562], [180 / 278, 98 / 278]])
    widths = np.array([train_bars[:, 2], test_bars[:, 2]])
    np.testing.assert_allclose(widths / widths[0, 0], shares / shares[0, 0], rtol=0.01)


def test_histograms_of_all_splits_have_one_axis_and_one_scale(rich):
    data, x, *_ = cancer(1.0)
    (train, train_bars), (test, test_bars) = drawn(rich, "data", "mean radius")
    assert train == test
    np.testing.assert_allclose(train_bars[:, 0], test_bars[:, 0])
    whole = data.data[:, 0]
    counts, edges = np.histogram(whole, 10)
    np.testing.assert_allclose(train_bars[:, 3] / train_bars[:, 3].max(), counts / counts.max(), atol=0.01)
    expected, _ = np.histogram(x[:, 0], edges)  # the report knows them only by buckets of another width
    found = test_bars[:, 3] / test_bars[:, 3].sum()
    assert abs(found - expected / expected.sum()).sum() < 0.2


def test_tables_have_no_empty_columns_and_no_json(rich):
    for table in rich.tree.iter("table"):
        columns, *rows = [[text_of(cell) for cell in row] for row in table.iter("tr")]
        for number, column in list(enumerate(columns))[1:]:
            assert any(row[number] not in ("", "–") for row in rows), (columns, column)
    cells = [text_of(e) for e in rich.tree.iter() if e.tag in ("td", "th", "dd")]
    assert not [cell for cell in cells if cell.startswith(("[", "{", '"'))]
    assert {row[4] for row in rich.table("Trials")} == {"8, 4"}


def test_class_names_are_those_of_each_label(rich):
    text = rich.text("preprocessing")
    assert "label malignant, radius" in text and "class names of malignant benign, " in text
    assert "class names of radius" not in text
    assert "- **Label**: malignant, radius" in rich.card.read_text("utf-8")


def test_model_training_and_search_are_shown(rich):
    text = rich.text("model")
    for what in (
        "parameters 31",
        "FLOPs per row, forward 61",
        "loss by epoch",
        "accuracy by epoch",
        "training loss by step",
        "device CPU",
        "Best: trial",
    ):
        assert what in text, what
    assert len(rich.table("Trials")) == 8
    # A picture with a style of its own stays a picture: inlined, it would color the other drawings.
    assert [img.get("src")[:18] for img in rich.section("model").iter("img")] == ["data:image/svg+xml"] * 2


def test_explanations_show_importance_dependence_and_worst_rows(rich):
    text = rich.text("explanations")
    for what in ("Permutation importance", "Integrated gradients", "Partial dependence", "Worst examples"):
        assert what in text, what
    drawn = [
        e for e in rich.section("explanations").iter(f"{SVG}svg") if e.get("aria-label").startswith("Prediction by ")
    ]
    assert len(drawn) == 5  # three features, one of two classes, one of categories
    (by_class,) = [e for e in drawn if e.get("aria-label") == "Prediction by by class"]
    assert {"benign", "malignant"} <= {text.text for text in by_class.iter(f"{SVG}text")}
    y, p = digits()
    losses = -np.log(p[np.arange(len(y)), y])
    assert f"row {losses.argmax()}" in text and f"loss {figure(losses.max())}" in text
    images = [img.get("src") for img in rich.section("explanations").iter("img")]
    assert len(images) == 6 and all(src.startswith("data:image/png;base64,") for src in images)
    spans = [
        (e.text, e.get("class"), e.get("style")) for e in rich.section("explanations").iter("span") if e.get("style")
    ]
    tokens = [
        (" dim", "lowers", "--strength:12%"),
        (" bright", "raises", "--strength:50%"),
        (HOSTILE, "raises", "--strength:25%"),
    ]
    assert spans == tokens * 6


def test_samples_show_input_reference_answer_and_score(rich):
    text = rich.text("samples")
    hostile = " ".join(HOSTILE.split())
    for what in ("caption", "row 0", "worst, chrf 12.5", "a round zero", hostile, "writer", "answer certainty", "0.25"):
        assert what in text, what
    images = [img.get("src") for img in rich.section("samples").iter("img")]
    assert len(images) == 2 and all(src.startswith("data:image/png;base64,") for src in images)


def test_environment_has_versions_settings_parameters_and_lineage(rich):
    text = rich.text("environment")
    for what in (
        "python",
        "numpy 2.4.0",
        "Trainer.epochs 12",
        "batch size 32",
        "produced by Trainer",
        "produced by ExampleGen",
    ):
        assert what in text, what
    assert len(rich.table("Fingerprints")) == 14


def test_comparison_shows_differences_and_overlap_of_intervals(rich):
    _, _, y, _, p, _ = cancer(1.0)
    other = cancer(0.001)[4]
    rows = {row[0]: row for row in rich.table("Metrics for all rows")}
    difference = metrics.log_loss(y, p) - metrics.log_loss(y, other)
    assert rows["log_loss"][3] == figure(difference) and rows["log_loss"][4:] == ["do not overlap", "better"]
    assert rows["recall"][4:] == ["overlap", ""]
    assert rich.table("Parameters that differ") == [["Trainer.epochs", "12", "6"]]
    assert rich.table("Settings that differ") == [
        ["Trainer.epochs", "12", "6"],
        ["Evaluator.strength", "1.0", "0.001"],
    ]
    assert rich.table("Versions that differ") == [["numpy", "2.4.0", "2.3.0"]]
    assert ["Trainer", "ran", "10.5", "ran", "10.5"] in rich.table("Stages and times")
    drawn = [e.get("aria-label") for e in rich.section("compare").iter(f"{SVG}svg")]
    assert drawn == ["loss by epoch", "accuracy by epoch"]
    summary = {entry["title"]: entry for entry in rich.summary["comparison"]["metrics"]}
    assert summary["log_loss"]["difference"] == pytest.approx(difference) and summary["log_loss"]["overlap"] is False


def test_names_from_the_data_are_escaped(rich):
    page = rich.html.read_text(encoding="utf-8")
    assert len(list(rich.tree.iter("script"))) == 1 and HOSTILE not in page
    for element in rich.tree.iter():
        assert not [name for name in element.attrib if str(name).startswith("on")]
    assert all(img.get("src").startswith("data:") for img in rich.tree.iter("img"))
    assert text_of(rich.section("data")).count(HOSTILE) >= 3  # shown as what it is
    policy = next(m.get("content") for m in rich.tree.iter("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy and "script-src 'sha256-" in policy


def test_files_outside_an_artifact_are_not_included(rich, rich_root):
    import base64

    secret = base64.b64encode((rich_root / "artifacts" / "cells" / "secret.png").read_bytes()).decode()
    assert (rich_root / "artifacts" / "cells" / "secret.png").exists() and secret not in rich.html.read_text()


def test_page_loads_nothing_from_elsewhere(rich, penguins):
    for made in (rich, penguins):
        for element in made.tree.iter():
            for name in ("src", "href", "srcset", "data", "poster", "action"):
                value = element.get(name)
                assert value is None or value.startswith(("data:", "#")), (element.tag, value)
        style = "".join(text_of(e) for e in made.tree.iter("style"))
        assert "url(" not in style and "@import" not in style


def test_tables_have_captions_or_headings_and_charts_have_names(rich):
    for table in rich.tree.iter("table"):
        assert all(th.get("scope") for th in table.iter("th"))
    for svg in rich.tree.iter(f"{SVG}svg"):
        assert svg.get("aria-label") and svg.get("role") == "img"
    assert all(img.get("alt") for img in rich.tree.iter("img"))
    ids = [e.get("id") for e in rich.tree.iter() if e.get("id")]
    assert len(ids) == len(set(ids))


def test_main_job_has_a_complete_report(penguins):
    assert penguins.summary["sections"] == [
        "overview",
        "stages",
        "data",
        "preprocessing",
        "model",
        "metrics",
        *(["explanations"] if "explanations" in penguins.summary["sections"] else []),
        "validation",
        "environment",
        "card",
    ]
    assert penguins.summary["verdicts"][0]["blessed"] and "Blessed" in penguins.text("overview")
    assert "Palmer penguins: which species is it?" in penguins.text("overview")
    assert "island_one_hot" in penguins.text("preprocessing") and "Torgersen" in penguins.text("data")
    assert len(list(penguins.section("model").iter("img"))) == 1
    assert penguins.html.stat().st_size < 3_000_000
    assert "Trainer.epochs 2" in penguins.text("environment") and "produced by ExampleGen" in penguins.text(
        "environment"
    )
    accuracy = [f for f in penguins.summary["figures"] if f["metric"] == "accuracy"]
    assert (
        accuracy
        and 0.5 < accuracy[0]["value"] <= 1
        and accuracy[0]["low"] <= accuracy[0]["value"] <= accuracy[0]["high"]
    )


def test_report_imports_nothing_heavy(rich_root):
    code = """
import sys
from kerasline.pipeline.commands.app import main
try: main(sys.argv[1:])
except SystemExit as stop: assert stop.code == 0, stop.code
heavy = {"tensorflow", "keras", "apache_beam", "pandas", "tensorflow_datasets", "sklearn"} & set(sys.modules)
assert not heavy, heavy
"""
    command = [
        sys.executable,
        "-c",
        code,
        "report",
        "rich",
        "--root",
        str(rich_root),
        "-o",
        str(rich_root / "light.html"),
    ]
    result = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_same_run_gives_the_same_page(rich_root):
    store = Store(sqlite_url(rich_root / "metadata.sqlite"))
    pages = []
    for name in ("a.html", "b.html"):
        write_report(store, store.run("rich"), rich_root / name)
        pages.append(re.sub(r"Written [^.]*\.", "", (rich_root / name).read_text()))
    assert pages[0] == pages[1]


def test_output_option_sets_the_place_of_the_report(rich_root, tmp_path):
    made = report(rich_root, "weaker-", "-o", tmp_path / "deep" / "mine.html")
    assert made.html == tmp_path / "deep" / "mine.html" and made.card == tmp_path / "deep" / "mine.md"
    assert sorted(p.name for p in (tmp_path / "deep").iterdir()) == ["mine.html", "mine.md"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "no such run"),
        (["rich", "--against", "nothing"], "no such run"),
        (["rich", "-o", "/proc/nowhere/x.html"], "report /proc/nowhere/x.html"),
        (["rich", "-o", "card.md"], "expected a name ending in .html"),
        (["rich", "--root", "/proc/none"], "no pipeline root"),
    ],
)
def test_wrong_call_prints_one_line_and_exits_with_2(cli, rich_root, arguments, message):
    result = cli("report", "--root", rich_root, *arguments)
    assert result.returncode == 2 and message in result.stderr and len(result.stderr.splitlines()) == 1
    assert Path(REPOSITORY).exists() and not Path("card.md").exists()
