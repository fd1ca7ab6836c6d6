"""Text metrics compared with the corpus values of their libraries, on real texts."""

import gzip
import importlib.util
import pickle
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasline.components.core.errors import ParameterError
from kerasline.components.metrics.text import DIRECTIONS, TextMetrics
from tests.components.metrics.of_rows import rows, total, values
from tests.conftest import SHARED_DATA

sacrebleu = pytest.importorskip("sacrebleu")
rouge_scorer = pytest.importorskip("rouge_score.rouge_scorer")
jiwer = pytest.importorskip("jiwer")

MAIN = ("bleu", "chrf", "chrf++", "rouge1", "rouge2", "rougeL", "rougeLsum", "wer", "cer")


def lines(*path, count):
    file = SHARED_DATA.joinpath(*path)
    if not file.exists():
        pytest.skip(f"no texts at {file}")
    with gzip.open(file, "rt", encoding="utf-8") as texts:
        next(texts)
        return [next(texts).rstrip("\n").split("\t") for _ in range(count)]


@pytest.fixture(scope="module")
def translations():
    """French package descriptions, and worse ones: words are left out, swapped and taken from the English."""
    rng = np.random.default_rng(0)
    references, predictions = [], []
    for _, english, french in lines("mt", "debian_en_fr.tsv.gz", count=400):
        words, other = french.split(), english.split()
        for place in range(len(words)):
            chance = rng.random()
            if chance < 0.1:
                words[place] = ""
            elif chance < 0.2:
                words[place] = other[place % len(other)]
            elif chance < 0.25:
                words[place] = words[place].upper()
        references.append(french)
        predictions.append(" ".join(words))
    return references, predictions


@pytest.fixture(scope="module")
def summaries():
    """Return synopses of packages, and the beginnings of their descriptions as predictions."""
    predicted = lines("summarization", "debian_desc_synopsis.tsv.gz", count=200)
    return [summary for _, _, summary in predicted], [document[:120] for _, document, _ in predicted]


def of_libraries(references, predictions):
    """Return each metric of the whole corpus from its library, with one reference per row."""
    scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL", "rougeLsum"])
    rouge = [scorer.score(true, predicted) for true, predicted in zip(references, predictions)]
    return {
        "bleu": sacrebleu.corpus_bleu(predictions, [references]).score,
        "chrf": sacrebleu.corpus_chrf(predictions, [references]).score,
        "chrf++": sacrebleu.corpus_chrf(predictions, [references], word_order=2).score,
        **{name: np.mean([row[name].fmeasure for row in rouge]) for name in rouge[0]},
        "wer": jiwer.wer(references, predictions),
        "cer": jiwer.cer(references, predictions),
    }


@pytest.mark.parametrize("texts", ["translations", "summaries"])
def test_corpus_values_agree_with_the_libraries(texts, request):
    references, predictions = request.getfixturevalue(texts)
    expected = of_libraries(references, predictions)
    assert values(TextMetrics(MAIN), references, predictions) == pytest.approx(expected, rel=1e-12)


def test_parameters_have_the_effect_of_the_libraries(translations):
    references, predictions = translations
    family = TextMetrics(["bleu", "chrf", "rouge1"], tokenize="char", lowercase=True, stem=True)
    scorer = rouge_scorer.RougeScorer(["rouge1"], use_stemmer=True)
    expected = {
        "bleu": sacrebleu.corpus_bleu(predictions, [references], tokenize="char", lowercase=True).score,
        "chrf": sacrebleu.CHRF(lowercase=True).corpus_score(predictions, [references]).score,
        "rouge1": np.mean([scorer.score(*pair)["rouge1"].fmeasure for pair in zip(references, predictions)]),
    }
    assert values(family, references, predictions) == pytest.approx(expected, rel=1e-12)


def test_several_references_agree_with_the_libraries(translations):
    references, predictions = (side[:120] for side in translations)
    others = [text.lower() + " ." if place % 3 else None for place, text in enumerate(references)]
    several = np.empty(len(references), object)
    several[:] = [[one] if other is None else [one, other] for one, other in zip(references, others)]
    found = values(TextMetrics(["bleu", "chrf", "rouge2"]), several, predictions)
    scorer = rouge_scorer.RougeScorer(["rouge2"])
    rouge = [scorer.score_multi(true, predicted)["rouge2"].fmeasure for true, predicted in zip(several, predictions)]
    expected = {
        "bleu": sacrebleu.corpus_bleu(predictions, [references, others]).score,
        "chrf": sacrebleu.corpus_chrf(predictions, [references, others]).score,
        "rouge2": np.mean(rouge),
    }
    assert found == pytest.approx(expected, rel=1e-12)
    square = [[one, other or one] for one, other in zip(references, others)]
    found = values(TextMetrics(["bleu"]), np.array(square, object), predictions)
    expected = sacrebleu.corpus_bleu(predictions, [list(stream) for stream in zip(*square)]).score
    assert found["bleu"] == pytest.approx(expected, rel=1e-12)


