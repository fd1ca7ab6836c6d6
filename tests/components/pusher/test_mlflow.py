"""Versions in MLflow's registry, on a real MLflow server on loopback."""

import importlib.metadata
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
import uuid
from pathlib import Path

import numpy as np
import pytest

from kerasline import Pusher
from kerasline.components.core.artifacts import SavedModel
from kerasline.components.core.errors import DataError, ParameterError
from kerasline.components.models.versions import DEAD_AFTER_SECONDS
from kerasline.components.pusher import destination
from tests.conftest import REPOSITORY
from tests.ports import free_port

pytestmark = pytest.mark.slow
pytest.importorskip("mlflow", reason="MLflow's client is not installed: pip install 'kerasline[mlflow]'")

PUSH = """
import sys
from pathlib import Path

from kerasline.components.pusher import destination
place, keep, *models = sys.argv[1:]
target = destination(place)
print("ready", flush=True)
sys.stdin.readline()
for model in models:
    print(target.push(Path(model), int(keep) or None), file=sys.stderr, flush=True)
"""


def server_program():
    """MLflow's server needs more than its client: an environment of its own, or all of MLflow in this one."""
    named, ours = os.environ.get("KERASLINE_TEST_MLFLOW"), REPOSITORY / "build" / "mlflow" / "bin" / "mlflow"
    if named or ours.exists():
        return named or str(ours)
    try:
        importlib.metadata.version("mlflow")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("no MLflow server: install mlflow into build/mlflow, or let KERASLINE_TEST_MLFLOW name one")
    return str(Path(sys.executable).parent / "mlflow")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Return the address of a server, which is also in MLFLOW_TRACKING_URI."""
    program, folder = server_program(), tmp_path_factory.mktemp("mlflow")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    settings = {"MLFLOW_TRACKING_URI": url, "MLFLOW_DISABLE_TELEMETRY": "true"}
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    command = [
        program,
        "server",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "1",
        "--backend-store-uri",
        f"sqlite:///{folder}/store.db",
        "--artifacts-destination",
        str(folder / "artifacts"),
    ]
    # Without its job executors, which a registry does not need and which are eight more processes.
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_for(url, process, folder / "log")
        yield url
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


def wait_for(url, process, log):
    for _ in range(1800):
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(log.read_text())


@pytest.fixture
def place(server):
    return f"models:/{a_name()}"


def a_name():
    return f"taxi-{uuid.uuid4().hex[:8]}"


def a_model(folder, size=1000):
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"x" * size)
    (folder / "variables" / "data").write_bytes(os.urandom(size))
    return folder


def client():
    from mlflow import MlflowClient

    return MlflowClient()


def name_of(place):
    return place.rpartition("/")[2]


def aliases(place):
    return client().get_registered_model(name_of(place)).aliases


def downloaded(place, version, folder):
    import mlflow

    path = mlflow.artifacts.download_artifacts(f"models:/{name_of(place)}/{version}", dst_path=str(folder))
    return Path(path) / "saved_model"


def runs(place, **more):
    experiment = client().get_experiment_by_name(name_of(place)).experiment_id
    return client().search_runs([experiment], **more)


def pushing(place, keep, *models):
    command = [sys.executable, "-c", PUSH, place, str(keep), *map(str, models)]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    process = subprocess.Popen(command, cwd=REPOSITORY, text=True, **pipes)
    assert process.stdout.readline() == "ready\n", process.stderr.read()
    return process


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Return a real SavedModel with numeric and string inputs, and its outputs for two rows according to Keras."""
    import keras

    from kerasline import Exporter, InMemoryExampleGen, ModelBuilder, Transform

    def columns():
        return {"a": [0.5, None, -1.0] * 20, "word": ["x", "y", None] * 20, "y": [0, 1, 0] * 20}

    def preprocessing():
        a = keras.Input((1,), name="a")
        word = keras.Input((1,), name="word", dtype="string")
        parts = [keras.ops.nan_to_num(a), keras.layers.StringLookup(output_mode="one_hot")(word)]
        return keras.Model({"a": a, "word": word}, {"x": keras.layers.Concatenate()(parts)})

    def build_model(inputs, hp):
        model = keras.Model(inputs, keras.layers.Dense(2, activation="softmax", name="score")(inputs["x"]))
        model.compile("adam", "sparse_categorical_crossentropy")
        return model

    folder = tmp_path_factory.mktemp("exported")
    examples = InMemoryExampleGen(columns, splits={"train": 1}).execute(folder / "examples").examples
    prepared = Transform(examples, function=preprocessing, label="y").execute(folder / "transform").preprocessing
    model = ModelBuilder(prepared, function=build_model).execute(folder / "model").model
    saved = Exporter(prepared, model).execute(folder / "out").saved_model
    raw = {"a": np.array([[0.25], [np.nan]], "float32"), "word": np.array([["y"], [""]])}
    made = prepared.load_features()({name: keras.ops.convert_to_tensor(values) for name, values in raw.items()})
    return saved, raw, np.asarray(model.load()(made))


