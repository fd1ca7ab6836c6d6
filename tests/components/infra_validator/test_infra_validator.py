"""InfraValidator with real servers and faulty models."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kerasline import InfraValidator, Pusher
from kerasline.components.core.artifacts import Blessing, SavedModel, Schema
from kerasline.components.core.errors import DataError, KeraslineError, ParameterError, StageSkipped
from kerasline.components.infra_validator import server as candidate_server
from kerasline.components.infra_validator.client import Address
from kerasline.pipeline.dag import Pipeline
from kerasline.pipeline.metadata.store import Store, sqlite_url
from kerasline.pipeline.run import RunRequest, run_pipeline
from kerasline.pipeline.storage.artifact_root import ArtifactRoot
from tests.components.infra_validator import candidates
from tests.conftest import REPOSITORY

BAD_SERVER = Path(__file__).with_name("bad_server.py")
SCHEMA = """
feature { name: "x" type: FLOAT presence { min_count: 1 } float_domain { min: -10 max: 10 } }
feature { name: "word" type: BYTES presence { min_fraction: 1 } string_domain { value: "a" value: "b" } }
"""
WORDS = ["a", "b", "žluť"]


@pytest.fixture
def examples(make_examples):
    rows = {"x": [n / 7 - 3 for n in range(40)], "word": [WORDS[n % 3] for n in range(40)]}
    return make_examples({"train": rows, "test": rows})


@pytest.fixture
def schema(tmp_path):
    (tmp_path / "schema").mkdir()
    (tmp_path / "schema" / Schema.FILE).write_text(SCHEMA)
    return Schema(tmp_path / "schema")


@pytest.fixture
def validate(tmp_path, examples, schema):
    """Validate a model of `candidates`. `.progress` has the reported progress."""

    def call(spoil=None, *, saved_model=None, **parameters):
        folder = saved_model or candidates.save_candidate(tmp_path / "model", spoil)
        stage = InfraValidator(SavedModel(folder), examples, schema, rows=10, requests=20, **parameters)
        progress = []
        done = stage.execute(tmp_path / "out", report=progress.append)
        done.progress, done.document, done.stage = progress, done.validation.read_json("validation.json"), stage
        return done

    return call


def bad_server(how):
    return f"{sys.executable} {BAD_SERVER} {how} {{rest_port}} {{saved_model}}"


def broken(done):
    return {check["rule"]: check["why"] for check in done.document["checks"] if not check["kept"]}


def sent(done, kind):
    counts = ("sent", "answered", "refused", "wrong")
    return {t["form"]: tuple(t[count] for count in counts) for t in done.document["requests"] if t["kind"] == kind}


def test_good_model_is_blessed_and_all_results_are_recorded(validate):
    done = validate()
    assert done.blessing.blessed and broken(done) == {}
    assert done.metrics["blessed"] == "yes" and done.metrics["requests"] > 80
    assert sent(done, "real rows") == dict.fromkeys(("REST rows", "REST columns", "gRPC"), (1, 1, 0, 0))
    assert sum(n for n, *_ in sent(done, "real rows, one by one").values()) == 10
    assert all(number == alike > 20 for number, alike, *_ in sent(done, "edge cases").values())
    assert sent(done, "malformed requests") == {"REST columns": (3, 0, 3, 0)}
    assert done.document["latency"]["requests"] == 20
    assert 0 < done.document["latency"]["p50_ms"] <= done.document["latency"]["p99_ms"]
    assert done.document["largest_difference"] <= 1e-6 and done.document["notes"] == []
    assert "ready" in (done.validation.path / "server.log").read_text()
    assert done.stage.stale(done) is None


def test_server_rejects_rows_that_the_model_rejects(validate):
    done = validate(candidates.refuses_huge)
    assert done.blessing.blessed, broken(done)
    for number, answered, refused, wrong in sent(done, "edge cases").values():
        assert refused >= 3 and answered > refused and wrong == 0 and number == answered + refused


def test_dependence_between_rows_is_noted(validate):
    done = validate(candidates.centred)
    assert done.blessing.blessed, broken(done)
    (note,) = done.document["notes"]
    assert note.startswith("answers may depend on the other rows of a batch: output score of a row differs")


@pytest.mark.slow
def test_value_that_crashes_the_process_is_named(validate):
    done = validate(candidates.aborts_on_huge)
    (why,) = done.blessing.refusals()
    assert "was killed by signal 6 (SIGABRT)" in why and "x: the highest number" in why
    assert f"refused: {why}" in done.progress


def test_model_that_crashes_the_server_is_refused_with_its_last_line(validate):
    done = validate(candidates.aborts_after(60))
    (why,) = done.blessing.refusals()
    assert why.startswith("the server was killed by signal 6 (SIGABRT) while it answered ")
    assert "its last line: " in why and "the kernel gave up" in why
    assert "SIGABRT" in done.document["ending"]
    assert any("the server printed:" in line and "the kernel gave up" in line for line in done.progress)
    assert "the kernel gave up" in (done.validation.path / "server.log").read_text()


@pytest.mark.slow
def test_model_that_hangs_is_refused(validate):
    done = validate(candidates.hangs_on_huge, request_seconds=3)
    (why,) = done.blessing.refusals()
    assert "no answer within 3 s to x: the highest number" in why


@pytest.mark.parametrize("spoil", [candidates.counts, pytest.param(candidates.draws, marks=pytest.mark.slow)])
def test_model_with_varying_predictions_is_refused(validate, spoil):
    done = validate(spoil)
    (why,) = done.blessing.refusals()
    assert "kept a state or drew random numbers" in why and "score" in why


def test_predictions_that_differ_from_those_in_process_are_refused(validate):
    done = validate(command=bad_server("lies"))
    assert {"real rows are answered as in process", "edge cases are answered as in process"} <= set(broken(done))
    assert done.document["server"] == Path(sys.executable).name
    first = done.document["problems"][0]
    served, own = re.fullmatch(r"score: served (\S+), in process (\S+) at \[0, 0\]", first["why"]).groups()
    assert first["kind"] == "real rows" and float(served) == pytest.approx(float(own) + 1, abs=1e-4)
    assert done.document["largest_difference"] == pytest.approx(1.0, abs=1e-6)
    assert "gRPC" not in sent(done, "real rows")  # the command has no placeholder for its port
    assert done.stage.stale(done) is None  # wrong answers are no matter of the machine


@pytest.mark.slow
def test_server_that_does_not_respond_is_refused(validate):
    done = validate(command=bad_server("hangs"), request_seconds=2)
    (why,) = done.blessing.refusals()
    assert why.startswith("no answer within 2 s to 10 real rows together by REST rows")
    assert "retrying" in done.stage.stale(done)


@pytest.mark.slow
def test_server_that_accepts_malformed_requests_is_refused(validate):
    done = validate(command=bad_server("takes"))
    assert list(broken(done)) == ["malformed requests are refused"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("loads", "the server is not ready after 4 s; its last line: bad server"),
        ("fails", "the server cannot load the model: the weights are not there"),
    ],
)
def test_server_without_the_model_is_refused(validate, how, why):
    done = validate(command=bad_server(how), ready_seconds=4 if how == "loads" else 60)
    # Under load the model in process may be the one that is late.
    assert why in done.blessing.refusals()[0] or "it is not loaded after 4 s" in done.blessing.refusals()[0]


def test_damaged_file_is_refused_before_the_server_starts(validate, tmp_path):
    folder = candidates.save_candidate(tmp_path / "model")
    (folder / "saved_model.pb").write_bytes((folder / "saved_model.pb").read_bytes()[:-100])
    done = validate(saved_model=folder)
    assert "saved_model.pb is damaged" in done.blessing.refusals()[0] and done.metrics["requests"] == 0


@pytest.mark.slow
def test_model_with_truncated_weights_is_refused(validate, tmp_path):
    folder = candidates.save_candidate(tmp_path / "model")
    (data,) = (folder / "variables").glob("variables.data*")
    data.write_bytes(data.read_bytes()[:-8])
    assert validate(saved_model=folder).blessing.refusals()[0].startswith("it cannot be loaded: ")


@pytest.mark.slow
def test_model_slower_than_its_bound_is_refused_and_retried(validate):
    done = validate(latency_p99_ms=0.001, command=bad_server("tells"))
    (why,) = done.blessing.refusals()
    assert why.startswith("p99 latency of one row is") and why.endswith("expected at most 0.001 ms")
    assert "retrying" in done.stage.stale(done)


def test_pusher_respects_both_verdicts(tmp_path, examples, schema):
    folder = candidates.save_candidate(tmp_path / "model")
    store, root = Store(sqlite_url(tmp_path / "metadata.sqlite")), ArtifactRoot(tmp_path)

    def run(**parameters):
        validated = InfraValidator(SavedModel(folder), examples, schema, rows=5, requests=5, **parameters)
        pushed = Pusher(SavedModel(folder), infra_blessing=validated, destination=str(tmp_path / "served"))
        summary = run_pipeline(RunRequest(Pipeline("served", [pushed]), store, root))
        return summary.state, {e.node: (e.state, e.message or "") for e in summary.executions}

    state, nodes = run(command=bad_server("lies"))
    assert state == "succeeded" and nodes["InfraValidator"][0] == "ran"
    assert nodes["Pusher"][0] == "skipped" and not (tmp_path / "served").exists()
    assert nodes["Pusher"][1].startswith("model refused: 2 of 2 requests (real rows) are answered incorrectly")
    state, nodes = run(command=bad_server("tells"))
    assert state == "succeeded" and nodes["Pusher"][0] == "ran", nodes
    assert len([p for p in (tmp_path / "served").iterdir() if p.name.isdigit()]) == 1


@pytest.mark.slow
def test_processes_of_the_server_end_with_the_stage(validate, tmp_path):
    pids = tmp_path / "pids"
    script = f'sleep 1000 & echo $! >>{pids}; echo $$ >>{pids}; exec {sys.executable} {BAD_SERVER} stays "$0"'
    done = validate(command=f"sh -c '{script}' {{rest_port}} {{saved_model}}")
    assert done.document["ending"] is None
    assert [pid for pid in pids.read_text().split() if _runs(int(pid))] == []


def test_no_server_outlives_a_killed_pipeline(tmp_path, examples):
    pids, folder = tmp_path / "pids", candidates.save_candidate(tmp_path / "model")
    script = f'echo $$ >>{pids}; exec {sys.executable} {BAD_SERVER} loads "$0"'
    parent = _validating(folder, examples, tmp_path, command=f"sh -c '{script}' {{rest_port}} {{saved_model}}")
    _wait(lambda: pids.exists() and pids.read_text().strip())
    server = int(pids.read_text())
    assert _runs(server)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    _wait(lambda: not _runs(server))


@pytest.mark.slow
def test_another_port_is_tried_if_one_is_taken(validate, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        addresses = [Address("candidate_x", taken.getsockname()[1], None)]
        fresh = candidate_server.new_address
        monkeypatch.setattr(
            candidate_server, "new_address", lambda **given: addresses.pop() if addresses else fresh(**given)
        )
        done = validate(command=bad_server("tells"))
    assert done.blessing.blessed, broken(done)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("no-such-server {rest_port} {folder}", "no program 'no-such-server' found"),
        ("sh {rest_prot} {folder}", "no placeholder {rest_prot}; did you mean 'rest_port'"),
        ("sh {rest_port}", "expected {rest_port}, and {folder} or {saved_model}"),
        ("sh 'x", "No closing quotation"),
    ],
)
def test_wrong_command_is_reported_before_the_server_starts(validate, command, message):
    with pytest.raises(ParameterError, match="InfraValidator.command: ") as error:
        validate(command=command)
    assert message in str(error.value)


def test_missing_server_libraries_are_reported(validate, monkeypatch):
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(
        KeraslineError, match=r"needs aiohttp, which is not installed; pip install 'kerasline\[serve\]'"
    ):
        validate()


def test_examples_without_a_column_are_an_error(make_examples, tmp_path):
    folder = candidates.save_candidate(tmp_path / "model")
    others = make_examples({"test": {"x": [1.0], "wrod": ["a"]}}, name="others")
    with pytest.raises(DataError, match="no column 'word'.*did you mean 'wrod'"):
        InfraValidator(SavedModel(folder), others, command=bad_server("tells")).execute(tmp_path / "out")


def test_pusher_reports_the_reasons_of_both_verdicts(tmp_path):
    verdicts = []
    for name in ("worse", "broken"):
        (tmp_path / name).mkdir()
        verdicts.append(Blessing(tmp_path / name))
        rules = [{"kept": False, "why": f"it is {name}"}]
        verdicts[-1].write_json(Blessing.FILE, {"blessed": False, "rules": rules})
    with pytest.raises(StageSkipped, match="model refused: it is worse; it is broken"):
        Pusher(SavedModel(tmp_path), *verdicts, destination=str(tmp_path / "d")).execute(tmp_path / "p")


@pytest.mark.slow
def test_our_own_command_line_can_be_the_server(validate):
    command = f"{sys.executable} {REPOSITORY}/run_pipeline.py serve --model {{name}}={{folder}} "
    done = validate(command=command + "--rest-port {rest_port} --grpc-port {grpc_port}")
    assert done.blessing.blessed, broken(done)
    assert "gRPC" in sent(done, "real rows")


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("tensorflow_model_server"), reason="no tensorflow_model_server on the PATH")
def test_tensorflow_serving_can_be_the_server(validate):
    done = validate(
        command="tensorflow_model_server --rest_api_port={rest_port} --port={grpc_port} --model_name={name} "
        "--model_base_path={folder}"
    )
    assert done.blessing.blessed, broken(done)


@pytest.mark.slow
def test_our_server_ends_with_a_killed_pipeline(tmp_path, examples):
    """The stage is killed when its server is ready, while it sends requests."""
    folder = candidates.save_candidate(tmp_path / "model")
    parent = _validating(folder, examples, tmp_path, requests=10**6, request_seconds=1000)
    log = tmp_path / "o" / "validation" / "server.log"
    _wait(lambda: log.exists() and "ready" in log.read_text())
    servers = _processes_of(str(folder))
    assert servers
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    _wait(lambda: not any(map(_runs, servers)))


def _validating(folder, examples, tmp_path, **parameters):
    """Start a process that validates a model into the folder `o`."""
    program = (
        "import sys; from kerasline import Examples, InfraValidator, SavedModel;"
        "model, examples, out = sys.argv[1:];"
        f"InfraValidator(SavedModel(model), Examples(examples), **{parameters!r}).execute(out)"
    )
    command = [sys.executable, "-c", program, str(folder), str(examples.path), str(tmp_path / "o")]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(REPOSITORY)})


def _processes_of(word):
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if word in words and "kerasline.components.infra_validator.server" in words:
            found.append(int(folder.name))
    return found


def _runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _wait(is_so, seconds=120.0):
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.05)
