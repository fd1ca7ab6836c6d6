"""A SavedModel as an MLflow Model: the files beside it by which MLflow's own loaders open it and ask it."""

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
    """Writes `MLmodel` and what it names; `mlflow.pyfunc` and `mlflow.tensorflow` load what they say.

    The flavour is MLflow's for a SavedModel that is asked by a signature. Its name, `tf1-estimator`, is of old;
    the other one, `tf2-module`, calls the model as a Python object, which takes one tensor and no columns by name.

    Args:
        model: the SavedModel.
        folder: where the files are written.
        files: the sub-folder in which the SavedModel will lie beside them.
        run_id: MLflow's run to which they belong.

    Returns:
        The files in the order in which they may appear: `MLmodel` last.

    Raises:
        ParameterError: pandas is not installed, which the light form of MLflow does not bring.
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
    """The manifest that Exporter wrote; nothing of a SavedModel from elsewhere."""
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
