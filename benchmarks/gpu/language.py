"""Measure the training of a language model on a GPU by precision: `python benchmarks/gpu/language.py`.

Trains the recipe language_model in the shape of GPT-2 small (100 million parameters) on texts of random letters, and
prints for each precision the device, tokens per second, floating-point operations per second, their share of the peak,
and the peak of the device's memory. `--set layers=36 --set units=1280 --set heads=20` trains another shape.
Without a GPU, it exits with status 2 and a message. This tries the script itself:
    python benchmarks/gpu/language.py --device cpu --steps 8 --batch-size 2 --set layers=1 --set units=32 --set heads=2
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

from benchmarks.streaming import language_model  # noqa: E402

GPT2_SMALL = {"layers": "12", "units": "768", "heads": "12"}
PRECISIONS = ("mixed_bfloat16", "float32")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="gpu")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="of the recipe's hyperparameters"
    )
    options = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import kerasline as kl
    from kerasline.components.core.errors import ParameterError
    from kerasline.pipeline.recipes.language_model import LENGTH

    with tempfile.TemporaryDirectory() as folder:
        examples, prepared, model = language_model(
            Path(folder), GPT2_SMALL | dict(one.split("=") for one in options.set)
        )
        print(f"{model.summary['parameters']:,} parameters, {options.batch_size} rows of {LENGTH} tokens a step")
        print("| device | precision | XLA | tokens/s | TFLOP/s | share of peak | memory, GB |")
        print("|---|---|---|---:|---:|---:|---:|")
        for precision in PRECISIONS:
            trainer = kl.Trainer(
                examples,
                prepared,
                model,
                steps=options.steps,
                batch_size=options.batch_size,
                eval_split=None,
                device=options.device,
                precision=precision,
                checkpoint_seconds=None,
                tensorboard=False,
            )
            try:
                trained = trainer.execute(Path(folder, precision)).trained_model
            except ParameterError as error:
                print(error, file=sys.stderr)
                sys.exit(2)
            report(trained.read_json("training.json"), LENGTH)


def report(facts: dict[str, Any], length: int) -> None:
    share = f"{facts['share_of_peak']:.0%}" if "share_of_peak" in facts else ""
    rate, flops = length * facts["samples_per_second"], facts.get("flops_per_second", 0) / 1e12
    print(
        f"| {facts['device']}, {facts['devices'][0]} | {facts['precision']} | {facts['jit_compile']} | {rate:,.0f} | "
        f"{flops:.3f} | {share} | {take_peak_bytes() / 1e9:.2f} |",
        flush=True,
    )


def take_peak_bytes() -> int:
    """Return the peak of the memory of the first GPU, or without one of this process, and reset it."""
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        peak = tf.config.experimental.get_memory_info("GPU:0")["peak"]
        tf.config.experimental.reset_memory_stats("GPU:0")
        return peak
    status = Path("/proc/self/status").read_text().splitlines()
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) * 1024


if __name__ == "__main__":
    main()
