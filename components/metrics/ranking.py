"""Ranking metrics: the order of scores within each query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kerasline.components.core.errors import DataError, ParameterError, nearest
from kerasline.components.metrics.base import Direction, Rows, SumMetrics, divided


class RankingMetrics(SumMetrics):
    """NDCG, mean average precision and mean reciprocal rank; each a mean over queries.

    Of a query, its rows are ranked by score, the highest first. With gain g and rank r = 1, 2, ...
    - DCG at k is the sum of g / log2(r + 1) over r <= k, NDCG that by the DCG of the best order
      (Jarvelin and Kekalainen, ACM Transactions on Information Systems 20, 2002);
    - the average precision is the mean over relevant rows of the share of relevant ones down to their rank;
    - the reciprocal rank is 1 / r of the first relevant row.

    Rows of the same score: NDCG is the mean over their orders (McSherry and Najork, ECIR 2008), as in
    scikit-learn's `ndcg_score`; for the other two all of them have the last rank among them, as in its
    `average_precision_score` and `label_ranking_average_precision_score`. So a model that scores all rows
    alike gains nothing by it. A query without a relevant row counts as 0, as in `ndcg_score` and trec_eval.

    The label is the relevance, 0 or more, (rows,) or (rows, 1), the prediction the score, of the same shape.
    A query has the weight and the slice of that of its rows with the lowest number.

    Args:
        query: name of the column with the query of each row.
        at: ranks k at which NDCG is computed, in addition to NDCG of all rows.
        exponential: the gain is 2^relevance - 1 instead of the relevance (Burges et al., ICML 2005).
        relevant: the least relevance that counts as relevant for average precision and reciprocal rank.

    Raises:
        ParameterError: of `at`, a rank is not above 0.
        DataError: when computing: the column of queries is missing or has nulls, a label is negative or
            missing, or label and score are not one number a row.
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
        self.directions: dict[str, Direction] = dict.fromkeys(names, "up")

    def sums(self, rows: Rows) -> np.ndarray:
        query = self._queries(rows)
        relevance, score = _one_a_row(rows.label, "label"), _one_a_row(rows.prediction, "prediction")
        if not (relevance >= 0).all():
            raise DataError("labels of a ranking are relevances of 0 or more, but some are negative or missing")
        if not len(query):
            return np.zeros((0, 1 + len(self.directions)))
        gain = np.exp2(relevance) - 1 if self.exponential else relevance
        found, best = _Ranking.of(query, score), _Ranking.of(query, gain)
        ndcg = [_or_zero(found.dcg(gain, at), best.dcg(gain, at)) for at in (len(query), *self.at)]
        relevant = relevance >= self.relevant
        columns = [*ndcg, found.average_precision(relevant), found.reciprocal_rank(relevant)]
        return np.column_stack([np.ones(len(found.starts)), *columns])

    def unit_rows(self, rows: Rows) -> np.ndarray:
        query = self._queries(rows)
        order = np.lexsort((rows.number, query))
        return order[_begins(query[order])]

    def values(self, sums: np.ndarray) -> dict[str, np.ndarray]:
        means = divided(sums[..., 1:], sums[..., :1])
        return {name: means[..., place] for place, name in enumerate(self.directions)}

    def _queries(self, rows: Rows) -> np.ndarray:
        """Return the index of each row's query: int64 (rows,)."""
        if self.query not in rows.columns:
            raise DataError(
                f"ranking: the data has no column {self.query!r}, which identifies the query of each row; "
                f"{nearest(self.query, rows.columns)}"
            )
        column = rows.columns[self.query]
        if column.null_count:
            raise DataError(
                f"ranking: the column {self.query!r} is null in {column.null_count} of {len(column)} "
                "rows; each row needs a query"
            )
        return column.dictionary_encode().indices.to_numpy(zero_copy_only=False).astype(np.int64)


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
