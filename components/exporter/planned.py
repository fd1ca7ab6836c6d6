"""What an exported model will take and return, known before it is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kerasline.components.core.artifacts import Model, Preprocessing, SavedModel


class PlannedSavedModel(SavedModel):
    """The interface of the SavedModel that Exporter will write. There are no files.

    Args:
        preprocessing: the output of Transform.
        model: the model, which need not be trained.
    """

    def __init__(self, preprocessing: Preprocessing, model: Model) -> None:
        super().__init__("a model that is not exported yet")
        self._preprocessing, self._model = preprocessing, model

    @property
    def manifest(self) -> dict[str, Any]:
        outputs, names = self._model.outputs, self._preprocessing.facts["class_names"]
        return {
            "inputs": {name: form.as_json() for name, form in self._preprocessing.served_inputs.items()},
            "outputs": [*outputs, *(["label"] if is_labelled(names, outputs) else [])],
            "class_names": names,
        }


def is_labelled(class_names: Any, outputs: Mapping[str, Any]) -> bool:
    """Return whether the served model also returns `label`, the name of the class.

    It does if its only output has a score for each class and is not itself named `label`.

    Args:
        class_names: names of the classes of the label, by label if there are several, or None.
        outputs: what the model returns, by name, with a `shape` each.
    """
    if not isinstance(class_names, list) or len(outputs) != 1 or "label" in outputs:
        return False
    (output,) = outputs.values()
    return output.shape[-1] == len(class_names)
