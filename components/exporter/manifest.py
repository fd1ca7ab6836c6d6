"""The files that describe a SavedModel: the manifest, labels and vocabularies."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasline.components.core.artifacts import Artifact, Model, SavedModel
from kerasline.components.core.file_names import file_names
from kerasline.components.core.keras_compat import flatten_layers, shared_array
from kerasline.components.core.user_code import name_of
from kerasline.components.data.missing import has_missing_value, missing_value
from kerasline.components.exporter.served_model import LABEL, ServedModel, Written, describe_specs
from kerasline.components.models.op_libraries import KEY, used_op_libraries
from kerasline.components.models.versions import file_digests

# Increase it when the export of the same model gives different predictions.
FORMAT = 2


def write_assets(serving: ServedModel, folder: Path) -> list[str]:
    """Write labels and vocabularies to text files in `assets/`, one value per line, and return the files' names.

    Keras's export writes no such files. It keeps its tables as constants in the graph.
    """
    names = serving.class_names
    values: dict[str, Any] = {"labels.txt": names} if isinstance(names, list) else {}
    if isinstance(names, dict):
        values |= {f"labels.{file}.txt": names[label] for label, file in file_names(names).items() if names[label]}
    lookups = {layer.name: layer for layer in flatten_layers(serving.preprocessing) if hasattr(layer, "get_vocabulary")}
    values |= {f"vocabulary.{file}.txt": lookups[name].get_vocabulary() for name, file in file_names(lookups).items()}
    (folder / "assets").mkdir(exist_ok=True)
    for file, lines in values.items():
        text = "".join(f"{_line(line)}\n" for line in lines)
        (folder / "assets" / file).write_text(text, encoding="utf-8")
    return list(values)


def write_manifest(
    serving: ServedModel,
    written: Written,
    artifact: Artifact,
    *,
    model: Model,
    op_libraries: Iterable[str],
    more: Mapping[str, Any],
) -> None:
    """Write `kerasline.json`, documented in docs/EXPORT.md. All other files must exist already.

    Args:
        op_libraries: packages that are imported before the model is loaded, beside those that Exporter detects.
        more: further entries.
    """
    versions = library_versions()
    training = model.path / "training.json"
    names = serving.class_names
    artifact.write_json(
        SavedModel.MANIFEST,
        {
            "format": FORMAT,
            "inputs": {
                name: {**spec, "missing": _missing(spec["dtype"])}
                for name, spec in describe_specs(serving.raw_specs).items()
            },
            "preprocessed_inputs": describe_specs(serving.preprocessed_specs),
            "outputs": serving.answers,
            "answered_by": None if serving.answering is None else name_of(serving.answering.function),
            "output_specs": {
                **describe_specs(serving.outputs),
                **({LABEL: {"dtype": "string", "shape": _label_shape(serving)}} if serving.labelled else {}),
            },
            "signatures": list(written.signatures),
            "left_out": dict(written.left_out),
            "stream": None if serving.stream is None else serving.stream.facts,
            "class_names": names,
            "from_logits": serving.from_logits,
            "versions": versions,
            KEY: sorted({*op_libraries, *used_op_libraries(artifact.path)}),
            "training": json.loads(training.read_text(encoding="utf-8")) if training.exists() else None,
            **more,
            "digest": model_digest(serving, versions, more.get("form")),
            "files": file_digests(artifact.path),
        },
    )


def _label_shape(serving: ServedModel) -> list[int | None]:
    shape = serving.outputs[serving.labelled.name].shape if serving.labelled else ()
    return [None, *shape[1:-1]]


def library_versions() -> dict[str, str]:
    """Return the versions of TensorFlow, Keras and kerasline."""
    try:
        own = importlib.metadata.version("kerasline")
    except importlib.metadata.PackageNotFoundError:  # run from a checkout
        own = "unknown"
    return {"tensorflow": tf.__version__, "keras": keras.__version__, "kerasline": own}


def model_digest(serving: ServedModel, versions: Mapping[str, str], form: str | None = None) -> str:
    """Return the SHA-256 of what determines the predictions: layers, weights, vocabularies, classes, form, libraries.

    Two exports of one model have the same digest, although TensorFlow numbers each export differently.
    """
    answers = sorted((name, one.answering.digest) for name, one in serving.by_signature.items() if one.answering)
    facts = [FORMAT, serving.class_names, serving.from_logits, dict(versions), form, answers]
    digest = hashlib.sha256(json.dumps(facts).encode())
    for model in (serving.preprocessing, serving.model):
        config = {**model.get_config(), "name": ""}  # Keras numbers the names of models
        described_layers = keras.saving.serialize_keras_object(config)
        digest.update(json.dumps(described_layers, sort_keys=True, default=repr).encode())
        for layer in flatten_layers(model):
            if hasattr(layer, "get_vocabulary"):
                digest.update(repr(layer.get_vocabulary()).encode())
        for variable in model.variables:
            value = np.ascontiguousarray(shared_array(variable))
            digest.update(f"{variable.path}\0{variable.dtype}\0{value.shape}\0".encode())
            digest.update(value.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _missing(dtype: str) -> Any:
    """Return what a client sends for a missing value. JSON has no NaN, so it is given as text."""
    if not has_missing_value(dtype):
        return None
    value = missing_value(dtype)
    return "" if value == b"" else "NaN" if value != value else value


def _line(value: Any) -> str:
    text = str(value)
    return text if text.isprintable() else text.encode("unicode_escape").decode()
