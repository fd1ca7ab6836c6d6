"""Measure the language recipes beside simpler methods on the same splits, one line for each measurement.

    python benchmarks/language.py reviews --data reviews.csv
    python benchmarks/language.py translation --data pairs.tsv.gz
    python benchmarks/language.py summarization --data summaries.tsv.gz
    python benchmarks/language.py language_model --data texts.tsv.gz --set 'ExampleGen.columns={"text":"source"}'

| task | columns | measured | beside it |
|---|---|---|---|
| `reviews` | text, label | accuracy | logistic regression of TF-IDF (scikit-learn) |
| `translation` | source, target | BLEU and chrF by beam search | greedy decoding by the same model, ms a sentence |
| `summarization` | document, summary | ROUGE-1 and ROUGE-L | the first n words, n with the best ROUGE-L on these rows |
| `language_model` | text | perplexity of a token, bits a byte | 5-grams, modified Kneser-Ney smoothing, same tokens |

Tables separated by tabs have no quotes. `--set NODE.PARAM=VALUE` changes a run, such as
`--set 'ExampleGen.column_names=["source","target"]'` for a table without a header, or `--set Trainer.epochs=1`.
`--set 'Exporter.forms=["int8_weights","int4_weights"]'` adds a line for each form of the language model.
`--root DIR` keeps the artifacts, so that a run that was interrupted continues.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

import kerasline as kl  # noqa: E402
from benchmarks.kneser_ney import KneserNey  # noqa: E402
from benchmarks.recipe_runs import run_recipe  # noqa: E402
from kerasline.pipeline.recipes import language_model, translation  # noqa: E402

SPLITS = {"reviews": {"train": 8, "eval": 1, "test": 1}}
COLUMNS: dict[str, Any] = {
    "reviews": ["text", "label"],
    "translation": None,
    "summarization": {"source": "document", "target": "summary"},
    "language_model": ["text"],
}
METRICS = {
    "reviews": ["accuracy"],
    "translation": ["translation/bleu", "translation/chrf"],
    "summarization": ["summary/rouge1", "summary/rougeL"],
    "language_model": ["cross_entropy"],
}
ORDER = 5  # tokens of the longest n-grams
MOST_WORDS = 30  # of a summary by its first words
SENTENCES = 20  # whose translation is timed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=METRICS)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--set", action="append", default=[], dest="settings")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = Run(options.task, options.data.resolve(), options.root or Path(folder, "root"), options.settings)
        compare = {
            "reviews": compare_linear,
            "translation": compare_greedy,
            "summarization": compare_first_words,
            "language_model": compare_ngrams,
        }
        compare[options.task](run, Path(folder))


class Run:
    """A run of a recipe up to Evaluator, whose metrics are printed.

    Args:
        recipe: its name.
        data: the table.
        root: the artifact root.
        settings: further values of `--set`.
    """

    def __init__(self, recipe: str, data: Path, root: Path, settings: list[str]) -> None:
        settings = data_settings(recipe, data) + settings
        self._nodes, seconds = run_recipe(recipe, root, settings, last="Evaluator")
        self.metrics = self._nodes["Evaluator"]["metrics"]
        show(recipe, self.metrics, METRICS[recipe])
        show("seconds", {"all": seconds, "Trainer": self._nodes["Trainer"]["seconds"]})

    @property
    def examples(self) -> kl.Examples:
        return kl.Examples(self._output("ExampleGen", "examples"))

    @property
    def preprocessing(self) -> kl.Preprocessing:
        return kl.Preprocessing(self._output("Transform", "preprocessing"))

    @property
    def model(self) -> kl.Model:
        return kl.Model(self._output("Trainer", "trained_model"))

    @property
    def saved_model(self) -> kl.SavedModel:
        return kl.SavedModel(self._output("Exporter", "saved_model"))

    @property
    def forms(self) -> kl.ModelForms:
        return kl.ModelForms(self._output("Exporter", "model_forms"))

    def column(self, split: str, name: str) -> list[Any]:
        return self.examples.read(split, [name]).column(name).to_pylist()

    def _output(self, node: str, name: str) -> str:
        return self._nodes[node]["outputs"][name]


def data_settings(recipe: str, data: Path) -> list[str]:
    """Return the values of `--set` by which a recipe reads a table."""
    values = {
        "input": data,
        "columns": json.dumps(COLUMNS[recipe]),
        "splits": json.dumps(SPLITS.get(recipe, {"train": 18, "eval": 1, "test": 1})),
        **({"quote": ""} if ".tsv" in data.suffixes else {}),
    }
    return [f"ExampleGen.{name}={value}" for name, value in values.items()]


def show(name: str, values: dict[str, float], only: list[str] | None = None) -> None:
    print(f"{name}: " + ", ".join(f"{key} {values[key]:.4g}" for key in only or values), flush=True)


def compare_linear(run: Run, folder: Path) -> None:
    """Fit logistic regressions of single words, and of words and pairs of words."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    for name, options in {"words": {}, "words and pairs": {"ngram_range": (1, 2), "sublinear_tf": True}}.items():
        clock = time.perf_counter()
        classifier = make_pipeline(TfidfVectorizer(**options), LogisticRegression(max_iter=1000))
        classifier.fit(run.column("train", "text"), run.column("train", "label"))
        accuracy = classifier.score(run.column("test", "text"), run.column("test", "label"))
        show(f"TF-IDF of {name}", {"accuracy": accuracy, "seconds": time.perf_counter() - clock})


