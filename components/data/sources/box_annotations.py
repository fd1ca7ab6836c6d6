"""Reading boxes of objects in images: Pascal VOC's XML files and COCO's JSON."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

from kerasline.components.core.errors import DataError, one_line
from kerasline.components.data.sources.media_labels import MediaLabels

# Boxes may leave the image by this much: COCO rounds coordinates to two decimals.
ROUNDING = 0.02
BOXES = pa.large_list(pa.large_list(pa.float64()))

_OBJECTS = pa.schema({"boxes": BOXES, "class_names": pa.large_list(pa.string())})
_VOC = _OBJECTS.append(pa.field("difficult", pa.large_list(pa.int64())))
_VOC_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def read_voc(folder: Path) -> MediaLabels:
    """Read a folder of Pascal VOC's XML files. The key of an image is the path of its file without `.xml`.

    The columns are `boxes`, `class_names` and `difficult` (0 or 1). Coordinates are those of the files: VOC's own begin
    at 1, those of most annotation tools at 0.

    Raises:
        DataError: there are no such files.
    """
    files = sorted(folder.rglob("*.xml"))
    if not files:
        raise DataError(f"{folder}: the folder has no XML files of Pascal VOC; see ExampleGen.labels")
    rows: list[dict[str, Any]] = []
    sizes = np.zeros((len(files), 2), np.int64)
    problems = {}
    for number, file in enumerate(files):
        try:
            root = ElementTree.parse(file).getroot()
            sizes[number] = [_whole(root.findtext(f"size/{side}")) for side in ("height", "width")]
            rows.append(_voc_objects(root))
        except (ElementTree.ParseError, ValueError) as error:
            problems[number] = f"{file}: {one_line(error)}"
            rows.append(dict.fromkeys(_VOC.names, []))
    table = pa.Table.from_pylist(rows, _VOC)
    keys = pa.array([file.relative_to(folder).with_suffix("").as_posix() for file in files])
    return MediaLabels(folder, keys, table, suffixes=False, sizes=sizes, problems=problems)


def _voc_objects(root: ElementTree.Element) -> dict[str, list[Any]]:
    if root.tag != "annotation":
        raise ValueError(f"expected the element <annotation> of Pascal VOC, received <{root.tag}>")
    objects: dict[str, list[Any]] = {name: [] for name in _VOC.names}
    for number, element in enumerate(root.findall("object"), 1):
        name = (element.findtext("name") or "").strip()
        corners = [element.findtext(f"bndbox/{corner}") for corner in _VOC_CORNERS]
        if not name:
            raise ValueError(f"object {number} has no <name>")
        if None in corners:
            raise ValueError(f"object {number} ({name}) has no <{_VOC_CORNERS[corners.index(None)]}> in <bndbox>")
        try:
            objects["boxes"].append([float(corner) for corner in corners if corner is not None])
        except ValueError:
            raise ValueError(f"object {number} ({name}): expected numbers in <bndbox>, received {corners}") from None
        objects["class_names"].append(name)
        objects["difficult"].append(_whole(element.findtext("difficult")))
    return objects


def _whole(text: str | None) -> int:
    return int(float(text)) if text and text.strip() else 0


def read_coco(file: Path) -> MediaLabels:
    """Read COCO's JSON of object instances (cocodataset.org/#format-data). The key of an image is its `file_name`.

    The columns are `boxes`, `class_names`, `crowd` (0 or 1) and `area`, which is that of the box if the file has none.
    COCO's boxes (left, top, width, height) become corners.

    Raises:
        DataError: the file has another form, or refers to an image or a category that it does not have.
    """
    data = _coco_parts(file)
    images, objects, categories = data["images"], data["annotations"], data["categories"]
    image = _references(file, objects, "image_id", images, "images")
    category = _references(file, objects, "category_id", categories, "categories")
    whole = pc.equal(pc.list_value_length(objects["bbox"]), 4).fill_null(False)
    if not pc.all(whole, min_count=0).as_py():
        number = pc.index(whole, False).as_py()
        raise DataError(
            f"{file}: annotations[{number}].bbox: expected [left, top, width, height], received "
            f"{objects['bbox'][number].as_py()}"
        )
    order = np.argsort(image, kind="stable")
    objects = {name: column.take(pa.array(order)) for name, column in objects.items()}
    ends = np.cumsum(np.bincount(image, minlength=len(images["id"])))
    offsets = pa.array(np.concatenate([[0], ends]), pa.int64())
    measured = objects["bbox"].flatten().to_numpy(zero_copy_only=False).reshape(-1, 4)
    left_top, size = measured[:, :2], measured[:, 2:]
    corners = pa.array(np.hstack([left_top, left_top + size]).ravel())
    boxes = pa.LargeListArray.from_arrays(pa.array(np.arange(0, len(corners) + 1, 4), pa.int64()), corners)
    flat = {
        "boxes": boxes,
        "class_names": categories["name"].take(pa.array(category[order])),
        "crowd": objects["iscrowd"].fill_null(0),
        "area": pc.coalesce(objects["area"], pa.array(size.prod(axis=1))),
    }
    table = pa.table({name: pa.LargeListArray.from_arrays(offsets, values) for name, values in flat.items()})
    sizes = np.stack([images[side].fill_null(0).to_numpy() for side in ("height", "width")], axis=1)
    return MediaLabels(file, images["file_name"], table, sizes=sizes)


def _coco_parts(file: Path) -> dict[str, dict[str, pa.Array]]:
    """Return the fields that are used, by part of the file. Identifiers may be numbers or texts."""
    for kind in (pa.int64(), pa.string()):
        schema = pa.schema(
            {
                "images": _list_of(id=kind, file_name=pa.string(), height=pa.int64(), width=pa.int64()),
                "annotations": _list_of(
                    image_id=kind,
                    category_id=pa.int64(),
                    bbox=pa.list_(pa.float64()),
                    iscrowd=pa.int64(),
                    area=pa.float64(),
                ),
                "categories": _list_of(id=pa.int64(), name=pa.string()),
            }
        )
        parse = pa.json.ParseOptions(
            explicit_schema=schema, newlines_in_values=True, unexpected_field_behavior="ignore"
        )
        read = pa.json.ReadOptions(block_size=max(1 << 20, file.stat().st_size + 1), use_threads=False)
        try:
            table = pa.json.read_json(file, read_options=read, parse_options=parse)
            break
        except (pa.ArrowInvalid, OverflowError, OSError) as error:
            problem = error
    else:
        raise DataError(f"{file}: not COCO's JSON of object instances ({one_line(problem)})") from problem
    parts = {}
    for name in schema.names:
        if table.num_rows != 1 or not table[name][0].is_valid:
            raise DataError(f"{file}: not COCO's JSON of object instances: it has no {name!r}")
        rows = table[name].combine_chunks().flatten()
        parts[name] = {field.name: rows.field(field.name) for field in rows.type}
    for part, field in (("images", "id"), ("images", "file_name"), ("categories", "id"), ("categories", "name")):
        if parts[part][field].null_count:
            raise DataError(f"{file}: {part}[{pc.index(parts[part][field].is_null(), True)}] has no {field!r}")
    return parts


def _list_of(**fields: pa.DataType) -> pa.DataType:
    return pa.list_(pa.struct(fields))


def _references(file: Path, objects: dict[str, pa.Array], name: str, part: dict[str, pa.Array], part_name: str) -> Any:
    """Return for each object the row of the part that it refers to."""
    rows = pc.index_in(objects[name], value_set=part["id"])
    if rows.null_count:
        number = pc.index(rows.is_null(), True).as_py()
        raise DataError(
            f"{file}: annotations[{number}].{name}: {objects[name][number].as_py()!r} is not an id of {part_name!r}"
        )
    return rows.to_numpy().astype(np.int64)


def box_problems(boxes: pa.Array, annotated: np.ndarray, sizes: np.ndarray) -> dict[int, str]:
    """Return what is wrong with the boxes of images, by row, for the first bad box of each.

    Args:
        boxes: the boxes of each image, lists of corners (see `read_voc`).
        annotated: the height and width of each image (images, 2) according to its annotations, 0 if unknown.
        sizes: those of the image itself.
    """
    problems = {
        int(row): f"its annotations are of an image of {_size(annotated[row])}, but it has {_size(sizes[row])}"
        for row in np.flatnonzero(((annotated != sizes) & (annotated > 0)).any(axis=1))
    }
    row = pc.list_parent_indices(boxes).to_numpy()
    corners = boxes.flatten().flatten().to_numpy(zero_copy_only=False).reshape(-1, 4)
    left, top, right, bottom = corners.T
    height, width = sizes[row].T
    empty = ~((right > left) & (bottom > top))  # also NaN
    outside = (left < -ROUNDING) | (top < -ROUNDING) | (right > width + ROUNDING) | (bottom > height + ROUNDING)
    for bad in np.flatnonzero(empty | outside):
        number = bad - np.searchsorted(row, row[bad]) + 1
        box = f"box {number}, [{', '.join(f'{corner:.10g}' for corner in corners[bad])}],"
        problem = (
            f"{box} has no area: expected left < right and top < bottom"
            if empty[bad]
            else f"{box} reaches outside the image of {_size(sizes[row[bad]])}"
        )
        problems.setdefault(int(row[bad]), problem)
    return problems


def _size(size: np.ndarray) -> str:
    return f"{size[1]} x {size[0]} pixels"
