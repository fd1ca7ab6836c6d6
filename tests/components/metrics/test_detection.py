"""Detection metrics compared with pycocotools' COCOeval, on real boxes of blood cells."""

import contextlib
import io
import pickle
import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasline.components.core.errors import DataError, ParameterError
from kerasline.components.metrics import detection
from kerasline.components.metrics.base import Rows
from kerasline.components.metrics.detection import COLUMNS, DetectionMetrics
from tests.conftest import SHARED_DATA

pytest.importorskip("pycocotools")

KINDS = ["RBC", "WBC", "Platelets"]


def blood_cells(count):
    """Return the true boxes (left, top, right, bottom, class) by image."""
    files = sorted((SHARED_DATA / "bccd" / "BCCD" / "Annotations").glob("*.xml"))[:count]
    if not files:
        pytest.skip(f"no annotations in {SHARED_DATA / 'bccd'}")
    return [
        [
            [float(found.find(f"bndbox/{side}").text) for side in ("xmin", "ymin", "xmax", "ymax")]
            + [KINDS.index(found.find("name").text)]
            for found in ElementTree.parse(file).iter("object")
        ]
        for file in files
    ]


def images(count=60, seed=0, ties=False):
    """Return columns of images, with crowds among the true boxes, images without boxes, predictions or both, and
    predicted are the true boxes moved about, some twice, some as another class, and others besides."""
    rng = np.random.default_rng(seed)
    columns = {name: [] for name in COLUMNS if name != "area"}
    for place, objects in enumerate(blood_cells(count)):
        true = np.array(objects).reshape(-1, 5) if place % 10 != 3 else np.zeros((0, 5))
        true[:, :4] *= rng.uniform(0.1, 1.5)  # so that there are small ones
        found = np.concatenate([true[rng.random(len(true)) < 0.8], true[rng.random(len(true)) < 0.3]])
        size = np.tile(found[:, 2:4] - found[:, :2], 2)
        found[:, :4] += rng.normal(0, 0.08, (len(found), 4)) * size
        found[:, 2:4] = np.maximum(found[:, 2:4], found[:, :2] + 1)
        swapped = rng.random(len(found)) < 0.1
        found[swapped, 4] = rng.integers(0, 3, swapped.sum())
        wild = rng.uniform(0, 300, (rng.integers(0, 6), 5))
        wild[:, 2:4] += wild[:, :2] + 1
        wild[:, 4] = rng.integers(0, 3, len(wild))
        found = np.concatenate([found, wild]) if place % 10 not in (3, 5) or place % 20 == 3 else found[:0]
        score = rng.random(len(found))
        columns["boxes"].append(true[:, :4].tolist())
        columns["classes"].append(true[:, 4].astype(int).tolist())
        columns["crowd"].append((rng.random(len(true)) < 0.08).tolist())
        columns["predicted_boxes"].append(found[:, :4].tolist())
        columns["predicted_classes"].append(found[:, 4].astype(int).tolist())
        columns["scores"].append((np.round(score, 1) if ties else score).tolist())
    return columns


def as_rows(columns, weight=None, number=None):
    count = len(columns["boxes"])
    arrays = {name: held if isinstance(held, pa.Array) else pa.array(held) for name, held in columns.items()}
    empty = np.zeros(count)
    number = np.arange(count) if number is None else np.asarray(number)
    return Rows(empty, empty, None if weight is None else np.asarray(weight, float), number, arrays)


def estimates(family, *parts, seed=0):
    state = family.new_state()
    for part in parts:
        state.add(part)
    return family.estimates(state, seed)


def values(family, *parts):
    return {name: estimate.value for name, estimate in estimates(family, *parts).items()}


def of_pycocotools(columns, number=None, classes=range(3)):
    """Return the twelve metrics of pycocotools, with NaN instead of -1."""
    figures = np.where((stats := evaluated(columns, number, classes).stats) == -1, np.nan, stats)
    return dict(zip(DetectionMetrics.directions, figures.tolist()))


