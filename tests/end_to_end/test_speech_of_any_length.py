"""Spoken digits of any length: decoded, batched by length, recognised with CTC, and evaluated with training's loss."""

import zipfile

import keras
import pytest

import kerasline as kl
from kerasline.components.data.training_input import dataset
from tests.conftest import SHARED_DATA

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
LETTERS = sorted({*"".join(WORDS)})


def preprocessing():
    content, word = (keras.Input((1,), name=name, dtype="string") for name in ("content", "word"))
    frames = kl.layers.LogMel(8000, mels=20)(kl.layers.AudioDecoding(None, 8000)(content))
    lengths = kl.layers.Lengths()(frames)
    scaled = keras.layers.Normalization(axis=-1)(frames)
    letters = keras.layers.TextVectorization(standardize=None, split="character", vocabulary=LETTERS)(word)
    outputs = {"sound": kl.layers.LengthMask()([scaled, lengths]), "lengths": lengths, "letters": letters}
    return keras.Model({"content": content, "word": word}, outputs)


def augment(outputs):
    return {**outputs, "sound": kl.layers.SpecAugment(1, frames=5, bands=3)(outputs["sound"])}


def build_model(inputs, hp, prepared):
    # Causal convolutions, as others reach beyond a row's end.
    x = keras.layers.Conv1D(32, 5, strides=2, padding="causal", activation="relu")(inputs["sound"])
    x = keras.layers.Conv1D(32, 3, padding="causal", activation="relu")(x)
    logits = keras.layers.Dense(prepared.vocabulary_size("letters"))(x)
    masked = kl.layers.LengthMask(stride=2, name="letters")([logits, inputs["lengths"]])
    model = keras.Model(inputs, masked)
    model.compile(keras.optimizers.Adam(0.005), kl.losses.CTC())
    return model


def spelled(output, batch):
    return ["".join(LETTERS[one - 2] for one in row if one > 1) for row in output.argmax(axis=2)]


@pytest.mark.slow
def test_spoken_digits_are_learned(tmp_path):
    path = SHARED_DATA / "fsdd" / "recordings.zip"
    if not path.exists():
        pytest.skip(f"the recordings are not at {path}")
    with zipfile.ZipFile(path) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".wav"))[::6]
        columns = {
            "content": [archive.read(name) for name in names],
            "word": [WORDS[int(name.rsplit("/", 1)[-1][0])] for name in names],
        }
    splits = {"train": 4, "eval": 1}
    examples = kl.InMemoryExampleGen(columns, splits=splits).execute(tmp_path / "examples").examples
    transform = kl.Transform(examples, function=preprocessing, label="letters", augment=augment)
    prepared = transform.execute(tmp_path / "prepared").preprocessing
    built = kl.ModelBuilder(prepared, function=build_model).execute(tmp_path / "built").model
    settings = {"bucket_by": "lengths", "frames_a_batch": 1500, "epochs": 4}
    trained = kl.Trainer(examples, prepared, built, **settings).execute(tmp_path / "trained")
    facts = trained.trained_model.read_json("training.json")
    assert facts["padding"] < 0.1 and facts["metrics"]["val_loss"] < 14  # some 30 without training
    # One batch, as Keras averages the means of batches; Evaluator is exact.
    model, read = trained.trained_model.load(), {"batch_size": 1000, "work_dir": tmp_path}
    expected = model.evaluate(dataset(examples, "eval", prepared, **read), verbose=0)
    settings = {"split": "eval", "batch_size": 16, "task": "text", "decode": spelled, "reference": "word"}
    evaluator = kl.Evaluator(examples, prepared, trained.trained_model, **settings, text_metrics=["cer"])
    evaluation = evaluator.execute(tmp_path / "evaluated").evaluation.read_json("metrics.json")
    found = {entry["metric"]: entry["value"] for entry in evaluation["metrics"]}
    assert found["loss"] == pytest.approx(expected, rel=1e-4)
