"""The log of sampled requests, and metrics under TensorFlow Serving's names."""

from __future__ import annotations

import os
import signal
import urllib.request

import grpc
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prometheus_client.parser import text_string_to_metric_families

from kerasline.components.core.errors import ParameterError
from kerasline.components.models.signatures import Signature, TensorSpec
from kerasline.components.serving.runtime.metrics import Metrics
from kerasline.components.serving.runtime.request_log import RequestLog
from kerasline.components.serving.runtime.settings import ModelSource, ServerSettings
from tests.components.serving.http2_frames import PREDICT
from tests.components.serving.servers import serving, wait_until

MEGABYTE = 1 << 20
SPECS = {
    "count": TensorSpec("a", 9, np.dtype("int64"), (None, 1)),
    "image": TensorSpec("b", 7, np.dtype(object), (None,)),
    "numbers": TensorSpec("c", 1, np.dtype("float32"), (None, None)),
    "small": TensorSpec("d", 19, np.dtype("float16"), (None,)),
    "word": TensorSpec("e", 7, np.dtype(object), (None, 1)),
}
SIGNATURE = Signature("a/b", "", SPECS, {})


def texts(*values: bytes) -> np.ndarray:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def request(width: int) -> list[np.ndarray]:
    return [
        np.array([[7], [-1]]),
        texts(b"\xff\x00", b"\x89PNG"),
        np.arange(2 * width, dtype=np.float32).reshape(2, width),
        np.array([0.5, np.nan], np.float16),
        texts("héron".encode(), b"").reshape(2, 1),
    ]


def rows(folder) -> list[dict]:
    files = sorted(folder.rglob("*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def test_rows_are_written_as_values_and_lists_with_nulls(tmp_path):
    log = RequestLog(tmp_path, 1.0, MEGABYTE)
    for width in (1, 3):
        log.add("mixed", SIGNATURE, request(width), fills_missing=True)
    log.write()
    (file,) = (tmp_path / "mixed" / "a%2Fb").iterdir()
    table = pq.read_table(file)
    assert table.schema.types == [pa.int64(), pa.binary(), pa.list_(pa.float32()), pa.float32(), pa.string()]
    first = {"count": 7, "image": b"\xff\x00", "numbers": [0.0], "small": 0.5, "word": "héron"}
    second = {"count": None, "image": b"\x89PNG", "numbers": [1.0], "small": None, "word": None}
    wide = [{**first, "numbers": [0.0, 1.0, 2.0]}, {**second, "numbers": [3.0, 4.0, 5.0]}]
    assert table.to_pylist() == [first, second, *wide]


def test_values_stay_as_they_are_without_a_rule_for_missing_ones(tmp_path):
    log = RequestLog(tmp_path, 1.0, MEGABYTE)
    log.add("mixed", SIGNATURE, request(1), fills_missing=False)
    log.write()
    _, second = rows(tmp_path)
    assert (second["count"], second["word"], np.isnan(second["small"])) == (-1, "", True)


@pytest.mark.parametrize("arrays", [[], [np.array(1.0)], [np.zeros(2), np.zeros(3)]])
def test_requests_without_common_rows_are_left_out(tmp_path, arrays):
    specs = {str(number): TensorSpec("a", 2, np.dtype("float64"), None) for number in range(len(arrays))}
    log = RequestLog(tmp_path, 1.0, MEGABYTE)
    log.add("half", Signature("x", "", specs, {}), arrays, fills_missing=False)
    log.write()
    assert rows(tmp_path) == []


def test_the_oldest_files_are_removed(tmp_path):
    signature = Signature("x", "", {"x": TensorSpec("a", 2, np.dtype("float64"), (None,))}, {})
    log = RequestLog(tmp_path, 1.0, 60_000)
    for number in range(5):
        values = np.random.default_rng(number).normal(size=2000)
        values[0] = number
        log.add("half", signature, [values], fills_missing=False)
        log.write()
        for file in tmp_path.rglob("*.parquet"):  # file systems with coarse times
            os.utime(file, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns - 10**9))
    files = list(tmp_path.rglob("*.parquet"))
    assert sum(file.stat().st_size for file in files) <= 60_000
    assert {pq.read_table(file)["x"][0].as_py() for file in files} == {2.0, 3.0, 4.0}


def test_the_share_of_requests_is_sampled(tmp_path):
    log = RequestLog(tmp_path, 0.1, MEGABYTE)
    assert 800 < sum(log.samples() for _ in range(10_000)) < 1200


@pytest.mark.parametrize("share", [0.0, 1.5])
def test_an_impossible_share_is_refused(tmp_path, share):
    with pytest.raises(ParameterError, match="--request-log-share: expected above 0 and at most 1, received"):
        ServerSettings((ModelSource("half", tmp_path),), request_log=(tmp_path, share, MEGABYTE))


def test_a_folder_that_cannot_be_created_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ParameterError, match="--request-log .*: Not a directory"):
        RequestLog(tmp_path / "file" / "log", 1.0, MEGABYTE)


