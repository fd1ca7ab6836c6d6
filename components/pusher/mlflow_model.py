"""The files that make a SavedModel an MLflow Model, for MLflow's own loaders."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kerasline.components.core.artifacts import SavedModel
from kerasline.components.core.errors import ParameterError
from kerasline.components.models.signatures import DEFAULT_SIGNATURE

TAGS = ["serve"]


def describe(model: Path, folder: Path, *, files: str, run_id: str) -> list[Path]:
    """Write `MLmodel` and the files it refers to, for `mlflow.pyfunc` and `mlflow.tensorflow`.

    The flavor is the one for a SavedModel that is called by a signature. Its name, `tf1-estimator`, is historical. The
    other one, `tf2-module`, calls the model as a Python object, which takes one tensor and no named columns.

    Args:
        model: the SavedModel.
        folder: where to write the files.
        files: the sub-folder next to these files that will contain the SavedModel.
        run_id: the MLflow run that they belong to.

    Returns:
        The files in the order in which to publish them, `MLmodel` last.

    Raises:
        ParameterError: pandas is not installed. The skinny distribution of MLflow does not install it.
    """
    try:
        from mlflow.models import Model, ModelSignature  # noqa: F401
    except ImportError as error:
        raise ParameterError("MLflow's models need pandas; pip install 'kerasline[mlflow]'") from error

    facts = facts_of(model)
    described = Model(artifact_path="model", run_id=run_id, signature=_signature(facts))
    described.add_flavor(
        "tensorflow",
        model_type="tf1-estimator",
        saved_model_dir=files,
        meta_graph_tags=TAGS,
        signature_def_key=DEFAULT_SIGNATURE,
    )
    environment = {"virtualenv": "python_env.yaml"}
    described.add_flavor(
        "python_function",
        loader_module="mlflow.tensorflow",
        python_version=platform.python_version(),
        env=environment,
    )
    requirements, python, last = (folder / name for name in ("requirements.txt", "python_env.yaml", "MLmodel"))
    requirements.write_text("".join(f"{line}\n" for line in _requirements(facts)), encoding="utf-8")
    python.write_text(
        f"python: '{platform.python_version()}'\ndependencies:\n- -r requirements.txt\n", encoding="utf-8"
    )
    described.save(str(last))
    return [requirements, python, last]


def facts_of(model: Path) -> Mapping[str, Any]:
    """Return the manifest that Exporter wrote, or an empty dict for other SavedModels."""
    try:
        return json.loads((model / SavedModel.MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _signature(facts: Mapping[str, Any]) -> Any:
    from mlflow.models import ModelSignature

    if not facts.get("inputs") or not facts.get("output_specs"):
        return None
    try:
        return ModelSignature(_schema(facts["inputs"]), _schema(facts["output_specs"]))
    except TypeError:  # a dtype that NumPy lacks, such as bfloat16
        return None


def _schema(specs: Mapping[str, Mapping[str, Any]]) -> Any:
    from mlflow.types import Schema, TensorSpec

    return Schema([TensorSpec(_dtype(spec["dtype"]), _shape(spec["shape"]), name) for name, spec in specs.items()])


def _dtype(name: str) -> np.dtype:
    return np.dtype("str" if name == "string" else name)


def _shape(sizes: Sequence[int | None]) -> tuple[int, ...]:
    return tuple(-1 if size is None else size for size in sizes)


def _requirements(facts: Mapping[str, Any]) -> list[str]:
    versions = facts.get("versions") or {}
    pinned = [f"{name}=={versions[name]}" for name in ("tensorflow", "keras") if name in versions]
    return ["mlflow", *(pinned or ["tensorflow"])]
