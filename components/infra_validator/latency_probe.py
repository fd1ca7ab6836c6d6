"""Measure the latency of REST requests: `python latency_probe.py JOB_FILE RESULT_FILE`.

The job is a JSON object: host, port, path, bodies, requests and seconds. The result is a JSON list of milliseconds.
This is a separate program of the standard library alone, so that it starts at once.
"""

import http.client
import json
import sys
import time

TIMEOUT_STATUS = 3  # exit status if a request was not answered in time


def main(job_file, result_file):
    with open(job_file, encoding="utf-8") as read:
        job = json.load(read)
    bodies = [body.encode() for body in job["bodies"]]
    connection = http.client.HTTPConnection(job["host"], job["port"], timeout=job["seconds"])
    deadline = time.monotonic() + job["seconds"]
    milliseconds: list[float] = []
    while len(milliseconds) < job["requests"] and (not milliseconds or time.monotonic() < deadline):
        start = time.perf_counter()
        try:
            connection.request("POST", job["path"], bodies[len(milliseconds) % len(bodies)])
            response = connection.getresponse()
            answer = response.read()
        except TimeoutError:
            sys.exit(TIMEOUT_STATUS)
        except (OSError, http.client.HTTPException) as error:
            sys.exit(f"the connection was lost ({type(error).__name__})")
        if response.status != 200:
            sys.exit(f"refused with {response.status} ({answer[:200].decode(errors='replace')})")
        milliseconds.append((time.perf_counter() - start) * 1e3)
    with open(result_file, "w", encoding="utf-8") as write:
        json.dump(milliseconds, write)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
