from __future__ import annotations

import shutil

import pytest

from tests.components.serving import servers
from tests.components.serving.case_model import save_cases, save_half_plus_two
from tests.components.serving.saved_models import save_half_plus, save_mixed


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    """Return a folder of one version, which computes x / 2 + 1."""
    folder = tmp_path_factory.mktemp("models") / "half"
    folder.mkdir()
    save_half_plus(folder / "1", 1.0)
    return folder


@pytest.fixture(scope="session")
def model_folders(tmp_path_factory):
    """Return folders of versions: half (1: x / 2 + 2, 3: x / 2 + 3) and mixed (1)."""
    root = tmp_path_factory.mktemp("served")
    (root / "half").mkdir()
    (root / "mixed").mkdir()
    save_half_plus(root / "half" / "1", 2.0)
    save_half_plus(root / "half" / "3", 3.0)
    save_mixed(root / "mixed" / "1")
    return {"half": root / "half", "mixed": root / "mixed"}


@pytest.fixture(scope="session")
def ours(model_folders, tmp_path_factory):
    """kerasline's server with both versions of half; version 1 is labelled `stable`."""
    with servers.serving(
        tmp_path_factory.mktemp("server"),
        "--model",
        f"half={model_folders['half']}",
        "--model",
        f"mixed={model_folders['mixed']}",
        "--label",
        "half:stable=1",
        "--request-megabytes",
        "4",
    ) as server:
        yield server


@pytest.fixture(scope="session")
def cases(tmp_path_factory):
    """A server with the models of TensorFlow Serving's own tests: half_plus_two (123) and cases (1).

    `named` is half_plus_two with the names of two classes, as Exporter writes them.
    """
    root = tmp_path_factory.mktemp("cases")
    for name, version, save in (("half_plus_two", "123", save_half_plus_two), ("cases", "1", save_cases)):
        (root / name).mkdir()
        save(root / name / version)
    shutil.copytree(root / "half_plus_two", root / "named")
    (root / "named" / "123" / "kerasline.json").write_text('{"class_names": ["low", "high"]}')
    models = [word for name in ("half_plus_two", "cases", "named") for word in ("--model", f"{name}={root / name}")]
    with servers.serving(tmp_path_factory.mktemp("cases_log"), *models, "--batching", "off") as server:
        yield server


@pytest.fixture(scope="session", params=["kerasline", "tensorflow_model_server"])
def server(request, model_folders, tmp_path_factory):
    """kerasline's server, and TensorFlow Serving's if it is installed, for tests of documented behavior."""
    if request.param == "kerasline":
        yield request.getfixturevalue("ours")
        return
    if servers.TENSORFLOW_SERVING is None:
        pytest.skip("no tensorflow_model_server on the PATH")
    with servers.tensorflow_serving(tmp_path_factory.mktemp("original"), model_folders) as original:
        yield original
