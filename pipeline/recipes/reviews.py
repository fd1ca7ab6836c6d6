"""Reviews: does a text praise or complain? A small transformer over subwords, from raw text to a class.

Movie reviews, from TensorFlow Datasets. Other texts by settings, with any number of classes, as names or integers:
    run reviews --set ExampleGen.input=reviews.csv --set 'ExampleGen.splits={"train": 8, "eval": 1, "test": 1}'
A backbone of KerasHub in place of the small transformer, from a configuration or from a preset's folder:
    run reviews --set 'ModelBuilder.hyperparameters.backbone={"class_name": "BertBackbone", "num_layers": 2, ...}'
"""

from __future__ import annotations

import importlib.resources
from typing import TYPE_CHECKING, Any

import kerasline as kl

if TYPE_CHECKING:
    import keras
    import pyarrow as pa

SCHEMA = importlib.resources.files("kerasline.schemas") / "reviews.pbtxt"
LENGTH = 400  # subwords of a text at most; longer ones are cut
PAD = 0  # id of Subwords
HYPERPARAMETERS = {"units": 64, "layers": 1, "heads": 4, "dropout": 0.4, "learning_rate": 2e-3, "backbone": None}


def preprocessing() -> keras.Model:
    """Encode a text as subwords. Rows of a batch are as long as the longest of them."""
    import keras

    text, label = (keras.Input((1,), name=name, dtype="string") for name in ("text", "label"))
    tokens = kl.layers.Subwords(top=8000, lower=True)(text)[:, :LENGTH]
    return keras.Model({"text": text, "label": label}, {"tokens": tokens, "label": kl.layers.ClassIndex()(label)})


def build_model(inputs: dict[str, keras.KerasTensor], hp: dict, prepared: Any) -> keras.Model:
    """Classify by the mean of the vectors of all tokens."""
    import keras

    tokens = inputs["tokens"]
    is_token = keras.ops.not_equal(tokens, PAD)
    x = encode(tokens, is_token, prepared.vocabulary_size("tokens"), hp)
    x = kl.layers.LengthMask()([x, kl.layers.Lengths(PAD)(tokens)])
    x = keras.layers.Dropout(hp["dropout"])(keras.layers.GlobalAveragePooling1D()(x))
    model = keras.Model(inputs, keras.layers.Dense(len(prepared.class_names), name="logits")(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(hp["learning_rate"]), loss, metrics=["accuracy"])
    return model


def encode(tokens: keras.KerasTensor, is_token: keras.KerasTensor, vocabulary_size: int, hp: dict) -> Any:
    """Return vectors (rows, steps, units) of the tokens."""
    import keras
    import keras_hub

    if backbone := hp["backbone"]:
        hub = load_backbone(backbone, vocabulary_size)
        named = {"token_ids": tokens, "padding_mask": is_token, "segment_ids": keras.ops.zeros_like(tokens)}
        x = hub({name: named[name] for name in hub.input})
        return x["sequence_output"] if isinstance(x, dict) else x  # the former of encoders with a pooled output
    places = keras_hub.layers.PositionEmbedding(LENGTH, name="places")
    x = keras.layers.Embedding(vocabulary_size, hp["units"], name="words")(tokens)
    x = keras.layers.Dropout(hp["dropout"])(x + places(x))
    for number in range(hp["layers"]):
        encoder = keras_hub.layers.TransformerEncoder(
            2 * hp["units"], hp["heads"], dropout=hp["dropout"], normalize_first=True, name=f"encoder_{number}"
        )
        x = encoder(x, padding_mask=is_token)
    return x


def load_backbone(backbone: dict | str, vocabulary_size: int) -> keras.Model:
    """Return the encoder of KerasHub that a configuration describes, or that a preset's folder holds."""
    import keras_hub

    if isinstance(backbone, str):
        return keras_hub.models.Backbone.from_preset(backbone)
    options = {name: value for name, value in backbone.items() if name != "class_name"}
    return getattr(keras_hub.models, backbone["class_name"])(vocabulary_size=vocabulary_size, **options)


def length_of_text(batch: pa.RecordBatch) -> list[str]:
    """Slice by the number of words."""
    import pyarrow.compute as pc

    words = pc.add(pc.count_substring(batch.column("text"), " "), 1).to_numpy()
    return [
        ["1-49 words", "50-199 words", "200 words or more"][number] for number in (words >= 50) + 1 * (words >= 200)
    ]


def pipeline(settings) -> kl.Pipeline:
    splits = {"train": "train", "eval": "test[:20%]", "test": "test[20%:]"}
    examples = kl.AnyExampleGen("imdb_reviews", splits=splits, column_types={"label": "string"})
    statistics = kl.StatisticsGen(examples)
    schema = kl.ImportSchemaGen(str(SCHEMA))
    validator = kl.ExampleValidator(statistics, schema)
    transform = kl.Transform(examples, schema, function=preprocessing, label="label")
    model = kl.ModelBuilder(transform, function=build_model, hyperparameters=HYPERPARAMETERS)
    trained = kl.Trainer(examples, transform, model, epochs=4, bucket_by="tokens", batch_size=64)
    exported = kl.Exporter(transform, trained, examples)
    evaluation = kl.Evaluator(
        examples,
        transform,
        trained,
        saved_model=exported,
        baseline=kl.LastBlessed("saved_model"),
        slices=[length_of_text],
        thresholds={"accuracy": {"min": 0.8}},
    )
    explained = kl.Explainer(examples, transform, trained, saved_model=exported, most_rows=200)
    validated = kl.InfraValidator(exported, examples, schema)
    pushed = kl.Pusher(exported, evaluation, validated, destination=str(settings.root / "served" / "reviews"))
    return kl.Pipeline("reviews", [validator, explained, pushed])
