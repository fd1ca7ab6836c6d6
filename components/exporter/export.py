"""One export: write the SavedModel, then the further forms, and compare them with the model."""

from __future__ import annotations

import functools
import importlib
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from kerasline.components.core.artifacts import Artifact, ModelForms
from kerasline.components.core.component import Context
from kerasline.components.core.errors import DataError, one_line
from kerasline.components.exporter import forms, manifest, warm_up
from kerasline.components.exporter.form_predictors import PreprocessedPredictor
from kerasline.components.exporter.served_model import PREPROCESSED, RAW, ServedModel, Written, write_saved_model
from kerasline.components.exporter.settings import ExporterSettings
from kerasline.components.exporter.text_answers import text_answers
from kerasline.components.models.answering import functions_by_signature
from kerasline.components.models.freezing import merge_lora
from kerasline.components.models.graph_operations import GraphOperations
from kerasline.components.models.predictors import SavedModelPredictor
from kerasline.components.models.row_independence import row_dependence
from kerasline.components.models.signatures import read_meta_graph, signatures
from kerasline.components.models.size_and_latency import megabytes

CALLS = 50
# Rows per call are limited to this many floating-point operations, a few seconds on two cores, and to this much memory
# or a quarter of the weights. So large and generating models are exported in bounded time and memory.
CALL_FLOPS, CALL_BYTES = 1e11, 1 << 27
ROWS, ROWS_OF_UNKNOWN_COST = 64, 4


