"""The schema of the metadata store over time, by Alembic: `versions/` has a file for each change.

A store is upgraded when it is opened. For a new change, add a file with the next number, change
`pipeline/metadata/tables.py` accordingly, and add the number to `VERSIONS`.
"""

from __future__ import annotations

import threading
from pathlib import Path

import sqlalchemy as sa

from kerasline.components.core.errors import StoreError
from kerasline.pipeline.metadata import tables
from kerasline.pipeline.metadata.database import Database

# The last one corresponds to `pipeline/metadata/tables.py`. They are listed here so that an up-to-date store is opened
# without importing Alembic, which takes longer than opening the store.
VERSIONS = ("0001", "0002", "0003")

# Not Alembic's default name, because other programs with tables in the same database may use Alembic too.
VERSION_TABLE = "kerasline_schema"

_version = sa.Table(VERSION_TABLE, sa.MetaData(), sa.Column("version_num", sa.String(32), primary_key=True))

# Alembic has its state in its modules, so only one thread may use it at a time.
_ALEMBIC = threading.Lock()


def bring_up_to_date(database: Database) -> None:
    """Create the tables in an empty database, or upgrade those of an older kerasline.

    If several programs open a store at once, one does this and the others wait. It is one transaction, so a program
    that dies leaves the store unchanged.

    Raises:
        StoreError: a newer kerasline created the store, or tables of another program have the same names.
    """
    with database.transaction() as connection:
        if _version_of(connection, database) == VERSIONS[-1]:
            return
    with database.alone("kerasline schema") as connection:
        found = _version_of(connection, database)  # again, because another program may have been first
        if found is None and not _tables_in(connection):
            tables.metadata.create_all(connection)
            _version.create(connection)
            connection.execute(_version.insert().values(version_num=VERSIONS[-1]))
        elif found != VERSIONS[-1]:
            upgrade(connection, found or _before_alembic(connection, database))


def upgrade(connection: sa.Connection, start: str | None = None, stop: str = VERSIONS[-1]) -> None:
    """Apply the migrations from one version to another, within the transaction of the connection.

    Args:
        start: the version of the tables, or None if there are none.
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
    """Return the version recorded in the database, or None if there is none."""
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
    """Return the version of a store without a recorded one: all five tables are from version 0.1."""
    found = _tables_in(connection)
    if found != set(tables.metadata.tables):
        raise StoreError(
            f"metadata store {database}: another program's tables are there ({', '.join(sorted(found))}); "
            "use a separate database"
        )
    return VERSIONS[0]
