"""Several models from a file, which changes while they answer."""

from __future__ import annotations

import signal

import grpc
import pytest

from kerasline.components.core.errors import KeraslineError
from kerasline.components.serving.runtime.messages import model_server_config
from kerasline.components.serving.runtime.models_file import ModelsFile
from kerasline.components.serving.runtime.settings import Batching, BatchSettings, ModelDefaults
from tests.components.serving.servers import serving, wait_until
from tests.components.serving.test_lifecycle import refused
from tests.components.serving.test_versions import continuous_requests

DEFAULTS = ModelDefaults(2, BatchSettings(rows=64, queue=10))
PROTO = """
model_config_list {
  config { name: "half" base_path: "half" model_platform: "tensorflow" model_type: TENSORFLOW
           model_version_policy { specific { versions: 1 versions: 3 } }
           version_labels { key: "stable" value: 1 } version_labels { key: "canary" value: 3 } }
  config { name: "newest" base_path: "half" model_version_policy { latest { num_versions: 3 } } }
  config { name: "every" base_path: "half" model_version_policy { all {} } }
  config { name: "plain" base_path: "half" }
}
"""
TOML = """
[models.half]
path = "half"
versions = [1, 3]
labels = { stable = 1, canary = 3 }
batching = "off"
batch_rows = 16
batch_delay = 2
timeout = 0.5
[models.newest]
path = "half"
keep = 3
[models.every]
path = "half"
versions = "all"
[models.plain]
path = "half"
"""


@pytest.fixture(scope="module")
def half(model_folders):
    """Return a folder of versions: 1 answers 2 for x = 0, 3 answers 3."""
    return model_folders["half"]


def write(half, name: str, text: str):
    file = half.parent / name
    file.write_text(text)
    return file


def answers(server, path: str = "/v1/models/half") -> float:
    """Return the version that answers."""
    status, answer = server.post(f"{path}:predict", {"instances": [0.0]})
    assert status == 200, answer
    return answer["predictions"][0]


def states(server, name: str) -> dict[str, str]:
    return {one["version"]: one["state"] for one in server.get(f"/v1/models/{name}")[1]["model_version_status"]}


@pytest.mark.parametrize(("name", "text"), [("models.config", PROTO), ("models.toml", TOML)])
def test_both_formats_name_the_same_models(half, name, text):
    specific, newest, every, plain = ModelsFile(write(half, name, text), DEFAULTS).read()
    assert [one.name for one in (specific, newest, every, plain)] == ["half", "newest", "every", "plain"]
    assert all(one.path == half for one in (specific, newest, every, plain))
    assert (specific.only, specific.keep, specific.labels) == ((1, 3), None, {"stable": 1, "canary": 3})
    assert (newest.only, newest.keep, every.only, every.keep) == ((), 3, (), None)
    assert (plain.only, plain.keep, plain.batch) == ((), 2, DEFAULTS.batch)
    if name == "models.toml":
        expected = BatchSettings(Batching.OFF, rows=16, delay_seconds=0.002, queue=10, timeout_seconds=0.5)
        assert specific.batch == expected


def test_configuration_is_that_of_tensorflow_serving():
    config_pb2 = pytest.importorskip("tensorflow_serving.config.model_server_config_pb2")
    from google.protobuf import text_format

    original = text_format.Parse(PROTO, config_pb2.ModelServerConfig())
    ours = model_server_config().FromString(original.SerializeToString(deterministic=True))
    assert ours == text_format.Parse(PROTO, model_server_config()())


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("m.config", "model_config_list { config { nam: 'x' } }", "line 1, column 30: .*no field named .nam."),
        ("m.config", "custom_model_config {}", "custom_model_config is not supported"),
        ("m.config", "", "no model"),
        ("m.config", "model_config_list { config { name: 'x' } }", "model x: base_path is missing"),
        (
            "m.config",
            "model_config_list { config { name: 'x' base_path: 'half' model_platform: 'onnx' } }",
            "model x: model_platform: expected 'tensorflow', received 'onnx'",
        ),
        (
            "m.config",
            "model_config_list { config { name: 'x' base_path: 'half' } config { name: 'x' base_path: 'half' } }",
            "two models are named 'x'",
        ),
        ("m.toml", "models", "Expected '=' after a key"),
        ("m.toml", "[model.half]\npath = 'half'", "'model'; did you mean 'models'"),
        ("m.toml", "[models]", "no model"),
        ("m.toml", "models.half = 3", "models.half: expected a table, received 3"),
        ("m.toml", "[models.half]\nkeep = 1", "models.half: path is missing"),
        ("m.toml", "[models.half]\npath = 'half'\nqueues = 1", "unknown key 'queues'; did you mean 'queue'"),
        ("m.toml", "[models.half]\npath = 'half'\nqueue = 'x'", "models.half.queue: expected int, received 'x'"),
        ("m.toml", "[models.half]\npath = 'half'\nversions = 2", "models.half.versions: .*received 2"),
        ("m.toml", "[models.half]\npath = 'half'\nversions = [7]", "half has no version 7; it has 1, 3"),
        ("m.toml", "[models.half]\npath = 'half'\nlabels = {a = 7}", "label a: .* has no version 7"),
        (
            "m.toml",
            "[models.half]\npath = 'half'\nversions = [1]\nlabels = {a = 3}",
            "label a: expected one of the versions to load, 1, received 3",
        ),
        ("m.toml", "[models.half]\npath = 'half'\nkeep = 1\nversions = [1]", "expected keep or versions"),
        ("m.toml", "[models.half]\npath = 'nowhere'", "nowhere: no such folder"),
        ("m.toml", '[models."a b"]\npath = "half"', "expected a model name"),
    ],
)
def test_wrong_file_is_refused_in_one_line(half, name, text, message):
    file = write(half, name, text)
    with pytest.raises(KeraslineError, match=message) as refusal:
        ModelsFile(file, DEFAULTS).read()
    assert str(refusal.value).startswith(f"{file}: ") and "\n" not in str(refusal.value)