class Export:
    """One run of Exporter.

    Args:
        inputs, outputs: of Exporter.
        settings: its parameters.
        context: its context.
    """

    def __init__(self, inputs: Any, outputs: Any, settings: ExporterSettings, context: Context) -> None:
        self._inputs, self._outputs, self._settings, self._context = inputs, outputs, settings, context
        for package in settings.op_libraries:
            importlib.import_module(package)
        answers, model = functions_by_signature(settings.answer), inputs.model.load()
        merge_lora(model)
        self._served = ServedModel.of(inputs.preprocessing, model, answers, settings.stream)
        self._rows = warm_up.sample_rows(
            self._served.preprocessing.input, inputs.examples, settings.split, self._rows_per_call
        )

    def run(self) -> Mapping[str, Any]:
        """Write both artifacts and return the metrics to display."""
        saved = self._outputs.saved_model
        written = write_saved_model(self._served, saved.path)
        dependence = self._row_dependence(written, saved.path)
        self._describe(written, saved, dependence)
        metrics: dict[str, Any] = {"inputs": len(self._served.raw_specs), "megabytes": round(megabytes(saved.path), 2)}
        if dependence is not None:
            metrics["rows"] = f"depend on each other: {dependence}"
        if self._settings.answer is not None:
            metrics["answer"] = str(self._served.costs or "costs unknown")
        return {**metrics, **self._write_forms(written)}

    def _row_dependence(self, written: Written, folder: Path) -> str | None:
        """Return how an answer of `serving_default` depends on the other rows of its batch, or None.

        A server that batches requests would then give one client answers that depend on another's request.
        """
        graph = read_meta_graph(folder)
        signature = signatures({RAW: graph.signature_def[RAW]})[RAW]
        function, _ = written.signatures[RAW]

        def call(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
            answers = function({name: tf.constant(array) for name, array in zip(signature.inputs, arrays)})
            return [answers[name].numpy() for name in signature.outputs]

        rows = [[self._rows[name] for name in signature.inputs]]
        return row_dependence(call, signature, GraphOperations(graph), rows, batch_rows=2 * self._rows_per_call)

    @functools.cached_property
    def _rows_per_call(self) -> int:
        """Largest number of rows in a call of the model."""
        costs = self._served.costs
        if costs is None or any(loop.iterations is None for loop in costs.loops):
            return ROWS if self._settings.answer is None else ROWS_OF_UNKNOWN_COST
        weights = self._inputs.model.summary.get("bytes", 0)
        rows = min(CALL_FLOPS / max(costs.flops, 1), max(CALL_BYTES, weights // 4) / max(costs.memory_bytes, 1))
        return max(1, min(ROWS, int(rows)))

    def _describe(self, written: Written, saved: Artifact, row_dependence: str | None) -> None:
        assets = manifest.write_assets(self._served, saved.path)
        no_warm_up = warm_up.write_warm_up(saved.path, written, self._rows, self._rows_per_call)
        self._texts = text_answers(self._served, written, self._rows)
        more = {
            "assets": assets,
            "warm_up": no_warm_up or "requests",
            "row_dependence": row_dependence,
            "answer_costs": None if self._served.costs is None else asdict(self._served.costs),
        }
        self._write_manifest(written, saved, more)

    def _write_manifest(self, written: Written, artifact: Artifact, more: Mapping[str, Any]) -> None:
        manifest.write_manifest(
            self._served,
            written,
            artifact,
            model=self._inputs.model,
            op_libraries=self._settings.op_libraries,
            more={"texts": self._texts, **more},
        )

    # Further forms

    def _write_forms(self, written: Written) -> Mapping[str, Any]:
        artifact: ModelForms = self._outputs.model_forms
        written_forms = [self._form(name, artifact.path / name) for name in dict.fromkeys(self._settings.forms)]
        artifact.write_json(
            ModelForms.FILE,
            {
                "split": self._settings.split if self._inputs.examples is not None else None,
                "rows": next((form["rows"] for form in written_forms if "rows" in form), None),
                "reference": self._reference(written) if written_forms else None,
                "forms": written_forms,
            },
        )
        return {form["name"]: _summary(form) for form in written_forms}

    def _form(self, name: str, folder: Path) -> dict[str, Any]:
        """Write a form, unless the model has no such form or its quality is too low."""
        self._context.report(f"form {name}")
        facts: dict[str, Any] = {"name": name, "takes": forms.FORMS[name].takes}
        try:
            written = forms.write_form(name, self._served, folder)
            if written is not None:
                self._describe_form(name, written, folder)
            else:
                self._describe_file(name, folder)
            facts |= {"megabytes": megabytes(folder), "latency_ms": self._latency(name, folder)}
            facts |= self._quality(name, folder, written)
        except forms.Refused as refusal:
            shutil.rmtree(folder, ignore_errors=True)
            return {**facts, "state": "refused", "why": str(refusal)}
        return {**facts, "state": "written", "why": None}

    def _describe_form(self, name: str, written: Written, folder: Path) -> None:
        assets = manifest.write_assets(self._served, folder)
        no_warm_up = warm_up.write_warm_up(folder, written, self._rows, self._rows_per_call)
        more = {"form": name, "assets": assets, "warm_up": no_warm_up or "requests"}
        self._write_manifest(written, Artifact(folder), more)

    def _describe_file(self, name: str, folder: Path) -> None:
        """Describe a file that takes preprocessed features."""
        self._write_manifest(Written({}, {}), Artifact(folder), {"form": name, "takes": "preprocessed_inputs"})

    def _quality(self, name: str, folder: Path, written: Written | None) -> dict[str, Any]:
        inputs = self._inputs
        if inputs.examples is None:
            return {}
        from kerasline.components.exporter.form_quality import Comparison, compare_losses, compare_quality

        try:
            comparison = compare_quality(
                self._predictor(name, folder),
                inputs.examples,
                self._settings.judging,
                preprocessing=inputs.preprocessing,
                model=inputs.model,
                saved_model=self._outputs.saved_model,
                folder=self._context.work_dir / name,
                context=self._context,
            )
            if self._served.answering is not None and written is not None:
                losses = compare_losses(
                    written.model, inputs.model, inputs.preprocessing, inputs.examples, self._settings.split
                )
                comparison = comparison or Comparison(inputs.examples.rows(self._settings.split), None, [])
                comparison.metrics.extend(losses)
        except DataError as error:
            raise forms.Refused(one_line(error)) from error
        finally:
            shutil.rmtree(self._context.work_dir / name, ignore_errors=True)
        if comparison is None:
            return {}
        why = comparison.refusal(self._settings.max_quality_loss)
        if why:
            raise forms.Refused(why)
        return vars(comparison)

    def _predictor(self, name: str, folder: Path) -> Any:
        if forms.FORMS[name].takes == "raw":
            return SavedModelPredictor(folder)
        return PreprocessedPredictor(folder, self._inputs.preprocessing.path)

    # Latency

    def _latency(self, name: str, folder: Path) -> dict[str, float]:
        predictor = self._predictor(name, folder)
        if isinstance(predictor, SavedModelPredictor):
            return self._times(predictor, self._rows)
        return self._times(predictor.answer, self._preprocessed_rows())

    def _reference(self, written: Written) -> dict[str, Any]:
        """Return the size of the float32 model, and its latency from raw and from preprocessed features."""
        path = self._outputs.saved_model.path
        return {
            "outputs": list(self._served.outputs),
            "megabytes": megabytes(path),
            "latency_ms": self._times(SavedModelPredictor(path), self._rows),
            "latency_preprocessed_ms": self._times(SavedModelPredictor(path, PREPROCESSED), self._preprocessed_rows()),
        }

    def _preprocessed_rows(self) -> dict[str, np.ndarray]:
        features = self._served.prepare({name: tf.constant(array) for name, array in self._rows.items()})
        return {name: features[name].numpy() for name in self._served.preprocessed_specs}

    def _times(
        self, answer: Callable[[Mapping[str, np.ndarray]], Any], rows: Mapping[str, np.ndarray]
    ) -> dict[str, float]:
        """Return the median time of a call in milliseconds, by the number of rows."""
        sizes = sorted({1, self._rows_per_call})
        seconds = self._settings.measure_seconds / len(sizes)
        return {str(size): _median_time(answer, warm_up.repeat_rows(rows, size), seconds) for size in sizes}


def _median_time(
    answer: Callable[[Mapping[str, np.ndarray]], Any], batch: Mapping[str, np.ndarray], seconds: float
) -> float:
    """Return the median time of the calls that fit into a number of seconds, at least one, in milliseconds."""
    answer(batch)  # loads and traces
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or (len(times) < CALLS and time.perf_counter() + times[-1] < end):
        start = time.perf_counter()
        answer(batch)
        times.append(time.perf_counter() - start)
    return float(np.median(times)) * 1e3


def _summary(form: Mapping[str, Any]) -> str:
    if form["state"] == "refused":
        return f"refused: {form['why']}"
    return f"{form['megabytes']:.2f} MB, {form['latency_ms']['1']:.2f} ms"
