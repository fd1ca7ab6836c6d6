"""Weighted statistics, compared with repeated rows and NumPy."""

import numpy as np
import pytest

import kerasline as kl
from kerasline.components.core.errors import DataError, ParameterError
from kerasline.components.statistics_gen.weighted_statistics import WeightedQuantiles

RANDOM = np.random.default_rng(0)
ROWS = 300
TIMES = RANDOM.integers(0, 4, ROWS)
COLUMNS = {
    "x": [None if r < 0.1 else float(x) for r, x in zip(RANDOM.random(ROWS), RANDOM.lognormal(size=ROWS))],
    "n": RANDOM.integers(-3, 5, ROWS).tolist(),
    "kind": RANDOM.choice(["a", "b", "c"], ROWS, p=[0.6, 0.3, 0.1]).tolist(),
    "tags": [["p"] * int(n) for n in RANDOM.integers(0, 3, ROWS)],
    "weight": TIMES.tolist(),
}


def features(dataset):
    return {feature.path.step[0]: feature for feature in dataset.features}


def stats(feature):
    return feature.string_stats if feature.HasField("string_stats") else feature.num_stats


def test_weight_of_a_row_counts_as_its_number_of_repetitions(make_examples, tmp_path, monkeypatch):
    monkeypatch.setattr("kerasline.components.data.shards.ROW_GROUP_ROWS", 70)
    repeated = {name: [v for v, n in zip(values, TIMES) for _ in range(n)] for name, values in COLUMNS.items()}
    examples = make_examples({"train": COLUMNS}), make_examples({"train": repeated}, "repeated")
    done = kl.StatisticsGen(examples[0], weight="weight").execute(tmp_path / "a").statistics.proto().datasets[0]
    plain = kl.StatisticsGen(examples[1]).execute(tmp_path / "b").statistics.proto().datasets[0]
    assert done.weighted_num_examples == plain.num_examples == TIMES.sum()
    for name, feature in features(done).items():
        ours, theirs = stats(feature), stats(features(plain)[name])
        weighted = ours.common_stats.weighted_common_stats
        assert weighted.num_missing == theirs.common_stats.num_missing
        assert weighted.num_non_missing == theirs.common_stats.num_non_missing
        assert weighted.tot_num_values == theirs.common_stats.tot_num_values
        assert weighted.avg_num_values == pytest.approx(theirs.common_stats.avg_num_values)
        if name in ("x", "n"):
            assert ours.weighted_numeric_stats.mean == pytest.approx(theirs.mean)
            assert ours.weighted_numeric_stats.std_dev == pytest.approx(theirs.std_dev)
            assert ours.weighted_numeric_stats.median == pytest.approx(theirs.median)
        if name == "kind":
            found = [(one.value, one.frequency) for one in ours.weighted_string_stats.top_values]
            assert found == [(one.value, one.frequency) for one in theirs.top_values]


def test_median_of_many_numbers_is_within_the_bound():
    values, weights = RANDOM.normal(size=200_000), RANDOM.exponential(size=200_000)
    found = WeightedQuantiles()
    for part in range(4):
        one = WeightedQuantiles()
        one.add(values[part::4], weights[part::4])
        found.merge(one)
    share = weights[values <= found.median].sum() / weights.sum()
    assert abs(share - 0.5) <= np.log2(200_000 / 4096) / 8192


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ("wait", "StatisticsGen.weight: no column 'wait'; "),
        ("kind", "StatisticsGen.weight: expected a column of numbers, received 'kind' of type string"),
        ("n", "train: column 'n': expected finite weights from 0, received -"),
        ("x", "train: column 'x': expected finite weights from 0, received a missing one"),
    ],
)
def test_invalid_weights_are_an_error(make_examples, tmp_path, weight, message):
    with pytest.raises((ParameterError, DataError), match=message):
        kl.StatisticsGen(make_examples({"train": COLUMNS}), weight=weight).execute(tmp_path / "a")


def test_histograms_of_weights_are_those_of_repeated_rows(make_examples, tmp_path):
    repeated = {name: [v for v, n in zip(values, TIMES) for _ in range(n)] for name, values in COLUMNS.items()}
    examples = make_examples({"train": COLUMNS}), make_examples({"train": repeated}, "repeated")
    done = kl.StatisticsGen(examples[0], weight="weight").execute(tmp_path / "a").statistics.proto().datasets[0]
    plain = kl.StatisticsGen(examples[1]).execute(tmp_path / "b").statistics.proto().datasets[0]
    equal_width, quantiles = features(done)["n"].num_stats.weighted_numeric_stats.histograms
    theirs = features(plain)["n"].num_stats.histograms[0]
    assert [b.sample_count for b in equal_width.buckets] == pytest.approx([b.sample_count for b in theirs.buckets])
    x = np.array([v if v is not None else np.nan for v in COLUMNS["x"]])
    known = ~np.isnan(x)
    expected = np.quantile(x[known], np.arange(1, 10) / 10, weights=TIMES[known], method="inverted_cdf")
    edges = [b.low_value for b in features(done)["x"].num_stats.weighted_numeric_stats.histograms[1].buckets]
    np.testing.assert_array_equal(edges[1:], expected)
    ranked = features(done)["kind"].string_stats.weighted_string_stats.rank_histogram.buckets
    plain_ranks = features(plain)["kind"].string_stats.rank_histogram.buckets
    assert [(b.label, b.sample_count) for b in ranked] == [(b.label, b.sample_count) for b in plain_ranks]
