"""Webhooks are notified of failures and refusals, and of nothing else."""

import json
import signal
import time

import pytest

from kerasline.components.core.errors import ParameterError
from kerasline.pipeline.loading import load_pipeline
from kerasline.pipeline.metadata.store import Store, new_run_id, sqlite_url
from kerasline.pipeline.observers.webhook import Webhook
from kerasline.pipeline.run import RunRequest, run_pipeline
from kerasline.pipeline.storage.artifact_root import ArtifactRoot
from tests.conftest import REPOSITORY
from tests.pipeline.observers.receiver import Receiver

QUICK, JUDGING = (REPOSITORY / "tests" / "pipeline" / name for name in ("quick.py", "judging.py"))
SECRET = "T0P/S3CRET"


@pytest.fixture
def receiver():
    with Receiver() as found:
        yield found


@pytest.fixture
def run(tmp_path, receiver):
    """Run a pipeline in this process. The webhook is the receiver unless `url` is set."""

    def call(file, changes=(), *, url=f"{receiver.url}/services/{SECRET}", node=None, run_id=None):
        root = tmp_path / "root"
        pipeline = load_pipeline(str(file), str(root), dict(changes))
        store = Store(sqlite_url(root / "metadata.sqlite"))
        selected, run_id = pipeline.select(node, None, None), run_id or new_run_id()
        request = RunRequest(pipeline, store, ArtifactRoot(root), "mine", selected, run_id=run_id, notify=url)
        return run_pipeline(request)

    return call


@pytest.fixture
def complaints(caplog):
    return lambda: [record.getMessage() for record in caplog.records if "webhook" in record.getMessage()]


def test_failed_run_sends_its_stages_and_its_report(cli, receiver, tmp_path, monkeypatch):
    monkeypatch.setenv("KERASLINE_WEBHOOK", f"{receiver.url}/services/{SECRET}")
    root, summary = tmp_path / "root", tmp_path / "summary.json"
    result = cli("run", QUICK, "--root", root, "--json", summary, "--set", "Left.fail=true")
    (body,), run_id = receiver.bodies, result.summary["run_id"]
    report = root / "reports" / f"{run_id}.html"
    assert body["event"] == "run_failed" and body["state"] == "failed" and body["pipeline"] == "quick"
    assert body["run_id"] == run_id and body["recipe"] == str(QUICK)
    assert body["failed"] == [{"stage": "Left", "message": "row 3 is upside down; turn it"}]
    assert body["refused"] == [] and body["report"] == str(report) and report.exists()
    assert body["text"].splitlines() == [
        f"quick: run {run_id} failed",
        "Left: row 3 is upside down; turn it",
        f"report: {report}",
    ]
    ((method, path, headers),) = receiver.requests
    assert (method, path, headers["Content-Type"]) == ("POST", f"/services/{SECRET}", "application/json")


def test_refused_model_sends_the_violated_rules(run, receiver):
    assert run(JUDGING).state == "succeeded"
    (body,) = receiver.bodies
    assert body["event"] == "model_refused" and body["state"] == "succeeded" and body["failed"] == []
    assert body["refused"] == [{"stage": "Judge", "rules": ["accuracy 0.5 < 0.9 <!channel>"]}]
    assert "Judge: accuracy 0.5 &lt; 0.9 &lt;!channel&gt;" in body["text"]  # as Slack wants it: nobody is called


def test_model_refused_again_is_sent_again_from_the_cache(run, receiver):
    assert run(JUDGING).state == run(JUDGING).state == "succeeded"
    first, second = receiver.bodies
    assert first["refused"] == second["refused"] and second["report"] is None  # no stage did work: there is none


def test_successful_run_sends_nothing(run, receiver):
    assert run(QUICK).state == run(QUICK).state == run(JUDGING, {"Judge.accuracy": "0.95"}).state == "succeeded"
    assert receiver.bodies == []


