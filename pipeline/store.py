"""The metadata store: which runs there were, what they executed, what came of it, and from what.

Tables: `runs`; `executions`, one a node and run; `artifacts`, one an output folder; `events`, which
tie executions to the artifacts that they read and wrote. `file_digests` remembers the content
digests of outside files, so that a large file is hashed once and not at every run.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from components.errors import StoreError, nearest

LOCK_TIMEOUT_SECONDS = 60
# So many executions of a node are looked through for an earlier one.
MOST_HISTORY = 200

_metadata = sa.MetaData()

_runs = sa.Table(
    "runs",
    _metadata,
    sa.Column("id", sa.String(100), primary_key=True),
    sa.Column("pipeline", sa.String(200), nullable=False),
    sa.Column("recipe", sa.Text, nullable=False),
    sa.Column("root", sa.Text, nullable=False),
    sa.Column("state", sa.String(20), nullable=False),
    sa.Column("settings", sa.JSON, nullable=False),
    sa.Column("started", sa.DateTime, nullable=False),
    sa.Column("finished", sa.DateTime),
    sa.Column("seconds", sa.Float),
)

_executions = sa.Table(
    "executions",
    _metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("run_id", sa.ForeignKey("runs.id"), nullable=False),
    sa.Column("pipeline", sa.String(200), nullable=False),
    sa.Column("node", sa.String(200), nullable=False),
    sa.Column("component", sa.Text, nullable=False),
    sa.Column("state", sa.String(20), nullable=False),
    sa.Column("fingerprint", sa.String(64), index=True),
    sa.Column("folder", sa.Text),
    sa.Column("metrics", sa.JSON, nullable=False),
    sa.Column("message", sa.Text),
    sa.Column("started", sa.DateTime, nullable=False),
    sa.Column("finished", sa.DateTime),
    sa.Column("seconds", sa.Float),
    sa.UniqueConstraint("run_id", "node"),
)

_artifacts = sa.Table(
    "artifacts",
    _metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("type", sa.String(100), nullable=False),
    sa.Column("path", sa.Text, nullable=False, unique=True),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("created", sa.DateTime, nullable=False),
)

_events = sa.Table(
    "events",
    _metadata,
    sa.Column("execution_id", sa.ForeignKey("executions.id"), primary_key=True),
    sa.Column("artifact_id", sa.ForeignKey("artifacts.id"), primary_key=True, index=True),
    sa.Column("direction", sa.String(3), primary_key=True),
    sa.Column("name", sa.String(200), primary_key=True),
)

_file_digests = sa.Table(
    "file_digests",
    _metadata,
    sa.Column("path", sa.String(1000), primary_key=True),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("mtime_ns", sa.BigInteger, nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),
)


@dataclass(frozen=True)
class StoredArtifact:
    """An artifact as the store knows it; `id` is a name for people too, by its first digits."""

    type: str
    path: str
    digest: str
    size_bytes: int
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: datetime.datetime = field(default_factory=lambda: now())


@dataclass(frozen=True)
class Execution:
    """What became of one node in one run.

    Attributes:
        state: running, ran, cached, skipped or failed.
        folder: the published folder that holds a sub-folder for each output, and its manifest.
        message: why it was skipped or failed, or what is worth telling besides.
    """

    run_id: str
    pipeline: str
    node: str
    component: str
    state: str
    started: datetime.datetime
    fingerprint: str | None = None
    folder: str | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    message: str | None = None
    finished: datetime.datetime | None = None
    seconds: float | None = None
    inputs: Mapping[str, StoredArtifact] = field(default_factory=dict)
    outputs: Mapping[str, StoredArtifact] = field(default_factory=dict)
    id: str = field(default_factory=lambda: uuid.uuid4().hex)


@dataclass(frozen=True)
class Run:
    """One run of a pipeline. `state`: running, succeeded or failed."""

    id: str
    pipeline: str
    recipe: str
    root: str
    state: str
    started: datetime.datetime
    settings: Mapping[str, Any] = field(default_factory=dict)
    finished: datetime.datetime | None = None
    seconds: float | None = None


def now() -> datetime.datetime:
    """The time in UTC, without a zone, as the store keeps it."""
    return datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)


def new_run_id() -> str:
    """A name for a run that sorts by time and never comes twice."""
    return f"{datetime.datetime.now():%Y%m%d-%H%M%S}-{uuid.uuid4().hex[:6]}"


class Store:
    """Opens a metadata store and makes its tables where they are missing.

    Args:
        url: any SQLAlchemy URL, such as `sqlite:///folder/metadata.sqlite` or `postgresql+psycopg://...`.

    Raises:
        StoreError: it cannot be opened, or is not a database.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._engine = _open(url)
        with self._transaction(write=True) as connection:
            _metadata.create_all(connection)

    def __reduce__(self) -> Any:
        return _opened_once, (self.url,)

    # What happens

    def begin_run(self, run: Run) -> None:
        """Records a run, or that one is taken up again; its earlier executions stay."""
        with self._transaction(write=True) as connection:
            known = connection.execute(sa.select(_runs.c.id).where(_runs.c.id == run.id)).first()
            if known is None:
                connection.execute(_runs.insert().values(**vars(run)))
            else:
                changed = {"state": run.state, "finished": None, "settings": run.settings}
                connection.execute(_runs.update().where(_runs.c.id == run.id).values(changed))

    def finish_run(self, run_id: str, state: str, seconds: float) -> None:
        with self._transaction(write=True) as connection:
            values = {"state": state, "finished": now(), "seconds": seconds}
            connection.execute(_runs.update().where(_runs.c.id == run_id).values(values))

    def record(self, execution: Execution) -> None:
        """Writes an execution, its artifacts and its events in one transaction.

        A node has one execution in a run: what was recorded for it before is replaced.
        """
        columns = {c.name: getattr(execution, c.name) for c in _executions.c}
        columns["metrics"] = dict(execution.metrics)
        with self._transaction(write=True) as connection:
            _forget(connection, execution.run_id, execution.node)
            connection.execute(_executions.insert().values(columns))
            for direction in ("in", "out"):
                artifacts = execution.inputs if direction == "in" else execution.outputs
                for name, artifact in artifacts.items():
                    event = {"direction": direction, "name": name, "execution_id": execution.id}
                    event["artifact_id"] = _artifact_id(connection, artifact)
                    connection.execute(_events.insert().values(event))

    def progress(self, execution_id: str, message: str) -> None:
        """Says how far a running execution is."""
        with self._transaction(write=True) as connection:
            row = _executions.c.id == execution_id
            connection.execute(_executions.update().where(row).values(message=message))

    def remember_digest(self, path: str, size: int, mtime_ns: int, digest: str) -> None:
        row = {"path": path, "size": size, "mtime_ns": mtime_ns, "digest": digest}
        with self._transaction(write=True) as connection:
            connection.execute(_file_digests.delete().where(_file_digests.c.path == path))
            connection.execute(_file_digests.insert().values(row))

    def forget_artifacts(self, paths: Sequence[str]) -> None:
        """Marks executions whose folders were removed, so that the cache no longer offers them."""
        with self._transaction(write=True) as connection:
            gone = _executions.c.folder.in_(list(paths))
            connection.execute(_executions.update().where(gone).values(fingerprint=None))

    # What is known

    def known_digest(self, path: str, size: int, mtime_ns: int) -> str | None:
        """The digest of a file that has not been touched since it was last hashed."""
        t = _file_digests.c
        query = sa.select(t.digest).where(t.path == path, t.size == size, t.mtime_ns == mtime_ns)
        return self._scalar(query)

    def runs(self) -> list[Run]:
        """Every run, the newest first."""
        with self._transaction() as connection:
            rows = connection.execute(sa.select(_runs).order_by(_runs.c.started.desc()))
            return [Run(**row._mapping) for row in rows]

    def run(self, run_id: str) -> Run:
        """A run by its id or the beginning of it.

        Raises:
            StoreError: there is none, or several begin so.
        """
        every = self.runs()
        found = [r for r in every if r.id == run_id] or [r for r in every if r.id.startswith(run_id)]
        if len(found) == 1:
            return found[0]
        if found:
            raise StoreError(f"run {run_id!r}: {len(found)} runs begin so; give more of the id")
        raise StoreError(f"run {run_id!r}: no such run; {nearest(run_id, [r.id for r in every[:20]])}")

    def executions(self, run_id: str) -> list[Execution]:
        """The executions of a run in the order in which they began, with inputs and outputs."""
        query = sa.select(_executions).where(_executions.c.run_id == run_id)
        return self._executions(query.order_by(_executions.c.started))

    def published(self, fingerprint: str) -> Execution | None:
        """The newest execution that did the work of a fingerprint: ran it, or found it void."""
        t = _executions.c
        query = sa.select(_executions).where(t.fingerprint == fingerprint)
        query = query.where(t.state.in_(["ran", "cached", "skipped"]))
        found = self._executions(query.order_by(t.finished.desc()).limit(1))
        return found[0] if found else None

    def latest(self, pipeline: str, node: str, run_id: str) -> Execution | None:
        """The execution whose outputs stand for a node that is not run: this run's, or the newest."""
        t = _executions.c
        query = sa.select(_executions).where(t.pipeline == pipeline, t.node == node)
        query = query.where(t.state.in_(["ran", "cached"]), t.folder.is_not(None))
        order = [sa.case((t.run_id == run_id, 0), else_=1), t.finished.desc()]
        found = self._executions(query.order_by(*order).limit(1))
        return found[0] if found else None

    def history(self, pipeline: str, node: str) -> list[Execution]:
        """The executions of a node that gave outputs, in all runs, the newest first."""
        t = _executions.c
        query = sa.select(_executions).where(t.pipeline == pipeline, t.node == node)
        query = query.where(t.state.in_(["ran", "cached"]), t.folder.is_not(None))
        return self._executions(query.order_by(t.finished.desc()).limit(MOST_HISTORY))

    def artifact(self, key: str) -> StoredArtifact | None:
        """An artifact by its id, the beginning of it, or its path or URL."""
        t = _artifacts.c
        path = key.rstrip("/") if "://" in key else str(Path(key).absolute())
        query = sa.select(_artifacts).where(t.id.startswith(key, autoescape=True) | (t.path == path))
        with self._transaction() as connection:
            rows = connection.execute(query.limit(2)).all()
        if len(rows) > 1:
            raise StoreError(f"artifact {key!r}: several begin so; give more of the id")
        return StoredArtifact(**rows[0]._mapping) if rows else None

    def writer(self, artifact_id: str) -> Execution | None:
        """The execution that wrote an artifact, as opposed to those that found it in the cache."""
        query = self._touching(artifact_id, "out").where(_executions.c.state == "ran")
        found = self._executions(query.order_by(_executions.c.finished).limit(1))
        return found[0] if found else None

    def readers(self, artifact_id: str) -> list[Execution]:
        """The executions that read an artifact and did work."""
        query = self._touching(artifact_id, "in").where(_executions.c.state == "ran")
        return self._executions(query.order_by(_executions.c.finished))

    def _touching(self, artifact_id: str, direction: str) -> sa.Select:
        query = sa.select(_executions).join(_events, _events.c.execution_id == _executions.c.id)
        return query.where(_events.c.artifact_id == artifact_id, _events.c.direction == direction)

    def _executions(self, query: sa.Select) -> list[Execution]:
        with self._transaction() as connection:
            rows = connection.execute(query).all()
            ties: dict[str, dict[str, dict[str, StoredArtifact]]] = {}
            joined = sa.select(_events, _artifacts).join(_artifacts)
            ids = [row.id for row in rows]
            for event in connection.execute(joined.where(_events.c.execution_id.in_(ids))):
                artifact = StoredArtifact(**{c.name: event._mapping[c] for c in _artifacts.c})
                sides = ties.setdefault(event.execution_id, {"in": {}, "out": {}})
                sides[event.direction][event.name] = artifact
        none: dict[str, dict[str, StoredArtifact]] = {"in": {}, "out": {}}
        return [
            Execution(
                **row._mapping,
                inputs=ties.get(row.id, none)["in"],
                outputs=ties.get(row.id, none)["out"],
            )
            for row in rows
        ]

    def _scalar(self, query: sa.Select) -> Any:
        with self._transaction() as connection:
            return connection.execute(query).scalar()

    @contextlib.contextmanager
    def _transaction(self, *, write: bool = False) -> Iterator[sa.Connection]:
        try:
            with self._engine.execution_options(write=write).begin() as connection:
                yield connection
        except sa.exc.DBAPIError as error:
            hint = ""
            if "locked" in str(error.orig):
                hint = f" (waited {LOCK_TIMEOUT_SECONDS} s for another program to let go of it)"
            raise StoreError(f"metadata store {self._shown()}: {error.orig}{hint}") from error

    def _shown(self) -> str:
        return self._engine.url.render_as_string(hide_password=True)


