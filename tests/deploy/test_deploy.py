"""The files of deploy/ are well-formed and fit the options of `serve` and each other."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from typer.main import get_command

from kerasline.components.serving.http.endpoints import OPEN_ENDPOINTS
from kerasline.components.serving.runtime.settings import Limits, ServerSettings
from kerasline.pipeline.commands.app import app
from kerasline.pipeline.commands.serving import KEY_VARIABLE

REPOSITORY = Path(__file__).resolve().parents[2]
DEPLOY = REPOSITORY / "deploy"


def instructions() -> list[tuple[str, str]]:
    """Return the instructions of the Dockerfile with their arguments."""
    text = re.sub(r"^#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line]
    return [(name, rest.strip()) for name, rest in (line.split(maxsplit=1) for line in lines)]


def check_options(arguments: list[str]) -> None:
    """Raise unless `serve` has the options in these arguments."""
    serve = get_command(app).commands["serve"]
    known = {option for parameter in serve.params for option in (*parameter.opts, *parameter.secondary_opts)}
    assert {one for one in arguments if one.startswith("-")} <= known


def manifests() -> dict[str, dict]:
    yaml = pytest.importorskip("yaml")
    return {one["kind"]: one for one in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())}


def test_dockerfile_runs_the_server_as_an_ordinary_user():
    found = instructions()
    names = [name for name, _ in found]
    known = {"FROM", "COPY", "RUN", "USER", "ENV", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT"}
    assert names[0] == "FROM" and set(names) <= known
    values = dict(found)
    assert all(re.fullmatch(r"\S+:[\d.]+\S*( AS \w+)?", rest) for name, rest in found if name == "FROM")
    python = re.match(r"python:3\.(\d+)", values["FROM"])
    assert python and 11 <= int(python[1]) <= 13
    assert names.index("USER") > max(index for index, name in enumerate(names) if name in ("RUN", "COPY"))
    assert int(values["USER"]) > 0
    program, command, *arguments = json.loads(values["ENTRYPOINT"])
    assert (program, command) == ("kerasline", "serve")
    check_options(arguments)
    assert values["EXPOSE"].split() == [str(ServerSettings.grpc_port), str(ServerSettings.rest_port)]
    check = json.loads(values["HEALTHCHECK"].partition("CMD ")[2])
    compile(check[2], "HEALTHCHECK", "exec")
    assert re.search(r"http://127\.0\.0\.1:8501(/\w+)", check[2])[1] in OPEN_ENDPOINTS


def test_image_contains_what_the_package_consists_of():
    lines = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    kept = {line[1:] for line in lines if line.startswith("!")}
    assert "*" in lines and all((REPOSITORY / one).exists() for one in kept)
    imported = {folder.name for folder in REPOSITORY.iterdir() if (folder / "__init__.py").exists()} - {"tests"}
    assert imported | {"setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"} <= kept


def test_systemd_accepts_the_unit(tmp_path):
    unit = (DEPLOY / "kerasline-serve.service").read_text()
    command = shlex.split(re.search(r"^ExecStart=(.*)$", unit, re.MULTILINE)[1])
    assert command[1] == "serve"
    check_options(command[2:])
    assert f"# {KEY_VARIABLE}=" in unit
    assert int(re.search(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)[1]) > ServerSettings.drain_seconds
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze on the PATH")
    (tmp_path / "kerasline-serve.service").write_text(unit.replace(command[0], sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(tmp_path / "kerasline-serve.service")], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_manifests_match_the_schemas_of_kubernetes():
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    for manifest in manifests().values():
        kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


def test_manifests_fit_the_server_and_each_other():
    found = manifests()
    pod = found["Deployment"]["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    check_options(container["args"])
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"rest": ServerSettings.rest_port, "grpc": ServerSettings.grpc_port}
    assert {port["targetPort"]: port["port"] for port in found["Service"]["spec"]["ports"]} == ports
    labels = pod["metadata"]["labels"]
    assert found["Service"]["spec"]["selector"] == found["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["path"] in OPEN_ENDPOINTS and container[probe]["httpGet"]["port"] in ports
    assert [one["name"] for one in container["env"]] == [KEY_VARIABLE]
    assert pod["spec"]["terminationGracePeriodSeconds"] > ServerSettings.drain_seconds
    assert Limits.timeout_seconds <= ServerSettings.drain_seconds
    assert {mount["name"] for mount in container["volumeMounts"]} == {one["name"] for one in pod["spec"]["volumes"]}
    configured = found["ConfigMap"]["data"]
    assert f"/etc/kerasline/{next(iter(configured))}" in container["args"]
    models = tomllib.loads(configured["models.toml"])["models"]
    assert all(model["path"].startswith("/models/") for model in models.values())
