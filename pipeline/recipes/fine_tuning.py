"""Fine-tuning: a language model continues texts in the style of a second corpus, by low-rank updates (LoRA).

Reviews of films, from TensorFlow Datasets. The model is that of a run of the recipe `language_model`:
    run fine_tuning --set Transform.initial=FOLDER/preprocessing --set ModelBuilder.initial=FOLDER/trained_model
The model may also be a `.keras` file. Or both are the folder of a KerasHub preset, such as one of GPT-2:
    run fine_tuning --set Transform.initial=PRESET --set ModelBuilder.initial=PRESET
Other texts, and those that it learned from before, by settings:
    --set ExampleGen.input=texts.csv --set EarlierExamples.input=earlier.csv
All weights, instead of low-rank updates beside biases and normalization: --set ModelBuilder.lora_rank=null
"""

from __future__ import annotations

import importlib.resources
from typing import TYPE_CHECKING, Any

import kerasline as kl
from kerasline.pipeline.recipes import language_model
from kerasline.pipeline.recipes.language_model import LENGTH, SEED, TEMPERATURE, TOP_P

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

SCHEMA = importlib.resources.files("kerasline.schemas") / "language_model.pbtxt"
OPTIMIZER = {"name": "AdamW", "learning_rate": 5e-4, "weight_decay": 0.01, "clipnorm": 1.0}


def answer(model: keras.Model, features: dict[str, tf.Tensor], prepared: Any) -> dict[str, tf.Tensor]:
    """Continue each text, as the recipe `language_model` does, also with the model of a preset."""
    import tensorflow as tf

    task = next((layer for layer in model.layers if layer.name == "language_model"), None)
    if task is None:
        return language_model.answer(model, features, prepared)
    words, length = prepared.layer("words"), min(LENGTH, getattr(task.backbone, "max_sequence_length", LENGTH))
    tokens = features["tokens"][:, :length]
    is_last = tf.range(tf.shape(tokens)[1]) == tf.reduce_sum(tf.cast(tokens >= 0, tf.int32), axis=1, keepdims=True) - 1
    tokens = tf.where(is_last & (tokens == words.end_id), -1, tokens)  # the prompt has not ended
    ids = tf.ensure_shape(
        tf.pad(tokens, [[0, 0], [0, length - tf.shape(tokens)[1]]], constant_values=-1), [None, length]
    )
    inputs = {"token_ids": tf.maximum(ids, 0), "padding_mask": ids >= 0}
    options = {"temperature": TEMPERATURE, "top_p": TOP_P, "seed": SEED}
    found = kl.decoding.generate_with_hub(task, inputs, end=words.end_id, pad=-1, **options)
    return {"continued": words.decode(found.ids)}


def pipeline(settings) -> kl.Pipeline:
    examples = kl.AnyExampleGen(
        "imdb_reviews", columns=["text"], splits={"train": "train", "eval": "test[:20%]", "test": "test[20%:]"}
    )
    earlier = kl.AnyExampleGen("wiki40b/en", columns=["text"], splits={"test": "test"}, name="EarlierExamples")
    statistics = kl.StatisticsGen(examples)
    schema = kl.ImportSchemaGen(str(SCHEMA))
    validator = kl.ExampleValidator(statistics, schema)
    transform = kl.Transform(examples, schema, label="next", pack={"length": LENGTH})
    model = kl.ModelBuilder(transform, lora_rank=8)
    trained = kl.Trainer(examples, transform, model, epochs=3, batch_size=16, optimizer=OPTIMIZER)
    exported = kl.Exporter(transform, trained, examples, answer=answer, stream=True)
    evaluation = kl.Evaluator(
        examples, transform, trained, saved_model=exported, baseline=kl.LastBlessed("saved_model")
    )
    others = [
        kl.Evaluator(rows, transform, one, name=name)
        for name, rows, one in [
            ("BeforeTraining", examples, model),
            ("EarlierTexts", earlier, trained),
            ("EarlierTextsBeforeTraining", earlier, model),
        ]
    ]
    validated = kl.InfraValidator(exported, examples, schema)
    destination = str(settings.root / "served" / "fine_tuning")
    pushed = kl.Pusher(exported, evaluation, validated, destination=destination)
    return kl.Pipeline("fine_tuning", [validator, *others, pushed])
