"""Hostile input: clear errors, constant memory, and a server that still serves afterwards."""

from __future__ import annotations

import concurrent.futures
import json
import socket
import time

import pytest

from tests.components.serving.servers import serving

PREDICT = "/v1/models/half:predict"


@pytest.fixture(autouse=True)
def still_serves(ours):
    yield
    assert ours.post(PREDICT, {"instances": [1]}) == (200, {"predictions": [3.5]})


def exchange(server, data: bytes, seconds: float = 20.0) -> bytes:
    """Send raw bytes and return everything received until the server closes or is silent."""
    with socket.create_connection(("127.0.0.1", server.rest_port), seconds) as connection:
        connection.settimeout(seconds)
        answer = b""
        try:
            connection.sendall(data)
        except OSError:
            pass  # it closed early; its response is read below
        try:
            while block := connection.recv(65536):
                answer += block
        except OSError:
            pass
        return answer


def post_bytes(body: bytes, *headers: str, path: str = PREDICT) -> bytes:
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: a",
        "Connection: close",
        f"Content-Length: {len(body)}",
        *headers,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@pytest.mark.parametrize(
    "body",
    [
        b'{"instances": [1',
        b"nonsense",
        b"\x00",
        b"\xff\xfe",
        b'{"instances": ["\xc3\x28"]}',
        b'{"instances": [1,]}',
        b'{"instances": [01]}',
        b'{"instances": [+1]}',
        b'{"instances": [0x1]}',
        b"{'instances': [1]}",
        b"null",
        b'"a"',
        b'{"instances": [' + b"[" * 100_000 + b"]" * 100_000 + b"]}",
        b'{"instances": [NaN, ' + b"[" * 100_000 + b"]" * 100_000 + b"]}",
        b'{"a": ' * 50_000 + b"1" + b"}" * 50_000,
        b'{"instances": [' + b"[" * 70 + b"1" + b"]" * 70 + b"]}",
        b'{"instances": [[1], [1, 2]]}',
        b'{"instances": [[1, [2]], [3]]}',
        b'{"instances": [[[]]]}',
        b'{"instances": [1e400]}',
        b'{"instances": [' + b"9" * 400 + b"]}",
        b'{"instances": [true]}',
        b'{"instances": [{}]}',
        b'{"instances": [{"x": {"x": 1}}]}',
        b'{"inputs": {"x": {"b64": "AA=="}}}',
        b'{"inputs": null}',
        b'{"inputs": {}}',
        b'{"instances": {"x": 1}}',
        b'{"signature_name": null, "instances": [1]}',
    ],
    ids=lambda body: body[:30].decode("latin-1"),
)
def test_malformed_bodies_are_400_with_a_reason(ours, body):
    status, answer = ours.post(PREDICT, body)
    assert status == 400
    assert answer["error"] and len(answer["error"]) < 2000


@pytest.mark.parametrize(
    "body",
    [
        b'{"examples": 1}',
        b'{"examples": []}',
        b'{"examples": [1]}',
        b'{"examples": [{"x": [[1]]}]}',
        b"{}",
        b'{"examples": [{"x": null}]}',
        b'{"examples": [{"x": [1, "a"]}]}',
        b'{"examples": [{"x": {"y": 1}}]}',
        b'{"examples": [{"x": 1e400}]}',
        b'{"examples": [{"x": 18446744073709551615}]}',
        b'{"context": 1, "examples": [{}]}',
        b'{"examples": [{"number": "text", "count": 1, "word": 2}]}',
        b'{"examples": [{"number": [], "count": 1, "word": "a"}]}',
    ],
)
@pytest.mark.parametrize("method", ["classify", "regress"])
def test_malformed_examples_are_400(ours, body, method):
    for model in ("half", "mixed"):
        document = body
        if model == "half":
            document = body.replace(b"{", f'{{"signature_name": "tensorflow/serving/{method}", '.encode(), 1)
            document = document.replace(b", }", b"}")
        status, answer = ours.post(f"/v1/models/{model}:{method}", document)
        assert status == 400 and answer["error"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/models/..:predict", 404),
        ("/v1/models/../../etc/passwd:predict", 400),
        ("/v1/models/%2e%2e%2f%2e%2e%2fetc%2fpasswd:predict", 404),
        ("/v1/models/half%00:predict", 404),
        ("/v1/models/half/versions/99999999999999999999:predict", 400),
        ("/v1/models/half/versions/-1:predict", 400),
        ("/v1/models/half/versions/9223372036854775808:predict", 400),
        ("/v1/models/%F0%28%8C:predict", 404),
        ("/v1/models/half/versions/1/versions/2:predict", 400),
        ("/v1/models/:predict", 400),
        ("/v1/models/half/labels/:predict", 400),
        ("/v1/models/" + "a" * 5000 + ":predict", 404),
        ("/etc/passwd", 404),
        ("//v1/models/half:predict", 404),
        ("/v1/models/half/versions/%D9%A3:predict", 400),
    ],
)
def test_malicious_paths_find_nothing(ours, path, status):
    answer = exchange(ours, post_bytes(b'{"instances": [1]}', path=path))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert int(head.split()[1]) == status
    assert json.loads(body)["error"]


