"""Training compared with PyTorch and with Keras's `fit`: `python benchmarks/training.py --help`.

The sides run in turn, each in its own process, and the best of the rounds counts. PyTorch has its own environment;
--torch names its interpreter:
    python -m venv torch-env && torch-env/bin/pip install torch numpy
    python benchmarks/training.py article --torch torch-env/bin/python
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))
FASHION = Path("/usr/share/datasets/fashion-mnist")
EPOCHS = 8  # the first warms up; the best of the others counts

# The article's loop in the style of PyTorch's tutorials. Prints the seconds of each epoch, and saves the losses.
TORCH = r"""
import gzip, json, sys, time
import numpy as np
import torch
from torch import nn
folder, out, epochs, threads = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
if threads: torch.set_num_threads(threads)
def read(name, offset): return np.frombuffer(gzip.open(f"{folder}/{name}").read(), np.uint8, offset=offset)
x = read("train-images-idx3-ubyte.gz", 16).reshape(-1, 784).astype(np.float32) / 255
y = read("train-labels-idx1-ubyte.gz", 8).astype(np.int64)
tx = read("t10k-images-idx3-ubyte.gz", 16).reshape(-1, 784).astype(np.float32) / 255
ty = read("t10k-labels-idx1-ubyte.gz", 8).astype(np.int64)
torch.manual_seed(0)
net = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))
init = {f"{n}_{k}": v.detach().numpy().copy() for n, layer in enumerate([net[0], net[2], net[4]])
        for k, v in (("kernel", layer.weight.T), ("bias", layer.bias))}
