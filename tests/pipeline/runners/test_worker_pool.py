"""The pool of Python workers, used by Beam's Python job service in place of an engine."""

import operator
import os
import signal
import subprocess
import sys

import pytest

from kerasline.components.core.component import Context
from tests.conftest import REPOSITORY


@pytest.fixture(params=[1, 2], ids="threads={}".format)
def threads(request):
    return request.param


@pytest.fixture
def pool(threads):
    command = [sys.executable, "-m", "kerasline.pipeline.runners.worker_pool", "--port=0"]
    command += [f"--threads={threads}"] if threads != 1 else []
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    yield process
    process.kill()
    process.wait()


def process_and_threads(_element):
    import pyarrow as pa

    return [(os.getpid(), pa.cpu_count())]


@pytest.mark.slow
def test_work_runs_in_processes_that_end_with_the_pool(pool, threads, tmp_path):
    from kerasline.components.data.fold import fold

    printed = pool.stdout.readline()
    place = next(word for word in printed.split() if word.startswith("--environment_config="))
    options = ["--runner=PortableRunner", "--job_endpoint=embed", "--environment_type=EXTERNAL", place]
    found = fold(list(range(4)), process_and_threads, operator.add, Context(tmp_path, tuple(options)))
    pids = {pid for pid, _ in found}
    assert len(found) == 4 and not {os.getpid(), pool.pid} & pids
    assert {count for _, count in found} == {threads}
    pool.send_signal(signal.SIGTERM)
    assert pool.wait(30) == 0
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
