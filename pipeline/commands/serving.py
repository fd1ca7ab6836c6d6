"""`serve`: the model server."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from kerasline.components.core.errors import KeraslineError, ParameterError
from kerasline.components.serving.runtime.settings import (
    MEBIBYTE,
    Batching,
    BatchSettings,
    Limits,
    ModelDefaults,
    ServerSettings,
    model_sources,
)

KEY_VARIABLE = "KERASLINE_API_KEY"


def serve(
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="[MODEL-DIR]", help="A folder of versions, as Pusher writes it, or a SavedModel."),
    ] = None,
    models: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="NAME=DIR", help="Serve this model too, under this name."),
    ] = None,
    models_file: Annotated[
        Path | None,
        typer.Option("--models", metavar="FILE", help="Serve the models of a TOML file or a ModelServerConfig."),
    ] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option("--label", metavar="NAME:LABEL=VERSION", help="Label a version and keep it loaded."),
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on; :: is all, IPv4 and IPv6.")] = "127.0.0.1",
    rest_port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free port.")] = 8501,
    grpc_port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free port.")] = 8500,
    rest_socket: Annotated[Path | None, typer.Option(help="A Unix socket for REST instead of the port.")] = None,
    grpc_socket: Annotated[Path | None, typer.Option(help="A Unix socket for gRPC instead of the port.")] = None,
    rest: Annotated[bool, typer.Option("--rest/--no-rest", help="Enable REST.")] = True,
    grpc: Annotated[bool, typer.Option("--grpc/--no-grpc", help="Enable gRPC.")] = True,
    keep: Annotated[int, typer.Option(min=1, help="Versions to keep loaded: the served and the newest others.")] = 1,
    poll: Annotated[float, typer.Option(min=0.05, help="Seconds between checks for new versions.")] = 1.0,
    batching: Annotated[
        Batching, typer.Option(help="Execute requests together: on, off, or auto, where rows are independent.")
    ] = Batching.AUTO,
    batch_rows: Annotated[int, typer.Option(min=1, help="Maximum rows per execution.")] = 128,
    batch_delay: Annotated[float, typer.Option(min=0, help="Milliseconds to wait for more requests; 0 is best.")] = 0.0,
    queue: Annotated[int, typer.Option(min=1, help="Maximum waiting requests; beyond, 429.")] = 1000,
    executors: Annotated[
        int, typer.Option(min=1, help="Maximum executions of a signature at once; by default as many as cores.")
    ] = BatchSettings.executors,
    slots: Annotated[
        int, typer.Option(min=1, help="Answers that are generated token by token at once, in the time of a step.")
    ] = BatchSettings.slots,
    workers: Annotated[int, typer.Option(min=1, help="Processes on the same ports, each with all models.")] = 1,
    request_megabytes: Annotated[float, typer.Option(min=0.001, help="Maximum size of a request; beyond, 413.")] = 32.0,
    pending_megabytes: Annotated[float, typer.Option(min=0.001, help="Maximum for all requests in progress.")] = 256.0,
    connections: Annotated[int, typer.Option(min=1, help="Maximum concurrent connections.")] = 1000,
    timeout: Annotated[float, typer.Option(min=0.001, help="Maximum seconds for a request; beyond, 504.")] = 30.0,
    idle: Annotated[float, typer.Option(min=0.1, help="Seconds until an idle or slow client is disconnected.")] = 60.0,
    keep_alive: Annotated[float, typer.Option(min=0.1, help="Seconds between requests of a connection.")] = 75.0,
    drain: Annotated[float, typer.Option(min=0, help="Seconds for requests in progress after SIGTERM.")] = 30.0,
    tls_certificate: Annotated[Path | None, typer.Option(help="PEM file; with --tls-key.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file.")] = None,
    tls_client_ca: Annotated[Path | None, typer.Option(help="PEM file that signs clients' certificates.")] = None,
    api_key: Annotated[
        str | None,
        typer.Option(envvar=KEY_VARIABLE, show_envvar=True, help="Key that clients must send; better by variable."),
    ] = None,
    cors: Annotated[list[str] | None, typer.Option(metavar="ORIGIN", help="Allow pages of this origin, or *.")] = None,
    safe: Annotated[bool, typer.Option("--safe", help="Refuse models that access files or processes.")] = False,
    access_log: Annotated[str | None, typer.Option(help="File for JSON lines, or - for standard output.")] = None,
    request_log: Annotated[Path | None, typer.Option(help="Folder for Parquet files of sampled requests.")] = None,
    request_log_share: Annotated[float, typer.Option(help="The share of requests to log.")] = 0.01,
    request_log_megabytes: Annotated[float, typer.Option(min=0.001, help="Maximum size of the folder.")] = 256.0,
) -> None:
    """Serve models with TensorFlow Serving's REST and gRPC interfaces, and load new versions as they appear."""
    batch = BatchSettings(batching, batch_rows, batch_delay / 1e3, queue, executors, slots=slots)
    defaults = ModelDefaults(keep, batch)
    file = None
    if models_file is None:
        sources = model_sources(folder, models or [], labels or [], defaults)
    else:
        if folder or models or labels:
            raise ParameterError("serve: --models names all models; drop MODEL-DIR, --model and --label")
        from kerasline.components.serving.runtime.models_file import ModelsFile

        file = ModelsFile(models_file, defaults)
        sources = file.read()
    settings = ServerSettings(
        models=sources,
        models_file=file,
        defaults=defaults,
        host=host,
        rest_port=rest_port if rest else None,
        grpc_port=grpc_port if grpc else None,
        poll_seconds=poll,
        drain_seconds=drain,
        limits=Limits(
            int(request_megabytes * MEBIBYTE), int(pending_megabytes * MEBIBYTE), connections, timeout, idle, keep_alive
        ),
        certificate=tls_certificate,
        key=tls_key,
        api_key=os.environ.get(KEY_VARIABLE) if api_key is None else api_key,  # typer drops an empty variable
        access_log=access_log,
        workers=workers,
        safe=safe,
        client_ca=tls_client_ca,
        cors_origins=tuple(cors or ()),
        request_log=(
            (request_log.absolute(), request_log_share, int(request_log_megabytes * MEBIBYTE)) if request_log else None
        ),
        rest_socket=rest_socket,
        grpc_socket=grpc_socket,
    )
    from kerasline.components.serving.runtime.model_folders import check_sources

    check_sources(settings.models)  # before anything heavy is imported
    try:
        from kerasline.components.serving.runtime.server import run as run_server
    except ModuleNotFoundError as error:
        raise KeraslineError(f"serve needs {error.name}: pip install 'kerasline[serve]'") from error
    run_server(settings, lambda line: print(line, flush=True))