optimizer, criterion = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9), nn.CrossEntropyLoss()
data = torch.utils.data.TensorDataset(torch.from_numpy(x), torch.from_numpy(y))
seconds, losses, accuracy = [], [], []
for epoch in range(epochs):
    order = np.random.default_rng(epoch).permutation(len(x)).tolist()
    began = time.perf_counter()
    for data_, target in torch.utils.data.DataLoader(torch.utils.data.Subset(data, order), batch_size=64):
        optimizer.zero_grad()
        loss = criterion(net(data_), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    seconds.append(time.perf_counter() - began)
    with torch.no_grad():
        accuracy.append(float((net(torch.from_numpy(tx)).argmax(1) == torch.from_numpy(ty)).float().mean()))
np.savez(out, losses=np.float32(losses), **init)
print(json.dumps({"seconds": seconds, "accuracy": accuracy}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measure", choices=["article", "fit", "models", "precision", "replicas"])
    parser.add_argument("--torch", help="a Python interpreter that has torch")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "kerasline-benchmark")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    options.work.mkdir(parents=True, exist_ok=True)
    if options.side:
        print(json.dumps(_SIDES[options.side](options.work)))
        return
    globals()[options.measure](options)


def side(name: str, work: Path) -> Any:
    """Run one side in a new process and return its result."""
    command = [sys.executable, __file__, "article", "--side", name, "--work", str(work)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def in_turn(names: list[str], options: Any) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {name: [] for name in names}
    for _ in range(options.rounds):
        for name in names:
            found[name].append(side(name, options.work))
    return found


def article(options: Any) -> None:
    """Compare the article's network: seconds per epoch, loss of each step, accuracy."""
    if not options.torch:
        raise SystemExit("article: set --torch to a Python interpreter that has torch")
    threads = {"2 threads, as the article's script": 2, "default number of threads": 0}
    seconds: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        for name, number in threads.items():
            seconds.setdefault(f"PyTorch, {name}", []).append(min(_torch(options, EPOCHS, number)["seconds"][1:]))
        seconds.setdefault("Trainer", []).append(min(side("article", options.work)["seconds"][1:]))
    trainer = min(seconds["Trainer"])
    for name, times in seconds.items():
        print(f"{name}: {min(times):.2f} s an epoch; Trainer takes {trainer / min(times):.2f} of it")
    print(f"losses of the first epoch: they differ by {side('losses', options.work)['most']:.1e} at most")
    accuracy = _torch(options, 10, 2)["accuracy"][-1]
    seeds = side("seeds", options.work)["accuracy"]
    print(f"accuracy after 10 epochs: PyTorch {accuracy:.4f}, Trainer {sum(seeds) / 3:.4f} (mean of {seeds})")


def _torch(options: Any, epochs: int, threads: int) -> Any:
    command = [
        options.torch,
        "-c",
        TORCH,
        str(FASHION),
        str(options.work / "torch.npz"),
        str(epochs),
        str(threads),
    ]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def fit(options: Any) -> None:
    """Measure Trainer's overhead over a hand-tuned `fit`."""
    found = in_turn(["article", "fit"], options)
    trainer, by_hand = (min(min(run["seconds"][1:]) for run in found[name]) for name in ("article", "fit"))
    print(f"fit {by_hand:.3f} s an epoch ({938 / by_hand:.0f} steps/s), Trainer {trainer:.3f}: {trainer / by_hand:.2f}")


def models(options: Any) -> None:
    """Measure a transformer and a convolutional network: seconds per step."""
    for name in ("transformer", "convolutional"):
        found = in_turn([f"{name}-trainer", f"{name}-fit"], options)
        trainer, plain = (min(run["step_seconds"] for run in runs) for runs in found.values())
        size = found[f"{name}-fit"][0]["parameters"]
        print(f"{name}, {size:,} parameters: fit {plain:.3f} s a step, Trainer {trainer:.3f}: {trainer / plain:.2f}")


def precision(options: Any) -> None:
    """Measure the accuracy on Fashion-MNIST by precision."""
    for name, accuracy in side("precision", options.work).items():
        print(f"{name}: {accuracy:.4f}")


def replicas(options: Any) -> None:
    """Compare one device, two parts of the CPU, and two processes: losses and seconds per step."""
    for name, figures in side("replicas", options.work).items():
        print(f"{name}: {figures['step_seconds'] * 1e3:.2f} ms a step, losses differ by {figures['most']:.1e} at most")


# One side each


def _fashion(order: Any = None) -> dict[str, Any]:
    import numpy as np
    import pyarrow as pa

    def read(name: str, offset: int) -> Any:
        return np.frombuffer(gzip.open(FASHION / name).read(), np.uint8, offset=offset)

    splits = {}
    for split, prefix in (("train", "train"), ("eval", "t10k")):
        pixels = read(f"{prefix}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28, 1)
        labels = read(f"{prefix}-labels-idx1-ubyte.gz", 8).astype("int64")
        if order is not None and split == "train":
            pixels, labels = pixels[order], labels[order]
        tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(pixels))
        splits[split] = pa.RecordBatch.from_arrays([tensors, pa.array(labels)], ["image", "label"])
    return splits


def _artifacts(work: Path, name: str, splits: Any, function: Any, build_model: Any) -> tuple[Any, Any, Any]:
    """Return Examples, Preprocessing and Model. The first two are kept between rounds."""
    from kerasline import ModelBuilder, Transform
    from kerasline.components.core.artifacts import Examples, Preprocessing
    from kerasline.components.data import shards

    folder = work / name
    if not (folder / "prepared").exists():
        (folder / "examples").mkdir(parents=True, exist_ok=True)
        batches = splits()
        with shards.ExamplesWriter(Examples(folder / "examples"), list(batches)) as writer:
            for split, batch in batches.items():
                for start in range(0, batch.num_rows, 10_000):
                    writer.write(split, batch.slice(start, 10_000))
        Transform(Examples(folder / "examples"), function=function, label="label").execute(folder / "prepared")
    prepared = Preprocessing(folder / "prepared" / "preprocessing")
    model = ModelBuilder(prepared, function=build_model).execute(tempfile.mkdtemp(dir=work)).model
    return Examples(folder / "examples"), prepared, model


def _article_model(inputs: Any, hp: Any) -> Any:
    from kerasline.pipeline.recipes.fashion_mnist import build_model

    return build_model(inputs, {"hidden": [128, 64], "learning_rate": 0.01, "momentum": 0.9})


def _train(artifacts: tuple[Any, Any, Any], work: Path, **settings: Any) -> Any:
    """Train, and return Trainer's outputs with the seconds of each epoch."""
    from kerasline import Trainer

    ends = []

    def report(text: str) -> None:
        if text.startswith("epoch") and "step" not in text:
            ends.append(time.perf_counter())

    began = time.perf_counter()
    trainer = Trainer(*artifacts, batch_size=settings.pop("batch_size", 64), **settings)
    done = trainer.execute(tempfile.mkdtemp(dir=work), report=report)
    done.seconds = [end - start for start, end in zip([began, *ends], ends)]
    done.facts = done.trained_model.read_json("training.json")
    return done


def _smooth_model(inputs: Any, hp: Any) -> Any:
    """Build the article's network with tanh: at the kink of a ReLU a rounding error changes the gradient."""
    import keras

    hidden = keras.layers.Dense(128, activation="tanh")(inputs["pixels"])
    hidden = keras.layers.Dense(64, activation="tanh")(hidden)
    model = keras.Model(inputs, keras.layers.Dense(10)(hidden))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), loss)
    return model


def _article(work: Path, build_model: Any = _article_model, **settings: Any) -> Any:
    from kerasline.pipeline.recipes.fashion_mnist import preprocessing

    artifacts = _artifacts(work, "fashion", _fashion, preprocessing, build_model)
    return _train(artifacts, work, **settings)


def _losses_of(done: Any) -> Any:
    import pyarrow.parquet as pq

    return pq.read_table(done.history.path / "steps.parquet")["loss"].to_numpy()


def _side_article(work: Path) -> Any:
    return {"seconds": _article(work, epochs=EPOCHS, eval_split=None).seconds}


def _side_losses(work: Path) -> Any:
    """Train from PyTorch's initial weights and in its order."""
    import keras
    import numpy as np

    from kerasline.pipeline.recipes.fashion_mnist import preprocessing

    from_torch = np.load(work / "torch.npz")
    order = np.random.default_rng(0).permutation(60_000)
    artifacts = _artifacts(work, "ordered", lambda: _fashion(order), preprocessing, _article_model)
    model = artifacts[2].load()
    dense = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)]
    for number, layer in enumerate(dense):
        layer.set_weights([from_torch[f"{number}_kernel"], from_torch[f"{number}_bias"]])
    model.save(artifacts[2].path / "model.keras")
    done = _train(artifacts, work, epochs=1, shuffle=False, eval_split=None, jit_compile=False)
    return {"most": float(np.abs(_losses_of(done) - from_torch["losses"][:938]).max())}


