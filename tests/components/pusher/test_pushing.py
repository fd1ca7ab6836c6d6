"""Versions of models on a disk, in memory and in S3 are complete, never overwritten, kept, and rolled back."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path

import pytest

from kerasline import Pusher
from kerasline.components.core.artifacts import SavedModel
from kerasline.components.core.errors import DataError, ParameterError, RemoteError
from kerasline.components.core.remote_folder import RemoteFolder
from kerasline.components.models.versions import DIGEST
from kerasline.components.pusher import destination
from kerasline.components.pusher.object_store import DEAD_AFTER_SECONDS
from tests.conftest import REPOSITORY
from tests.marks import slowly

PUSH = """
import sys
from pathlib import Path

from kerasline.components.pusher import destination
place, keep, *models = sys.argv[1:]
for model in models:
    print(destination(place).push(Path(model), int(keep) or None), flush=True)
"""


def a_model(folder, size=1000):
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"x" * size)
    (folder / "variables" / "data").write_bytes(os.urandom(size))
    return folder


def test_version_on_the_same_file_system_takes_no_space(tmp_path):
    model = a_model(tmp_path / "model")
    version = destination(str(tmp_path / "served")).push(model)
    for name in ("saved_model.pb", "variables/data"):
        assert (tmp_path / "served" / str(version) / name).samefile(model / name)


@pytest.fixture
def other_disk():
    if not os.path.isdir("/dev/shm"):
        pytest.skip("there is no second file system")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


def test_version_on_another_file_system_is_a_copy(tmp_path, other_disk):
    model = a_model(tmp_path / "model")
    version = destination(str(other_disk)).push(model)
    assert (other_disk / str(version) / "saved_model.pb").read_bytes() == (model / "saved_model.pb").read_bytes()


@pytest.fixture(params=["path", "file", "memory", "s3"])
def place(request, tmp_path):
    """Return an empty folder of versions of each kind."""
    if request.param == "s3":
        return f"{request.getfixturevalue('s3')}/{uuid.uuid4().hex}/taxi"
    path = tmp_path / "served" / "taxi"
    return {"path": str(path), "file": f"file://{path}", "memory": f"memory://{uuid.uuid4().hex}/taxi"}[request.param]


def read(place, name):
    """Return the model that a server would read."""
    import fsspec

    with fsspec.open(f"{place}/{name}" if "://" in place else f"file://{place}/{name}", "rb") as file:
        return file.read()


def test_pushed_model_is_complete_and_the_latest(place, tmp_path):
    model = a_model(tmp_path / "model")
    done = Pusher(SavedModel(model), destination=place).execute(tmp_path / "out")
    version = int(done.metrics["version"])
    assert destination(place).versions() == [version] and destination(place).latest() == version
    for name in ("saved_model.pb", "variables/data"):
        assert read(place, f"{version}/{name}") == (model / name).read_bytes()
    assert done.pushed.read_json("pushed.json")["path"].endswith(f"/taxi/{version}")


def test_newest_versions_and_the_served_one_are_kept(place, tmp_path):
    target = destination(place)
    versions = [target.push(a_model(tmp_path / f"m{i}")) for i in range(4)]
    assert target.versions() == versions and versions == sorted(set(versions))
    assert target.push(a_model(tmp_path / "m4"), keep=2) == target.latest()
    left = target.versions()
    assert len(left) == 2 and left[0] == versions[-1]


def test_pushing_the_newest_model_again_makes_no_copy(place, tmp_path):
    target = destination(place)
    models = [a_model(tmp_path / f"m{i}") for i in range(2)]
    first, second = (target.push(model) for model in models)
    target.point_to(first)
    assert target.push(models[1]) == second and target.versions() == [first, second]
    assert target.latest() == second


def test_two_exports_of_one_model_are_one_version(place, tmp_path):
    for name in ("a", "b", "c"):
        folder = a_model(tmp_path / name)
        (folder / "kerasline.json").write_text(json.dumps({"digest": "other" if name == "c" else "same"}))
    target = destination(place)
    assert target.push(tmp_path / "a") == target.push(tmp_path / "b") != target.push(tmp_path / "c")


def test_rollback_serves_an_earlier_version_and_lists_versions(place, tmp_path):
    from kerasline.pipeline.commands.housekeeping import rolled_back

    target = destination(place)
    with pytest.raises(DataError, match="no version of a model"):
        rolled_back(place, None)
    one, two, three = (target.push(a_model(tmp_path / f"m{i}")) for i in range(3))
    assert rolled_back(place, None)["to"] == two == target.latest()
    assert rolled_back(place, None) == {
        "destination": str(target),
        "from": two,
        "to": one,
        "path": target.where(one),
    }
    with pytest.raises(DataError, match=f"no version before {one}, the latest"):
        rolled_back(place, None)
    assert rolled_back(place, three)["from"] == one
    with pytest.raises(DataError, match="no version 7; known: "):
        rolled_back(place, 7)


def test_served_version_stays_when_newer_ones_are_removed(tmp_path):
    target = destination(str(tmp_path / "d"))
    old, *_ = [target.push(a_model(tmp_path / f"m{i}")) for i in range(3)]
    from kerasline.components.models.versions import obsolete_versions

    assert (
        old not in obsolete_versions(target.versions(), old, 1)
        and len(obsolete_versions(target.versions(), old, 1)) == 1
    )


def test_rollback_command_serves_an_earlier_version(tmp_path, cli):
    place = tmp_path / "d"
    one, two = (destination(str(place)).push(a_model(tmp_path / f"m{i}")) for i in range(2))
    done = cli("rollback", place)
    assert done.stdout == f"{place}: latest was {two}, is {one}\n", done.stderr
    assert os.readlink(place / "latest") == str(one)
    assert cli("rollback", place, "--to", two).returncode == 0 and os.readlink(place / "latest") == str(two)
    wrong = cli("rollback", place, "--to", 5)
    assert wrong.returncode == 2 and "no version 5" in wrong.stderr and len(wrong.stderr.splitlines()) == 1


def test_latest_is_readable_at_any_instant(tmp_path):
    target = destination(str(tmp_path / "d"))
    versions = [target.push(a_model(tmp_path / f"m{i}")) for i in range(2)]
    seen, stop = [], threading.Event()

    def look():
        while not stop.is_set():
            seen.append((tmp_path / "d" / "latest" / "saved_model.pb").read_bytes()[:1])
            seen.append(target.latest() in versions)

    thread = threading.Thread(target=look)
    thread.start()
    for turn in range(400):
        target.point_to(versions[turn % 2])
    stop.set()
    thread.join()
    assert len(seen) > 100 and set(seen) == {b"x", True}


def test_concurrent_pushes_get_distinct_versions(place, tmp_path):
    if place.startswith("memory"):
        pytest.skip("memory is not shared by processes")
    models = [a_model(tmp_path / f"m{i}") for i in range(3)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PUSH, place, "0", str(m)], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
        )
        for m in models
    ]
    versions = [int(process.communicate()[0]) for process in processes]
    assert len(set(versions)) == 3 and destination(place).versions() == sorted(versions)
    for model, version in zip(models, versions):
        assert read(place, f"{version}/variables/data") == (model / "variables" / "data").read_bytes()
    assert destination(place).latest() in versions


@pytest.mark.parametrize("kind", ["path", slowly("s3")])
def test_killed_push_leaves_complete_versions_and_a_valid_latest(kind, tmp_path, request):
    place = str(tmp_path / "d") if kind == "path" else f"{request.getfixturevalue('s3')}/{uuid.uuid4().hex}"
    models = [a_model(tmp_path / f"m{i}", size=4_000_000) for i in range(8)]
    contents = {(model / "variables" / "data").read_bytes() for model in models}
    target = destination(place)
    for turn in range(8):
        command = [sys.executable, "-c", PUSH, place, "2", *map(str, models[turn:] + models[:turn])]
        process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
        process.stdout.readline()  # it is at work: the first is pushed
        time.sleep(0.01 + turn * 0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        versions = target.versions()
        assert versions and target.latest() in versions
        for version in versions:
            assert read(place, f"{version}/variables/data") in contents
            assert read(place, f"{version}/saved_model.pb") == b"x" * 4_000_000
    last = target.push(a_model(tmp_path / "last"), keep=2)
    assert target.latest() == last and len(target.versions()) == 2


def test_leftovers_of_a_dead_push_are_removed_after_a_day(s3, tmp_path):
    import s3fs

    files, root = s3fs.S3FileSystem(), f"{s3.removeprefix('s3://')}/{uuid.uuid4().hex}"
    for version, age in ((5, DEAD_AFTER_SECONDS + 60), (6, 60)):
        files.pipe_file(f"{root}/{version}/variables/data", b"half")
        files.pipe_file(f"{root}/.pushing/{version}-claim", str(time.time() - age).encode())
    target = destination(f"s3://{root}")
    assert target.versions() == []
    pushed = target.push(a_model(tmp_path / "m"))
    files.invalidate_cache()
    assert target.versions() == [pushed] and pushed > 6
    assert not files.exists(f"{root}/5") and files.exists(f"{root}/6/variables/data")


def test_failed_push_to_a_store_leaves_nothing(tmp_path, monkeypatch):
    target = destination(f"memory://{uuid.uuid4().hex}/taxi")
    first = target.push(a_model(tmp_path / "first"))
    write = RemoteFolder.write

    def full(self, name, content):
        if name.endswith(DIGEST):
            raise RemoteError("the store is full")
        write(self, name, content)

    with monkeypatch.context() as patched, pytest.raises(DataError, match="the store is full"):
        patched.setattr(RemoteFolder, "write", full)
        target.push(a_model(tmp_path / "second"))
    assert {name.split("/")[0] for name in target.folder.list_files()} == {str(first), "latest"}


def test_file_that_cannot_be_copied_is_reported_with_its_reason(tmp_path, other_disk):
    model = a_model(tmp_path / "m", 200_000)
    program = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n" + PUSH
    command = [sys.executable, "-c", program, str(other_disk), "0", str(model)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    message = done.stderr.splitlines()[-1]
    assert "cannot be copied: " in message and "File too large" in message and str(model) in message
    assert destination(str(other_disk)).versions() == []


def test_only_ascii_numbers_are_versions(tmp_path):
    for name in ("7", "²", "٣", "a", "9" * 30):
        (tmp_path / "served" / name).mkdir(parents=True)
    assert destination(str(tmp_path / "served")).versions() == [7]


def test_impossible_destinations_are_errors_in_one_line(s3, tmp_path):
    model = SavedModel(a_model(tmp_path / "m"))
    with pytest.raises(ParameterError, match="Pusher.destination nowhere://x: Protocol not known: nowhere"):
        Pusher(model, destination="nowhere://x").execute(tmp_path / "a")
    with pytest.raises(DataError, match="Pusher.destination s3://no-such-bucket/x: no such bucket"):
        Pusher(model, destination="s3://no-such-bucket/x").execute(tmp_path / "b")


def test_deleted_version_makes_the_stage_run_again(place, tmp_path):
    stage = Pusher(SavedModel(a_model(tmp_path / "m")), destination=place)
    done = stage.execute(tmp_path / "out")
    assert stage.stale(done) is None
    other = a_model(tmp_path / "other")
    destination(place).push(other, keep=1)
    assert "no longer exists" in stage.stale(done)


def test_superseded_model_is_pushed_again_and_a_rollback_stays(place, tmp_path):
    first, second = (Pusher(SavedModel(a_model(tmp_path / name)), destination=place) for name in "ab")
    a, b = first.execute(tmp_path / "1"), second.execute(tmp_path / "2")
    assert "was pushed after" in first.stale(a) and second.stale(b) is None
    destination(place).point_to(int(a.metrics["version"]))
    assert first.stale(a) is None and second.stale(b) is None
