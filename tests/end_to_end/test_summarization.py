"""The recipe `summarization`, in a small size: from a table of documents to judged summaries."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.end_to_end.recipe_runs import require_language_libraries, run_recipe

pytestmark = pytest.mark.slow
require_language_libraries()


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
    """A table of documents whose summary is their only noun."""
    rng = np.random.default_rng(5)
    nouns, fillers = ["library", "game", "driver", "editor", "server"], ["a", "the", "of", "with", "for"]
    file = tmp_path_factory.mktemp("documents") / "documents.tsv"
    lines = ["document\tsummary"]
    for number in range(400):
        noun = nouns[number % len(nouns)]
        words = rng.permutation([noun, *rng.choice(fillers, rng.integers(3, 20))])
        lines.append(" ".join(words) + "\t" + noun)
    file.write_text("\n".join(lines))
    return file


def test_summaries_are_generated_and_judged(cli, documents, tmp_path):
    settings = {
        "ExampleGen.input": documents,
        "ExampleGen.columns": '{"source": "document", "target": "summary"}',
        "ExampleGen.splits": '{"train": 8, "eval": 1, "test": 1}',
        "ModelBuilder.hyperparameters.units": 32,
        "ModelBuilder.hyperparameters.layers": 1,
        "ModelBuilder.hyperparameters.learning_rate": 0.01,
        "ModelBuilder.hyperparameters.warm_up_steps": 10,
        "ModelBuilder.hyperparameters.decay_steps": 600,
        "Trainer.epochs": 60,
        "Trainer.tokens_a_batch": 1024,
    }
    nodes = run_recipe(cli, "summarization", tmp_path, settings, "--to", "Evaluator")
    evaluation = Path(nodes["Evaluator"]["outputs"]["evaluation"])
    measured = json.loads((evaluation / "metrics.json").read_text())["metrics"]
    found = {entry["metric"]: entry["value"] for entry in measured}
    assert found["rougeL"] > 0.4  # 0.2 for one of five words at random
