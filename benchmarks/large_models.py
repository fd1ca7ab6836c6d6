"""Measure disk use and peak memory of each stage for a language model of 100 million parameters.

    python benchmarks/large_models.py [--compare CHECKOUT] [--words 56000] [--blocks 2] [--steps 4]

Each stage runs in a process of its own. Its memory is the peak of the resident set less what was resident before the
stage, when TensorFlow had run a first operation. It is also printed as a multiple of the weights. That of Trainer is
compared with the sum of weights, optimizer, and the larger of gradients and activations, as `plan` counts them.
`--compare` measures another checkout too, alternately.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
STAGES = ("ModelBuilder", "Trainer", "Exporter", "Pusher")
WIDTH, LENGTH, ROWS, BATCH = 768, 32, 16, 4
CHECKPOINTS = 2


def preprocessing() -> Any:
    import keras

    ids = keras.Input((LENGTH,), dtype="int32", name="ids")
    following = keras.Input((LENGTH,), dtype="int32", name="following")
    return keras.Model({"ids": ids, "following": following}, {"ids": ids, "following": following})


def build_model(inputs: Any, hp: Any) -> Any:
    import keras
    from keras import layers

    x = layers.Embedding(hp["words"], WIDTH, name="embedding")(inputs["ids"])
    for _ in range(hp["blocks"]):
        normal = layers.LayerNormalization()(x)
        x += layers.MultiHeadAttention(12, WIDTH // 12)(normal, normal, use_causal_mask=True)
        hidden = layers.Dense(4 * WIDTH, activation="gelu")(layers.LayerNormalization()(x))
        x += layers.Dense(WIDTH)(hidden)
    model = keras.Model(inputs, layers.Dense(hp["words"], name="logits")(layers.LayerNormalization()(x)))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def answer(model: Any, features: Any) -> dict[str, Any]:
    """Return the most likely next id of each row."""
    import tensorflow as tf

    return {"next": tf.argmax(model(dict(features), training=False)[:, -1], axis=-1)}


def run_stage(name: str, folder: Path, words: int, blocks: int, steps: int) -> None:
    """Run one stage on the outputs of those before it, and print its disk use and memory as JSON."""
    import numpy as np
    import tensorflow as tf

    import kerasline as kl
    from kerasline.components.core import malloc

    ids = np.random.default_rng(0).integers(1, words, (ROWS, LENGTH + 1)).astype("int32")
    data = {"ids": list(ids[:, :-1]), "following": list(ids[:, 1:])}
    if name == "Transform":
        examples = kl.InMemoryExampleGen(data, splits={"train": 1}).execute(folder / "ExampleGen").examples
        kl.Transform(examples, function=preprocessing, label="following").execute(folder / "Transform")
        return
    examples = kl.Examples(folder / "ExampleGen" / "examples")
    prepared = kl.Preprocessing(folder / "Transform" / "preprocessing")
    built, trained = (kl.Model(folder / path) for path in ("ModelBuilder/model", "Trainer/trained_model"))
    exported = kl.SavedModel(folder / "Exporter" / "saved_model")
    state = folder / "state"
    stage = {
        "ModelBuilder": lambda: kl.ModelBuilder(
            prepared, function=build_model, hyperparameters={"words": words, "blocks": blocks}
        ),
        "Trainer": lambda: kl.Trainer(
            examples,
            prepared,
            built,
            steps=steps,
            batch_size=BATCH,
            eval_split=None,
            checkpoint_steps=steps // CHECKPOINTS,
        ),
        "Exporter": lambda: kl.Exporter(prepared, trained, examples, answer=answer, split="train"),
        "Pusher": lambda: kl.Pusher(exported, destination=str(folder / "served")),
    }[name]()
    tf.matmul(tf.ones([512, 512]), tf.ones([512, 512])).numpy()
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before, clock = _memory("VmRSS"), time.perf_counter()
    stage.execute(folder / name, **({"state_dir": state} if name == "Trainer" else {}))
    seconds = time.perf_counter() - clock
    malloc.release_free()
    costs = {
        "seconds": seconds,
        "peak": _memory("VmHWM") - before,
        "kept": _memory("VmRSS") - before,
    }
    print(json.dumps(costs))


def _memory(field: str) -> int:
    """Return a field of this process's status in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) * 1024


def disk(folder: Path, seen: set[int]) -> int:
    """Return the bytes of the files in a folder that are not in `seen`, by inode."""
    total = 0
    for file in sorted(folder.rglob("*")):
        status = file.lstat()
        if file.is_file() and not file.is_symlink() and status.st_ino not in seen:
            seen.add(status.st_ino)
            total += status.st_size
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--compare", type=Path)
    parser.add_argument("--words", type=int, default=56_000)
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--stage")
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if options.stage:
        run_stage(options.stage, options.folder, options.words, options.blocks, options.steps)
        return
    checkouts = [path for path in (options.compare, REPOSITORY) if path is not None]
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folders = {checkout: Path(temporary, str(number)) for number, checkout in enumerate(checkouts)}
        seen: dict[Path, set[int]] = {checkout: set() for checkout in checkouts}
        print("| stage | checkout | seconds | disk, MB | peak, MB | peak / needed | kept, MB |")
        print("|---|---|---:|---:|---:|---:|---:|", flush=True)
        for name in ("Transform", *STAGES):
            for checkout, folder in folders.items():
                command = [sys.executable, __file__, "--stage", name, "--folder", str(folder)]
                command += [
                    "--words",
                    str(options.words),
                    "--blocks",
                    str(options.blocks),
                    "--steps",
                    str(options.steps),
                ]
                path = os.environ | {"PYTHONPATH": str(checkout), "TF_CPP_MIN_LOG_LEVEL": "3"}
                done = subprocess.run(command, env=path, check=True, stdout=subprocess.PIPE, text=True)
                new = disk(folder, seen[checkout])
                if name == "Transform":
                    continue
                costs = json.loads(done.stdout.splitlines()[-1])
                summary = json.loads((folder / "ModelBuilder" / "model" / "summary.json").read_text())
                weights, activations = summary["bytes"], summary["activation_bytes"][str(BATCH)]
                needed = 3 * weights + max(weights, activations) if name == "Trainer" else weights
                print(
                    f"| {name} | {checkout} | {costs['seconds']:.1f} | {new / 1e6:,.0f} | {costs['peak'] / 1e6:,.0f} "
                    f"| {costs['peak'] / needed:.2f} | {costs['kept'] / 1e6:,.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