def test_error_rate_uses_the_reference_with_the_lowest_rate():
    several = np.empty(2, object)
    several[:] = [["a b c d", "a x"], ["e", "f g"]]  # 2 edits of 4, 1 of 2 (as low, later); 1 of 1, 2 of 2
    assert values(TextMetrics(["wer"]), several, ["a b", "h"])["wer"] == 3 / 5


def test_weights_repeat_rows(translations):
    references, predictions = (side[:60] for side in translations)
    weight = np.random.default_rng(0).integers(0, 4, 60)
    repeated = [list(np.repeat(np.array(side, object), weight)) for side in (references, predictions)]
    found = values(TextMetrics(MAIN), references, predictions, weight)
    assert found == pytest.approx(of_libraries(*repeated), rel=1e-12)


def test_bytes_and_columns_give_the_same_values(translations):
    references, predictions = (side[:30] for side in translations)
    expected = values(TextMetrics(MAIN), references, predictions)
    as_bytes = [np.array([text.encode() for text in side], object) for side in (references, predictions)]
    assert values(TextMetrics(MAIN), *as_bytes) == expected
    assert values(TextMetrics(MAIN), *(side[:, np.newaxis] for side in as_bytes)) == expected
    assert values(TextMetrics(MAIN), *(np.array(side) for side in (references, predictions))) == expected


def test_invalid_utf_8_is_accepted():
    assert values(TextMetrics(["cer"]), np.array([b"caf\xe9"], object), ["cafe"])["cer"] == 0.25


@pytest.mark.parametrize(
    ("references", "predictions"),
    [
        (["the cat sat on the mat"], ["a dog"]),  # nothing in common
        (["the cat sat on the mat"], ["the mat"]),  # no n-grams of order 3
        (["the cat sat on the mat"], ["the dog sat under the mat today"]),  # none in common of order 3
        (["the cat sat", "on a mat"], ["the cat sat", "on a mat"]),  # too short for order 4
        (["a b c d e f g"], ["a b c d e f g"]),
        (["a b c d e f g"], [""]),
        (["one two three four five six", "x"], ["one two three four five seven", ""]),
    ],
)
def test_edge_cases_agree_with_the_libraries(references, predictions):
    found = values(TextMetrics(MAIN), references, predictions)
    assert found == pytest.approx(of_libraries(references, predictions), rel=1e-12, abs=1e-12)


def test_missing_texts_count_as_empty():
    several = np.empty(2, object)
    several[:] = [None, []]
    empty = values(TextMetrics(MAIN), ["", ""], ["a b c", ""])
    missing = values(TextMetrics(MAIN), several, np.array(["a b c", None], object))
    assert missing == pytest.approx(empty, nan_ok=True)
    assert np.isnan(empty["wer"])  # edits by a length of 0
    assert empty["bleu"] == empty["chrf"] == empty["rouge1"] == 0


def test_no_rows_give_no_values():
    family = TextMetrics(MAIN)
    empty = rows(np.empty(0, object), np.empty(0, object))
    assert family.sums(empty).shape == (0, 1 + 10 + 18 + 24 + 4 + 2 + 2)
    assert all(np.isnan(value) for value in family.values(total(family, empty)).values())


def test_vectorized_values_equal_single_values(translations):
    references, predictions = (side[:40] for side in translations)
    family = TextMetrics(MAIN)
    sums = family.sums(rows(references, predictions))
    drawn = np.random.default_rng(0).poisson(1, (3, 2, 40))
    found = family.values(drawn @ sums)
    for place in [(0, 0), (2, 1)]:
        one = family.values(drawn[place] @ sums)
        expected = list(map(float, one.values()))
        assert [value[place] for value in found.values()] == pytest.approx(expected, rel=1e-12)


WORDS = st.lists(st.sampled_from(["the", "cat", "sat", "on", "Mat", "."]), max_size=8).map(" ".join)


