"""TfdsExampleGen: reads TensorFlow Datasets."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kerasline.components.core.component import Context, Parameters
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


class TfdsExampleGen(ExampleGen):
    """Reads a TensorFlow Datasets builder. Prepares its data first if necessary, with Beam if the builder uses Beam.

    Args:
        input: any TFDS name, `package.module:BuilderClass`, a folder that TFDS prepared, or a folder with the source
            files of `dataset`.
        splits: empty for the splits of TFDS. Locations are TFDS slices (`{"train": "train[:90%]"}`). Sizes split the
            rows of all TFDS splits together.
        split_by, split_key: see `ExampleGen`.
        dataset: TFDS name of the builder that would download the files in the folder `input`.
        data_dir: folder for prepared data. By default TFDS's own.

    Raises:
        DataError: there is no such dataset, or it cannot be prepared.
    """

    LIBRARIES = ("pyarrow", "tensorflow-datasets", "palmerpenguins")

    settings: Parameters[TfdsExampleGenSettings]

    @property
    def imported_alone(self) -> Sequence[str]:
        return ["tensorflow_datasets"]

    def external_inputs(self) -> Sequence[Path | str]:
        folder = Path(self.settings.input)
        if folder.is_dir():
            return sorted(path for path in folder.rglob("*") if path.is_file())
        module, colon, _ = self.settings.input.partition(":")
        spec = importlib.util.find_spec(module) if colon and "." in module else None
        return [Path(spec.origin)] if spec and spec.origin else []

    def _source(self, quarantine: Quarantine, context: Context) -> Source:
        from kerasline.components.data.sources.tfds import TfdsSource

        settings = self.settings
        is_class = ":" in settings.input and not Path(settings.input).exists()
        data_dir = settings.data_dir
        if data_dir is None and (is_class or Path(settings.input).is_dir()):
            data_dir = str(context.work_dir / "tfds")  # temporary, because it is quick to prepare again
        return TfdsSource(settings.input, settings.dataset, data_dir, context.beam_options)

    def _parts(self, source: Any) -> Parts:
        if not self.settings.splits:
            return [(name, name) for name in source.splits]
        if self.settings.splits_are_locations:
            return list(self.settings.splits.items())
        return [(None, "+".join(source.splits))]

    def _check_splits(self) -> None:
        if self.settings.splits:
            super()._check_splits()