def test_mlflow_loads_a_pushed_model_with_the_same_outputs(place, exported, tmp_path):
    import mlflow
    import pandas as pd

    saved, raw, expected = exported
    done = Pusher(saved, destination=place).execute(tmp_path / "out")
    assert done.metrics == {"version": "1", "path": f"models:/{name_of(place)}/1"}
    champion = f"models:/{name_of(place)}@champion"
    served = mlflow.pyfunc.load_model(champion)
    rows = pd.DataFrame({name: values.ravel() for name, values in raw.items()})
    for given in (raw, rows):
        np.testing.assert_allclose(np.array(served.predict(given)["score"]), expected, atol=1e-6)
    signature = mlflow.tensorflow.load_model(champion)
    import tensorflow as tf

    answer = signature(**{name: tf.constant(values) for name, values in raw.items()})
    np.testing.assert_allclose(answer["score"].numpy(), expected, atol=1e-6)


def test_version_has_tags_that_describe_it(place, exported, tmp_path):
    import mlflow

    saved = exported[0]
    destination(place).push(saved.path)
    manifest = saved.read_json("kerasline.json")
    version = client().get_model_version(name_of(place), "1")
    assert version.tags["kerasline.digest"] == manifest["digest"]
    assert version.tags["kerasline.keras"] == manifest["versions"]["keras"]
    signature = mlflow.models.get_model_info(f"models:/{name_of(place)}/1").signature
    assert {spec.name: (str(spec.type), spec.shape) for spec in signature.inputs} == {
        "a": ("float32", (-1, 1)),
        "word": ("<U0", (-1, 1)),
    }
    (output,) = signature.outputs
    assert (output.name, str(output.type), output.shape) == ("score", "float32", (-1, 2))
    (run,) = runs(place)
    assert run.info.run_id == version.run_id and run.info.status == "FINISHED"


def test_training_becomes_metrics_and_parameters_of_the_run(place, tmp_path):
    model = a_model(tmp_path / "m")
    training = {"steps": 240, "seconds": 5.5, "device": "CPU", "jit_compile": False, "resumed_at_step": None}
    (model / "kerasline.json").write_text(json.dumps({"digest": "d", "training": training}))
    destination(place).push(model)
    (run,) = runs(place)
    assert run.data.metrics == {"steps": 240, "seconds": 5.5}
    assert run.data.params == {"device": "CPU", "jit_compile": "False"}


def test_saved_model_of_another_origin_is_pushed_completely(place, tmp_path):
    model = a_model(tmp_path / "m")
    version = destination(place).push(model)
    there = downloaded(place, version, tmp_path)
    for name in ("saved_model.pb", "variables/data"):
        assert (there / name).read_bytes() == (model / name).read_bytes()


