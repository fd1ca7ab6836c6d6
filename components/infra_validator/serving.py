"""Our server as the candidate meets it: `python -m ... FOLDER NAME REST_PORT GRPC_PORT SECONDS`."""

from __future__ import annotations

import sys
from pathlib import Path


def main(folder: str, name: str, rest_port: int, grpc_port: int, request_seconds: float) -> None:
    """Serves a SavedModel until it is ended; `grpc_port` 0 switches gRPC off."""
    from kerasline.components.core import garbage_collection, malloc
    from kerasline.components.core.errors import KeraslineError
    from kerasline.components.infra_validator.in_process import without_keras
    from kerasline.components.serving.settings import Limits, ModelSource, ServerSettings

    without_keras()
    garbage_collection.spare_exit()
    malloc.keep_freed()
    settings = ServerSettings(
        models=(ModelSource(name, Path(folder)),),
        rest_port=rest_port,
        grpc_port=grpc_port or None,
        limits=Limits(timeout_seconds=request_seconds),
    )
    from kerasline.components.serving.server import run

    try:
        run(settings, lambda line: print(line, flush=True))
    except KeraslineError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]))
