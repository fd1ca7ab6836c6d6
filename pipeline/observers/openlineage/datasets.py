"""The data sets of an event: artifacts, the files from outside that a stage reads, and pushed models.

Their names are OpenLineage's (its specification's Naming.md): on a disk the namespace `file` and the path, elsewhere
`SCHEME://HOST` and the rest.
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

# More files than this are told as the folder that holds them all.
MOST_FILES = 20
TABLES = (Examples.__name__, Predictions.__name__)
# fsspec's names of schemes that have another one in OpenLineage.
SCHEMES = {"s3a": "s3", "s3n": "s3", "gcs": "gs", "abfs": "abfss"}


def inputs_of(component: Component, execution: Execution) -> list[InputDataset]:
    """What a stage read: other stages' artifacts, those that no stage made, and the files from outside."""
    artifacts = [InputDataset(*_name(a.path), facets=_facets(a)) for a in execution.inputs.values()]
    given = [str(source.path) for source in component.inputs.values() if isinstance(source, Artifact)]
    return artifacts + [InputDataset(*_name(path), facets=_source(path)) for path in (*given, *_outside(component))]


def outputs_of(execution: Execution) -> list[OutputDataset]:
    """What a stage made. Its size and columns are told by who wrote it, not again by who found it in the cache."""
    made = [_written(a) if execution.state == "ran" else _found(a) for a in execution.outputs.values()]
    pushed = [_pushed(a) for a in execution.outputs.values() if a.type == PushedModel.__name__]
    return made + [OutputDataset(*_name(path), facets=_source(path)) for path in pushed if path]


def _name(place: str) -> tuple[str, str]:
    """Namespace and name."""
    if "://" not in place:
        # MLflow's `models:/NAME` is no path, and no address either.
        scheme, colon, name = place.partition(":/")
        return (f"{scheme}:", name.strip("/")) if colon and scheme.isalpha() else ("file", os.path.abspath(place))
    scheme, _, rest = place.partition("://")
    if scheme == "file":
        return "file", f"/{rest.partition('/')[2]}"
    host, _, name = rest.partition("/")
    account, at, bare = host.rpartition("@")
    host = bare if ":" in account else f"{account}{at}{bare}"  # a password is nobody's business
    return f"{SCHEMES.get(scheme, scheme)}://{host}", name.strip("/") or "/"


def _facets(artifact: StoredArtifact) -> dict[str, Any]:
    version = dataset_version_dataset.DatasetVersionDatasetFacet(datasetVersion=artifact.digest)
    return {**_source(artifact.path), "version": version}


def _source(place: str) -> dict[str, Any]:
    namespace, name = _name(place)
    path = quote(os.fsencode(name.lstrip("/")))
    uri = f"{namespace}:///{path}" if namespace == "file" else f"{namespace}/{path}"
    return {"dataSource": datasource_dataset.DatasourceDatasetFacet(name=namespace, uri=uri)}


def _found(artifact: StoredArtifact) -> OutputDataset:
    return OutputDataset(*_name(artifact.path), facets=_facets(artifact))


def _written(artifact: StoredArtifact) -> OutputDataset:
    facets, rows, files = _facets(artifact), None, None
    if artifact.type in TABLES:
        with contextlib.suppress(KeraslineError, OSError):  # it is gone since
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