def test_url_may_name_the_server_instead_of_the_environment(server, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    name = a_name()
    target = destination(f"mlflow+{server}/{name}")
    assert target.push(a_model(tmp_path / "m")) == 1 == target.latest()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    assert aliases(f"models:/{name}") == {"champion": "1"}
    assert destination(f"models:/{name}").versions() == [1]


def test_newest_model_gets_the_alias_without_a_second_push(place, tmp_path):
    target = destination(place)
    models = [a_model(tmp_path / f"m{i}") for i in range(2)]
    assert [target.push(model) for model in models] == [1, 2]
    target.point_to(1)
    assert target.push(models[1]) == 2 == target.latest() and target.versions() == [1, 2]
    assert len(runs(place)) == 2


def test_keep_removes_only_old_pushed_versions_without_alias(place, tmp_path):
    target = destination(place)
    for i in range(4):
        target.push(a_model(tmp_path / f"m{i}"))
    client().set_registered_model_alias(name_of(place), "audited", "2")
    first = client().get_model_version(name_of(place), "1")
    assert client().create_model_version(name_of(place), first.source, first.run_id).version == "5"
    assert target.push(a_model(tmp_path / "last"), keep=2) == 6 == target.latest()
    assert target.versions() == [2, 4, 5, 6]
    assert len(runs(place)) == 4  # of 2, 4 and 6, and of 1, from which 5 was made


def test_rollback_moves_the_alias(place, tmp_path, cli):
    from kerasline.pipeline.commands.housekeeping import rolled_back

    target = destination(place)
    for i in range(3):
        target.push(a_model(tmp_path / f"m{i}"))
    done = cli("rollback", place)
    assert done.stdout == f"{place}: latest was 3, is 2\n", done.stderr
    assert rolled_back(place, None)["to"] == 1 and aliases(place) == {"champion": "1"}
    with pytest.raises(DataError, match="no version 9; known: 1, 2, 3"):
        rolled_back(place, 9)
    assert aliases(place) == {"champion": "1"}


def test_killed_push_does_not_move_the_alias(place, tmp_path):
    target = destination(place)
    target.push(a_model(tmp_path / "first"))
    in_mid_upload = 0
    for turn in range(4):
        before = target.versions()
        process = pushing(place, 0, a_model(tmp_path / f"m{turn}", size=20_000_000))
        process.stdin.write("go\n")
        process.stdin.flush()
        while process.poll() is None and not runs(place, filter_string="attributes.status = 'RUNNING'"):
            time.sleep(0.005)
        time.sleep(0.03 * turn)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        left = runs(place, filter_string="attributes.status = 'RUNNING'")
        if target.versions() == before:
            in_mid_upload += 1
            assert len(left) == 1 and target.latest() == before[-1]
        for run in left:  # so that the next turn knows its own
            client().set_terminated(run.info.run_id, "KILLED")
        assert target.latest() in target.versions()
        whole = downloaded(place, target.latest(), tmp_path / f"d{turn}")
        assert (whole / "variables" / "data").stat().st_size in (1000, 20_000_000)
        shutil.rmtree(tmp_path / f"d{turn}")
    assert in_mid_upload
    last = target.push(tmp_path / "m0")
    assert target.latest() == last == target.versions()[-1]
    there = downloaded(place, last, tmp_path / "last")
    assert (there / "variables" / "data").read_bytes() == (tmp_path / "m0" / "variables" / "data").read_bytes()


def test_leftovers_of_a_dead_push_are_removed_after_a_day(place, tmp_path):
    target = destination(place)
    target.push(a_model(tmp_path / "m0"))
    (pushed,) = runs(place)
    now = time.time()
    old, fresh, needed = (
        client()
        .create_run(pushed.info.experiment_id, int((now - age) * 1000), {"kerasline.pushing": name_of(place)})
        .info.run_id
        for age in (DEAD_AFTER_SECONDS + 60, 60, 2 * DEAD_AFTER_SECONDS)
    )
    # Killed after the version was made, before the mark was taken away: the version needs it.
    client().create_model_version(name_of(place), client().get_run(needed).info.artifact_uri + "/model", needed)
    target.push(a_model(tmp_path / "m1"))
    left = {run.info.run_id for run in runs(place)}
    assert old not in left and {fresh, needed, pushed.info.run_id} <= left


def test_concurrent_pushes_get_distinct_versions_and_the_newest_is_served(place, tmp_path):
    models = [a_model(tmp_path / f"m{i}", size=3_000_000) for i in range(3)]
    processes = [pushing(place, 0, model) for model in models]
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    versions = [int(process.communicate()[1].split()[-1]) for process in processes]
    target = destination(place)
    assert sorted(versions) == target.versions() == [1, 2, 3] and target.latest() == 3
    for model, version in zip(models, versions):
        there = downloaded(place, version, tmp_path / f"d{version}")
        assert (there / "variables" / "data").read_bytes() == (model / "variables" / "data").read_bytes()


def test_concurrent_pushes_of_one_model_are_one_version(place, tmp_path):
    model = a_model(tmp_path / "m", size=3_000_000)
    processes = [pushing(place, 0, model) for _ in range(5)]
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    printed = [process.communicate()[1].splitlines()[-1] for process in processes]
    target = destination(place)
    assert set(printed) == {"1"} and {1} == set(target.versions()) and target.latest() == 1
    assert len(client().search_model_versions(f"name = '{name_of(place)}'")) == 1


def test_next_push_completes_a_push_that_died_at_its_end(place, tmp_path):
    target, models = destination(place), [a_model(tmp_path / f"m{i}") for i in range(2)]
    for model in models:
        target.push(model)
    digest = client().get_model_version(name_of(place), "2").tags["kerasline.digest"]
    target.point_to(1)
    client().set_model_version_tag(name_of(place), "2", "kerasline.pushing", digest)
    client().delete_model_version_tag(name_of(place), "2", "kerasline.digest")
    assert target.versions() == [1] and target.latest() == 1
    assert target.push(models[1]) == 2 == target.latest() and target.versions() == [1, 2]


def test_deleted_version_makes_the_stage_run_again(place, tmp_path):
    stage = Pusher(SavedModel(a_model(tmp_path / "m")), destination=place)
    done = stage.execute(tmp_path / "out")
    assert stage.stale(done) is None
    client().delete_registered_model(name_of(place))
    assert f"models:/{name_of(place)}/1 no longer exists" in stage.stale(done)


def test_impossible_destinations_are_errors_in_one_line(server, tmp_path, monkeypatch, cli):
    model = SavedModel(a_model(tmp_path / "m"))

    def pushed(place):
        Pusher(model, destination=place).execute(tmp_path / uuid.uuid4().hex)

    free = f"127.0.0.1:{free_port()}"
    with pytest.raises(DataError, match=f"http://{free}/m: no answer from an MLflow server at http://{free}; is"):
        pushed(f"mlflow+http://{free}/m")
    refused = cli("rollback", f"mlflow+http://{free}/m")
    assert refused.returncode == 2 and len(refused.stderr.splitlines()) == 1
    for wrong in ("mlflow+ftp://host/m", "mlflow+http://host", "models:/a/3", "models:/a@champion"):
        with pytest.raises(ParameterError, match="expected mlflow|expected models"):
            pushed(wrong)
    with pytest.raises(ParameterError, match="leave name and password out") as secret:
        pushed("mlflow+http://me:hidden@host/m")
    assert "hidden" not in str(secret.value)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "123456")
    with pytest.raises(DataError, match="Pusher.destination models:/m1: .*123456"):
        pushed("models:/m1")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with pytest.raises(ParameterError, match="set MLFLOW_TRACKING_URI"):
        pushed("models:/m")
