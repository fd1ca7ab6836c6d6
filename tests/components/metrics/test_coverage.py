"""How often 95% intervals hold what is true, by simulation from distributions whose figures are known.

Each draw is a data set of its own, measured as the Evaluator measures a batch of predictions. Of 1,000 draws a
nominal 95% comes out at 95% ± 1.4% (two standard errors). `calibration_error` is left out: it is a mean
of absolute differences, which noise makes larger, so that its estimate is too large in small data by its nature.
"""

import functools

import numpy as np
import pyarrow as pa
import pytest
from scipy import integrate, stats

from kerasline.components.metrics.binary import BinaryLosses, BinaryScores, BinaryThresholds
from kerasline.components.metrics.measuring import Measure, Measured, _measure_batch
from kerasline.components.metrics.metric_values import estimate
from kerasline.components.metrics.multi_class import Confusion, MultiClassLosses
from kerasline.components.metrics.regression import RegressionErrors, ResidualQuantiles
from kerasline.components.metrics.resampling import Resampling
from kerasline.components.metrics.row_means import MeanLoss
from kerasline.components.metrics.slices import SliceTable
from tests.marks import slowly

FEW, MANY = 200, 1000


def figures(families, columns, draw):
    """All figures of one data set."""
    rows = len(next(iter(columns.values())))
    columns = {"row": np.arange(rows) + draw * rows, **columns}
    arrays = {
        name: v if v.ndim == 1 else pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(v))
        for name, v in columns.items()
    }
    plan = Measure(
        {"o": families},
        SliceTable({}, {}),
        Resampling(draw, 200),
        weighted="weight" in columns,
        baseline="baseline" if "baseline.o" in columns else None,
    )
    measured = Measured(np.zeros((1, 2)), {}, {})
    table = pa.table(arrays).combine_chunks()
    for batch in table.to_batches(8192):
        _measure_batch(batch, plan, measured)
    return estimate(measured, plan, "o", 0)


def coverage(families, drawn, truth, draws, changes=()):
    """The share of draws whose 95% interval holds the true value, by metric."""
    held = dict.fromkeys(truth, 0)
    for draw in range(draws):
        found = figures(families, drawn(np.random.default_rng([draw, 11])), draw)
        for name, value in truth.items():
            one = found[name.removeprefix("change of ")]
            low, high = (one.change if name.startswith("change of ") else one.estimate).interval(0.95)
            held[name] += low <= value <= high
    return {name: count / draws for name, count in held.items()}


def check(shares, draws):
    """Within 93 to 97%; of fewer draws, two standard errors more."""
    slack = 0.0 if draws >= MANY else 2 * np.sqrt(0.05 * 0.95 / draws)
    print({name: round(share, 3) for name, share in shares.items()})
    assert all(0.93 - slack <= share <= 0.97 + slack for share in shares.values()), shares


# Yes and no: a score whose logit is normal about a middle for either label.

SHARE, MIDDLES, BASELINES, SPREAD, BOTH = 0.3, (-1.2, 0.6), (-1.0, 0.4), 1.0, 0.8


def binary(rows, random, weighted=False, baseline=False):
    label = (random.random(rows) < SHARE).astype(np.int64)
    common = random.normal(0, SPREAD * np.sqrt(BOTH), rows)

    def scores(middles):
        logit = np.take(middles, label) + common + random.normal(0, SPREAD * np.sqrt(1 - BOTH), rows)
        return 1 / (1 + np.exp(-logit))

    columns = {"label.o": label, "prediction.o": scores(MIDDLES)}
    if baseline:
        columns["baseline.o"] = scores(BASELINES)
    if weighted:
        columns["weight"] = random.gamma(2.0, size=rows)
    return columns


