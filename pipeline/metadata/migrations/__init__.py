"""The schema of the metadata store over time, by Alembic: `versions/` has a file for each change.

A store is brought up to date when it is opened. A new change is a new file there, numbered on, with
`pipeline/metadata/tables.py` changed to the same; `VERSIONS` names it.
"""

from __future__ import annotations

import threading
from pathlib import Path

import sqlalchemy as sa

from kerasline.components.core.errors import StoreError
from kerasline.pipeline.metadata import tables
from kerasline.pipeline.metadata.database import Database

# The last is what `pipeline/metadata/tables.py` says. Named here, so that a store that is up to date is opened
# without Alembic, whose import takes longer than that.
VERSIONS = ("0001", "0002", "0003")

# A name of our own: others who keep tables in the same database may use Alembic too.
VERSION_TABLE = "kerasline_schema"

_version = sa.Table(VERSION_TABLE, sa.MetaData(), sa.Column("version_num", sa.String(32), primary_key=True))

# Alembic keeps what it is at in its modules: one thread at a time.
_ALEMBIC = threading.Lock()


def bring_up_to_date(database: Database) -> None:
    """Makes the tables in an empty database, and upgrades those of an older kerasline.

    Of several programs that open a store at once, one does it and the others wait. It is one
    transaction: a program that dies in it leaves the store as it was.

    Raises:
        StoreError: a newer kerasline made the store, or another program's tables are in the way.
    """
    with database.transaction() as connection:
        if _version_of(connection, database) == VERSIONS[-1]:
            return
    with database.alone("kerasline schema") as connection:
        found = _version_of(connection, database)  # again: somebody may have been first
        if found is None and not _tables_in(connection):
            tables.metadata.create_all(connection)
            _version.create(connection)
            connection.execute(_version.insert().values(version_num=VERSIONS[-1]))
        elif found != VERSIONS[-1]:
            upgrade(connection, found or _before_alembic(connection, database))


def upgrade(connection: sa.Connection, start: str | None = None, stop: str = VERSIONS[-1]) -> None:
    """Applies the migrations from one version to another, within the connection's transaction.

    Args:
        start: the version that the tables have; None where there are none.
    """
    from alembic import command
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    with _ALEMBIC:
        if start is not None:
            command.stamp(config, start)
        command.upgrade(config, stop)


def _version_of(connection: sa.Connection, database: Database) -> str | None:
    """The version that is written in the database; None where none is."""
    if not connection.dialect.has_table(connection, VERSION_TABLE):
        return None
    found = connection.execute(sa.select(_version.c.version_num)).scalar()
    if found not in VERSIONS:
        raise StoreError(
            f"metadata store {database}: made by a newer kerasline (schema {found}; this one knows "
            f"{VERSIONS[-1]}); upgrade kerasline"
        )
    return found


def _tables_in(connection: sa.Connection) -> set[str]:
    return {name for name in tables.metadata.tables if connection.dialect.has_table(connection, name)}


def _before_alembic(connection: sa.Connection, database: Database) -> str:
    """Version 0.1 wrote no version: all five tables without one are its."""
    found = _tables_in(connection)
    if found != set(tables.metadata.tables):
        raise StoreError(
            f"metadata store {database}: another program's tables are there ({', '.join(sorted(found))}); "
            "give a database of its own"
        )
    return VERSIONS[0]
