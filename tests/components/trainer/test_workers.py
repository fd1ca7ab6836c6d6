"""Workers that Trainer starts learn like one process, and restart when one of them is lost."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from kerasline import Trainer
from kerasline.components.core.artifacts import Model
from kerasline.components.core.errors import KeraslineError, ParameterError
from kerasline.components.trainer import cluster
from kerasline.pipeline.fingerprint import node_fingerprint
from tests.components.trainer.conftest import BATCH, ROWS
from tests.components.trainer.interrupted import assert_same_training, checkpoints, ended, start, wait_for

STEPS_PER_EPOCH = -(-ROWS // BATCH)
# A smooth activation: at the kink of a ReLU a rounding error would become a different gradient.
SMOOTH = {"activation": "tanh", "rate": 0.1, "momentum": 0.9}
LONG = {"epochs": 12, "steps_per_execution": 1, "checkpoint_steps": 20, "deterministic": True}


def processes(words="kerasline.components.trainer.process", parent=None):
    """Return the ids of the processes whose command line has these words, of one parent if given."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            status = (folder / "status").read_text()
        except OSError:
            continue
        is_child = parent is None or f"\nPPid:\t{parent}\n" in status
        if words in command and is_child and "\nState:\tZ" not in status:
            found.append(int(folder.name))
    return sorted(found)


class Once:
    """A `report` callback that calls `act` at the first report of a step from `step` on."""

    def __init__(self, act, step=25):
        self.texts, self._act, self._step = [], act, step

    def __call__(self, text):
        self.texts.append(text)
        within = text.startswith("epoch") and ", step " in text
        if self._act and within and int(text.split("step ")[1].split(" ")[0].replace(",", "")) >= self._step:
            act, self._act = self._act, None
            act()

    def restarts(self):
        return [text for text in self.texts if "restarting all workers" in text]


def equal(one, other):
    np.testing.assert_array_equal(one.losses, other.losses)
    for ours, theirs in zip(one.weights, other.weights):
        np.testing.assert_array_equal(ours, theirs)
    assert one.epochs == other.epochs


