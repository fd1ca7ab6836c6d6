"""Clothes: a small residual network for Fashion-MNIST, from the bytes of an image to one of ten kinds of clothing.

TFDS downloads the data; without a network, name a folder with the four IDX files:
    run clothes --set ExampleGen.input=/usr/share/datasets/fashion-mnist
"""

from __future__ import annotations

import importlib.resources
from typing import TYPE_CHECKING

import kerasline as kl

if TYPE_CHECKING:
    import keras

SCHEMA = importlib.resources.files("kerasline.schemas") / "clothes.pbtxt"
HYPERPARAMETERS = {"units": 16, "dropout": 0.1, "learning_rate": 0.05, "decay_steps": 5350, "weight_decay": 5e-4}


def preprocessing() -> keras.Model:
    """Decode images, of any format and size, and scale pixels to 0..1."""
    import keras

    file = keras.Input((1,), name="image", dtype="string")
    pixels = keras.layers.Rescaling(1 / 255)(kl.layers.ImageDecoding((28, 28), channels=1)(file))
    return keras.Model({"image": file}, {"pixels": pixels})


def augment(outputs: dict[str, keras.KerasTensor]) -> dict[str, keras.KerasTensor]:
    """Mirror and shift images."""
    import keras

    pixels = keras.layers.RandomFlip("horizontal")(outputs["pixels"])
    return {"pixels": keras.layers.RandomTranslation(0.1, 0.1, fill_mode="constant")(pixels)}


def build_model(inputs: dict[str, keras.KerasTensor], hp: dict) -> keras.Model:
    """A residual network (He et al., Identity mappings in deep residual networks, 2016)."""
    import keras
    from keras import layers

    def convolved(x, units, stride=1):
        x = layers.Activation("relu")(layers.BatchNormalization()(x))
        return layers.Conv2D(units, 3, stride, padding="same", use_bias=False)(x)

    x = layers.Conv2D(hp["units"], 3, padding="same", use_bias=False)(inputs["pixels"])
    for stage in range(3):
        units, stride = hp["units"] << stage, 1 if stage == 0 else 2
        short = x if stage == 0 else layers.Conv2D(units, 1, stride)(x)
        x = short + convolved(convolved(x, units, stride), units)
        x = x + convolved(convolved(x, units), units)
    x = layers.Activation("relu")(layers.BatchNormalization()(x))
    features = layers.GlobalAveragePooling2D(name="features")(x)
    logits = layers.Dense(10, name="logits")(layers.Dropout(hp["dropout"])(features))
    model = keras.Model(inputs, logits)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, hp["decay_steps"], warmup_target=hp["learning_rate"], warmup_steps=hp["decay_steps"] // 20
    )
    optimizer = keras.optimizers.SGD(rate, momentum=0.9, nesterov=True, weight_decay=hp["weight_decay"])
    model.compile(optimizer, kl.losses.SmoothedCrossentropy(0.05), metrics=["accuracy"])
    return model


def pipeline(settings) -> kl.Pipeline:
    splits = {"train": "train[:95%]", "eval": "train[95%:]", "test": "test"}
    examples = kl.TfdsExampleGen("fashion_mnist", dataset="fashion_mnist", splits=splits, images="files")
    statistics = kl.StatisticsGen(examples)
    schema = kl.ImportSchemaGen(str(SCHEMA))
    validator = kl.ExampleValidator(statistics, schema)
    transform = kl.Transform(examples, schema, function=preprocessing, label="label", augment=augment)
    model = kl.ModelBuilder(transform, function=build_model, hyperparameters=HYPERPARAMETERS)
    trained = kl.Trainer(examples, transform, model, epochs=12, batch_size=128, ema=0.995, calibrate="temperature")
    exported = kl.Exporter(transform, trained, examples)
    evaluation = kl.Evaluator(
        examples,
        transform,
        trained,
        baseline=kl.LastBlessed("saved_model"),
        saved_model=exported,
        thresholds={"accuracy": {"min": 0.9}},
    )
    validated = kl.InfraValidator(exported, examples, schema)
    explained = kl.Explainer(examples, transform, trained)
    destination = str(settings.root / "served" / "clothes")
    pushed = kl.Pusher(exported, evaluation, validated, destination=destination)
    return kl.Pipeline("clothes", [validator, explained, pushed])
