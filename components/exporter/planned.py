"""What an exported model will take and return, known before it is trained."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from kerasline.components.core.artifacts import Model, Preprocessing, SavedModel
from kerasline.components.models.outputs import labelled_output


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
        losses = {name: SimpleNamespace(**loss) for name, loss in self._model.summary["losses"].items()}
        return {
            "inputs": {name: form.as_json() for name, form in self._preprocessing.served_inputs.items()},
            "outputs": [*outputs, *(["label"] if labelled_output(names, outputs, losses) else [])],
            "class_names": names,
        }
