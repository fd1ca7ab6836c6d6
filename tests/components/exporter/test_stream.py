"""Answers that Exporter prepares for streaming, and those that cannot be streamed."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasline as kl
from kerasline.components.core.errors import ParameterError, UserCodeError
from kerasline.components.models.session import SavedModelSession

LENGTH = 4
WORDS = ["", "end", "a", "b", "c"]


def preprocessing():
    text = keras.Input((), name="text", dtype="string")
    ids = keras.layers.TextVectorization(vocabulary=WORDS[2:], standardize=None, output_sequence_length=2)(text)
    return keras.Model({"text": text}, {"ids": ids, "next": ids})


def build_model(inputs, hp):
    logits = keras.layers.Dense(5, name="head")(keras.layers.Embedding(5, 4, name="table")(inputs["ids"]))
    model = keras.Model(inputs, logits)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def told(model, features, step, state=(), **options):
    found = kl.generate(step, tf.cast(features["ids"], tf.int32), state, length=LENGTH, end=1, **options)
    return tf.strings.reduce_join(tf.gather(tf.constant(WORDS), found.ids), axis=1, separator=" "), found


def step_of(model):
    return lambda tokens, position, state: (model.get_layer("head")(model.get_layer("table")(tokens)), state)


def answer(model, features):
    return {"text": told(model, features, step_of(model))[0]}


def without_generation(model, features):
    return {"text": tf.strings.as_string(features["ids"][:, 0])}


def with_beams(model, features):
    return {"text": told(model, features, step_of(model), beams=2)[0]}


def with_feature_in_step(model, features):
    offset = tf.cast(features["ids"][:, :1], tf.float32)
    return {"text": told(model, features, lambda t, p, s: (step_of(model)(t, p, s)[0] + offset, s))[0]}


def with_feature_behind(model, features):
    text, _ = told(model, features, step_of(model))
    return {"text": tf.strings.join([text, tf.strings.as_string(features["ids"][:, 0])])}


def with_state_of_any_size(model, features):
    rows, size = tf.shape(features["ids"])[0], tf.reduce_max(features["ids"])
    return {"text": told(model, features, step_of(model), tf.zeros([rows, tf.cast(size, tf.int32)]))[0]}


def with_two_texts(model, features):
    text, _ = told(model, features, step_of(model))
    return {"text": text, "again": text}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stream")
    examples = kl.InMemoryExampleGen({"text": ["a b", "b c"]}, splits={"train": 1}).execute(folder / "e").examples
    prepared = kl.Transform(examples, function=preprocessing, label="next").execute(folder / "t").preprocessing
    return prepared, kl.ModelBuilder(prepared, function=build_model).execute(folder / "m").model


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (without_generation, "expected one call of kl.generate, without beams; found no call"),
        (with_beams, "expected one call of kl.generate, without beams; found no call"),
        (with_feature_in_step, "the step of kl.generate depends on the feature 'ids'"),
        (with_feature_behind, "what follows kl.generate depends on the feature 'ids'"),
        (with_state_of_any_size, "expected fixed sizes after the first dimension"),
        (with_two_texts, "expected one text among the streamed answers, received text, again"),
    ],
)
def test_reason_why_answers_cannot_be_streamed(trained, tmp_path, function, message):
    """Exporter finds it before the model is trained."""
    with pytest.raises(UserCodeError, match=f"{function.__name__}.*{message}"):
        kl.Exporter(*trained, answer=function, stream=True).execute(tmp_path)


def test_stream_needs_an_answering_function(trained, tmp_path):
    with pytest.raises(ParameterError, match="expected an `answer` that generates a text"):
        kl.Exporter(*trained, stream=True).execute(tmp_path)


def test_steps_without_state_continue_the_prompt(trained, tmp_path):
    """A greedy step chooses the most probable id by NumPy."""
    exporter = kl.Exporter(*trained, answer=answer, stream=True)
    saved = exporter.execute(tmp_path).saved_model
    assert saved.manifest["stream"]["text"] == "text" and "__stream_step" not in saved.manifest["signatures"]
    session = SavedModelSession(saved.path)
    step = session.streaming["__stream_step"]
    tokens = np.array([2, 3, 4], np.int32)
    zeros = np.zeros(3, np.float32)
    given = {"tokens": tokens, "positions": np.array([0, 5, 1], np.int32), "chances": zeros, "temperatures": zeros}
    found = dict(zip(step.outputs, session.call(step, [given[name] for name in step.inputs])))
    model = trained[1].load()
    logits = model.get_layer("table").get_weights()[0][tokens] @ model.get_layer("head").get_weights()[0]
    logits += model.get_layer("head").get_weights()[1]
    assert found["ids"].tolist() == (1 + logits[:, 1:].argmax(1)).tolist()  # never padding
    session.close()
