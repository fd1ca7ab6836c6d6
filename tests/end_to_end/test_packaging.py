"""kerasline as it is installed: the wheel in a new environment, used from a folder whose names are kerasline's own."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.marks import slowly

USERS_PROJECT = Path(__file__).with_name("users_project")
STAGES = ["ExampleGen", "StatisticsGen", "Transform", "ModelBuilder", "Trainer", "Exporter", "Evaluator"]


def call(*command, cwd, **environment):
    """Run a command with nothing of the tests' own on its path."""
    inherited = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env={**inherited, **environment}, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, (command, done.stdout[-2000:], done.stderr[-4000:])
    return done


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Return a copy of the files under version control, so that building leaves nothing in the checkout."""
    folder = tmp_path_factory.mktemp("source")
    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("the checkout is not a git repository, so its files are unknown")
    for name in listed.stdout.splitlines():
        if (REPOSITORY / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, folder / name)
    return folder


def built(source, folder, kind):
    """Build a `wheel` or an `sdist` from a source folder."""
    pytest.importorskip("build", reason="the package build, which makes wheels, is not installed")
    call(sys.executable, "-m", "build", "--no-isolation", f"--{kind}", "--outdir", folder, source, cwd=folder)
    (file,) = folder.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return file


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory):
    return built(source, tmp_path_factory.mktemp("wheel"), "wheel")


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """Return the programs of a new environment with the wheel. Its dependencies come from this environment."""
    folder = tmp_path_factory.mktemp("environment")
    call(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    python = folder / "bin" / "python"
    call(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    (packages,) = folder.glob("lib/python*/site-packages")
    # A path in a .pth file adds a folder without reading that folder's own .pth files: not the editable kerasline.
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


@pytest.fixture
def project(tmp_path):
    shutil.copytree(USERS_PROJECT, tmp_path / "project", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "project"


def contents(wheel: Path) -> dict[str, str]:
    """Return the digest of every file of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: hashlib.sha256(archive.read(name)).hexdigest() for name in archive.namelist()}


def test_wheel_holds_one_top_level_package(wheel):
    top = {name.partition("/")[0] for name in contents(wheel)}
    assert top == {"kerasline", next(name for name in top if name.endswith(".dist-info"))}


def test_wheel_holds_every_module_schema_and_template(wheel):
    held = contents(wheel)
    for folder, package in (("kerasline", "kerasline"), *((n, f"kerasline/{n}") for n in ("components", "pipeline"))):
        for path in (REPOSITORY / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert f"{package}/{path.relative_to(REPOSITORY / folder)}" in held
    assert {f"kerasline/schemas/{path.name}" for path in (REPOSITORY / "schemas").glob("*.pbtxt")} <= set(held)


def test_sdist_builds_the_same_wheel(source, wheel, tmp_path):
    sdist = built(source, tmp_path, "sdist")
    shutil.unpack_archive(sdist, tmp_path / "unpacked")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    again = built(unpacked, tmp_path, "wheel")
    assert contents(again) == contents(wheel)


def test_installed_program_imports_the_installed_package(environment, project):
    code = "import kerasline, kerasline.components.core.artifacts as a; print(kerasline.__file__); print(a.__file__)"
    found = call(environment / "python", "-c", code, cwd=project).stdout.splitlines()
    assert all(Path(file).is_relative_to(environment.parent) for file in found)


@pytest.mark.parametrize(
    "options",
    [[], slowly(["--", "--direct_num_workers=2", "--direct_running_mode=multi_processing"])],
    ids=["here", "workers"],
)
def test_pipeline_next_to_folders_of_the_same_names_runs(environment, project, options):
    call(environment / "kerasline", "run", "pipeline.py", "--json", "summary.json", *options, cwd=project)
    summary = json.loads((project / "summary.json").read_text())
    assert {node["name"]: node["state"] for node in summary["nodes"]} == dict.fromkeys(STAGES, "ran")


@pytest.mark.slow
@pytest.mark.parametrize("command", [["-m", "kerasline"], [REPOSITORY / "run_pipeline.py"]], ids=["module", "script"])
def test_other_ways_to_call_the_program_find_the_users_modules(environment, project, command):
    done = call(environment / "python", *command, "run", "pipeline.py", "--to", "StatisticsGen", cwd=project)
    assert re.search(r"^StatisticsGen +ran", done.stdout, re.M)


def test_checkout_without_installation_finds_the_users_modules(project):
    """The checkout is on `PYTHONPATH`, and only its dependencies are installed."""
    environment = {"PYTHONPATH": str(REPOSITORY)}
    done = call(
        sys.executable, "-m", "kerasline", "run", "pipeline.py", "--to", "StatisticsGen", cwd=project, **environment
    )
    assert re.search(r"^StatisticsGen +ran", done.stdout, re.M)


@pytest.mark.slow
@pytest.mark.long
def test_airflow_tasks_find_the_users_modules(environment, project, tmp_path):
    from tests.end_to_end.airflow_environment import Airflow

    try:
        airflow = Airflow(tmp_path / "home")
    except (RuntimeError, OSError) as error:
        pytest.skip(str(error))
    call(environment / "kerasline", "airflow", "pipeline.py", "-o", airflow.dags / "users.py", cwd=project)
    done = airflow.run("dags", "test", "users")
    assert done.returncode == 0, done.stderr[-3000:]
    runs = call(environment / "kerasline", "runs", cwd=project).stdout
    assert "succeeded" in runs and "failed" not in runs


def test_recipe_finds_its_schema_in_the_wheel(environment, project):
    done = call(environment / "kerasline", "run", "penguins", "--node", "SchemaGen", cwd=project)
    assert "features 8, domains 8" in done.stdout


def test_importing_kerasline_is_light(environment, project):
    code = "import sys, kerasline as kl; kl.Pipeline; print(*sys.modules)"
    loaded = set(call(environment / "python", "-c", code, cwd=project).stdout.split())
    assert not loaded & {"tensorflow", "keras", "apache_beam", "pandas", "sqlalchemy"}


def test_every_public_name_can_be_imported():
    import kerasline as kl

    assert {name for name in kl.__all__ if getattr(kl, name, None) is None} == set()
    with pytest.raises(AttributeError, match="NoSuchStage"):
        getattr(kl, "NoSuchStage")  # noqa: B009
