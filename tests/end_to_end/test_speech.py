"""The recipes of speech, in a small size on spoken digits: one answer from Evaluator, BulkInferrer and the server."""

import base64
import contextlib
import io
import json
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.io import wavfile
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from kerasline.components.core.artifacts import Examples, Predictions
from kerasline.components.metrics.sound import distortions, mel_cepstra
from kerasline.pipeline.recipes import speech_synthesis
from kerasline.pipeline.recipes.spoken_digits import write_digits
from tests.components.serving.servers import serving
from tests.conftest import SHARED_DATA
from tests.end_to_end.recipe_runs import run_recipe

pytestmark = pytest.mark.slow
RECORDINGS = SHARED_DATA / "fsdd" / "recordings.zip"
SERVED = 8


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Five recordings of each digit by each speaker."""
    if not RECORDINGS.exists():
        pytest.skip(f"the recordings are not at {RECORDINGS}")
    few = tmp_path_factory.mktemp("recordings") / "recordings.zip"
    with zipfile.ZipFile(RECORDINGS) as whole, zipfile.ZipFile(few, "w") as archive:
        for name in whole.namelist():
            if name.endswith(("_0.wav", "_5.wav", "_10.wav", "_11.wav", "_12.wav")):
                archive.writestr(name, whole.read(name))
    return few


@pytest.fixture
def run(cli, recordings, tmp_path):
    """Run a recipe on digits. Return the nodes of its summary by name."""

    def call(recipe, columns, joined, **settings):
        write_digits(recordings, tmp_path / "digits", joined)
        settings = {
            "ExampleGen.input": tmp_path / "digits" / "clips",
            "ExampleGen.labels": tmp_path / "digits" / "clips.csv",
            "ExampleGen.columns": columns,
            "ExampleGen.splits": '{"train": 8, "eval": 1, "test": 1}',
            "ExampleGen.split_by": "column",
            "ExampleGen.split_key": '["split"]',
            "Evaluator.slices": '["speaker"]',
            **{name.replace("__", "."): value for name, value in settings.items()},
        }
        nodes = run_recipe(cli, recipe, tmp_path, settings)
        assert {node["state"] for node in nodes.values()} == {"ran"}
        return nodes

    return call


def rows_of(nodes):
    """Return the first rows of the test split, and their predictions in bulk."""
    examples = Examples(nodes["ExampleGen"]["outputs"]["examples"]).read("test").slice(0, SERVED).to_pylist()
    predictions = Predictions(nodes["BulkInferrer"]["outputs"]["predictions"]).read("test").slice(0, SERVED).to_pylist()
    return examples, predictions


@contextlib.contextmanager
def predicting(nodes, recipe, folder):
    """A function that posts a request of rows to a server of the pushed model, and returns status and body."""
    with serving(folder, nodes["Pusher"]["metrics"]["path"].rpartition("/")[0]) as server:
        yield lambda rows, **more: server.post(f"/v1/models/{recipe}:predict", {"instances": rows, **more})


def answers(nodes, recipe, contents, folder):
    """Return the answers of a server to all contents in one request, and to each alone."""
    instances = [{"content": {"b64": base64.b64encode(content).decode()}} for content in contents]
    with predicting(nodes, recipe, folder) as predict:

        def ask(rows):
            status, body = predict(rows)
            assert status == 200, body
            return body["predictions"]

        status, body = predict([{"content": {"b64": "AAAA"}}])
        assert status == 400 and "not the content of a WAV file" in body["error"]
        return ask(instances), [ask([one])[0] for one in instances]


def slices_of(nodes, metric):
    """Return the value of a metric by slice, "" for all rows."""
    with open(f"{nodes['Evaluator']['outputs']['evaluation']}/metrics.json") as file:
        entries = json.load(file)["metrics"]
    return {entry["slice"]: entry["value"] for entry in entries if entry["metric"] == metric}


def report_of(tmp_path):
    (report,) = (tmp_path / "root" / "reports").glob("*.html")
    return report.read_text()


def test_keywords_have_one_answer_everywhere(run, tmp_path):
    settings = {
        "Trainer__steps": 30,
        "ModelBuilder__hyperparameters.decay_steps": 30,
        "ModelBuilder__hyperparameters.units": 16,
    }
    nodes = run("keywords", '["content","label","speaker"]', 0, **settings)
    rows, predicted = rows_of(nodes)
    together, alone = answers(nodes, "keywords", [row["content"] for row in rows], tmp_path / "server")
    for one, other, bulk in zip(together, alone, predicted):
        assert one["label"] == other["label"] == bulk["label"]
        np.testing.assert_allclose(one["logits"], other["logits"], atol=1e-4)
        np.testing.assert_allclose(one["logits"], bulk["logits"], atol=1e-4)
    labels = Predictions(nodes["BulkInferrer"]["outputs"]["predictions"]).read("test")["label"].to_pylist()
    examples = Examples(nodes["ExampleGen"]["outputs"]["examples"]).read("test").to_pydict()
    is_right = np.array(labels) == np.array(examples["label"])
    accuracies = slices_of(nodes, "accuracy")
    assert nodes["Evaluator"]["metrics"]["accuracy"] == pytest.approx(is_right.mean(), abs=1e-4)
    speakers = np.array(examples["speaker"])
    for speaker in set(examples["speaker"]):
        assert accuracies[speaker] == pytest.approx(is_right[speakers == speaker].mean(), abs=1e-4)
    assert "<audio" in report_of(tmp_path)  # the worst rows of Explainer


def test_recognised_speech_is_one_text_everywhere(run, tmp_path):
    settings = {
        "Trainer__steps": 30,
        "ModelBuilder__hyperparameters.decay_steps": 30,
        "ModelBuilder__hyperparameters.units": 32,
        "ModelBuilder__hyperparameters.blocks": 1,
    }
    columns = '{"content": "content", "text": "label", "speaker": "speaker"}'
    nodes = run("speech_recognition", columns, 200, **settings)
    assert {"val_wer", "val_cer"} <= set(nodes["Trainer"]["metrics"])
    rows, predicted = rows_of(nodes)
    contents = [row["content"] for row in rows]
    start = time.monotonic()
    together, alone = answers(nodes, "speech_recognition", [*contents, a_minute_of(contents)], tmp_path / "server")
    assert time.monotonic() - start < 60  # loading, a minute twice, and all the others
    assert together == alone and together[:-1] == [row["transcript"] for row in predicted]
    table = Predictions(nodes["BulkInferrer"]["outputs"]["predictions"]).read("test").to_pydict()
    pairs = [(one.split(), other.split()) for one, other in zip(table["text"], table["transcript"])]
    expected = sum(distance(*pair) for pair in pairs) / sum(len(reference) for reference, _ in pairs)
    assert nodes["Evaluator"]["metrics"]["transcript/wer"] == pytest.approx(expected, abs=1e-3)
    samples = pq.read_table(f"{nodes['Evaluator']['outputs']['evaluation']}/samples/samples.parquet").to_pylist()
    judged = {row["row"]: row for row in samples if row["output"] == "transcript"}
    assert all(row["answer"] == table["transcript"][place] for place, row in judged.items())
    scores = [row["score"] for row in samples if row["kind"] == "worst"]
    assert scores == sorted(scores, reverse=True) and max(scores) > 0
    assert "<audio" in report_of(tmp_path)


def test_synthesised_speech_is_one_sound_everywhere(run, tmp_path):
    settings = {
        "Trainer__steps": 40,
        "Trainer__frames_a_batch": 1500,
        "ModelBuilder__hyperparameters.decay_steps": 40,
        "ModelBuilder__hyperparameters.units": 32,
        "ModelBuilder__hyperparameters.encoder_blocks": 1,
        "ModelBuilder__hyperparameters.decoder_blocks": 1,
    }
    columns = '{"content": "content", "text": "label", "speaker": "speaker"}'
    nodes = run("speech_synthesis", columns, 120, **settings)
    rows, predicted = rows_of(nodes)
    texts = [row["text"] for row in rows]
    exported = Path(nodes["Exporter"]["outputs"]["saved_model"])
    assert json.loads((exported / "kerasline.json").read_text())["row_dependence"] is None
    with predicting(nodes, "speech_synthesis", tmp_path / "server") as predict:

        def speak(*instances, **more):
            status, body = predict(list(instances), **more)
            assert status == 200, body
            return [samples_of(base64.b64decode(one["b64"])) for one in body["predictions"]]

        together = speak(*({"text": text} for text in texts))
        alone = [speak({"text": text})[0] for text in texts]
        fast, normal = speak(*({"text": texts[0], "speed": speed} for speed in (2, 1)), signature_name="at_speed")
        (empty,) = speak({"text": ""})
    for text, one, other, row in zip(texts, together, alone, predicted):
        assert one.shape == other.shape and 0.1 < len(one) / 8000 / (1 + len(text) / 12) < 3
        np.testing.assert_allclose(one, other, atol=0.01)
        np.testing.assert_allclose(one, samples_of(row["sound_bytes"]), atol=0.01)
    np.testing.assert_allclose(normal, together[0], atol=0.01)
    assert 0.4 < len(fast) / len(normal) < 0.7 and 0 < len(empty) < 8000
    table = Predictions(nodes["BulkInferrer"]["outputs"]["predictions"]).read("test").to_pydict()
    contents = Examples(nodes["ExampleGen"]["outputs"]["examples"]).read("test")["content"].to_pylist()
    expected = np.nanmean(distortions(*mel_cepstra(contents), *mel_cepstra(table["sound_bytes"])))
    found = nodes["Evaluator"]["metrics"]["sound_bytes/mel_cepstral_distortion"]
    assert found == pytest.approx(expected, rel=0.01)
    assert "<audio" in report_of(tmp_path)
    (graph,) = SavedModel.FromString((exported / "saved_model.pb").read_bytes()).meta_graphs
    operations = [node.op for function in graph.graph_def.library.function for node in function.node_def]
    assert 0 < operations.count("IRFFT") < 10 and len(operations) < 20_000  # loops, not unrolled


def test_ljspeech_becomes_the_columns_of_synthesis(tmp_path):
    import tensorflow_datasets as tfds

    examples = speech_synthesis.pipeline(SimpleNamespace(root=tmp_path)).nodes["ExampleGen"]
    with tfds.testing.mock_data(num_examples=3):
        written = examples.execute(tmp_path / "examples").examples
    for split in ("train", "eval", "test"):
        found = written.read(split).to_pydict()
        assert list(found) == ["content", "text", "speed"] and found["speed"] == [1.0] * 3
        assert all(len(samples_of(content)) for content in found["content"])


def a_minute_of(files):
    """Return recordings one after another, for a minute, as a WAV file."""
    samples = np.resize(np.concatenate([samples_of(file) for file in files]), 60 * 8000)
    stream = io.BytesIO()
    wavfile.write(stream, 8000, (samples * 32768).astype(np.int16))
    return stream.getvalue()


def samples_of(file):
    """Return the samples of a WAV file of the recipe's sampling rate, from -1 to 1."""
    rate, samples = wavfile.read(io.BytesIO(file))
    assert rate == 8000 and samples.dtype == np.int16
    return samples / 32768


def distance(reference, answer):
    """Return the Levenshtein distance of two lists."""
    costs = np.arange(len(answer) + 1)
    for number, word in enumerate(reference, 1):
        before, costs = costs, np.full(len(answer) + 1, number)
        for place, other in enumerate(answer, 1):
            costs[place] = min(before[place] + 1, costs[place - 1] + 1, before[place - 1] + (word != other))
    return int(costs[-1])
