"""Speech synthesis: a text to a WAV file. By convolutions that learn by themselves how long each character lasts.

LJSpeech, from TensorFlow Datasets. A folder of recordings of one speaker by settings, with a table of their texts:
    run speech_synthesis --set ExampleGen.input=recordings --set ExampleGen.labels=recordings.csv
        --set 'ExampleGen.columns=["content","text"]' --set 'ExampleGen.splits={"train":8,"eval":1,"test":1}'
"""

from __future__ import annotations

import importlib.resources
from typing import TYPE_CHECKING, Any

import kerasline as kl

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

SCHEMA = importlib.resources.files("kerasline.schemas") / "speech_synthesis.pbtxt"
RATE = 8000  # samples per second, as of a telephone; other sound is resampled
MELS, STEP, WINDOW = 80, 100, 400  # a frame of 50 ms every 12.5 ms
MIN_POWER = 1e-5  # some 85 dB below loud speech
SILENCE = 0  # the token before and after the characters of a text, and their padding
CHARACTERS = " !',-.:;?0123456789abcdefghijklmnopqrstuvwxyz"
CHARACTERS_AT_MOST, FRAMES_AT_MOST = 600, 80  # of a text, and of a character; longer texts are cut
SHARPNESS = 1.2  # the exponent of magnitudes, which a mean over possible voices has blurred
HYPERPARAMETERS = {
    "units": 192,
    "encoder_blocks": 4,
    "decoder_blocks": 5,
    "kernel": 5,
    "dropout": 0.1,
    "learning_rate": 2e-3,
    "decay_steps": 8000,
}


def preprocessing() -> keras.Model:
    """Characters and log-mel frames. The frames are a feature too, since training aligns both."""
    import keras
    from keras import layers, ops

    content, text = (keras.Input((1,), name=name, dtype="string") for name in ("content", "text"))
    speed = keras.Input((1,), name="speed", dtype="float32")
    samples = kl.layers.AudioDecoding(None, RATE)(content)
    frames = kl.layers.LogMel(RATE, MELS, STEP, WINDOW, MIN_POWER, name="log_mel")(samples)
    frames = layers.Normalization(axis=-1, name="scaled")(frames)
    characters = layers.TextVectorization(standardize="lower", split="character", vocabulary=list(CHARACTERS))(text)
    characters = characters[:, :CHARACTERS_AT_MOST]
    tokens = ops.pad(characters, ((0, 0), (1, 1)), constant_values=SILENCE)
    frame_lengths, token_lengths = kl.layers.Lengths()(frames), kl.layers.Lengths(SILENCE)(characters) + 2
    outputs = {"tokens": tokens, "token_lengths": token_lengths, "frames": frames, "frame_lengths": frame_lengths}
    outputs["speed"] = layers.Identity()(speed)
    labels = {name: layers.Identity()(frames) for name in ("speech", "draft")}
    labels["timing"] = ops.zeros_like(ops.expand_dims(token_lengths, 1), dtype="float32")
    return keras.Model({"content": content, "text": text, "speed": speed}, outputs | labels)


def build_model(inputs: dict[str, keras.KerasTensor], hp: dict, prepared: Any) -> keras.Model:
    """An encoder of characters and a decoder of frames, as in Grad-TTS (Popov et al., 2021), but without diffusion.

    The encoder drafts a frame for each character. The alignment of drafts and frames gives the durations, which the
    encoder learns to predict, and for which the decoder repeats what is known of each character.
    """
    import keras
    from keras import layers, ops

    units = hp["units"]

    def blocks(x: Any, is_step: Any, count: int) -> Any:
        for _ in range(count):
            y = layers.LayerNormalization()(x) * is_step
            y = layers.Conv1D(units, hp["kernel"], padding="same", activation="silu")(y)
            x = x + layers.Dense(units)(layers.Dropout(hp["dropout"])(y))
        return layers.LayerNormalization()(x) * is_step

    tokens, lengths = keras.Input((None,), dtype="int64"), keras.Input((), dtype="int32")
    is_token = kl.layers.LengthMask()([ops.ones_like(tokens[..., None], dtype="float32"), lengths])
    x = layers.Embedding(prepared.vocabulary_size("tokens"), units)(tokens)
    x = blocks(x, is_token, hp["encoder_blocks"])
    draft = layers.Dense(MELS)(x)
    log_durations = layers.Dense(1)(blocks(ops.stop_gradient(x), is_token, 1))[..., 0]
    encoder = keras.Model([tokens, lengths], [x, draft, log_durations], name="encoder")

    values, places = keras.Input((None, units + MELS)), keras.Input((None, 1))
    x = layers.Dense(units)(ops.concatenate([values, places], axis=-1))
    x = blocks(x, ops.cast(places > 0, "float32"), hp["decoder_blocks"])
    decoder = keras.Model([values, places], values[..., units:] + layers.Dense(MELS)(x), name="decoder")

    frames = ops.nan_to_num(inputs["frames"])
    values, draft, log_durations = encoder([inputs["tokens"], inputs["token_lengths"]])
    # The logarithm of a normal density, but for what is equal for all characters.
    scores = ops.matmul(frames, ops.transpose(draft, (0, 2, 1))) - ops.sum(draft**2, -1)[:, None] / 2
    durations = kl.layers.MonotonicAlignment()(scores, inputs["token_lengths"], inputs["frame_lengths"])
    values, places = kl.layers.LengthRegulation()(ops.concatenate([values, draft], axis=-1), durations, frames)
    errors = (log_durations - ops.log(ops.maximum(ops.cast(durations, "float32"), 1.0))) ** 2
    errors = kl.layers.LengthMask()([errors, inputs["token_lengths"]])
    timing = ops.sum(errors, 1, keepdims=True) / ops.cast(inputs["token_lengths"][:, None], "float32")
    outputs = {"speech": decoder([values, places]), "draft": values[..., units:], "timing": timing}
    model = keras.Model(inputs, {name: layers.Identity(name=name)(output) for name, output in outputs.items()})
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, hp["decay_steps"], warmup_target=hp["learning_rate"], warmup_steps=hp["decay_steps"] // 20
    )
    losses = {"speech": kl.losses.Masked("mae"), "draft": kl.losses.Masked("mse"), "timing": "mae"}
    model.compile(keras.optimizers.Adam(rate, global_clipnorm=1.0), losses)
    return model


