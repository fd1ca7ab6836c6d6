"""Run a command, and end it with everything it started when this process's parent ends or closes the pipe.

`python watchdog.py GRACE_SECONDS FILE_DESCRIPTORS COMMAND...`: standard input is the pipe. When the command has ended,
its status is printed to standard output as `subprocess` reports it: a signal as a negative number.

This is a separate program of the standard library alone. It has to watch commands that are not ours or that hang.
"""

import os
import select
import signal
import subprocess
import sys
import threading

POLL_SECONDS = 1.0  # a process that inherited the pipe would keep it open, so the parent's id is checked as well
KILL_SECONDS = 10.0


def main(grace_seconds, descriptors, command):
    parent = os.getppid()
    # In a session of its own, so that a signal to its group reaches everything it starts and nothing else.
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=2, pass_fds=descriptors, start_new_session=True
    )
    for descriptor in descriptors:
        os.close(descriptor)  # otherwise the reader would not see the command close it
    threading.Thread(target=_end_with_parent, args=(parent, process, grace_seconds), daemon=True).start()
    status = process.wait()
    _signal(process, signal.SIGKILL)  # what it left running
    print(status, flush=True)
    os._exit(0)


def _end_with_parent(parent, process, grace_seconds):
    while os.getppid() == parent and not select.select([0], [], [], POLL_SECONDS)[0]:
        pass
    if grace_seconds > 0:
        _signal(process, signal.SIGTERM)
        try:
            process.wait(grace_seconds)
        except subprocess.TimeoutExpired:
            pass
    _signal(process, signal.SIGKILL)
    try:
        process.wait(KILL_SECONDS)
    finally:
        os._exit(0)


def _signal(process, number):
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        pass


if __name__ == "__main__":
    main(float(sys.argv[1]), [int(text) for text in sys.argv[2].split(",") if text], sys.argv[3:])
