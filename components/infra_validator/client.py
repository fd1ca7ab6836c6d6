"""Requests to a served model, in the forms that clients use, and its answers as arrays.

REST by the standard library and gRPC by TensorFlow's own conversions, so that no code of the server's is on both
sides of a comparison; of its protos, the messages alone.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from kerasline.components.infra_validator.answer import Answer, Rows, count
from kerasline.components.infra_validator.signature import Signature, numpy_dtype

if TYPE_CHECKING:
    from kerasline.components.infra_validator.server import Address

BY_ROW, BY_COLUMN, GRPC = "REST rows", "REST columns", "gRPC"
HOST = "127.0.0.1"
STATE_SECONDS = 5.0


class NoAnswer(Exception):
    """A request that nothing came back to; says how. `is_late`: the time for it is over."""

    def __init__(self, why: str, *, is_late: bool = False) -> None:
        super().__init__(why)
        self.is_late = is_late

    @classmethod
    def within(cls, seconds: float) -> NoAnswer:
        return cls(f"no answer within {seconds:g} s", is_late=True)


class Client:
    """Asks one model; use it as a context.

    Attributes:
        forms: those that this server and signature have.
    """

    def __init__(self, address: Address, signature: Signature, seconds: float) -> None:
        self._address, self._signature, self._seconds = address, signature, seconds
        self._rest = http.client.HTTPConnection(HOST, address.rest_port, timeout=seconds)
        self._grpc = _GrpcCall(address, signature, seconds) if address.grpc_port is not None else None
        rows = (BY_ROW,) if signature.gives_rows else ()
        self.forms = (*rows, BY_COLUMN, *((GRPC,) if self._grpc else ()))

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_error: Any) -> None:
        self._rest.close()
        if self._grpc is not None:
            self._grpc.close()

    def ask(self, form: str, rows: Rows) -> Answer:
        """Asks about rows of features.

        Raises:
            NoAnswer: nothing came back in time, or at all.
        """
        return self._grpc(rows) if form == GRPC else self.post(body(form, rows))

    def post(self, document: bytes) -> Answer:
        """The answer to a REST request, whatever it says. Raises NoAnswer."""
        path = f"/v1/models/{self._address.name}:predict"
        status, said = _exchange(self._rest, "POST", path, document, self._seconds)
        if status != 200:
            return Answer(None, status, _error(said))
        try:
            return Answer(self._arrays(json.loads(said)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return Answer(None, 500, f"an answer that cannot be read ({error}): {said[:100].decode(errors='replace')}")

    def _arrays(self, document: Mapping[str, Any]) -> dict[str, np.ndarray]:
        outputs = self._signature.outputs
        if "predictions" in document:
            rows = document["predictions"]
            columns = (
                {next(iter(outputs)): rows}
                if len(outputs) == 1
                else {name: [row[name] for row in rows] for name in outputs}
            )
        else:
            found = document["outputs"]
            columns = {next(iter(outputs)): found} if len(outputs) == 1 else {name: found[name] for name in outputs}
        return {name: _array(value, numpy_dtype(outputs[name])) for name, value in columns.items()}


def body(form: str, rows: Rows) -> bytes:
    """The JSON of a request; what is not a number is a bare token, as TensorFlow Serving reads it."""
    columns = {name: _plain(array) for name, array in rows.items()}
    if form == BY_COLUMN:
        return json.dumps({"inputs": columns}).encode()
    instances = [{name: column[number] for name, column in columns.items()} for number in range(count(rows))]
    return json.dumps({"instances": instances}).encode()


def malformed(rows: Rows) -> dict[str, bytes]:
    """REST requests that no model can be asked, by what is wrong with them."""
    name, array = next(iter(rows.items()))
    inputs = {name: _plain(array) for name, array in rows.items()}
    odd = np.full_like(array, 1, dtype=np.int64) if array.dtype == object else np.full_like(array, "x", dtype=object)
    kind = "a number where a text" if array.dtype == object else "a text where a number"
    return {
        f"{kind} is due ({name})": json.dumps({"inputs": {**inputs, name: odd.tolist()}}).encode(),
        f"{name} left out": json.dumps({"inputs": {k: v for k, v in inputs.items() if k != name}}).encode(),
        "half a document": body(BY_COLUMN, rows)[:-2],
    }


def model_state(address: Address) -> tuple[str, str]:
    """The state of the model's newest version, and why it could not be loaded. Raises NoAnswer."""
    connection = http.client.HTTPConnection(HOST, address.rest_port, timeout=STATE_SECONDS)
    try:
        status, said = _exchange(connection, "GET", f"/v1/models/{address.name}", None, STATE_SECONDS)
        version = json.loads(said)["model_version_status"][0]
        told = version.get("status") or {}
        return version["state"], "" if told.get("error_code", "OK") == "OK" else str(told.get("error_message"))
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise NoAnswer(f"no status of the model: {error}") from error
    finally:
        connection.close()


