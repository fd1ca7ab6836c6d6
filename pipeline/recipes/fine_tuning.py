"""Fine-tuning: a language model continues texts in the style of a second corpus, by low-rank updates (LoRA).

Reviews of films, from TensorFlow Datasets. The model is that of a run of the recipe `language_model`:
    run fine_tuning --set Transform.initial=FOLDER/preprocessing --set ModelBuilder.initial=FOLDER/trained_model
The model may also be a `.keras` file. Other texts, and those that it learned from before, by settings:
    --set ExampleGen.input=texts.csv --set EarlierExamples.input=earlier.csv
All weights, instead of low-rank updates beside biases and normalization: --set ModelBuilder.lora_rank=null
"""

from __future__ import annotations

import importlib.resources

import kerasline as kl
from kerasline.pipeline.recipes.language_model import LENGTH, answer

SCHEMA = importlib.resources.files("kerasline.schemas") / "language_model.pbtxt"
OPTIMIZER = {"name": "AdamW", "learning_rate": 5e-4, "weight_decay": 0.01, "clipnorm": 1.0}


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
