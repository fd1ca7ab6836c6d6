"""The metadata store: runs, their executions, and the artifacts that executions read and wrote.

Tables: `runs`; `executions`, one per node and run; `artifacts`, one per output folder; `events`, which connect
executions with the artifacts that they read and wrote; `file_digests`, the digests of files outside the root, so that a
large file is hashed once and not in every run.

SQLite has one writer at a time. On PostgreSQL writers work concurrently, and three rules keep the data consistent. A
row is replaced by one statement (INSERT ... ON CONFLICT) or while the row of its run is locked. A row that two writers
may add at once is added with ON CONFLICT DO NOTHING. Rows of a table are always locked in the same order, so that two
writers never wait for each other.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from kerasline.components.core.errors import KeraslineError, StoreError, nearest
from kerasline.pipeline.metadata.database import Database, sqlite_url
from kerasline.pipeline.metadata.migrations import bring_up_to_date
from kerasline.pipeline.metadata.records import Execution, Run, StoredArtifact, new_run_id, now
from kerasline.pipeline.metadata.tables import artifacts as _artifacts
from kerasline.pipeline.metadata.tables import events as _events
from kerasline.pipeline.metadata.tables import executions as _executions
from kerasline.pipeline.metadata.tables import file_digests as _file_digests
from kerasline.pipeline.metadata.tables import runs as _runs

if TYPE_CHECKING:
    from kerasline.pipeline.storage.artifact_root import ArtifactRoot

__all__ = ["Execution", "Run", "Store", "StoredArtifact", "new_run_id", "now", "open_store", "sqlite_url"]

# Search at most this many executions of a node for an earlier one.
MOST_HISTORY = 200

# Do not store the digest of a file with a longer path: an index of PostgreSQL holds at most 2,700 bytes per entry.
MOST_PATH_BYTES = 2000


class Store:
    """A metadata store. Opening it creates missing tables and upgrades older ones.

    Args:
        url: SQLAlchemy URL, such as `sqlite:///folder/metadata.sqlite` or
            `postgresql://user:password@host:port/database`.

    Raises:
        StoreError: it cannot be opened, is not a database, or was created by a newer kerasline.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._database = Database(url)
        bring_up_to_date(self._database)

    def __reduce__(self) -> Any:
        return _opened_once, (self.url,)

    # Writing

    def begin_run(self, run: Run) -> None:
        """Record a new or resumed run. A resumed run keeps its earlier executions.

        Raises:
            StoreError: a run of another pipeline has this ID.
        """
        changed = {"state": run.state, "finished": None, "settings": run.settings}
        with self._transaction(write=True) as connection:
            insert = _insert(connection, _runs).values(**vars(run))
            connection.execute(insert.on_conflict_do_update(index_elements=["id"], set_=changed))
            owner = connection.execute(sa.select(_runs.c.pipeline).where(_runs.c.id == run.id)).scalar()
            if owner != run.pipeline:  # the exception rolls the transaction back
                raise StoreError(f"run {run.id!r} belongs to the pipeline {owner!r}; choose another ID")

    def finish_run(self, run_id: str, state: str, seconds: float) -> None:
        with self._transaction(write=True) as connection:
            values = {"state": state, "finished": now(), "seconds": seconds}
            connection.execute(_runs.update().where(_runs.c.id == run_id).values(values))

    def record(self, execution: Execution) -> None:
        """Record an execution, its artifacts and its events in one transaction.

        A node has one execution per run: an earlier record of it is replaced.
        """
        columns = {c.name: getattr(execution, c.name) for c in _executions.c}
        sides = (("in", execution.inputs), ("out", execution.outputs))
        links = [(side, name, artifact) for side, named in sides for name, artifact in named.items()]
        with self._transaction(write=True) as connection:
            # Writers of the same run queue here, so that no two replace the execution of a node at once.
            run = sa.select(_runs.c.id).where(_runs.c.id == execution.run_id)
            connection.execute(run.with_for_update(key_share=True))
            _forget(connection, execution.run_id, execution.node)
            connection.execute(_executions.insert().values(columns))
            ids = _add_artifacts(connection, [artifact for _, _, artifact in links])
            rows = [
                {"execution_id": execution.id, "artifact_id": ids[artifact.path], "direction": side, "name": name}
                for side, name, artifact in links
            ]
            if rows:
                connection.execute(_events.insert(), rows)

    def progress(self, execution_id: str, message: str) -> None:
        """Record the progress of a running execution."""
        with self._transaction(write=True) as connection:
            row = _executions.c.id == execution_id
            connection.execute(_executions.update().where(row).values(message=message))

    def remember_digest(self, path: str, state: str, digest: str) -> None:
        """Store the digest of a file, with the state of the file that `file_state` returned before it was read."""
        if len(path.encode("utf-8", "surrogatepass")) > MOST_PATH_BYTES:
            return
        facts = {"state": state, "digest": digest}
        with self._transaction(write=True) as connection:
            row = _insert(connection, _file_digests).values(path=path, **facts)
            connection.execute(row.on_conflict_do_update(index_elements=["path"], set_=facts))

    def forget_artifacts(self, paths: Sequence[str]) -> None:
        """Mark executions whose folders were removed, so that the cache no longer returns them."""
        with self._transaction(write=True) as connection:
            t = _executions.c
            removed = sa.select(t.id).where(t.folder.in_(list(paths))).order_by(t.id).with_for_update(key_share=True)
            ids = connection.execute(removed).scalars().all()
            connection.execute(_executions.update().where(t.id.in_(ids)).values(fingerprint=None))

    def held(self, name: str, *, shared: bool = False) -> contextlib.AbstractContextManager[None]:
        """Hold a named lock against all other hosts that use this store, until the `with` block ends.

        See `Database.held`. On SQLite this does nothing.
        """
        return self._database.held(name, shared=shared)

    def is_held(self, name: str) -> bool | None:
        """Return whether any host holds a named lock, or None on SQLite, where this is unknown."""
        return self._database.is_held(name)

    # Reading

    def known_digest(self, path: str, state: str) -> str | None:
        """Return the stored digest of a file, or None if the file was in another state when it was hashed."""
        t = _file_digests.c
        return self._scalar(sa.select(t.digest).where(t.path == path, t.state == state))

    def runs(self) -> list[Run]:
        """Return all runs, newest first."""
        with self._transaction() as connection:
            rows = connection.execute(sa.select(_runs).order_by(_runs.c.started.desc()))
            return [Run(**row._mapping) for row in rows]

    def run(self, run_id: str) -> Run:
        """Return a run by its ID, by a prefix of it, or the newest run by "latest".

        Raises:
            StoreError: no run or more than one run matches.
        """
        runs = self.runs()
        newest = runs[:1] if run_id == "latest" else []
        found = [r for r in runs if r.id == run_id] or newest or [r for r in runs if r.id.startswith(run_id)]
        if len(found) == 1:
            return found[0]
        if found:
            raise StoreError(f"run {run_id!r}: {len(found)} runs begin with it; add characters of the ID")
        raise StoreError(f"run {run_id!r}: no such run; {nearest(run_id, [r.id for r in runs[:20]])}")

    def executions(self, run_id: str) -> list[Execution]:
        """Return the executions of a run, with inputs and outputs, in the order in which they started."""
        query = sa.select(_executions).where(_executions.c.run_id == run_id)
        return self._executions(query.order_by(_executions.c.started))

    def published(self, fingerprint: str) -> Execution | None:
        """Return the newest execution of a fingerprint that ran, was cached or was skipped."""
        t = _executions.c
        query = sa.select(_executions).where(t.fingerprint == fingerprint)
        query = query.where(t.state.in_(["ran", "cached", "skipped"]))
        found = self._executions(query.order_by(t.finished.desc()).limit(1))
        return found[0] if found else None

    def latest(self, pipeline: str, node: str, run_id: str) -> Execution | None:
        """Return the execution that provides the outputs of a node: the one of this run, or else the newest."""
        with_outputs = self._with_outputs(pipeline, node)
        ours = self._executions(with_outputs.where(_executions.c.run_id == run_id))
        found = ours or self._executions(with_outputs.order_by(_executions.c.finished.desc()).limit(1))
        return found[0] if found else None

    def history(self, pipeline: str, node: str) -> list[Execution]:
        """Return the executions of a node that produced outputs, in all runs, newest first."""
        query = self._with_outputs(pipeline, node).order_by(_executions.c.finished.desc())
        return self._executions(query.limit(MOST_HISTORY))

    def artifact(self, key: str) -> StoredArtifact | None:
        """Return an artifact by its ID, a prefix of the ID, its path or its URL."""
        t = _artifacts.c
        path = key.rstrip("/") if "://" in key else str(Path(key).absolute())
        query = sa.select(_artifacts).where(t.id.startswith(key, autoescape=True) | (t.path == path))
        with self._transaction() as connection:
            rows = connection.execute(query.limit(2)).all()
        if len(rows) > 1:
            raise StoreError(f"artifact {key!r}: several begin with it; give more of the id")
        return StoredArtifact(**rows[0]._mapping) if rows else None

    def writer(self, artifact_id: str) -> Execution | None:
        """Return the execution that wrote an artifact, not those that found it in the cache."""
        found = self._producers(artifact_id, "out")
        return found[0] if found else None

    def readers(self, artifact_id: str) -> list[Execution]:
        """Return the executions that read an artifact and did work."""
        return self._producers(artifact_id, "in")

    def _with_outputs(self, pipeline: str, node: str) -> sa.Select:
        t = _executions.c
        query = sa.select(_executions).where(t.pipeline == pipeline, t.node == node)
        return query.where(t.state.in_(["ran", "cached"]), t.folder.is_not(None))

    def _producers(self, artifact_id: str, direction: str) -> list[Execution]:
        """Return the executions that read or wrote an artifact: for each of their folders, the one that produced it.

        If the store has no such record, as after a resumed run, it is the first one that found the folder in the cache.
        """
        t = _executions.c
        query = sa.select(_executions).join(_events, _events.c.execution_id == t.id)
        query = query.where(_events.c.artifact_id == artifact_id, _events.c.direction == direction)
        query = query.where(t.state.in_(["ran", "cached"])).order_by(t.state != "ran", t.finished)
        by_folder: dict[str | None, Execution] = {}
        for execution in self._executions(query):
            by_folder.setdefault(execution.folder, execution)
        return sorted(by_folder.values(), key=lambda execution: execution.finished or execution.started)

    def _executions(self, query: sa.Select) -> list[Execution]:
        with self._transaction() as connection:
            rows = connection.execute(query).all()
            links: dict[str, dict[str, dict[str, StoredArtifact]]] = {}
            joined = sa.select(_events, _artifacts).join(_artifacts)
            ids = [row.id for row in rows]
            for event in connection.execute(joined.where(_events.c.execution_id.in_(ids))):
                artifact = StoredArtifact(**{c.name: event._mapping[c] for c in _artifacts.c})
                sides = links.setdefault(event.execution_id, {"in": {}, "out": {}})
                sides[event.direction][event.name] = artifact
        none: dict[str, dict[str, StoredArtifact]] = {"in": {}, "out": {}}
        return [
            Execution(
                **row._mapping,
                inputs=links.get(row.id, none)["in"],
                outputs=links.get(row.id, none)["out"],
            )
            for row in rows
        ]

    def _scalar(self, query: sa.Select) -> Any:
        with self._transaction() as connection:
            return connection.execute(query).scalar()

    def _transaction(self, *, write: bool = False) -> contextlib.AbstractContextManager[sa.Connection]:
        return self._database.transaction(write=write)


