"""Bounds that a model keeps or breaks, by results made by hand."""

import json
import math
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
from pydantic import TypeAdapter

from kerasline import Pusher
from kerasline.components.core.artifacts import Blessing, SavedModel
from kerasline.components.core.errors import ParameterError, StageSkipped
from kerasline.components.evaluator.judging import blessing, judge
from kerasline.components.evaluator.results import Result
from kerasline.components.evaluator.settings import Thresholds
from kerasline.components.metrics.estimates import Estimate
from kerasline.components.metrics.metric_values import Figures

ERROR = 0.02
# Replicates whose quantiles are those of a normal distribution: limits are known in closed form.
NORMAL = np.array([NormalDist().inv_cdf(k / 2000) for k in range(1, 2000)])


def result(
    value,
    metric="accuracy",
    *,
    slicing="",
    label="",
    rows=1000,
    baseline=None,
    direction="up",
    output="out",
    several=False,
):
    change = None if baseline is None else Estimate(value - baseline, replicates=value - baseline + ERROR * NORMAL)
    figures = Figures(Estimate(value, replicates=value + ERROR * NORMAL), baseline=baseline, change=change)
    return Result(output, slicing, label, rows, float(rows), rows < 100, metric, direction, figures, several)


def bounds(**given):
    return TypeAdapter(Thresholds).validate_python(given)


def judged(results, slicings=(), **given):
    slicings = dict.fromkeys([*slicings, *(r.slicing for r in results if r.slicing)], 0)
    return judge(results, bounds(**given), slicings)


def kept(results, **given):
    return [ruling.kept for ruling in judged(results, **given)]


@pytest.mark.parametrize(
    ("bound", "is_kept"),
    [
        ({"min": 0.8}, True),
        ({"min": 0.81}, False),
        ({"max": 0.8}, True),
        ({"max": 0.79}, False),
        ({"min": 0.7, "max": 0.79}, None),
    ],
)
def test_value_is_compared_with_its_bounds(bound, is_kept):
    expected = [True, False] if is_kept is None else [is_kept]
    assert kept([result(0.8)], accuracy=bound) == expected


@pytest.mark.parametrize(("kind", "sign"), [("min", -1), ("max", 1)])
def test_confidence_applies_the_one_sided_limit(kind, sign):
    limit = 0.8 + sign * ERROR * NormalDist().inv_cdf(0.95)
    for hair, is_kept in ((-1e-3 * -sign, True), (1e-3 * -sign, False)):
        assert kept([result(0.8)], accuracy={kind: limit + hair, "confidence": 0.95}) == [is_kept]


@pytest.mark.parametrize(
    ("value", "baseline", "direction", "is_kept"),
    [
        (0.80, 0.81, "up", True),
        (0.80, 0.83, "up", False),
        (0.90, 0.80, "up", True),
        (0.83, 0.80, "down", False),
        (0.815, 0.80, "down", True),
        (0.7, 0.8, "down", True),
    ],
)
def test_drop_is_positive_if_the_model_is_worse(value, baseline, direction, is_kept):
    results = [result(value, baseline=baseline, direction=direction)]
    assert kept(results, accuracy={"max_drop": 0.02}) == [is_kept]


def test_drop_with_confidence_must_be_ruled_out():
    results = [result(0.8, baseline=0.81)]  # worse by 0.01, by 0.043 at most
    assert kept(results, accuracy={"max_drop": 0.04, "confidence": 0.95}) == [False]
    assert kept(results, accuracy={"max_drop": 0.045, "confidence": 0.95}) == [True]


def test_first_run_with_last_blessed_model_as_baseline_keeps_max_drop():
    (ruling,) = judge([result(0.8)], bounds(accuracy={"max_drop": 0.0}), {}, awaits_baseline=True)
    assert ruling.kept and not ruling.measured
    assert ruling.why == "there is no baseline to compare with yet"


