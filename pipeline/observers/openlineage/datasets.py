"""The datasets of an event: artifacts, external files that a stage reads, and pushed models.

They are named as in OpenLineage's specification (Naming.md): on a disk the namespace is `file` and the name the path,
elsewhere the namespace is `SCHEME://HOST` and the name the rest.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from openlineage.client.event_v2 import InputDataset, OutputDataset
from openlineage.client.facet_v2 import (
    dataset_version_dataset,
    datasource_dataset,
    output_statistics_output_dataset,
    schema_dataset,
)

from kerasline.components.core.artifacts import Artifact, Examples, Predictions, PushedModel
from kerasline.components.core.component import Component
from kerasline.components.core.errors import KeraslineError
from kerasline.pipeline.metadata.store import Execution, StoredArtifact
from kerasline.pipeline.storage.roots import local

# More external files than this are replaced by their common folder.
MOST_FILES = 20
TABLES = (Examples.__name__, Predictions.__name__)
# URL schemes of fsspec with another name in OpenLineage.
SCHEMES = {"s3a": "s3", "s3n": "s3", "gcs": "gs", "abfs": "abfss"}


def inputs_of(component: Component, execution: Execution) -> list[InputDataset]:
    """Return what a stage read: artifacts of other stages, artifacts given by their folder, and external files."""
    artifacts = [InputDataset(*_name(a.path), facets=_facets(a)) for a in execution.inputs.values()]
    folders = [str(source.path) for source in component.inputs.values() if isinstance(source, Artifact)]
    return artifacts + [
        InputDataset(*_name(path), facets=_source(path)) for path in (*folders, *_external_files(component))
    ]


def outputs_of(execution: Execution) -> list[OutputDataset]:
    """Return the outputs of a stage. Only the execution that wrote them reports size and columns, not a cached one."""
    artifacts = [
        _output_with_statistics(a) if execution.state == "ran" else _output(a) for a in execution.outputs.values()
    ]
    pushed = [_pushed(a) for a in execution.outputs.values() if a.type == PushedModel.__name__]
    return artifacts + [OutputDataset(*_name(path), facets=_source(path)) for path in pushed if path]


def _name(place: str) -> tuple[str, str]:
    """Return namespace and name."""
    if "://" not in place:
        # MLflow's `models:/NAME` is neither a path nor a URL with a host.
        scheme, colon, name = place.partition(":/")
        return (f"{scheme}:", name.strip("/")) if colon and scheme.isalpha() else ("file", os.path.abspath(place))
    scheme, _, rest = place.partition("://")
    if scheme == "file":
        return "file", f"/{rest.partition('/')[2]}"
    host, _, name = rest.partition("/")
    account, at, bare = host.rpartition("@")
    host = bare if ":" in account else f"{account}{at}{bare}"  # omit a password
    return f"{SCHEMES.get(scheme, scheme)}://{host}", name.strip("/") or "/"


def _facets(artifact: StoredArtifact) -> dict[str, Any]:
    version = dataset_version_dataset.DatasetVersionDatasetFacet(datasetVersion=artifact.digest)
    return {**_source(artifact.path), "version": version}


def _source(place: str) -> dict[str, Any]:
    namespace, name = _name(place)
    path = quote(os.fsencode(name.lstrip("/")))
    uri = f"{namespace}:///{path}" if namespace == "file" else f"{namespace}/{path}"
    return {"dataSource": datasource_dataset.DatasourceDatasetFacet(name=namespace, uri=uri)}


def _output(artifact: StoredArtifact) -> OutputDataset:
    return OutputDataset(*_name(artifact.path), facets=_facets(artifact))


def _output_with_statistics(artifact: StoredArtifact) -> OutputDataset:
    facets, rows, files = _facets(artifact), None, None
    if artifact.type in TABLES:
        with contextlib.suppress(KeraslineError, OSError):  # it was deleted since
            examples = Examples(local(artifact.path))
            rows = sum(examples.rows(split) for split in examples.splits)
            files = sum(len(examples.shards(split)) for split in examples.splits)
            if files:
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


def _external_files(component: Component) -> Sequence[str]:
    """Return the external files of a stage. The stage itself reports an error in finding them."""
    try:
        found = [str(path.absolute()) for path in component.external_inputs() if isinstance(path, Path)]
    except Exception:
        return []
    return found if len(found) <= MOST_FILES else [os.path.commonpath(found)]


def _pushed(artifact: StoredArtifact) -> str | None:
    """Return the destination of a pushed model."""
    try:
        folder = local(artifact.path, PushedModel.FILE)
        return json.loads((folder / PushedModel.FILE).read_text(encoding="utf-8"))["path"]
    except (KeraslineError, OSError, ValueError, KeyError):
        return None
