"""Events to OpenLineage receivers: their content, their processes, and bad receivers."""

import json
import signal
import subprocess
import sys
import time
import uuid
from datetime import datetime

import pytest

from tests.conftest import REPOSITORY
from tests.pipeline.observers.receiver import Receiver

pytest.importorskip("openlineage.client", reason="pip install 'kerasline[openlineage]'")

QUICK, JUDGING = (REPOSITORY / "tests" / "pipeline" / name for name in ("quick.py", "judging.py"))
STAGES = ["Start", "Left", "Right", "Join"]

TABLE = """
from kerasline import CsvExampleGen, StatisticsGen
from kerasline.pipeline.dag import Pipeline

def pipeline(settings):
    return Pipeline("table", [StatisticsGen(CsvExampleGen("rows.csv", splits={"train": 1}))])
"""

DOCUMENTED = """
from kerasline.components.core.component import Component
from kerasline.pipeline.dag import Pipeline

class Wait(Component):
    'Waits for nothing.\\n\\nAt all.'

    def run(self, inputs, outputs, context): ...

def pipeline(settings):
    return Pipeline("documented", [Wait()])
"""

PUSH = """
from kerasline import Pusher
from kerasline.components.core.artifacts import SavedModel
from kerasline.pipeline.dag import Pipeline

def pipeline(settings):
    return Pipeline("push", [Pusher(SavedModel("model"), destination="served")])
"""


@pytest.fixture
def receiver(monkeypatch):
    with Receiver() as found:
        monkeypatch.setenv("OPENLINEAGE_URL", found.url)
        yield found


@pytest.fixture
def run(cli, tmp_path):
    def call(file=QUICK, *more):
        return cli("run", file, "--root", tmp_path / "root", "--json", tmp_path / "summary.json", *more)

    return call


def log_of(tmp_path, result):
    return (tmp_path / "root" / "logs" / f"{result.summary['run_id']}.log").read_text()


def events_by_job(receiver):
    """Return the types of the events of each job, in order."""
    found = {}
    for event in receiver.bodies:
        found.setdefault(event["job"]["name"], []).append(event["eventType"])
    return found


def last(receiver, job):
    return [event for event in receiver.bodies if event["job"]["name"] == job][-1]


def paths(datasets):
    assert {dataset["namespace"] for dataset in datasets} <= {"file"}
    return [dataset["name"] for dataset in datasets]


def tags(event):
    return {tag["key"]: tag["value"] for tag in event["run"]["facets"]["tags"]["tags"]}


def of_name(namespace, name):
    """Compute a UUID of version 5 (RFC 9562, 5.5): SHA-1 of namespace and name, with version and variant."""
    import hashlib

    digest = bytearray(hashlib.sha1(namespace.bytes + name.encode()).digest()[:16])
    digest[6], digest[8] = digest[6] & 0x0F | 0x50, digest[8] & 0x3F | 0x80
    return uuid.UUID(bytes=bytes(digest))


def test_run_and_stages_send_start_and_complete(run, receiver):
    assert run().returncode == 0
    jobs = ["quick", *(f"quick.{stage}" for stage in STAGES)]
    assert events_by_job(receiver) == dict.fromkeys(jobs, ["START", "COMPLETE"])
    assert receiver.bodies[0]["job"]["name"] == receiver.bodies[-1]["job"]["name"] == "quick"
    assert {path for _, path, _ in receiver.requests} == {"/api/v1/lineage"}


def test_events_have_everything_that_the_specification_requires(run, receiver):
    run(QUICK, "--set", "Left.fail=true")
    for event in receiver.bodies:
        assert datetime.fromisoformat(event["eventTime"]).utcoffset() is not None
        assert event["producer"].startswith("pkg:pypi/kerasline@") and "openlineage.io/spec" in event["schemaURL"]
        uuid.UUID(event["run"]["runId"])
        assert event["job"]["namespace"] == "default"
        facets = [*event["run"]["facets"].values(), *event["job"]["facets"].values()]
        for dataset in (*event["inputs"], *event["outputs"]):
            facets += [*dataset["facets"].values(), *dataset.get("outputFacets", {}).values()]
        for facet in facets:
            assert facet["_producer"] and facet["_schemaURL"].startswith("https://openlineage.io/spec/facets/")