@pytest.mark.parametrize(
    "settings",
    [
        {},
        pytest.param(
            {
                "class_weight": {"0": 2.0, "1": 0.5},
                "weighted": True,
                "clip_norm": 0.05,
                "accumulate_steps": 3,
                "optimizer": "adam",
                "ema": 0.9,
            },
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"epochs": 8, "clip_value": 0.01, "early_stopping": {"monitor": "val_accuracy", "patience": 1}},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_two_workers_train_like_one_process(train, settings):
    """203 rows in batches of 16: the last batch of an epoch has 11, five for one worker and six for the other."""
    settings = {"epochs": 3, **settings}
    alone, together = train(SMOOTH, **settings), train(SMOOTH, **settings, workers=2)
    assert len(together.losses) == len(alone.losses)
    np.testing.assert_allclose(together.losses, alone.losses, atol=1e-5)
    for ours, theirs in zip(together.weights, alone.weights):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    for ours, theirs in zip(together.epochs, alone.epochs):
        assert ours == pytest.approx(theirs, abs=1e-5)
    assert together.facts["replicas"] == 2 and together.facts["distribution"] == "multi_worker"
    assert not processes(parent=os.getpid())


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_lost_worker_is_restarted_with_the_same_result(train, number):
    """At two workers: 1 is lost where the checkpoint of step 20 is the last."""

    def lose():
        os.kill(processes(parent=os.getpid())[1], number)

    undisturbed, report = train(SMOOTH, **LONG, workers=2), Once(lose)
    disturbed = train(SMOOTH, **LONG, workers=2, worker_timeout=20.0, report=report)
    equal(disturbed, undisturbed)
    [message] = report.restarts()
    why = {
        signal.SIGKILL: "was killed by signal 9 (SIGKILL) after 'epoch ",
        signal.SIGSTOP: "hangs: no sign of life for ",
    }[number]
    assert message.startswith(f"worker 1 (localhost) {why}")
    assert message.endswith("; restarting all workers from the last checkpoint (restart 1 of 3)")
    assert disturbed.metrics["restarts"] == 1 and disturbed.facts["resumed_at_step"] >= 20
    assert not processes(parent=os.getpid())


def dies_as_worker_1(context):
    if json.loads(os.environ["TF_CONFIG"])["task"]["index"] == 1:
        print("about to go")
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(600)


def raises_as_worker_1(context):
    if json.loads(os.environ["TF_CONFIG"])["task"]["index"] == 1:
        raise ValueError("no such thing")
    time.sleep(600)


@pytest.mark.slow
def test_worker_that_always_dies_is_reported_in_one_line(train, tmp_path):
    report = Once(None)
    with pytest.raises(KeraslineError) as raised:
        train(own=dies_as_worker_1, workers=2, max_restarts=1, state_dir=tmp_path, report=report)
    assert str(raised.value) == (
        "worker 1 (localhost) was killed by signal 9 (SIGKILL) before its first step; 1 restarts did not help "
        f"(Trainer.max_restarts); its last line: about to go; its log: {tmp_path}/workers/worker-1.log; "
        "signal 9 often means too little memory: see `plan`"
    )
    assert len(report.restarts()) == 1 and not processes(parent=os.getpid())


@pytest.mark.slow
def test_error_in_user_code_is_reported_at_once(train):
    report = Once(None)
    with pytest.raises(KeraslineError, match=r"raises_as_worker_1\(\) raised ValueError: no such thing"):
        train(own=raises_as_worker_1, workers=2, report=report)
    assert not report.restarts() and not processes(parent=os.getpid())


@pytest.mark.slow
@pytest.mark.long
def test_interrupted_pipeline_leaves_no_worker_and_resumes(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    two = ["--set", "Trainer.workers=2"]
    ended(start(whole, *two))
    for number, status in ((signal.SIGTERM, 143), (signal.SIGKILL, -9)):
        before = checkpoints(cut)
        run = start(cut, *two)
        wait_for(lambda before=before: len(checkpoints(cut) - before) > 1)
        workers = processes(parent=run.pid)
        assert len(workers) == 2
        if number == signal.SIGKILL:
            os.kill(workers[0], signal.SIGSTOP)  # it cannot see that its parent is gone
        run.send_signal(number)
        assert run.wait(100) == status
        assert "did not stop on request" not in max(cut.glob("logs/*.log")).read_text()
        wait_for(lambda workers=workers: not set(workers) & set(processes()), 20)
    # Other hosts, more patience: the same training still, and it goes on.
    hosts = ["--set", 'Trainer.workers=["127.0.0.1", "127.0.0.1"]', "--set", "Trainer.max_restarts=9"]
    ended(start(cut, *hosts))
    assert_same_training(whole, cut)


NETWORK = ["10.213.77.1", "10.213.77.2"]


@pytest.fixture
def network():
    """Two namespaces named like their addresses, joined by a cable: two machines that reach only each other."""
    if os.geteuid() or not shutil.which("ip"):
        pytest.skip("network namespaces are made by root, with ip")

    def ip(words, check=True):
        return subprocess.run(["ip", *words.split()], check=check, capture_output=True, text=True)

    if ip(f"netns add {NETWORK[0]}", check=False).returncode:
        pytest.skip("network namespaces cannot be made here")
    try:
        ip(f"netns add {NETWORK[1]}")
        ip(f"link add kerasline0 netns {NETWORK[0]} type veth peer name kerasline1 netns {NETWORK[1]}")
        for number, address in enumerate(NETWORK):
            ip(f"-n {address} addr add {address}/24 dev kerasline{number}")
            ip(f"-n {address} link set kerasline{number} up")
            ip(f"-n {address} link set lo up")
        yield ip
    finally:
        for address in NETWORK:
            ip(f"netns delete {address}", check=False)


NETNS = {"workers": NETWORK, "launch": "ip netns exec {host} {command}"}


@pytest.mark.slow
def test_workers_on_two_hosts_train_like_one_process(train, network, tmp_path, monkeypatch):
    alone, report = train(SMOOTH, epochs=3), Once(None)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    together = train(SMOOTH, epochs=3, **NETNS, report=report)
    np.testing.assert_allclose(together.losses, alone.losses, atol=1e-5)
    for ours, theirs in zip(together.epochs, alone.epochs):
        assert ours == pytest.approx(theirs, abs=1e-5)
    assert [device.partition(":")[0] for device in together.facts["devices"]] == NETWORK
    assert not report.restarts() and not processes(parent=os.getpid())
    assert not list(tmp_path.glob("kerasline-*")), "each host clears its own temporary files away"


@pytest.mark.slow
@pytest.mark.long
def test_lost_connection_is_detected_and_training_resumes(train, network):
    def cut():
        network(f"-n {NETWORK[0]} link set kerasline0 down")

    def report(text):
        recorder(text)
        if "restarting all workers" in text:
            network(f"-n {NETWORK[0]} link set kerasline0 up")

    recorder = Once(cut)
    undisturbed = train(SMOOTH, **LONG, workers=2)
    disturbed = train(SMOOTH, **LONG, **NETNS, stall_timeout=25.0, report=report)
    equal(disturbed, undisturbed)
    [message] = recorder.restarts()  # TensorFlow's own heartbeats stop, or no step ends: whichever is detected first
    assert message.startswith("worker ") and " after 'epoch " in message


def test_unreachable_hosts_are_reported_before_tensorflow_is_loaded(train, network):
    network(f"-n {NETWORK[1]} addr del {NETWORK[1]}/24 dev kerasline1")
    with pytest.raises(KeraslineError, match=r"worker \d cannot reach worker \d at 10.213.77.\d:\d+: Network is un"):
        train(**NETNS)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"workers": ["a b"]}, "Trainer.workers: expected a host or host:port such as 10.0.0.2:4000, received 'a b'"),
        ({"workers": ["-oProxyCommand=x"]}, "received '-oProxyCommand=x'"),
        ({"workers": ["a:0"]}, "expected a port from 1 to 65535, received 'a:0'"),
        ({"workers": ["a:1", "b:1", "a:1"]}, "a:1 occurs twice; two workers on a host need different ports"),
        (
            {"workers": ["localhost", "10.0.0.2"]},
            "the other hosts cannot reach 'localhost'; write the address by which",
        ),
        ({"workers": 2, "distribution": "mirrored"}, "Trainer.workers: cannot be combined with distribution=mirrored"),
        ({"workers": 2, "launch": "ssh {host}"}, "Trainer.launch: 'ssh {host}' does not contain the worker's command"),
        ({"workers": 3}, "batch_size: 16 rows cannot be shared by 3 workers evenly"),
        (
            {"workers": ["nowhere.invalid"], "launch": "no-such-program {host} {command}"},
            r"worker 0 \(nowhere.invalid\) cannot be started: no-such-program: No such file",
        ),
        (
            {"workers": ["nowhere.invalid"], "launch": "sh -c 'echo no route to {host} >&2; exit 255' {command}"},
            (
                r"worker 0 \(nowhere.invalid\) could not be started: its command exited with status 255; its last "
                "line: no route to nowhere.invalid; its log: "
            ),
        ),
    ],
)
def test_invalid_workers_are_reported_in_one_line(train, settings, message):
    with pytest.raises((ParameterError, KeraslineError), match=message) as raised:
        train(**settings)
    assert "\n" not in str(raised.value) and not processes(parent=os.getpid())


