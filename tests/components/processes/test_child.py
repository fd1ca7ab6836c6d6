"""Child processes: results, exit statuses, logs, and their end with their parent."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kerasline.components.processes.child import GuardedProcess, Log, describe_status, import_environment
from kerasline.components.processes.ports import free_ports, is_free

SENDS = """
from kerasline.components.processes.parent import ResultPipe
pipe = ResultPipe()
pipe.send({"answer": 42})
print("done")
raise SystemExit(3)
"""


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_child_sends_results_until_it_ends(tmp_path):
    child = GuardedProcess([sys.executable, "-c", SENDS], tmp_path / "log", import_environment(), sends_results=True)
    assert child.result(30) == {"answer": 42}
    with pytest.raises(EOFError):
        child.result(30)
    assert child.ending(30) == "exited with status 3" and child.log.last_words() == "; its last line: done"
    child.stop()


def test_missing_result_is_a_timeout(tmp_path):
    child = GuardedProcess(["sleep", "1000"], tmp_path / "log", sends_results=True)
    with pytest.raises(TimeoutError):
        child.result(0.1)
    assert child.ending(0.1) is None
    child.stop()


def test_stop_ends_the_children_of_the_child(tmp_path):
    child = GuardedProcess(["sh", "-c", f"sleep 1000 & echo $! > {tmp_path}/pid; wait"], tmp_path / "log")
    wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip())
    pid = int((tmp_path / "pid").read_text())
    assert is_running(pid)
    child.stop()
    wait_for(lambda: not is_running(pid))


def test_child_ends_when_its_parent_is_killed(tmp_path):
    program = (
        "import sys, time; from pathlib import Path; from kerasline.components.processes.child import GuardedProcess;"
        "GuardedProcess(['sh', '-c', 'echo $$; exec sleep 1000'], Path(sys.argv[1])); time.sleep(1000)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "log")], env={**os.environ, **import_environment()}
    )
    wait_for(lambda: (tmp_path / "log").exists() and (tmp_path / "log").read_text().strip())
    child = int((tmp_path / "log").read_text())
    assert is_running(child)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    wait_for(lambda: not is_running(child))


def test_exit_status_is_described_with_the_name_of_its_signal():
    assert describe_status(1) == "exited with status 1"
    assert describe_status(-9) == "was killed by signal 9 (SIGKILL)"
    assert describe_status(-63) == "was killed by signal 63"


def test_last_line_of_a_log_is_informative(tmp_path):
    log = Log(tmp_path / "log")
    assert log.last_line() == ""
    log.path.write_text("starting\n")
    log.skip()
    assert log.last_line() == "" and log.tail() == ["starting"]
    with log.path.open("a") as file:
        file.write("the kernel  gave up\n*** SIGABRT received\n    @ 0x7f00 abort\nI0000 00:00 cpu.cc: optimised\n\n")
    assert log.last_line() == "the kernel gave up"


def test_free_ports_are_distinct_and_free():
    ports = free_ports(3)
    assert len(set(ports)) == 3 and all(map(is_free, ports))
