"""Reading TensorFlow Datasets."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from kerasline.components.core import garbage_collection
from kerasline.components.core.errors import DataError, named_cause, one_line
from kerasline.components.data.arrow_types import is_list
from kerasline.components.data.media import sniff
from kerasline.components.data.media_decoding import SoundForm, UndecodableError, encode_sound
from kerasline.components.data.quarantine import Quarantine
from kerasline.components.data.shards import ROW_GROUP_ROWS
from kerasline.components.data.sources.media_columns import MediaColumns

# Rows read at a time: of numbers and texts, and of images or sound.
BATCH_ROWS, MEDIA_BATCH_ROWS = ROW_GROUP_ROWS // 8, 64


class TfdsSource:
    """Reads the rows of a TFDS builder, and prepares its data first if necessary.

    TFDS has no nulls. NaN in a float and empty bytes become null. The names of a `ClassLabel` are kept as `class_names`
    in the metadata of the field. Sound becomes 16-bit WAV files, and images whose sizes vary are the files that TFDS
    has. Boxes become left, top, right and bottom in pixels of the only image, as MediaExampleGen has them.

    Args:
        input: a TFDS name, `package.module:BuilderClass`, or a folder that TFDS prepared. If `dataset` is given, it may
            be a folder with the files that the builder of `dataset` would download.
        dataset: TFDS name of the builder whose source files `input` has.
        data_dir: folder for prepared data. By default TFDS's own.
        beam_options: for builders that prepare their data with Beam.
        class_texts: whether classes are their names as texts, not their indices.
        sound: the rate and channels to convert sound to. By default those of the data.
        quarantine: receives rows whose images cannot be decoded. By default they are errors.
        images: `pixels` for tensors, or `files` to leave images of one size encoded too.

    Raises:
        DataError: there is no such dataset, or it cannot be prepared.
    """

    def __init__(
        self,
        input: str,
        dataset: str | None,
        data_dir: str | None,
        beam_options: Sequence[str] = (),
        class_texts: bool = False,
        sound: SoundForm | None = None,
        quarantine: Quarantine | None = None,
        images: Literal["pixels", "files"] = "pixels",
    ) -> None:
        with garbage_collection.paused_for_imports():
            import tensorflow  # noqa: F401  # TFDS imports it only when it reads
            import tensorflow_datasets as tfds

        tfds.disable_progress_bar()
        self._tfds = tfds
        self._builder, config = _builder(tfds, input, dataset, data_dir)
        _prepare(self._builder, config, beam_options)
        self._features = self._builder.info.features
        self._class_texts, self._sound, self._images = class_texts, sound or SoundForm(), images
        self._quarantine = quarantine or Quarantine()
        self.rows_read = 0
        if not isinstance(self._features, tfds.features.FeaturesDict):
            raise DataError(
                f"{input}: expected a FeaturesDict of named columns, received {type(self._features).__name__}"
            )

    @property
    def splits(self) -> list[str]:
        return list(self._builder.info.splits)

    def batches(self, split: str) -> Iterator[pa.RecordBatch]:
        """Return the rows of a split, or of a slice such as `train[:90%]`, in a fixed order."""
        import tensorflow as tf

        config = self._tfds.ReadConfig(try_autocache=False, add_tfds_id=False)
        try:
            data = self._builder.as_dataset(
                split=split, shuffle_files=False, read_config=config, decoders=self._undecoded
            )
        except ValueError as error:
            raise DataError(f"split {split!r}: {error}") from error
        schema, images = None, MediaColumns(list(self._undecoded))
        size = MEDIA_BATCH_ROWS if self._has_media else BATCH_ROWS
        for batch in self._read(split, data.ragged_batch(size).prefetch(tf.data.AUTOTUNE)):
            arrays = self._boxes_in_pixels({name: self._array(name, value) for name, value in _flatten(batch)})
            where = f"{self._builder.name}, split {split!r}, from row {self.rows_read}"
            self.rows_read += len(next(iter(arrays.values())))
            schema = schema or self._schema(arrays)
            yield images.checked(
                pa.RecordBatch.from_arrays(list(arrays.values()), schema=schema), where, self._quarantine
            )

    @property
    def _undecoded(self) -> dict[str, Any]:
        """What TFDS leaves as files: images whose sizes vary, or all."""
        images = {
            name: feature
            for name, feature in self._features.items()
            if isinstance(feature, self._tfds.features.Image) and (self._images == "files" or None in feature.shape)
        }
        return dict.fromkeys(images, self._tfds.decode.SkipDecoding())

    def _boxes_in_pixels(self, arrays: Mapping[str, pa.Array]) -> dict[str, pa.Array]:
        kinds, features = {name: _feature(self._features, name) for name in arrays}, self._tfds.features
        images = [name for name, kind in kinds.items() if isinstance(kind, features.Image)]
        boxes = [name for name, kind in kinds.items() if isinstance(kind, features.BBoxFeature)]
        if not boxes or len(images) != 1:
            return dict(arrays)
        sizes = _image_sizes(arrays[images[0]])
        return {**arrays, **{name: _in_pixels(arrays[name], sizes) for name in boxes if is_list(arrays[name].type)}}

    @property
    def _has_media(self) -> bool:
        kinds = (self._tfds.features.Image, self._tfds.features.Audio)
        return any(isinstance(feature, kinds) for feature in self._features.values())

    def _array(self, name: str, value: Any) -> pa.Array:
        feature = _feature(self._features, name)
        if isinstance(feature, self._tfds.features.Audio) and feature.sample_rate:
            return _sounds(name, value, feature.sample_rate, self._sound)
        array = _to_arrow(name, value)
        names = getattr(feature, "names", None)
        return _named(array, pa.array(names)) if names and self._class_texts else array

    def _read(self, split: str, data: Any) -> Iterator[Mapping[str, Any]]:
        """Yield the batches of a tf.data.Dataset, which decodes images and sound."""
        import tensorflow as tf

        try:
            yield from data
        except tf.errors.OpError as error:
            raise DataError(
                f"TFDS dataset {self._builder.name}, split {split!r}, after row {self.rows_read}: "
                f"cannot be read or decoded ({named_cause(error)}); prepare it again"
            ) from error

    def _schema(self, arrays: Mapping[str, pa.Array]) -> pa.Schema:
        fields = []
        for name, array in arrays.items():
            names = None if self._class_texts else getattr(_feature(self._features, name), "names", None)
            metadata = {"class_names": json.dumps(names)} if names else None
            fields.append(pa.field(name, array.type, metadata=metadata))
        return pa.schema(fields)


def _builder(tfds: Any, input: str, dataset: str | None, data_dir: str | None) -> tuple[Any, Any]:
    """Return the builder, and the configuration that says where its source files come from."""
    config = tfds.download.DownloadConfig
    if ":" in input and "." in input.partition(":")[0]:
        import importlib

        module, _, name = input.partition(":")
        try:
            kind = getattr(importlib.import_module(module), name)
        except (ModuleNotFoundError, AttributeError) as error:
            raise DataError(f"{input!r}: {one_line(error)}; expected `module:Class` of a TFDS builder") from error
        return kind(data_dir=data_dir), config(try_download_gcs=False)
    folder = Path(input)
    if folder.is_dir():
        if any(folder.rglob("dataset_info.json")):
            return tfds.builder_from_directory(input), config()
        if dataset is None:
            raise DataError(
                f"{input}: expected a folder that TFDS prepared, but it has no dataset_info.json; "
                "set ExampleGen.dataset if it has source files"
            )
        return _from_folder(tfds, folder, dataset, data_dir), config(manual_dir=str(folder))
    if not folder.exists() and input.startswith((".", "/", "~")):
        raise DataError(f"{input!r}: neither a folder nor the name of a TFDS dataset; check the path")
    try:
        builder = tfds.builder(input, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError:
        close = difflib.get_close_matches(input, tfds.list_builders(), n=1)
        hint = f"did you mean {close[0]!r}?" if close else "see tfds.list_builders()"
        raise DataError(f"{input!r}: neither a folder nor the name of a TFDS dataset; {hint}") from None
    except ValueError as error:  # such as an unknown configuration
        reason = one_line(error, 150)
        raise DataError(f"{input!r}: neither a folder nor the name of a TFDS dataset: {reason}") from error
    return builder, config()


def _from_folder(tfds: Any, folder: Path, dataset: str, data_dir: str | None) -> Any:
    """Return a builder that finds its downloads in a folder.

    TFDS compares each file with a recorded checksum. The user's files may differ, as Debian's Fashion-MNIST does, which
    is compressed with another header. So the checksums are computed from these files. Their content is part of the
    fingerprint of the stage.
    """
    from tensorflow_datasets.core.download import checksums

    parent = tfds.builder_cls(dataset)
    infos = {}
    for url in parent.url_infos:
        name = url.rsplit("/", 1)[-1]
        if not (folder / name).is_file():
            raise DataError(f"{folder}: {name} is missing, a source file of {dataset}; add it")
        found = checksums.compute_url_info(folder / name)
        infos[url] = checksums.UrlInfo(found.size, found.checksum, name)
    facts = {"url_infos": infos, "name": parent.name, "__module__": parent.__module__}
    with tfds.core.registered.skip_registration():
        cls = type(parent.__name__, (parent,), facts)
    return cls(data_dir=data_dir)


def _prepare(builder: Any, config: Any, beam_options: Sequence[str]) -> None:
    from kerasline.components.data.fold import runner_and_options

    config.beam_runner, config.beam_options = runner_and_options(beam_options)
    try:
        builder.download_and_prepare(download_config=config)
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise DataError(
            f"TFDS could not prepare {builder.name} ({reason}); without a network, set "
            "ExampleGen.input to a folder with its source files"
        ) from error


def _flatten(batch: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the columns of nested features, named `outer.inner`."""
    for name, value in batch.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _feature(features: Any, path: str) -> Any:
    """Return the feature of a column, of each element if it is a list, or None if it is unknown."""
    for name in path.split("."):
        features = features[name] if hasattr(features, "keys") and name in features else None
        features = getattr(features, "feature", features)
    return features


