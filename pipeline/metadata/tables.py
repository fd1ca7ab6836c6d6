"""The tables of the metadata store, and the conversion of Python values, which is the same in every database.

A change here needs a migration: a new file in `pipeline/metadata/migrations/versions`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

metadata = sa.MetaData()


class AnyText(sa.types.TypeDecorator):
    """Text with any characters of Python.

    PostgreSQL rejects NUL, and no database accepts the lone surrogates that represent bytes which are not UTF-8 in
    Python's paths. Both are stored as characters of the last private plane, U+100000 higher.
    """

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> str | None:
        return value and re.sub("[\0\ud800-\udfff]", lambda match: chr(ord(match[0]) + 0x100000), value)

    def process_result_value(self, value: str | None, dialect: sa.Dialect) -> str | None:
        return value and re.sub("[\U00100000\U0010d800-\U0010dfff]", lambda match: chr(ord(match[0]) - 0x100000), value)


class AnyJson(sa.types.TypeDecorator):
    """JSON. NumPy values become Python values, and NaN and infinities, which JSON lacks, become `{"$float": "nan"}`."""

    impl = sa.JSON
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> Any:
        return _as_json(value)

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> Any:
        return _from_json(value)


runs = sa.Table(
    "runs",
    metadata,
    sa.Column("id", AnyText, primary_key=True),
    sa.Column("pipeline", AnyText, nullable=False),
    sa.Column("recipe", AnyText, nullable=False),
    sa.Column("root", AnyText, nullable=False),
    sa.Column("state", AnyText, nullable=False),
    sa.Column("settings", AnyJson, nullable=False),
    sa.Column("started", sa.DateTime, nullable=False),
    sa.Column("finished", sa.DateTime),
    sa.Column("seconds", sa.Float),
)

executions = sa.Table(
    "executions",
    metadata,
    sa.Column("id", AnyText, primary_key=True),
    sa.Column("run_id", sa.ForeignKey("runs.id"), nullable=False),
    sa.Column("pipeline", AnyText, nullable=False),
    sa.Column("node", AnyText, nullable=False),
    sa.Column("component", AnyText, nullable=False),
    sa.Column("state", AnyText, nullable=False),
    sa.Column("fingerprint", AnyText),
    sa.Column("folder", AnyText),
    sa.Column("metrics", AnyJson, nullable=False),
    sa.Column("message", AnyText),
    sa.Column("started", sa.DateTime, nullable=False),
    sa.Column("finished", sa.DateTime),
    sa.Column("seconds", sa.Float),
    sa.UniqueConstraint("run_id", "node"),
    # Each run that finds a fingerprint in the cache adds an execution to it. Queries need the newest one.
    sa.Index("ix_executions_fingerprint_finished", "fingerprint", "finished"),
    sa.Index("ix_executions_pipeline_node_finished", "pipeline", "node", "finished"),
)

artifacts = sa.Table(
    "artifacts",
    metadata,
    sa.Column("id", AnyText, primary_key=True),
    sa.Column("type", AnyText, nullable=False),
    sa.Column("path", AnyText, nullable=False, unique=True),
    sa.Column("digest", AnyText, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("created", sa.DateTime, nullable=False),
)

events = sa.Table(
    "events",
    metadata,
    sa.Column("execution_id", sa.ForeignKey("executions.id"), primary_key=True),
    sa.Column("artifact_id", sa.ForeignKey("artifacts.id"), primary_key=True, index=True),
    sa.Column("direction", AnyText, primary_key=True),
    sa.Column("name", AnyText, primary_key=True),
)

file_digests = sa.Table(
    "file_digests",
    metadata,
    sa.Column("path", AnyText, primary_key=True),
    sa.Column("state", AnyText, nullable=False),
    sa.Column("digest", AnyText, nullable=False),
)

_NOT_FINITE = ("nan", "inf", "-inf")


def _as_json(value: Any) -> Any:
    if hasattr(value, "tolist"):  # NumPy's arrays and numbers
        value = value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": repr(float(value))}
    if isinstance(value, Mapping):
        return {str(key): _as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_json(item) for item in value]
    return value if isinstance(value, (str, int, float, type(None))) else str(value)


def _from_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        if list(value) == ["$float"] and value["$float"] in _NOT_FINITE:
            return float(value["$float"])
        return {key: _from_json(item) for key, item in value.items()}
    return [_from_json(item) for item in value] if isinstance(value, list) else value
