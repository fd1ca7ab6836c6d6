"""Speech recognition: what is said in a recording of any length? By a conformer, and CTC on characters.

LibriSpeech, from TensorFlow Datasets. A folder of recordings by settings, with a table of what is said in them:
    run speech_recognition --set ExampleGen.input=recordings --set ExampleGen.labels=recordings.csv
        --set 'ExampleGen.columns=["content","text","speaker"]' --set 'ExampleGen.splits={"train":8,"eval":1,"test":1}'
"""

from __future__ import annotations

import importlib.resources
from typing import TYPE_CHECKING, Any

import kerasline as kl

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

SCHEMA = importlib.resources.files("kerasline.schemas") / "speech_recognition.pbtxt"
RATE = 8000  # samples per second, as of a telephone; other sound is resampled
MELS, STRIDE = 40, 2  # the network returns half of the frames, one in 20 ms, as fast speech has 20 characters a second
CHARACTERS = " 'abcdefghijklmnopqrstuvwxyz"
BEAMS = 1  # 1 decodes greedily. More search for the most probable text, also by n-grams of the training texts
LANGUAGE_ORDER, LANGUAGE_WEIGHT, LABEL_BONUS = 4, 0.5, 1.0  # the language model, if there are several beams
JUDGED: dict[str, Any] = {"reference": "text", "text_metrics": ["wer", "cer"], "text_options": {"lowercase": True}}
HYPERPARAMETERS = {
    "units": 128,
    "blocks": 4,
    "heads": 4,
    "kernel": 15,
    "dropout": 0.1,
    "learning_rate": 2e-3,
    "weight_decay": 0.01,
    "decay_steps": 8000,
}


def sound(samples: keras.KerasTensor) -> dict[str, keras.KerasTensor]:
    """Return log-mel frames, 0 beyond the end of a row, and the number of frames of each row."""
    frames = kl.layers.LogMel(RATE, MELS, normalize=True)(samples)
    lengths = kl.layers.Lengths()(frames)
    return {"frames": frames, "lengths": lengths}


def preprocessing() -> keras.Model:
    import keras

    content, text = (keras.Input((1,), name=name, dtype="string") for name in ("content", "text"))
    samples = kl.layers.AudioDecoding(None, RATE)(content)
    characters = keras.layers.TextVectorization(standardize="lower", split="character", vocabulary=list(CHARACTERS))
    ids = characters(text)
    if BEAMS > 1:
        ids = kl.layers.NGrams(characters.vocabulary_size(), LANGUAGE_ORDER, name="n_grams")(ids)
    outputs = {"samples": samples, **sound(samples), "characters": ids}
    return keras.Model({"content": content, "text": text}, outputs)


def augment(outputs: dict[str, keras.KerasTensor]) -> dict[str, keras.KerasTensor]:
    """Change speed and pitch, add noise, and erase frames and bands."""
    samples = kl.layers.RandomSpeed((0.8, 1.25))(outputs["samples"])
    found = sound(kl.layers.RandomNoise((5.0, 40.0))(samples))
    frames = kl.layers.SpecAugment(frames=15)(found["frames"])
    return {"frames": frames, "lengths": found["lengths"], "characters": outputs["characters"]}