@functools.cache
def _opened_once(url: str) -> Store:
    """The store in a worker, opened once in a process, however many steps unpickle it."""
    return Store(url)


def sqlite_url(path: Path) -> str:
    return f"sqlite:///{path}"


def _open(url: str) -> sa.Engine:
    try:
        parsed = sa.make_url(url)
        if parsed.get_backend_name() != "sqlite":
            return sa.create_engine(parsed, pool_pre_ping=True)
        if parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        # No pool: a connection a transaction, so that threads and forks never share one.
        engine = sa.create_engine(
            parsed, poolclass=sa.pool.NullPool, connect_args={"timeout": LOCK_TIMEOUT_SECONDS}
        )
    except (sa.exc.ArgumentError, ImportError) as error:
        raise StoreError(f"metadata store {url!r}: {error}") from error
    except OSError as error:
        raise StoreError(f"metadata store {url!r}: {error.strerror}: {error.filename}") from error
    sa.event.listen(engine, "connect", _prepare_sqlite)
    sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    """Write-ahead log, so that readers and one writer do not wait for each other.

    With `synchronous=NORMAL` a power cut may lose the last transactions but never the database;
    the manifests beside the artifacts bring them back.
    """
    connection.isolation_level = None
    cursor = connection.cursor()
    _patiently(lambda: cursor.execute("PRAGMA journal_mode=WAL"))
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _begin_sqlite(connection: sa.Connection) -> None:
    """A writer locks at once: two writers queue, where the second would fail to upgrade its lock."""
    write = connection.get_execution_options().get("write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _patiently(call: Callable[[], Any]) -> None:
    """Calls again while the database is locked: when two programs turn a new database to
    write-ahead logging at once, SQLite refuses one of them without waiting its timeout.
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


def _forget(connection: sa.Connection, run_id: str, node: str) -> None:
    t = _executions.c
    old = connection.execute(sa.select(t.id).where(t.run_id == run_id, t.node == node)).scalar()
    if old is not None:
        connection.execute(_events.delete().where(_events.c.execution_id == old))
        connection.execute(_executions.delete().where(t.id == old))


def _artifact_id(connection: sa.Connection, artifact: StoredArtifact) -> str:
    """The id under which the artifact is known; it is made known if it is not."""
    query = sa.select(_artifacts.c.id).where(_artifacts.c.path == artifact.path)
    known = connection.execute(query).scalar()
    if known is None:
        connection.execute(_artifacts.insert().values(**vars(artifact)))
    return known or artifact.id
