"""What an exported model will take and return, known before it is trained."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from kerasline.components.core.artifacts import Model, Preprocessing, SavedModel, TensorForm
from kerasline.components.models.outputs import labelled_output

if TYPE_CHECKING:
    from kerasline.components.models.answering import PlannedAnswers


class PlannedSavedModel(SavedModel):
    """The interface of the SavedModel that Exporter will write. There are no files.

    Args:
        preprocessing: the output of Transform.
        model: the model, which need not be trained.
        answers: what its answering function reads and returns, or None without one.
    """

    def __init__(self, preprocessing: Preprocessing, model: Model, answers: PlannedAnswers | None = None) -> None:
        super().__init__("a model that is not exported yet")
        self._preprocessing, self._model, self._answers = preprocessing, model, answers

    @property
    def manifest(self) -> dict[str, Any]:
        outputs, names = self._model.outputs, self._preprocessing.facts["class_names"]
        if (answers := self._answers) is not None:
            return {
                "inputs": {name: form.as_json() for name, form in answers.inputs.items()},
                "outputs": list(answers.outputs),
                "output_specs": {name: form.as_json() for name, form in answers.outputs.items()},
                "class_names": names,
                "answered_by": "answer()",
            }
        losses = {name: SimpleNamespace(**loss) for name, loss in self._model.summary["losses"].items()}
        if labelled_output(names, outputs, losses):
            outputs = {**outputs, "label": TensorForm("string", (None,))}
        return {
            "inputs": {name: form.as_json() for name, form in self._preprocessing.served_inputs.items()},
            "outputs": list(outputs),
            "output_specs": {name: form.as_json() for name, form in outputs.items()},
            "from_logits": {name: loss.from_logits for name, loss in losses.items()},
            "class_names": names,
        }