def build_model(inputs: dict[str, keras.KerasTensor], hp: dict, prepared: Any) -> keras.Model:
    """A conformer (Gulati et al., 2020) whose convolutions know the places, so that sound of any length fits.

    What lies beyond the end of a row is 0 for each convolution, so that it has no influence.
    """
    import keras
    from keras import layers, ops

    units, lengths = hp["units"], inputs["lengths"]

    def subsampled(x: Any, stride: int) -> Any:
        x = layers.Conv1D(units, 3, stride)(ops.pad(x, ((0, 0), (1, 1), (0, 0))))
        return kl.layers.LengthMask(STRIDE)([ops.silu(layers.LayerNormalization()(x)), lengths])

    def feed_forward(x: Any) -> Any:
        y = layers.Dense(4 * units, activation="silu")(layers.LayerNormalization()(x))
        return layers.Dropout(hp["dropout"])(layers.Dense(units)(layers.Dropout(hp["dropout"])(y)))

    def attended(x: Any) -> Any:
        y = layers.LayerNormalization()(x)
        y = layers.MultiHeadAttention(hp["heads"], units // hp["heads"])(y, y, attention_mask=attention_mask)
        return layers.Dropout(hp["dropout"])(y)

    def convolved(x: Any) -> Any:
        y = layers.Dense(2 * units)(layers.LayerNormalization()(x))
        y = y[..., :units] * ops.sigmoid(y[..., units:]) * is_step
        y = layers.DepthwiseConv1D(hp["kernel"], padding="same")(y)
        return layers.Dropout(hp["dropout"])(layers.Dense(units)(ops.silu(layers.LayerNormalization()(y))))

    x = kl.layers.LengthMask()([ops.nan_to_num(inputs["frames"]), lengths])
    x = subsampled(subsampled(x, STRIDE), 1)
    is_step = kl.layers.LengthMask(STRIDE)([ops.ones_like(x[..., :1]), lengths])
    attention_mask = ops.transpose(is_step, (0, 2, 1)) > 0
    for _ in range(hp["blocks"]):
        x = x + 0.5 * feed_forward(x)
        x = x + attended(x)
        x = x + convolved(x)
        x = layers.LayerNormalization()(x + 0.5 * feed_forward(x))
    logits = layers.Dense(prepared.vocabulary_size("characters"), dtype="float32")(x)
    model = keras.Model(inputs, kl.layers.LengthMask(STRIDE, name="characters")([logits, lengths]))
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, hp["decay_steps"], warmup_target=hp["learning_rate"], warmup_steps=hp["decay_steps"] // 10
    )
    model.compile(keras.optimizers.AdamW(rate, weight_decay=hp["weight_decay"], global_clipnorm=1.0), kl.losses.CTC())
    return model


def answer(model: keras.Model, features: dict[str, tf.Tensor], prepared: Any) -> dict[str, tf.Tensor]:
    found = kl.decoding.ctc(
        model(features, training=False),
        -(-features["lengths"] // STRIDE),
        beams=BEAMS,
        language=prepared.layer("n_grams") if BEAMS > 1 else None,
        language_weight=LANGUAGE_WEIGHT,
        label_bonus=LABEL_BONUS,
    )
    return {"transcript": kl.decoding.join_tokens(found.ids, prepared.vocabulary("characters"))}


def pipeline(settings) -> kl.Pipeline:
    examples = kl.AnyExampleGen(
        "librispeech",
        columns={"content": "speech", "text": "text"},
        splits={"train": "train_clean100", "eval": "dev_clean", "test": "test_clean"},
        sample_rate=RATE,
        channels=1,
    )
    statistics = kl.StatisticsGen(examples)
    schema = kl.ImportSchemaGen(str(SCHEMA))
    validator = kl.ExampleValidator(statistics, schema)
    transform = kl.Transform(examples, schema, function=preprocessing, label="characters", augment=augment)
    model = kl.ModelBuilder(transform, function=build_model, hyperparameters=HYPERPARAMETERS)
    trained = kl.Trainer(
        examples,
        transform,
        model,
        steps=HYPERPARAMETERS["decay_steps"],
        bucket_by="lengths",
        frames_a_batch=12_000,
        answer=answer,
        evaluate_answers=200,
        **JUDGED,
    )
    exported = kl.Exporter(transform, trained, examples, answer=answer)
    evaluation = kl.Evaluator(
        examples,
        transform,
        trained,
        saved_model=exported,
        baseline=kl.LastBlessed("saved_model"),
        batch_size=32,
        **JUDGED,
    )
    answers = kl.BulkInferrer(exported, examples, evaluation, split="test", keep=["text"], batch_size=32)
    validated = kl.InfraValidator(exported, examples, schema)
    destination = str(settings.root / "served" / "speech_recognition")
    pushed = kl.Pusher(exported, evaluation, validated, destination=destination)
    return kl.Pipeline("speech_recognition", [validator, answers, pushed])
