"""Faults of a root on an S3 interface: kills, damage, denied access, the network, and concurrency."""

import http.client
import http.server
import itertools
import json
import os
import shutil
import signal
import sqlite3
import threading
import time

import pytest

from kerasline.components.core.errors import ArtifactError, RemoteError
from kerasline.pipeline.metadata.store import sqlite_url
from kerasline.pipeline.storage.artifact_root import MANIFEST
from kerasline.pipeline.storage.roots import root_of
from tests.conftest import start_s3
from tests.pipeline.remote import BULKY, QUICK, number, object_store, objects, visible


@pytest.mark.parametrize("fault", ["deleted", "shortened", "rewritten", "hidden"])
def test_damaged_object_is_produced_again_and_reported(host, s3_url, fault):
    run = host("one")
    place = run(s3_url).output("Left", "left")
    files, path = object_store(place)
    if fault == "deleted":
        files.rm(f"{path}/number.txt")
    elif fault == "hidden":
        files.rm(f"{path.rpartition('/')[0]}/{MANIFEST}")
    else:
        files.pipe_file(f"{path}/number.txt", {"shortened": b"", "rewritten": b"7"}[fault])
    again = run(s3_url)
    assert again.states == {"Start": "cached", "Left": "ran", "Right": "cached", "Join": "cached"}
    messages = {"deleted": "missing", "shortened": "0 bytes instead of 1", "rewritten": "changed", "hidden": "missing"}
    assert again.nodes["Left"].message.startswith(f"run again: {s3_url}/artifacts/quick/Left/")
    assert messages[fault] in again.nodes["Left"].message
    assert number(again.output("Left", "left")) == "6"
    assert set(run(s3_url).states.values()) == {"cached"}


def test_rewritten_object_with_the_same_content_is_unchanged(host, s3_url):
    run = host("one")
    place = run(s3_url).output("Left", "left")
    files, path = object_store(place)
    with files.open(f"{path}/number.txt", "wb", block_size=5 * 2**20) as file:
        file.write(b"6")
    assert set(run(s3_url).states.values()) == {"cached"}


@pytest.mark.parametrize("fault", ["changed", "deleted", "all gone"])
def test_damaged_local_copy_is_downloaded_again(host, url, fault):
    run = host("one")
    first = run(url)
    place = first.output("Start", "report")
    copy = first.root.local(place)
    if fault == "changed":
        (copy / "number.txt").write_text("9")
    elif fault == "deleted":
        (copy / "number.txt").unlink()
    else:
        shutil.rmtree(first.root.path)
    assert number(place) == "2"
    assert number(run(url, Right__seconds=0.01).output("Join", "joined")) == "603"


def test_input_changed_during_a_run_fails_its_reader_in_one_line(host, s3_url):
    place = host("one")(s3_url).output("Start", "report")
    run = host("two")
    root = run(s3_url).root
    files, path = object_store(place)
    files.pipe_file(f"{path}/number.txt", b"7")
    with pytest.raises(ArtifactError, match="was changed since it was published; run the stage"):
        root.local(place)
    files.rm(path, recursive=True)
    with pytest.raises(RemoteError, match="no such bucket or folder"):
        root.local(place)


def test_run_that_died_before_recording_is_recovered_from_the_root(host, s3_url, tmp_path):
    run = host("one")
    run(s3_url)
    with sqlite3.connect(tmp_path / "one" / "metadata.sqlite") as database:
        database.execute("DELETE FROM events")
        database.execute("DELETE FROM executions")
    assert set(run(s3_url).states.values()) == {"cached"} and len(visible(s3_url)) == 4


@pytest.mark.slow
def test_killed_upload_is_invisible_and_completed_by_the_next_run(cli, host, s3_url, tmp_path):
    """Kills at several times during the upload, each on a new host."""
    interrupted = 0
    for turn in range(6):
        url = f"{s3_url}-{turn}"
        run = host(f"host-{turn}")
        process = cli("run", BULKY, "--root", url, wait=False)
        assert wait_for(lambda folder=tmp_path / f"host-{turn}": sending(folder), process), process.stderr.read()
        time.sleep(turn * 0.04)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        seen = visible(url)
        interrupted += bool(sending(tmp_path / f"host-{turn}")) and not seen
        made = {path.name for path in tmp_path.glob(f"host-{turn}/*/outbox/bulky/Make/*")}
        again = run(url, BULKY)
        assert again.states["Make"] == "cached" and again.states["Sum"] in ("ran", "cached")
        assert len(visible(url)) == 2 and set(seen) <= set(visible(url))
        assert not made or made == {name.rpartition("/")[2] for name in visible(url) if "/Make/" in name}
    assert interrupted >= 2


