"""Stores of other versions of kerasline. `data/` has dumps of stores of version 0.1."""

import datetime
import os
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from kerasline.components.core.errors import StoreError
from kerasline.pipeline.metadata import migrations, tables
from kerasline.pipeline.metadata.database import Database
from kerasline.pipeline.metadata.lineage import trace
from kerasline.pipeline.metadata.store import Store
from tests.conftest import REPOSITORY

DATA = Path(__file__).parent / "data"


@pytest.fixture
def old_url(store_url):
    """Return a store of version 0.1: three runs of the quick pipeline, the third with a failed stage."""
    if store_url.startswith("sqlite"):
        with sqlite3.connect(store_url.removeprefix("sqlite:///")) as database:
            database.executescript((DATA / "metadata-0.1-sqlite.sql").read_text())
        database.close()
        return store_url
    import psycopg

    with psycopg.connect(store_url) as connection:
        connection.execute((DATA / "metadata-0.1-postgresql.sql").read_text())
    return store_url


def differences(url):
    """Return the changes from the database to the program's tables according to Alembic."""

    def same_type(_context, _inspected, _column, inspected_type, metadata_type):
        # SQLite knows one type of text: VARCHAR(200) and TEXT are two names of it.
        texts = isinstance(inspected_type, sa.String) and isinstance(metadata_type, (sa.String, tables.AnyText))
        return False if texts and url.startswith("sqlite") else None

    with Database(url).transaction() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": migrations.VERSION_TABLE, "compare_type": same_type}
        )
        return compare_metadata(context, tables.metadata)


def versions(url):
    with Database(url).transaction() as connection:
        return connection.execute(sa.text(f"SELECT version_num FROM {migrations.VERSION_TABLE}")).scalars().all()


def shape(url):
    """Return the columns, keys and indexes of each table from the database."""
    with Database(url).transaction() as connection:
        inspector = sa.inspect(connection)
        return {
            name: (
                [(c["name"], str(c["type"]), c["nullable"]) for c in inspector.get_columns(name)],
                inspector.get_pk_constraint(name)["constrained_columns"],
                sorted((i["name"] or "", i["column_names"]) for i in inspector.get_indexes(name)),
                sorted(u["column_names"] for u in inspector.get_unique_constraints(name)),
                sorted((f["constrained_columns"], f["referred_table"]) for f in inspector.get_foreign_keys(name)),
            )
            for name in tables.metadata.tables
        }


def test_new_store_has_current_tables_and_version(store_url):
    Store(store_url)
    assert differences(store_url) == [] and versions(store_url) == [migrations.VERSIONS[-1]]


def test_store_of_version_0_1_is_upgraded_completely(old_url):
    assert differences(old_url)  # else nothing is shown
    store = Store(old_url)
    assert differences(old_url) == [] and versions(old_url) == [migrations.VERSIONS[-1]]
    assert [(run.id, run.state) for run in store.runs()] == [
        ("third", "failed"),
        ("second", "succeeded"),
        ("first", "succeeded"),
    ]
    assert store.run("third").settings == {"Left.fail": "true", "Start.number": "7"}
    assert {e.node: e.state for e in store.executions("third")} == {
        "Start": "ran",
        "Left": "failed",
        "Right": "ran",
        "Join": "skipped",
    }
    first = {e.node: e for e in store.executions("first")}
    assert first["Join"].metrics == {"joined": 603} and set(first["Join"].inputs) == {"left", "right"}
    assert first["Join"].started.date() == datetime.date(2026, 11, 25)
    assert store.published(first["Left"].fingerprint).run_id == "second"
    (traced,) = trace(store, first["Join"].outputs["joined"].path)
    assert {source["made_by"]["node"] for source in traced["made_by"]["from"]} == {"Left", "Right"}


def test_upgraded_store_accepts_texts_of_any_length(old_url):
    store = Store(old_url)
    store.remember_digest("/" + "x" * 1500, "1", "d")
    assert store.known_digest("/" + "x" * 1500, "1") == "d"