def binary_truth(middles):
    hit, miss = (1 - stats.norm.cdf(-middles[k], scale=SPREAD) for k in (1, 0))
    selected = SHARE * hit + (1 - SHARE) * miss
    precision = SHARE * hit / selected

    def loss(middle, sign):
        return integrate.quad(lambda x: stats.norm.pdf(x, middle, SPREAD) * np.logaddexp(0, -sign * x), -12, 12)[0]

    def averaged(threshold):
        """Precision at a threshold times the density of positive scores there."""
        true, false = (
            SHARE * stats.norm.sf(threshold, middles[1], SPREAD),
            (1 - SHARE) * stats.norm.sf(threshold, middles[0], SPREAD),
        )
        return true / (true + false) * stats.norm.pdf(threshold, middles[1], SPREAD)

    return {
        "accuracy": SHARE * hit + (1 - SHARE) * (1 - miss),
        "precision": precision,
        "recall": hit,
        "f1": 2 * precision * hit / (precision + hit),
        "roc_auc": stats.norm.cdf((middles[1] - middles[0]) / (SPREAD * np.sqrt(2))),
        "pr_auc": integrate.quad(averaged, -8, 8)[0],
        "log_loss": SHARE * loss(middles[1], 1) + (1 - SHARE) * loss(middles[0], -1),
    }


BINARY = (BinaryThresholds(), BinaryScores(), BinaryLosses())


def binary_case(rows, draws, **how):
    truth = binary_truth(MIDDLES)
    if how.get("baseline"):
        theirs = binary_truth(BASELINES)
        truth = {f"change of {name}": value - theirs[name] for name, value in truth.items() if name != "precision"}
    check(coverage(BINARY, functools.partial(_drawn, binary, rows, how), truth, draws), draws)


def _drawn(function, rows, how, random):
    return function(rows, random, **how)


@pytest.mark.parametrize(
    "how", [{}, slowly({"weighted": True}), slowly({"baseline": True})], ids=["plain", "weighted", "paired"]
)
def test_intervals_of_binary_metrics_cover_the_truth(how):
    binary_case(700, FEW, **how)


@pytest.mark.slow
@pytest.mark.parametrize("rows", [400, pytest.param(5000, marks=pytest.mark.long)])
@pytest.mark.parametrize("how", [{}, {"weighted": True}, {"baseline": True}], ids=["plain", "weighted", "paired"])
def test_intervals_of_all_binary_metrics_cover_the_truth(how, rows):
    binary_case(rows, MANY, **how)


# Several classes: a right answer as often as the class says, else another.

TRUE = np.array([0.4, 0.3, 0.2, 0.1])
TAKEN = np.array([[0.8, 0.1, 0.05, 0.05], [0.15, 0.7, 0.1, 0.05], [0.1, 0.2, 0.6, 0.1], [0.2, 0.1, 0.2, 0.5]])
SURE = 0.7


def several(rows, random, taken=TAKEN, baseline=None):
    label = random.choice(4, rows, p=TRUE)
    chance = random.random(rows)[:, np.newaxis]  # the same for both models: they err on the same rows

    def scores(table):
        predicted = (chance > np.cumsum(table, axis=1)[label]).sum(axis=1).clip(0, 3)
        return np.where(np.eye(4)[predicted] > 0, SURE, (1 - SURE) / 3)

    columns = {"label.o": label, "prediction.o": scores(taken)}
    return columns if baseline is None else {**columns, "baseline.o": scores(baseline)}


def several_truth(taken):
    joint = TRUE[:, np.newaxis] * taken
    right, predicted = np.diag(joint), joint.sum(axis=0)
    f1 = 2 * right / (predicted + TRUE)
    return {
        "accuracy": right.sum(),
        "balanced_accuracy": np.mean(right / TRUE),
        "macro_f1": f1.mean(),
        "weighted_f1": f1 @ TRUE,
        "macro_precision": np.mean(right / predicted),
        "log_loss": -right.sum() * np.log(SURE) - (1 - right.sum()) * np.log((1 - SURE) / 3),
    }


SEVERAL = (Confusion(4), MultiClassLosses(2))
OTHER = TAKEN[[0, 1, 2, 3]] * 0.9 + 0.025


def several_case(rows, draws):
    check(coverage(SEVERAL, lambda random: several(rows, random), several_truth(TAKEN), draws), draws)
    ours, theirs = several_truth(TAKEN), several_truth(OTHER)
    truth = {f"change of {name}": ours[name] - theirs[name] for name in ours}
    check(coverage(SEVERAL, lambda random: several(rows, random, baseline=OTHER), truth, draws), draws)