def _image_sizes(images: pa.Array) -> np.ndarray:
    """Return height and width of each image, float64 (rows, 2). NaN if a file's header is damaged."""
    if isinstance(images, pa.FixedShapeTensorArray):
        return np.tile(np.array(images.type.shape[:2], np.float64), (len(images), 1))
    found = [sniff(file) for file in images.to_pylist()]
    return np.array([one.size if one and one.size else (np.nan, np.nan) for one in found], np.float64).reshape(-1, 2)


def _in_pixels(boxes: pa.Array, sizes: np.ndarray) -> pa.Array:
    """Convert TFDS's boxes, lists of top, left, bottom and right from 0 to 1. `sizes` is that of `_image_sizes`."""
    import pyarrow.compute as pc

    relative = boxes.values.flatten().to_numpy(zero_copy_only=False).reshape(-1, 4)
    scale = np.tile(sizes[pc.list_parent_indices(boxes).to_numpy()][:, ::-1], 2)
    corners = pa.array((relative[:, [1, 0, 3, 2]] * scale).ravel())
    lists = pa.LargeListArray.from_arrays(pa.array(np.arange(0, len(corners) + 1, 4), pa.int64()), corners)
    return pa.LargeListArray.from_arrays(boxes.offsets, lists)


def _named(indices: pa.Array, names: pa.Array) -> pa.Array:
    """Return classes, or lists of them, as their names. -1, which TFDS has for an unknown class, becomes null."""
    import pyarrow.compute as pc

    if isinstance(indices, pa.LargeListArray):
        return pa.LargeListArray.from_arrays(indices.offsets, _named(indices.values, names))
    return names.take(pc.if_else(pc.less(indices, 0), None, indices))


