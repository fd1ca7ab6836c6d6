"""TfdsExampleGen: reads TensorFlow Datasets."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kerasline.components.core.artifacts import Examples
from kerasline.components.core.component import Context, Parameters
from kerasline.components.core.parameters import PositiveInt
from kerasline.components.example_gen.component import ExampleGen, ExampleGenSettings, Parts

if TYPE_CHECKING:
    from kerasline.components.data.quarantine import Quarantine
    from kerasline.components.data.sources.source import Source


@dataclass(frozen=True, kw_only=True)
class TfdsExampleGenSettings(ExampleGenSettings):
    """The parameters of TfdsExampleGen, which documents them."""

    input: str
    splits: dict[str, float | str] = field(default_factory=dict)
    dataset: str | None = None
    data_dir: str | None = None
    bad_rows: Literal["fail", "quarantine"] = "fail"
    class_texts: bool = False
    sample_rate: PositiveInt | None = None
    channels: PositiveInt | None = None
    images: Literal["pixels", "files"] = "pixels"


class TfdsExampleGen(ExampleGen):
    """Reads a TensorFlow Datasets builder. Prepares its data first if necessary, with Beam if the builder uses Beam.

    Sound becomes 16-bit WAV files, as `MediaExampleGen` returns them. Images whose sizes vary stay encoded, and each is
    decoded once to find damaged ones; those of one size become tensors. Boxes become left, top, right and bottom in
    pixels of the image. Nested features become columns such as `objects.bbox`.

    Args:
        input: any TFDS name, `package.module:BuilderClass`, a folder that TFDS prepared, or a folder with the source
            files of `dataset`.
        splits: empty for the splits of TFDS. Locations are TFDS slices (`{"train": "train[:90%]"}`). Sizes split the
            rows of all TFDS splits together.
        split_by, split_key: see `ExampleGen`.
        dataset: TFDS name of the builder that would download the files in the folder `input`.
        data_dir: folder for prepared data. By default TFDS's own.
        bad_rows: `fail`, or `quarantine` to write rows whose images cannot be decoded to the artifact's
            `quarantine.jsonl`.
        class_texts: whether a column of classes has their names. By default it has their indices, and the names in its
            metadata.
        sample_rate, channels: of sound, see `MediaExampleGen`.
        images: `pixels` for tensors, or `files` to leave images of one size encoded too.

    Raises:
        DataError: there is no such dataset, or it cannot be prepared.
    """

    VERSION = "3"
    LIBRARIES = ("pyarrow", "tensorflow-datasets", "palmerpenguins", "pillow", "soundfile", "soxr")

    settings: Parameters[TfdsExampleGenSettings]

    @property
    def imported_alone(self) -> Sequence[str]:
        return ["tensorflow_datasets"]

    def external_inputs(self) -> Sequence[Path | str]:
        folder = Path(self.settings.input)
        if folder.is_dir():
            return sorted(path for path in folder.rglob("*") if path.is_file())
        module, colon, _ = self.settings.input.partition(":")
        spec = None
        with contextlib.suppress(ModuleNotFoundError):  # the stage reports it
            spec = importlib.util.find_spec(module) if colon and "." in module else None
        return [Path(spec.origin)] if spec and spec.origin else []

    def _source(self, quarantine: Quarantine, context: Context) -> Source:
        from kerasline.components.data.media_decoding import SoundForm
        from kerasline.components.data.sources.tfds import TfdsSource

        settings = self.settings
        is_class = ":" in settings.input and not Path(settings.input).exists()
        data_dir = settings.data_dir
        if data_dir is None and (is_class or Path(settings.input).is_dir()):
            data_dir = str(context.work_dir / "tfds")  # temporary, because it is quick to prepare again
        sound = SoundForm(settings.sample_rate, settings.channels)
        return TfdsSource(
            settings.input,
            settings.dataset,
            data_dir,
            context.beam_options,
            settings.class_texts,
            sound,
            quarantine,
            settings.images,
        )

    def _quarantine_file(self, examples: Examples) -> Path | None:
        return examples.path / Examples.QUARANTINE if self.settings.bad_rows == "quarantine" else None

    def _parts(self, source: Any) -> Parts:
        if not self.settings.splits:
            return [(name, name) for name in source.splits]
        if self.settings.splits_are_locations:
            return list(self.settings.splits.items())
        return [(None, "+".join(source.splits))]

    def _check_splits(self) -> None:
        if self.settings.splits:
            super()._check_splits()
