"""Judges: models that are given the generated pictures and sounds, and whose answers to these are evaluated."""

import io

import jiwer
import keras
import numpy as np
import pytest
import soundfile
import tensorflow as tf
from PIL import Image

import kerasline as kl
from kerasline.components.core.errors import DataError, ParameterError, WiringError
from tests.components import answering
from tests.components.metrics.test_distances import frechet, kernel
from tests.components.metrics.test_sound import speech, wav
from tests.conftest import REPOSITORY

NAMES = ["dark", "grey", "light"]
ROWS = 48


def png(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def photos(rows=ROWS, seed=0):
    """Return pictures of three kinds of brightness, with what the painter of `answering` reads."""
    random = np.random.default_rng(seed)
    kind = np.arange(rows) % 3
    pixels = random.integers(0, 100, (rows, 2, 2, 3)) + 70 * kind[:, None, None, None]
    return {
        **answering.kinds(rows),
        "photo": [png(one.astype(np.uint8)) for one in pixels],
        "name": [NAMES[k] for k in kind],
        "half": ["even" if row % 2 == 0 else "odd" for row in range(rows)],
    }


@pytest.fixture(scope="module")
def painter(tmp_path_factory):
    """A model that paints by kind and seed."""
    folder = tmp_path_factory.mktemp("painter")
    columns = {split: photos(seed=seed) for seed, split in enumerate(("train", "test"))}
    given = answering.untrained(folder, columns, answering.kind_preprocessing, answering.build_painter, "brightness")
    exporter = kl.Exporter(given.prepared, given.model, given.examples, answer=answering.paint)
    given.saved_model = exporter.execute(folder / "x").saved_model
    return given


def photo_preprocessing():
    photo, name = keras.Input((), name="photo", dtype="string"), keras.Input((), name="name", dtype="string")
    lookup = keras.layers.StringLookup(vocabulary=NAMES, num_oov_indices=0, name="names")
    pixels = keras.layers.Rescaling(1 / 255)(kl.layers.ImageDecoding((2, 2))(photo))
    return keras.Model({"photo": photo, "name": name}, {"pixels": pixels, "name": lookup(name)})


def build_classifier(inputs, hp):
    flat = keras.layers.Flatten()(inputs["pixels"])
    seen = keras.layers.Dense(5, "relu", kernel_initializer="random_normal", bias_initializer="ones", name="seen")(flat)
    model = keras.Model(inputs, keras.layers.Activation("softmax")(keras.layers.Dense(3, name="scores")(seen)))
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A small classifier of pictures, as a Keras model and exported."""
    folder = tmp_path_factory.mktemp("classifier")
    given = answering.untrained(folder, {"train": photos()}, photo_preprocessing, build_classifier, "name")
    given.saved_model = kl.Exporter(given.prepared, given.model).execute(folder / "x").saved_model
    return given


def evaluated(given, folder, judges, **parameters):
    parameters = {"replicates": 20, "small_slice_rows": 5, "samples": 2, **parameters}
    stage = kl.Evaluator(
        given.examples, given.prepared, given.model, saved_model=given.saved_model, judges=judges, **parameters
    )
    done = stage.execute(folder)
    done.document = done.evaluation.read_json("metrics.json")
    done.entries = {(e["output"], e["slice"], e["metric"]): e for e in done.document["metrics"]}
    done.values = {(output, metric): e["value"] for (output, cut, metric), e in done.entries.items() if not cut}
    return done


def decoded(files):
    return np.stack([np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in files]) / 255


def seen_by(classifier, files):
    """Return what the layer `seen` and the whole classifier answer to pictures."""
    model = classifier.model.load()
    pixels = decoded(files).astype(np.float32)
    seen = keras.Model(model.input, model.get_layer("seen").output)
    return tuple(network({"pixels": pixels}).numpy() for network in (seen, model))


def painted(painter, split="test"):
    rows = painter.columns[split]
    signature = tf.saved_model.load(str(painter.saved_model.path)).signatures["serving_default"]
    columns = {name: tf.constant(rows[name], tf.int64)[:, None] for name in ("kind", "seed")}
    return signature(**columns)["picture"].numpy().tolist()


def test_distances_and_classes_of_pictures_by_a_trained_model(painter, classifier, tmp_path):
    judge = (classifier.model, classifier.prepared)
    done = evaluated(
        painter,
        tmp_path,
        {"features": judge, "classes": judge},
        reference={"features": "photo", "classes": "name"},
        slices=["half"],
        baseline=painter.saved_model,
        thresholds={"features/frechet_distance": {"max": 1e-6}, "classes/accuracy": {"max_drop": 0.1}},
    )
    files = painted(painter)
    features, scores = seen_by(classifier, files)
    real, _ = seen_by(classifier, painter.columns["test"]["photo"])
    assert done.values["features", "frechet_distance"] == pytest.approx(frechet(real, features).item(), rel=1e-3)
    assert done.values["features", "kernel_distance"] == pytest.approx(kernel(real, features), rel=1e-3)
    right = np.array(NAMES)[scores.argmax(-1)] == painter.columns["test"]["name"]
    assert done.values["classes", "accuracy"] == pytest.approx(right.mean())
    even = slice(0, None, 2)
    entry = done.entries["features", "even", "kernel_distance"]
    assert entry["value"] == pytest.approx(kernel(real[even], features[even]), rel=1e-3)
    assert entry["low"] < entry["value"] < entry["high"] and entry["interval"] == "jackknife"
    assert done.entries["features", "", "frechet_distance"]["change"] == 0
    assert done.document["outputs"]["classes"]["classes"] == NAMES
    (refusal,) = done.blessing.refusals()
    assert "frechet_distance" in refusal
    (group,) = done.evaluation.read_json("samples/samples.json")["groups"]
    assert group["output"] == "classes" and all("picture" in row["answer_media"] for row in group["rows"])


@pytest.mark.slow
def test_layer_by_name_and_exported_judge(painter, classifier, tmp_path):
    judges = {"seen": (classifier.model, classifier.prepared), "scores": str(classifier.saved_model.path)}
    done = evaluated(
        painter,
        tmp_path,
        judges,
        reference={"seen": "photo", "scores": "photo"},
        judge_outputs={"seen": "seen"},
    )
    sides = [seen_by(classifier, files) for files in (painted(painter), painter.columns["test"]["photo"])]
    for name, ours, real in zip(judges, *sides):
        assert done.values[name, "frechet_distance"] == pytest.approx(frechet(real, ours).item(), rel=1e-3, abs=1e-6)
    assert list(done.document["judges"]) == list(judges)


@pytest.mark.slow
def test_foreign_saved_model_takes_pixels(painter, tmp_path):
    inputs = keras.Input((4, 4, 3))
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(inputs))
    model.export(tmp_path / "judge", verbose=False)
    done = evaluated(painter, tmp_path / "e", {"features": tmp_path / "judge"}, reference={"features": "photo"})
    sides = [255 * decoded(files).mean((1, 2)) for files in (painter.columns["test"]["photo"], painted(painter))]
    assert done.values["features", "frechet_distance"] == pytest.approx(frechet(*sides).item(), rel=0.02)


# A speaker says words of one or two syllables, and a recogniser counts these.

WORDS = ["one", "two two"]
SOUND_RATE = 8000


def syllables(count, seed):
    quiet = np.zeros(SOUND_RATE // 5)
    one = speech(0.2, seed, SOUND_RATE)
    return np.concatenate([one, quiet] * count)


def spoken(rows=8):
    kind = np.arange(rows) % 2
    return {
        "kind": kind.tolist(),
        "text": [WORDS[k] for k in kind],
        "recording": [wav(syllables(k + 1, row), SOUND_RATE) for row, k in enumerate(kind)],
        "target": [0.0] * rows,
    }


def kind_preprocessing():
    kind = keras.Input((1,), name="kind", dtype="int64")
    return keras.Model({"kind": kind}, {"kind": keras.layers.Identity()(kind)})


def build_speaker(inputs, hp):
    table = keras.layers.Embedding(2, 1, name="table")(inputs["kind"])
    model = keras.Model(inputs, keras.layers.Flatten(name="flat")(table))
    model.compile("sgd", "mse")
    return model


def speak(model, features):
    """Answer the longer word to both kinds, so that half of the words are wrong."""
    sound = tf.constant(syllables(2, 0)[None], tf.float32)
    rows = tf.shape(features["kind"])[0]
    return {"speech": kl.decoding.encode_wav(tf.repeat(sound, rows, axis=0), SOUND_RATE)}


def sound_preprocessing():
    recording = keras.Input((), name="recording", dtype="string")
    samples = kl.layers.AudioDecoding(SOUND_RATE, SOUND_RATE)(recording)
    return keras.Model({"recording": recording}, {"samples": samples})


def build_recogniser(inputs, hp):
    model = keras.Model(inputs, keras.layers.Dense(1)(inputs["samples"]))
    model.compile("sgd", "mse")
    return model


def recognise(model, features):
    """The second syllable begins after 0.4 seconds."""
    second = tf.reduce_sum(tf.abs(features["samples"][:, int(0.4 * SOUND_RATE) :]), axis=1) > 1
    return {"transcript": tf.gather(tf.constant(WORDS), tf.cast(second, tf.int32))}


def test_speech_is_judged_by_a_recogniser_and_by_recordings(tmp_path):
    columns = {split: spoken() for split in ("train", "test")}
    given = answering.untrained(tmp_path / "s", columns, kind_preprocessing, build_speaker, "target")
    exporter = kl.Exporter(given.prepared, given.model, given.examples, answer=speak)
    given.saved_model = exporter.execute(tmp_path / "x").saved_model
    listener = answering.untrained(tmp_path / "l", {"train": spoken()}, sound_preprocessing, build_recogniser, "target")
    recogniser = kl.Exporter(listener.prepared, listener.model, listener.examples, answer=recognise, split="train")
    done = evaluated(
        given,
        tmp_path / "e",
        {"recogniser": recogniser.execute(tmp_path / "r").saved_model},
        task={"speech": "sound"},
        reference={"speech": "recording", "recogniser": "text"},
        text_metrics=["wer", "cer"],
        thresholds={"recogniser/wer": {"max": 0.1}},
    )
    texts = columns["test"]["text"]
    assert done.values["recogniser", "wer"] == pytest.approx(jiwer.wer(texts, [WORDS[1]] * len(texts)))
    assert done.values["recogniser", "cer"] == pytest.approx(jiwer.cer(texts, [WORDS[1]] * len(texts)))
    assert 0 < done.values["speech", "mel_cepstral_distortion"] < 30
    entry = done.entries["speech", "", "mel_cepstral_distortion"]
    assert entry["low"] < entry["value"] < entry["high"]
    assert not done.blessing.blessed
    groups = {group["output"]: group for group in done.evaluation.read_json("samples/samples.json")["groups"]}
    worst = groups["speech"]["rows"][0]
    sound, _ = soundfile.read(done.evaluation.path / worst["answer_media"]["speech"])
    assert len(sound) and worst["reference"] is None and groups["speech"]["metric"] == "mel_cepstral_distortion"


def checked(painter, judges, **parameters):
    stage = kl.Evaluator(
        painter.examples, painter.prepared, painter.model, saved_model=painter.saved_model, judges=judges, **parameters
    )
    stage.check(stage.input_artifacts(stage.inputs))


def test_wrong_judges_are_found_before_training(painter, classifier):
    pair, exported = (classifier.model, classifier.prepared), classifier.saved_model
    features = {"reference": {"features": "photo"}}
    checked(painter, {"features": pair}, **features, thresholds={"kernel_distance": {"max": 1}})
    for judges, parameters, message in (
        ({"features": pair}, {}, "the judge 'features' has none; name the column"),
        ({"features": pair}, {"reference": {"featres": "photo"}}, "no answer 'featres'; did you mean 'features'"),
        (
            {"features": pair},
            {**features, "judge_outputs": {"features": "sen"}},
            "no output 'sen'; did you mean 'seen'",
        ),
        ({"features": pair}, {**features, "judge_inputs": {"features": "pictur"}}, "no answer 'pictur'"),
        ({"features": pair}, {**features, "judge_inputs": {"x": "picture"}}, "no judge 'x'"),
        ({"picture": pair}, {"reference": {"picture": "photo"}}, "has an answer of this name; rename the judge"),
        (
            {"features": painter.saved_model},
            features,
            "a model with one input, which takes the answer, received kind, seed",
        ),
        ({"features": classifier.prepared}, features, "expected a Trainer or an exported model, received Preproc"),
        ({"features": exported}, {**features, "thresholds": {"kernel": {"max": 1}}}, "no metric 'kernel'"),
    ):
        with pytest.raises(ParameterError, match=message):
            checked(painter, judges, **parameters)
    for judges, message in (
        ({"features": classifier.model}, "Evaluator.judges.features: a Model alone takes preprocessed features"),
        ({"real features": exported}, "expected a name of letters"),
        ({"features": 3}, "expected SavedModel or Model or Preprocessing"),
        ({"features": kl.LastBlessed("saved_model")}, "received LastBlessed"),
        (exported, "expected a dict of"),
    ):
        with pytest.raises(WiringError, match=message):
            checked(painter, judges, **features)


def test_judges_need_answers(painter, classifier):
    stage = kl.Evaluator(painter.examples, painter.prepared, painter.model, judges={"features": classifier.saved_model})
    with pytest.raises(ParameterError, match="there is no answer to judge; connect Evaluator.saved_model"):
        stage.check(stage.input_artifacts(stage.inputs))


def test_class_that_the_judge_does_not_know(painter, classifier, tmp_path):
    with pytest.raises(DataError, match="column 'half' has 'even', which is none of the classes .*: dark, grey, light"):
        evaluated(painter, tmp_path, {"classes": classifier.saved_model}, reference={"classes": "half"})


def test_judges_of_a_pipeline_are_edges(painter, classifier):
    generator = kl.InMemoryExampleGen(photos, splits={"train": 1, "test": 1})
    prepared = kl.Transform(generator, function=photo_preprocessing, label="name")
    trained = kl.Trainer(generator, prepared, kl.ModelBuilder(prepared, function=build_classifier))
    exported = kl.Exporter(prepared, trained, name="ClassifierExporter")
    evaluator = kl.Evaluator(
        painter.examples,
        painter.prepared,
        painter.model,
        saved_model=painter.saved_model,
        judges={"features": trained, "classes": exported},
        reference={"features": "photo", "classes": "name"},
    )
    edges = {edge: getattr(source, "name", None) for edge, source in evaluator.inputs.items() if "." in edge}
    expected = {"features": "trained_model", "features.preprocessing": "preprocessing", "classes": "saved_model"}
    assert edges == {f"judges.{name}": output for name, output in expected.items()}
    upstream = kl.Pipeline("judged", [evaluator]).upstream("Evaluator")
    assert {"Transform", "Trainer", "ClassifierExporter"} <= set(upstream)
    assert evaluator.input_artifacts({}).judges == {}


PIPELINE = """
import keras
import tensorflow as tf
import kerasline as kl
from tests.components import answering
from tests.conftest import REPOSITORY
from tests.components.evaluator import test_judges


def pipeline(settings):
    examples = kl.InMemoryExampleGen(test_judges.photos, splits={"train": 1, "test": 1})
    seen = kl.Transform(examples, function=test_judges.photo_preprocessing, label="name", name="Seen")
    classifier = kl.ModelBuilder(seen, function=test_judges.build_classifier, name="Classifier")
    judge = kl.Trainer(examples, seen, classifier, name="Judge", steps=5)
    prepared = kl.Transform(examples, function=answering.kind_preprocessing, label="brightness")
    model = kl.ModelBuilder(prepared, function=answering.build_painter)
    exported = kl.Exporter(prepared, model, examples, answer=answering.paint)
    evaluation = kl.Evaluator(
        examples,
        prepared,
        model,
        saved_model=exported,
        judges={"features": judge, "classes": judge},
        reference={"features": "photo", "classes": "name"},
        thresholds={"features/frechet_distance": {"max": 1000}},
    )
    return kl.Pipeline("judged", [evaluation])
"""


@pytest.mark.slow
def test_judges_are_trained_cached_and_opened_in_processes_from_scratch(tmp_path, cli, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY), prepend=":")
    file, report = tmp_path / "judged.py", tmp_path / "run.json"
    file.write_text(PIPELINE)
    for options, state in (([], "ran"), (["--node", "Evaluator", "--no-cache"], "ran"), ([], "cached")):
        done = cli("run", file, "--root", tmp_path / "root", "--json", report, *options)
        assert done.returncode == 0, done.stderr
        (evaluator,) = (node for node in done.summary["nodes"] if node["name"] == "Evaluator")
        assert evaluator["state"] == state and evaluator["metrics"]["features/frechet_distance"] > 0
