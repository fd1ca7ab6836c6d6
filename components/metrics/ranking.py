"""Ranking metrics: the order of scores within each query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kerasline.components.core.errors import DataError, ParameterError, nearest
from kerasline.components.metrics.base import Direction, Rows, StateMetrics, SumMetrics, divided
from kerasline.components.metrics.estimates import Estimate


class RankingMetrics(SumMetrics):
    """NDCG, mean average precision and mean reciprocal rank; each a mean over queries.

    Of a query, its rows are ranked by score, the highest first. With gain g and rank r = 1, 2, ...
    - DCG at k is the sum of g / log2(r + 1) over r <= k, NDCG that by the DCG of the best order
      (Jarvelin and Kekalainen, ACM Transactions on Information Systems 20, 2002);
    - the average precision is the mean over relevant rows of the share of relevant ones down to their rank;
    - the reciprocal rank is 1 / r of the first relevant row;
    - `min_label_position` is the mean of that r over the queries that have a relevant row.

    Rows of the same score: NDCG is the mean over their orders (McSherry and Najork, ECIR 2008), as in
    scikit-learn's `ndcg_score`; for the other two all of them have the last rank among them, as in its
    `average_precision_score` and `label_ranking_average_precision_score`. So a model that scores all rows
    alike gains nothing by it. A query without a relevant row counts as 0, as in `ndcg_score` and trec_eval, except in
    `min_label_position`.

    The label is the relevance, 0 or more, (rows,) or (rows, 1), the prediction the score, of the same shape.
    The rows of a query have one weight. A query has the slice of that of its rows with the lowest number.

    Args:
        query: name of the column with the query of each row.
        at: ranks k at which NDCG is computed, in addition to NDCG of all rows.
        exponential: the gain is 2^relevance - 1 instead of the relevance (Burges et al., ICML 2005).
        relevant: the least relevance that counts as relevant for average precision and reciprocal rank.

    Raises:
        ParameterError: of `at`, a rank is not above 0.
        DataError: when computing: the column of queries is missing or has nulls, a label is negative or
            missing, label and score are not one number a row, or rows of a query have different weights.
    """

    def __init__(
        self,
        query: str = "query",
        *,
        at: Sequence[int] = (5, 10),
        exponential: bool = False,
        relevant: float = 1.0,
    ):
        if not all(rank > 0 for rank in at):
            raise ParameterError(f"at={list(at)}: expected ranks of 1 or more")
        self.query, self.at, self.exponential, self.relevant = query, tuple(at), exponential, relevant
        names = ["ndcg", *(f"ndcg_at_{rank}" for rank in at), "mean_average_precision", "mean_reciprocal_rank"]
        self.directions: dict[str, Direction] = {**dict.fromkeys(names, "up"), "min_label_position": "down"}

    def sums(self, rows: Rows) -> np.ndarray:
        query = query_numbers(rows, self.query)
        _check_weights(rows, query, self.query)
        relevance, score = _one_a_row(rows.label, "label"), _one_a_row(rows.prediction, "prediction")
        if not (relevance >= 0).all():
            raise DataError("labels of a ranking are relevances of 0 or more, but some are negative or missing")
        if not len(query):
            return np.zeros((0, 2 + len(self.directions)))
        gain = np.exp2(relevance) - 1 if self.exponential else relevance
        found, best = _Ranking.of(query, score), _Ranking.of(query, gain)
        ndcg = [_or_zero(found.dcg(gain, at), best.dcg(gain, at)) for at in (len(query), *self.at)]
        relevant = relevance >= self.relevant
        reciprocal = found.reciprocal_rank(relevant)
        first = np.divide(1, reciprocal, out=np.zeros_like(reciprocal), where=reciprocal > 0)
        columns = [*ndcg, found.average_precision(relevant), reciprocal, first, reciprocal > 0]
        return np.column_stack([np.ones(len(found.starts)), *columns])

    def unit_rows(self, rows: Rows) -> np.ndarray:
        query = query_numbers(rows, self.query)
        order = np.lexsort((rows.number, query))
        return order[_begins(query[order])]

    def values(self, sums: np.ndarray) -> dict[str, np.ndarray]:
        *totals, first, has_relevant = np.moveaxis(sums[..., 1:], -1, 0)
        means = [divided(total, sums[..., 0]) for total in totals]
        return dict(zip(self.directions, [*means, divided(first, has_relevant)]))


class QuerySizes(StateMetrics):
    """Number of queries (the sum of their weights), and the fewest, the mean and the most rows of a query.

    Args:
        query: name of the column with the query of each row.
    """

    directions: Mapping[str, Direction] = dict.fromkeys(
        ("queries", "min_rows_per_query", "mean_rows_per_query", "max_rows_per_query")
    )

    def __init__(self, query: str = "query") -> None:
        self.query = query

    def new_state(self) -> QuerySizesState:
        return QuerySizesState(self.query)

    def estimates(self, state: QuerySizesState, seed: int) -> dict[str, Estimate]:
        mean = state.rows / state.queries if state.queries else np.nan
        least, most = (state.least, state.most) if state.most else (np.nan, np.nan)
        return dict(zip(self.directions, map(Estimate, (state.queries, least, mean, most))))


@dataclass
class QuerySizesState:
    """Weighted numbers of queries and of their rows, and the fewest and the most rows of a query."""

    query: str
    queries: float = 0.0
    rows: float = 0.0
    least: float = np.inf
    most: float = 0.0

    def add(self, rows: Rows) -> None:
        if not len(rows):
            return
        query = query_numbers(rows, self.query)
        sizes = np.bincount(query)
        weight = np.ones(len(rows)) if rows.weight is None else rows.weight
        self.queries += float((weight / sizes[query]).sum())
        self.rows += float(weight.sum())
        self.least = min(self.least, float(sizes.min()))
        self.most = max(self.most, float(sizes.max()))

    def merge(self, other: QuerySizesState) -> None:
        self.queries += other.queries
        self.rows += other.rows
        self.least, self.most = min(self.least, other.least), max(self.most, other.most)


def query_numbers(rows: Rows, name: str) -> np.ndarray:
    """Return the index of each row's query: int64 (rows,).

    Raises:
        DataError: there is no such column, or it has nulls.
    """
    if name not in rows.columns:
        raise DataError(
            f"ranking: the data has no column {name!r}, which identifies the query of each row; "
            f"{nearest(name, rows.columns)}"
        )
    column = rows.columns[name]
    if column.null_count:
        raise DataError(
            f"ranking: the column {name!r} is null in {column.null_count} of {len(column)} rows; each row needs a query"
        )
    return column.dictionary_encode().indices.to_numpy(zero_copy_only=False).astype(np.int64)


def _check_weights(rows: Rows, query: np.ndarray, name: str) -> None:
    """Raise a DataError if rows of a query have different weights."""
    if rows.weight is None or not len(query):
        return
    first = np.empty(query.max() + 1)
    first[query] = rows.weight
    wrong = np.flatnonzero(rows.weight != first[query])
    if len(wrong):
        place = int(wrong[0])
        raise DataError(
            f"ranking: rows of {name} {rows.columns[name][place].as_py()!r} have the weights {rows.weight[place]:g} "
            f"and {first[query[place]]:g}; expected one sample_weight for all rows of a query"
        )


@dataclass(frozen=True)
class _Ranking:
    """Rows sorted by query and, within a query, by descending score.

    Attributes:
        order: the sorted positions of the rows, int64 (rows,). The arrays below are in this order.
        query: query of each row.
        starts: position of the first row of each query, int64 (queries,).
        tie: group of equal query and score of each row.
        last: position of the last row of each group.
    """

    order: np.ndarray
    query: np.ndarray
    starts: np.ndarray
    tie: np.ndarray
    last: np.ndarray

    @classmethod
    def of(cls, query: np.ndarray, score: np.ndarray) -> _Ranking:
        order = np.lexsort((-score, query))
        query, score = query[order], score[order]
        begins = _begins(query)
        tied = begins | _begins(score)
        first = np.flatnonzero(tied)
        last = np.append(first[1:], len(order)) - 1
        return cls(order, query, np.flatnonzero(begins), np.cumsum(tied) - 1, last)

    def dcg(self, gain: np.ndarray, at: int) -> np.ndarray:
        """Return the discounted cumulative gain of each query, float64 (queries,). Ties share their mean gain."""
        rank = np.arange(len(self.order)) - self.starts[self.query]
        discount = np.where(rank < at, 1 / np.log2(rank + 2), 0)
        mean_gain = np.bincount(self.tie, gain[self.order]) / np.bincount(self.tie)
        return np.bincount(self.query, mean_gain[self.tie] * discount)

    def average_precision(self, relevant: np.ndarray) -> np.ndarray:
        """Return the average precision of each query, float64 (queries,)."""
        relevant = relevant[self.order]
        so_far = np.append(0, np.cumsum(relevant))
        found = so_far[self.last[self.tie] + 1] - so_far[self.starts[self.query]]
        precisions = np.bincount(self.query, relevant * found / self._lowest_rank())
        return _or_zero(precisions, np.bincount(self.query, relevant))

    def reciprocal_rank(self, relevant: np.ndarray) -> np.ndarray:
        """Return the reciprocal rank of the first relevant row of each query, float64 (queries,)."""
        return np.maximum.reduceat(relevant[self.order] / self._lowest_rank(), self.starts)

    def _lowest_rank(self) -> np.ndarray:
        """Return the last rank, from 1, among the ties of each row: int64 (rows,)."""
        return self.last[self.tie] - self.starts[self.query] + 1


def _begins(values: np.ndarray) -> np.ndarray:
    """Return whether each value differs from the previous one."""
    return np.append(True, values[1:] != values[:-1])[: len(values)]


def _or_zero(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.nan_to_num(divided(numerator, denominator))


def _one_a_row(values: np.ndarray, what: str) -> np.ndarray:
    if values.size != len(values):
        raise DataError(f"the {what} of a ranking is one number a row, but has the shape {values.shape[1:]} a row")
    return values.reshape(-1).astype(np.float64)
