"""Compare one process with several workers on this machine: `python benchmarks/multi_worker.py --workers 2`.

Prints for each network the milliseconds per step of a whole batch by number of workers, the bytes of gradients that a
step exchanges, the time of that exchange without computation, and the difference between the losses. Workers share the
cores of one machine, so this measures the cost of distribution, not the gain of more machines.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))
from benchmarks.training import FASHION, _artifacts, _fashion, _losses_of, _train  # noqa: E402

HIDDEN = {"article's network": [128, 64], "8 times as wide": [1024, 512], "wider still": [4096, 2048]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[64, 512])
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--networks", nargs="+", choices=list(HIDDEN), default=list(HIDDEN)[:2])
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "kerasline-benchmark")
    options = parser.parse_args()
    if not FASHION.exists():
        raise SystemExit(f"Fashion-MNIST is not at {FASHION} (Debian's package dataset-fashion-mnist)")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    options.work.mkdir(parents=True, exist_ok=True)
    print(
        f"| network | weights | batch | 1 process, ms | {options.workers} workers, ms | ratio | "
        "exchanged a step, MB | of it waiting, ms | losses differ by |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for network in options.networks:
        for batch_size in options.batch_sizes:
            print(_row(network, batch_size, options), flush=True)


def _row(network: str, batch_size: int, options: Any) -> str:
    alone = _measured(network, batch_size, options, {})
    together = _measured(network, batch_size, options, {"workers": options.workers})
    half = _measured(network, batch_size // options.workers, options, {})
    # What a worker computes is a share of the batch; on cores that they share, all the shares one after the other.
    waiting = max(0.0, together["ms"] - half["ms"] * max(1.0, options.workers / (os.cpu_count() or 1)))
    differ = max(abs(a - b) for a, b in zip(alone["losses"], together["losses"]))
    return (
        f"| {network} | {alone['weights']:,} | {batch_size} | {alone['ms']:.2f} | {together['ms']:.2f} | "
        f"{together['ms'] / alone['ms']:.2f} | {alone['weights'] * 4 / 1e6:.2f} | {waiting:.2f} | {differ:.0e} |"
    )


def _measured(network: str, batch_size: int, options: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    from kerasline.pipeline.recipes.fashion_mnist import preprocessing

    def build_model(inputs: Any, hp: Any) -> Any:
        """Build a smooth network: at the kink of a ReLU a rounding error changes the gradient."""
        import keras

        x = inputs["pixels"]
        for units in HIDDEN[network]:
            x = keras.layers.Dense(units, activation="tanh")(x)
        model = keras.Model(inputs, keras.layers.Dense(10)(x))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.01, momentum=0.9), loss)
        return model

    artifacts = _artifacts(options.work, "fashion", _fashion, preprocessing, build_model)
    done = _train(
        artifacts,
        options.work,
        batch_size=batch_size,
        steps=options.steps,
        eval_split=None,
        jit_compile="auto",
        tensorboard=False,
        **settings,
    )
    weights = artifacts[2].load().count_params()
    return {"ms": done.facts["step_seconds"] * 1e3, "losses": _losses_of(done).tolist(), "weights": weights}


if __name__ == "__main__":
    main()
