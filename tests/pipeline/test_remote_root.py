"""Roots on an S3 interface, a process on loopback, and in fsspec's memory: published whole, found, fetched, removed."""

import dataclasses
import hashlib
import http.client
import http.server
import itertools
import json
import os
import re
import shutil
import signal
import sqlite3
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from components.artifacts import Blessing, Report
from components.base import Component, Input, LastBlessed, Output, Parameter
from components.errors import ArtifactError, RemoteError
from pipeline.dag import Pipeline
from pipeline.garbage import collect
from pipeline.loading import load_pipeline
from pipeline.locks import locked
from pipeline.publishing import MANIFEST, ArtifactRoot, root_of
from pipeline.run import RunRequest, run_pipeline
from pipeline.store import Store, sqlite_url
from tests.conftest import HOUSE, start_s3

QUICK = HOUSE / "tests" / "pipeline" / "quick.py"
BULKY = HOUSE / "tests" / "pipeline" / "bulky.py"
TWO_DAYS = 2 * 86_400


@pytest.fixture(params=["s3", "memory"])
def url(request):
    """A root where nothing is yet."""
    name = uuid.uuid4().hex[:8]
    return f"{request.getfixturevalue('s3')}/{name}/root" if request.param == "s3" else f"memory://{name}/root"


@pytest.fixture
def s3_url(s3):
    return f"{s3}/{uuid.uuid4().hex[:8]}/root"


@pytest.fixture
def host(tmp_path, monkeypatch):
    """Makes this process the one of a host of that name, with its own disk, and runs pipelines there."""

    def become(name, store=None):
        monkeypatch.setenv("KERASLINE_WORK", str(tmp_path / name))
        store = Store(sqlite_url(tmp_path / (store or name) / "metadata.sqlite"))

        def run(url, file=QUICK, use_cache=True, selected=(), **settings):
            pipeline = load_pipeline(str(file), url, {key.replace("__", "."): v for key, v in settings.items()})
            root = root_of(url)
            request = RunRequest(pipeline, store, root, str(file), selected, settings, use_cache=use_cache)
            summary = run_pipeline(request)
            by_name = {e.node: e for e in summary.executions}
            return SimpleNamespace(
                root=root, store=store, summary=summary, nodes=by_name,
                states={name: e.state for name, e in by_name.items()},
                output=lambda node, output: by_name[node].outputs[output].path,
            )  # fmt: skip

        return run

    return become


def object_store(url):
    """The store itself, past all that is tested here."""
    import fsspec

    files, path = fsspec.core.url_to_fs(url, use_listings_cache=False)
    files.invalidate_cache()
    return files, path


def objects(url):
    files, path = object_store(url)
    skip = len(path) + 1
    return {name[skip:]: files.cat_file(name) for name in files.find(path)}


def visible(url):
    """The published folders, each checked to be whole: every file of the manifest, by its digest."""
    found = objects(f"{url}/artifacts")
    folders = [name.removesuffix(f"/{MANIFEST}") for name in found if name.endswith(MANIFEST)]
    for folder in folders:
        for output, facts in json.loads(found[f"{folder}/{MANIFEST}"])["outputs"].items():
            for name, file in facts["files"].items():
                content = found[f"{folder}/{output}/{name}"]
                assert hashlib.sha256(content).hexdigest() == file["sha256"]
    return folders


def number(root, place):
    return (root.local(place) / "number.txt").read_text()


def requests_made(log, since):
    return re.findall(r'"((?:GET|PUT|HEAD|POST|DELETE) \S+)', log.read_text()[since:])


def test_outputs_are_published_by_url_and_the_next_run_is_cached(host, url):
    run = host("one")
    first, second = run(url), run(url)
    assert set(first.states.values()) == {"ran"} and set(second.states.values()) == {"cached"}
    place = first.output("Join", "joined")
    assert place.startswith(f"{url}/artifacts/quick/Join/") and place == second.output("Join", "joined")
    assert objects(place) == {"number.txt": b"603"} and number(first.root, place) == "603"
    assert len(visible(url)) == 4 and first.store.runs()[0].root == url


def test_a_cached_run_asks_the_store_once_for_the_root_and_once_a_stage(host, s3_url, s3_server):
    run = host("one")
    run(s3_url)
    since = len(s3_server[1].read_text())
    assert set(run(s3_url).states.values()) == {"cached"}
    asked = requests_made(s3_server[1], since)
    assert len(asked) == 5 and all("list-type=2" in request for request in asked)


