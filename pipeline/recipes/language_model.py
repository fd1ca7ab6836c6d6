"""Language model: continue a text. A decoder-only transformer over subwords, of some 10 million parameters.

Texts of Wikipedia, from TensorFlow Datasets. Other texts, or the shape of GPT-2 small (100 million parameters), by
settings:
    run language_model --set ExampleGen.input=texts.tsv.gz --set 'ExampleGen.columns={"text":"source"}'
        --set 'ExampleGen.splits={"train": 18, "eval": 1, "test": 1}'
    run language_model --set ModelBuilder.hyperparameters.layers=12 --set ModelBuilder.hyperparameters.units=768
        --set ModelBuilder.hyperparameters.heads=12 --set Trainer.accumulate_steps=8 --set Trainer.rematerialize=true
"""

from __future__ import annotations

import importlib.resources
from typing import TYPE_CHECKING, Any

import kerasline as kl

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

SCHEMA = importlib.resources.files("kerasline.schemas") / "language_model.pbtxt"
LENGTH = 256  # subwords of a row of training, and of a document or an answer at most
PAD, END = 0, 3  # ids of Subwords
TEMPERATURE, TOP_P, SEED = 0.8, 0.95, 0  # of the answers
HYPERPARAMETERS = {
    "layers": 8,
    "units": 256,
    "heads": 8,
    "dropout": 0.1,
    "learning_rate": 1e-3,
    "warm_up_steps": 200,
    "decay_steps": 20000,
}


def preprocessing() -> keras.Model:
    """Encode a text as subwords. Each one is predicted from those before it."""
    import keras

    text = keras.Input((1,), name="text", dtype="string")
    ids = kl.layers.Subwords(top=16000, begin=True, end=True, byte_fallback=True, name="words")(text)[:, : LENGTH + 1]
    return keras.Model({"text": text}, {"tokens": ids[:, :-1], "next": ids[:, 1:]})


def build_model(inputs: dict[str, keras.KerasTensor], hp: dict, prepared: Any) -> keras.Model:
    """A transformer as GPT-2 (Radford et al., 2019). A token sees the tokens before it in its own document."""
    import keras
    from keras_hub.layers import TransformerDecoder

    words = keras.layers.ReversibleEmbedding(prepared.vocabulary_size("tokens"), hp["units"], name="words")
    places = keras.layers.Embedding(LENGTH, hp["units"], name="places")
    is_visible = kl.layers.SegmentMask()(inputs["segment_ids"])
    x = keras.layers.Dropout(hp["dropout"])(words(inputs["tokens"]) + places(inputs["positions"]))
    for number in range(hp["layers"]):
        decoder = TransformerDecoder(
            4 * hp["units"],
            hp["heads"],
            dropout=hp["dropout"],
            activation="gelu",
            normalize_first=True,
            name=f"decoder_{number}",
        )
        x = decoder(x, decoder_attention_mask=is_visible)
    x = keras.layers.LayerNormalization(name="decoded")(x)
    logits = keras.layers.Activation("linear", dtype="float32", name="next")(words(x, reverse=True))
    model = keras.Model(inputs, logits)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, hp["decay_steps"], warmup_target=hp["learning_rate"], warmup_steps=hp["warm_up_steps"]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=PAD)
    model.compile(keras.optimizers.AdamW(rate, weight_decay=0.1, clipnorm=1.0), loss)
    return model


def answer(model: keras.Model, features: dict[str, tf.Tensor], prepared: Any) -> dict[str, tf.Tensor]:
    """Continue each text. The keys and values of earlier tokens are computed once."""
    import tensorflow as tf

    words, places, decoded = (model.get_layer(name) for name in ("words", "places", "decoded"))
    decoders = [layer for layer in model.layers if layer.name.startswith("decoder_")]
    heads, units = decoders[0].num_heads, places.output_dim

    def step(tokens: tf.Tensor, position: tf.Tensor, caches: Any) -> tuple[tf.Tensor, Any]:
        x, new = (words(tokens) + places(position))[:, tf.newaxis], []
        for decoder, cache in zip(decoders, caches):
            x, cache = decoder(x, self_attention_cache=cache, self_attention_cache_update_index=position)
            new.append(cache)
        return words(decoded(x), reverse=True)[:, 0], new

    prompt = features["tokens"]
    prompt = tf.where(prompt == END, PAD, prompt)
    empty = tf.zeros([tf.shape(prompt)[0], 2, LENGTH, heads, units // heads], decoded.compute_dtype)
    caches = [empty] * len(decoders)
    found = kl.generate(step, prompt, caches, length=LENGTH, end=END, temperature=TEMPERATURE, top_p=TOP_P, seed=SEED)
    return {"continued": prepared.layer("words").decode(found.ids)}


def pipeline(settings) -> kl.Pipeline:
    examples = kl.AnyExampleGen("wiki40b/en")
    statistics = kl.StatisticsGen(examples)
    schema = kl.ImportSchemaGen(str(SCHEMA))
    validator = kl.ExampleValidator(statistics, schema)
    packing = {"length": LENGTH}
    transform = kl.Transform(examples, schema, function=preprocessing, label="next", pack=packing)
    model = kl.ModelBuilder(transform, function=build_model, hyperparameters=HYPERPARAMETERS)
    trained = kl.Trainer(examples, transform, model, epochs=10, batch_size=16)
    exported = kl.Exporter(transform, trained, examples, answer=answer, stream=True)
    evaluation = kl.Evaluator(
        examples, transform, trained, saved_model=exported, baseline=kl.LastBlessed("saved_model")
    )
    validated = kl.InfraValidator(exported, examples, schema)
    destination = str(settings.root / "served" / "language_model")
    pushed = kl.Pusher(exported, evaluation, validated, destination=destination)
    return kl.Pipeline("language_model", [validator, pushed])