def sending(work):
    """Return the folders that a host is uploading."""
    return [path for path in work.glob("*/outbox/bulky/Make/*") if (path / MANIFEST).exists()]


def wait_for(condition, process):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if condition():
            return True
        time.sleep(0.005)
    return False


@pytest.mark.parametrize("shared", [True, False], ids=["one metadata store", "a store each"])
def test_two_concurrent_hosts_both_succeed(cli, s3_url, tmp_path, monkeypatch, shared):
    processes = []
    for name in ("one", "two"):
        monkeypatch.setenv("KERASLINE_WORK", str(tmp_path / name))
        store = sqlite_url(tmp_path / ("both" if shared else name) / "metadata.sqlite")
        processes.append(cli("run", BULKY, "--root", s3_url, "--metadata", store, wait=False))
    assert [process.wait() for process in processes] == [0, 0], [p.stderr.read() for p in processes]
    found = visible(s3_url)
    assert 2 <= len(found) <= 4
    if shared:
        with sqlite3.connect(tmp_path / "both" / "metadata.sqlite") as database:
            rows = database.execute("SELECT run_id, node, state, folder FROM executions").fetchall()
        assert len({row[:2] for row in rows}) == len(rows) == 4
        assert {row[2] for row in rows} <= {"ran", "cached"}
        assert {row[3].removeprefix(f"{s3_url}/artifacts/") for row in rows} <= set(found)


