"""Metrics of texts against reference texts: translations, summaries, transcripts."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kerasline.components.core.errors import ParameterError, check_known, nearest, one_line
from kerasline.components.metrics.base import Direction, Rows, SumMetrics, divided

# Metrics by ROUGE, with the kind and the attribute of rouge-score's result.
ROUGE: Mapping[str, tuple[str, str]] = {
    f"{kind}{suffix}": (kind, part)
    for kind in (*(f"rouge{n}" for n in range(1, 10)), "rougeL", "rougeLsum")
    for suffix, part in (("", "fmeasure"), ("_precision", "precision"), ("_recall", "recall"))
}
# sacrebleu's smoothing methods of BLEU, with their default values.
SMOOTHING: Mapping[str, float] = {"exp": 0.0, "floor": 0.1, "add-k": 1.0, "none": 0.0}
DIRECTIONS: Mapping[str, Direction] = {
    "bleu": "up",
    "chrf": "up",
    "chrf++": "up",
    **dict.fromkeys(ROUGE, "up"),
    "wer": "down",
    "cer": "down",
    "exact_match": "up",
}


class TextMetrics(SumMetrics):
    """BLEU, chrF, ROUGE, word and character error rate, computed by the established libraries, and exact matches.

    | metric | of | scale | more than one reference | source |
    |---|---|---|---|---|
    | `bleu` | sacrebleu | 0 to 100, corpus | n-grams of all | Papineni et al., ACL 2002; Post, WMT 2018 |
    | `chrf`, `chrf++` | sacrebleu | 0 to 100, corpus | the best | Popovic, WMT 2015; WMT 2017 |
    | `rouge1` to `rouge9`, `rougeL`, `rougeLsum` | rouge-score | F1, 0 to 1, mean | the best | Lin, ACL 2004 |
    | `rouge1_precision`, `rouge1_recall`, ... | rouge-score | 0 to 1, mean | those of the best F1 | Lin, ACL 2004 |
    | `wer`, `cer` | jiwer | edits / reference length | the lowest rate | Levenshtein; Morris et al., 2004 |
    | `exact_match` | | share of rows that are equal, but for spaces around | any | |

    BLEU, chrF and the error rates are of the added-up counts of all rows, ROUGE and exact matches are means over
    rows. A row's weight is that of all its counts.

    Labels are texts (str or bytes in UTF-8), (rows,) or (rows, 1); of several references (rows, references), or
    lists of texts as an array of objects (rows,). Predictions are texts (rows,) or (rows, 1). A missing text
    (None, or an empty list of references) is the empty text.

    Args:
        metrics: names of the metrics, the main one first.
        tokenize: sacrebleu's tokenizer, for BLEU; `zh`, `ja-mecab`, `ko-mecab`, `char`, ...
        lowercase: BLEU and chrF ignore case. ROUGE always does.
        stem: ROUGE compares stems of English words (Porter).
        smoothing: sacrebleu's smoothing of BLEU: `exp`, `floor`, `add-k` or `none` (Chen and Cherry, WMT 2014).
        smoothing_value: what `floor` and `add-k` add. Defaults to 0.1 and 1.

    Raises:
        ParameterError: a metric or the smoothing is not known; when computing: neither is the tokenizer, or the library
            that counts is not installed.
    """

    def __init__(
        self,
        metrics: Sequence[str] = ("bleu", "chrf"),
        *,
        tokenize: str = "13a",
        lowercase: bool = False,
        stem: bool = False,
        smoothing: str = "exp",
        smoothing_value: float | None = None,
    ):
        for name in metrics or [""]:
            if name not in DIRECTIONS:
                raise ParameterError(
                    f"metrics={list(metrics)}: there is no metric {name!r} of texts; {nearest(name, DIRECTIONS)}"
                )
        check_known("smoothing", "sacrebleu has no method", [smoothing], SMOOTHING)
        value = SMOOTHING[smoothing] if smoothing_value is None else smoothing_value
        self.directions = {name: DIRECTIONS[name] for name in metrics}
        bleu = _Bleu(tokenize, lowercase, smoothing, value)
        self._counted = [bleu if name == "bleu" else _counted(name, lowercase, stem) for name in self.directions]

    def sums(self, rows: Rows) -> np.ndarray:
        predictions = [references[0] for references in _texts(rows.prediction)]
        references = _texts(rows.label)
        counts = [one.counts(predictions, references).reshape(len(rows), one.width) for one in self._counted]
        return np.concatenate([np.ones((len(rows), 1)), *counts], axis=1)

    def values(self, sums: np.ndarray) -> dict[str, np.ndarray]:
        rows = sums[..., 0]
        counts = np.split(sums[..., 1:], np.cumsum([one.width for one in self._counted])[:-1], axis=-1)
        return {
            name: np.where(rows > 0, one.value(part, rows), np.nan)
            for name, one, part in zip(self.directions, self._counted, counts)
        }


@dataclass(frozen=True)
class _Bleu:
    """Counts the lengths of prediction and reference, and by order the matching n-grams and all of the prediction."""

    tokenize: str
    lowercase: bool
    smoothing: str
    smoothing_value: float
    width: int = 10

    def counts(self, predictions: list[str], references: list[list[str]]) -> np.ndarray:
        bleu = _library("sacrebleu").BLEU
        if self.tokenize not in bleu.TOKENIZERS:
            raise ParameterError(
                f"tokenize={self.tokenize!r}: sacrebleu has no such tokenizer; "
                f"{nearest(self.tokenize, bleu.TOKENIZERS)}"
            )
        try:
            counter = bleu(tokenize=self.tokenize, lowercase=self.lowercase, force=True)
        except (ImportError, RuntimeError) as error:  # some tokenizers need packages of their own
            raise ParameterError(f"tokenize={self.tokenize!r}: {one_line(error)}") from error
        return _counts_of_sacrebleu(counter, predictions, references)

    def value(self, counts: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return BLEU. The smoothing `exp` counts 1/2 for the first order without a match, 1/4 for the next, ..."""
        predicted, reference = counts[..., 0], counts[..., 1]
        right, of_all = counts[..., 2:6], counts[..., 6:]
        some = np.asarray((right > 0).any(axis=-1))
        if self.smoothing == "add-k":  # of all orders but the first
            added = np.array([0.0, *[self.smoothing_value] * 3])
            right, of_all = right + added, of_all + added
        least = np.zeros_like(right)
        if self.smoothing == "exp":
            least = 0.5 ** np.cumsum(right == 0, axis=-1)
        elif self.smoothing == "floor":
            least = np.full_like(right, self.smoothing_value)
        smoothed = np.where(right > 0, right, least)
        precision = divided(smoothed, of_all)
        some &= ((of_all > 0) & (smoothed > 0)).all(axis=-1)
        brevity = np.exp(np.minimum(0, 1 - divided(reference, predicted)))
        mean = np.exp(np.log(np.where(some[..., np.newaxis], precision, 1)).mean(axis=-1))
        return np.where(some, 100 * brevity * mean, 0)


