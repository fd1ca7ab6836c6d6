"""Versions that appear, fail, are swapped and disappear while requests are answered."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import sys
import threading
import time

import pytest

from kerasline.components.core.artifacts import SavedModel
from kerasline.components.models.versions import DIGEST, content_digest, file_digests
from kerasline.components.pusher.disk import DiskDestination
from kerasline.components.serving.runtime.models import REST_SECONDS
from tests import forking
from tests.components.serving.saved_models import save_half_plus, write_warm_up
from tests.components.serving.servers import serving, start, wait_until
from tests.conftest import REPOSITORY


@pytest.fixture
def half(tmp_path):
    """Return a folder of versions with version 1: x / 2 + 1."""
    folder = tmp_path / "half"
    folder.mkdir()
    save_half_plus(folder / "1", 1.0)
    return folder


def states(server) -> dict[str, str]:
    _status, answer = server.get("/v1/models/half")
    return {one["version"]: one["state"] for one in answer["model_version_status"]}


def push(model, half, version: int) -> None:
    """Publish a version as Pusher does, with one rename."""
    aside = half / ".pushing"
    shutil.copytree(model, aside)
    (aside / DIGEST).write_text(json.dumps({"sha256": content_digest(model)}))
    os.rename(aside, half / str(version))


def test_new_version_replaces_the_old_one(half, tmp_path):
    with serving(tmp_path / "log", str(half), "--poll", "0.2") as server:
        assert server.post("/v1/models/half:predict", {"instances": [2]}) == (200, {"predictions": [2.0]})
        save_half_plus(half / "2", 2.0)
        wait_until(lambda: states(server) == {"1": "END", "2": "AVAILABLE"}, server)
        assert server.post("/v1/models/half:predict", {"instances": [2]}) == (200, {"predictions": [3.0]})
        status, answer = server.post("/v1/models/half/versions/1:predict", {"instances": [2]})
        assert (status, answer) == (404, {"error": "Servable not found for request: Specific(half, 1)"})
        # gone from the folder: the one before serves again
        save_half_plus(tmp_path / "again", 1.0)
        push(tmp_path / "again", half, 3)
        wait_until(lambda: states(server).get("3") == "AVAILABLE", server)
        shutil.rmtree(half / "3")
        wait_until(lambda: states(server).get("2") == "AVAILABLE", server)


def test_damaged_version_leaves_the_old_one_served(half, tmp_path):
    with serving(tmp_path / "log", str(half), "--poll", "0.2") as server:
        broken = half / "2"
        save_half_plus(tmp_path / "whole", 2.0)
        shutil.copytree(tmp_path / "whole", tmp_path / "broken")
        for file in (tmp_path / "broken" / "variables").iterdir():
            file.write_bytes(b"")
        os.rename(tmp_path / "broken", broken)
        wait_until(lambda: states(server).get("2") == "END", server)
        _status, answer = server.get("/v1/models/half/versions/2")
        (version,) = answer["model_version_status"]
        assert version["status"]["error_code"] != "OK" and version["status"]["error_message"]
        assert server.post("/v1/models/half:predict", {"instances": [2]}) == (200, {"predictions": [2.0]})
        assert server.metric("kerasline_version_load_failures_total", model="half") == 1
        # mended: it is tried again
        shutil.rmtree(broken / "variables")
        shutil.copytree(tmp_path / "whole" / "variables", broken / "variables")
        wait_until(lambda: states(server).get("2") == "AVAILABLE", server)
        assert server.post("/v1/models/half:predict", {"instances": [2]}) == (200, {"predictions": [3.0]})


def test_folder_being_written_is_not_loaded(half, tmp_path):
    """A slow copy is loaded only once its files no longer change."""
    save_half_plus(tmp_path / "whole", 2.0)
    with serving(tmp_path / "log", str(half), "--poll", "0.3") as server:
        (half / "2").mkdir()
        (half / "2" / "saved_model.pb").write_bytes((tmp_path / "whole" / "saved_model.pb").read_bytes())
        end = time.monotonic() + 2
        while time.monotonic() < end:
            (half / "2" / "growing").write_bytes(os.urandom(int(time.monotonic() * 1000) % 997 + 1))
            time.sleep(0.1)
        assert "2" not in states(server)
        shutil.copytree(tmp_path / "whole" / "variables", half / "2" / "variables")
        wait_until(lambda: states(server).get("2") == "AVAILABLE", server)


@pytest.mark.parametrize("digests", [SavedModel.MANIFEST, DIGEST])
def test_copy_that_stalls_is_not_loaded(half, tmp_path, digests):
    """With digests, a file that is missing or cut off is noticed however long the copy rests."""
    whole = save_half_plus(tmp_path / "whole", 2.0)
    (whole / "assets" / "words.txt").write_text("a\nb\n")
    facts = {"sha256": content_digest(whole)} if digests == DIGEST else {"files": file_digests(whole)}
    (whole / digests).write_text(json.dumps(facts))
    with serving(tmp_path / "log", str(half), "--poll", "0.1") as server:
        shutil.copytree(whole, tmp_path / "copy")
        (tmp_path / "copy" / "assets" / "words.txt").write_text("a\n")
        os.rename(tmp_path / "copy", half / "2")
        wait_until(lambda: "version 2: cannot be loaded" in server.log.read_text(), server)
        time.sleep(REST_SECONDS + 0.5)
        assert states(server) == {"1": "AVAILABLE", "2": "END"}
        assert answer_at_zero(server) == 1.0
        shutil.copy(whole / "assets" / "words.txt", half / "2" / "assets" / "words.txt")
        wait_until(lambda: states(server).get("2") == "AVAILABLE", server)
        assert answer_at_zero(server) == 2.0
        assert server.log.read_text().count("version 2: cannot be loaded") == 1


def test_changed_files_of_a_loaded_version_are_loaded_again(half, tmp_path):
    """A copy without digests that stalled, and was therefore loaded, is corrected once it goes on."""
    other = save_half_plus(tmp_path / "other", 5.0)
    with serving(tmp_path / "log", str(half), "--poll", "0.1") as server:
        with continuous_requests(server, clients=2) as answers:
            for file in (other / "variables").iterdir():
                shutil.copy(file, half / "1" / "variables" / file.name)
            wait_until(lambda: answer_at_zero(server) == 5.0, server)
        assert states(server) == {"1": "AVAILABLE"}
        assert "version 1: its files changed; it was loaded again" in server.log.read_text()
        assert server.metric("kerasline_version_available", model="half", version="1") == 1
    for mine in answers:
        assert mine == sorted(mine) and set(mine) <= {1.0, 5.0}


def test_start_waits_for_an_only_version_that_is_being_written(tmp_path):
    folder = tmp_path / "half"
    folder.mkdir()
    whole = save_half_plus(tmp_path / "whole", 2.0)
    (folder / "1").mkdir()
    shutil.copy(whole / "saved_model.pb", folder / "1")
    server = start(tmp_path / "log", str(folder), "--poll", "0.1")
    try:
        time.sleep(REST_SECONDS)
        shutil.copytree(whole / "variables", folder / "1" / "variables")
        wait_until(lambda: "ready" in server.log.read_text(), server)
        assert answer_at_zero(server) == 2.0
    finally:
        server.stop()


def test_keep_and_labels_keep_several_versions(half, tmp_path):
    for number in (2, 3, 4):
        save_half_plus(half / str(number), float(number))
    with serving(tmp_path / "log", str(half), "--keep", "2", "--label", "old=1") as server:
        assert states(server) == {"1": "AVAILABLE", "3": "AVAILABLE", "4": "AVAILABLE"}
        assert server.post("/v1/models/half/labels/old:predict", {"instances": [0]})[1] == {"predictions": [1.0]}
        assert server.post("/v1/models/half:predict", {"instances": [0]})[1] == {"predictions": [4.0]}


def test_start_skips_a_damaged_newest_version(half, tmp_path):
    (half / "2").mkdir()
    (half / "2" / "saved_model.pb").write_bytes(b"nonsense")
    with serving(tmp_path / "log", str(half)) as server:
        assert states(server) == {"1": "AVAILABLE", "2": "END"}
        assert server.get("/readyz") == (200, {"status": "ready"})


@pytest.fixture
def pushed(tmp_path):
    """Return a destination with two pushed versions, x / 2 + 1 and x / 2 + 2, and their numbers."""
    destination = DiskDestination(tmp_path / "pushed" / "half")
    numbers = [destination.push(save_half_plus(tmp_path / f"model{n}", float(n))) for n in (1, 2)]
    return destination, *numbers


def answer_at_zero(server, path: str = "/v1/models/half:predict") -> float:
    status, answer = server.post(path, {"instances": [0.0]})
    assert status == 200, answer
    return answer["predictions"][0]


def roll_back(destination, *arguments: str) -> None:
    command = [sys.executable, "run_pipeline.py", "rollback", str(destination), *arguments]
    assert forking.run(command, cwd=REPOSITORY).returncode == 0


@contextlib.contextmanager
def continuous_requests(server, clients: int, least: int = 0):
    """Let clients predict at 0 until the block ends, at least `least` times each, and yield the answers of each.

    A request that fails, fails the test."""
    answers: list[list[float]] = [[] for _ in range(clients)]
    failures: list[object] = []
    ended = threading.Event()

    def ask(mine: list[float]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=60)
        while len(mine) < least or not ended.is_set():
            connection.request("POST", "/v1/models/half:predict", b'{"instances": [0.0]}')
            answer = connection.getresponse()
            body = json.loads(answer.read())
            if answer.status != 200:
                failures.append((answer.status, body))
                return
            mine.append(body["predictions"][0])

    threads = [threading.Thread(target=ask, args=(mine,)) for mine in answers]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert failures == []


def test_rollback_and_push_lose_no_request(pushed, tmp_path):
    destination, older, newer = pushed
    with serving(tmp_path / "log", str(destination), "--poll", "0.1") as server:
        assert states(server) == {str(newer): "AVAILABLE"}
        with continuous_requests(server, clients=4) as answers:
            roll_back(destination)
            wait_until(lambda: states(server) == {str(older): "AVAILABLE", str(newer): "END"}, server)
            assert answer_at_zero(server) == 1.0
            newest = destination.push(save_half_plus(tmp_path / "model3", 3.0))
            wait_until(lambda: states(server).get(str(newest)) == "AVAILABLE", server)
            wait_until(lambda: states(server)[str(older)] == "END", server)
            roll_back(destination, "--to", str(newer))  # which has been unloaded once
            wait_until(lambda: states(server)[str(newer)] == "AVAILABLE", server)
            wait_until(lambda: states(server)[str(newest)] == "END", server)
    for mine in answers:
        turns = [value for value, before in zip(mine, [None, *mine]) if value != before]
        assert turns == [2.0, 1.0, 3.0, 2.0]


def test_keep_holds_the_served_and_the_newest_versions(pushed, tmp_path):
    """A version that is still loaded answers by number after a rollback."""
    destination, older, newer = pushed
    newest = destination.push(save_half_plus(tmp_path / "model3", 3.0))
    destination.point_to(older)
    with serving(tmp_path / "log", str(destination), "--keep", "2", "--poll", "0.1") as server:
        assert f"serving half version {older}, {newest}:" in server.log.read_text()
        assert states(server) == {str(older): "AVAILABLE", str(newest): "AVAILABLE"}
        assert answer_at_zero(server) == 1.0
        assert answer_at_zero(server, f"/v1/models/half/versions/{newest}:predict") == 3.0
        destination.point_to(newest)
        wait_until(lambda: answer_at_zero(server) == 3.0, server)
        wait_until(lambda: states(server).get(str(newer)) == "AVAILABLE", server)
        wait_until(lambda: states(server)[str(older)] == "END", server)


def test_invalid_latest_keeps_the_served_version(pushed, tmp_path):
    destination, older, newer = pushed
    latest = destination.path / "latest"

    def point_anywhere(text: str) -> None:
        latest.unlink()
        latest.symlink_to(text)

    with serving(tmp_path / "log", str(destination), "--poll", "0.1") as server:
        point_anywhere("7")
        wait_until(lambda: "latest names version 7, which does not exist" in server.log.read_text(), server)
        point_anywhere("nonsense")
        wait_until(lambda: "latest names no version" in server.log.read_text(), server)
        assert answer_at_zero(server) == 2.0
        shutil.rmtree(destination.path / str(older) / "variables")
        point_anywhere(str(older))
        wait_until(lambda: f"version {older}: cannot be loaded" in server.log.read_text(), server)
        assert states(server) == {str(older): "END", str(newer): "AVAILABLE"}
        latest.unlink()
        latest.write_text(f"{newer}\n")  # as on a file system without links
        newest = destination.push(save_half_plus(tmp_path / "model3", 3.0))
        wait_until(lambda: states(server).get(str(newest)) == "AVAILABLE", server)
        assert answer_at_zero(server) == 3.0
        lines = server.log.read_text().splitlines()
    reports = [line for line in lines if "is served" in line]
    assert len(reports) == 3 and all(f"version {newer} is served" in line for line in reports)


def test_start_without_valid_latest_serves_the_highest(pushed, tmp_path):
    destination, older, newer = pushed
    destination.point_to(older)
    shutil.rmtree(destination.path / str(older))
    with serving(tmp_path / "log", str(destination)) as server:
        assert states(server) == {str(newer): "AVAILABLE"}
        assert f"version {older}, which does not exist; version {newer} is served" in server.log.read_text()


def test_recorded_requests_warm_a_version(half, tmp_path):
    pytest.importorskip("tensorflow_serving")
    write_warm_up(half / "1", [1.0, 2.0])
    with serving(tmp_path / "log", str(half)) as server:
        assert states(server) == {"1": "AVAILABLE"}
    file = write_warm_up(half / "1", [1.0])
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(AssertionError, match="cannot be loaded"), serving(tmp_path / "log", str(half)):
        pass


def test_single_saved_model_is_version_1(half, tmp_path):
    os.rename(half / "1", tmp_path / "my model")
    with serving(tmp_path / "log", str(tmp_path / "my model")) as server:
        assert server.post("/v1/models/my_model/versions/1:predict", {"instances": [2]}) == (
            200,
            {"predictions": [2.0]},
        )
        assert server.post("/v1/models/default:predict", {"instances": [2]}) == (200, {"predictions": [2.0]})


@pytest.mark.slow
def test_twenty_version_swaps_lose_no_request(half, tmp_path):
    """Version v answers v for x = 0: each answer must be that of a version that was there."""
    versions, requests, clients = 20, 10_000, 8
    save_half_plus(tmp_path / "v1", 1.0)
    for number in range(2, versions + 2):
        save_half_plus(tmp_path / f"v{number}", float(number))
    with serving(tmp_path / "log", str(half), "--poll", "0.1") as server:
        # Clients go on while versions change, however fast the requests are.
        with continuous_requests(server, clients, least=requests // clients) as answers:
            for number in range(2, versions + 2):
                push(tmp_path / f"v{number}", half, number)
                wait_until(lambda n=number: states(server).get(str(n)) == "AVAILABLE", server)
                if number == versions // 2:
                    memory = server.resident_bytes()
        wait_until(lambda: [s for s in states(server).values() if s != "END"] == ["AVAILABLE"], server)
        assert server.resident_bytes() - memory < 20 << 20

    assert sum(map(len, answers)) >= requests
    known = {float(number) for number in range(1, versions + 2)}
    for mine in answers:
        assert set(mine) <= known
        assert mine == sorted(mine)  # a client never falls back to a version before
    assert {value for mine in answers for value in mine} == known