def answer(model: keras.Model, features: dict[str, tf.Tensor], prepared: Any) -> dict[str, tf.Tensor]:
    return speak(model, features["tokens"], features["token_lengths"], 1.0, prepared)


def answer_at_speed(model: keras.Model, features: dict[str, tf.Tensor], prepared: Any) -> dict[str, tf.Tensor]:
    """The same `speed` times as fast, at a quarter to four times. A missing speed is 1."""
    import tensorflow as tf

    speed = tf.where(tf.math.is_nan(features["speed"]), 1.0, tf.clip_by_value(features["speed"], 0.25, 4.0))
    return speak(model, features["tokens"], features["token_lengths"], speed, prepared)


def speak(model: keras.Model, tokens: tf.Tensor, lengths: tf.Tensor, speed: Any, prepared: Any) -> dict[str, tf.Tensor]:
    """Return the sound of texts. A row's phases begin at zero, so that its sound depends on nothing else."""
    import tensorflow as tf

    encoder, decoder = model.get_layer("encoder"), model.get_layer("decoder")
    log_mel, scale = prepared.layer("log_mel"), prepared.layer("scaled")
    values, draft, log_durations = encoder([tokens, lengths])
    durations = tf.clip_by_value(tf.exp(log_durations) / speed, 1.0, FRAMES_AT_MOST)
    durations *= tf.sequence_mask(lengths, tf.shape(tokens)[1], tf.float32)
    ends = tf.cast(tf.floor(tf.cumsum(durations, axis=1) + 0.5), tf.int32)  # so that no errors of rounding add up
    durations = ends - tf.pad(ends, [[0, 0], [1, 0]])[:, :-1]
    frames = decoder(kl.layers.LengthRegulation()(tf.concat([values, draft], axis=-1), durations))
    magnitudes = kl.decoding.log_mel_to_linear(frames * tf.sqrt(scale.variance) + scale.mean, log_mel)
    magnitudes = magnitudes**SHARPNESS / 2  # loud speech stays as loud
    samples = kl.decoding.griffin_lim(magnitudes, frame_length=WINDOW, frame_step=STEP, lengths=ends[:, -1])
    return {"sound_bytes": kl.decoding.encode_wav(samples, RATE, (ends[:, -1] - 1) * STEP + WINDOW)}


def pipeline(settings) -> kl.Pipeline:
    examples = kl.AnyExampleGen(
        "ljspeech",
        columns={"content": "speech", "text": "text_normalized"},
        splits={"train": "train[:96%]", "eval": "train[96%:98%]", "test": "train[98%:]"},
        constants={"speed": 1.0},
        sample_rate=RATE,
        channels=1,
    )
    statistics = kl.StatisticsGen(examples)
    schema = kl.ImportSchemaGen(str(SCHEMA))
    validator = kl.ExampleValidator(statistics, schema)
    transform = kl.Transform(examples, schema, function=preprocessing, label=["speech", "draft", "timing"])
    model = kl.ModelBuilder(transform, function=build_model, hyperparameters=HYPERPARAMETERS)
    trained = kl.Trainer(
        examples,
        transform,
        model,
        steps=HYPERPARAMETERS["decay_steps"],
        bucket_by="frame_lengths",
        frames_a_batch=4000,
    )
    answers = {"serving_default": answer, "at_speed": answer_at_speed}
    exported = kl.Exporter(transform, trained, examples, answer=answers)
    evaluation = kl.Evaluator(
        examples,
        transform,
        trained,
        saved_model=exported,
        baseline=kl.LastBlessed("saved_model"),
        task={"sound_bytes": "sound", "speech": "loss", "draft": "loss", "timing": "loss"},
        reference={"sound_bytes": "content"},
        batch_size=16,
    )
    spoken = kl.BulkInferrer(exported, examples, evaluation, split="test", keep=["text"], batch_size=16)
    validated = kl.InfraValidator(exported, examples, schema)
    destination = str(settings.root / "served" / "speech_synthesis")
    pushed = kl.Pusher(exported, evaluation, validated, destination=destination)
    return kl.Pipeline("speech_synthesis", [validator, spoken, pushed])
