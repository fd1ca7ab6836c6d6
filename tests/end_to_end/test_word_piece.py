"""KerasHub's WordPiece tokenizer in Transform is trained, exported and served, by processes from scratch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.components.serving.servers import serving

pytest.importorskip("keras_hub", reason="keras-hub is not installed")
pytest.importorskip("tensorflow_text", reason="tensorflow-text is not installed")

PIPELINE = Path(__file__).parent / "pipelines" / "word_piece.py"
PREDICT = """
import json, sys
from pathlib import Path
import numpy as np
from kerasline.components.models.predictors import SavedModelPredictor
assert not {"keras_hub", "tensorflow_text"} & set(sys.modules)
texts = np.array(json.loads(sys.argv[2]), object)
print(json.dumps(SavedModelPredictor(Path(sys.argv[1]))({"text": texts})["mood"].tolist()))
"""


@pytest.mark.slow
def test_word_piece_of_keras_hub_is_trained_exported_and_served(tmp_path):
    arguments = ["run", str(PIPELINE), "--root", str(tmp_path / "runs"), "--json", str(tmp_path / "summary.json")]
    subprocess.run([sys.executable, "-m", "kerasline", *arguments], check=True)
    nodes = json.loads((tmp_path / "summary.json").read_text())["nodes"]
    assert {node["name"]: node["state"] for node in nodes}["Pusher"] == "ran"
    exported = next(node["outputs"]["saved_model"] for node in nodes if node["name"] == "Exporter")
    assert json.loads((Path(exported) / "kerasline.json").read_text())["op_libraries"] == ["tensorflow_text"]

    texts = ["The GOOD films", "badly", "very bad film"]
    command = [sys.executable, "-c", PREDICT, exported, json.dumps(texts)]
    loaded = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert [score > 0.5 for (score,) in loaded] == [True, False, False]
    with serving(tmp_path / "log", "--model", f"moods={tmp_path / 'runs' / 'served'}") as server:
        status, answer = server.post("/v1/models/moods:predict", {"instances": [{"text": text} for text in texts]})
    assert status == 200
    assert [score for (score,) in answer["predictions"]] == pytest.approx([score for (score,) in loaded], abs=1e-6)