def compare_greedy(run: Run, folder: Path) -> None:
    """Export the same model with a greedy answer and judge it, and time sentences one by one."""
    run_with = [run.examples, run.preprocessing, run.model]
    exported = kl.Exporter(run.preprocessing, run.model, run.examples, answer=greedy).execute(folder / "greedy")
    evaluator = kl.Evaluator(
        *run_with, saved_model=exported.saved_model, reference="target", text_metrics=["bleu", "chrf"], samples=0
    )
    found = evaluator.execute(folder / "evaluation").evaluation.read_json("metrics.json")["metrics"]
    overall = {entry["metric"]: entry["value"] for entry in found if entry["output"] == "translation"}
    show("greedy", overall, ["bleu", "chrf"])
    sentences = run.column("test", "source")[:SENTENCES]
    for name, saved in {f"{translation.BEAMS} beams": run.saved_model, "greedy": exported.saved_model}.items():
        show(f"one sentence, {name}", {"milliseconds": milliseconds(saved, sentences)})


def greedy(model: Any, features: dict[str, Any], prepared: Any) -> dict[str, Any]:
    ids = translation.decode(model, features["source"], length=translation.LENGTH, beams=1)
    return {"translation": prepared.layer("words").decode(ids)}


def milliseconds(saved: kl.SavedModel, sentences: list[str]) -> float:
    """Return the median time of a request of one sentence."""
    from kerasline.components.models.session import SavedModelSession

    session = SavedModelSession(saved.path)
    signature, seconds = session.signatures["serving_default"], []
    for sentence in [sentences[0], *sentences]:
        clock = time.perf_counter()
        session.call(signature, [np.array([[sentence.encode()]], object)])
        seconds.append(time.perf_counter() - clock)
    session.close()
    return 1000 * statistics.median(seconds[1:])


def compare_first_words(run: Run, folder: Path) -> None:
    """Judge the first n words of each document as its summary, for any n."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rouge1", "rougeL"])
    pairs = list(zip(run.column("test", "source"), run.column("test", "target")))
    best: dict[str, float] = {"rougeL": -1}
    for number in range(1, MOST_WORDS + 1):
        scores = [scorer.score(target, " ".join(source.split()[:number])) for source, target in pairs]
        means = {name: statistics.mean(score[name].fmeasure for score in scores) for name in scores[0]}
        best = max(best, {"words": number, **means}, key=lambda one: one["rougeL"])
    show("first words", best)


def compare_ngrams(run: Run, folder: Path) -> None:
    """Count n-grams of the tokens that the network is trained with, and judge both on those of the test split."""
    layer = next(one for one in run.preprocessing.load().layers if one.name == "words")
    clock = time.perf_counter()
    ngrams = KneserNey(list(token_ids(run, "train")), ORDER, len(layer.vocabulary))
    test = list(token_ids(run, "test"))
    surprise = -ngrams.log_probabilities(test)
    seconds = time.perf_counter() - clock
    size = sum(len(text) for text in layer.decode(padded(test)).numpy())
    show("test split", {"texts": len(test), "tokens": len(surprise), "bytes": size})
    for name, nats in {"network": run.metrics["cross_entropy"], f"{ORDER}-grams": float(surprise.mean())}.items():
        bits = nats * len(surprise) / math.log(2) / size
        show(name, {"perplexity": math.exp(nats), "bits a byte": bits})
    show("seconds", {f"{ORDER}-grams": seconds})
    written = run.forms.read_json("forms.json")
    reference = {"name": "float32", "metrics": [], **(written["reference"] or {})}
    for form in [reference, *written["forms"]] if written["forms"] else []:
        if form.get("state") == "refused":
            print(f"{form['name']}: refused: {form['why']}")
            continue
        values = {"megabytes": form["megabytes"], "milliseconds": form["latency_ms"]["1"]}
        for metric in form["metrics"]:
            if metric["metric"] == "loss":
                values["perplexity"] = math.exp(metric["value"])
        show(form["name"], values)


def token_ids(run: Run, split: str) -> Iterator[np.ndarray]:
    """Yield the ids of the tokens of each text, from the first one, which is always the same."""
    preprocess = run.preprocessing.load()
    for batch in run.examples.batches(split, ["text"], rows=1024):
        texts = np.array(batch.column("text").to_pylist(), object)[:, np.newaxis]
        prepared = preprocess({"text": texts})
        ids = np.concatenate([prepared["tokens"][:, :1], prepared["next"]], axis=1)
        yield from (row[row != language_model.PAD] for row in ids)


def padded(texts: list[np.ndarray]) -> np.ndarray:
    rows = np.full((len(texts), max(map(len, texts))), language_model.PAD, np.int32)
    for row, text in zip(rows, texts):
        row[: len(text)] = text
    return rows


if __name__ == "__main__":
    main()