def _side_seeds(work: Path) -> Any:
    return {"accuracy": [_article(work, epochs=10, seed=seed).metrics["val_accuracy"] for seed in range(3)]}


def _side_precision(work: Path) -> Any:
    names = ("float32", "mixed_bfloat16", "mixed_float16")
    return {name: _article(work, epochs=10, precision=name).metrics["val_accuracy"] for name in names}


def _side_replicas(work: Path) -> Any:
    import numpy as np

    ways = {
        "one device": {},
        "mirrored over 2 parts of the CPU": {"distribution": "mirrored", "replicas": 2},
        "2 processes": {"distribution": "multi_worker", "workers": ["localhost:23451", "localhost:23452"]},
    }
    found, alone = {}, None
    for name, settings in ways.items():
        runs = {
            build: _article(work, build, steps=400, eval_split=None, **settings)
            for build in (_article_model, _smooth_model)
        }
        losses = _losses_of(runs[_smooth_model])
        alone = losses if alone is None else alone
        found[name] = {
            "step_seconds": runs[_article_model].facts["step_seconds"],
            "most": float(np.abs(losses - alone).max()),
        }
    return found


def _side_fit(work: Path) -> Any:
    """Call Keras's `fit` as an expert would: with data cached in memory and many steps per execution."""
    import keras
    import numpy as np
    import tensorflow as tf

    splits = _fashion()
    pixels = splits["train"].column("image").to_numpy_ndarray().reshape(-1, 784).astype("float32") / 255
    labels = splits["train"].column("label").to_numpy()
    data = tf.data.Dataset.from_tensor_slices(({"pixels": pixels}, labels)).cache().shuffle(60_000, seed=0)
    data = data.batch(64, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
    model = _article_model({"pixels": keras.Input((784,), name="pixels")}, {})
    model.steps_per_execution = 67  # an epoch has 14 * 67 steps
    seconds = []

    class Clock(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.began = time.perf_counter()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            seconds.append(time.perf_counter() - self.began)

    model.fit(data, epochs=EPOCHS, verbose=0, callbacks=[Clock()])
    assert np.isfinite(seconds).all()
    return {"seconds": seconds}


WORDS, LENGTH, STEPS = 8000, 128, 12


def _transformer(inputs: Any, hp: Any) -> Any:
    import keras

    layers = keras.layers
    x = inputs["x"]
    h = layers.Embedding(WORDS, 256)(x) + layers.Embedding(LENGTH, 256)(keras.ops.arange(LENGTH))
    for _ in range(8):
        a = layers.LayerNormalization()(h)
        h = h + layers.Dropout(0.1)(layers.MultiHeadAttention(4, 64)(a, a))
        h = h + layers.Dense(256)(layers.Dense(1024, activation="gelu")(layers.LayerNormalization()(h)))
    h = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(h))
    return _classifier(inputs, layers.Dense(10)(h))


def _convolutional(inputs: Any, hp: Any) -> Any:
    import keras

    layers, h = keras.layers, inputs["x"]
    for channels in (64, 128, 256):
        h = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(channels, 3, padding="same", use_bias=False)(h)))
        h = layers.MaxPooling2D()(layers.Conv2D(channels, 3, padding="same", activation="relu")(h))
    return _classifier(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(h)))


