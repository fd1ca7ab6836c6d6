"""`serve`: the model server."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from kerasline.components.core.errors import KeraslineError, ParameterError, nearest

KEY_VARIABLE = "KERASLINE_API_KEY"


def serve(
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="[MODEL-DIR]", help="A folder of versions, as Pusher writes it, or a SavedModel."),
    ] = None,
    models: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="NAME=DIR", help="Serve this too, under that name."),
    ] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option("--label", metavar="NAME:LABEL=VERSION", help="Name a version and keep it loaded."),
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    rest_port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free port.")] = 8501,
    grpc_port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free port.")] = 8500,
    rest: Annotated[bool, typer.Option("--rest/--no-rest", help="Answer REST.")] = True,
    grpc: Annotated[bool, typer.Option("--grpc/--no-grpc", help="Answer gRPC.")] = True,
    keep: Annotated[int, typer.Option(min=1, help="Load so many: the one served and the newest others.")] = 1,
    poll: Annotated[float, typer.Option(min=0.05, help="Look for new versions every so many seconds.")] = 1.0,
    batching: Annotated[bool, typer.Option("--batching/--no-batching", help="Execute requests together.")] = True,
    batch_rows: Annotated[int, typer.Option(min=1, help="The most rows in one execution.")] = 128,
    batch_delay: Annotated[float, typer.Option(min=0, help="Milliseconds to wait for more; 0 is best.")] = 0.0,
    queue: Annotated[int, typer.Option(min=1, help="The most requests that may wait; then 429.")] = 1000,
    request_megabytes: Annotated[float, typer.Option(min=0.001, help="The largest request; above, 413.")] = 32.0,
    pending_megabytes: Annotated[float, typer.Option(min=0.001, help="All requests under way together.")] = 256.0,
    connections: Annotated[int, typer.Option(min=1, help="The most connections at once.")] = 1000,
    timeout: Annotated[float, typer.Option(min=0.001, help="The most seconds for a request; then 504.")] = 30.0,
    idle: Annotated[float, typer.Option(min=0.1, help="Seconds until a silent or slow client is cut off.")] = 60.0,
    drain: Annotated[float, typer.Option(min=0, help="Seconds for requests under way after SIGTERM.")] = 30.0,
    tls_certificate: Annotated[Path | None, typer.Option(help="PEM file; with --tls-key.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file.")] = None,
    api_key: Annotated[
        str | None,
        typer.Option(envvar=KEY_VARIABLE, show_envvar=True, help="What clients must send; best by environment."),
    ] = None,
    access_log: Annotated[str | None, typer.Option(help="JSON lines to this file; - is the screen.")] = None,
) -> None:
    """Serve models by TensorFlow Serving's REST and gRPC interfaces; new versions are taken up as they come."""
    from dataclasses import replace

    from kerasline.components.serving.settings import (
        MEBIBYTE,
        BatchSettings,
        Limits,
        ModelSource,
        ServerSettings,
        source_of,
    )

    sources = [source_of(folder)] if folder is not None else []
    for text in models or []:
        name, equals, path = text.partition("=")
        if not equals or not path:
            raise ParameterError(f"--model {text}: NAME=DIR wanted, as in penguins=served/penguins")
        sources.append(ModelSource(name, Path(path).absolute()))
    for text in labels or []:
        name, label, version = _parsed_label(text, sources)
        place = [source.name for source in sources].index(name)
        sources[place] = replace(sources[place], labels={**sources[place].labels, label: version})
    settings = ServerSettings(
        models=tuple(sources),
        host=host,
        rest_port=rest_port if rest else None,
        grpc_port=grpc_port if grpc else None,
        keep_versions=keep,
        poll_seconds=poll,
        drain_seconds=drain,
        batch=BatchSettings(batch_rows, batch_delay / 1e3, queue, batching),
        limits=Limits(int(request_megabytes * MEBIBYTE), int(pending_megabytes * MEBIBYTE), connections, timeout, idle),
        certificate=tls_certificate,
        key=tls_key,
        api_key=os.environ.get(KEY_VARIABLE) if api_key is None else api_key,  # an empty one is no option's
        access_log=access_log,
    )
    from kerasline.components.serving.runtime.versions import check_sources

    check_sources(settings.models)  # before anything heavy is imported
    try:
        from kerasline.components.serving.server import run as run_server
    except ModuleNotFoundError as error:
        raise KeraslineError(f"serve needs {error.name}: pip install 'kerasline[serve]'") from error
    run_server(settings, lambda line: print(line, flush=True))


def _parsed_label(text: str, sources: Sequence[Any]) -> tuple[str, str, int]:
    place, equals, version = text.partition("=")
    name, colon, label = place.rpartition(":")
    if not colon and len(sources) == 1:
        name = sources[0].name
    if not equals or not label or not version.isdigit():
        raise ParameterError(f"--label {text}: NAME:LABEL=VERSION wanted, as in penguins:stable=3")
    if name not in [source.name for source in sources]:
        raise ParameterError(f"--label {text}: {nearest(name, [source.name for source in sources])}")
    return name, label, int(version)
