"""The data sets of an event: artifacts, the files from outside that a stage reads, and pushed models.

Their names are OpenLineage's: on a disk the namespace `file` and the path, elsewhere `SCHEME://HOST` and the rest.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from openlineage.client.event_v2 import InputDataset, OutputDataset
from openlineage.client.facet_v2 import (
    dataset_version_dataset,
    datasource_dataset,
    output_statistics_output_dataset,
    schema_dataset,
)

from components.artifacts import Examples, Predictions, PushedModel
from components.base import Component
from components.errors import KeraslineError
from pipeline.publishing import local
from pipeline.store import Execution, StoredArtifact

# More files than this are told as the folder that holds them all.
MOST_FILES = 20
TABLES = (Examples.__name__, Predictions.__name__)


def inputs_of(component: Component, execution: Execution) -> list[InputDataset]:
    """What a stage read: other stages' artifacts, and the files from outside."""
    artifacts = [InputDataset(*_name(a.path), facets=_facets(a)) for a in execution.inputs.values()]
    return artifacts + [InputDataset(*_name(path), facets=_source(path)) for path in _outside(component)]


def outputs_of(execution: Execution) -> list[OutputDataset]:
    """What a stage made. Columns are told by who wrote them, not again by who found them in the cache."""
    made = [_output(artifact, with_schema=execution.state == "ran") for artifact in execution.outputs.values()]
    pushed = [_pushed(a) for a in execution.outputs.values() if a.type == PushedModel.__name__]
    return made + [OutputDataset(*_name(path), facets=_source(path)) for path in pushed if path]


def _name(place: str) -> tuple[str, str]:
    """Namespace and name."""
    if "://" not in place:
        # MLflow's `models:/NAME` is no path, and no address either.
        scheme, colon, name = place.partition(":/")
        return (f"{scheme}:", name.strip("/")) if colon and scheme.isalpha() else ("file", os.path.abspath(place))
    parts = urlsplit(place)
    if parts.scheme == "file":
        return "file", parts.path
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}", parts.path.lstrip("/") or "/"


def _facets(artifact: StoredArtifact) -> dict[str, Any]:
    version = dataset_version_dataset.DatasetVersionDatasetFacet(datasetVersion=artifact.digest)
    return {**_source(artifact.path), "version": version}


def _source(place: str) -> dict[str, Any]:
    namespace, name = _name(place)
    uri = f"{namespace}://{name}" if namespace == "file" else f"{namespace}/{name}"
    return {"dataSource": datasource_dataset.DatasourceDatasetFacet(name=namespace, uri=uri)}


def _output(artifact: StoredArtifact, *, with_schema: bool) -> OutputDataset:
    facets, rows, files = _facets(artifact), None, None
    if artifact.type in TABLES:
        with contextlib.suppress(KeraslineError, OSError):  # it is gone since
            examples = Examples(local(artifact.path, *([] if with_schema else [Examples.MANIFEST])))
            rows = sum(examples.rows(split) for split in examples.splits)
            files = sum(len(examples.shards(split)) for split in examples.splits)
            if with_schema and files:
                facets["schema"] = _schema(examples)
    size = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
        rowCount=rows, size=artifact.size_bytes, fileCount=files
    )
    return OutputDataset(*_name(artifact.path), facets=facets, outputFacets={"outputStatistics": size})


def _schema(examples: Examples) -> schema_dataset.SchemaDatasetFacet:
    fields = [
        schema_dataset.SchemaDatasetFacetFields(name=field.name, type=str(field.type), ordinal_position=place)
        for place, field in enumerate(examples.schema(), start=1)
    ]
    return schema_dataset.SchemaDatasetFacet(fields=fields)


def _outside(component: Component) -> Sequence[str]:
    """The files from outside; an error in finding them is the stage's to tell."""
    try:
        found = [str(path.absolute()) for path in component.external_inputs() if isinstance(path, Path)]
    except Exception:
        return []
    return found if len(found) <= MOST_FILES else [os.path.commonpath(found)]


def _pushed(artifact: StoredArtifact) -> str | None:
    """Where a model went."""
    try:
        folder = local(artifact.path, PushedModel.FILE)
        return json.loads((folder / PushedModel.FILE).read_text(encoding="utf-8"))["path"]
    except (KeraslineError, OSError, ValueError, KeyError):
        return None