def _sounds(name: str, value: Any, rate: int, form: SoundForm) -> pa.Array:
    """Return sound as WAV files. TFDS has it as integers of 16 bits, or floats, (rows, frames) or with channels."""
    rows = value.numpy()
    scale = 1.0 if value.dtype.is_floating else 2.0**15
    files = []
    for row in rows:
        samples = (np.asarray(row, np.float32) / scale).reshape(len(row), -1)
        if not np.abs(samples).max(initial=0.0) <= 1:
            raise DataError(f"feature {name!r}: sound of 16 bits is expected, received samples up to {samples.max():g}")
        try:
            files.append(encode_sound(samples, rate, form) if len(row) else None)
        except UndecodableError as error:
            raise DataError(f"feature {name!r}: {error.reason}; {error.advice}") from error
    return pa.array(files, pa.binary())


def _to_arrow(name: str, value: Any) -> pa.Array:
    import tensorflow as tf

    if isinstance(value, tf.RaggedTensor):
        values = _to_arrow(name, value.values)
        if isinstance(values, pa.FixedShapeTensorArray) and len(values.type.shape) == 1:
            length = values.type.shape[0]
            offsets = np.arange(len(values) + 1, dtype=np.int64) * length
            values = pa.LargeListArray.from_arrays(pa.array(offsets), values.storage.flatten())
        if isinstance(values, pa.ExtensionArray):
            raise DataError(f"feature {name!r}: lists of tensors are not supported; flatten the feature")
        return pa.LargeListArray.from_arrays(pa.array(value.row_splits.numpy(), pa.int64()), values)
    if not isinstance(value, tf.Tensor):
        raise DataError(f"feature {name!r}: {type(value).__name__} is not supported")
    array = value.numpy()
    if array.dtype == object:
        if array.ndim == 1:
            return _decode_text(pa.array(array, pa.binary()))
        texts = _decode_text(pa.array(array.reshape(-1), pa.binary()))
        step = int(np.prod(array.shape[1:]))
        offsets = np.arange(len(array) + 1, dtype=np.int64) * step
        return pa.LargeListArray.from_arrays(pa.array(offsets), texts)
    if array.ndim == 1:
        return pa.array(array, from_pandas=True)  # NaN becomes null
    return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(array))


def _decode_text(values: pa.Array) -> pa.Array:
    """Return bytes as text if all are UTF-8. Empty bytes become null."""
    import pyarrow.compute as pc

    values = pc.if_else(pc.equal(pc.binary_length(values), 0), None, values)
    try:
        return values.cast(pa.string())
    except pa.ArrowInvalid:
        return values