def test_another_host_finds_all_in_the_root_and_fetches_what_it_reads(host, s3_url, tmp_path):
    host("one")(s3_url)
    run = host("two")
    assert set(run(s3_url).states.values()) == {"cached"}
    assert not list(tmp_path.glob("two/*/artifacts/*/*/*/*/*"))  # manifests alone
    changed = run(s3_url, Right__seconds=0.01)
    assert changed.states == {"Start": "cached", "Left": "cached", "Right": "ran", "Join": "cached"}
    assert [p.parts[-4] for p in tmp_path.glob("two/*/artifacts/quick/*/*/*/*")].count("Start") == 1
    assert not list(tmp_path.glob("two/*/artifacts/quick/Left/*/*/*"))


def test_files_in_folders_empty_ones_and_empty_outputs_arrive(host, url):
    first = host("one")(url, BULKY, Make__files=4, Make__kilobytes=1)
    made = first.root.local(first.output("Make", "made"))
    again = host("two")(url, BULKY, Make__files=4, Make__kilobytes=1, selected=["Make", "Sum"])
    assert again.states == {"Make": "cached", "Sum": "cached"}
    copy = again.root.local(again.output("Make", "made"))
    assert copy != made and again.root.local(again.output("Make", "nothing")).is_dir()
    names = {p.relative_to(made).as_posix() for p in made.rglob("*") if p.is_file()}
    assert len(names) == 5 and all((copy / name).read_bytes() == (made / name).read_bytes() for name in names)


@pytest.mark.parametrize("fault", ["deleted", "shortened", "rewritten", "hidden"])
def test_a_damaged_object_is_made_again_and_it_is_said(host, s3_url, fault):
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
    told = {"deleted": "missing", "shortened": "0 bytes instead of 1", "rewritten": "changed", "hidden": "missing"}
    assert again.nodes["Left"].message.startswith(f"run again: {s3_url}/artifacts/quick/Left/")
    assert told[fault] in again.nodes["Left"].message
    assert number(again.root, again.output("Left", "left")) == "6"
    assert set(run(s3_url).states.values()) == {"cached"}


def test_an_object_that_was_written_again_with_the_same_content_counts_as_unchanged(host, s3_url):
    run = host("one")
    place = run(s3_url).output("Left", "left")
    files, path = object_store(place)
    with files.open(f"{path}/number.txt", "wb", block_size=5 * 2**20) as file:
        file.write(b"6")
    assert set(run(s3_url).states.values()) == {"cached"}


@pytest.mark.parametrize("fault", ["changed", "deleted", "all gone"])
def test_a_damaged_copy_is_fetched_again(host, url, fault):
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
    assert number(first.root, place) == "2"
    assert number(first.root, run(url, Right__seconds=0.01).output("Join", "joined")) == "603"


def test_what_changed_under_an_unfinished_run_fails_its_reader_in_one_line(host, s3_url):
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


def test_many_who_want_an_output_at_once_fetch_it_once(host, s3_url, s3_server):
    place = host("one")(s3_url, BULKY, Make__files=3, Make__kilobytes=300, selected=["Make"]).output("Make", "made")
    host("two")
    since = len(s3_server[1].read_text())
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: root_of(s3_url).local(place), range(8)))
    assert len({str(path) for path in found}) == 1
    parts = [request for request in requests_made(s3_server[1], since) if ".bin" in request]
    assert len(parts) == len(set(parts)) == 4


def test_one_file_alone_can_be_fetched(host, s3_url):
    place = host("one")(s3_url, BULKY, Make__files=3, Make__kilobytes=1, selected=["Make"]).output("Make", "made")
    host("two")
    folder = root_of(s3_url).local(place, "part1/1.bin")
    assert [p.name for p in folder.rglob("*.bin")] == ["1.bin"]
    assert root_of(s3_url).local(place, "none.json") == folder and not (folder / "none.json").exists()


def test_a_run_that_died_before_it_told_the_metadata_store_is_taken_up_from_the_root(host, s3_url, tmp_path):
    run = host("one")
    run(s3_url)
    with sqlite3.connect(tmp_path / "one" / "metadata.sqlite") as database:
        database.execute("DELETE FROM events")
        database.execute("DELETE FROM executions")
    assert set(run(s3_url).states.values()) == {"cached"} and len(visible(s3_url)) == 4


