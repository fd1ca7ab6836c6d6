"""Measure training on a GPU by network and precision: `python benchmarks/gpu/train.py`.

Trains the transformer and the convolutional network of `benchmarks/training.py` at each precision, and prints
for each the device, samples per second, floating-point operations per second and their share of the peak.
Without a GPU, it exits with status 2 and a message. `--device cpu` tries the script itself.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "benchmarks")]
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="gpu")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from training import trained

    from kerasline.components.core.errors import ParameterError

    settings = {"device": options.device, "batch_size": options.batch_size, "epochs": options.epochs}
    print(
        "| model | device | precision | XLA | samples/s | TFLOP/s | share of peak |\n|---|---|---|---|---:|---:|---:|"
    )
    with tempfile.TemporaryDirectory() as work:
        for name in ("transformer", "convolutional"):
            for precision in PRECISIONS:
                try:
                    facts = trained(name, Path(work), precision=precision, **settings).facts
                except ParameterError as error:
                    print(error, file=sys.stderr)
                    sys.exit(2)
                share = f"{facts['share_of_peak']:.0%}" if "share_of_peak" in facts else ""
                rate, flops = facts["samples_per_second"], facts.get("flops_per_second", 0) / 1e12
                print(
                    f"| {name} | {facts['device']}, {facts['devices'][0]} | {precision} | {facts['jit_compile']} | "
                    f"{rate:,.0f} | {flops:.3f} | {share} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