def test_first_migration_creates_the_tables_of_version_0_1(old_url, postgres, tmp_path):
    old = shape(old_url)
    with postgres.new_database() as new_database:
        new = new_database if old_url.startswith("postgresql") else f"sqlite:///{tmp_path / 'new.sqlite'}"
        with Database(new).transaction(write=True) as connection:
            migrations.upgrade(connection, stop="0001")
        assert shape(new) == old
        Store(new)
        assert differences(new) == []


def test_migrations_are_named_and_in_order():
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    script = ScriptDirectory.from_config(config)
    assert [r.revision for r in script.walk_revisions()] == list(reversed(migrations.VERSIONS))


def test_concurrent_processes_upgrade_a_store_once(old_url):
    together = threading.Barrier(4)

    def open_store(_):
        together.wait(timeout=60)
        return len(Store(old_url).runs())

    with ThreadPoolExecutor(4) as programs:
        assert list(programs.map(open_store, range(4))) == [3, 3, 3, 3]
    assert differences(old_url) == [] and versions(old_url) == [migrations.VERSIONS[-1]]


def test_failed_upgrade_leaves_the_store_unchanged(old_url):
    """Its last step fails, because an index of that name exists."""
    with Database(old_url).transaction(write=True) as connection:
        connection.execute(sa.text("CREATE INDEX ix_executions_pipeline_node_finished ON runs (state)"))
    before = shape(old_url)
    with pytest.raises(StoreError, match="ix_executions_pipeline_node_finished.* already exists") as refused:
        Store(old_url)
    assert "\n" not in str(refused.value) and shape(old_url) == before
    with pytest.raises(StoreError):
        versions(old_url)  # no such table
    with Database(old_url).transaction(write=True) as connection:
        connection.execute(sa.text("DROP INDEX ix_executions_pipeline_node_finished"))
    assert len(Store(old_url).runs()) == 3 and differences(old_url) == []


def test_store_of_a_newer_kerasline_is_refused(store_url):
    Store(store_url)
    with Database(store_url).transaction(write=True) as connection:
        connection.execute(sa.text(f"UPDATE {migrations.VERSION_TABLE} SET version_num = '0099'"))
    with pytest.raises(StoreError, match=r"made by a newer kerasline \(schema 0099; .*\); upgrade kerasline"):
        Store(store_url)


def test_tables_of_other_programs_are_untouched(store_url):
    """MLflow's, for instance: it has `runs` too, and a version of Alembic's."""
    with Database(store_url).transaction(write=True) as connection:
        connection.execute(sa.text("CREATE TABLE runs (run_uuid VARCHAR(32) PRIMARY KEY)"))
        connection.execute(sa.text("CREATE TABLE alembic_version (version_num VARCHAR(32) PRIMARY KEY)"))
    with pytest.raises(StoreError, match=r"another program's tables are there \(runs\); use a separate database"):
        Store(store_url)


def test_alembic_is_imported_only_to_upgrade(store_url):
    code = "import sys; from kerasline.pipeline.metadata.store import Store; Store(sys.argv[1]).runs()"
    code += "; assert 'alembic' not in sys.modules"
    for _ in ("made", "opened"):
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        subprocess.run([sys.executable, "-c", code, store_url], env=environment, check=True)


def test_queries_of_a_long_history_use_an_index_for_filter_and_order(tmp_path):
    """Else a pipeline that has run thousands of times would wait for each of its stages' cache."""
    url = f"sqlite:///{tmp_path / 'metadata.sqlite'}"
    store, statements = Store(url), []
    listening = (store._database._reading, "before_cursor_execute", lambda *call: statements.append(call[2:4]))
    sa.event.listen(*listening)
    store.published("f"), store.latest("p", "A", "r1"), store.history("p", "A")
    plans = []
    with sqlite3.connect(tmp_path / "metadata.sqlite") as database:
        for statement, parameters in statements:
            if "FROM executions" in statement:
                plans.append([row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)])
    searched = [step for plan in plans for step in plan]
    assert len(plans) == 4 and all(step.startswith("SEARCH executions USING INDEX") for step in searched), plans