@pytest.mark.parametrize(
    ("results", "bound", "why"),
    [
        ([result(math.nan)], {"min": 0.5}, "accuracy is undefined for these rows, at least 0.5 required"),
        (
            [result(0.8)],
            {"max_drop": 0.1},
            "accuracy has no baseline to compare with, at most 0.1 worse than the baseline's required",
        ),
        (
            [result(0.8, baseline=math.nan)],
            {"max_drop": 0.1},
            "accuracy has no baseline to compare with, at most 0.1 worse than the baseline's required",
        ),
        ([result(0.8, rows=99)], {"min": 0.5, "min_rows": 100}, "accuracy has 99 rows, at least 100 required"),
        (
            [replace(result(0.8), figures=Figures(Estimate(0.8)))],
            {"min": 0.5, "confidence": 0.9},
            "accuracy has no confidence limit, at least 0.5 with confidence 0.9 required",
        ),
        (
            [result(0.8), result(0.7, slicing="town", label="a", rows=50)],
            {"min": 0.5, "slices": True, "min_rows": 100},
            "no slice of 100 rows or more by hour, town has accuracy",
        ),
        (
            [result(0.8), result(math.nan, slicing="town", label="a")],
            {"min": 0.5, "slices": ["town"]},
            "no slice of 1 rows or more by town has accuracy",
        ),
        (
            [result(0.8), result(0.8, slicing="town", label="a")],
            {"max_drop": 0.5, "slices": True},
            "no slice of 1 rows or more by hour, town has accuracy and a baseline's",
        ),
    ],
)
def test_bound_that_measured_nothing_is_kept_only_on_request(results, bound, why):
    (ruling,) = judged(results, slicings=["hour"], accuracy=bound)
    assert not ruling.kept and not ruling.measured and ruling.why == why
    (ruling,) = judged(results, slicings=["hour"], accuracy={**bound, "if_unmeasured": "pass"})
    assert ruling.kept and not ruling.measured and ruling.why == why


def test_each_named_slicing_must_have_a_measured_slice():
    results = [result(0.9), result(0.8, slicing="town", label="a"), result(math.nan, slicing="hour", label="1")]
    rulings = judged(results, accuracy={"min": 0.5, "slices": ["town", "hour"]})
    assert [(r.kept, r.measured) for r in rulings] == [(True, True), (False, False)]
    assert rulings[1].rule == "accuracy at least 0.5 in each slice of 1 rows or more by hour"
    assert kept(results, accuracy={"min": 0.5, "slices": True}) == [True]


def test_violation_without_a_confidence_limit_never_passes():
    results = [replace(result(0.4), figures=Figures(Estimate(0.4)))]
    assert kept(results, accuracy={"min": 0.5, "confidence": 0.9, "if_unmeasured": "pass"}) == [False]


def test_slices_that_were_not_measured_are_counted_in_the_rule():
    (ruling,) = judge(SLICES, bounds(accuracy={"min": 0.5, "slices": True, "min_rows": 10}), {"town": 2, "hour": 1})
    assert ruling.rule == (
        "accuracy at least 0.5 in each of 3 slices of 10 rows or more "
        "(1 more have no accuracy, 3 less frequent ones are not measured)"
    )


def test_nan_violates_every_bound():
    for bound in ({"min": 0.0}, {"max": 1.0}, {"min": 0.0, "confidence": 0.9}):
        assert kept([result(math.nan)], accuracy=bound) == [False]
    assert kept([result(math.nan, baseline=0.8)], accuracy={"max_drop": 1.0}) == [False]
    assert kept([result(0.8, baseline=math.nan)], accuracy={"max_drop": 1.0}) == [False]


SLICES = [
    result(0.9),
    result(0.85, slicing="town", label="a"),
    result(0.70, slicing="town", label="b", rows=150),
    result(0.10, slicing="town", label="c", rows=5),
    result(0.75, slicing="hour", label="1"),
    result(math.nan, slicing="hour", label="2"),
]


def test_bound_can_apply_to_all_slices_instead_of_the_whole():
    rulings = judged(SLICES, accuracy={"min": 0.8, "slices": True})
    assert [(r.slicing, r.slice) for r in rulings] == [("town", "b"), ("town", "c"), ("hour", "1")]
    assert rulings[0].why == "accuracy in town=b is 0.7, at least 0.8 required"


def test_bound_can_apply_to_named_slicings_and_large_slices():
    rulings = judged(SLICES, accuracy={"min": 0.8, "slices": ["town"], "min_rows": 100})
    assert [r.slice for r in rulings] == ["b"]


def test_slice_nearest_to_a_satisfied_bound_is_reported():
    (ruling,) = judged(SLICES, accuracy={"min": 0.5, "slices": True, "min_rows": 10})
    assert ruling.kept and (ruling.slicing, ruling.slice) == ("town", "b")
    assert ruling.rule == "accuracy at least 0.5 in each of 3 slices of 10 rows or more (1 more have no accuracy)"


def test_confidence_of_several_slices_has_bonferroni_correction():
    """All five hold together: each at 1 - 0.05 / 5."""
    results = [result(0.9)] + [result(0.8, slicing="town", label=str(k)) for k in range(5)]
    for level, is_kept in ((0.99, True), (0.95, False)):
        limit = 0.8 - ERROR * NormalDist().inv_cdf(0.99)
        bound = limit - 1e-3 if is_kept else 0.8 - ERROR * NormalDist().inv_cdf(level) - 1e-3
        rulings = judged(results, accuracy={"min": bound, "slices": True, "confidence": 0.95})
        assert [r.kept for r in rulings] == ([True] if is_kept else [False] * 5)
    assert rulings[0].confidence == 0.95


