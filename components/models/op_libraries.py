"""Libraries with operations of their own, such as tensorflow-text, which a process imports before it loads a model.

TensorFlow finds such operations only once the library is imported. TensorFlow Serving has those of tensorflow-text.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from kerasline.components.core.artifacts import SavedModel
from kerasline.components.core.errors import ArtifactError

KEY = "op_libraries"


def used_op_libraries(folder: Path) -> list[str]:
    """Return the imported packages whose operations a SavedModel uses, in alphabetical order."""
    from tensorflow.core.protobuf import saved_model_pb2

    if not (folder / "saved_model.pb").exists():  # LiteRT, ONNX
        return []
    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString((folder / "saved_model.pb").read_bytes())
    used = {op.name.replace(">", "_") for graph in saved.meta_graphs for op in graph.meta_info_def.stripped_op_list.op}
    return sorted({package for package, library in _imported_op_libraries() if used & vars(library).keys()})


def op_libraries(folder: Path) -> list[str]:
    """Return the packages that the manifest of a SavedModel lists."""
    try:
        return list(json.loads((folder / SavedModel.MANIFEST).read_text(encoding="utf-8")).get(KEY, []))
    except (OSError, ValueError, AttributeError, TypeError):
        return []  # not written by Exporter


def import_op_libraries(folder: Path) -> None:
    """Import the packages that the manifest of a SavedModel lists.

    Raises:
        ArtifactError: a package is not installed.
    """
    for package in op_libraries(folder):
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise ArtifactError(
                f"{folder}: the model has operations of {package}, which cannot be imported ({error}): "
                f"pip install {package.replace('_', '-')}"
            ) from error


def _imported_op_libraries() -> Iterable[tuple[str, ModuleType]]:
    """Yield each module that `tf.load_op_library` returned, with the package that holds it."""
    for name, module in list(sys.modules.items()):
        package = name.partition(".")[0]
        if isinstance(module, ModuleType) and package not in ("tensorflow", "keras", "kerasline"):
            for value in list(vars(module).values()):
                if isinstance(value, ModuleType) and "_IS_TENSORFLOW_PLUGIN" in vars(value):
                    yield package, value
