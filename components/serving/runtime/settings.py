"""The settings of a model server: models, addresses, limits."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from kerasline.components.core.errors import ParameterError, nearest

if TYPE_CHECKING:
    from kerasline.components.serving.runtime.models_file import ModelsFile

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,127}")
MEBIBYTE = 1 << 20


class Batching(StrEnum):
    """Which signatures execute the requests of several clients together.

    AUTO: those whose answers to a row were found not to depend on the other rows of a batch.
    ON: all whose inputs and outputs have a first dimension of any size.
    OFF: none.
    """

    AUTO = "auto"
    ON = "on"
    OFF = "off"


@dataclass(frozen=True)
class BatchSettings:
    """How requests are combined into batches and executed.

    Attributes:
        mode: which signatures are batched.
        rows: maximum number of rows in one execution. A larger request is cut into pieces if its signature is batched,
            and otherwise executed alone.
        delay_seconds: how long the first request of a batch may wait for others. 0 takes only what is queued.
        queue: maximum number of requests waiting for one signature. Further ones are rejected.
        executors: maximum number of executions of one signature at once.
        timeout_seconds: maximum duration of a request from when it was read.
        slots: number of answers that are generated token by token at once.
    """

    mode: Batching = Batching.AUTO
    rows: int = 128
    delay_seconds: float = 0.0
    queue: int = 1000
    executors: int = max(2, os.cpu_count() or 2)
    timeout_seconds: float = float("inf")
    slots: int = 8


@dataclass(frozen=True)
class ModelSource:
    """A model to serve.

    Attributes:
        name: the name in URLs and requests.
        path: a folder of versions, or one SavedModel.
        labels: version numbers by label, such as `{"stable": 3}`. A version with a label stays loaded.
        keep: number of versions to keep loaded: the served one and the newest others; None keeps all.
        only: the only versions to load; empty for any.
        batch: how its requests are executed.
    """

    name: str
    path: Path
    labels: dict[str, int] = field(default_factory=dict)
    keep: int | None = 1
    only: tuple[int, ...] = ()
    batch: BatchSettings = BatchSettings()


@dataclass(frozen=True)
class ModelDefaults:
    """The settings of models that have none of their own. For `keep` and `batch`, see `ModelSource`."""

    keep: int | None = 1
    batch: BatchSettings = BatchSettings()


@dataclass(frozen=True)
class Limits:
    """Limits that protect the server from its clients.

    Attributes:
        request_bytes: maximum size of a request body.
        pending_bytes: maximum total size of the bodies of all requests being read or answered.
        connections: maximum number of concurrent connections, for REST and gRPC each, and of concurrent gRPC calls.
        timeout_seconds: maximum duration of a request. A client can set a shorter one.
        idle_seconds: maximum duration of a TLS handshake, of receiving a request's headers, and of receiving its
            body; also how long a client may stop reading a response.
        keep_alive_seconds: how long a REST connection stays open between requests. A load balancer should close it
            earlier, or it may send a request on a connection that is just being closed.
    """

    request_bytes: int = 32 * MEBIBYTE
    pending_bytes: int = 256 * MEBIBYTE
    connections: int = 1000
    timeout_seconds: float = 30.0
    idle_seconds: float = 60.0
    keep_alive_seconds: float = 75.0


@dataclass(frozen=True)
class ServerSettings:
    """The settings of `kerasline.components.serving.runtime.server.run`.

    Attributes:
        models: the models to serve, at least one.
        host: the address to listen on. `::` is all addresses of both families, and a name all its addresses.
        rest_port, grpc_port: 0 takes a free port; None disables the interface.
        rest_socket, grpc_socket: path of a Unix socket to listen on instead of the port, without TLS.
        poll_seconds: interval between checks of the folders for new versions.
        drain_seconds: how long requests in progress may take after SIGTERM.
        certificate, key: PEM files for TLS; both or neither. They are read again when they change.
        api_key: the key that clients must send; None requires no key.
        access_log: a file, or `-` for standard output; None writes no log.
        request_log: folder, share of requests to log, and maximum size in bytes; None logs none.
        workers: number of processes, each with all models.
        safe: refuse models with operations that access files or processes.
        client_ca: PEM file of the authorities that sign the certificates of clients; None requires none.
        cors_origins: origins whose pages may send requests, such as `https://example.org`, or `*`.
        models_file: the file that names the models, which is read again when it changes.
        defaults: settings of models that are added later.
    """

    models: tuple[ModelSource, ...]
    host: str = "127.0.0.1"
    rest_port: int | None = 8501
    grpc_port: int | None = 8500
    poll_seconds: float = 1.0
    drain_seconds: float = 30.0
    limits: Limits = Limits()
    certificate: Path | None = None
    key: Path | None = None
    api_key: str | None = None
    access_log: str | None = None
    workers: int = 1
    safe: bool = False
    client_ca: Path | None = None
    cors_origins: tuple[str, ...] = ()
    request_log: tuple[Path, float, int] | None = None
    rest_socket: Path | None = None
    grpc_socket: Path | None = None
    models_file: ModelsFile | None = None
    defaults: ModelDefaults = ModelDefaults()

    def __post_init__(self) -> None:
        if not self.models:
            raise ParameterError("serve: no model; pass a folder, or --model NAME=FOLDER")
        if self.rest_port is None and self.grpc_port is None:
            raise ParameterError("serve: REST and gRPC are both disabled; drop --no-rest or --no-grpc")
        if self.rest_socket is not None and self.rest_socket == self.grpc_socket:
            raise ParameterError(f"serve: REST and gRPC cannot share the socket {self.rest_socket}")
        has_ports = self.rest_socket is None and self.grpc_socket is None
        if has_ports and self.rest_port is not None and self.rest_port == self.grpc_port != 0:
            raise ParameterError(f"serve: REST and gRPC cannot share port {self.rest_port}")
        if bool(self.certificate) != bool(self.key):
            raise ParameterError("serve: TLS needs both --tls-certificate and --tls-key")
        if self.request_log and not 0 < self.request_log[1] <= 1:
            message = f"serve: --request-log-share: expected above 0 and at most 1, received {self.request_log[1]:g}"
            raise ParameterError(message)
        if self.api_key == "":
            raise ParameterError("serve: the API key is empty; pass a key, or none to serve without one")
        if self.client_ca and not self.certificate:
            raise ParameterError("serve: --tls-client-ca needs --tls-certificate and --tls-key")
        for file in filter(None, (self.certificate, self.key, self.client_ca)):
            if not file.is_file():
                raise ParameterError(f"serve: {file}: no such file")
        check_names(self.models)


def check_names(models: Iterable[ModelSource]) -> None:
    """Raise a ParameterError for the name of a model that is malformed or used twice."""
    names = [model.name for model in models]
    for name in names:
        if not NAME.fullmatch(name):
            raise ParameterError(f"serve: expected a model name of letters, digits and _ . + -, received {name!r}")
        if names.count(name) > 1:
            raise ParameterError(f"serve: two models are named {name!r}; each needs a name of its own")


def model_sources(
    folder: Path | None, models: Sequence[str], labels: Sequence[str], defaults: ModelDefaults
) -> tuple[ModelSource, ...]:
    """Return the models that the arguments of `serve` name.

    Args:
        folder: the folder of one model, or None.
        models: further models, as `NAME=DIR`.
        labels: labels of versions, as `NAME:LABEL=VERSION`, or `LABEL=VERSION` for an only model.
        defaults: the settings of all models.

    Raises:
        ParameterError: an argument has another form, or a label names an unknown model.
    """
    sources = [model_source(folder)] if folder is not None else []
    for text in models:
        name, equals, path = text.partition("=")
        if not equals or not path:
            raise ParameterError(f"--model {text}: expected NAME=DIR, such as penguins=served/penguins")
        sources.append(ModelSource(name, Path(path).absolute()))
    names = [source.name for source in sources]
    for text in labels:
        target, equals, version = text.partition("=")
        name, colon, label = target.rpartition(":")
        if not colon and len(names) == 1:
            name = names[0]
        if not equals or not label or not version.isdigit():
            raise ParameterError(f"--label {text}: expected NAME:LABEL=VERSION, such as penguins:stable=3")
        if name not in names:
            raise ParameterError(f"--label {text}: {nearest(name, names)}")
        index = names.index(name)
        sources[index] = replace(sources[index], labels={**sources[index].labels, label: int(version)})
    return tuple(replace(source, keep=defaults.keep, batch=defaults.batch) for source in sources)


def model_source(folder: Path) -> ModelSource:
    """Return the model in a folder, named after the folder. A version of a model gets the name of the parent folder."""
    path = folder.absolute()
    named = path.parent if path.name.isdigit() and (path / "saved_model.pb").exists() else path
    return ModelSource(re.sub(r"[^A-Za-z0-9_.+-]+", "_", named.name).lstrip("_.+-") or "model", path)
