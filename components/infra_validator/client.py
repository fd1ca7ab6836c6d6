"""Requests to a served model in the formats that clients use, and its answers as arrays.

REST uses the standard library and gRPC uses TensorFlow's own conversions. Of the server's code only the protobuf
messages are used, so that a mistake in it cannot cancel out on the two sides of a comparison.
"""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from kerasline.components.infra_validator.cases import Answer, Rows, count
from kerasline.components.models.signatures import Signature
from kerasline.components.processes.ports import LOOPBACK

BY_ROW, BY_COLUMN, GRPC = "REST rows", "REST columns", "gRPC"
STATE_SECONDS = 5.0


@dataclass(frozen=True)
class Address:
    """Where a model is served. `grpc_port` is None if gRPC is not."""

    name: str
    rest_port: int
    grpc_port: int | None


class NoAnswer(Exception):
    """A request was not answered. The message says how.

    Attributes:
        is_timeout: whether the time limit was exceeded.
    """

    def __init__(self, why: str, *, is_timeout: bool = False) -> None:
        super().__init__(why)
        self.is_timeout = is_timeout

    @classmethod
    def within(cls, seconds: float) -> NoAnswer:
        return cls(f"no answer within {seconds:g} s", is_timeout=True)


class Client:
    """A client of one model. It is a context manager.

    Args:
        address: the server and the model.
        signature: the model's signature.
        seconds: time limit for one request.

    Attributes:
        formats: the request formats that this server and signature support.
    """

    def __init__(self, address: Address, signature: Signature, seconds: float) -> None:
        self._address, self._signature, self._seconds = address, signature, seconds
        self._rest = http.client.HTTPConnection(LOOPBACK, address.rest_port, timeout=seconds)
        self._grpc = _GrpcCall(address, signature, seconds) if address.grpc_port is not None else None
        by_row = (BY_ROW,) if signature.answers_by_row else ()
        self.formats = (*by_row, BY_COLUMN, *((GRPC,) if self._grpc else ()))

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_error: Any) -> None:
        self._rest.close()
        if self._grpc is not None:
            self._grpc.close()

    def predict(self, format: str, rows: Rows) -> Answer:
        """Send rows of features in one of the `formats`.

        Raises:
            NoAnswer: there was no answer, or not in time.
        """
        if format == GRPC and self._grpc is not None:
            return self._grpc(rows)
        return self.post(request_body(format, rows))

    def post(self, body: bytes) -> Answer:
        """Send a REST request.

        Raises:
            NoAnswer: there was no answer, or not in time.
        """
        path = f"/v1/models/{self._address.name}:predict"
        status, text = _exchange(self._rest, "POST", path, body, self._seconds)
        if status != 200:
            return Answer(None, status, _error_message(text))
        try:
            return Answer(self._arrays(json.loads(text)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return Answer(None, 500, f"an invalid answer ({error}): {text[:100].decode(errors='replace')}")

    def _arrays(self, document: Mapping[str, Any]) -> dict[str, np.ndarray]:
        outputs = self._signature.outputs
        found = document["predictions"] if "predictions" in document else document["outputs"]
        if len(outputs) == 1:
            columns = {next(iter(outputs)): found}
        elif "predictions" in document:
            columns = {name: [row[name] for row in found] for name in outputs}
        else:
            columns = {name: found[name] for name in outputs}
        return {name: _array(value, outputs[name].dtype) for name, value in columns.items()}


def request_body(format: str, rows: Rows) -> bytes:
    """Return the JSON of a request. Infinite numbers and NaN are bare tokens, as TensorFlow Serving reads them."""
    columns = {name: _json_value(array) for name, array in rows.items()}
    if format == BY_COLUMN:
        return json.dumps({"inputs": columns}).encode()
    instances = [{name: column[number] for name, column in columns.items()} for number in range(count(rows))]
    return json.dumps({"instances": instances}).encode()


def malformed_bodies(rows: Rows) -> dict[str, bytes]:
    """Return REST requests that every model must refuse, by a description of the mistake."""
    name, array = next(iter(rows.items()))
    inputs = {name: _json_value(array) for name, array in rows.items()}
    wrong = np.full_like(array, 1, dtype=np.int64) if array.dtype == object else np.full_like(array, "x", dtype=object)
    mistake = "a number instead of a text" if array.dtype == object else "a text instead of a number"
    return {
        f"{mistake} ({name})": json.dumps({"inputs": {**inputs, name: wrong.tolist()}}).encode(),
        f"{name} left out": json.dumps({"inputs": {k: v for k, v in inputs.items() if k != name}}).encode(),
        "a truncated document": request_body(BY_COLUMN, rows)[:-2],
    }


def model_state(address: Address) -> tuple[str, str]:
    """Return the state of the model's newest version, and why it could not be loaded.

    Raises:
        NoAnswer: the server does not answer yet.
    """
    connection = http.client.HTTPConnection(LOOPBACK, address.rest_port, timeout=STATE_SECONDS)
    try:
        _, text = _exchange(connection, "GET", f"/v1/models/{address.name}", None, STATE_SECONDS)
        version = json.loads(text)["model_version_status"][0]
        status = version.get("status") or {}
        return version["state"], "" if status.get("error_code", "OK") == "OK" else str(status.get("error_message"))
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise NoAnswer(f"no status of the model: {error}") from error
    finally:
        connection.close()


class _GrpcCall:
    """PredictionService.Predict."""

    def __init__(self, address: Address, signature: Signature, seconds: float) -> None:
        import grpc

        from kerasline.components.serving.runtime.messages import messages

        self._messages, self._address, self._signature, self._seconds = messages(), address, signature, seconds
        options = [("grpc.max_receive_message_length", -1), ("grpc.enable_http_proxy", 0)]
        self._channel = grpc.insecure_channel(f"{LOOPBACK}:{address.grpc_port}", options)
        self._predict = self._channel.unary_unary(
            "/tensorflow.serving.PredictionService/Predict",
            request_serializer=self._messages.PredictRequest.SerializeToString,
            response_deserializer=self._messages.PredictResponse.FromString,
        )

    def __call__(self, rows: Rows) -> Answer:
        import grpc
        import tensorflow as tf

        from kerasline.components.serving.runtime.errors import HTTP_STATUSES

        request = self._messages.PredictRequest()
        request.model_spec.name = self._address.name
        for name, array in rows.items():
            proto = tf.make_tensor_proto(array, self._signature.inputs[name].dtype_name, array.shape)
            request.inputs[name].ParseFromString(proto.SerializeToString())  # the messages use another descriptor pool
        try:
            response = self._predict(request, timeout=self._seconds)
        except grpc.RpcError as error:
            code = error.code().name
            if code == "DEADLINE_EXCEEDED":
                raise NoAnswer.within(self._seconds) from error
            if code == "UNAVAILABLE":
                raise NoAnswer(f"the connection was lost ({error.details()})") from error
            return Answer(None, HTTP_STATUSES.get(code, 500), f"{code}: {error.details()}"[:300])
        return Answer({name: _from_proto(proto) for name, proto in response.outputs.items()})

    def close(self) -> None:
        self._channel.close()


def _from_proto(proto: Any) -> np.ndarray:
    import tensorflow as tf
    from tensorflow.core.framework import tensor_pb2

    return tf.make_ndarray(tensor_pb2.TensorProto.FromString(proto.SerializeToString()))


def _exchange(
    connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None, seconds: float
) -> tuple[int, bytes]:
    is_reused = connection.sock is not None
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()
    except TimeoutError:
        connection.close()
        raise NoAnswer.within(seconds) from None
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        if is_reused and isinstance(error, (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError)):
            # A server may close an idle connection. If it is gone, the next connection is refused.
            return _exchange(connection, method, path, body, seconds)
        raise NoAnswer(f"the connection was lost ({type(error).__name__})") from error


def _json_value(array: np.ndarray) -> Any:
    return _encode_texts(array.tolist()) if array.dtype == object else array.tolist()


def _encode_texts(value: Any) -> Any:
    """Return bytes as JSON represents them: as text, or in base64 if they are not UTF-8."""
    if isinstance(value, list):
        return [_encode_texts(one) for one in value]
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(value).decode()}


def _array(value: Any, dtype: np.dtype) -> np.ndarray:
    if dtype.kind != "O":
        return np.array(value, np.float64 if dtype.kind not in "iub" else dtype)
    return np.array(_decode_texts(value), dtype=object)


def _decode_texts(value: Any) -> Any:
    if isinstance(value, list):
        return [_decode_texts(one) for one in value]
    return base64.b64decode(value["b64"]) if isinstance(value, dict) else value.encode()


def _error_message(text: bytes) -> str:
    try:
        return str(json.loads(text)["error"])[:300]
    except (ValueError, KeyError, TypeError):
        return text[:300].decode(errors="replace")
