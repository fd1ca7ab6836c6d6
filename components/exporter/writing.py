"""An export from its beginning to its end: the SavedModel, then the further forms, measured and judged."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import tensorflow as tf

from kerasline.components.core.artifacts import Artifact, ModelForms
from kerasline.components.core.component import Context
from kerasline.components.core.errors import DataError, one_line
from kerasline.components.evaluator.compiled import output_names
from kerasline.components.evaluator.whole import megabytes
from kerasline.components.exporter import describing, forms, warm_up
from kerasline.components.exporter.form_predictors import PreprocessedPredictor
from kerasline.components.exporter.serving import PREPROCESSED, Serving, Written, write_saved_model
from kerasline.components.models.predictors import SavedModelPredictor

LATENCY_ROWS = (1, 64)
WARM_UP_CALLS, CALLS = 5, 50


class Exporting:
    """One export.

    Args:
        inputs, outputs: of the Exporter.
        settings: its parameters.
    """

    def __init__(self, inputs: Any, outputs: Any, settings: SimpleNamespace, context: Context) -> None:
        self._inputs, self._outputs, self._settings, self._context = inputs, outputs, settings, context
        features, model = inputs.preprocessing.load_features(), inputs.model.load()
        self._serving = Serving(features, model, inputs.preprocessing.facts["class_names"])
        self._rows = warm_up.sample(features.input, inputs.examples, settings.split)

    def run(self) -> Mapping[str, Any]:
        """Writes both artifacts.

        Returns:
            The figures worth showing.
        """
        saved = self._outputs.saved_model
        written = write_saved_model(self._serving, saved.path)
        self._describe(self._serving, written, saved)
        figures = {"inputs": len(self._serving.raw_specs), "megabytes": round(megabytes(saved.path), 2)}
        return {**figures, **self._write_forms(written)}

    def _describe(self, serving: Serving, written: Written, saved: Artifact) -> None:
        assets = describing.write_assets(serving, saved.path)
        why_cold = warm_up.write_warm_up(saved.path, written, self._rows)
        more = {"assets": assets, "warm_up": why_cold or "requests"}
        describing.write_manifest(serving, written, saved, model=self._inputs.model, more=more)

    # Further forms

    def _write_forms(self, written: Written) -> Mapping[str, Any]:
        artifact: ModelForms = self._outputs.model_forms
        found = [self._form(name, artifact.path / name) for name in dict.fromkeys(self._settings.forms)]
        artifact.write_json(
            ModelForms.FILE,
            {
                "split": self._settings.split if self._inputs.examples is not None else None,
                "rows": next((form["rows"] for form in found if "rows" in form), None),
                "reference": self._reference(written) if found else None,
                "forms": found,
            },
        )
        return {form["name"]: _shown(form) for form in found}

    def _form(self, name: str, folder: Path) -> dict[str, Any]:
        """Makes a form, unless it cannot be, or answers worse than it may."""
        self._context.report(f"form {name}")
        told: dict[str, Any] = {"name": name, "takes": forms.FORMS[name].takes}
        try:
            written = forms.write_form(name, self._serving, folder)
            if written is not None:
                self._describe_form(name, written, folder)
            else:
                self._describe_file(name, folder)
            told |= {"megabytes": megabytes(folder), "latency_ms": self._latency(name, folder)}
            told |= self._compared(name, folder)
        except forms.Refused as refusal:
            shutil.rmtree(folder, ignore_errors=True)
            return {**told, "state": "refused", "why": str(refusal)}
        return {**told, "state": "written", "why": None}

    def _describe_form(self, name: str, written: Written, folder: Path) -> None:
        assets = describing.write_assets(self._serving, folder)
        why_cold = warm_up.write_warm_up(folder, written, self._rows)
        more = {"form": name, "assets": assets, "warm_up": why_cold or "requests"}
        describing.write_manifest(self._serving, written, Artifact(folder), model=self._inputs.model, more=more)

    def _describe_file(self, name: str, folder: Path) -> None:
        """Of a file that takes what the preprocessing made: it needs the preprocessing before it."""
        nothing = Written({}, {})
        more = {"form": name, "takes": "preprocessed_inputs"}
        describing.write_manifest(self._serving, nothing, Artifact(folder), model=self._inputs.model, more=more)

    def _compared(self, name: str, folder: Path) -> dict[str, Any]:
        inputs = self._inputs
        if inputs.examples is None:
            return {}
        from kerasline.components.exporter.comparing import compare

        try:
            comparison = compare(
                self._predictor(name, folder),
                inputs.examples,
                self._settings.split,
                preprocessing=inputs.preprocessing,
                model=inputs.model,
                folder=self._context.work_dir / name,
                context=self._context,
            )
        except DataError as error:
            raise forms.Refused(one_line(error, 300)) from error
        finally:
            shutil.rmtree(self._context.work_dir / name, ignore_errors=True)
        why = comparison.refusal(self._settings.max_quality_loss)
        if why:
            raise forms.Refused(why)
        return vars(comparison)

    def _predictor(self, name: str, folder: Path) -> Any:
        if forms.FORMS[name].takes == "raw":
            return SavedModelPredictor(folder)
        return PreprocessedPredictor(folder, self._inputs.preprocessing.path)

    # Figures

    def _latency(self, name: str, folder: Path) -> dict[str, float]:
        predictor = self._predictor(name, folder)
        if isinstance(predictor, SavedModelPredictor):
            return _latency(predictor, self._rows)
        return _latency(predictor.answer, self._made())

    def _reference(self, written: Written) -> dict[str, Any]:
        """The float32 form: its size, and its latency from raw and from preprocessed features."""
        path = self._outputs.saved_model.path
        return {
            "outputs": output_names(self._serving.model),
            "megabytes": megabytes(path),
            "latency_ms": _latency(SavedModelPredictor(path), self._rows),
            "latency_preprocessed_ms": _latency(SavedModelPredictor(path, PREPROCESSED), self._made()),
        }

    def _made(self) -> dict[str, np.ndarray]:
        made = self._serving.transform({name: tf.constant(array) for name, array in self._rows.items()})
        return {name: made[name].numpy() for name in self._serving.preprocessed_specs}


def _latency(answer: Callable[[Mapping[str, np.ndarray]], Any], rows: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Milliseconds of a call, the median of some, by the number of rows."""
    found = {}
    for size in LATENCY_ROWS:
        given = warm_up.repeated(rows, size)
        times = []
        for _ in range(WARM_UP_CALLS + CALLS):
            start = time.perf_counter()
            answer(given)
            times.append(time.perf_counter() - start)
        found[str(size)] = float(np.median(times[WARM_UP_CALLS:])) * 1e3
    return found


def _shown(form: Mapping[str, Any]) -> str:
    if form["state"] == "refused":
        return f"refused: {form['why']}"
    return f"{form['megabytes']:.2f} MB, {form['latency_ms']['1']:.2f} ms"