def test_failure_and_refusal_are_one_message(run, receiver):
    run(JUDGING, {"Push.fail": "true"})
    (body,) = receiver.bodies
    assert body["event"] == "run_failed" and [one["stage"] for one in body["failed"]] == ["Push"]
    assert [one["stage"] for one in body["refused"]] == ["Judge"]


def test_single_stage_sends_only_its_own_state(run, receiver):
    run(JUDGING, node="Judge", run_id="one")
    run(JUDGING, node="Push", run_id="one")  # skipped because of the refusal that was already reported
    run(JUDGING, {"Push.fail": "true"}, node="Push", run_id="two")
    refused, failed = receiver.bodies
    assert refused["event"] == "model_refused" and refused["text"].startswith("judging, Judge: run one refused")
    assert failed["event"] == "run_failed" and failed["refused"] == [] and failed["run_id"] == "two"


def test_status_500_is_retried(run, receiver, complaints):
    receiver.answers = [500, 429, 200]
    run(JUDGING)
    assert len(receiver.bodies) == 3 and complaints() == []


@pytest.mark.parametrize(
    ("answer", "attempts"), [(500, 3), (404, 1), (302, 1)], ids=["always 500", "404", "redirected"]
)
def test_failed_delivery_is_logged_and_does_not_fail_the_run(run, receiver, complaints, answer, attempts):
    receiver.answers = [answer]
    assert run(JUDGING).state == "succeeded" and len(receiver.requests) == attempts
    assert complaints() == [f"the webhook at 127.0.0.1 could not be notified: it answered {answer}"]


@pytest.mark.slow
def test_silent_receiver_times_out(run, receiver, complaints):
    receiver.silent = True
    assert run(JUDGING).state == "succeeded" and 1 <= len(receiver.bodies) <= 3
    (line,) = complaints()
    assert "timed out" in line or "no answer in" in line


def test_missing_receiver_does_not_delay_the_run(run, complaints):
    with Receiver() as gone:
        url = f"{gone.url}/services/{SECRET}"
    assert run(JUDGING, url=url).state == "succeeded"
    (line,) = complaints()
    assert line.startswith("the webhook at 127.0.0.1 could not be notified: ") and "Connection refused" in line


@pytest.mark.parametrize("url", [f"ftp://h/{SECRET}", SECRET, f"http:///{SECRET}", f"http://h:port/{SECRET}"])
def test_invalid_url_is_reported_first_without_printing_it(run, url, tmp_path):
    with pytest.raises(ParameterError, match="--notify .or KERASLINE_WEBHOOK.: not a URL") as error:
        run(QUICK, url=url)
    assert SECRET not in str(error.value) and not (tmp_path / "root" / "artifacts").exists()


def test_url_is_never_written_anywhere(cli, receiver, tmp_path):
    receiver.answers = [500]
    changes = ("--set", "Left.fail=true", "--set", "Right.crash=true")
    where = ("--root", tmp_path / "root", "--notify", f"{receiver.url}/{SECRET}")
    result = cli("run", QUICK, *where, *changes)
    assert result.returncode == 1 and len(receiver.bodies) == 3
    wrong = cli("run", QUICK, "--root", tmp_path / "root", "--notify", f"ftp://host/{SECRET}")
    assert wrong.returncode == 2 and len(wrong.stderr.splitlines()) == 1 and "not a URL" in wrong.stderr
    shown = result.stdout + result.stderr + wrong.stdout + wrong.stderr
    shown += repr(Webhook(f"{receiver.url}/{SECRET}"))
    shown += repr(RunRequest(None, None, None, notify=f"{receiver.url}/{SECRET}"))
    assert SECRET not in shown and SECRET not in json.dumps(receiver.bodies)
    for path in (tmp_path / "root").rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path


def test_interrupted_run_sends_nothing(cli, receiver, tmp_path):
    arguments = ["run", QUICK, "--root", tmp_path / "root", "--notify", receiver.url, "--set", "Start.seconds=60"]
    process = cli(*arguments, wait=False)
    while not list((tmp_path / "root").glob("staging/Start*")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode == 130 and receiver.bodies == []
