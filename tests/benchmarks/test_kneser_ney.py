"""N-grams with modified Kneser-Ney smoothing against their formula, computed otherwise."""

from collections import Counter, defaultdict

import numpy as np
import pytest

from benchmarks.kneser_ney import KneserNey

BEGIN, END, SIZE = 2, 3, 9  # 0 is padding


def texts(seed, number):
    rng = np.random.default_rng(seed)
    words = np.array([1, 4, 5, 6, 7, 8])
    shares = [0.5, 0.2, 0.1, 0.1, 0.08, 0.02]
    return [np.array([BEGIN, *rng.choice(words, rng.integers(0, 9), p=shares), END]) for _ in range(number)]


def by_definition(corpus, order):
    """Return p(token, context) with dicts and recursion, from the definition of each quantity."""
    grams = [
        Counter(tuple(text[i : i + n]) for text in corpus for i in range(len(text) - n + 1)) for n in range(order + 2)
    ]

    def adjusted(gram):
        if len(gram) == order or gram[0] == BEGIN:
            return 0 if gram == (BEGIN,) else grams[len(gram)][gram]
        return sum(longer[1:] == gram for longer in grams[len(gram) + 1])

    counts = [{gram: adjusted(gram) for gram in grams[n] if n} for n in range(order + 1)]
    followers = defaultdict(list)
    for n in range(1, order + 1):
        for gram, count in counts[n].items():
            followers[gram[:-1]].append(count)

    def discount(n, count):
        found = Counter(counts[n].values())
        if not found[1] * found[2] * found[3]:
            return [0, 0.5, 1, 1.5][min(count, 3)]
        share, j = found[1] / (found[1] + 2 * found[2]), min(count, 3)
        return j - (j + 1) * share * found[j + 1] / found[j] if j else 0

    def probability(token, context):
        n, total = len(context) + 1, sum(followers[context])
        shorter = probability(token, context[1:]) if context else 1 / (SIZE - 2)
        if not total:
            return shorter
        count = counts[n].get((*context, token), 0)
        left = sum(discount(n, each) for each in followers[context])
        return (count - discount(n, count) + left * shorter) / total

    return probability


@pytest.mark.parametrize("order, number", [(2, 4), (2, 60), (3, 60), (5, 200)])
def test_probabilities_follow_the_definition(order, number):
    corpus, others = texts(1, number), texts(2, 20)
    model, probability = KneserNey(corpus, order, SIZE), by_definition([list(map(int, t)) for t in corpus], order)
    expected = [
        probability(int(text[i]), tuple(map(int, text[max(0, i - order + 1) : i])))
        for text in others
        for i in range(1, len(text))
    ]
    np.testing.assert_allclose(model.log_probabilities(others), np.log(expected), rtol=1e-9)


def test_bigram_by_hand():
    """The texts `a b` and `a a`, too few to estimate discounts: they are 0.5, 1 and 1.5. There are 4 possible tokens.

    BEGIN and a precede a, a precedes b, a and b precede END. With the sum 5 and discounts of 1 + 0.5 + 1:
    p(a) = (2 - 1) / 5 + 2.5 / 5 / 4 = 0.325, p(b) = (1 - 0.5) / 5 + 2.5 / 5 / 4 = 0.225.
    After BEGIN twice a: p(a | BEGIN) = (2 - 1) / 2 + 1 / 2 * 0.325 = 0.6625.
    After a once b, once a, once END: p(b | a) = 0.5 / 3 + 3 * 0.5 / 3 * 0.225 = 0.27917.
    """
    a, b = 4, 5
    model = KneserNey([np.array([BEGIN, a, b, END]), np.array([BEGIN, a, a, END])], 2, 6)
    found = np.exp(model.log_probabilities([np.array([BEGIN, a, b])]))
    np.testing.assert_allclose(found, [0.6625, 0.5 / 3 + 0.5 * 0.225])


def test_probabilities_after_any_context_sum_to_one():
    model = KneserNey(texts(1, 100), 4, SIZE)
    for context in texts(3, 10):
        continued = [np.array([*context[:-1], token]) for token in range(SIZE) if token not in (0, BEGIN)]
        last = [model.log_probabilities([text])[-1] for text in continued]
        assert np.exp(last).sum() == pytest.approx(1)
