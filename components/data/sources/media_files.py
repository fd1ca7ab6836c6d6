"""Reading folders of images or audio with their labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

from kerasline.components.core.errors import DataError
from kerasline.components.data.media import Media, sniff
from kerasline.components.data.media_decoding import SoundForm, UndecodableError, decode
from kerasline.components.data.quarantine import Quarantine
from kerasline.components.data.sources.box_annotations import box_problems, read_coco, read_voc
from kerasline.components.data.sources.media_columns import CommonRate
from kerasline.components.data.sources.media_labels import MediaLabels, read_table

BATCH_BYTES = 16 << 20
# Number of files that are read and decoded by threads at a time. Pillow and libsndfile release Python's lock.
FILES_AT_ONCE = 64
# Not media, but what often lies beside them.
_TABLES = (".csv", ".tsv", ".txt", ".md", ".json", ".xml")


@dataclass(frozen=True)
class _File:
    """A media file that was read, or the reason why it cannot be used."""

    name: str
    path: Path
    content: bytes
    media: Media | None = None
    rate: int | None = None
    problem: UndecodableError | None = None


class MediaSource:
    """Reads one row per file: its `path` within the folder, its `content` and its labels.

    The content of images is unchanged. Sound is converted to 16-bit WAV of one rate, unless it has this form.

    Args:
        labels: labels of the files, see `read_labels`. If None, the `label` of a file is the name of its folder.
        quarantine: receives files that are neither images nor audio, damaged files, and files without labels.
        check: `decode` to decode every file, or `header` to look only at its beginning.
        sound: the rate and channels to convert sound to. By default those of the files, and one rate.
    """

    def __init__(
        self,
        labels: MediaLabels | None,
        quarantine: Quarantine,
        check: Literal["decode", "header"] = "decode",
        sound: SoundForm | None = None,
    ) -> None:
        self._labels, self._quarantine = labels, quarantine
        self._decodes, self._sound = check == "decode", sound or SoundForm()
        self._common_rate = CommonRate()
        self._labelled_rows = set[int]()
        self.rows_read = 0

    @property
    def labels_without_file(self) -> list[str]:
        """The keys of labels that no file of the parts read so far has."""
        if self._labels is None:
            return []
        return [key for row, key in enumerate(self._labels.keys.to_pylist()) if row not in self._labelled_rows]

    @property
    def spellings(self) -> Mapping[str, str]:
        """See `CsvSource.spellings`."""
        return self._labels.spellings if self._labels else {}

    def batches(self, files: tuple[Path, Sequence[Path]]) -> Iterator[pa.RecordBatch]:
        """Return the rows of the files of a folder, received as (folder, files); see `Source`."""
        folder, paths = files
        held: list[_File] = []
        held_bytes = 0
        with ThreadPoolExecutor() as threads:
            for first in range(0, len(paths), FILES_AT_ONCE):
                for file in threads.map(lambda path: self._read(folder, path), paths[first : first + FILES_AT_ONCE]):
                    self.rows_read += 1
                    if file.problem is not None:
                        self._refuse(file, file.problem.reason, file.problem.advice)
                        continue
                    self._common_rate.check(file.rate, str(file.path))
                    if held and held_bytes + len(file.content) > BATCH_BYTES:
                        yield from self._batch(held)
                        held, held_bytes = [], 0
                    held.append(file)
                    held_bytes += len(file.content)
        yield from self._batch(held)

    def _read(self, folder: Path, path: Path) -> _File:
        name, content = path.relative_to(folder).as_posix(), path.read_bytes()
        try:
            if self._decodes:
                media, converted, rate = decode(content, self._sound)
                return _File(name, path, converted, media, rate)
            if (known := sniff(content)) is not None:
                return _File(name, path, content, known)
            raise UndecodableError("neither an image nor audio, or its header is damaged", "remove the file")
        except UndecodableError as error:
            return _File(name, path, content, problem=error)

    def _refuse(self, file: _File, reason: str, advice: str) -> None:
        self._quarantine.put(str(file.path), reason, file.content[:256], advice)

    def _batch(self, files: Sequence[_File]) -> Iterator[pa.RecordBatch]:
        """Yield the rows of the files that have labels, if there are any."""
        if self._labels is None:
            labels = {"label": pa.array([Path(file.name).parent.name for file in files], pa.string())}
        else:
            files, rows = self._labelled(files, self._labels)
            taken = self._labels.columns.take(rows)
            labels = {name: column.combine_chunks() for name, column in zip(taken.column_names, taken.columns)}
        if files:
            content = self._contents(files)
            yield pa.record_batch({"path": pa.array([file.name for file in files]), "content": content, **labels})

    def _contents(self, files: Sequence[_File]) -> pa.Array:
        """Return the contents as bytes, or as lists of samples."""
        contents = [file.content for file in files]
        if not self._sound.as_floats:
            return pa.array(contents, pa.binary())
        for file in files:
            if file.rate is None:
                raise DataError(f"{file.path}: expected sound, because ExampleGen.sound is 'float'; remove the file")
        offsets = np.cumsum([0, *(len(content) // 4 for content in contents)])
        samples = np.frombuffer(b"".join(contents), np.float32)
        return pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(samples))

    def _labelled(self, files: Sequence[_File], labels: MediaLabels) -> tuple[list[_File], pa.Array]:
        """Return the files with usable labels, and their rows in the labels. Put the others into quarantine."""
        rows = labels.rows([file.name for file in files]).fill_null(-1).to_numpy()
        self._labelled_rows.update(rows.tolist())
        problems: dict[int, str] = {}
        if labels.sizes is not None:
            sizes = np.array([_image_size(file) for file in files], np.int64).reshape(-1, 2)
            boxes = labels.columns["boxes"].take(pa.array(rows.clip(0))).combine_chunks()
            problems = box_problems(boxes, labels.sizes[rows], sizes)
        for number, row in enumerate(rows):
            if row in labels.problems:
                problems[number] = labels.problems[row]
            if row < 0:
                problems[number] = f"{labels.path.name} has no labels for it"
        for number, problem in sorted(problems.items()):
            self._refuse(files[number], problem, "correct its labels")
        kept = [number for number in range(len(files)) if number not in problems]
        return [files[number] for number in kept], pa.array(rows[kept])


def _image_size(file: _File) -> tuple[int, ...]:
    """Return the height and width of an image, and zeros for sound."""
    size = file.media.size if file.media and file.media.kind == "image" else None
    return size or (0, 0)


def media_files(folder: Path) -> list[Path]:
    """Return all files below a folder, sorted, without hidden files, tables and annotations."""
    found = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name[0] != "."]
    return [path for path in found if path.suffix.lower() not in _TABLES]


def read_labels(path: Path, column_types: Mapping[str, pa.DataType]) -> MediaLabels:
    """Read labels from a table, from a folder of Pascal VOC's XML files, or from COCO's JSON.

    Raises:
        DataError: there is no such file, or it cannot be used.
    """
    if path.is_dir():
        return read_voc(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file or folder; set ExampleGen.labels to the labels of the files")
    return read_coco(path) if path.suffix.lower() == ".json" else read_table(path, column_types)
