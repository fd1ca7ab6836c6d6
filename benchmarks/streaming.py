"""Tokens per second of streamed answers: one client after the other, and eight at once.

    python benchmarks/streaming.py                       # the recipe language_model, untrained
    python benchmarks/streaming.py --set layers=12 --set units=768 --set heads=12
    python benchmarks/streaming.py --model runs/served/language_model

Each client asks for `--tokens` tokens after a prompt of four words. With `--slots 1` a step computes one answer, with
`--slots 8` always eight, so that a client alone waits as long for a token as eight do. The first line is `:predict`,
which generates in one execution of the graph and returns all at once.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from benchmarks.serving import end, free_port, start_server  # noqa: E402

if TYPE_CHECKING:
    import kerasline as kl

CLIENTS = 8
LENGTH = 1000  # more tokens than any answer has
NUMBER_OF_WORDS = 30000  # from which a vocabulary of 16,000 subwords is learned


class Answer(NamedTuple):
    text: str
    tokens: int
    first_seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a model to serve, whose input is `text`")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="of the recipe's hyperparameters"
    )
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=1, help="answers of each client")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = options.model or untrained(Path(folder), dict(pair.split("=") for pair in options.set))
        for slots in (1, CLIENTS):
            port = free_port()
            server = start_server("model", model, port, None, "--slots", str(slots), "--timeout", "3600")
            try:
                measure(port, slots, options.tokens, options.rounds)
            finally:
                end([server])


def measure(port: int, slots: int, tokens: int, rounds: int) -> None:
    prompts = texts(CLIENTS * rounds, words=4, seed=1)
    streamed(port, prompts[0], 2)
    if slots == 1:
        started = time.monotonic()
        whole = [predicted(port, prompt) for prompt in prompts[:2]]
        seconds = time.monotonic() - started
        counts = [streamed(port, prompt, LENGTH).tokens for prompt in prompts[:2]]
        assert all(whole)
        report(":predict, one after the other", sum(counts), seconds)
    started = time.monotonic()
    alone = [streamed(port, prompt, tokens) for prompt in prompts]
    report(f"{slots} slots, one after the other", sum(one.tokens for one in alone), time.monotonic() - started, alone)
    if slots > 1:
        started = time.monotonic()
        with ThreadPoolExecutor(CLIENTS) as threads:
            together = list(threads.map(lambda prompt: streamed(port, prompt, tokens), prompts))
        seconds = time.monotonic() - started
        report(f"{slots} slots, {CLIENTS} clients at once", sum(one.tokens for one in together), seconds, together)
        print("answers are the same" if [one.text for one in alone] == [one.text for one in together] else "DIFFER")


def report(name: str, tokens: int, seconds: float, answers: list[Answer] | None = None) -> None:
    first = f", first token after {statistics.median(one.first_seconds for one in answers):.3f} s" if answers else ""
    print(f"{name}: {tokens / seconds:.1f} tokens/s ({tokens} tokens{first})", flush=True)


def streamed(port: int, prompt: str, tokens: int) -> Answer:
    started, first, text, last = time.monotonic(), 0.0, "", {}
    connection = http.client.HTTPConnection("127.0.0.1", port)
    document = {"instances": [{"text": prompt}], "max_tokens": tokens}
    connection.request("POST", "/v1/models/model:generate", json.dumps(document))
    for line in connection.getresponse():
        if line.startswith(b"data: "):
            first = first or time.monotonic() - started
            last = json.loads(line.removeprefix(b"data: "))
            text += last["text"]
    connection.close()
    return Answer(text, last["generated_tokens"], first)


def predicted(port: int, prompt: str) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("POST", "/v1/models/model:predict", json.dumps({"instances": [{"text": prompt}]}))
    found = connection.getresponse().read()
    connection.close()
    return found


def untrained(folder: Path, settings: dict[str, str]) -> Path:
    """Export the recipe language_model with random weights, which seldom ends a text."""
    import kerasline as kl
    from kerasline.pipeline.recipes import language_model as recipe

    _, prepared, model = language_model(folder, settings)
    exporter = kl.Exporter(prepared, model, answer=recipe.answer, stream=True)
    return exporter.execute(folder / "exported").saved_model.path


def language_model(folder: Path, settings: dict[str, str]) -> tuple[kl.Examples, kl.Preprocessing, kl.Model]:
    """Build the model of the recipe language_model, on texts of random letters.

    Args:
        folder: where the artifacts are written.
        settings: hyperparameters that differ from those of the recipe.
    """
    import kerasline as kl
    from kerasline.pipeline.recipes import language_model as recipe

    columns = {"text": texts(NUMBER_OF_WORDS // 10, words=10, seed=0)}
    examples = kl.InMemoryExampleGen(columns, splits={"train": 1}).execute(folder / "examples").examples
    transform = kl.Transform(examples, function=recipe.preprocessing, label="next", pack={"length": recipe.LENGTH})
    prepared = transform.execute(folder / "transform").preprocessing
    hyperparameters = {**recipe.HYPERPARAMETERS, **{name: int(value) for name, value in settings.items()}}
    builder = kl.ModelBuilder(prepared, function=recipe.build_model, hyperparameters=hyperparameters)
    return examples, prepared, builder.execute(folder / "model").model


def texts(number: int, words: int, seed: int) -> list[str]:
    """Return texts of words of random letters."""
    random = np.random.default_rng(seed)
    letters = random.choice(list("etaoinshrdlucm"), (number, words, 5))
    return [" ".join("".join(word[: 2 + place % 4]) for place, word in enumerate(row)) for row in letters]


if __name__ == "__main__":
    main()
