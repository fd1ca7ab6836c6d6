"""Keywords: which word is in a clip of sound? By a small residual network on log-mel frames.

Google's speech commands, from TensorFlow Datasets. Another folder of clips by settings, with a table of their words and
speakers, whose speakers never are in two splits:
    run keywords --set ExampleGen.input=recordings --set ExampleGen.labels=recordings.csv
        --set 'ExampleGen.columns=["content","label","speaker"]' --set 'ExampleGen.splits={"train":4,"eval":1,"test":1}'
        --set ExampleGen.split_by=group --set 'ExampleGen.split_key=["speaker"]' --set 'Evaluator.slices=["speaker"]'
"""

from __future__ import annotations

import importlib.resources
from typing import TYPE_CHECKING, Any

import kerasline as kl

if TYPE_CHECKING:
    import keras

SCHEMA = importlib.resources.files("kerasline.schemas") / "keywords.pbtxt"
RATE = 8000  # samples per second, as of a telephone; other sound is resampled
FRAMES, MELS = 100, 40  # a second
HYPERPARAMETERS = {
    "units": 48,
    "blocks": 2,
    "dropout": 0.3,
    "smoothing": 0.1,
    "learning_rate": 3e-3,
    "weight_decay": 0.01,
    "decay_steps": 8000,
}


def log_mel(samples: keras.KerasTensor) -> keras.KerasTensor:
    """Return the first frames, (FRAMES, MELS), each band and row on one scale. What lies beyond a short clip is 0."""
    from keras import ops

    x = ops.nan_to_num(kl.layers.LogMel(RATE, MELS, normalize=True)(samples))
    return ops.reshape(ops.pad(x, ((0, 0), (0, FRAMES), (0, 0)))[:, :FRAMES], (-1, FRAMES, MELS))


def preprocessing() -> keras.Model:
    import keras

    content, label = (keras.Input((1,), name=name, dtype="string") for name in ("content", "label"))
    samples = kl.layers.AudioDecoding(None, RATE)(content)
    outputs = {"samples": samples, "frames": log_mel(samples), "label": kl.layers.ClassIndex()(label)}
    return keras.Model({"content": content, "label": label}, outputs)


def augment(outputs: dict[str, keras.KerasTensor]) -> dict[str, keras.KerasTensor]:
    """Change speed and pitch, shift, add noise, and erase frames and bands."""
    samples = kl.layers.RandomSpeed((0.8, 1.25))(outputs["samples"])
    samples = kl.layers.RandomTimeShift(0.1)(samples)
    samples = kl.layers.RandomNoise((0.0, 40.0))(samples)
    frames = kl.layers.SpecAugment(frames=12)(log_mel(samples))
    return {"frames": frames, "label": outputs["label"]}


def build_model(inputs: dict[str, keras.KerasTensor], hp: dict, prepared: Any) -> keras.Model:
    """Residual blocks of depthwise-separable convolutions (Zhang et al., Hello Edge, 2017)."""
    import keras
    from keras import layers

    def normalized(x: Any) -> Any:
        return layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))

    def block(x: Any, units: int, size: Any = 3, stride: int = 1) -> Any:
        y = normalized(layers.DepthwiseConv2D(size, stride, padding="same", use_bias=False)(x))
        y = normalized(layers.Conv2D(units, 1, use_bias=False)(y))
        return x + y if x.shape == y.shape else y

    units = hp["units"]
    x = layers.Reshape((FRAMES, MELS, 1))(inputs["frames"])
    x = normalized(layers.Conv2D(units // 2, 5, 2, padding="same", use_bias=False)(x))
    for width, stride in ((units, 1), (2 * units, 2)):
        x = block(x, width, stride=stride)
        for _ in range(hp["blocks"]):
            x = block(x, width)
    # One filter of all bands for each unit, then the course of the whole word.
    x = normalized(layers.DepthwiseConv2D((1, x.shape[2]), use_bias=False)(x))
    for _ in range(hp["blocks"]):
        x = block(x, 2 * units, size=(9, 1))
    x = layers.GlobalAveragePooling2D()(x)
    logits = layers.Dense(len(prepared.class_names), name="logits")(layers.Dropout(hp["dropout"])(x))
    model = keras.Model(inputs, logits)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, hp["decay_steps"], warmup_target=hp["learning_rate"], warmup_steps=hp["decay_steps"] // 20
    )
    model.compile(
        keras.optimizers.AdamW(rate, weight_decay=hp["weight_decay"]),
        kl.losses.SmoothedCrossentropy(hp["smoothing"]),
        metrics=["accuracy"],
    )
    return model


def pipeline(settings) -> kl.Pipeline:
    examples = kl.AnyExampleGen(
        "speech_commands",
        columns={"content": "audio", "label": "label"},
        splits={"train": "train", "eval": "validation", "test": "test"},
        sample_rate=RATE,
        channels=1,
    )
    statistics = kl.StatisticsGen(examples)
    schema = kl.ImportSchemaGen(str(SCHEMA))
    validator = kl.ExampleValidator(statistics, schema)
    transform = kl.Transform(examples, schema, function=preprocessing, label="label", augment=augment)
    model = kl.ModelBuilder(transform, function=build_model, hyperparameters=HYPERPARAMETERS)
    trained = kl.Trainer(examples, transform, model, steps=HYPERPARAMETERS["decay_steps"], batch_size=64)
    exported = kl.Exporter(transform, trained, examples)
    evaluation = kl.Evaluator(
        examples,
        transform,
        trained,
        saved_model=exported,
        baseline=kl.LastBlessed("saved_model"),
        slices=["label"],
    )
    answers = kl.BulkInferrer(exported, examples, evaluation, split="test")
    validated = kl.InfraValidator(exported, examples, schema)
    explained = kl.Explainer(examples, transform, trained)
    destination = str(settings.root / "served" / "keywords")
    pushed = kl.Pusher(exported, evaluation, validated, destination=destination)
    return kl.Pipeline("keywords", [validator, answers, explained, pushed])
