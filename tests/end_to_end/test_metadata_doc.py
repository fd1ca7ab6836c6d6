"""The commands of docs/METADATA.md, typed, with a server of the tests' own in the place of HOST."""

import os
import shlex
import shutil
import sqlite3
import subprocess

import pytest

from tests.conftest import REPOSITORY
from tests.end_to_end.documents import PROGRAM, as_words, commands
from tests.pipeline.quick import __file__ as QUICK
from tests.postgres import PASSWORD, USER, program

ALL = commands(REPOSITORY / "docs" / "METADATA.md")


@pytest.fixture
def typed(tmp_path, postgres):
    """Run a command of the page, with the quick pipeline instead of the main job."""
    place = {"PGHOST": "127.0.0.1", "PGPORT": str(postgres.port), "PGUSER": USER, "PGPASSWORD": PASSWORD}

    def call(command):
        words = as_words(command.replace("USER@HOST:PORT", f"{USER}@127.0.0.1:{postgres.port}"))
        if words[:2] == PROGRAM:
            words[3:3] = [QUICK] if words[2] == "run" else []
        elif words[0] != "sqlite3":
            words[0] = program(words[0])
        result = subprocess.run(words, cwd=tmp_path, env={**os.environ, **place}, capture_output=True, text=True)
        assert result.returncode == 0, (command, result.stderr)
        return result.stdout

    yield call
    postgres.execute("DROP DATABASE IF EXISTS kerasline WITH (FORCE)")


@pytest.mark.slow
def test_database_is_created_used_listed_and_dumped(typed, tmp_path):
    answers = {command: typed(command) for command in ALL if not command.startswith(("pip", "sqlite3"))}
    assert len(answers) == 5
    made, run, runs, show, dump = answers.values()
    assert "succeeded" in run and "succeeded" in runs and "Join" in show
    assert (tmp_path / "metadata-backup.dump").stat().st_size > 0


@pytest.mark.slow
def test_sqlite_store_is_backed_up(cli, tmp_path):
    if not shutil.which("sqlite3"):
        pytest.skip("the program sqlite3 is not installed")
    assert cli("run", QUICK).returncode == 0
    (command,) = [c for c in ALL if c.startswith("sqlite3")]
    subprocess.run(shlex.split(command), cwd=tmp_path, check=True)
    with sqlite3.connect(tmp_path / "metadata-backup.sqlite") as backup:
        assert backup.execute("SELECT count(*) FROM executions WHERE state = 'ran'").fetchone() == (4,)
