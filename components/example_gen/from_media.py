"""MediaExampleGen: reads folders of images or audio."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kerasline.components.core.artifacts import Examples
from kerasline.components.core.component import Context, Parameters
from kerasline.components.core.errors import DataError
from kerasline.components.example_gen.component import ExampleGen, ExampleGenSettings, Parts

if TYPE_CHECKING:
    from kerasline.components.data.quarantine import Quarantine
    from kerasline.components.data.sources.source import Source


@dataclass(frozen=True, kw_only=True)
class MediaExampleGenSettings(ExampleGenSettings):
    """The parameters of MediaExampleGen, which documents them."""

    input: str
    labels: str | None = None
    bad_rows: Literal["fail", "quarantine"] = "fail"


class MediaExampleGen(ExampleGen):
    """Reads a folder of images or audio: a row per file, with `path`, `content` and its labels.

    Args:
        input: the folder. If `splits` has locations, they are folders in it.
        splits, split_by, split_key, stratify: see `ExampleGen`.
        labels: CSV file. Its first column has paths within the folder, or file names, the others are labels. By default
            the `label` of a file is the name of its folder.
        bad_rows: `fail`, or `quarantine` to write files that are neither images nor audio, and files without a label,
            to the artifact's `quarantine.jsonl`.

    Raises:
        DataError: a folder is missing or empty, or a file cannot be used.
    """

    LIBRARIES = ("pyarrow", "pillow")

    settings: Parameters[MediaExampleGenSettings]

    def external_inputs(self) -> Sequence[Path | str]:
        labels = [Path(self.settings.labels)] if self.settings.labels else []
        return [*labels, *(path for _, (_, files) in self._parts(None) for path in files)]

    def _source(self, quarantine: Quarantine, context: Context) -> Source:
        from kerasline.components.data.sources.media_files import MediaSource

        return MediaSource(Path(self.settings.labels) if self.settings.labels else None, quarantine)

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
