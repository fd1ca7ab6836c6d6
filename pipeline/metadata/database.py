"""SQLite and PostgreSQL databases: connections, transactions, locks and one-line errors."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import sqlite3
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from kerasline.components.core.errors import StoreError

LOCK_TIMEOUT_SECONDS = 60
CONNECT_TIMEOUT_SECONDS = 15
# A host that disappears (power, network) loses its locks after about this time.
DEAD_AFTER_SECONDS = 120

# Fragments of PostgreSQL error messages, and the advice for each.
_ADVICE = {
    "password authentication failed": "check user and password, in the URL, PGPASSWORD or ~/.pgpass",
    "no password supplied": "give it in the URL, PGPASSWORD or ~/.pgpass",
    "Connection refused": "start the server, or correct host and port",
    "permission denied for schema": "let the user own the database (createdb --owner)",
    "locked": f"waited {LOCK_TIMEOUT_SECONDS} s for another program to release it",
}


class Database:
    """A database, given by its SQLAlchemy URL. Connections are opened on first use.

    PostgreSQL always uses psycopg 3, whichever driver the URL names.

    Raises:
        StoreError: the URL is invalid or the driver is missing.
    """

    def __init__(self, url: str) -> None:
        self._engine = _engine_of(url)
        reading: dict[str, Any] = {}
        writing: dict[str, Any] = {"write": True}
        if self._engine.dialect.name == "postgresql":
            # All queries of a transaction see the same state, as they always do with SQLite.
            reading = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
            writing = {"isolation_level": "READ COMMITTED"}
        self._reading = self._engine.execution_options(**reading)
        self._writing = self._engine.execution_options(**writing)

    @contextlib.contextmanager
    def transaction(self, *, write: bool = False) -> Iterator[sa.Connection]:
        """Open a transaction and commit it at the end. Set `write` for transactions that write.

        SQLite has one writer at a time. On PostgreSQL writers work concurrently. Each statement sees what was committed
        before it began (READ COMMITTED), and a writer that must not be disturbed locks a row.

        Raises:
            StoreError: the database reports an error.
        """
        with self._store_errors(), (self._writing if write else self._reading).begin() as connection:
            yield connection

    @contextlib.contextmanager
    def alone(self, name: str) -> Iterator[sa.Connection]:
        """Open a write transaction that excludes all others of the same name."""
        with self.transaction(write=True) as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_key(name))))
            yield connection

    @contextlib.contextmanager
    def held(self, name: str, *, shared: bool = False) -> Iterator[None]:
        """Hold a named lock against all processes on all hosts, after waiting until it is free.

        Holders with `shared` do not wait for each other.

        The lock belongs to a PostgreSQL session and is released when the connection of its holder closes, so a dead
        process holds none. If the connection breaks while the holder lives, the holder does not notice and continues.
        The work may then be done twice, but each publication is still atomic.

        With SQLite this does nothing, because SQLite serves one host, where kernel locks suffice.
        """
        if self._engine.dialect.name == "sqlite":
            yield
            return
        lock = sa.func.pg_advisory_lock_shared if shared else sa.func.pg_advisory_lock
        with self._store_errors():
            connection = self._engine.execution_options(isolation_level="AUTOCOMMIT").connect()
        try:
            with self._store_errors():
                connection.detach()  # a connection with a lock must not return to the pool
                connection.execute(sa.text(_LASTING_SESSION))
                connection.execute(sa.select(lock(_key(name))))
            yield
        finally:
            with contextlib.suppress(sa.exc.DBAPIError):
                connection.close()

    def is_held(self, name: str) -> bool | None:
        """Return whether a named lock is held, shared or not, or None on SQLite, where this is unknown."""
        if self._engine.dialect.name == "sqlite":
            return None
        with self.transaction() as connection:
            free = connection.execute(sa.select(sa.func.pg_try_advisory_xact_lock(_key(name)))).scalar()
        return not free

    def __str__(self) -> str:
        return _without_password(self._engine.url.render_as_string(hide_password=True))

    @contextlib.contextmanager
    def _store_errors(self) -> Iterator[None]:
        try:
            yield
        except sa.exc.DBAPIError as error:
            raise StoreError(f"metadata store {self}: {_message(error.orig)}") from error


def sqlite_url(path: Path) -> str:
    return f"sqlite:///{path}"


# Settings for a session that waits for or holds a lock for hours without traffic. Older servers lack some of them.
_LASTING_SESSION = f"""
    SELECT set_config(name, CASE WHEN name LIKE 'tcp%idle' THEN '{DEAD_AFTER_SECONDS // 2}'
        WHEN name LIKE 'tcp%interval' THEN '{DEAD_AFTER_SECONDS // 12}' WHEN name LIKE 'tcp%count' THEN '6'
        WHEN name LIKE 'tcp%timeout' THEN '{DEAD_AFTER_SECONDS * 1000}' ELSE '0' END, false)
    FROM pg_settings WHERE name IN ('statement_timeout', 'lock_timeout', 'idle_session_timeout',
        'tcp_keepalives_idle', 'tcp_keepalives_interval', 'tcp_keepalives_count', 'tcp_user_timeout')