def test_killed_while_it_sends_nothing_half_is_seen_and_what_was_made_is_sent(cli, host, s3_url, tmp_path):
    """Kills at several instants of the sending, each on a host of its own."""
    interrupted = 0
    for turn in range(6):
        url = f"{s3_url}-{turn}"
        run = host(f"host-{turn}")
        process = cli("run", BULKY, "--root", url, wait=False)
        assert wait_for(lambda: sending(tmp_path / f"host-{turn}"), process), process.stderr.read()
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
    """The folders that are made and being sent from a host."""
    return [path for path in work.glob("*/outbox/bulky/Make/*") if (path / MANIFEST).exists()]


def wait_for(condition, process):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if condition():
            return True
        time.sleep(0.005)
    return False


@pytest.mark.parametrize("shared", [True, False], ids=["one metadata store", "a store each"])
def test_two_hosts_at_once_both_succeed_and_all_is_whole(cli, s3_url, tmp_path, monkeypatch, shared):
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


def test_a_store_that_goes_away_fails_the_stage_in_one_line_and_the_next_run_sends(host, tmp_path, monkeypatch):
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
    assert message.startswith(f"{url}: cannot be reached") and "the same command sends them" in message
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


def test_what_keys_do_not_allow_is_told_and_what_was_made_is_sent_when_they_do(cli, tmp_path, monkeypatch):
    """With genuine policies: the server checks them after the four calls that lay them down."""
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


def test_passing_faults_of_the_network_are_tried_again(host, s3_url, s3_server, monkeypatch):
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


@pytest.mark.slow
def test_a_file_sent_and_fetched_in_parts_is_whole(host, s3_url, s3_server):
    sizes = {"Make__files": 1, "Make__kilobytes": 130_000}
    first = host("one")(s3_url, BULKY, **sizes)
    assert any("uploads&" in r or "uploadId=" in r for r in requests_made(s3_server[1], 0))
    second = host("two")(s3_url, BULKY, **sizes)
    assert set(second.states.values()) == {"cached"}
    again = host("two")(s3_url, BULKY, use_cache=False, selected=["Sum"])
    digests = [run.root.local(run.output("Sum", "told")) / "digest.txt" for run in (first, again)]
    assert digests[0].read_text() == digests[1].read_text()


def test_a_manifest_that_leads_out_of_its_folder_is_refused(host, s3_url):
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
    "far workers": ("memory://root", {}, ["--", "--runner=PortableRunner"], "give such a folder as --root"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_root_that_cannot_be_used_is_told_in_one_line_before_anything_runs(cli, s3, tmp_path, monkeypatch, case):
    root, environment, options, told = WRONG[case]
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "s3fs.py").write_text("raise ImportError('No module named s3fs')")
    nowhere = {"AWS_EC2_METADATA_DISABLED": "true", "HOME": str(tmp_path), "KERASLINE_WORK": str(tmp_path / "work")}
    for name, value in {**nowhere, **environment}.items():
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
    result = cli("run", QUICK, "--root", root, *options)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert told in line and line.startswith("error: ")


def test_workers_in_this_process_may_serve_a_remote_root():
    root = root_of("memory://loopback/root")
    for options in ([], ["--runner=DirectRunner"], ["--runner", "PortableRunner", "--environment_type=LOOPBACK"]):
        root.check(options)


def test_listings_report_and_lineage_work_from_another_host(cli, s3_url, tmp_path, monkeypatch):
    store = sqlite_url(tmp_path / "metadata.sqlite")
    at = ["--root", s3_url, "--metadata", store]
    monkeypatch.setenv("KERASLINE_WORK", str(tmp_path / "one"))
    ran = cli("run", QUICK, *at, "--run-id", "mine", "--json", tmp_path / "run.json")
    assert ran.returncode == 0, ran.stderr
    outputs = {node["name"]: node["outputs"] for node in ran.summary["nodes"]}
    assert outputs["Join"]["joined"].startswith(f"{s3_url}/artifacts/quick/Join/")
    assert set(objects(f"{s3_url}/reports")) == {"mine.html", "mine.md"}
    monkeypatch.setenv("KERASLINE_WORK", str(tmp_path / "two"))
    assert [r["state"] for r in cli("runs", *at, "--json", tmp_path / "runs.json").summary] == ["succeeded"]
    shown = cli("show", "mine", *at, "--json", tmp_path / "show.json").summary
    assert {node["name"]: node["outputs"] for node in shown["nodes"]} == outputs
    assert cli("show", "mine", *at).returncode == 0
    tree = cli("lineage", outputs["Join"]["joined"], *at)
    assert tree.returncode == 0 and all(node in tree.stdout for node in ("Start", "Left", "Right", "Join"))
    written = cli("report", "mine", *at)
    assert written.returncode == 0 and written.stdout.startswith(str(tmp_path / "two")), written.stderr
    assert "gone" not in (tmp_path / "two" / written.stdout.strip()).read_text().lower().split("<body")[0]
    monkeypatch.setenv("KERASLINE_WORK", str(tmp_path / "three"))
    unknown = cli("runs", "--root", s3_url)
    assert unknown.returncode == 2 and "no pipeline root" in unknown.stderr