def test_uuids_are_derived_from_names(run, receiver):
    run(QUICK, "--run-id", "nightly")
    whole = of_name(uuid.UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8"), "kerasline:quick:nightly")
    for event in receiver.bodies:
        stage = event["job"]["name"].partition(".")[2]
        assert event["run"]["runId"] == str(of_name(whole, stage) if stage else whole)
        if stage:
            parent = event["run"]["facets"]["parent"]
            assert parent["run"]["runId"] == str(whole)
            assert parent["job"] == {"namespace": "default", "name": "quick", "facets": {}}


@pytest.mark.slow
def test_stages_in_separate_processes_send_the_events_of_a_whole_run(run, receiver):
    run(QUICK, "--run-id", "nightly")
    whole = {event["job"]["name"]: event["run"]["runId"] for event in receiver.bodies}
    receiver.bodies.clear()
    for stage in STAGES[:2]:
        assert run(QUICK, "--run-id", "nightly", "--node", stage, "--no-cache").returncode == 0
    assert events_by_job(receiver) == {f"quick.{stage}": ["START", "COMPLETE"] for stage in STAGES[:2]}
    for event in receiver.bodies:
        assert event["run"]["runId"] == whole[event["job"]["name"]]
        assert event["run"]["facets"]["parent"]["run"]["runId"] == whole["quick"]


def test_worker_process_delivers_events_before_it_ends(run, receiver, tmp_path):
    program = f"""
from pathlib import Path
from kerasline.pipeline.executor import Executor
from kerasline.pipeline.loading import load_pipeline
from kerasline.pipeline.storage.artifact_root import ArtifactRoot
from kerasline.pipeline.metadata.store import Run, Store, now, sqlite_url
root = Path({str(tmp_path / "root")!r})
store = Store(sqlite_url(root / "metadata.sqlite"))
store.begin_run(Run("worker", "quick", "quick", str(root), "running", now()))
pipeline = load_pipeline({str(QUICK)!r}, str(root), {{}})
print(Executor(pipeline, store, ArtifactRoot(root), "worker", ["Start"]).execute("Start").state)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.stdout == "ran\n", done.stderr
    assert events_by_job(receiver) == {"quick.Start": ["START", "COMPLETE"]}


def test_datasets_are_artifacts_and_external_files_with_facets(run, receiver, tmp_path):
    (tmp_path / "rows.csv").write_text("a,b\n" + "".join(f"{i},{i / 2}\n" for i in range(5)))
    (tmp_path / "table.py").write_text(TABLE)
    result = run(tmp_path / "table.py")
    made = {node["name"]: node["outputs"] for node in result.summary["nodes"]}
    generated, computed = last(receiver, "table.ExampleGen"), last(receiver, "table.StatisticsGen")
    assert paths(generated["inputs"]) == [str(tmp_path / "rows.csv")]
    (examples,) = generated["outputs"]
    assert paths([examples]) == [made["ExampleGen"]["examples"]] == paths(computed["inputs"])
    assert paths(computed["outputs"]) == [made["StatisticsGen"]["statistics"]]
    fields = examples["facets"]["schema"]["fields"]
    assert [(field["name"], field["type"]) for field in fields] == [("a", "int64"), ("b", "double")]
    statistics = examples["outputFacets"]["outputStatistics"]
    assert statistics["rowCount"] == 5 and statistics["fileCount"] == 1 and statistics["size"] > 0
    digest = examples["facets"]["version"]["datasetVersion"]
    assert digest == computed["inputs"][0]["facets"]["version"]["datasetVersion"] and len(digest) == 64
    assert examples["facets"]["dataSource"]["uri"] == f"file://{made['ExampleGen']['examples']}"


def test_pushed_model_is_a_dataset_at_its_destination(run, receiver, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "saved_model.pb").write_bytes(b"x")
    (tmp_path / "push.py").write_text(PUSH)
    version = run(tmp_path / "push.py").summary["nodes"][0]["metrics"]["version"]
    pushed = last(receiver, "push.Pusher")
    assert str(tmp_path / "served" / version) in paths(pushed["outputs"])
    assert paths(pushed["inputs"]) == [str(tmp_path / "model")]


@pytest.mark.parametrize(
    ("place", "namespace", "name", "uri"),
    [  # after Naming.md of the specification
        ("/data/in put/100%#é", "file", "/data/in put/100%#é", "file:///data/in%20put/100%25%23%C3%A9"),
        ("s3://bucket/a?x#y", "s3://bucket", "a?x#y", "s3://bucket/a%3Fx%23y"),
        ("s3a://bucket/a/b", "s3://bucket", "a/b", "s3://bucket/a/b"),
        ("gcs://bucket/a", "gs://bucket", "a", "gs://bucket/a"),
        (
            "abfs://box@account.dfs.core.windows.net/a",
            "abfss://box@account.dfs.core.windows.net",
            "a",
            "abfss://box@account.dfs.core.windows.net/a",
        ),
        ("sftp://me:secret@host:22/a", "sftp://host:22", "a", "sftp://host:22/a"),
        ("s3://bucket", "s3://bucket", "/", "s3://bucket/"),
    ],
)
def test_datasets_are_named_as_the_specification_requires(place, namespace, name, uri):
    from kerasline.pipeline.metadata.store import Execution, StoredArtifact
    from kerasline.pipeline.observers.openlineage.datasets import outputs_of

    found = StoredArtifact("Report", place, "0" * 64, 1)
    (dataset,) = outputs_of(Execution("r", "p", "n", "c", "cached", datetime.now(), outputs={"report": found}))
    assert (dataset.namespace, dataset.name) == (namespace, name)
    assert dataset.facets["dataSource"].uri == uri


def test_jobs_have_type_and_documentation(run, receiver, tmp_path):
    (tmp_path / "documented.py").write_text(DOCUMENTED)
    run(tmp_path / "documented.py")
    for job, kind in (("documented", "PIPELINE"), ("documented.Wait", "STAGE")):
        event = last(receiver, job)
        facets = event["job"]["facets"]["jobType"].items()
        assert {key: value for key, value in facets if key[0] != "_"} == {
            "processingType": "BATCH",
            "integration": "KERASLINE",
            "jobType": kind,
        }
        assert event["run"]["facets"]["processing_engine"]["name"] == "kerasline"
    assert last(receiver, "documented.Wait")["job"]["facets"]["documentation"]["description"] == "Waits for nothing."
    run(QUICK, "--node", "Start")
    assert "documentation" not in last(receiver, "quick.Start")["job"]["facets"]


def test_failed_stage_and_run_have_the_message(run, receiver):
    run(QUICK, "--set", "Left.fail=true")
    assert events_by_job(receiver) == {
        "quick": ["START", "FAIL"],
        "quick.Start": ["START", "COMPLETE"],
        "quick.Left": ["START", "FAIL"],
        "quick.Right": ["START", "COMPLETE"],
        "quick.Join": ["START", "ABORT"],
    }
    of_stage, of_run = (last(receiver, job)["run"]["facets"]["errorMessage"] for job in ("quick.Left", "quick"))
    assert (of_stage["message"], of_stage["programmingLanguage"]) == ("row 3 is upside down; turn it", "python")
    assert of_run["message"] == "Left: row 3 is upside down; turn it"
    assert tags(last(receiver, "quick.Join"))["message"] == "not run, because Left failed"


def test_cached_stages_complete_and_refused_ones_are_aborted(run, receiver):
    run()
    receiver.bodies.clear()
    run()
    assert events_by_job(receiver)["quick.Join"] == ["START", "COMPLETE"]
    event = last(receiver, "quick.Join")
    assert tags(event)["state"] == "cached" and len(event["outputs"]) == 1 and len(event["inputs"]) == 2
    assert not event["outputs"][0].get("outputFacets"), "nothing was written"
    run(JUDGING)
    assert events_by_job(receiver)["judging.Push"] == ["START", "ABORT"]
    assert events_by_job(receiver)["judging"] == ["START", "COMPLETE"]
    assert tags(last(receiver, "judging.Push"))["message"].startswith("model refused")


@pytest.mark.slow
def test_interrupted_run_and_stage_are_aborted(cli, receiver, tmp_path):
    process = cli("run", QUICK, "--root", tmp_path / "root", "--set", "Start.seconds=60", wait=False)
    while "quick.Start" not in events_by_job(receiver):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode == 130
    assert events_by_job(receiver) == {"quick": ["START", "ABORT"], "quick.Start": ["START", "ABORT"]}


@pytest.mark.slow
def test_environment_variables_of_the_client_apply(run, receiver, monkeypatch):
    monkeypatch.setenv("OPENLINEAGE_API_KEY", "abc")
    monkeypatch.setenv("OPENLINEAGE_NAMESPACE", "factory")
    run()
    assert {headers["Authorization"] for _, _, headers in receiver.requests} == {"Bearer abc"}
    assert {event["job"]["namespace"] for event in receiver.bodies} == {"factory"}
    assert last(receiver, "quick.Left")["run"]["facets"]["parent"]["job"]["namespace"] == "factory"
    receiver.bodies.clear()
    monkeypatch.setenv("OPENLINEAGE_DISABLED", "true")
    assert run().returncode == 0 and receiver.bodies == []


@pytest.mark.slow
def test_configuration_file_of_the_client_applies(run, receiver, monkeypatch, tmp_path):
    monkeypatch.delenv("OPENLINEAGE_URL")
    transport = {"type": "http", "url": receiver.url, "endpoint": "elsewhere"}
    (tmp_path / "openlineage.yml").write_text(json.dumps({"transport": transport}))  # JSON is YAML
    run()
    assert {path for _, path, _ in receiver.requests} == {"/elsewhere"} and len(receiver.bodies) == 10


def complaints(tmp_path, result):
    return [line for line in log_of(tmp_path, result).splitlines() if " kerasline: OpenLineage" in line]


def test_status_400_is_one_line_of_the_log(run, receiver, tmp_path):
    receiver.answers = [400]
    result = run()
    assert result.returncode == 0
    (line,) = complaints(tmp_path, result)
    assert line.endswith("OpenLineage: events are not delivered: the receiver answered 400")


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["down", "silent", "500"])
def test_bad_receiver_neither_fails_nor_delays_a_run(run, receiver, monkeypatch, tmp_path, fault):
    if fault == "silent":  # until the test ends: a run that waited for it would never end
        receiver.silent = True
    elif fault == "500":
        receiver.answers = [500]
    else:
        with Receiver() as gone:
            monkeypatch.setenv("OPENLINEAGE_URL", gone.url)
    result = run()
    assert result.returncode == 0 and result.summary["state"] == "succeeded"
    assert len(complaints(tmp_path, result)) == 1


@pytest.mark.slow
def test_single_stage_does_not_wait_for_a_silent_receiver(run, receiver):
    receiver.silent = True
    assert run(QUICK, "--node", "Start").returncode == 0


def test_without_configuration_openlineage_is_not_imported(tmp_path, monkeypatch):
    monkeypatch.delenv("OPENLINEAGE_URL", raising=False)
    program = f"""
import sys
from kerasline.pipeline.commands.app import main
try:
    main(["run", {str(QUICK)!r}, "--root", {str(tmp_path / "root")!r}])
except SystemExit as end:
    ours = "kerasline.pipeline.observers.openlineage."
    print(end.code, [name for name in sys.modules if name.startswith(("openlineage", ours))])
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "0 []", done.stderr


def test_missing_client_is_one_line_of_the_log(run, receiver, tmp_path, monkeypatch):
    hidden = tmp_path / "hidden" / "openlineage"
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").write_text("raise ModuleNotFoundError('hidden', name='openlineage')\n")
    monkeypatch.setenv("PYTHONPATH", str(hidden.parent))
    result = run()
    assert result.returncode == 0 and receiver.bodies == []
    (line,) = complaints(tmp_path, result)
    assert line.endswith("no events are sent; openlineage is missing: pip install 'kerasline[openlineage]'")