class _GrpcCall:
    """PredictionService.Predict."""

    def __init__(self, address: Address, signature: Signature, seconds: float) -> None:
        import grpc

        from kerasline.components.serving.grpc.protos import messages

        self._messages, self._address, self._signature, self._seconds = (
            messages(),
            address,
            signature,
            seconds,
        )
        options = [("grpc.max_receive_message_length", -1), ("grpc.enable_http_proxy", 0)]
        self._channel = grpc.insecure_channel(f"{HOST}:{address.grpc_port}", options)
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
            proto = tf.make_tensor_proto(array, self._signature.inputs[name].dtype, array.shape)
            request.inputs[name].ParseFromString(proto.SerializeToString())  # the messages are of a pool of their own
        try:
            response = self._predict(request, timeout=self._seconds)
        except grpc.RpcError as error:
            code = error.code().name
            if code == "DEADLINE_EXCEEDED":
                raise NoAnswer.within(self._seconds) from error
            if code == "UNAVAILABLE":
                raise NoAnswer(f"the connection was lost ({error.details()})") from error
            return Answer(None, HTTP_STATUSES.get(code, 500), f"{code}: {error.details()}"[:300])
        return Answer({name: _of_proto(proto) for name, proto in response.outputs.items()})

    def close(self) -> None:
        self._channel.close()


def _of_proto(proto: Any) -> np.ndarray:
    import tensorflow as tf
    from tensorflow.core.framework import tensor_pb2

    return tf.make_ndarray(tensor_pb2.TensorProto.FromString(proto.SerializeToString()))


def _exchange(
    connection: http.client.HTTPConnection, method: str, path: str, document: bytes | None, seconds: float
) -> tuple[int, bytes]:
    is_reused = connection.sock is not None
    try:
        connection.request(method, path, document, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()
    except TimeoutError:
        connection.close()
        raise NoAnswer.within(seconds) from None
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        if is_reused and isinstance(error, (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError)):
            # A server may close a connection that rests; one that is gone refuses the next.
            return _exchange(connection, method, path, document, seconds)
        raise NoAnswer(f"the connection was lost ({type(error).__name__})") from error


def _plain(array: np.ndarray) -> Any:
    return _texts(array.tolist()) if array.dtype == object else array.tolist()


def _texts(value: Any) -> Any:
    """Bytes as JSON has them: text, or base64 where they are none."""
    if isinstance(value, list):
        return [_texts(one) for one in value]
    try:
        return value.decode()
    except UnicodeDecodeError:
        import base64

        return {"b64": base64.b64encode(value).decode()}


def _array(value: Any, dtype: np.dtype) -> np.ndarray:
    if dtype.kind != "O":
        return np.array(value, np.float64 if dtype.kind not in "iub" else dtype)
    return np.array(_bytes(value), dtype=object)


def _bytes(value: Any) -> Any:
    if isinstance(value, list):
        return [_bytes(one) for one in value]
    if isinstance(value, dict):
        import base64

        return base64.b64decode(value["b64"])
    return value.encode()


def _error(said: bytes) -> str:
    try:
        return str(json.loads(said)["error"])[:300]
    except (ValueError, KeyError, TypeError):
        return said[:300].decode(errors="replace")
