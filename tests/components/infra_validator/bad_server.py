"""A faulty server with TensorFlow Serving's REST interface, without TensorFlow: `bad_server.py FAULT PORT`.

It computes the formula of the model of candidates.py. FAULT: `lies` adds 1, `hangs` on requests of several rows,
`loads` forever, `fails` to load, `takes` malformed requests, `stays` after SIGTERM.
"""

import json
import math
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HOW, PORT = sys.argv[1], int(sys.argv[2])
STATES = {
    "loads": {"state": "LOADING"},
    "fails": {
        "state": "END",
        "status": {"error_code": "DATA_LOSS", "error_message": "the weights are not there"},
    },
}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self._say(200, {"model_version_status": [{"version": "1", **STATES.get(HOW, {"state": "AVAILABLE"})}]})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            document = json.loads(body)
            if "inputs" in document:
                answers = answer(document["inputs"]["x"], document["inputs"]["word"])
                self._say(200, {"outputs": answers})
            else:
                rows = document["instances"]
                answers = answer([row["x"] for row in rows], [row["word"] for row in rows])
                names = list(answers)
                self._say(200, {"predictions": [dict(zip(names, row)) for row in zip(*answers.values())]})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self._say(200 if HOW == "takes" else 400, {"error": str(error), "outputs": {}})

    def _say(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments):
        pass


def answer(xs, words):
    if HOW == "hangs" and len(xs) > 1:
        time.sleep(3600)
    more = 1.0 if HOW == "lies" else 0.0
    return {
        "score": [[0.0 if math.isnan(x[0]) else x[0] / 2 + 2 + more] for x in xs],
        "label": ["below" if x[0] < 0 else "above" for x in xs],
        "letters": [[letters(word[0])] for word in words],
    }


def letters(word):
    if isinstance(word, dict):
        import base64

        return len(base64.b64decode(word["b64"]))
    return len(word.encode())


if HOW == "stays":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("bad server", flush=True)
ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