def test_many_slices_do_not_depend_on_the_outermost_replicate():
    """With 200 replicates and 100 slices the level is 0.9995: beyond any replicate."""
    few = np.random.default_rng(0).normal(0, ERROR, 200)
    results = [result(0.9)] + [
        Result(
            "out",
            "town",
            str(k),
            1000,
            1000.0,
            False,
            "accuracy",
            "up",
            Figures(Estimate(0.8, replicates=0.8 + few)),
        )
        for k in range(100)
    ]
    ruling = judged(results, accuracy={"min": 0.1, "slices": True, "confidence": 0.95})[0]
    assert ruling.low <= 0.8 - np.std(few, ddof=1) * NormalDist().inv_cdf(0.9995) + 1e-9


def test_several_bounds_and_metrics_are_checked():
    results = [result(0.8), result(0.3, "log_loss", direction="down")]
    given = {"accuracy": [{"min": 0.7}, {"min": 0.85}], "log_loss": {"max": 0.4}}
    assert kept(results, **given) == [True, False, True]


def test_metric_of_several_outputs_is_checked_in_each_or_in_one():
    results = [result(0.8, output="one", several=True), result(0.6, output="two", several=True)]
    assert kept(results, accuracy={"min": 0.7}) == [True, False]
    rulings = judged(results, **{"one/accuracy": {"min": 0.7}})
    assert [(r.output, r.kept) for r in rulings] == [("one", True)]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"acuracy": {"min": 0}}, "no metric 'acuracy'; did you mean 'accuracy'"),
        ({"accuracy": {"min": 0, "slices": ["twon"]}}, "has bounds for slices by 'twon'; did you mean 'town'"),
        ({"mean_label": {"max_drop": 0.1}}, "max_drop is set for 'mean_label', a metric for which neither"),
    ],
)
def test_unknown_metrics_and_slicings_are_named(given, message):
    with pytest.raises(ParameterError, match=f"Evaluator.thresholds: .*{message}") as error:
        judged([*SLICES, result(0.3, "mean_label", direction=None)], **given)
    assert "\n" not in str(error.value)


def test_suggestion_with_several_outputs_is_the_full_name():
    results = [result(0.8, output="one", several=True), result(0.6, output="two", several=True)]
    with pytest.raises(ParameterError, match="did you mean 'two/accuracy'"):
        judged(results, **{"two/acuracy": {"min": 0}})


def test_bounds_on_missing_slices_are_an_error():
    with pytest.raises(ParameterError, match="has bounds for slices, but Evaluator.slices is empty"):
        judged([result(0.8)], accuracy={"min": 0, "slices": True})


def test_blessing_has_the_reasons_and_pusher_repeats_them(tmp_path):
    results = [result(0.8), result(0.7, slicing="town", label="b"), result(math.nan, "roc_auc")]
    given = {
        "accuracy": [{"min": 0.9}, {"min": 0.75, "slices": ["town"]}, {"min": 0.5}],
        "roc_auc": [{"min": 0.5}, {"min": 0.6, "if_unmeasured": "pass"}],
    }
    document = blessing(judged(results, **given))
    (tmp_path / "b").mkdir()
    artifact = Blessing(tmp_path / "b")
    artifact.write_json("blessing.json", document)
    held = json.loads((tmp_path / "b" / "blessing.json").read_text())
    assert held["blessed"] is False and [rule["kept"] for rule in held["rules"]] == [False, False, True, False, True]
    assert held["rules"][0] == {
        "rule": "accuracy at least 0.9",
        "output": "out",
        "metric": "accuracy",
        "slicing": "",
        "slice": "",
        "kind": "min",
        "bound": 0.9,
        "confidence": None,
        "value": 0.8,
        "low": None,
        "high": None,
        "measured": True,
        "kept": False,
        "why": "accuracy is 0.8, at least 0.9 required",
    }
    assert held["rules"][3]["value"] is None
    (tmp_path / "m").mkdir()
    with pytest.raises(StageSkipped) as refused:
        Pusher(SavedModel(tmp_path / "m"), artifact, destination=str(tmp_path / "d")).execute(tmp_path / "p")
    assert str(refused.value) == (
        "model refused: accuracy is 0.8, at least 0.9 required; accuracy in town=b is 0.7, at least 0.75 required; "
        "roc_auc is undefined for these rows, at least 0.5 required"
    )
    assert artifact.unmeasured() == [
        "roc_auc at least 0.6 (roc_auc is undefined for these rows, at least 0.6 required)"
    ]


