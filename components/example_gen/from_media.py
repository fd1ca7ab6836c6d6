"""MediaExampleGen: reads folders of images or audio."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kerasline.components.core.artifacts import Examples
from kerasline.components.core.component import Context, Parameters
from kerasline.components.core.errors import DataError, ParameterError, some
from kerasline.components.core.parameters import PositiveInt
from kerasline.components.example_gen.component import ExampleGen, ExampleGenSettings, Parts

if TYPE_CHECKING:
    from kerasline.components.data.quarantine import Quarantine
    from kerasline.components.data.sources.source import Source

LOG = logging.getLogger("kerasline")


@dataclass(frozen=True, kw_only=True)
class MediaExampleGenSettings(ExampleGenSettings):
    """The parameters of MediaExampleGen, which documents them."""

    input: str
    labels: str | None = None
    bad_rows: Literal["fail", "quarantine"] = "fail"
    check: Literal["decode", "header"] = "decode"
    sound: Literal["wav", "float"] = "wav"
    sample_rate: PositiveInt | None = None
    channels: PositiveInt | None = None
    column_types: dict[str, str] = field(default_factory=dict)


class MediaExampleGen(ExampleGen):
    """Reads a folder of images or audio: a row per file, with `path`, `content` and its labels.

    `content` has the unchanged bytes of images. Sound (WAV, FLAC, OGG, MP3, AIFF) becomes 16-bit WAV, the form that
    `AudioDecoding` decodes; a file that has it already is unchanged. All sound must have one sampling rate, or
    `sample_rate` resamples it.

    Args:
        input: the folder. If `splits` has locations, they are folders in it.
        splits, split_by, split_key, stratify, rows, columns: see `ExampleGen`.
        labels: labels of the files. A CSV file (or `.tsv`): its first column has paths within the folder, or file
            names, the others are labels. A folder of Pascal VOC's XML files (see `read_voc`), or COCO's JSON of object
            instances (see `read_coco`): lists of `boxes` (left, top, right, bottom, in pixels) and `class_names`. Every
            box must have an area and lie inside its image. By default the `label` of a file is the name of its folder.
            Labels without a file are a warning that names them.
        bad_rows: `fail`, or `quarantine` to write files that are neither images nor audio, damaged files, and files
            whose labels are missing or wrong, to the artifact's `quarantine.jsonl`.
        check: `decode` decodes every file, so that a damaged one, or one that training could not decode, is found here.
            `header` looks only at its beginning, and leaves sound unchanged.
        sound: `wav` for 16-bit WAV files, or `float` for lists of float32 samples of one channel, the mean of several.
            They keep the precision and range of 24-bit, 32-bit and float files, and need no `AudioDecoding`.
        sample_rate: sampling rate of all sound, in samples per second. Other rates are resampled by soxr. By default
            all files must have the same.
        channels: number of channels of all sound. 1 takes the mean of the channels; a single channel is repeated. By
            default they are unchanged.
        column_types: Arrow types by column of a CSV file of labels (`{"code": "string"}`).

    Raises:
        DataError: a folder is missing or empty, or a file cannot be used.
        ParameterError: sound cannot be converted without decoding it.

    Example:

    >>> from PIL import Image
    >>> (folder / "images" / "red").mkdir(parents=True)
    >>> Image.new("RGB", (4, 3), "red").save(folder / "images" / "red" / "1.png")
    >>> data = kl.MediaExampleGen(str(folder / "images"), splits={"train": 1}).execute(folder / "out").examples
    >>> data.read("train").select(["path", "label"]).to_pylist()
    [{'path': 'red/1.png', 'label': 'red'}]
    """

    VERSION = "3"
    LIBRARIES = ("pyarrow", "pillow", "soundfile", "soxr")

    settings: Parameters[MediaExampleGenSettings]

    def check(self, inputs: Any) -> None:
        super().check(inputs)
        settings = self.settings
        if settings.check == "header" and (settings.sample_rate or settings.channels or settings.sound == "float"):
            raise ParameterError(
                "ExampleGen.check: sample_rate, channels and sound=float need check=decode, received header; "
                "remove one of them"
            )
        if settings.sound == "float" and (settings.channels or 1) > 1:
            raise ParameterError(f"ExampleGen.channels: expected 1 with sound=float, received {settings.channels}")

    def external_inputs(self) -> Sequence[Path | str]:
        labels = [Path(self.settings.labels)] if self.settings.labels else []
        if labels and labels[0].is_dir():
            labels = sorted(labels[0].rglob("*.xml"))
        return [*labels, *(path for _, (_, files) in self._parts(None) for path in files)]

    def _source(self, quarantine: Quarantine, context: Context) -> Source:
        from kerasline.components.data.arrow_types import types_named
        from kerasline.components.data.media_decoding import SoundForm
        from kerasline.components.data.sources.media_files import MediaSource, read_labels

        settings = self.settings
        labels = read_labels(Path(settings.labels), types_named(settings.column_types)) if settings.labels else None
        sound = SoundForm(settings.sample_rate, settings.channels, settings.sound == "float")
        self._media = MediaSource(labels, quarantine, settings.check, sound)
        return self._media

    def run(self, inputs: Any, outputs: Any, context: Context) -> Mapping[str, Any]:
        metrics = super().run(inputs, outputs, context)
        if not (unused := self._media.labels_without_file):
            return metrics
        LOG.warning(
            "ExampleGen.labels: %s of %s name no file: %s", len(unused), self.settings.labels, some(map(repr, unused))
        )
        return {**metrics, "labels_without_file": len(unused)}

    def _parts(self, source: Any) -> Parts:
        from kerasline.components.data.sources.media_files import media_files

        settings = self.settings
        locations: list[tuple[str | None, Any]] = [(None, "")]
        if settings.splits_are_locations:
            locations = list(settings.splits.items())
        parts = []
        for name, location in locations:
            folder = Path(settings.input, str(location))
            files = media_files(folder) if folder.is_dir() else []
            if not files:
                raise DataError(f"{folder}: the folder does not exist or has no files; see ExampleGen.input")
            parts.append((name, (folder, files)))
        return parts

    def _quarantine_file(self, examples: Examples) -> Path | None:
        return examples.path / Examples.QUARANTINE if self.settings.bad_rows == "quarantine" else None
