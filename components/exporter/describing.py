"""What lies beside a SavedModel for people and programs: the manifest, labels and vocabularies."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasline.components.core.artifacts import Artifact, Model, SavedModel
from kerasline.components.data.missing import missing_value
from kerasline.components.exporter.serving import LABEL, Serving, Written, described

# Raised where the same model is exported into something that answers otherwise.
FORMAT = 2


def write_assets(serving: Serving, folder: Path) -> list[str]:
    """Writes labels and vocabularies as text into `assets/`, a value a line; returns the files' names.

    Keras's export writes none: it keeps its tables as constants in the graph.
    """
    names = serving.class_names
    values: dict[str, Any] = {"labels.txt": names} if isinstance(names, list) else {}
    values |= {f"labels.{of}.txt": n for of, n in names.items() if n} if isinstance(names, dict) else {}
    for layer in serving.features._flatten_layers(include_self=False):
        if hasattr(layer, "get_vocabulary"):
            values[f"vocabulary.{layer.name.replace('/', '-')}.txt"] = layer.get_vocabulary()
    (folder / "assets").mkdir(exist_ok=True)
    for file, lines in values.items():
        text = "".join(f"{_line(line)}\n" for line in lines)
        (folder / "assets" / file).write_text(text, encoding="utf-8")
    return list(values)


def write_manifest(
    serving: Serving, written: Written, artifact: Artifact, *, model: Model, more: Mapping[str, Any]
) -> None:
    """Writes `kerasline.json`, which docs/EXPORT.md describes; everything else must be there already."""
    versions = library_versions()
    training = model.path / "training.json"
    names = serving.class_names
    artifact.write_json(
        SavedModel.MANIFEST,
        {
            "format": FORMAT,
            "inputs": {
                name: {**told, "missing": _missing(told["dtype"])}
                for name, told in described(serving.raw_specs).items()
            },
            "preprocessed_inputs": described(serving.preprocessed_specs),
            "outputs": serving.answers,
            "output_specs": {
                **described(serving.outputs),
                **({LABEL: {"dtype": "string", "shape": [None]}} if serving.labelled else {}),
            },
            "signatures": list(written.signatures),
            "left_out": dict(written.left_out),
            "class_names": names,
            "from_logits": serving.from_logits,
            "versions": versions,
            "training": json.loads(training.read_text(encoding="utf-8")) if training.exists() else None,
            **more,
            "digest": model_digest(serving, versions, more.get("form")),
            "files": file_digests(artifact.path),
        },
    )


def library_versions() -> dict[str, str]:
    try:
        own = importlib.metadata.version("kerasline")
    except importlib.metadata.PackageNotFoundError:  # run out of its source
        own = "unknown"
    return {"tensorflow": tf.__version__, "keras": keras.__version__, "kerasline": own}


def model_digest(serving: Serving, versions: Mapping[str, str], form: str | None = None) -> str:
    """The SHA-256 of what decides the answers: layers, vocabularies, weights, class names, form, libraries.

    Two exports of one model share it, while TensorFlow gives each of them a number of its own.
    """
    digest = hashlib.sha256(
        json.dumps([FORMAT, serving.class_names, serving.from_logits, dict(versions), form]).encode()
    )
    for model in (serving.features, serving.model):
        config = {**model.get_config(), "name": ""}  # a model made anew gets the next number as its name
        described_layers = keras.saving.serialize_keras_object(config)
        digest.update(json.dumps(described_layers, sort_keys=True, default=repr).encode())
        for layer in model._flatten_layers(include_self=False):
            if hasattr(layer, "get_vocabulary"):
                digest.update(repr(layer.get_vocabulary()).encode())
        for variable in model.variables:
            value = np.ascontiguousarray(variable.numpy())
            digest.update(f"{variable.path}\0{variable.dtype}\0{value.shape}\0".encode())
            digest.update(value.reshape(-1).view(np.uint8))
    return digest.hexdigest()


def file_digests(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file of a folder but the manifest, by its path within."""
    found = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        if name != SavedModel.MANIFEST:
            with path.open("rb") as file:
                digest = hashlib.sha256()
                while block := file.read(1 << 20):
                    digest.update(block)
            found[name] = digest.hexdigest()
    return found


def _missing(dtype: str) -> Any:
    """What a client sends for a missing value; "NaN" where that is no JSON."""
    try:
        value = missing_value(dtype)
    except ValueError:
        return None
    return "" if value == b"" else "NaN" if value != value else value


def _line(value: Any) -> str:
    text = str(value)
    return text if text.isprintable() else text.encode("unicode_escape").decode()
