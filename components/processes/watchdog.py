"""Runs a command and ends it, with all that it started, when this process's parent ends or closes the pipe.

`python watchdog.py GRACE_SECONDS FILE_DESCRIPTORS COMMAND...`: the standard input is the pipe. When the command
has ended, its status is written to the standard output as `subprocess` tells it, a signal as a negative number.

A program of its own and of the standard library alone: a command need not be ours, and one that hangs cannot be
asked to look after its parent itself.
"""

import os
import select
import signal
import subprocess
import sys
import threading

LOOK_SECONDS = 1.0  # a process that has a copy of the pipe would keep it open: the parent's number is looked at too
KILLED_SECONDS = 10.0


def main(grace_seconds, descriptors, command):
    parent = os.getppid()
    # A session of its own: a signal to its group reaches whatever it starts, and nobody else.
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=2, pass_fds=descriptors, start_new_session=True
    )
    for descriptor in descriptors:
        os.close(descriptor)  # the other end is to see when the command ends
    threading.Thread(target=_end_with_parent, args=(parent, process, grace_seconds), daemon=True).start()
    status = process.wait()
    _signal(process, signal.SIGKILL)  # what it left behind
    print(status, flush=True)
    os._exit(0)


def _end_with_parent(parent, process, grace_seconds):
    while os.getppid() == parent and not select.select([0], [], [], LOOK_SECONDS)[0]:
        pass
    if grace_seconds > 0:
        _signal(process, signal.SIGTERM)
        try:
            process.wait(grace_seconds)
        except subprocess.TimeoutExpired:
            pass
    _signal(process, signal.SIGKILL)
    try:
        process.wait(KILLED_SECONDS)
    finally:
        os._exit(0)


def _signal(process, number):
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        pass


if __name__ == "__main__":
    main(float(sys.argv[1]), [int(text) for text in sys.argv[2].split(",") if text], sys.argv[3:])
