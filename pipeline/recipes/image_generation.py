"""Image generation: a class and a seed to a picture, by class-conditional diffusion and deterministic sampling.

Fashion-MNIST. A classifier judges the pictures: by the distance of its features from those of real images, and by the
share of pictures to which it gives the requested class. TFDS downloads the data; without a network, name a folder with
the four IDX files:
    run image_generation --set ExampleGen.input=/usr/share/datasets/fashion-mnist
"""

from __future__ import annotations

import importlib.resources
from typing import TYPE_CHECKING

import kerasline as kl
from kerasline.pipeline.recipes import clothes

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

SCHEMA = importlib.resources.files("kerasline.schemas") / "image_generation.pbtxt"
SHAPE, CLASSES = (28, 28, 1), 10
STEPS = 25  # calls of the network for a picture
HYPERPARAMETERS = {"units": [16, 48, 96], "dropout": 0.05, "learning_rate": 2e-3, "decay_steps": 6300}


def preprocessing() -> keras.Model:
    """Scale pixels to -1..1 and add noise. The seed, a hash of the row, is what a client chooses."""
    import keras

    file = keras.Input((1,), name="image", dtype="string")
    label, seed = (keras.Input((1,), name=name, dtype="int64") for name in ("label", "seed"))
    pixels = kl.layers.ImageDecoding(SHAPE[:2], channels=1)(file)
    pixels = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(pixels)
    noisy, time, velocity = kl.layers.DiffusionNoise()(pixels, seed)
    outputs = {"noisy": noisy, "time": time, "velocity": velocity}
    outputs |= {"class": keras.layers.Identity()(label), "seed": keras.layers.Identity()(seed)}
    return keras.Model({"image": file, "label": label, "seed": seed}, outputs)


def build_model(inputs: dict[str, keras.KerasTensor], hp: dict) -> keras.Model:
    """A U-Net (Ho et al., Denoising diffusion probabilistic models, 2020) that predicts the velocity."""
    import keras
    import numpy as np
    from keras import layers, ops

    first, middle, last = hp["units"]
    angles = ops.multiply(inputs["time"], np.geomspace(1.0, 1000.0, 32).astype("float32"))
    kind = layers.Flatten()(layers.Embedding(CLASSES, 2 * last)(inputs["class"]))
    known = layers.Dense(2 * last)(ops.concatenate([ops.sin(angles), ops.cos(angles)], -1)) + kind
    known = layers.Dense(2 * last, activation="silu")(layers.Activation("silu")(known))

    def residual(x, units):
        y = layers.Conv2D(units, 3, padding="same")(layers.Activation("silu")(layers.GroupNormalization(8)(x)))
        y = layers.GroupNormalization(8)(y + layers.Reshape((1, 1, units))(layers.Dense(units)(known)))
        y = layers.Dropout(hp["dropout"])(layers.Activation("silu")(y))
        y = layers.Conv2D(units, 3, padding="same", kernel_initializer="zeros")(y)
        return y + (x if x.shape[-1] == units else layers.Conv2D(units, 1)(x))

    a = residual(layers.Conv2D(first, 3, padding="same")(inputs["noisy"]), first)
    b = residual(layers.Conv2D(middle, 3, 2, padding="same")(a), middle)
    c = residual(layers.Conv2D(last, 3, 2, padding="same")(b), last)
    flat = layers.Reshape((-1, last))(layers.GroupNormalization(8)(c))
    c = residual(c + layers.Reshape(c.shape[1:])(layers.MultiHeadAttention(4, last // 4)(flat, flat)), last)
    b = residual(layers.Concatenate()([layers.UpSampling2D(interpolation="nearest")(c), b]), middle)
    a = residual(layers.Concatenate()([layers.UpSampling2D(interpolation="nearest")(b), a]), first)
    a = layers.Activation("silu")(layers.GroupNormalization(8)(a))
    output = layers.Conv2D(1, 3, padding="same", kernel_initializer="zeros", dtype="float32", name="velocity")(a)
    model = keras.Model(inputs, output)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, hp["decay_steps"], warmup_target=hp["learning_rate"], warmup_steps=hp["decay_steps"] // 50
    )
    model.compile(keras.optimizers.Adam(rate), "mse")
    return model


def answer(model: keras.Model, features: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Remove noise in steps, beginning with noise that depends on the seed of the row alone."""

    def denoise(x: tf.Tensor, time: tf.Tensor) -> tf.Tensor:
        return model({**features, "noisy": x, "time": time}, training=False)

    noise = kl.decoding.row_noise(features["seed"], SHAPE)
    pixels = kl.decoding.ddim(denoise, noise, steps=STEPS, predicts="velocity")
    return {"image_bytes": kl.decoding.encode_png((pixels + 1) / 2)}


def pipeline(settings) -> kl.Pipeline:
    splits = {"train": "train[:58000]", "eval": "train[58000:]", "test": "test[:2000]"}
    examples = kl.TfdsExampleGen(
        "fashion_mnist", dataset="fashion_mnist", splits=splits, images="files", row_hash="seed"
    )
    statistics = kl.StatisticsGen(examples)
    schema = kl.ImportSchemaGen(str(SCHEMA))
    validator = kl.ExampleValidator(statistics, schema)
    transform = kl.Transform(examples, schema, function=preprocessing, label="velocity")
    model = kl.ModelBuilder(transform, function=build_model, hyperparameters=HYPERPARAMETERS)
    trained = kl.Trainer(examples, transform, model, epochs=7, batch_size=64, ema=0.999)
    exported = kl.Exporter(transform, trained, examples, answer=answer)
    evaluation = kl.Evaluator(
        examples,
        transform,
        trained,
        saved_model=exported,
        judges={"features": (judge := _judge(examples, schema)), "classes": judge},
        reference={"features": "image", "classes": "label"},
        nearest="image",
    )
    validated = kl.InfraValidator(exported, examples, schema)
    destination = str(settings.root / "served" / "image_generation")
    pushed = kl.Pusher(exported, evaluation, validated, destination=destination)
    return kl.Pipeline("image_generation", [validator, pushed])


def _judge(examples: kl.Component, schema: kl.Component) -> kl.Trainer:
    """Return the classifier of the recipe `clothes`, trained for a shorter time."""
    transform = kl.Transform(
        examples, schema, function=clothes.preprocessing, label="label", augment=clothes.augment, name="JudgeTransform"
    )
    hyperparameters = clothes.HYPERPARAMETERS | {"decay_steps": 1800}
    model = kl.ModelBuilder(
        transform, function=clothes.build_model, hyperparameters=hyperparameters, name="JudgeBuilder"
    )
    return kl.Trainer(examples, transform, model, epochs=4, batch_size=128, ema=0.99, name="Judge")