def test_a_run_of_another_host_is_running_as_long_as_nobody_knows_better(host, s3_url):
    root = host("one")(s3_url).root
    root.run_lock_file("killed-here").touch()
    assert not root.is_run_alive("killed-here")
    with locked(root.run_lock_file("alive-here"), shared=True):
        assert root.is_run_alive("alive-here")
    assert root.is_run_alive("begun-elsewhere")


class TestCollection:
    def test_what_no_kept_run_uses_goes_when_it_is_a_day_old(self, host, url):
        run = host("one")
        old, new = run(url), run(url, Start__number=9)
        assert collect(old.store, old.root, keep=1, dry_run=True)  # its copies here
        young = collect(old.store, old.root, keep=1, dry_run=False)
        assert len(young) == 4 and all("a copy" in item.why for item in young) and len(visible(url)) == 8
        later = time.time() + TWO_DAYS
        would = collect(old.store, old.root, keep=1, dry_run=True, time_now=later)
        assert len(visible(url)) == 8
        assert collect(old.store, old.root, keep=1, dry_run=False, time_now=later) == would and len(would) == 4
        assert {f"{url}/artifacts/{name}" for name in visible(url)} == {e.folder for e in new.nodes.values()}
        assert set(run(url, Start__number=9).states.values()) == {"cached"}
        assert run(url).states["Join"] == "ran"

    def test_what_another_store_knows_stays(self, host, s3_url):
        host("one")(s3_url)
        other = host("two")(s3_url, Start__number=9)
        collect(other.store, other.root, keep=0, dry_run=False, time_now=time.time() + TWO_DAYS)
        assert len(visible(s3_url)) == 4  # those of the first host

    def test_what_a_run_of_another_host_uses_stays(self, host, s3_url, tmp_path):
        first = host("one", store="both")(s3_url)
        first.store.begin_run(dataclasses.replace(first.store.run(first.summary.run_id), state="running"))
        second = host("two", store="both")(s3_url, Start__number=9)
        collect(second.store, second.root, keep=1, dry_run=False, time_now=time.time() + TWO_DAYS)
        assert len(visible(s3_url)) == 8

    def test_what_was_never_completed_goes_after_a_day(self, host, s3_url):
        done = host("one")(s3_url)
        files, path = object_store(s3_url)
        files.pipe_file(f"{path}/artifacts/quick/Left/0123456789ab-dead/left/number.txt", b"6")
        collect(done.store, done.root, keep=5, dry_run=False)
        assert any("dead" in name for name in objects(s3_url))
        removed = collect(done.store, done.root, keep=5, dry_run=False, time_now=time.time() + TWO_DAYS)
        assert [item.path.rpartition("/")[2] for item in removed] == ["0123456789ab-dead"]
        assert not any("dead" in name for name in objects(s3_url)) and len(visible(s3_url)) == 4

    def test_the_command_tells_urls(self, cli, s3_url, tmp_path, monkeypatch):
        monkeypatch.setenv("KERASLINE_WORK", str(tmp_path / "one"))
        cli("run", QUICK, "--root", s3_url)
        told = cli("gc", "--root", s3_url, "--keep", 0, "--json", tmp_path / "gc.json")
        assert told.returncode == 0 and len(told.summary) == 4, told.stderr


class Make(Component):
    report: Output[Report]
    number: Parameter[int]

    def run(self, inputs, outputs, context):
        (outputs.report.path / "number.txt").write_text(str(self.number))


class Judge(Component):
    """Blesses what is not negative."""

    report: Input[Report]
    earlier: Input[Report] = None
    blessing: Output[Blessing]

    def run(self, inputs, outputs, context):
        numbers = [int((r.path / "number.txt").read_text()) if r else None for r in (inputs.report, inputs.earlier)]
        outputs.blessing.write_json(Blessing.FILE, {"blessed": numbers[0] >= 0, "rules": []})
        return {"against": numbers[1]}