@dataclass(frozen=True)
class _Chrf:
    """Counts by order the n-grams of the prediction, those of the reference, and the matching ones."""

    words: int
    lowercase: bool
    characters: int = 6

    @property
    def width(self) -> int:
        return 3 * (self.characters + self.words)

    def counts(self, predictions: list[str], references: list[list[str]]) -> np.ndarray:
        counter = _library("sacrebleu").CHRF(
            char_order=self.characters, word_order=self.words, lowercase=self.lowercase
        )
        return _counts_of_sacrebleu(counter, predictions, references)

    def value(self, counts: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return F-beta with beta = 2 of precision and recall, averaged over the orders for which both have n-grams."""
        predicted, reference, right = np.moveaxis(counts.reshape(*counts.shape[:-1], self.width // 3, 3), -1, 0)
        in_both = (predicted > 0) & (reference > 0)
        orders = in_both.sum(axis=-1)
        precision = divided(np.where(in_both, divided(right, predicted), 0).sum(axis=-1), orders)
        recall = divided(np.where(in_both, divided(right, reference), 0).sum(axis=-1), orders)
        return 100 * np.nan_to_num(divided(5 * precision * recall, 4 * precision + recall))


@dataclass(frozen=True)
class _Rouge:
    """Computes the F1 score, precision or recall of each row.

    Attributes:
        kind: rouge-score's name, such as `rouge1`.
        part: `fmeasure`, `precision` or `recall`.
    """

    kind: str
    part: str
    stem: bool
    width: int = 1

    def counts(self, predictions: list[str], references: list[list[str]]) -> np.ndarray:
        library = _library("rouge_score.rouge_scorer", "rouge-score")
        scorer = library.RougeScorer([self.kind], use_stemmer=self.stem)
        scores = [scorer.score_multi(true, predicted)[self.kind] for predicted, true in zip(predictions, references)]
        return np.array([getattr(score, self.part) for score in scores], np.float64)

    def value(self, counts: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return divided(counts[..., 0], rows)


@dataclass(frozen=True)
class _ErrorRate:
    """Counts edits, and the words or characters of the reference."""

    characters: bool
    width: int = 2

    def counts(self, predictions: list[str], references: list[list[str]]) -> np.ndarray:
        jiwer = _library("jiwer")
        align = jiwer.process_characters if self.characters else jiwer.process_words
        if not predictions:
            return np.zeros((0, 2))
        pairs = [(predicted, one) for predicted, true in zip(predictions, references) for one in true]
        aligned = align([one for _, one in pairs], [predicted for predicted, _ in pairs])
        counts = np.array(
            [(_edits(steps), len(one)) for steps, one in zip(aligned.alignments, aligned.references)], np.float64
        )
        row = np.repeat(np.arange(len(predictions)), list(map(len, references)))
        rate = np.divide(counts[:, 0], np.maximum(counts[:, 1], 1))
        best = np.lexsort((rate, row))  # The first among equal rates.
        return counts[best[np.searchsorted(row, np.arange(len(predictions)))]]

    def value(self, counts: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return divided(counts[..., 0], counts[..., 1])


@dataclass(frozen=True)
class _ExactMatch:
    """Counts the rows that equal a reference."""

    width: int = 1

    def counts(self, predictions: list[str], references: list[list[str]]) -> np.ndarray:
        pairs = zip(predictions, references)
        return np.array([predicted.strip() in map(str.strip, true) for predicted, true in pairs], np.float64)

    def value(self, counts: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return divided(counts[..., 0], rows)


def _counted(name: str, lowercase: bool, stem: bool) -> Any:
    """Return the counter of a metric other than BLEU."""
    if name == "exact_match":
        return _ExactMatch()
    if name.startswith("chrf"):
        return _Chrf(2 if name == "chrf++" else 0, lowercase)
    return _Rouge(*ROUGE[name], stem) if name in ROUGE else _ErrorRate(name == "cer")


def _texts(values: np.ndarray) -> list[list[str]]:
    """Return the texts of each row, at least one."""
    return [[_text(one) for one in _several(row)] or [""] for row in values]


def _several(row: Any) -> Sequence[Any]:
    if isinstance(row, (str, bytes)) or row is None:
        return [row]
    return [one for one in row if one is not None]


def _text(value: str | bytes | None) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    return "" if value is None else str(value)


def _counts_of_sacrebleu(counter: Any, predictions: list[str], references: list[list[str]]) -> np.ndarray:
    """Return the counts of each row that determine the corpus value: float64 (rows, k)."""
    if not predictions:
        return np.zeros(0)
    most = max(map(len, references))
    filled = [true + [None] * (most - len(true)) for true in references]
    # Not public, but the counts that sacrebleu itself resamples in its significance tests.
    return np.array(counter._extract_corpus_statistics(predictions, list(zip(*filled))), np.float64)


def _edits(steps: Sequence[Any]) -> int:
    return sum(
        max(step.ref_end_idx - step.ref_start_idx, step.hyp_end_idx - step.hyp_start_idx)
        for step in steps
        if step.type != "equal"
    )


def _library(module: str, distribution: str | None = None) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ParameterError(
            f"metrics of texts need the package {distribution or module}, which is not "
            "installed; pip install 'kerasline[text]'"
        ) from error