def open_store(root: ArtifactRoot, url: str | None = None, *, must_exist: bool = False) -> Store:
    """Open the metadata store of a root.

    Args:
        url: SQLAlchemy URL. Defaults to a SQLite file in the root.
        must_exist: whether a root without the file is an error.

    Raises:
        KeraslineError: the root cannot be written, or has no metadata store.
        StoreError: the metadata store cannot be opened.
    """
    path = root.path / "metadata.sqlite"
    if must_exist and url is None and not path.exists():
        raise KeraslineError(f"{root}: no pipeline root (it has no metadata.sqlite); set --root")
    with root.explained():
        return Store(url or sqlite_url(path))


@functools.cache
def _opened_once(url: str) -> Store:
    """Return the store in a worker. Each process opens it once, however often it is unpickled."""
    return Store(url)


def _insert(connection: sa.Connection, table: sa.Table) -> Any:
    """Return the INSERT of the database's dialect, which has ON CONFLICT. Those of SQLite and PostgreSQL agree."""
    dialect = importlib.import_module(f"sqlalchemy.dialects.{connection.dialect.name}")
    return dialect.insert(table)


def _forget(connection: sa.Connection, run_id: str, node: str) -> None:
    t = _executions.c
    old = connection.execute(sa.select(t.id).where(t.run_id == run_id, t.node == node)).scalar()
    if old is not None:
        connection.execute(_events.delete().where(_events.c.execution_id == old))
        connection.execute(_executions.delete().where(t.id == old))


def _add_artifacts(connection: sa.Connection, artifacts: Iterable[StoredArtifact]) -> dict[str, str]:
    """Add the artifacts that are not in the store yet, and return the IDs of all by path.

    Two writers that add the same artifacts wait for each other path by path, in the same order.
    """
    by_path = {artifact.path: artifact for artifact in artifacts}
    if not by_path:
        return {}
    rows = [vars(by_path[path]) for path in sorted(by_path)]
    connection.execute(_insert(connection, _artifacts).values(rows).on_conflict_do_nothing())
    known = sa.select(_artifacts.c.path, _artifacts.c.id).where(_artifacts.c.path.in_(list(by_path)))
    return {path: key for path, key in connection.execute(known)}
