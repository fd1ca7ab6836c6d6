"""Models with operations of another library, here tensorflow-text, load in processes that have not imported it."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasline as kl
from kerasline.components.core.errors import ParameterError

PREDICT = """
import json, sys
from pathlib import Path
import numpy as np
from kerasline.components.models.predictors import SavedModelPredictor
assert "tensorflow_text" not in sys.modules
texts = np.array([[b"one two three"], [b"one"]], object)
try:
    print(json.dumps(SavedModelPredictor(Path(sys.argv[1]))({"text": texts})["y"].tolist()))
except Exception as error:
    print(type(error).__name__, error)
"""


@keras.saving.register_keras_serializable("test_op_libraries")
class WordCount(keras.layers.Layer):
    def call(self, texts):
        import tensorflow_text

        words = tensorflow_text.WhitespaceTokenizer().tokenize(tf.reshape(texts, [-1]))
        return tf.cast(words.row_lengths(), "float32")[:, None]

    def compute_output_spec(self, texts):
        return keras.KerasTensor((texts.shape[0], 1), "float32")


@pytest.fixture(scope="module")
def saved_model(tmp_path_factory):
    pytest.importorskip("tensorflow_text", reason="tensorflow-text is not installed")
    folder = tmp_path_factory.mktemp("text")
    rows = {"text": ["a b", "c"], "y": [0.0, 1.0]}
    examples = kl.InMemoryExampleGen(rows, splits={"train": 1}).execute(folder / "e").examples

    def preprocessing():
        text = keras.Input((1,), name="text", dtype="string")
        return keras.Model({"text": text}, {"words": WordCount()(text)})

    def build_model(inputs, hp):
        total = keras.layers.Dense(1, kernel_initializer="ones", name="y")(inputs["words"])
        model = keras.Model(inputs, total)
        model.compile("sgd", "mse")
        return model

    prepared = kl.Transform(examples, function=preprocessing, label="y").execute(folder / "t").preprocessing
    model = kl.ModelBuilder(prepared, function=build_model).execute(folder / "m").model
    return kl.Exporter(prepared, model).execute(folder / "x").saved_model


def predicted(saved_model, *before):
    command = [sys.executable, "-c", "\n".join([*before, PREDICT]), str(saved_model.path)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_new_process_imports_the_library_before_it_loads_the_model(saved_model):
    assert saved_model.read_json("kerasline.json")["op_libraries"] == ["tensorflow_text"]
    np.testing.assert_allclose(json.loads(predicted(saved_model)), [[3.0], [1.0]])


@pytest.mark.slow
def test_missing_library_is_named(saved_model):
    imports = "import importlib.abc, sys"
    hide = (
        "class Hidden(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'tensorflow_text':\n"
        "            raise ImportError('hidden')\n"
        "sys.meta_path.insert(0, Hidden())"
    )
    answer = predicted(saved_model, imports, hide)
    assert answer.startswith("ArtifactError")
    assert "operations of tensorflow_text" in answer and "pip install tensorflow-text" in answer


def test_parameter_adds_libraries_and_names_those_that_are_missing(saved_model, tmp_path):
    folder = saved_model.path.parents[1]
    prepared, model = kl.Preprocessing(folder / "t" / "preprocessing"), kl.Model(folder / "m" / "model")
    done = kl.Exporter(prepared, model, op_libraries=["json"]).execute(tmp_path / "x")
    assert done.saved_model.read_json("kerasline.json")["op_libraries"] == ["json", "tensorflow_text"]
    with pytest.raises(ParameterError, match="Exporter.op_libraries: 'no_such' is not installed: pip install no-such"):
        kl.Exporter(prepared, model, op_libraries=["no_such"]).check_machine()
