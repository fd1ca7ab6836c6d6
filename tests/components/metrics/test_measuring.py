"""One pass over predictions: independent of their division into files, and equal to scikit-learn on each slice."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn import metrics as theirs

from kerasline.components.core.component import Context
from kerasline.components.metrics import measuring
from kerasline.components.metrics.binary import BinaryLosses, BinaryScores, BinaryThresholds
from kerasline.components.metrics.measuring import Measure, measure
from kerasline.components.metrics.metric_values import ALL_OTHERS, estimate
from kerasline.components.metrics.ranking import RankingMetrics
from kerasline.components.metrics.regression import ResidualQuantiles
from kerasline.components.metrics.resampling import Resampling
from kerasline.components.metrics.slices import SliceTable

ROWS = 20_000
RANDOM = np.random.default_rng(4)
LABEL = (RANDOM.random(ROWS) < 0.4).astype(np.int64)
SCORE = (1 / (1 + np.exp(-RANDOM.normal(LABEL - 0.5, 1.0)))).astype(np.float32)
OTHER = (1 / (1 + np.exp(-RANDOM.normal(LABEL - 0.5, 1.5)))).astype(np.float32)
WEIGHT = RANDOM.gamma(1.0, size=ROWS)
TOWN = RANDOM.choice(["a", "b", "c", None], ROWS, p=[0.5, 0.3, 0.1, 0.1])
SLICES = SliceTable({"town": ("a", "b", "c")}, {"town": 0})
FAMILIES = (BinaryThresholds(), BinaryScores(), BinaryLosses(), ResidualQuantiles())
TABLE = pa.table(
    {
        "row": np.arange(ROWS),
        "label.y": LABEL,
        "prediction.y": SCORE,
        "baseline.y": OTHER,
        "weight": WEIGHT,
        "slice.town": pa.array(TOWN).dictionary_encode(),
    }
)


def new_plan(families=FAMILIES, **how):
    given = {"slices": SLICES, "resampling": Resampling(0, 40), "weighted": True, "baseline": "baseline", **how}
    return Measure({"y": families}, **given)


def written(folder, table, ends, row_group=1 << 20):
    folder.mkdir()
    names = []
    for start, end in zip([0, *ends], [*ends, len(table)]):
        pq.write_table(table.slice(start, end - start), folder / f"{start:05d}.parquet", row_group_size=row_group)
        names.append(f"{start:05d}.parquet")
    return names


def measured_in(tmp_path, name, ends=(), row_group=1 << 20, beam=(), how=None):
    folder = tmp_path / name
    files = written(folder, TABLE, list(ends), row_group)
    (tmp_path / f"{name} work").mkdir()
    plan = how or new_plan()
    return measure(folder, files, plan, Context(tmp_path / f"{name} work", beam_options=beam)), plan


def estimates(measured, plan, group, **how):
    return estimate(measured, plan, "y", group, **how)


def test_result_does_not_depend_on_files_row_groups_or_workers(tmp_path, monkeypatch):
    here = measured_in(tmp_path, "here")
    monkeypatch.setattr(measuring, "MOST_ROWS_IN_PROCESS", 0)  # use Beam for these few rows
    ways = [
        here,
        measured_in(tmp_path, "one"),
        measured_in(tmp_path, "groups", row_group=777),
        measured_in(tmp_path, "files", ends=(1, 5000, 5001, 17_000), row_group=4000),
        measured_in(
            tmp_path,
            "workers",
            ends=(3000, 9000),
            row_group=2500,
            beam=("--direct_num_workers=2", "--direct_running_mode=multi_threading"),
        ),
    ]
    first, plan = ways[0]
    for other, _ in ways[1:]:
        np.testing.assert_allclose(other.rows, first.rows, rtol=1e-12)
        for group in range(4):
            ours, same = (
                estimates(first, plan, group, compared=ALL_OTHERS if group else None),
                estimates(other, plan, group, compared=ALL_OTHERS if group else None),
            )
            for name, figures in ours.items():
                # The error of quantiles of this many rows is some ten-thousandths in rank.
                near = {"abs": 3e-3} if name.startswith("residual") else {"rel": 1e-9}
                assert same[name].estimate.value == pytest.approx(figures.estimate.value, **near), name
                for kind in ("estimate", "change"):
                    one, another = getattr(figures, kind), getattr(same[name], kind)
                    if one.replicates is not None:
                        np.testing.assert_allclose(
                            another.replicates, one.replicates, rtol=2e-4, atol=1e-6, err_msg=name
                        )
                if figures.difference:
                    assert same[name].difference == pytest.approx(figures.difference, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("group", range(4))
def test_each_slice_agrees_with_scikit_learn_on_its_rows(tmp_path, group):
    measured, plan = measured_in(tmp_path, "m", row_group=3000)
    inside = np.full(ROWS, True) if group == 0 else TOWN == "abc"[group - 1]
    for rows, found, _other in ((inside, "estimate", "baseline"), (~inside, "difference", None)):
        if not rows.any():
            continue
        y, weight = LABEL[rows], WEIGHT[rows]
        for side, scores in (("ours", SCORE[rows]), ("theirs", OTHER[rows])):
            expected = {
                "roc_auc": theirs.roc_auc_score(y, scores, sample_weight=weight),
                "accuracy": theirs.accuracy_score(y, scores > 0.5, sample_weight=weight),
                "log_loss": theirs.log_loss(y, scores, sample_weight=weight),
                "f1": theirs.f1_score(y, scores > 0.5, sample_weight=weight),
            }
            figures = estimates(measured, plan, group, compared=ALL_OTHERS if group else None)
            for name, value in expected.items():
                one = figures[name]
                if found == "difference" and side == "ours":
                    assert one.difference[0] == pytest.approx(one.estimate.value - value, abs=2e-4)
                elif found == "estimate":
                    own = one.estimate.value if side == "ours" else one.baseline
                    assert own == pytest.approx(value, abs=1e-4 if name == "roc_auc" else 1e-6)
                    assert one.change.value == pytest.approx(one.estimate.value - one.baseline)
    assert measured.rows[group] == pytest.approx([inside.sum(), WEIGHT[inside].sum()])


def test_residuals_of_both_models_are_separate(tmp_path):
    measured, plan = measured_in(tmp_path, "m")
    figures = estimates(measured, plan, 0)["residual_q50"]
    expected = [np.quantile(side.astype(float) - LABEL, 0.5, method="inverted_cdf") for side in (SCORE, OTHER)]
    assert [figures.estimate.value, figures.baseline] == pytest.approx(expected, abs=2e-3)


def test_unweighted_shares_have_wilson_intervals(tmp_path):
    how = new_plan(weighted=False, baseline=None)
    measured, plan = measured_in(tmp_path, "m", how=how)
    figures = estimates(measured, plan, 1)
    inside = TOWN == "a"
    assert figures["accuracy"].estimate.method == "wilson"
    assert figures["accuracy"].estimate.share == (np.sum((SCORE > 0.5)[inside] == LABEL[inside]), inside.sum())
    assert figures["roc_auc"].estimate.method == "bootstrap"
    assert figures["residual_q05"].estimate.method == "order statistics"
    assert figures["roc_auc"].change is None


def test_without_replicates_values_have_no_interval(tmp_path):
    measured, plan = measured_in(tmp_path, "m", how=new_plan(resampling=Resampling(0, 0)))
    for figures in estimates(measured, plan, 1, compared=ALL_OTHERS).values():
        assert not np.isnan(figures.estimate.value)
        assert figures.estimate.method in (None, "order statistics")


def test_spread_of_crowded_scores_needs_few_cells(tmp_path):
    """Scores that differ only in the fifth digit have the same area and interval as others."""
    logit = np.log(SCORE.astype(float)) - np.log1p(-SCORE.astype(float))
    crowded = TABLE.set_column(2, "prediction.y", pa.array(0.02 + 1e-5 * logit))
    spreads = []
    for name, table in (("wide", TABLE), ("crowded", crowded)):
        files = written(tmp_path / name, table, [])
        (tmp_path / f"{name} work").mkdir()
        plan = new_plan(resampling=Resampling(0, 400))
        measured = measure(tmp_path / name, files, plan, Context(tmp_path / f"{name} work"))
        figures = estimates(measured, plan, 0)["roc_auc"]
        spreads.append([figures.estimate.value, *(np.std(e.replicates) for e in (figures.estimate, figures.change))])
    assert spreads[0][0] == pytest.approx(spreads[1][0], abs=1e-4)
    assert spreads[0][1:] == pytest.approx(spreads[1][1:], rel=0.15)
    # Hanley and McNeil, 1982, without weights; weights of variance 1 double it.
    area, positive, negative = spreads[0][0], LABEL.sum(), (1 - LABEL).sum()
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    error = (
        (area * (1 - area) + (positive - 1) * (q1 - area**2) + (negative - 1) * (q2 - area**2)) / positive / negative
    )
    assert spreads[0][1] == pytest.approx(np.sqrt(2 * error), rel=0.15)


def test_queries_in_several_files_are_ranked_together(tmp_path):
    query = np.sort(RANDOM.integers(0, 300, 3000))[RANDOM.permutation(3000)]
    relevance, score = RANDOM.integers(0, 4, 3000).astype(float), RANDOM.random(3000)
    table = pa.table({"row": np.arange(3000), "label.y": relevance, "prediction.y": score, "column.q": query})
    folder = tmp_path / "p"
    folder.mkdir()
    names = []
    for start in (0, 1000, 2000):  # as predictions are written: parts of files by query
        for part in (0, 1):
            rows = table.slice(start, 1000).filter(pa.array(query[start : start + 1000] % 2 == part))
            names.append(f"{start:012d}-{part}.parquet")
            pq.write_table(rows, folder / names[-1], row_group_size=100)
    plan = Measure(
        {"y": (RankingMetrics("q"),)},
        SliceTable({}, {}),
        Resampling(0, 20),
        weighted=False,
        columns=("q",),
        partitions=2,
    )
    figures = estimates(measure(folder, names, plan, Context(tmp_path)), plan, 0)
    expected = [
        theirs.ndcg_score([relevance[query == k]], [score[query == k]])
        for k in np.unique(query)
        if (query == k).sum() > 1
    ]
    assert figures["ndcg"].estimate.value == pytest.approx(np.mean(expected), abs=1e-9)
