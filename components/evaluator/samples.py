"""Samples of answers for people: the worst rows of a split and random ones, with input, reference and answer.

`samples/samples.json` has a group for each judged answer, and for each output of the network that is texts or boxes::

    {"groups": [{"output", "metric", "direction", "rows": [{"row", "kind": "worst|random", "score", "reference",
    "answer", "columns": {name: value}, "media": {name: file}, "answers": {name: value}, "answer_media": {name: file},
    "picture": file or null, "nearest": {"row", "distance", "held_out_distance", "picture": file} or null}]}]}

`answers` has the answers of the exported model. `picture` shows an image with the true and the detected boxes.
`nearest` is the training picture that is nearest to a generated one (see `nearest.py`), with the distance of the row's
own picture from its nearest one, for comparison.
`samples/samples.parquet` has the same rows as a table, without media.
"""

from __future__ import annotations

import functools
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

from kerasline.components.core.artifacts import Evaluation, Examples
from kerasline.components.core.component import Context
from kerasline.components.core.file_names import file_names
from kerasline.components.core.json_files import finite
from kerasline.components.data.arrow_types import is_bytes
from kerasline.components.data.display import display_columns, display_row, image_pixels, plain, save_picture
from kerasline.components.data.fold import fold
from kerasline.components.data.media import sniff
from kerasline.components.data.row_groups import rows_at
from kerasline.components.data.worst_rows import Worst
from kerasline.components.evaluator.nearest import nearest_pictures
from kerasline.components.evaluator.settings import NEAREST_SPLIT, EvaluatorSettings
from kerasline.components.metrics.base import Metrics, Rows, SumMetrics
from kerasline.components.metrics.detection import DetectionMetrics, corners, is_object
from kerasline.components.metrics.measuring import Measure, rows_of_output
from kerasline.components.models.predictors import SavedModelPredictor
from kerasline.components.models.tasks import TASKS, Output

FOLDER, FILE, TABLE = "samples", "samples.json", "samples.parquet"
ROWS_AT_ONCE = 4096
# Texts are shown up to this length, and pictures with boxes up to this size.
MOST_LETTERS, MOST_SIDE = 1000, 512
UNJUDGED = Output("", "text")  # answers that have no reference
TRUE, ANSWERED = (27, 158, 119), (217, 95, 2)


@dataclass(frozen=True)
class Score:
    """The metric by which the rows of an output are ordered.

    Attributes:
        family: the metrics that it belongs to.
        name, direction: of the metric.
    """

    family: Metrics
    name: str
    direction: str

    def of_rows(self, rows: Rows) -> np.ndarray:
        """Return the score of each row, float64 (rows,)."""
        if isinstance(self.family, DetectionMetrics):
            return self.family.row_scores(rows)
        assert isinstance(self.family, SumMetrics)
        return np.asarray(self.family.values(self.family.sums(rows))[self.name], np.float64)


def score_of(families: Sequence[Metrics]) -> Score | None:
    """Return the first metric that single rows have, chrF if there is one, or None."""
    for family in families:
        if isinstance(family, DetectionMetrics):
            return Score(family, "f1", "up")
        if isinstance(family, SumMetrics) and type(family).unit_rows is SumMetrics.unit_rows:
            named = {name: one for name, one in family.directions.items() if one is not None}
            for name in sorted(named, key=lambda name: name != "chrf"):
                return Score(family, name, str(named[name]))
    return None


