"""`update-schema`: accept anomalies into a curated schema."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kerasline.pipeline.commands.options import Json
from kerasline.pipeline.commands.output import show_table


def update_schema(
    schema: Annotated[Path, typer.Argument(metavar="SCHEMA.pbtxt", help="The curated schema.")],
    statistics: Annotated[Path, typer.Argument(metavar="DIR", help="The statistics: an output of StatisticsGen.")],
    accept: Annotated[
        list[str] | None,
        typer.Option(help="A feature or a kind of anomaly, such as SCHEMA_NEW_COLUMN; all by default. Repeatable."),
    ] = None,
    environment: Annotated[str, typer.Option(help="The schema environment of the data.")] = "",
    serving: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Serving statistics: accept skew, by raising its thresholds.")
    ] = None,
    previous: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Statistics of an earlier span: accept drift likewise.")
    ] = None,
    previous_version: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Statistics of an earlier version: accept another number of rows."),
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", help="Where to write it; by default the schema changes.")] = None,
    json_file: Json = None,
) -> None:
    """Change a schema so that it allows what statistics show."""
    from google.protobuf import text_format

    from kerasline.components.core.artifacts import Statistics
    from kerasline.components.core.atomic_files import atomic_write
    from kerasline.components.example_validator.schema_updates import accept_anomalies
    from kerasline.components.schema_gen.component import read_schema

    proto = read_schema(schema)
    controls = {
        "skew_comparator": serving,
        "drift_comparator": previous,
        "num_examples_version_comparator": previous_version,
    }
    opened = {name: Statistics(path) for name, path in controls.items() if path is not None}
    accepted = accept_anomalies(proto, Statistics(statistics), accept or (), environment, opened)
    with atomic_write(output or schema) as temporary:
        temporary.write_text(text_format.MessageToString(proto, as_utf8=True), "utf-8")
    rows = [(one.split, one.feature, one.kind, one.seen) for one in accepted]
    values = [{"split": one.split, "feature": one.feature, "kind": one.kind, "seen": one.seen} for one in accepted]
    show_table(json_file, ("split", "feature", "accepted", "seen"), rows, values)
