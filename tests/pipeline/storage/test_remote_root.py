"""Roots on an S3 server on loopback and in fsspec's memory: publication, lookup, download and removal."""

import dataclasses
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from kerasline.pipeline.loading import load_pipeline
from kerasline.pipeline.metadata.liveness import alive, is_alive
from kerasline.pipeline.metadata.store import Store, sqlite_url
from kerasline.pipeline.run import RunRequest, run_pipeline
from kerasline.pipeline.storage import roots
from kerasline.pipeline.storage.artifact_root import ArtifactRoot
from kerasline.pipeline.storage.garbage import collect
from kerasline.pipeline.storage.roots import root_of
from tests.pipeline.blessing import judged
from tests.pipeline.remote import BULKY, QUICK, number, object_store, objects, requests_made, visible

TWO_DAYS = 2 * 86_400


def test_outputs_are_published_by_url_and_the_next_run_is_cached(host, url):
    run = host("one")
    first, second = run(url), run(url)
    assert set(first.states.values()) == {"ran"} and set(second.states.values()) == {"cached"}
    place = first.output("Join", "joined")
    assert place.startswith(f"{url}/artifacts/quick/Join/") and place == second.output("Join", "joined")
    assert objects(place) == {"number.txt": b"603"} and number(place) == "603"
    assert len(visible(url)) == 4 and first.store.runs()[0].root == url


def test_equal_stages_of_another_pipeline_are_cached(host, url, tmp_path):
    other = tmp_path / "other.py"
    other.write_text(QUICK.read_text().replace('"quick"', '"other"'))
    run = host("one")
    first, second = run(url), run(url, file=other)
    assert set(second.states.values()) == {"cached"}
    assert second.output("Join", "joined") == first.output("Join", "joined")


def test_cached_run_makes_one_request_per_stage_and_one_for_the_root(host, s3_url, s3_server):
    run = host("one")
    run(s3_url)
    since = len(s3_server[1].read_text())
    assert set(run(s3_url).states.values()) == {"cached"}
    requests = requests_made(s3_server[1], since)
    assert len(requests) == 5 and all("list-type=2" in request for request in requests)


def test_another_host_finds_outputs_and_downloads_what_it_reads(host, s3_url, tmp_path):
    host("one")(s3_url)
    run = host("two")
    assert set(run(s3_url).states.values()) == {"cached"}
    assert not list(tmp_path.glob("two/*/artifacts/*/*/*/*/*"))  # manifests alone
    changed = run(s3_url, Right__seconds=0.01)
    assert changed.states == {"Start": "cached", "Left": "cached", "Right": "ran", "Join": "cached"}
    assert [p.parts[-4] for p in tmp_path.glob("two/*/artifacts/quick/*/*/*/*")].count("Start") == 1
    assert not list(tmp_path.glob("two/*/artifacts/quick/Left/*/*/*"))


def test_nested_and_empty_files_and_empty_outputs_are_transferred(host, url):
    first = host("one")(url, BULKY, Make__files=4, Make__kilobytes=1)
    made = first.root.local(first.output("Make", "made"))
    again = host("two")(url, BULKY, Make__files=4, Make__kilobytes=1, selected=["Make", "Sum"])
    assert again.states == {"Make": "cached", "Sum": "cached"}
    copy = again.root.local(again.output("Make", "made"))
    assert copy != made and again.root.local(again.output("Make", "nothing")).is_dir()
    names = {p.relative_to(made).as_posix() for p in made.rglob("*") if p.is_file()}
    assert len(names) == 5 and all((copy / name).read_bytes() == (made / name).read_bytes() for name in names)


def test_concurrent_readers_download_an_output_once(host, s3_url, s3_server):
    made = host("one")(s3_url, BULKY, Make__files=3, Make__kilobytes=300, selected=["Make"])
    place = made.output("Make", "made")
    host("two")
    since = len(s3_server[1].read_text())
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: root_of(s3_url).local(place), range(8)))
    assert len({str(path) for path in found}) == 1
    parts = [request for request in requests_made(s3_server[1], since) if ".bin" in request]
    assert len(parts) == len(set(parts)) == 4


def test_single_file_can_be_downloaded(host, s3_url):
    place = host("one")(s3_url, BULKY, Make__files=3, Make__kilobytes=1, selected=["Make"]).output("Make", "made")
    host("two")
    folder = root_of(s3_url).local(place, "part1/1.bin")
    assert [p.name for p in folder.rglob("*.bin")] == ["1.bin"]
    assert root_of(s3_url).local(place, "none.json") == folder and not (folder / "none.json").exists()


@pytest.mark.slow
def test_file_transferred_in_parts_is_complete(host, s3_url, s3_server):
    sizes = {"Make__files": 1, "Make__kilobytes": 130_000}
    first = host("one")(s3_url, BULKY, **sizes)
    assert any("uploads&" in r or "uploadId=" in r for r in requests_made(s3_server[1], 0))
    second = host("two")(s3_url, BULKY, **sizes)
    assert set(second.states.values()) == {"cached"}
    again = host("two")(s3_url, BULKY, use_cache=False, selected=["Sum"])
    digests = [run.root.local(run.output("Sum", "digest")) / "digest.txt" for run in (first, again)]
    assert digests[0].read_text() == digests[1].read_text()


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


def test_run_of_another_host_counts_as_running(host, s3_url, tmp_path):
    root, store = host("one")(s3_url).root, Store(sqlite_url(tmp_path / "metadata.sqlite"))
    root.run_lock_file("killed-here").touch()
    assert not is_alive(store, root, "killed-here")
    with alive(store, root, "alive-here"):
        assert is_alive(store, root, "alive-here")
    assert is_alive(store, root, "begun-elsewhere")


