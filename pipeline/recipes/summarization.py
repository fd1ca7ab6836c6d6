"""Summarization: a text to one sentence, by the transformer of the recipe `translation`.

News articles and their highlights, from TensorFlow Datasets. Other pairs by settings, as from a table:
    run summarization --set ExampleGen.input=pairs.tsv.gz --set ExampleGen.quote=
        --set 'ExampleGen.columns={"source":"document","target":"summary"}'
        --set 'ExampleGen.splits={"train": 18, "eval": 1, "test": 1}'
"""

from __future__ import annotations

import importlib.resources
from typing import TYPE_CHECKING, Any

import kerasline as kl
from kerasline.pipeline.recipes import translation

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

SCHEMA = importlib.resources.files("kerasline.schemas") / "translation.pbtxt"
DOCUMENT, SUMMARY = 200, 40  # subwords at most; longer texts are cut
BEAMS = 4
HYPERPARAMETERS = {**translation.HYPERPARAMETERS, "length": DOCUMENT}


def preprocessing() -> keras.Model:
    """Encode both texts as subwords of one vocabulary, as the recipe `translation` does."""
    import keras

    source, target = (keras.Input((1,), name=name, dtype="string") for name in ("source", "target"))
    words = kl.layers.Subwords(top=8000, end=True, name="words")
    ids = words(target, begin=True)[:, : SUMMARY + 1]
    outputs = {"source": words(source)[:, :DOCUMENT], "target_before": ids[:, :-1], "target": ids[:, 1:]}
    return keras.Model({"source": source, "target": target}, outputs)


def answer(model: keras.Model, features: dict[str, tf.Tensor], prepared: Any) -> dict[str, tf.Tensor]:
    ids = translation.decode(model, features["source"], length=SUMMARY, beams=BEAMS)
    return {"summary": prepared.layer("words").decode(ids)}


def pipeline(settings) -> kl.Pipeline:
    examples = kl.AnyExampleGen("cnn_dailymail", columns={"source": "article", "target": "highlights"})
    statistics = kl.StatisticsGen(examples)
    schema = kl.ImportSchemaGen(str(SCHEMA))
    validator = kl.ExampleValidator(statistics, schema)
    transform = kl.Transform(examples, schema, function=preprocessing, label="target")
    model = kl.ModelBuilder(transform, function=translation.build_model, hyperparameters=HYPERPARAMETERS)
    trained = kl.Trainer(examples, transform, model, epochs=10, bucket_by=["source", "target"], tokens_a_batch=4096)
    exported = kl.Exporter(transform, trained, examples, answer=answer)
    evaluation = kl.Evaluator(
        examples,
        transform,
        trained,
        saved_model=exported,
        baseline=kl.LastBlessed("saved_model"),
        reference="target",
        text_metrics=["rouge1", "rougeL"],
    )
    validated = kl.InfraValidator(exported, examples, schema)
    destination = str(settings.root / "served" / "summarization")
    pushed = kl.Pusher(exported, evaluation, validated, destination=destination)
    return kl.Pipeline("summarization", [validator, pushed])
