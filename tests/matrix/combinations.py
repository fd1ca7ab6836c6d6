"""What users combine in a pipeline, and combinations that cover every pair of choices.

Pairwise coverage finds the faults that need one or two choices together, with far fewer runs than all combinations
(Cohen, Dalal, Fredman and Patton, "The AETG system", IEEE Transactions on Software Engineering 23(7), 1997).
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

CHOICES = {
    "task": [
        "binary",
        "text_classes",
        "integer_classes",
        "multi_label",
        "regression",
        "two_regressions",
        "class_and_number",
        "tokens",
        "text",
    ],
    "preprocessing": ["function", "features", "layer_in_file", "layer_in_helper", "feature_space"],
    "evaluator": ["alone", "saved_model", "baseline", "slices", "weights", "no_replicates"],
    "explainer": ["without", "with"],
    "form": ["none", "float16", "int8_weights", "int8", "litert", "onnx"],
    "inputs": [1, 16, 17, 200],
    "way": ["whole", "second_run", "workers", "nodes"],
}
# A FeatureSpace has no lookup without an out-of-vocabulary value, so it cannot number the classes of a label. Weights
# of rows with tokens are tested in tests/components/trainer/test_sample_weights.py.
IMPOSSIBLE = [
    {("task", "text_classes"), ("preprocessing", "feature_space")},
    {("task", "tokens"), ("evaluator", "weights")},
    {("task", "text"), ("evaluator", "weights")},
]
# Two hundred inputs take minutes, and no task reads them in a way of its own.
NOT_REQUIRED = [(("task", task), ("inputs", 200)) for task in CHOICES["task"]]
SEED = 5
CANDIDATES = 50

Choice = tuple[str, object]
Pair = tuple[Choice, Choice]


def required_pairs() -> set[Pair]:
    """Return the pairs of choices to cover, each in the order of `CHOICES`."""
    choices = [[(axis, value) for value in values] for axis, values in CHOICES.items()]
    crossed = (pair for two in itertools.combinations(choices, 2) for pair in itertools.product(*two))
    return {pair for pair in crossed if _is_possible(dict(pair))} - set(NOT_REQUIRED)


def pairs_of(combination: dict[str, object]) -> Iterator[Pair]:
    """Yield the pairs of choices in a combination, each in the order of `CHOICES`."""
    choices = [(axis, combination[axis]) for axis in CHOICES if axis in combination]
    return itertools.combinations(choices, 2)


def pairwise_combinations() -> list[dict[str, object]]:
    """Return combinations that together have all required pairs: always the same, found greedily."""
    chance = random.Random(SEED)
    missing = required_pairs()
    found = []
    while missing:
        seeds = chance.choices(sorted(missing, key=str), k=CANDIDATES)
        candidates = [_completed(dict(pair), missing, chance) for pair in seeds]
        best = max(candidates, key=lambda combination: _new_pairs(combination, missing))
        missing -= set(pairs_of(best))
        found.append(best)
    return found


def _completed(combination: dict[str, object], missing: set[Pair], chance: random.Random) -> dict[str, object]:
    """Add the other choices one by one, in random order: each the one that covers most missing pairs."""
    others = [axis for axis in CHOICES if axis not in combination]
    for axis in chance.sample(others, len(others)):
        options = [{**combination, axis: value} for value in CHOICES[axis]]
        # Of equally good ones, `max` returns the first, and the first choices run fastest.
        combination = max(filter(_is_possible, options), key=lambda option: _new_pairs(option, missing))
    return {axis: combination[axis] for axis in CHOICES}


def _new_pairs(combination: dict[str, object], missing: set[Pair]) -> int:
    return sum(pair in missing for pair in pairs_of(combination))


def _is_possible(combination: dict[str, object]) -> bool:
    return not any(impossible <= set(combination.items()) for impossible in IMPOSSIBLE)