LIVES_AND_DOES_NOTHING = """
import time
print('{"port": 1}', '{"connected": true}', sep="\\n", flush=True)
while True:
    time.sleep(0.2)
    print('{"heartbeat": true}', flush=True)
"""


@pytest.mark.slow
def test_worker_without_progress_is_restarted(train, tmp_path):
    (tmp_path / "idle.py").write_text(LIVES_AND_DOES_NOTHING)
    launch = f"{sys.executable} {tmp_path}/idle.py {{command}}"
    report = Once(None)
    with pytest.raises(
        KeraslineError, match=r"worker 0 \(nowhere.invalid\) made no progress for \d+ s before its first"
    ):
        train(workers=["nowhere.invalid"], launch=launch, stall_timeout=1.0, max_restarts=1, report=report)
    assert len(report.restarts()) == 1 and not processes("idle.py")


@pytest.mark.slow
def test_port_in_use_is_reported_in_one_line(train):
    taken = cluster.Rendezvous(0)
    with pytest.raises(ParameterError, match=rf"Trainer.workers: cannot listen on port {taken.port} of \S+: "):
        train(workers=[f"localhost:{taken.port}"])


def test_command_is_quoted_for_the_shell():
    words = ["env", "PYTHONPATH=/a folder", "python"]
    assert cluster.launch_command("ip netns exec {host} {command}", "h", words) == ["ip", "netns", "exec", "h", *words]
    assert cluster.launch_command(cluster.SSH, "h", words)[-2:] == ["h", "env 'PYTHONPATH=/a folder' python"]


def test_fingerprint_depends_only_on_the_number_of_workers(problem, tmp_path):
    examples, prepared = problem

    def fingerprint(**settings):
        trainer = Trainer(examples, prepared[False], Model(tmp_path), **settings)
        return node_fingerprint(trainer, {}, str)

    two = fingerprint(workers=2)
    assert two == fingerprint(workers=["a", "b:4000"], launch="rsh {host} {command}", max_restarts=9, worker_timeout=5)
    assert two != fingerprint() and two != fingerprint(workers=3)