def _classifier(inputs: Any, outputs: Any) -> Any:
    import keras

    model = keras.Model(inputs, outputs)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    return model


def _rows(name: str) -> Any:
    import numpy as np

    draw, count = np.random.default_rng(0), 32 * STEPS
    shape = (count, LENGTH) if name == "transformer" else (count, 32, 32, 3)
    x = draw.integers(0, WORDS, shape) if name == "transformer" else draw.random(shape, "float32")
    return x, draw.integers(0, 10, count)


def trained(name: str, work: Path, **settings: Any) -> Any:
    """Train the transformer or the convolutional network, and return Trainer's outputs."""
    import keras
    import numpy as np
    import pyarrow as pa

    def splits() -> Any:
        x, y = _rows(name)
        tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(x))
        return {"train": pa.RecordBatch.from_arrays([tensors, pa.array(y)], ["x", "label"])}

    def unchanged() -> Any:
        shape, dtype = ((LENGTH,), "int64") if name == "transformer" else ((32, 32, 3), "float32")
        x = keras.Input(shape, name="x", dtype=dtype)
        return keras.Model({"x": x}, {"x": keras.layers.Identity()(x)})

    build = _transformer if name == "transformer" else _convolutional
    settings = {"epochs": 3, "batch_size": 32, "eval_split": None, **settings}
    return _train(_artifacts(work, name, splits, unchanged, build), work, **settings)


def _side_trainer(name: str, work: Path) -> Any:
    return {"step_seconds": min(trained(name, work).seconds[1:]) / STEPS}


def _side_keras(name: str, work: Path) -> Any:
    import keras

    x, y = _rows(name)
    build = _transformer if name == "transformer" else _convolutional
    model = build({"x": keras.Input(x.shape[1:], name="x", dtype=str(x.dtype))}, {})
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        model.fit({"x": x}, y, batch_size=32, verbose=0)
        seconds.append(time.perf_counter() - began)
    return {"step_seconds": min(seconds[1:]) / STEPS, "parameters": model.count_params()}


_SIDES = {
    "article": _side_article,
    "losses": _side_losses,
    "seeds": _side_seeds,
    "fit": _side_fit,
    "precision": _side_precision,
    "replicas": _side_replicas,
    **{
        f"{name}-trainer": (lambda work, name=name: _side_trainer(name, work))
        for name in ("transformer", "convolutional")
    },
    **{f"{name}-fit": (lambda work, name=name: _side_keras(name, work)) for name in ("transformer", "convolutional")},
}

if __name__ == "__main__":
    main()
