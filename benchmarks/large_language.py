"""A language model of 100 million parameters, from a table of texts to a served answer, in one command.

    python benchmarks/large_language.py --data texts.tsv.gz --set 'ExampleGen.columns={"text":"source"}'

Runs the recipe `language_model` in the shape of GPT-2 small, each stage in a process of its own, and prints its
seconds, processor seconds and peak memory. Trainer runs three times: it is killed after its first checkpoint, resumed,
and run once more without interruption, which must give the same weights and the same state of the optimizer to the last
bit. Then follow perplexity and bits a byte beside those of 5-grams, the forms of the model with their sizes, and an
answer that the server streams. `--root DIR` keeps the artifacts.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from benchmarks.language import Run, compare_ngrams, data_settings, show  # noqa: E402
from benchmarks.measure import PROGRAM, measure  # noqa: E402
from benchmarks.serving import end, free_port, start_server  # noqa: E402
from benchmarks.streaming import streamed  # noqa: E402

RECIPE = "language_model"
BEFORE = ("ExampleGen", "StatisticsGen", "SchemaGen", "ExampleValidator", "Transform", "ModelBuilder")
AFTER = ("Exporter", "Evaluator", "InfraValidator", "Pusher")
GPT2_SMALL = {
    "ModelBuilder.hyperparameters.layers": 12,
    "ModelBuilder.hyperparameters.units": 768,
    "ModelBuilder.hyperparameters.heads": 12,
    "Trainer.batch_size": 4,
    "Trainer.accumulate_steps": 4,
    "Trainer.rematerialize": "true",
    "Exporter.forms": '["int8_weights"]',
}
PROMPT, ANSWER_TOKENS = "This package", 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--steps", type=int, default=50, help="of the training, with five checkpoints")
    parser.add_argument("--set", action="append", default=[], dest="settings")
    options = parser.parse_args()
    steps = {"Trainer.steps": options.steps, "Trainer.checkpoint_steps": max(options.steps // 5, 1)}
    settings = [f"{name}={value}" for name, value in (GPT2_SMALL | steps).items()] + options.settings
    with tempfile.TemporaryDirectory() as folder:
        stages = Stages(options.data.resolve(), options.root or Path(folder, "root"), settings)
        print("| stage | seconds | processor seconds | peak memory, MB |\n|---|---:|---:|---:|")
        for name in BEFORE:
            stages.run(name)
        compare_resumed(stages)
        for name in AFTER:
            stages.run(name)
        compare_ngrams(Run(RECIPE, options.data.resolve(), stages.root, settings), Path(folder))
        ask(stages.root / "served" / RECIPE)


class Stages:
    """The stages of one run of the recipe.

    Args:
        data: the table.
        root: the artifact root.
        settings: values of `--set`.
    """

    def __init__(self, data: Path, root: Path, settings: list[str]) -> None:
        self.root, self._summary = root, root / "stage.json"
        root.mkdir(parents=True, exist_ok=True)
        pairs = [part for setting in data_settings(RECIPE, data) + settings for part in ("--set", setting)]
        self._arguments = ["run", RECIPE, "--root", str(root), "--json", str(self._summary), *pairs]

    def run(self, name: str, *options: str, title: str | None = None) -> dict[str, str]:
        """Run a stage, print what it cost, and return the folders of its outputs by name."""
        seconds, processor_seconds, megabytes = measure(*self._arguments, "--node", name, *options)
        print(f"| {title or name} | {seconds:.1f} | {processor_seconds:.1f} | {megabytes:,.0f} |", flush=True)
        nodes = json.loads(self._summary.read_text())["nodes"]
        return next(node["outputs"] for node in nodes if node["name"] == name)

    def kill(self, name: str) -> None:
        """Start a stage and kill it once it has written a checkpoint."""
        process = subprocess.Popen(
            [*PROGRAM, *self._arguments, "--node", name], stdout=subprocess.DEVNULL, start_new_session=True
        )
        while not list(self.root.rglob("checkpoints/step-*.npz")):
            if process.poll() is not None:
                raise SystemExit(f"{name} ended before its first checkpoint")
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def compare_resumed(stages: Stages) -> None:
    """Compare a training that was killed and resumed with one that was not interrupted."""
    stages.kill("Trainer")
    resumed = Path(stages.run("Trainer", title="Trainer, resumed")["trained_model"])
    step = json.loads((resumed / "training.json").read_text())["resumed_at_step"]
    whole = Path(stages.run("Trainer", "--no-cache", title="Trainer, uninterrupted")["trained_model"])
    if not step or digest(resumed) != digest(whole):
        raise SystemExit(f"the training that was resumed at step {step} has other weights")
    show("\nresumed, with equal weights", {"at step": step})


def digest(trained: Path) -> str:
    """Return the SHA-256 of the weights of a model and the state of its optimizer."""
    import kerasline as kl

    model, found = kl.Model(trained).load(optimizer=True), hashlib.sha256()
    for variable in [*model.variables, *model.optimizer.variables]:
        found.update(variable.numpy().tobytes())
    return found.hexdigest()


def ask(model: Path) -> None:
    """Serve the model, and print an answer that it streams."""
    port = free_port()
    server = start_server("model", model, port, None, "--slots", "1", "--timeout", "3600")
    try:
        started = time.monotonic()
        answer = streamed(port, PROMPT, ANSWER_TOKENS)
        seconds = time.monotonic() - started
    finally:
        end([server])
    print(f"answer: {answer.text!r}")
    show("served", {"tokens/s": answer.tokens / seconds, "seconds to the first token": answer.first_seconds})


if __name__ == "__main__":
    main()
