"""The server under the gRPC face: h2corn, whose HTTP/2 is written in Rust and leaves the event loop to answers.

grpcio's own server takes ten times the processor for a call (docs/SERVING.md).
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from kerasline.components.core.errors import KeraslineError
from kerasline.components.serving.settings import ServerSettings

# One thread beside the event loop's: a second one only takes turns with them.
HTTP2_THREADS = 1
# How much of its messages a client may send before they are read.
WINDOW_BYTES = 1 << 20


class GrpcServer:
    """Listens from `start` to `stop`."""

    def __init__(self, face: Any, settings: ServerSettings):
        try:
            import h2corn
        except ImportError as error:
            raise KeraslineError(
                "serve: gRPC needs h2corn, which 'kerasline[serve]' brings on Python 3.11 and newer; "
                "serve without it by --no-grpc"
            ) from error
        limits = settings.limits
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        config = h2corn.Config(
            bind=(f"{host}:{settings.grpc_port}",),
            grpc=True,
            http1=False,
            lifespan="off",
            loop="asyncio",
            access_log=False,
            certfile=settings.certificate,
            keyfile=settings.key,
            runtime_threads=HTTP2_THREADS,
            limit_connections=limits.connections,
            max_concurrent_streams=limits.connections,
            h2_initial_stream_window_size=WINDOW_BYTES,
            h2_initial_connection_window_size=WINDOW_BYTES,
            request_policies=(_policy(h2corn, limits.idle_seconds),),
            timeout_keep_alive=limits.idle_seconds,
            timeout_handshake=limits.idle_seconds,
            timeout_request_header=limits.idle_seconds,
            timeout_graceful_shutdown=settings.drain_seconds,
        )
        self._server = h2corn.Server(face, config)
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> int:
        """The port that it listens on. Raises KeraslineError: it is taken, or the certificate is of no use."""
        self._serving = asyncio.ensure_future(self._server.serve())
        try:
            await self._server.wait_started()
        except (OSError, ValueError) as error:
            await asyncio.gather(self._serving, return_exceptions=True)
            self._serving = None
            hint = "; try --grpc-port" if "could not bind" in str(error) else ""
            raise KeraslineError(f"serve: gRPC cannot listen: {error}{hint}") from error
        return int(self._server.addresses[0].rpartition(":")[2])

    async def stop(self) -> None:
        """Answers the calls under way, for `drain_seconds` at most."""
        if self._serving is None:
            return
        self._server.shutdown()
        with contextlib.suppress(RuntimeError):  # the time was over
            await self._serving


def _policy(h2corn: Any, idle_seconds: float) -> Any:
    """For all calls: who sends or reads nothing for so long is hung up on. The face itself bounds their size."""
    return h2corn.RequestPolicy(
        path="/*",
        max_request_body_size=0,
        timeout_request_body_idle=idle_seconds,
        h2_timeout_response_stall=idle_seconds,
    )