def test_served_requests_are_logged_and_counted(half, tmp_path):
    from kerasline.components.serving.runtime.messages import messages

    log = tmp_path / "requests"
    options = ("--request-log", str(log), "--request-log-share", "1")
    with serving(tmp_path, str(half), *options) as server:
        assert server.post("/v1/models/half:predict", {"instances": [1.0, 2.0]})[0] == 200
        assert server.post("/v1/models/half:predict", {"instances": ["no"]})[0] == 400
        sent = messages().PredictRequest()
        sent.model_spec.name = "half"
        sent.inputs["x"].dtype = 1
        sent.inputs["x"].tensor_shape.dim.add(size=1)
        sent.inputs["x"].float_val.append(5.0)
        with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
            assert channel.unary_unary(PREDICT)(sent.SerializeToString(), 60)
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: rows(log), server)
        assert server.post("/v1/models/half:predict", {"inputs": [7.0]})[0] == 200

        with urllib.request.urlopen(server.url("/monitoring/prometheus/metrics")) as answer:
            text = answer.read().decode()
        assert server.stop() == 0
    assert rows(log / "half" / "serving_default") == [{"x": x} for x in (1.0, 2.0, 5.0, 7.0)]

    assert ':tensorflow:serving:request_count{model_name="half",status="OK"} 3' in text
    assert ':tensorflow:serving:request_count{model_name="half",status="INVALID_ARGUMENT"} 1' in text
    names = "request_latency_count", "request_latency_bucket", "runtime_latency_sum"
    found = {name: [] for name in names}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            short = sample.name.removeprefix(":tensorflow:serving:")
            if short in found:
                found[short].append((sample.labels, sample.value))
    rest = {"model_name": "half", "API": "Predict", "entrypoint": "REST"}
    assert (rest, 3) in found["request_latency_count"]
    assert ({**rest, "le": "+Inf"}, 3) in found["request_latency_bucket"]
    assert ({**rest, "le": "30000000"}, 3) in [
        ({**labels, "le": f"{float(labels['le']):.0f}"}, value)
        for labels, value in found["request_latency_bucket"]
        if labels["entrypoint"] == "REST" and labels["le"] != "+Inf"
    ]
    ((labels, microseconds),) = found["runtime_latency_sum"]
    assert labels == {"model_name": "half", "API": "Predict", "version": "1", "runtime": "TF1"} and microseconds > 10
    assert 'kerasline_queued_requests{model="half",version="1"}' in text


def test_counts_of_unloaded_versions_stay_in_the_total_of_a_model():
    metrics = Metrics()
    for version in (1, 1, 2):
        metrics.count_request("rest", "half", version, "predict", "OK", 0.1)
        metrics.count_execution("half", version, "predict", 1, 1, 0.0, 0.01)
    metrics.count_request("grpc", "half", None, "predict", "NOT_FOUND", 0.1)
    metrics.forget("half", 1)
    text = metrics.exposition()[0].decode()
    assert ':tensorflow:serving:request_count{model_name="half",status="OK"} 3' in text
    assert 'kerasline_requests_total{code="OK",method="predict",model="half",protocol="rest",version="2"} 1.0' in text
    assert 'version="1"' not in text and 'version=""' in text
