"""Sends the requests of a file and prints how many milliseconds each took, as a JSON list.

A program of its own and of the standard library alone, so that it starts at once.
"""

import http.client
import json
import sys
import time

LATE = 3  # the exit status where a request is not answered in time


def main(file):
    with open(file, encoding="utf-8") as read:
        job = json.load(read)
    bodies = [body.encode() for body in job["bodies"]]
    connection = http.client.HTTPConnection(job["host"], job["port"], timeout=job["seconds"])
    end = time.monotonic() + job["seconds"]
    taken = []
    while len(taken) < job["requests"] and (not taken or time.monotonic() < end):
        clock = time.perf_counter()
        try:
            connection.request("POST", job["path"], bodies[len(taken) % len(bodies)])
            response = connection.getresponse()
            said = response.read()
        except TimeoutError:
            sys.exit(LATE)
        except (OSError, http.client.HTTPException) as error:
            sys.exit(f"the connection was lost ({type(error).__name__})")
        if response.status != 200:
            sys.exit(f"refused with {response.status} ({said[:200].decode(errors='replace')})")
        taken.append((time.perf_counter() - clock) * 1e3)
    print(json.dumps(taken))


if __name__ == "__main__":
    main(sys.argv[1])
