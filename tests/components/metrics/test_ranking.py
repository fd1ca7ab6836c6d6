"""Rankings compared with scikit-learn, query by query, and with formulas."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata
from sklearn.datasets import load_digits
from sklearn.linear_model import LinearRegression
from sklearn.metrics import average_precision_score, label_ranking_average_precision_score, ndcg_score

from kerasline.components.core.errors import DataError, ParameterError
from kerasline.components.metrics.ranking import QuerySizes, RankingMetrics
from tests.components.metrics.of_rows import rows, total, values


def graded(seed=0, ties=False):
    """Return digits in queries of 2 to 40 images. The relevance follows from the digit, the score from a regression."""
    digits = load_digits()
    rng = np.random.default_rng(seed)
    relevance = digits.target % 4
    score = LinearRegression().fit(digits.data[::3], relevance[::3]).predict(digits.data)
    sizes = rng.integers(2, 41, 200)
    query = np.repeat(np.arange(200), sizes)[: sizes[np.cumsum(sizes) <= len(score)].sum()]
    shuffled = rng.permutation(len(query))
    return relevance[shuffled], np.round(score[shuffled], 0 if ties else 9), query[shuffled]


def by_query(relevance, score, query, metric):
    return np.array([metric(relevance[query == one], score[query == one]) for one in np.unique(query)])


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("at", [None, 1, 3, 10])
def test_ndcg_agrees_with_scikit_learn(ties, at):
    relevance, score, query = graded(ties=ties)
    found = values(RankingMetrics("q", at=[at] if at else []), relevance, score, columns={"q": query})
    expected = by_query(relevance, score, query, lambda r, s: ndcg_score([r], [s], k=at))
    assert found[f"ndcg_at_{at}" if at else "ndcg"] == pytest.approx(expected.mean(), rel=1e-12)


def test_exponential_gain_equals_linear_gain_of_transformed_relevances():
    relevance, score, query = graded(ties=True)
    found = values(RankingMetrics("q", exponential=True), relevance, score, columns={"q": query})
    expected = by_query(2.0**relevance - 1, score, query, lambda r, s: ndcg_score([r], [s], k=5))
    assert found["ndcg_at_5"] == pytest.approx(expected.mean(), rel=1e-12)


@pytest.mark.filterwarnings("ignore:No positive class")
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("relevant", [1, 3])
def test_average_precision_agrees_with_scikit_learn(ties, relevant):
    relevance, score, query = graded(ties=ties)
    found = values(RankingMetrics("q", relevant=relevant), relevance, score, columns={"q": query})
    expected = by_query(relevance >= relevant, score, query, average_precision_score)
    assert found["mean_average_precision"] == pytest.approx(expected.mean(), rel=1e-12)


def test_average_precision_agrees_with_label_ranking_of_relevant_rows():
    relevance, score, query = graded(ties=True)
    there = np.isin(query, [one for one in np.unique(query) if (relevance[query == one] > 0).any()])
    relevance, score, query = relevance[there], score[there], query[there]
    found = values(RankingMetrics("q"), relevance, score, columns={"q": query})
    expected = by_query(relevance > 0, score, query, lambda r, s: label_ranking_average_precision_score([r], [s]))
    assert found["mean_average_precision"] == pytest.approx(expected.mean(), rel=1e-12)


@pytest.mark.parametrize("ties", [False, True])
def test_reciprocal_rank_uses_the_last_rank_of_ties(ties):
    relevance, score, query = graded(ties=ties)
    found = values(RankingMetrics("q"), relevance, score, columns={"q": query})

    def reciprocal(relevance, score):
        ranks = rankdata(-score, "max")
        return 1 / ranks[relevance > 0].min() if (relevance > 0).any() else 0

    assert found["mean_reciprocal_rank"] == pytest.approx(by_query(relevance, score, query, reciprocal).mean())


def test_query_without_relevant_rows_counts_as_zero():
    found = values(RankingMetrics("q"), [1, 0, 0, 0], [2.0, 1.0, 2.0, 1.0], columns={"q": ["a", "a", "b", "b"]})
    assert found == {**{name: 0.5 for name in found}, "min_label_position": 1.0}


def test_equal_scores_get_the_last_rank():
    found = values(RankingMetrics("q"), [1, 0, 0, 0], [0.5] * 4, columns={"q": ["a"] * 4})
    assert found["mean_reciprocal_rank"] == found["mean_average_precision"] == 0.25


def test_queries_are_weighted():
    relevance, score, query = graded()
    of_queries = np.random.default_rng(1).uniform(0, 3, query.max() + 1)
    found = values(RankingMetrics("q"), relevance, score, of_queries[query], {"q": query})
    ndcg = by_query(relevance, score, query, lambda r, s: ndcg_score([r], [s]))
    assert found["ndcg"] == pytest.approx(np.average(ndcg, weights=of_queries[np.unique(query)]), rel=1e-12)


def test_rows_of_a_query_with_different_weights_are_refused():
    given = rows([0, 1, 1], [0.2, 0.8, 0.5], [2.0, 1.0, 0.5], {"query": ["a", "b", "b"]})
    with pytest.raises(DataError, match="rows of query 'b' have the weights 1 and 0.5; expected one sample_weight"):
        RankingMetrics().sums(given)


# The rows of TFMA's min_label_position_test.py and query_statistics_test.py.
TFMA_QUERY = ["1", "1", "2", "2", "2", "3"]
TFMA_SCORE = [0.2, 0.8, 0.9, 0.1, 0.5, 0.9]
TFMA_WEIGHT = [1.0, 1.0, 2.0, 2.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("label", "position"), [([1, 0, 1, 0, 0, 1], (2 + 2 + 3) / 6), ([0, 1, 0, 1, 0, 0], (1 + 6) / 3)]
)
def test_min_label_position_is_that_of_tfma(label, position):
    found = values(RankingMetrics("q"), label, TFMA_SCORE, TFMA_WEIGHT, {"q": TFMA_QUERY})
    assert found["min_label_position"] == pytest.approx(position)


@pytest.mark.parametrize(("weight", "queries", "mean"), [(TFMA_WEIGHT, 6.0, 11 / 6), (None, 3.0, 2.0)])
def test_query_sizes_are_those_of_tfma(weight, queries, mean):
    given = rows([1] * 6, TFMA_SCORE, weight, {"q": TFMA_QUERY})
    family = QuerySizes("q")
    whole, parts = family.new_state(), [family.new_state(), family.new_state()]
    whole.add(given)
    for state, part in zip(parts, (given.take(np.arange(2, 6)), given.take(np.arange(2)))):
        state.add(part)
    parts[0].merge(parts[1])
    for state in (whole, parts[0]):
        found = {name: one.value for name, one in family.estimates(state, 0).items()}
        assert found == pytest.approx(
            {"queries": queries, "min_rows_per_query": 1, "mean_rows_per_query": mean, "max_rows_per_query": 3}
        )


def test_representative_row_of_a_query_does_not_depend_on_order():
    relevance, score, query = graded()
    family, whole = RankingMetrics("q"), rows(relevance, score, columns={"q": query})
    turned = whole.take(np.arange(len(query))[::-1])
    assert set(whole.number[family.unit_rows(whole)]) == set(turned.number[family.unit_rows(turned)])
    assert len(family.unit_rows(whole)) == len(np.unique(query)) == len(family.sums(whole))


def test_units_and_their_representative_rows_have_the_same_order():
    family = RankingMetrics("q", at=[])
    given = rows([0, 1, 1, 0], [1.0, 2.0, 1.0, 2.0], columns={"q": ["late", "late", "early", "early"]})
    sums, places = family.sums(given), family.unit_rows(given)
    reciprocal = dict(zip(np.array(["late", "late", "early", "early"])[places], sums[:, 3]))
    assert reciprocal == {"late": 1.0, "early": 0.5}


def test_no_rows_give_no_values():
    family = RankingMetrics("q")
    empty = rows(np.zeros(0), np.zeros(0), columns={"q": np.zeros(0, np.int64)})
    assert family.sums(empty).shape == (0, 8)
    assert family.unit_rows(empty).shape == (0,)
    assert all(np.isnan(value) for value in family.values(total(family, empty)).values())


def test_vectorized_values_equal_single_values():
    relevance, score, query = graded()
    family = RankingMetrics("q")
    sums = family.sums(rows(relevance, score, columns={"q": query}))
    drawn = np.random.default_rng(0).poisson(1, (3, 2, len(sums)))
    found = family.values(drawn @ sums)
    assert found["ndcg"].shape == (3, 2)
    assert found["ndcg"][1, 0] == pytest.approx(np.average(sums[:, 1], weights=drawn[1, 0]))


@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=40),
    st.permutations(range(7)),
)
def test_sums_of_parts_in_any_order_equal_the_whole(drawn, order):
    query, relevance, score = np.array(drawn).T
    family = RankingMetrics("q")
    parts = [
        total(family, rows(relevance[query == one], score[query == one], columns={"q": query[query == one]}))
        for one in order
    ]
    assert sum(parts) == pytest.approx(total(family, rows(relevance, score, columns={"q": query})), abs=1e-12)


@pytest.mark.parametrize(
    ("label", "score", "columns", "message"),
    [
        ([1, 0], [1.0, 2.0], {"qeury": [1, 1]}, "no column 'query'.*did you mean 'qeury'"),
        ([1, 0], [1.0, 2.0], {"query": [1, None]}, "null in 1 of 2 rows"),
        ([1, -1], [1.0, 2.0], {"query": [1, 1]}, "negative or missing"),
        ([1, 0], [[1.0, 2.0], [1.0, 2.0]], {"query": [1, 1]}, r"shape \(2,\) a row"),
    ],
)
def test_invalid_data_is_an_error_in_one_line(label, score, columns, message):
    with pytest.raises(DataError, match=message):
        RankingMetrics().sums(rows(label, score, columns=columns))


def test_rank_below_one_is_refused():
    with pytest.raises(ParameterError, match="expected ranks of 1 or more"):
        RankingMetrics(at=[0, 5])