class TestCollection:
    def test_unused_artifacts_are_removed_after_a_day(self, host, url):
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

    def test_artifacts_recorded_in_another_store_are_kept(self, host, s3_url):
        host("one")(s3_url)
        other = host("two")(s3_url, Start__number=9)
        collect(other.store, other.root, keep=0, dry_run=False, time_now=time.time() + TWO_DAYS)
        assert len(visible(s3_url)) == 4  # those of the first host

    def test_artifacts_in_use_by_another_host_are_kept(self, host, s3_url, tmp_path):
        first = host("one", store="both")(s3_url)
        first.store.begin_run(dataclasses.replace(first.store.run(first.summary.run_id), state="running"))
        second = host("two", store="both")(s3_url, Start__number=9)
        collect(second.store, second.root, keep=1, dry_run=False, time_now=time.time() + TWO_DAYS)
        assert len(visible(s3_url)) == 8

    def test_incomplete_uploads_are_removed_after_a_day(self, host, s3_url):
        done = host("one")(s3_url)
        files, path = object_store(s3_url)
        files.pipe_file(f"{path}/artifacts/quick/Left/0123456789ab-dead/left/number.txt", b"6")
        collect(done.store, done.root, keep=5, dry_run=False)
        assert any("dead" in name for name in objects(s3_url))
        removed = collect(done.store, done.root, keep=5, dry_run=False, time_now=time.time() + TWO_DAYS)
        assert [item.path.rpartition("/")[2] for item in removed] == ["0123456789ab-dead"]
        assert not any("dead" in name for name in objects(s3_url)) and len(visible(s3_url)) == 4

    def test_commands_print_urls(self, cli, s3_url, tmp_path, monkeypatch):
        monkeypatch.setenv("KERASLINE_WORK", str(tmp_path / "one"))
        cli("run", QUICK, "--root", s3_url)
        done = cli("gc", "--root", s3_url, "--keep", 0, "--json", tmp_path / "gc.json")
        assert done.returncode == 0 and len(done.summary) == 4, done.stderr


def test_last_blessed_artifact_is_found_by_another_host(host, url, tmp_path):
    def against(name, number):
        host(name, store="both")
        store = Store(sqlite_url(tmp_path / "both" / "metadata.sqlite"))
        summary = run_pipeline(RunRequest(judged(number), store, root_of(url)))
        return next(e.metrics["against"] for e in summary.executions if e.node == "Judge")

    assert [against("one", 1), against("one", -2), against("two", 3), against("three", 4)] == [None, 1, 1, 3]


def test_single_node_reads_outputs_of_an_earlier_run_elsewhere(host, s3_url, tmp_path):
    """With one metadata store and two roots, an upstream output is read from its root."""
    run = host("one")
    far = run(s3_url)
    near = run(str(tmp_path / "disk"), selected=["Join"], use_cache=False)
    assert near.states == {"Join": "ran"} and number(near.output("Join", "joined")) == "603"
    assert isinstance(near.root, ArtifactRoot) and roots.exists(far.output("Left", "left"))
    back = run(s3_url, selected=["Join"], use_cache=False)
    assert back.states == {"Join": "ran"}


def test_pipeline_function_receives_the_root_as_a_url(tmp_path):
    file = tmp_path / "mine.py"
    check = "    assert str(settings.root / 'served' / 'x') == 's3://b/root/served/x'\n"
    file.write_text(QUICK.read_text().replace("    start = Start()", f"{check}    start = Start()"))
    load_pipeline(str(file), "s3://b/root", {})


@pytest.mark.slow
@pytest.mark.long
def test_penguins_on_s3_run_cache_plan_and_report_on_two_hosts(cli, s3_url, tmp_path, monkeypatch):
    store = sqlite_url(tmp_path / "metadata.sqlite")
    at = ["--root", s3_url, "--metadata", store]
    monkeypatch.setenv("KERASLINE_WORK", str(tmp_path / "one"))
    first = cli("run", *at, "--json", tmp_path / "first.json")
    assert first.returncode == 0, first.stderr
    nodes = {node["name"]: node for node in first.summary["nodes"]}
    assert {node["state"] for node in nodes.values()} == {"ran"}
    assert nodes["Evaluator"]["metrics"]["accuracy"] >= 0.9
    pushed = nodes["Pusher"]["metrics"]["path"]
    assert pushed.startswith(f"{s3_url}/served/penguins/") and "saved_model.pb" in objects(pushed)
    assert len(visible(s3_url)) == len(nodes)
    monkeypatch.setenv("KERASLINE_WORK", str(tmp_path / "two"))
    again = cli("run", *at, "--json", tmp_path / "again.json")
    assert {node["state"] for node in again.summary["nodes"]} == {"cached"}
    assert "accuracy" in cli("show", "latest", *at).stdout
    predictions = tmp_path.glob("two/*/artifacts/penguins/Evaluator/*/evaluation/predictions")
    assert not list(predictions)  # show takes the figures alone
    done = cli("report", "latest", *at, "--json", tmp_path / "report.json")
    assert done.returncode == 0 and {"data", "model", "metrics"} <= set(done.summary["sections"])
    planned = cli("plan", *at)
    assert planned.returncode == 0 and "parameters" in planned.stdout, planned.stderr
    shorter = ["--set", "Trainer.epochs=2", "--set", "Evaluator.thresholds={}"]  # trains on what it fetches
    changed = cli("run", *at, *shorter, "--json", tmp_path / "changed.json")
    assert changed.returncode == 0, changed.stderr
    states = {node["name"]: node["state"] for node in changed.summary["nodes"]}
    assert states["Transform"] == "cached" and states["Trainer"] == states["Evaluator"] == "ran"
