"""Fine-tuning: a pretrained network classifies image files. Its layers are frozen first, then trained at a low rate.

37 breeds of cats and dogs, from TensorFlow Datasets. Other images by settings, such as a folder for each class:
    run fine_tuning_images --set ExampleGen.input=photos --set ExampleGen.columns=null
        --set 'ExampleGen.splits={"train": 8, "eval": 1, "test": 1}' --set Trainer.class_weight=balanced
Another backbone of keras.applications, or the folder of a KerasHub preset, and weights on disk:
    run fine_tuning_images --set ModelBuilder.hyperparameters.backbone=EfficientNetV2B0
        --set ModelBuilder.hyperparameters.weights=backbone.weights.h5
"""

from __future__ import annotations

import importlib
import importlib.resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kerasline as kl

if TYPE_CHECKING:
    import keras

SCHEMA = importlib.resources.files("kerasline.schemas") / "fine_tuning_images.pbtxt"
SIZE = 160, 160
# `weights`, of keras.applications only: a file, "imagenet" for a download, or null for random ones.
HYPERPARAMETERS = {"backbone": "MobileNetV3Small", "weights": "imagenet", "dropout": 0.2, "learning_rate": 1e-3}


def preprocessing() -> keras.Model:
    """Decode images of any format and size to pixels from 0 to 255."""
    import keras

    content, label = (keras.Input((1,), name=name, dtype="string") for name in ("content", "label"))
    pixels = keras.layers.Rescaling(1.0)(kl.layers.ImageDecoding(SIZE, fit="crop")(content))
    return keras.Model({"content": content, "label": label}, {"pixels": pixels, "label": kl.layers.ClassIndex()(label)})


def augment(outputs: dict[str, keras.KerasTensor]) -> dict[str, keras.KerasTensor]:
    """Mirror, turn and zoom images."""
    from keras import layers

    pixels = layers.RandomFlip("horizontal")(outputs["pixels"])
    pixels = layers.RandomZoom(0.2, fill_mode="reflect")(layers.RandomRotation(0.05, fill_mode="reflect")(pixels))
    return {**outputs, "pixels": pixels}


def build_model(inputs: dict[str, keras.KerasTensor], hp: dict, prepared: Any) -> keras.Model:
    """Classify by the mean of the backbone's features."""
    import keras
    from keras import layers

    features = pretrained_features(inputs["pixels"], hp)
    pool = layers.GlobalAveragePooling2D if len(features.shape) == 4 else layers.GlobalAveragePooling1D
    x = layers.Dropout(hp["dropout"])(pool(name="features")(features))
    model = keras.Model(inputs, layers.Dense(len(prepared.class_names), name="logits")(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(hp["learning_rate"]), loss, metrics=["accuracy"])
    return model


def pretrained_features(pixels: keras.KerasTensor, hp: dict) -> keras.KerasTensor:
    """Return the output of the backbone. Its batch normalization keeps its statistics, also while it is trained."""
    import keras

    if Path(hp["backbone"]).is_dir():
        import keras_hub

        backbone, x = keras_hub.models.Backbone.from_preset(hp["backbone"]), keras.layers.Rescaling(1 / 255)(pixels)
    else:
        build = getattr(keras.applications, hp["backbone"])
        backbone = build(include_top=False, weights=hp["weights"], input_shape=(*SIZE, 3))
        x = importlib.import_module(build.__module__).preprocess_input(pixels)  # each family scales in its own way
    return keras.Model(backbone.input, backbone.output, name="backbone")(x, training=False)


def pipeline(settings) -> kl.Pipeline:
    columns = {"content": "image", "label": "label"}
    splits = {"train": "train[:90%]", "eval": "train[90%:]", "test": "test"}
    examples = kl.AnyExampleGen("oxford_iiit_pet", columns=columns, splits=splits)
    statistics = kl.StatisticsGen(examples)
    schema = kl.ImportSchemaGen(str(SCHEMA))
    validator = kl.ExampleValidator(statistics, schema)
    transform = kl.Transform(examples, schema, function=preprocessing, label="label", augment=augment)
    model = kl.ModelBuilder(transform, function=build_model, hyperparameters=HYPERPARAMETERS)
    trained = kl.Trainer(
        examples,
        transform,
        model,
        epochs=10,
        phases=[{"epochs": 4, "freeze": ["backbone"]}, {"learning_rate": 1e-5}],
        early_stopping={"patience": 3},
    )
    exported = kl.Exporter(transform, trained, examples)
    evaluation = kl.Evaluator(
        examples,
        transform,
        trained,
        saved_model=exported,
        baseline=kl.LastBlessed("saved_model"),
        thresholds={"accuracy": {"min": 0.8}},
    )
    validated = kl.InfraValidator(exported, examples, schema)
    explained = kl.Explainer(examples, transform, trained)
    destination = str(settings.root / "served" / "fine_tuning_images")
    pushed = kl.Pusher(exported, evaluation, validated, destination=destination)
    return kl.Pipeline("fine_tuning_images", [validator, explained, pushed])