@given(
    st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=12),
    st.lists(st.integers(0, 12), max_size=3),
    st.randoms(),
)
@settings(max_examples=40)
def test_parts_in_any_order_equal_the_whole_corpus(pairs, cuts, random):
    references, predictions = (np.array(side, object) for side in zip(*pairs))
    family = TextMetrics(MAIN)
    parts = [
        total(family, rows(true, predicted))
        for true, predicted in zip(np.split(references, sorted(cuts)), np.split(predictions, sorted(cuts)))
    ]
    random.shuffle(parts)
    found = family.values(sum(parts))
    expected = of_libraries(list(references), list(predictions))
    if not any(references):
        assert np.isnan(found.pop("wer")) and np.isnan(found.pop("cer"))
    assert found == pytest.approx({name: expected[name] for name in found}, rel=1e-9, abs=1e-12)


def test_family_can_be_pickled():
    sent = pickle.loads(pickle.dumps(TextMetrics(MAIN, lowercase=True)))
    assert values(sent, ["A b c d"], ["a b c d"])["bleu"] == pytest.approx(100)


def test_all_metrics_can_be_selected_by_name():
    found = values(TextMetrics(list(DIRECTIONS)), ["a b c d e f g h i j"], ["a b c d e f g h i j"])
    assert found == pytest.approx({name: 0 if name in ("wer", "cer") else found[name] for name in found})
    assert found["rouge9"] == 1


@pytest.mark.parametrize("module", ["sacrebleu", "rouge_score.rouge_scorer", "jiwer"])
def test_missing_library_is_reported_with_the_command_to_install_it(module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    name = {"sacrebleu": "chrf", "jiwer": "wer"}.get(module, "rouge1")
    with pytest.raises(ParameterError, match=r"which is not installed; pip install 'kerasline\[text\]'"):
        TextMetrics([name]).sums(rows(["a"], ["a"]))


def test_tokenizer_that_needs_more_packages_reports_them():
    if importlib.util.find_spec("MeCab") is None:
        with pytest.raises(ParameterError, match=r"tokenize='ja-mecab': .*sacrebleu\[ja\]"):
            TextMetrics(["bleu"], tokenize="ja-mecab").sums(rows(["a"], ["a"]))
    else:
        assert values(TextMetrics(["bleu"], tokenize="ja-mecab"), ["a b c d"], ["a b c d"])["bleu"] > 99


def test_unknown_names_are_an_error_in_one_line():
    with pytest.raises(ParameterError, match="no metric 'blue' of texts; did you mean 'bleu'"):
        TextMetrics(["blue"])
    with pytest.raises(ParameterError, match="known: bleu, cer"):
        TextMetrics([])
    with pytest.raises(ParameterError, match="tokenize='13b'.*did you mean '13a'"):
        TextMetrics(["bleu"], tokenize="13b").sums(rows(["a"], ["a"]))


@pytest.mark.parametrize("smoothing", ["exp", "floor", "add-k", "none"])
@pytest.mark.parametrize("value", [None, 0.3])
@pytest.mark.parametrize("rows", [1, 2, 60])
def test_smoothing_of_bleu_is_that_of_sacrebleu(translations, smoothing, value, rows):
    references, predictions = (side[:rows] for side in translations)
    predictions = [" ".join(text.split()[:6]) for text in predictions]  # short, so that some orders have no match
    bleu = sacrebleu.BLEU(smooth_method=smoothing, smooth_value=value, force=True)
    family = TextMetrics(["bleu"], smoothing=smoothing, smoothing_value=value)
    expected = bleu.corpus_score(predictions, [references]).score
    assert values(family, references, predictions)["bleu"] == pytest.approx(expected, rel=1e-9)


def test_unknown_smoothing_is_refused():
    with pytest.raises(ParameterError, match="smoothing: sacrebleu has no method 'flor'; did you mean 'floor'"):
        TextMetrics(["bleu"], smoothing="flor")


def test_precision_and_recall_of_rouge_are_those_of_rouge_score(summaries):
    references, predictions = (side[:40] for side in summaries)
    scorer = rouge_scorer.RougeScorer(["rouge2", "rougeL"])
    scores = [scorer.score(*pair) for pair in zip(references, predictions)]
    names = [f"{kind}_{part}" for kind in ("rouge2", "rougeL") for part in ("precision", "recall")]
    expected = {n: np.mean([getattr(s[n.split("_")[0]], n.split("_")[1]) for s in scores]) for n in names}
    assert values(TextMetrics(names), references, predictions) == pytest.approx(expected, rel=1e-12)
