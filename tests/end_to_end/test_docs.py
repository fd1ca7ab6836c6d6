"""The commands of the documents, run as they stand."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import FASHION, REPOSITORY
from tests.end_to_end.documents import as_words, blocks, calls_kerasline, commands

README = REPOSITORY / "README.md"
DOCS = REPOSITORY / "docs"


@pytest.mark.parametrize("path", [README, *sorted(DOCS.glob("*.md")), REPOSITORY / "CONTRIBUTING.md"])
def test_make_commands_have_their_target(path):
    makefile = (REPOSITORY / "Makefile").read_text()
    for command in commands(path):
        if command.startswith("make"):
            target = command.split()[1]
            assert re.search(rf"^{target}:", makefile, re.M), command


@pytest.mark.parametrize("path", sorted(DOCS.glob("*.md")), ids=lambda path: path.name)
def test_guide_that_uses_trips_says_how_to_make_them(path):
    text = path.read_text(encoding="utf-8")
    assert "trips.csv" not in text or "kerasline.pipeline.recipes.sample_trips trips.csv" in text


def test_readme_links_every_guide():
    text = README.read_text(encoding="utf-8")
    assert [path.name for path in DOCS.glob("*.md") if f"(docs/{path.name})" not in text] == []


def test_architecture_names_every_folder():
    (layout, *_) = blocks(DOCS / "ARCHITECTURE.md", "")
    named = set(re.findall(r"(\w+)/", layout))
    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True).stdout.splitlines()
    described = [Path(file) for file in listed if not file.startswith(("tests/", "benchmarks/", "docs/", "."))]
    assert {folder for file in described for folder in file.parts[:-1]} - named == set()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["README.md", "docs/MONITORING.md", "docs/PLANNING.md", "docs/REPORT.md"])
def test_all_commands_of_the_guides_work(tmp_path, name):
    run_id = None
    for command in filter(calls_kerasline, commands(REPOSITORY / name)):
        if str(FASHION) in command and not FASHION.exists():
            continue
        words = as_words(command.replace("RUN", run_id or ""))
        if str(FASHION) in command:  # the recipe's whole training is a test of test_recipes.py
            words += ["--set", "Trainer.epochs=1"]
        result = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
        assert result.returncode == 0, (command, result.stderr)
        found = re.search(r": run (\S+) in ", result.stdout)
        run_id = found.group(1) if found else run_id


@pytest.mark.slow
def test_commands_of_the_guide_to_remote_roots_work(tmp_path, s3, monkeypatch):
    import s3fs

    s3fs.S3FileSystem().mkdir("my-bucket")
    monkeypatch.setenv("KERASLINE_WORK", str(tmp_path / "work"))
    found = [command for command in commands(DOCS / "REMOTE.md") if calls_kerasline(command)]
    assert len(found) == 5
    for command in found:
        result = subprocess.run(as_words(command), cwd=tmp_path, capture_output=True, text=True)
        assert result.returncode == 0, (command, result.stderr)


@pytest.mark.slow
@pytest.mark.long
def test_gpu_script_runs_on_a_cpu_and_says_so():
    script = [sys.executable, str(REPOSITORY / "benchmarks" / "gpu" / "train.py")]
    tried = subprocess.run([*script, "--device", "cpu", "--epochs", "1"], capture_output=True, text=True)
    assert tried.returncode == 0 and tried.stdout.count("mixed_float16") == 2, tried.stderr
    import tensorflow as tf

    if not tf.config.list_physical_devices("GPU"):
        refused = subprocess.run(script, capture_output=True, text=True)
        assert refused.returncode == 2 and "'gpu'" in refused.stderr