"""


def _key(name: str) -> int:
    """Return the 64-bit key of a PostgreSQL advisory lock."""
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()[:8], "big", signed=True)


def _engine_of(url: str) -> sa.Engine:
    try:
        parsed = sa.make_url(url)
        if parsed.drivername.partition("+")[0] in ("postgresql", "postgres"):
            return _postgresql_engine(parsed.set(drivername="postgresql+psycopg"))
        if parsed.get_backend_name() == "sqlite":
            return _sqlite_engine(parsed)
    except ModuleNotFoundError as error:
        hint = "; pip install 'kerasline[postgres]'" if error.name == "psycopg" else ""
        raise StoreError(f"metadata store {_without_password(url)}: {error}{hint}") from error
    except (sa.exc.ArgumentError, ImportError, ValueError) as error:
        raise StoreError(f"metadata store {_without_password(url)!r}: {_without_password(str(error))}") from None
    except OSError as error:
        raise StoreError(f"metadata store {url!r}: {error.strerror}: {error.filename}") from error
    raise StoreError(f"metadata store {_without_password(url)!r}: expected a URL of sqlite or postgresql")


def _sqlite_engine(url: sa.URL) -> sa.Engine:
    if url.database:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    # No pool: one connection per transaction, so that threads and forks never share one.
    engine = sa.create_engine(url, poolclass=sa.pool.NullPool, connect_args={"timeout": LOCK_TIMEOUT_SECONDS})
    sa.event.listen(engine, "connect", _prepare_sqlite)
    sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _postgresql_engine(url: sa.URL) -> sa.Engine:
    if "@" in (url.host or ""):
        raise ValueError("write an '@' in the password as %40")
    arguments = {
        "connect_timeout": CONNECT_TIMEOUT_SECONDS,
        "keepalives_idle": DEAD_AFTER_SECONDS // 2,
        "keepalives_interval": DEAD_AFTER_SECONDS // 12,
        "keepalives_count": 6,
    }
    arguments = {name: value for name, value in arguments.items() if name not in url.query}
    # Pooled, because connecting costs ten times as much as a transaction. No thread waits for another's connection.
    engine = sa.create_engine(url, connect_args=arguments, pool_size=2, max_overflow=-1, pool_pre_ping=True)
    _renew_after_fork(engine)
    return engine


def _renew_after_fork(engine: sa.Engine) -> None:
    """Give a forked child its own connections.

    Two processes on one socket would read each other's responses. A lock's connection that a child kept open would
    outlive the parent that holds the lock.
    """
    connections: weakref.WeakSet[Any] = weakref.WeakSet()
    sa.event.listen(engine, "connect", lambda connection, _record: connections.add(connection))
    reference = weakref.ref(engine)

    def in_child() -> None:
        for connection in list(connections):
            with contextlib.suppress(Exception):  # already closed: no socket
                os.close(connection.fileno())
        engine = reference()
        if engine is not None:
            engine.dispose(close=False)

    os.register_at_fork(after_in_child=in_child)


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    """Use the write-ahead log, so that readers and one writer do not wait for each other.

    With `synchronous=NORMAL` a power failure may lose the last transactions but never corrupts the database. The
    manifests of the artifacts restore them.
    """
    connection.isolation_level = None
    cursor = connection.cursor()
    _retry_while_locked(lambda: cursor.execute("PRAGMA journal_mode=WAL"))
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _begin_sqlite(connection: sa.Connection) -> None:
    """Lock immediately for a writer, so that writers queue. Otherwise the second would fail to upgrade its lock."""
    write = connection.get_execution_options().get("write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _retry_while_locked(call: Callable[[], Any]) -> None:
    """Repeat a call while the database is locked.

    If two programs switch a new database to write-ahead logging at once, SQLite rejects one of them without waiting.
    """
    deadline = time.monotonic() + LOCK_TIMEOUT_SECONDS
    while True:
        try:
            call()
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(0.01)


def _message(error: BaseException | None) -> str:
    text = str(error)
    if missing := re.search(r'database "(.+?)" does not exist', text):
        return f"{text}; create it: createdb {missing[1]}"
    hints = [hint for fragment, hint in _ADVICE.items() if fragment in text]
    return f"{text} ({hints[0]})" if hints else text


def _without_password(text: str) -> str:
    """Return a URL, even an invalid one, with its password hidden."""
    text = re.sub(r"(://[^:/@\s]*):\S*@", r"\1:***@", text)
    return re.sub(r"(password=)[^&\s]*", r"\1***", text)