def test_intervals_of_multi_class_metrics_cover_the_truth():
    several_case(600, FEW)


@pytest.mark.slow
def test_intervals_of_all_multi_class_metrics_cover_the_truth():
    several_case(600, MANY)


# Numbers: errors that are normal, and about the label's own spread.

BIAS, NOISE, LABELS = 0.5, 2.0, 3.0


def numbers(rows, random, weighted=False):
    label = random.normal(10, LABELS, rows)
    prediction = label + random.normal(BIAS, NOISE, rows)
    columns = {
        "label.o": label,
        "prediction.o": prediction,
        "baseline.o": prediction + random.normal(0, 1, rows),
        "loss.o": np.square(prediction - label),
        "loss_count.o": np.ones(rows),
    }
    columns["loss.baseline.o"] = np.square(columns["baseline.o"] - label)
    return {**columns, "weight": random.gamma(2.0, size=rows)} if weighted else columns


NUMBERS = (RegressionErrors(10.0), ResidualQuantiles(), MeanLoss())
SQUARE = BIAS**2 + NOISE**2
NUMBERS_TRUTH = {
    "root_mean_squared_error": np.sqrt(SQUARE),
    "mean_absolute_error": stats.foldnorm.mean(BIAS / NOISE, scale=NOISE),
    "mean_error": BIAS,
    "r2": 1 - SQUARE / LABELS**2,
    "loss": SQUARE,
    "change of root_mean_squared_error": np.sqrt(SQUARE) - np.sqrt(SQUARE + 1),
    "change of loss": -1.0,
    **{f"residual_q{round(q * 100):02d}": stats.norm.ppf(q, BIAS, NOISE) for q in (0.05, 0.25, 0.5, 0.75, 0.95)},
}


def numbers_case(rows, draws, weighted):
    truth = {n: v for n, v in NUMBERS_TRUTH.items() if not (weighted and n.startswith("residual"))}
    check(coverage(NUMBERS, lambda random: numbers(rows, random, weighted), truth, draws), draws)


@pytest.mark.parametrize("weighted", [False, True])
def test_intervals_of_regression_metrics_cover_the_truth(weighted):
    numbers_case(500, FEW, weighted)


@pytest.mark.slow
@pytest.mark.parametrize("weighted", [False, True])
def test_intervals_of_all_regression_metrics_cover_the_truth(weighted):
    numbers_case(500, MANY, weighted)


def test_paired_interval_is_narrower_than_two_separate_ones():
    """What both models have in common cancels."""
    found = figures(BINARY, binary(2000, np.random.default_rng(0), baseline=True), 0)["log_loss"]
    low, high = found.change.interval(0.95)
    alone = found.estimate.interval(0.95)
    assert high - low < 0.8 * np.sqrt(2) * (alone[1] - alone[0])


@pytest.mark.slow
def test_intervals_of_keras_metrics_cover_the_truth():
    """The delete-a-group jackknife, of a mean and of an area."""
    import keras

    from kerasline.components.metrics.keras_metrics import KerasMetric, KerasStates

    made = (keras.metrics.AUC(num_thresholds=1000), keras.metrics.BinaryCrossentropy())
    held, truth = [0, 0], (binary_truth(MIDDLES)["roc_auc"], binary_truth(MIDDLES)["log_loss"])
    for draw in range(500):
        data = binary(400, np.random.default_rng([draw, 5]))
        label, score = (data[f"{side}.o"].astype("float32")[:, None] for side in ("label", "prediction"))
        for place, metric in enumerate(made):
            states = KerasStates(KerasMetric.of(keras.metrics.serialize(metric)))
            states.add(label, score, None, None, np.arange(400) + 400 * draw, [np.zeros(400, np.int64)])
            low, high = states.estimates(1)[0].interval(0.95)
            held[place] += low <= truth[place] <= high
    check(dict(zip(("auc", "crossentropy"), np.array(held) / 500)), 500)