def test_other_methods_are_rejected(ours):
    for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS"):
        status, answer = ours.request(method, PREDICT, None)
        assert (status, answer) == (400, {"error": f"Malformed request: {method} {PREDICT}"})


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"GET\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"POST / HTTP/99\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nA: " + b"b" * 100_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"".join(b"H%d: a\r\n" % n for n in range(5000)) + b"\r\n",
        b"POST /v1/models/half:predict HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/models/half:predict HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        b"POST /v1/models/half:predict HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc",
        b"POST /v1/models/half:predict HTTP/1.1\r\nHost: a\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nabcde",
    ],
    ids=lambda data: data[:30].decode("latin-1"),
)
def test_malformed_headers_are_rejected(ours, data):
    answer = exchange(ours, data)
    assert 400 <= int(answer.split()[1]) < 500
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]


def test_too_large_body_is_413_and_freed(ours):
    before = ours.resident_bytes()
    for _ in range(5):
        answer = exchange(ours, post_bytes(b" " * (16 << 20)))
        assert not answer or int(answer.split()[1]) == 413  # disconnected while sending, it may miss the 413
    chunked = (
        b"POST /v1/models/half:predict HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    answer = exchange(ours, chunked + (b"100000\r\n" + b" " * (1 << 20) + b"\r\n") * 8 + b"0\r\n\r\n")
    assert not answer or int(answer.split()[1]) == 413
    assert ours.resident_bytes() - before < 64 << 20


def test_decompression_bomb_is_413(ours):
    import gzip

    before = ours.resident_bytes()
    bomb = gzip.compress(b" " * (64 << 20))
    answer = exchange(ours, post_bytes(bomb, "Content-Encoding: gzip"))
    assert int(answer.split()[1]) in (400, 413)
    assert ours.resident_bytes() - before < 100 << 20


def test_memory_is_flat_under_malformed_requests(ours):
    bodies = [
        b'{"instances": [' + b"[" * 900 + b"]" * 900 + b"]}",
        b'{"instances": ["a"]}',
        b"{",
        b'{"instances": [null]}',
        b'{"instances": [' + b",".join([b"1.5"] * 20_000) + b"]}",
    ]
    for number in range(300):
        ours.post(PREDICT, bodies[number % 5])
        ours.post(f"/v1/models/nobody{number}:predict", b"{}")
    before = ours.resident_bytes()
    for number in range(900):
        ours.post(PREDICT, bodies[number % 5])
        ours.post(f"/v1/models/nobody{number}/versions/{number}:predict", b"{}")
    assert ours.resident_bytes() - before < 24 << 20


def test_strings_among_numbers_take_no_memory(ours):
    """NumPy would convert each number to a string of the longest length: 3 GB for this body."""
    before, began = ours.resident_bytes(), time.monotonic()
    status, answer = ours.post(PREDICT, {"instances": ["x" * 20_000] + ["a"] * 40_000})
    assert status == 400 and "is not of expected type: float32" in answer["error"]
    assert ours.resident_bytes() - before < 50 << 20 and time.monotonic() - began < 5


@pytest.mark.parametrize("value", [b"[]", b"{}", b"0", b'"a"', b"[0]", b'{"a":0}'], ids=lambda value: value.decode())
def test_large_hostile_documents_do_not_stop_the_server(ours, value):
    count = (2 << 20) // (len(value) + 1) - 20
    body = b'{"instances": [' + b",".join([value] * count) + b"]}"
    with concurrent.futures.ThreadPoolExecutor(4) as clients:
        attacks = [clients.submit(ours.post, PREDICT, body) for _ in range(4)]
        slowest = 0.0
        while not all(attack.done() for attack in attacks):
            started = time.monotonic()
            assert ours.get("/healthz")[0] == 200
            slowest = max(slowest, time.monotonic() - started)
            time.sleep(0.01)
    assert all(attack.result()[0] in (200, 400, 413) for attack in attacks)
    assert slowest < 2.0


def test_documents_with_too_many_lists_are_413(model_folders, tmp_path):
    body = b'{"instances": [' + b"[]," * 2_100_000 + b"[]]}"
    with serving(tmp_path, str(model_folders["half"])) as server:
        status, answer = server.post(PREDICT, body)
        assert (status, "more than 2000000 lists" in answer["error"]) == (413, True)
        text = json.dumps({"instances": ["[" * 2_100_000]}).encode()
        assert server.post(PREDICT, text)[0] == 400  # brackets in a text are no lists


def test_lone_surrogate_is_400_and_logged(model_folders, tmp_path):
    log = tmp_path / "access.jsonl"
    with serving(tmp_path, str(model_folders["half"]), "--access-log", str(log)) as server:
        status, _ = server.post(PREDICT, b'{"signature_name": "\\ud800", "instances": [NaN]}')
        assert status == 400
        assert server.stop() == 0
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    assert [entry["status"] for entry in entries if entry["method"] == "predict"] == [400]


def test_slow_reader_gets_all_and_idle_reader_is_disconnected(model_folders, tmp_path):
    body = json.dumps({"instances": [1] * 2_000_000}).encode()
    with serving(tmp_path, str(model_folders["half"]), "--idle", "1.5") as server:
        slow, silent = socket.socket(), socket.socket()
        for client in (slow, silent):
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
            client.settimeout(30)
            client.connect(("127.0.0.1", server.rest_port))
            client.sendall(post_bytes(body))
        size, began = 0, time.monotonic()
        while block := slow.recv(1 << 17):
            size += len(block)
            time.sleep(0.04)
        assert size > 8_000_000 and time.monotonic() - began > 2
        with pytest.raises(OSError):
            while silent.recv(1 << 20):
                pass
            raise OSError("closed cleanly")
        for client in (slow, silent):
            client.close()
        assert server.post(PREDICT, {"instances": [1]})[0] == 200


def test_slow_senders_are_disconnected(model_folders, tmp_path):
    """Clients that send headers or body slowly, or nothing, are disconnected while others are served."""
    with serving(tmp_path, str(model_folders["half"]), "--idle", "1.5") as server:
        address = ("127.0.0.1", server.rest_port)
        beginnings = (
            b"POST /v1",
            b"POST /v1/models/half:predict HTTP/1.1\r\nHost: a\r\nContent-Length: 50\r\n\r\n{",
            b"",
        )
        clients = [socket.create_connection(address, 30) for _ in range(3)]
        for client, beginning in zip(clients, beginnings):
            client.sendall(beginning)
        ended = [False] * 3
        end = time.monotonic() + 30
        while not all(ended) and time.monotonic() < end:
            assert server.post(PREDICT, {"instances": [1]}) == (200, {"predictions": [3.5]})
            for number, client in enumerate(clients):
                client.settimeout(0.05)
                try:
                    if number < 2 and not ended[number]:
                        client.sendall(b"a")
                    while not ended[number]:
                        ended[number] = client.recv(4096) == b""
                except TimeoutError:
                    pass
                except OSError:
                    ended[number] = True
            time.sleep(0.1)
        for client in clients:
            client.close()
        assert ended == [True] * 3


def test_excess_connections_get_503(model_folders, tmp_path):
    with serving(tmp_path, str(model_folders["half"]), "--connections", "50", "--idle", "3") as server:
        address = ("127.0.0.1", server.rest_port)
        flood = [socket.create_connection(address, 30) for _ in range(300)]
        refused = 0
        for client in flood[50:]:
            client.settimeout(20)
            try:
                refused += client.recv(4096).startswith(b"HTTP/1.1 503")
            except ConnectionResetError:
                refused += 1
        assert refused == 250
        for client in flood:
            client.close()

        def serves() -> bool:
            try:
                return server.post(PREDICT, {"instances": [1]})[0] == 200
            except OSError:
                return False

        end = time.monotonic() + 30
        while not serves() and time.monotonic() < end:
            time.sleep(0.1)
        assert serves()


def test_pending_bytes_are_limited(model_folders, tmp_path):
    """Concurrent large bodies beyond the limit get 429."""
    arguments = ("--request-megabytes", "2", "--pending-megabytes", "3")
    with serving(tmp_path, str(model_folders["half"]), *arguments) as server:
        address = ("127.0.0.1", server.rest_port)
        head = b"POST /v1/models/half:predict HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n{" % (3 << 19)
        clients = [socket.create_connection(address, 30) for _ in range(4)]
        for client in clients:
            client.sendall(head)
        answers = []
        for client in clients[2:]:
            client.settimeout(20)
            answers.append(client.recv(4096).split()[1])
        assert answers == [b"429", b"429"]
        for client in clients:
            client.close()

        def serves() -> bool:
            return server.post(PREDICT, b" " * (1 << 20) + b'{"instances": [1]}')[0] == 200

        end = time.monotonic() + 30
        while not serves() and time.monotonic() < end:
            time.sleep(0.1)
        assert serves()
