"""One configuration for all worker processes: the worker that a client reached passes it on to the others."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pickle
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import IO

from kerasline.components.core.atomic_files import atomic_write
from kerasline.components.serving.runtime.errors import RequestError, unavailable
from kerasline.components.serving.runtime.settings import ModelSource

Apply = Callable[[Sequence[ModelSource]], Awaitable[None]]


class SharedConfiguration:
    """The models that all workers serve by order of a client.

    Each worker listens on a Unix socket in a folder of their own. A worker that starts later, because it replaces
    another, finds the configuration in a file there.

    Args:
        folder: a private folder, the same for all workers.
        apply: serves other models in this process. It raises a RequestError if one cannot be loaded.
    """

    def __init__(self, folder: Path, apply: Apply) -> None:
        self._folder, self._apply = folder, apply
        self._file = folder / "configuration"
        self._server: asyncio.Server | None = None

    async def listen(self) -> None:
        """Apply from now on what other workers pass on."""
        self._server = await asyncio.start_unix_server(self._answer, self._folder / f"{os.getpid()}.socket")

    def close(self) -> None:
        if self._server is not None:
            self._server.close()

    def read(self) -> Sequence[ModelSource] | None:
        """Return the models of the last `publish`, if there was one."""
        try:
            return pickle.loads(self._file.read_bytes())
        except FileNotFoundError:
            return None

    def forget(self) -> None:
        """Let workers that start later read the file of --models, which has changed."""
        self._file.unlink(missing_ok=True)

    async def publish(self, sources: Sequence[ModelSource]) -> None:
        """Have all workers serve other models, and wait until each does.

        Raises:
            RequestError: UNAVAILABLE, with the process of each worker that does not serve all of them, and why.
        """
        with await asyncio.get_running_loop().run_in_executor(None, self._lock):
            content = pickle.dumps(tuple(sources))
            with atomic_write(self._file) as temporary:
                temporary.write_bytes(content)
            sockets = sorted(self._folder.glob("*.socket"))
            errors = await asyncio.gather(*(_pass_on(socket, content) for socket in sockets))
        failures = [f"worker {socket.stem}: {error}" for socket, error in zip(sockets, errors) if error]
        if failures:
            raise unavailable("; ".join(failures))

    def _lock(self) -> IO[str]:
        """Exclude other workers, and other calls in this process, until the result is closed."""
        file = open(self._folder / "lock", "w")
        fcntl.flock(file, fcntl.LOCK_EX)
        return file

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            try:
                await self._apply(pickle.loads(await reader.read()))
                writer.write(b"served")
            except RequestError as error:
                writer.write(str(error).encode())
            await writer.drain()


async def _pass_on(socket: Path, content: bytes) -> str:
    """Return why a worker does not serve a configuration, or nothing if it does, or has ended.

    The worker that replaces it reads the configuration from the file.
    """
    try:
        reader, writer = await asyncio.open_unix_connection(socket)
    except OSError:
        socket.unlink(missing_ok=True)
        return ""
    with contextlib.closing(writer):
        try:
            writer.write(content)
            writer.write_eof()
            answer = await reader.read()
        except OSError as error:
            answer = str(error).encode()
    return "" if answer == b"served" else answer.decode() or "it ended before it answered"