def evaluated(columns, number=None, classes=range(3)):
    """Return pycocotools' COCOeval of images."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    number = range(len(columns["boxes"])) if number is None else [int(one) for one in number]
    true, found = [], []
    for place, image in enumerate(number):
        listed = zip(columns["boxes"][place], columns["classes"][place], columns["crowd"][place])
        for (left, top, right, bottom), kind, crowd in listed:
            box = [left, top, right - left, bottom - top]
            true.append({"id": len(true) + 1, "image_id": image, "category_id": kind, "bbox": box})
            true[-1] |= {"area": box[2] * box[3], "iscrowd": int(crowd)}
        listed = zip(*(columns[name][place] for name in ("predicted_boxes", "predicted_classes", "scores")))
        for (left, top, right, bottom), kind, score in listed:
            box = [left, top, right - left, bottom - top]
            found.append({"image_id": image, "category_id": kind, "bbox": box, "score": score})
    with contextlib.redirect_stdout(io.StringIO()):
        data = COCO()
        data.dataset = {
            "info": {},
            "images": [{"id": image} for image in number],
            "annotations": true,
            "categories": [{"id": kind} for kind in classes],
        }
        data.createIndex()
        evaluation = COCOeval(data, data.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def repeated(columns, times):
    return {name: [row for row, count in zip(lists, times) for _ in range(count)] for name, lists in columns.items()}


@pytest.mark.parametrize("ties", [False, True])
def test_values_agree_with_pycocotools(ties):
    columns = images(ties=ties)
    expected = of_pycocotools(columns)
    assert len({round(value, 3) for value in expected.values()}) > 8  # the figures tell cases apart
    assert values(DetectionMetrics(), as_rows(columns)) == pytest.approx(expected, rel=1e-12)


def test_precision_recall_curve_agrees_with_pycocotools():
    columns, family = images(), DetectionMetrics()
    state = family.new_state()
    state.add(as_rows(columns))
    curve = family.curves(state)["precision_recall"]
    expected = evaluated(columns).eval["precision"][0, :, :, 0, 2].mean(1)  # overlap, recalls, classes, area, most
    np.testing.assert_allclose(curve["y"], expected, rtol=1e-12)
    assert (curve["x"][0], curve["x"][-1]) == (0, 1) and family.curves(family.new_state()) == {}


@pytest.mark.slow
def test_values_over_all_images_agree_with_pycocotools():
    columns = images(count=364, seed=5)
    found = values(DetectionMetrics(replicates=0), as_rows(columns))
    assert found == pytest.approx(of_pycocotools(columns), rel=1e-12)


def test_only_the_first_hundred_detections_of_an_image_count():
    columns = images(count=12)
    rng = np.random.default_rng(0)
    for place in range(2):
        boxes = np.array(columns["boxes"][place])[rng.integers(0, len(columns["boxes"][place]), 250)]
        columns["predicted_boxes"][place] = (boxes + rng.normal(0, 3, boxes.shape)).tolist()
        columns["predicted_classes"][place] = [0] * 250
        columns["scores"][place] = rng.random(250).tolist()
    assert values(DetectionMetrics(), as_rows(columns)) == pytest.approx(of_pycocotools(columns), rel=1e-12)


def test_equal_scores_are_ordered_by_image_number():
    columns = images(count=30, ties=True)
    number = np.random.default_rng(3).permutation(1000)[:30]
    expected = of_pycocotools(columns, number)
    assert values(DetectionMetrics(), as_rows(columns, number=number)) == pytest.approx(expected, rel=1e-12)


@given(st.lists(st.integers(0, 24), max_size=4), st.permutations(range(5)), st.booleans())
@settings(max_examples=10)
def test_parts_merged_in_any_order_equal_the_whole(cuts, order, ties):
    whole = as_rows(images(count=24, ties=ties))
    family = DetectionMetrics(replicates=20)
    parts = [whole.take(places) for places in np.split(np.arange(24), sorted(cuts))]
    merged = family.new_state()
    for place in order:
        if place < len(parts):
            state = family.new_state()
            state.add(parts[place])
            merged.merge(pickle.loads(pickle.dumps(state)))
    found, expected = family.estimates(merged, 1), estimates(family, whole, seed=1)
    for name, estimate in expected.items():
        assert found[name].value == pytest.approx(estimate.value, nan_ok=True, rel=1e-12)
        assert found[name].replicates == pytest.approx(estimate.replicates, nan_ok=True, rel=1e-12)


def test_weights_repeat_images():
    columns = images(count=40)
    weight = np.random.default_rng(0).integers(0, 4, 40)
    expected = of_pycocotools(repeated(columns, weight))
    assert values(DetectionMetrics(), as_rows(columns, weight)) == pytest.approx(expected, rel=1e-12)
    # All ten times less: only what they are to each other matters, though none of them is exact.
    assert values(DetectionMetrics(), as_rows(columns, weight / 10)) == pytest.approx(expected, rel=1e-9)


def test_intervals_agree_with_pycocotools_on_resampled_images():
    columns, number = images(count=40), np.arange(40)
    found = estimates(DetectionMetrics(replicates=8), as_rows(columns), seed=7)
    drawn = np.random.default_rng(7).poisson(1.0, (8, len(number)))
    for place in range(8):
        expected = of_pycocotools(repeated(columns, drawn[place]))
        assert {name: float(one.replicates[place]) for name, one in found.items()} == pytest.approx(
            expected, rel=1e-12, nan_ok=True
        )


def test_replicates_do_not_depend_on_the_memory_limit(monkeypatch):
    columns = images(count=20)
    expected = estimates(DetectionMetrics(replicates=15), as_rows(columns))
    monkeypatch.setattr(detection, "MOST_NUMBERS", 4 * sum(map(len, columns["scores"])))
    found = estimates(DetectionMetrics(replicates=15), as_rows(columns))
    for name, estimate in expected.items():
        assert found[name].replicates == pytest.approx(estimate.replicates, rel=1e-12, nan_ok=True)


def test_interval_contains_the_value_and_names_bootstrap():
    found = estimates(DetectionMetrics(), as_rows(images()))["ap"]
    low, high = found.interval(0.95)
    assert found.method == "bootstrap"
    assert low < found.value < high
    assert estimates(DetectionMetrics(replicates=0), as_rows(images()))["ap"].method is None


def test_values_per_class_agree_with_pycocotools():
    columns = images()
    family = DetectionMetrics()
    state = family.new_state()
    state.add(as_rows(columns))
    found = family.per_class(state)
    for kind in range(3):
        assert found[kind] == pytest.approx(of_pycocotools(of_class(columns, kind)), rel=1e-12, nan_ok=True)


def of_class(columns, kind):
    classes = {name: "predicted_classes" if name[0] in "ps" else "classes" for name in columns}
    return {
        name: [
            [one for one, of in zip(entries, kinds) if of == kind]
            for entries, kinds in zip(columns[name], columns[classes[name]])
        ]
        for name in columns
    }


def test_box_format_and_column_names_can_be_set():
    columns = images(count=20)
    expected = values(DetectionMetrics(), as_rows(columns))
    for name in ("boxes", "predicted_boxes"):
        columns[name] = [
            [[left, top, right - left, bottom - top] for left, top, right, bottom in boxes] for boxes in columns[name]
        ]
    columns["truth"] = columns["boxes"]
    columns["area"] = [[box[2] * box[3] for box in boxes] for boxes in columns["boxes"]]
    rows = as_rows(columns)
    rows = Rows(rows.label, rows.prediction, None, rows.number, {**rows.columns, "boxes": pa.nulls(20)})
    assert values(DetectionMetrics({"boxes": "truth"}, boxes="xywh"), rows) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    "form, convert",
    [
        ("yxyx", lambda left, top, right, bottom: [top, left, bottom, right]),
        (
            "center_xywh",
            lambda left, top, right, bottom: [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top],
        ),
    ],
)
def test_every_box_format_gives_the_same_metrics(form, convert):
    columns = images(count=20)
    expected = values(DetectionMetrics(), as_rows(columns))
    for name in ("boxes", "predicted_boxes"):
        columns[name] = [[convert(*box) for box in boxes] for boxes in columns[name]]
    assert values(DetectionMetrics(boxes=form), as_rows(columns)) == pytest.approx(expected, rel=1e-9)


def test_padded_tensors_and_fixed_lists_give_the_same_boxes():
    columns = images(count=20)
    expected = values(DetectionMetrics(), as_rows(columns))
    most = max(map(len, columns["predicted_boxes"]))

    def padded(lists, filling):
        return np.array([entries + [filling] * (most - len(entries)) for entries in lists])

    as_tensor = pa.FixedShapeTensorArray.from_numpy_ndarray
    columns["predicted_boxes"] = as_tensor(padded(columns["predicted_boxes"], [0.0] * 4))
    kinds = list(padded(columns["predicted_classes"], -1))
    columns["predicted_classes"] = pa.array(kinds, pa.list_(pa.int64(), most))
    columns["scores"] = as_tensor(padded(columns["scores"], -1.0))
    columns["boxes"] = pa.array(columns["boxes"], pa.large_list(pa.list_(pa.float64(), 4)))
    assert values(DetectionMetrics(), as_rows(columns)) == expected


def test_null_lists_count_as_empty():
    columns = images(count=20)
    expected = values(DetectionMetrics(), as_rows(columns))
    nulled = {name: [entries or None for entries in value] for name, value in columns.items()}
    assert nulled != columns
    assert values(DetectionMetrics(), as_rows(nulled)) == expected


def test_missing_crowd_column_means_no_crowds():
    columns = images(count=20)
    columns["crowd"] = [[False] * len(one) for one in columns["crowd"]]
    expected = of_pycocotools(columns)
    del columns["crowd"]
    assert values(DetectionMetrics(), as_rows(columns)) == pytest.approx(expected, rel=1e-12, nan_ok=True)


def test_perfect_detections_are_perfect():
    columns = images(count=15)
    columns |= {"predicted_boxes": columns["boxes"], "predicted_classes": columns["classes"]}
    columns["scores"] = [[0.9] * len(one) for one in columns["boxes"]]
    columns["crowd"] = [[False] * len(one) for one in columns["boxes"]]
    found = values(DetectionMetrics(), as_rows(columns))
    assert {found[name] for name in ("ap", "ap_50", "ap_75", "ar_100")} == {1.0}


@pytest.mark.parametrize("predicted", [False, True])
def test_images_without_true_boxes_give_no_values(predicted):
    columns = images(count=6)
    columns |= {name: [[]] * 6 for name in ("boxes", "classes", "crowd")}
    if not predicted:
        columns |= {name: [[]] * 6 for name in ("predicted_boxes", "predicted_classes", "scores")}
    assert all(np.isnan(value) for value in values(DetectionMetrics(), as_rows(columns)).values())


def test_no_rows_give_no_values():
    family = DetectionMetrics()
    assert all(np.isnan(value) for value in values(family).values())
    assert all(np.isnan(value) for value in values(family, as_rows(images(count=5)).take(np.arange(0))).values())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"scores": None}, "no column 'scores', which holds the scores"),
        ({"scores": [[0.5]]}, "of row 0, the columns 'predicted_boxes' and 'scores' hold 2 boxes and 1 entries"),
        ({"scores": [[0.5, None]]}, "1 entries in lists of objects are null"),
        ({"classes": [1]}, "'classes' is of type int64, not a list"),
        ({"boxes": [[[1.0, 2.0, 3.0]]]}, "'boxes' does not hold lists of 4 numbers"),
        ({"predicted_boxes": [[[1.0, 2.0, 3.0, 4.0], [1.0]]]}, "'predicted_boxes' does not hold lists of 4"),
    ],
)
def test_invalid_detections_are_an_error_in_one_line(changed, message):
    box = [0.0, 0.0, 5.0, 5.0]
    columns = {"boxes": [[box]], "classes": [[1]], "predicted_boxes": [[box, box]]}
    columns |= {"predicted_classes": [[1, 1]], "scores": [[0.5, 0.6]], **changed}
    rows = as_rows({name: one for name, one in columns.items() if one is not None})
    with pytest.raises(DataError, match=message):
        DetectionMetrics().new_state().add(rows)


def test_unknown_parameters_are_an_error_in_one_line():
    with pytest.raises(ParameterError, match="did you mean 'scores'"):
        DetectionMetrics({"score": "confidence"})
    with pytest.raises(ParameterError, match="expected one of 'xyxy', 'yxyx', 'xywh', 'center_xywh'"):
        DetectionMetrics(boxes="cxcywh")


def test_missing_library_is_reported_with_the_command_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools.cocoeval", None)
    with pytest.raises(ParameterError, match=r"pip install 'kerasline\[detection\]'"):
        DetectionMetrics().new_state().add(as_rows(images(count=2)))


def test_classes_may_be_names():
    columns = images(20)
    named = dict(columns)
    for column in ("classes", "predicted_classes"):
        named[column] = [[KINDS[kind] for kind in row] + [""] * 2 for row in columns[column]]
    for column in ("boxes", "predicted_boxes"):
        named[column] = [row + [[0.0] * 4] * 2 for row in columns[column]]
    named["crowd"], named["scores"] = [
        [[*row, False, False] for row in columns["crowd"]],
        [[*row, 0.0, 0.0] for row in columns["scores"]],
    ]
    family, texts = DetectionMetrics(replicates=0), pa.array(named["predicted_classes"], pa.list_(pa.binary()))
    found = values(family, as_rows(named | {"predicted_classes": texts}))
    assert found == pytest.approx(values(family, as_rows(columns)), nan_ok=True)
    state = family.new_state()
    state.add(as_rows(named))
    by_name = {state.names[kind]: metrics for kind, metrics in family.per_class(state).items()}
    numbered = family.new_state()
    numbered.add(as_rows(columns))
    by_number = {KINDS[kind]: metrics for kind, metrics in family.per_class(numbered).items()}
    assert by_name.keys() == by_number.keys()
    assert all(by_name[kind] == pytest.approx(by_number[kind], nan_ok=True) for kind in by_name)