def test_what_was_blessed_last_is_found_by_another_host(host, url, tmp_path):
    def judged(name, number):
        host(name, store="both")
        pipeline = Pipeline("judged", [Judge(Make(number=number), earlier=LastBlessed("report"))])
        summary = run_pipeline(RunRequest(pipeline, Store(sqlite_url(tmp_path / "both" / "m.sqlite")), root_of(url)))
        return next(e.metrics["against"] for e in summary.executions if e.node == "Judge")

    assert [judged("one", 1), judged("one", -2), judged("two", 3), judged("three", 4)] == [None, 1, 1, 3]


def test_a_node_takes_what_an_earlier_run_published_elsewhere(host, s3_url, tmp_path):
    """One metadata store, two roots: an upstream output is read from where it is."""
    run = host("one")
    far = run(s3_url)
    near = run(str(tmp_path / "disk"), selected=["Join"], use_cache=False)
    assert near.states == {"Join": "ran"} and number(near.root, near.output("Join", "joined")) == "603"
    assert isinstance(near.root, ArtifactRoot) and near.root.holds(far.output("Left", "left"))
    back = run(s3_url, selected=["Join"], use_cache=False)
    assert back.states == {"Join": "ran"}


def test_pipelines_are_told_the_root_as_an_url(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(QUICK.read_text().replace(
        "    start = Start()", "    assert str(settings.root / 'served' / 'x') == 's3://b/root/served/x'\n    start = Start()"
    ))  # fmt: skip
    load_pipeline(str(file), "s3://b/root", {})


@pytest.mark.slow
def test_penguins_on_s3_are_trained_pushed_and_cached_and_the_next_host_plans_and_reports(
    cli, s3_url, tmp_path, monkeypatch
):
    store = sqlite_url(tmp_path / "metadata.sqlite")
    at = ["--root", s3_url, "--metadata", store]
    monkeypatch.setenv("KERASLINE_WORK", str(tmp_path / "one"))
    first = cli("run", *at, "--json", tmp_path / "first.json")
    assert first.returncode == 0, first.stderr
    nodes = {node["name"]: node for node in first.summary["nodes"]}
    assert {node["state"] for node in nodes.values()} == {"ran"} and nodes["Evaluator"]["metrics"]["accuracy"] >= 0.9
    pushed = nodes["Pusher"]["metrics"]["path"]
    assert pushed.startswith(f"{s3_url}/served/penguins/") and "saved_model.pb" in objects(pushed)
    assert len(visible(s3_url)) == len(nodes)
    monkeypatch.setenv("KERASLINE_WORK", str(tmp_path / "two"))
    again = cli("run", *at, "--json", tmp_path / "again.json")
    assert {node["state"] for node in again.summary["nodes"]} == {"cached"}
    assert "accuracy" in cli("show", "latest", *at).stdout
    predictions = tmp_path.glob("two/*/artifacts/penguins/Evaluator/*/evaluation/predictions")
    assert not list(predictions)  # show takes the figures alone
    told = cli("report", "latest", *at, "--json", tmp_path / "report.json")
    assert told.returncode == 0 and {"data", "model", "metrics"} <= set(told.summary["sections"])
    planned = cli("plan", *at)
    assert planned.returncode == 0 and "parameters" in planned.stdout, planned.stderr
    shorter = ["--set", "Trainer.epochs=2", "--set", "Evaluator.thresholds={}"]  # trains on what it fetches
    changed = cli("run", *at, *shorter, "--json", tmp_path / "changed.json")
    assert changed.returncode == 0, changed.stderr
    states = {node["name"]: node["state"] for node in changed.summary["nodes"]}
    assert states["Transform"] == "cached" and states["Trainer"] == states["Evaluator"] == "ran"


@pytest.mark.slow
def test_penguins_killed_at_any_instant_the_same_command_completes(cli, s3_url, tmp_path, monkeypatch):
    """Eight kills, spread over the length of a run, each in a root and on a host of its own."""
    monkeypatch.setenv("KERASLINE_WORK", str(tmp_path / "whole"))
    clock = time.monotonic()
    assert cli("run", "--root", f"{s3_url}-whole").returncode == 0
    length = time.monotonic() - clock
    for turn in range(8):
        url = f"{s3_url}-{turn}"
        monkeypatch.setenv("KERASLINE_WORK", str(tmp_path / f"host-{turn}"))
        process = cli("run", "--root", url, wait=False)
        time.sleep(length * (turn + 0.5) / 8)
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