@pytest.mark.parametrize(
    ("value", "baseline", "direction", "bound", "is_kept"),
    [
        # TFMA, metrics_validator_test.py: a change threshold with `relative`, here as a drop.
        (0.8, 0.84, "up", 0.05, True),
        (0.8, 0.85, "up", 0.05, False),
        (0.33, 0.30, "down", 0.1 + 1e-9, True),
        (0.34, 0.30, "down", 0.1, False),
        (-2.0, -1.9, "up", 0.06, True),
        (0.9, 0.8, "up", -0.1, True),
        (0.85, 0.8, "up", -0.1, False),
    ],
)
def test_relative_drop_is_a_share_of_the_baseline(value, baseline, direction, bound, is_kept):
    results = [result(value, baseline=baseline, direction=direction)]
    (ruling,) = judged(results, accuracy={"max_relative_drop": bound})
    drop = (baseline - value if direction == "up" else value - baseline) / abs(baseline)
    assert (ruling.kept, ruling.value) == (is_kept, pytest.approx(drop))


def test_relative_drop_with_confidence_scales_the_limit():
    limit = (0.01 + ERROR * NormalDist().inv_cdf(0.95)) / 0.81
    for bound, is_kept in ((limit + 1e-3, True), (limit - 1e-3, False)):
        given = {"max_relative_drop": bound, "confidence": 0.95}
        assert kept([result(0.8, baseline=0.81)], accuracy=given) == [is_kept]


def test_relative_drop_from_zero_is_not_measured():
    (ruling,) = judged([result(0.8, baseline=0.0)], accuracy={"max_relative_drop": 0.1})
    assert not ruling.measured and not ruling.kept
    assert ruling.why == "accuracy is 0 in the baseline, at most 10% worse than the baseline's required"


def test_bound_can_apply_to_named_slices():
    given = {"accuracy": {"min": 0.75, "slices": {"town": ["a"]}}}
    assert [(r.slice, r.kept) for r in judged(SLICES, **given)] == [("a", True)]
    rulings = judged(SLICES, accuracy={"min": 0.75, "slices": {"town": ["a", "b"], "hour": ["1"]}})
    assert [(r.slice, r.kept) for r in rulings] == [("b", False)]


def test_named_slice_that_is_not_measured_refuses():
    (ruling,) = judged(SLICES, accuracy={"min": 0.1, "slices": {"town": ["d"]}})
    assert not ruling.kept and not ruling.measured
    assert ruling.why == "no slice of 1 rows or more named town=d has accuracy"
    rulings = judged(SLICES, accuracy={"min": 0.1, "slices": {"town": ["a", "d"]}})
    assert [(r.kept, r.measured) for r in rulings] == [(True, True), (False, False)]


def compared(value, difference, label):
    figures = Figures(Estimate(value), difference=(difference, ERROR))
    one = result(value, slicing="town", label=label)
    return replace(one, figures=figures, compared="town=a")


def test_gap_between_slices_is_bounded_in_both_directions():
    results = [result(0.8), result(0.8, slicing="town", label="a"), compared(0.7, -0.1, "b"), compared(0.83, 0.03, "c")]
    assert kept(results, accuracy={"max_gap": 0.1, "slices": True}) == [True]
    (ruling,) = judged(results, accuracy={"max_gap": 0.05, "slices": ["town"]})
    assert (ruling.slice, ruling.why) == ("b", "accuracy in town=b is 0.7, 0.1 from town=a, at most 0.05 allowed")
    reach = ERROR * NormalDist().inv_cdf(0.95)
    for bound, is_kept in ((0.1 + reach + 1e-6, True), (0.1 + reach - 1e-6, False)):
        given = {"max_gap": bound, "slices": {"town": ["b"]}, "confidence": 0.95}
        assert kept(results, accuracy=given) == [is_kept]


def test_gap_without_comparisons_refuses():
    (ruling,) = judged([result(0.8), result(0.7, slicing="town", label="a")], accuracy={"max_gap": 1, "slices": True})
    assert not ruling.kept and "has accuracy and other rows to compare it with" in ruling.why


@pytest.mark.parametrize("bound", [{"max_gap": 0.1}, {"max_gap": -0.1, "slices": True}, {"slices": True}])
def test_bounds_that_cannot_apply_are_refused(bound):
    with pytest.raises(ValueError, match="max_gap"):
        bounds(accuracy=bound)
