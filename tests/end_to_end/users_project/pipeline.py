"""A user's pipeline in a folder whose names are those of kerasline's own folders."""

from components.mine import build_model, by_length

import kerasline as kl
from tests.helpers import TRIPS


def preprocessing():
    import keras
    from components.mine import Kilometres

    miles = keras.Input((1,), name="miles")
    scaled = keras.layers.Normalization(name="scaled")(Kilometres()(miles))
    return keras.Model({"miles": miles}, {"kilometres": scaled})


def pipeline(settings):
    examples = kl.InMemoryExampleGen(TRIPS, splits={"train": 6, "eval": 2, "test": 2})
    statistics = kl.StatisticsGen(examples)
    transform = kl.Transform(examples, function=preprocessing, label="fare")
    model = kl.ModelBuilder(transform, function=build_model)
    trained = kl.Trainer(examples, transform, model, epochs=1)
    exported = kl.Exporter(transform, trained)
    evaluated = kl.Evaluator(examples, transform, trained, split="test", slices=[by_length])
    return kl.Pipeline("users", [statistics, exported, evaluated])
