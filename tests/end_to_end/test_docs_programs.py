"""The programs of the documents, run as they stand. In a file of their own, so that they run beside the commands."""

import subprocess
import sys

import pytest

from kerasline.pipeline.recipes.sample_trips import write_trips
from kerasline.pipeline.recipes.spoken_digits import write_digits
from tests.conftest import REPOSITORY, SHARED_DATA
from tests.end_to_end.documents import PROGRAM, blocks

README = REPOSITORY / "README.md"
DOCS = REPOSITORY / "docs"
GUIDES = [
    "ANSWERS.md",
    "COMPONENTS.md",
    "DATA.md",
    "DECODING.md",
    "EVALUATION.md",
    "EXPLAINING.md",
    "EXPORT.md",
    "IMAGES.md",
    "LANGUAGE.md",
    "MODELS.md",
    "MONITORING.md",
    "PIPELINES.md",
    "PREPROCESSING.md",
    "REPORT.md",
    "SERVING.md",
    "SPEECH.md",
    "TRAINING.md",
    "TUNING.md",
    "VALIDATING.md",
]


@pytest.fixture
def trips(tmp_path):
    """Return the file that the `sample_trips` command of the guides writes."""
    write_trips(tmp_path / "trips.csv")


@pytest.mark.slow
@pytest.mark.parametrize("path", [README, *(DOCS / name for name in GUIDES)], ids=lambda path: path.name)
def test_programs_of_the_guides_run(tmp_path, trips, path):
    if path.name in ("DECODING.md", "LANGUAGE.md"):
        pytest.importorskip("tensorflow_text", reason="tensorflow-text is not installed")
    if path.name == "SPEECH.md":
        recordings = SHARED_DATA / "fsdd" / "recordings.zip"
        if not recordings.exists():
            pytest.skip(f"the recordings are not at {recordings}")
        write_digits(recordings, tmp_path / "digits")
    for number, program in enumerate(blocks(path, "python")):
        file = tmp_path / f"program{number}.py"
        file.write_text(program)
        command = [*PROGRAM, "run", str(file)] if "def pipeline" in program else [sys.executable, str(file)]
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
