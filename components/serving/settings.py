"""What a server is told: its models, its addresses, its bounds."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from kerasline.components.core.errors import ParameterError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,127}")
MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class ModelSource:
    """A model's name and its folder: of versions, or one SavedModel.

    Attributes:
        labels: names of versions, such as `{"stable": 3}`; a version with a label stays loaded.
    """

    name: str
    path: Path
    labels: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class BatchSettings:
    """Attributes:
    rows: the most rows in one execution; a larger request is executed alone.
    delay_seconds: how long the first of a batch may wait for others. 0 takes what is queued.
    queue: the most requests that wait for one signature; further ones are refused.
    enabled: False executes each request alone.
    """

    rows: int = 128
    delay_seconds: float = 0.0
    queue: int = 1000
    enabled: bool = True


@dataclass(frozen=True)
class Limits:
    """Attributes:
    request_bytes: the largest body of a request.
    pending_bytes: the bodies of all requests that are being read or answered, together.
    connections: the most at once, of REST and of gRPC each; and the most gRPC calls.
    timeout_seconds: the longest that a request may take; a client can ask for less.
    idle_seconds: how long a connection may take for a TLS handshake, a request's head, or its body, and how long
        it may read nothing of an answer.
    """

    request_bytes: int = 32 * MEBIBYTE
    pending_bytes: int = 256 * MEBIBYTE
    connections: int = 1000
    timeout_seconds: float = 30.0
    idle_seconds: float = 60.0


@dataclass(frozen=True)
class ServerSettings:
    """All that `kerasline.components.serving.server.run` needs.

    Attributes:
        models: what is served, at least one.
        rest_port, grpc_port: 0 takes a free port; None switches the face off.
        keep_versions: how many of a model's versions are loaded: the one that is served, and the newest others.
        poll_seconds: how often the folders are looked at.
        drain_seconds: how long requests under way may take after SIGTERM.
        certificate, key: PEM files; both or none.
        api_key: what clients must send; None asks for none.
        access_log: a file, or `-` for the standard output; None writes none.
    """

    models: tuple[ModelSource, ...]
    host: str = "127.0.0.1"
    rest_port: int | None = 8501
    grpc_port: int | None = 8500
    keep_versions: int = 1
    poll_seconds: float = 1.0
    drain_seconds: float = 30.0
    batch: BatchSettings = BatchSettings()
    limits: Limits = Limits()
    certificate: Path | None = None
    key: Path | None = None
    api_key: str | None = None
    access_log: str | None = None

    def __post_init__(self) -> None:
        if not self.models:
            raise ParameterError("serve: no model; give a folder, or --model NAME=FOLDER")
        if self.rest_port is None and self.grpc_port is None:
            raise ParameterError("serve: REST and gRPC are both switched off")
        if self.rest_port is not None and self.rest_port == self.grpc_port != 0:
            raise ParameterError(f"serve: REST and gRPC cannot share port {self.rest_port}")
        if bool(self.certificate) != bool(self.key):
            raise ParameterError("serve: TLS needs both --tls-certificate and --tls-key")
        if self.api_key == "":
            raise ParameterError("serve: the API key is empty, so that anybody could come in; give one, or none")
        for file in filter(None, (self.certificate, self.key)):
            if not file.is_file():
                raise ParameterError(f"serve: {file}: no such file")
        names = [model.name for model in self.models]
        for name in names:
            if not NAME.fullmatch(name):
                raise ParameterError(f"serve: {name!r} cannot be a model's name; letters, digits, _ . + - can")
            if names.count(name) > 1:
                raise ParameterError(f"serve: two models are named {name!r}; name them with --model NAME=FOLDER")


def source_of(folder: Path) -> ModelSource:
    """A model named after its folder; a SavedModel in a folder of versions bears that folder's name."""
    path = folder.absolute()
    named = path.parent if path.name.isdigit() and (path / "saved_model.pb").exists() else path
    return ModelSource(re.sub(r"[^A-Za-z0-9_.+-]+", "_", named.name).lstrip("_.+-") or "model", path)
