"""What the documents say to type, typed."""

import os
import re
import shlex
import subprocess
import sys

import pytest

from tests.conftest import FASHION, HOUSE

README = HOUSE / "README.md"
GUIDES = [
    "COMPONENTS.md",
    "DATA.md",
    "EVALUATION.md",
    "EXPLAINING.md",
    "EXPORT.md",
    "MODELS.md",
    "MONITORING.md",
    "PIPELINES.md",
    "PREPROCESSING.md",
    "REPORT.md",
    "TRAINING.md",
    "TUNING.md",
    "VALIDATING.md",
]


def blocks(path, language):
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(encoding="utf-8"), re.S)


def commands(path):
    return [line for block in blocks(path, "bash") for line in block.splitlines() if line.strip()]


@pytest.mark.parametrize("path", [README, *sorted((HOUSE / "docs").glob("*.md")), HOUSE / "CONTRIBUTING.md"])
def test_make_commands_have_their_target(path):
    makefile = (HOUSE / "Makefile").read_text()
    for command in commands(path):
        if command.startswith("make"):
            target = command.split()[1]
            assert re.search(rf"^{target}:", makefile, re.M), command


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    [README, *(HOUSE / "docs" / name for name in ("MONITORING.md", "PLANNING.md", "REPORT.md"))],
    ids=lambda path: path.name,
)
def test_every_run_pipeline_command_works(tmp_path, taxi_csv, path):
    (tmp_path / "trips.csv").symlink_to(taxi_csv)
    run_id = None
    for command in commands(path):
        if not command.startswith("python run_pipeline.py"):
            continue
        if str(FASHION) in command and not FASHION.exists():
            continue
        words = shlex.split(command.replace("RUN", run_id or ""), comments=True)
        words[:2] = [sys.executable, str(HOUSE / "run_pipeline.py")]
        result = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
        assert result.returncode == 0, (command, result.stderr)
        found = re.search(r": run (\S+) in ", result.stdout)
        run_id = found.group(1) if found else run_id


@pytest.mark.slow
def test_the_commands_of_the_guide_to_remote_roots_work(tmp_path, s3, monkeypatch):
    import s3fs

    s3fs.S3FileSystem().mkdir("my-bucket")
    monkeypatch.setenv("KERASLINE_WORK", str(tmp_path / "work"))
    found = commands(HOUSE / "docs" / "REMOTE.md")
    assert len(found) == 5
    for command in found:
        words = [sys.executable, str(HOUSE / "run_pipeline.py"), *shlex.split(command)[2:]]
        result = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
        assert result.returncode == 0, (command, result.stderr)


@pytest.mark.slow
@pytest.mark.parametrize("name", GUIDES)
def test_the_programs_of_the_guides_run(tmp_path, taxi_csv, name):
    (tmp_path / "trips.csv").symlink_to(taxi_csv)
    for number, program in enumerate(blocks(HOUSE / "docs" / name, "python")):
        file = tmp_path / f"program{number}.py"
        file.write_text(program)
        command = [sys.executable, str(HOUSE / "run_pipeline.py"), "run", str(file)]
        if "def pipeline" not in program:
            command = [sys.executable, str(file)]
        result = subprocess.run(
            command,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(HOUSE)},
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stderr


@pytest.mark.slow
@pytest.mark.long
def test_the_script_for_gpus_runs_on_a_cpu_and_refuses_to_pretend():
    script = [sys.executable, str(HOUSE / "benchmarks" / "gpu" / "train.py")]
    tried = subprocess.run([*script, "--device", "cpu", "--epochs", "1"], capture_output=True, text=True)
    assert tried.returncode == 0 and tried.stdout.count("mixed_float16") == 2, tried.stderr
    import tensorflow as tf

    if not tf.config.list_physical_devices("GPU"):
        refused = subprocess.run(script, capture_output=True, text=True)
        assert refused.returncode == 2 and "'gpu' asked for, and TensorFlow finds none here" in refused.stderr