class Samples:
    """Chooses and writes the samples of an evaluation.

    Args:
        examples: the data.
        settings: parameters of Evaluator.
        request: the measurement of the predictions.
        served: the exported model whose answers are judged, or None.
        folder, files: folder and names of the files of predictions.
        context: context of the stage.
    """

    def __init__(
        self,
        examples: Examples,
        settings: EvaluatorSettings,
        request: Measure,
        served: SavedModelPredictor | None,
        folder: Path,
        files: Sequence[str],
        context: Context,
    ) -> None:
        self._examples, self._settings, self._request, self._served = examples, settings, request, served
        self._folder, self._files, self._context = folder, files, context

    def write(self, outputs: Sequence[Output], evaluation: Evaluation) -> None:
        """Write the samples of some outputs, or without these of the answers of the exported model."""
        folder = evaluation.path / FOLDER
        folder.mkdir()
        groups = [self._group(output, evaluation.path) for output in outputs or [UNJUDGED]]
        evaluation.write_json(f"{FOLDER}/{FILE}", finite({"groups": groups}))
        table = [
            {"output": group["output"], **{name: row[name] for name in ("row", "kind", "score", "reference", "answer")}}
            for group in groups
            for row in group["rows"]
        ]
        texts = dict.fromkeys(("output", "kind", "reference", "answer"), pa.string())
        schema = pa.schema({"row": pa.int64(), "score": pa.float64(), **texts})
        pq.write_table(pa.Table.from_pylist(table, schema), folder / TABLE)

    def _group(self, output: Output, folder: Path) -> dict[str, Any]:
        score = score_of(self._request.families.get(output.name, ()))
        worst = Worst(self._settings.samples)
        if score is not None:
            accumulate = functools.partial(
                _worst_of_file, output=output.name, score=score, request=self._request, most=self._settings.samples
            )
            paths = [str(self._folder / file) for file in self._files]
            worst = fold(paths, accumulate, Worst.merge, self._context, in_process=len(paths) < 4) or worst
        rows = self._examples.rows(self._settings.split)
        random = np.random.default_rng(self._settings.seed).choice(rows, min(self._settings.samples, rows), False)
        kinds = {int(place): "random" for place in random} | {int(place): "worst" for place in worst.places}
        order = [*worst.places.tolist(), *(place for place in np.sort(random).tolist() if kinds[place] == "random")]
        entries = self._entries(output, score, np.sort(list(kinds)), folder)
        return {
            "output": output.name,
            "metric": score.name if score else None,
            "direction": score.direction if score else None,
            "rows": [{"row": place, "kind": kinds[place], **entries[place]} for place in order],
        }

    def _entries(
        self, output: Output, score: Score | None, places: np.ndarray, folder: Path
    ) -> dict[int, dict[str, Any]]:
        """Return the entries of some rows, by their ascending places."""
        paths = [str(self._folder / file) for file in self._files]
        held = ds.dataset(paths, format="parquet").to_table(filter=pc.field("row").isin(places.tolist()))
        held = held.take(pc.sort_indices(held, [("row", "ascending")])).combine_chunks()
        (batch,) = held.to_batches()
        scores = np.full(len(places), np.nan) if score is None else score.of_rows(_rows(batch, output, self._request))
        raw = pa.concat_tables(rows_at(self._examples, self._settings.split, places)).combine_chunks()
        answers, found = None if self._served is None else self._served.table(raw), {}
        (safe,) = file_names([output.name or "answers"]).values()
        nearest = self._nearest(raw, answers, folder, f"{FOLDER}/{safe}-nearest")
        for number, place in enumerate(places.tolist()):
            start = f"{FOLDER}/{safe}-{place}"
            label, answer = (self._value(batch, f"{side}.{output.name}", number) for side in ("label", "prediction"))
            if TASKS[output.task].sums is not None:
                label = answer = None
            picture = None
            if output.task == "detection":
                picture = self._picture(raw.slice(number, 1), answer, folder, f"{start}-boxes.png")
                answer = _objects(answer["predicted_classes"], output)
            found[place] = {
                "score": float(scores[number]),
                "reference": None if label is None else _text(label),
                "answer": None if answer is None else _text(answer),
                **display_row(number, raw, answers, folder, start),
                "picture": picture,
                "nearest": nearest[number] if nearest else None,
            }
        return found

    def _nearest(self, raw: pa.Table, answers: pa.Table | None, folder: Path, start: str) -> list[dict[str, Any]]:
        """Return the training picture nearest to that generated for each row, or none if there are no such pictures."""
        column = self._settings.nearest
        generated = None if answers is None or column is None else _encoded_pictures(answers)
        if generated is None or column is None:
            return []
        pictures = [*generated, *raw.column(column).to_pylist()]
        found = nearest_pictures(pictures, self._examples, column, self._context)
        rows, places = np.unique(found.row[: len(generated)], return_inverse=True)
        table = pa.concat_tables(rows_at(self._examples, NEAREST_SPLIT, rows, [column])).combine_chunks()
        files = [display_columns(table.slice(n, 1), folder, f"{start}-{row}")[1] for n, row in enumerate(rows.tolist())]
        return [
            {
                "row": int(found.row[number]),
                "distance": float(found.distance[number]),
                "held_out_distance": float(found.distance[len(generated) + number]),
                "picture": files[place].get(column),
            }
            for number, place in enumerate(places.tolist())
        ]

    def _value(self, batch: pa.RecordBatch, column: str, number: int) -> Any:
        return batch.column(column)[number].as_py() if column in batch.schema.names else None

    def _picture(self, row: pa.Table, answer: Mapping[str, Any], folder: Path, path: str) -> str | None:
        """Draw the true and the detected boxes over the first image of a row. Return the file, or None."""
        image = _image(row)
        if image is None:
            return None
        names = self._settings.detection_columns
        true = row.column(names.get("boxes", "boxes"))[0].as_py() or []
        kinds = answer["predicted_classes"]
        detected = [box for box, kind in zip(answer["predicted_boxes"], kinds) if is_object(kind)]
        both = [corners(np.reshape(boxes, (-1, 4)), self._settings.box_format) for boxes in (true, detected)]
        scale = min(1.0, MOST_SIDE / max(image.size))
        if max(image.size) < MOST_SIDE / 4:
            scale = MOST_SIDE / 4 / max(image.size)
        image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
        drawing = ImageDraw.Draw(image)
        for boxes, colour in zip(both, (TRUE, ANSWERED)):
            for left, top, right, bottom in boxes:
                (left, right), (top, bottom) = (
                    sorted((left * scale, right * scale)),
                    sorted((top * scale, bottom * scale)),
                )
                drawing.rectangle([left, top, right, bottom], outline=colour, width=2)
        save_picture(image, folder / path, MOST_SIDE)
        return path


