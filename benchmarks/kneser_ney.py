"""A language model of n-grams with modified Kneser-Ney smoothing, counted with NumPy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class KneserNey:
    """Interpolated n-grams with modified Kneser-Ney smoothing (Chen and Goodman, 1998), as KenLM estimates them.

    The probability of a token w after a context h of n - 1 tokens, without the first of them h', is

        p(w | h) = max(a(hw) - D(a(hw)), 0) / S(h) + (D(1) N_1(h) + D(2) N_2(h) + D(3) N_3(h)) / S(h) * p(w | h')

    - a(hw): of the longest n-grams, and of those at the beginning of a text, the number of occurrences; of others the
      number of different tokens before them.
    - S(h): the sum of a(hw) over all w. N_1, N_2, N_3: the numbers of w with a(hw) of 1, of 2, and of 3 or more.
    - D(j) = j - (j + 1) n_1 / (n_1 + 2 n_2) n_(j + 1) / n_j for j of 1 to 3, n_j the number of n-grams with a of j.
      Where one of them is 0, D is 0.5, 1, 1.5 (KenLM's `--discount_fallback`).

    After an unknown h it is p(w | h'). Below single tokens all tokens are equally probable.

    Args:
        texts: integers (length,) each. All begin with the same token, which is nowhere else.
        order: int. Number of tokens of the longest n-grams, 2 or more.
        vocabulary_size: int. Ids are below it. Padding, one of them, and the first token are never predicted.
    """

    def __init__(self, texts: Sequence[np.ndarray], order: int, vocabulary_size: int) -> None:
        self.order, self.vocabulary_size = order, vocabulary_size
        tokens, places = _joined(texts)
        begin = tokens[0]
        self._keys = [np.arange(vocabulary_size)]  # of the n-grams of each length: context * vocabulary_size + token
        ids, counts, suffixes = [tokens], [np.bincount(tokens, minlength=vocabulary_size)], []
        at_beginning = [np.arange(vocabulary_size) == begin]
        for length in range(2, order + 1):
            ends = np.flatnonzero(places >= length - 1)
            keys, first, inverse, count = np.unique(
                ids[-1][ends - 1] * vocabulary_size + tokens[ends],
                return_index=True,
                return_inverse=True,
                return_counts=True,
            )
            suffixes.append(ids[-1][ends[first]])
            at_beginning.append(places[ends[first]] == length - 1)
            counts.append(count)
            self._keys.append(keys)
            ids.append(np.full(len(tokens), -1))
            ids[-1][ends] = inverse
        self._tables = []
        for number, keys in enumerate(self._keys):
            adjusted = counts[number]
            if number + 1 < order:
                before = np.bincount(suffixes[number], minlength=len(keys))
                adjusted = np.where(at_beginning[number], adjusted, before)
            if number == 0:
                adjusted[begin] = 0
            contexts = keys // vocabulary_size
            self._tables.append(_Table(adjusted, contexts, len(self._keys[number - 1]) if number else 1))

    def log_probabilities(self, texts: Sequence[np.ndarray]) -> np.ndarray:
        """Return the logarithms (tokens,) of the probabilities of all tokens but the first of each text."""
        tokens, places = _joined(texts)
        ends = np.flatnonzero(places)
        found = np.full(len(tokens), 1 / (self.vocabulary_size - 2))
        found[ends] = self._tables[0].probabilities(tokens[ends], np.zeros(len(ends), int), found[ends])
        ids = tokens
        for length in range(2, self.order + 1):
            ends = np.flatnonzero(places >= length - 1)
            ends = ends[ids[ends - 1] >= 0]
            contexts = ids[ends - 1]
            ids = np.full(len(tokens), -1)
            ids[ends] = _positions(self._keys[length - 1], contexts * self.vocabulary_size + tokens[ends])
            found[ends] = self._tables[length - 1].probabilities(ids[ends], contexts, found[ends])
        return np.log(found[places > 0])


class _Table:
    """The n-grams of one length: discounted counts by n-gram, and sums and weights of shorter contexts by context."""

    def __init__(self, adjusted: np.ndarray, contexts: np.ndarray, size: int) -> None:
        discount = _discounts(adjusted)[np.minimum(adjusted, 3)]
        self._discounted = np.maximum(adjusted - discount, 0)
        self._sums = np.bincount(contexts, adjusted, size)
        self._left = np.bincount(contexts, np.minimum(discount, adjusted), size)

    def probabilities(self, ids: np.ndarray, contexts: np.ndarray, shorter: np.ndarray) -> np.ndarray:
        """Interpolate with the probabilities after shorter contexts. An id of -1 is an unknown n-gram."""
        sums = self._sums[contexts]
        discounted = np.where(ids >= 0, self._discounted[ids], 0)
        mixed = (discounted + self._left[contexts] * shorter) / np.where(sums > 0, sums, 1)
        return np.where(sums > 0, mixed, shorter)


def _discounts(adjusted: np.ndarray) -> np.ndarray:
    """Return the discounts of counts of 0, 1, 2, and 3 or more."""
    one, two, three, four = np.bincount(adjusted[(adjusted > 0) & (adjusted < 5)], minlength=5)[1:]
    if not (one and two and three):
        return np.array([0, 0.5, 1, 1.5])
    share = one / (one + 2 * two)
    return np.array([0, 1 - 2 * share * two / one, 2 - 3 * share * three / two, 3 - 4 * share * four / three])


def _joined(texts: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return all tokens, and the place of each in its text."""
    lengths = np.array([len(text) for text in texts])
    starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
    return np.concatenate(texts).astype(np.int64), np.arange(lengths.sum()) - starts


def _positions(keys: np.ndarray, sought: np.ndarray) -> np.ndarray:
    """Return where keys are in a sorted array, -1 for those that are not."""
    positions = np.minimum(np.searchsorted(keys, sought), len(keys) - 1)
    return np.where(keys[positions] == sought, positions, -1)
