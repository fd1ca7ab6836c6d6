"""Fashion-MNIST: which of ten kinds of clothing is it? The article's network, 784-128-64-10.

ReLU, cross entropy, SGD with learning rate 0.01 and momentum 0.9, 10 epochs; test accuracy about
0.88. TFDS downloads the data; without a network, name a folder with the four IDX files, such as
that of Debian's package dataset-fashion-mnist:
    run fashion_mnist --set ExampleGen.input=/usr/share/datasets/fashion-mnist
"""

from __future__ import annotations

import importlib.resources
from typing import TYPE_CHECKING

import kerasline as kl

if TYPE_CHECKING:
    import keras

SCHEMA = importlib.resources.files("kerasline.schemas") / "fashion_mnist.pbtxt"


def preprocessing() -> keras.Model:
    """Scale pixels from 0..255 to 0..1, and flatten them."""
    import keras

    image = keras.Input((28, 28, 1), name="image", dtype="uint8")
    scaled = keras.layers.Rescaling(1 / 255)(image)
    return keras.Model({"image": image}, {"pixels": keras.layers.Flatten()(scaled)})


def build_model(inputs: dict[str, keras.KerasTensor], hp: dict) -> keras.Model:
    import keras

    x = inputs["pixels"]
    for units in hp["hidden"]:
        x = keras.layers.Dense(units, activation="relu")(x)
    model = keras.Model(inputs, keras.layers.Dense(10, name="logits")(x))
    model.compile(
        optimizer=keras.optimizers.SGD(hp["learning_rate"], momentum=hp["momentum"]),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def pipeline(settings) -> kl.Pipeline:
    examples = kl.TfdsExampleGen("fashion_mnist", dataset="fashion_mnist")
    statistics = kl.StatisticsGen(examples)
    schema = kl.ImportSchemaGen(str(SCHEMA))
    validator = kl.ExampleValidator(statistics, schema)
    transform = kl.Transform(examples, schema, function=preprocessing, label="label")
    model = kl.ModelBuilder(
        transform,
        function=build_model,
        hyperparameters={"hidden": [128, 64], "learning_rate": 0.01, "momentum": 0.9},
    )
    trained = kl.Trainer(examples, transform, model, epochs=10, batch_size=64)
    exported = kl.Exporter(transform, trained)
    evaluation = kl.Evaluator(
        examples,
        transform,
        trained,
        baseline=kl.LastBlessed("saved_model"),
        saved_model=exported,
        thresholds={"accuracy": {"min": 0.85}},
    )
    validated = kl.InfraValidator(exported, examples, schema)
    explained = kl.Explainer(examples, transform, trained)
    destination = str(settings.root / "served" / "fashion_mnist")
    pushed = kl.Pusher(exported, evaluation, validated, destination=destination)
    return kl.Pipeline("fashion_mnist", [validator, explained, pushed])