def _worst_of_file(path: str, *, output: str, score: Score, request: Measure, most: int) -> Worst:
    worst = Worst(most)
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(ROWS_AT_ONCE):
            rows = _rows(batch, output, request)
            scores = score.of_rows(rows)
            worst.add(scores if score.direction == "down" else -scores, rows.number)
    return worst


def _rows(batch: pa.RecordBatch, output: Output | str, request: Measure) -> Rows:
    columns = {name: batch.column(f"column.{name}") for name in request.columns}
    return rows_of_output(batch, output if isinstance(output, str) else output.name, request.answers, None, columns)


def _image(row: pa.Table) -> Image.Image | None:
    """Return the first image of a row, or None."""
    for name in row.schema.names:
        kind, value = row.schema.field(name).type, row.column(name)[0]
        if (pixels := image_pixels(kind, value)) is not None:
            return Image.fromarray(pixels).convert("RGB")
        if is_bytes(kind) and value.is_valid:
            try:
                return Image.open(io.BytesIO(value.as_py())).convert("RGB")
            except (OSError, ValueError, Image.DecompressionBombError):
                continue
    return None


def _encoded_pictures(answers: pa.Table) -> list[bytes] | None:
    """Return the first answer that is encoded images, or None."""
    for column in answers.columns:
        if is_bytes(column.type):
            files = column.to_pylist()
            if all((found := sniff(file or b"")) is not None and found.kind == "image" for file in files):
                return files
    return None


def _objects(classes: Sequence[int | str | bytes], output: Output) -> str:
    """Return the number of detected objects of each class, as text."""
    names: dict[int | str, str] = dict(enumerate(output.classes or ()))
    counts = Counter(kind.decode() if isinstance(kind, bytes) else kind for kind in classes if is_object(kind))
    return ", ".join(f"{count} × {names.get(kind, str(kind))}" for kind, count in sorted(counts.items())) or "none"


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value if len(value) <= MOST_LETTERS else f"{value[: MOST_LETTERS - 1]}…"
    return str(plain(value))


def sampled_outputs(outputs: Sequence[Output]) -> list[Output]:
    """Return the outputs that have samples. See `Task.samples`."""
    return [one for one in outputs if (kind := TASKS[one.task].samples) == "always" or kind == "answers" and one.answer]