def test_server_does_not_start_with_a_wrong_file(half):
    file = write(half, "wrong.toml", "[models.half]\npath = 'half'\nqueues = 1")
    assert "unknown key 'queues'" in refused("--models", str(file))
    assert "cannot be read: No such file" in refused("--models", str(half / "nowhere.toml"))
    assert "--models names all models" in refused(str(half), "--models", str(file))


def test_changed_file_moves_labels_and_models_without_losing_a_request(half, tmp_path):
    def models(stable: int, versions: str, more: str = "") -> str:
        return f"[models.half]\npath = '{half}'\nversions = {versions}\nlabels = {{ stable = {stable} }}\n{more}"

    file = tmp_path / "models.toml"
    file.write_text(models(1, "[1]"))
    with serving(tmp_path / "log", "--models", str(file), "--poll", "0.1") as server:
        assert states(server, "half") == {"1": "AVAILABLE"}
        assert (answers(server), answers(server, "/v1/models/half/labels/stable")) == (2.0, 2.0)
        with continuous_requests(server, clients=2) as seen:
            file.write_text(models(3, "[1, 3]", f"[models.other]\npath = '{half}'\n"))
            wait_until(lambda: answers(server, "/v1/models/half/labels/stable") == 3.0, server)
            wait_until(lambda: server.get("/v1/models/other")[0] == 200, server)
            wait_until(lambda: states(server, "other") == {"3": "AVAILABLE"}, server)
            assert states(server, "half") == {"1": "AVAILABLE", "3": "AVAILABLE"}
            assert server.get("/readyz")[0] == 200

            file.write_text("[models.half]\npath = 'nowhere'")
            wait_until(lambda: "the configuration before stays in force" in server.log.read_text(), server)
            configuration = server.get("/v1/models")[1]["configuration"]
            assert configuration["file"] == str(file) and "nowhere: no such folder" in configuration["error"]
            assert answers(server, "/v1/models/half/labels/stable") == 3.0

            file.write_text(models(1, "[1]"))
            server.process.send_signal(signal.SIGHUP)
            wait_until(lambda: server.get("/v1/models/other")[0] == 404, server)
            wait_until(lambda: states(server, "half") == {"1": "AVAILABLE", "3": "END"}, server)
            assert answers(server, "/v1/models/half/labels/stable") == 2.0
            assert server.get("/v1/models")[1]["configuration"] == {"file": str(file), "error": ""}
    turns = [[value for value, before in zip(mine, [None, *mine]) if value != before] for mine in seen]
    assert turns == [[2.0, 3.0, 2.0]] * 2
    assert server.log.read_text().count("stays in force") == 1


def test_client_replaces_the_configuration(half, tmp_path):
    pytest.importorskip("tensorflow_serving", reason="tensorflow-serving-api has the client")
    import tensorflow as tf
    from google.protobuf import text_format
    from tensorflow_serving.apis import (
        model_management_pb2,
        model_service_pb2_grpc,
        predict_pb2,
        prediction_service_pb2_grpc,
    )

    def request(text: str):
        return text_format.Parse(
            f"config {{ model_config_list {{ {text} }} }}", model_management_pb2.ReloadConfigRequest()
        )

    config = f'config {{ name: "half" base_path: "{half}" model_version_policy {{ specific {{ versions: 1 }} }}'
    with serving(tmp_path, str(half), "--poll", "0.1") as server:
        assert answers(server) == 3.0
        with (
            grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel,
            continuous_requests(server, clients=2) as seen,
        ):
            models = model_service_pb2_grpc.ModelServiceStub(channel)
            labels = 'version_labels { key: "canary" value: 1 } }'
            response = models.HandleReloadConfigRequest(request(config + labels), timeout=60)
            assert response.status.error_code == 0
            assert answers(server) == 2.0
            predict = predict_pb2.PredictRequest(inputs={"x": tf.make_tensor_proto([0.0])})
            predict.model_spec.name, predict.model_spec.version_label = "half", "canary"
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            assert list(stub.Predict(predict).outputs["y"].float_val) == [2.0]
            for wrong, code in (
                (config + labels.replace("1", "3"), "expected one of"),
                ('config { name: "x" }', "base_path"),
            ):
                with pytest.raises(grpc.RpcError, match=code) as error:
                    models.HandleReloadConfigRequest(request(wrong), timeout=60)
                assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert answers(server, "/v1/models/half/labels/canary") == 2.0
    assert all(set(mine) <= {2.0, 3.0} for mine in seen)