@pytest.mark.slow
def test_lost_store_fails_in_one_line_and_the_next_run_uploads(host, tmp_path, monkeypatch):
    server, address = start_s3(tmp_path / "s3.log")
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    for name, value in (("ACCESS_KEY_ID", "key"), ("SECRET_ACCESS_KEY", "secret"), ("DEFAULT_REGION", "us-east-1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    import s3fs

    def start_empty():
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().mkdir("goes-away")

    start_empty()
    run, url = host("one"), "s3://goes-away/root"
    stop = threading.Event()

    def pull_the_plug():
        while not stop.is_set() and not list(tmp_path.glob("one/*/staging/Start-*")):
            time.sleep(0.01)
        server.kill()

    thread = threading.Thread(target=pull_the_plug)
    thread.start()
    try:
        failed = run(url, Start__seconds=1)
    finally:
        stop.set()
        thread.join()
    server.wait()
    message = failed.nodes["Start"].message
    assert failed.states["Start"] == "failed" and "\n" not in message
    assert message.startswith(f"{url}: cannot be reached") and "run the same command again to upload them" in message
    server, _ = start_s3(tmp_path / "s3.log", port=int(address.rpartition(":")[2]))
    try:
        start_empty()
        again = run(url, Start__seconds=1)
        assert again.states == {"Start": "cached", "Left": "ran", "Right": "ran", "Join": "ran"}
        assert len(visible(url)) == 4
    finally:
        server.kill()
        server.wait()
        s3fs.S3FileSystem.clear_instance_cache()


def test_denied_upload_is_reported_and_completed_once_permitted(cli, tmp_path, monkeypatch):
    """Uses real policies, which the server checks after the four calls that create them."""
    import boto3

    server, address = start_s3(tmp_path / "s3.log", INITIAL_NO_AUTH_ACTION_COUNT="4")
    monkeypatch.setenv("KERASLINE_WORK", str(tmp_path / "one"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "wrong")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")

    def allow(identities, *actions):
        policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": actions, "Resource": "*"}]}
        identities.put_user_policy(UserName="user", PolicyName="p", PolicyDocument=json.dumps(policy))

    try:
        boto3.client("s3").create_bucket(Bucket="guarded")
        identities = boto3.client("iam")
        identities.create_user(UserName="user")
        keys = identities.create_access_key(UserName="user")["AccessKey"]
        allow(identities, "s3:ListBucket", "s3:GetObject", "iam:*")
        command = ["run", QUICK, "--root", "s3://guarded/root"]
        wrong = cli(*command)
        assert wrong.returncode == 2 and len(wrong.stderr.splitlines()) == 1
        assert "error: s3://guarded/root: not permitted (The AWS Access Key Id you provided" in wrong.stderr
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", keys["AccessKeyId"])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", keys["SecretAccessKey"])
        read_only = cli(*command, "--to", "Start")
        assert read_only.returncode == 1 and len(read_only.stderr.splitlines()) == 1
        assert "error: Start: s3://guarded/root: not permitted (Access Denied)" in read_only.stderr
        allow(boto3.Session().client("iam"), "s3:*")
        allowed = cli(*command, "--to", "Start")
        assert allowed.returncode == 0 and "cached" in allowed.stdout, allowed.stderr
    finally:
        server.kill()
        server.wait()


class Flaky(http.server.BaseHTTPRequestHandler):
    """In front of a store: refuses each third request and hangs up on each fifth."""

    protocol_version = "HTTP/1.1"
    store = ""
    counted = itertools.count(1)
    faults = 0

    def forward(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        turn = next(self.counted)
        if turn % 5 == 0 or turn % 3 == 0:
            type(self).faults += 1
            self.close_connection = True
            if turn % 3 == 0:
                self.send_response(503)
                self.send_header("Content-Length", "0")
                self.end_headers()
            return
        connection = http.client.HTTPConnection(self.store)
        connection.request(self.command, self.path, body, dict(self.headers))
        answer = connection.getresponse()
        content = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "date", "server"):
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = forward

    def log_message(self, *_):
        pass


@pytest.mark.slow
def test_transient_network_errors_are_retried(host, s3_url, s3_server, monkeypatch):
    Flaky.store = s3_server[0].removeprefix("http://")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Flaky) as front:
        threading.Thread(target=front.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{front.server_port}")
        import s3fs

        s3fs.S3FileSystem.clear_instance_cache()
        try:
            assert set(host("one")(s3_url).states.values()) == {"ran"}
            assert set(host("two")(s3_url, Right__seconds=0.01).states.values()) == {"cached", "ran"}
        finally:
            front.shutdown()
            s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server[0])
    assert Flaky.faults > 10 and len(visible(s3_url)) == 5


def test_manifest_with_a_path_outside_its_folder_is_refused(host, s3_url):
    place = host("one")(s3_url).output("Start", "report")
    files, path = object_store(place.rpartition("/")[0])
    manifest = json.loads(files.cat_file(f"{path}/{MANIFEST}"))
    listed = manifest["outputs"]["report"]["files"]
    listed["../../../../../out.txt"] = listed["number.txt"]
    files.pipe_file(f"{path}/{MANIFEST}", json.dumps(manifest).encode())
    host("two")
    with pytest.raises(ArtifactError, match="names a file outside its folder"):
        root_of(s3_url).local(place)


WRONG = {
    "no bucket": ("s3://no-such-bucket/root", {}, [], "s3://no-such-bucket/root: no such bucket or folder"),
    "unreachable": ("s3://bucket/root", {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, [], "cannot be reached"),
    "no keys": ("s3://bucket/root", {"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}, [], "no credentials"),
    "no protocol": ("nowhere://bucket/root", {}, [], "nowhere://bucket/root: Protocol not known: nowhere"),
    "no library": ("s3://bucket/root", {"PYTHONPATH": "hidden"}, [], "pip install 'kerasline[s3]'"),
    "far workers": ("memory://root", {}, ["--", "--runner=PortableRunner"], "to a folder that all workers see"),
}


@pytest.mark.parametrize("case", WRONG)
def test_unusable_root_is_reported_in_one_line_first(cli, s3, tmp_path, monkeypatch, case):
    root, environment, options, message = WRONG[case]
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "s3fs.py").write_text("raise ImportError('No module named s3fs')")
    nowhere = {"AWS_EC2_METADATA_DISABLED": "true", "HOME": str(tmp_path), "KERASLINE_WORK": str(tmp_path / "work")}
    for name, value in {**nowhere, **environment}.items():
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
    result = cli("run", QUICK, "--root", root, *options)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert message in line and line.startswith("error: ")


def test_workers_in_this_process_may_serve_a_remote_root():
    root = root_of("memory://loopback/root")
    for options in ([], ["--runner=DirectRunner"], ["--runner", "PortableRunner", "--environment_type=LOOPBACK"]):
        root.check(options)


@pytest.mark.slow
@pytest.mark.long
def test_killed_penguins_complete_with_the_same_command(cli, s3_url, tmp_path, monkeypatch):
    """Four kills, spread over the length of a run, each in a root and on a host of its own."""
    monkeypatch.setenv("KERASLINE_WORK", str(tmp_path / "whole"))
    clock = time.monotonic()
    assert cli("run", "--root", f"{s3_url}-whole").returncode == 0
    length = time.monotonic() - clock
    for turn in range(4):
        url = f"{s3_url}-{turn}"
        monkeypatch.setenv("KERASLINE_WORK", str(tmp_path / f"host-{turn}"))
        process = cli("run", "--root", url, wait=False)
        time.sleep(length * (turn + 0.5) / 4)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        before = visible(url)
        again = cli("run", "--root", url, "--json", tmp_path / "again.json")
        assert again.returncode == 0, again.stderr
        states = {node["name"]: node["state"] for node in again.summary["nodes"]}
        assert set(states.values()) <= {"ran", "cached"}
        assert all(states[name.split("/")[1]] == "cached" for name in before)
        assert len(visible(url)) == len(states)
        versions = {name.split("/")[0] for name in objects(f"{url}/served/penguins")} - {"latest"}
        assert len(versions) == 1
