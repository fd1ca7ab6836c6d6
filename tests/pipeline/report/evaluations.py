"""Evaluation, Blessing and Explanation artifacts in the form that the stages write."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from scipy import stats
from sklearn import datasets, linear_model, metrics
from sklearn.calibration import calibration_curve
from sklearn.inspection import partial_dependence, permutation_importance
from sklearn.model_selection import train_test_split

from tests.pipeline.report.models import HOSTILE, cancer, digits, write_json

REPLICATES = 30
BINARY = {
    "accuracy": ("up", lambda y, p: metrics.accuracy_score(y, p > 0.5)),
    "recall": ("up", lambda y, p: metrics.recall_score(y, p > 0.5, zero_division=0)),
    "precision": ("up", lambda y, p: metrics.precision_score(y, p > 0.5, zero_division=0)),
    "roc_auc": ("up", lambda y, p: metrics.roc_auc_score(y, p) if len(set(y)) == 2 else None),
    "log_loss": ("down", lambda y, p: metrics.log_loss(y, p, labels=[0, 1])),
    "brier": ("down", metrics.brier_score_loss),
}


def cancer_artifacts(folder: Path, strength: float) -> dict[str, str]:
    data, x, y, _, p, before = cancer(strength)
    radius = np.digitize(x[:, 0], np.quantile(x[:, 0], [0.25, 0.5, 0.75]))
    smooth = x[:, 4] > np.quantile(x[:, 4], 0.9)
    slicings = {
        "mean radius": {f"quarter {n + 1}": radius == n for n in range(4)},
        "smoothness": {HOSTILE: smooth, "the other": ~smooth},
    }
    entries = [_entry("malignant", metric, y, p, before) for metric in BINARY]
    for slicing, parts in slicings.items():
        for metric in BINARY:
            found = [_entry("malignant", metric, y, p, before, slicing, name, part) for name, part in parts.items()]
            _correct([e for e in found if e["p_value"] is not None])
            entries += found
    false, true, _ = metrics.roc_curve(y, p)
    precision, recall, _ = metrics.precision_recall_curve(y, p)
    observed, predicted = calibration_curve(y, p, n_bins=8)
    rates = [p[part].__gt__(0.5).mean() for part in slicings["mean radius"].values()]
    rules = [
        _rule("accuracy", 0.9, entries[0]),
        {**_rule("recall", 0.99, entries[1]), "slicing": "smoothness", "slice": HOSTILE},
    ]
    facts = {
        "outputs": {"malignant": {"task": "binary", "classes": None, "metrics": list(BINARY)}},
        "slicings": [{"name": name, "slices": len(parts), "left_out": 0} for name, parts in slicings.items()],
        "baseline": {"path": "/models/3", "what": "the last blessed model"},
        "metrics": entries,
        "thresholds": {"malignant": [_threshold(y, p, t) for t in np.linspace(0, 1, 101)]},
        "curves": {
            "malignant": {
                "roc": {"x": false.tolist(), "y": true.tolist()},
                "precision_recall": {"x": recall.tolist(), "y": precision.tolist()},
                "calibration": {"x": predicted.tolist(), "y": observed.tolist(), "rows": [1] * len(observed)},
            }
        },
        "fairness": [
            {
                "output": "malignant",
                "slicing": "mean radius",
                "definition": "demographic parity",
                "gap": max(rates) - min(rates),
                "low": None,
                "high": None,
                "most": "quarter 1",
                "least": "quarter 4",
                "slices": 4,
            }
        ],
        "forms": [
            {
                "name": "SavedModel",
                "rows": len(y),
                "largest_difference": 1.2e-7,
                "megabytes": 0.13,
                "metrics": [
                    {"output": "malignant", "metric": "accuracy", "value": entries[0]["value"], "difference": 0.0}
                ],
            }
        ],
        "latency": {"batch_1_ms": {"median": 0.17, "p99": 0.4}},
        "notes": [f"one value of smoothness is {HOSTILE}"],
    }
    _write_evaluation(folder / "evaluation", rows=len(y), **facts)
    write_json(folder / "blessing" / "blessing.json", {"blessed": False, "rules": rules})
    return {"evaluation": "Evaluation", "blessing": "Blessing"}


def two_outputs_artifacts(folder: Path) -> dict[str, str]:
    y, p = digits()
    predicted = p.argmax(1)
    diabetes = datasets.load_diabetes()
    residuals = diabetes.target - linear_model.Ridge().fit(diabetes.data, diabetes.target).predict(diabetes.data)
    precision, recall, f1, support = metrics.precision_recall_fscore_support(y, predicted)
    classes = [str(n) for n in range(10)]
    entries = [
        _plain("digit", "accuracy", "up", metrics.accuracy_score(y, predicted), len(y)),
        _plain("digit", "log_loss", "down", metrics.log_loss(y, p), len(y)),
        _plain("progression", "root_mean_squared_error", "down", float(np.sqrt((residuals**2).mean())), len(residuals)),
        _plain(
            "progression",
            "r2",
            "up",
            1 - float((residuals**2).sum() / ((diabetes.target - diabetes.target.mean()) ** 2).sum()),
            len(residuals),
        ),
    ]
    shares = np.linspace(0, 1, 101)
    facts = {
        "outputs": {
            "digit": {"task": "multi_class", "classes": classes, "metrics": ["accuracy", "log_loss"]},
            "progression": {"task": "regression", "classes": None, "metrics": ["root_mean_squared_error", "r2"]},
        },
        "metrics": entries,
        "per_class": [
            {
                "output": "digit",
                "class": name,
                "metric": metric,
                "value": float(values[n]),
                "low": None,
                "high": None,
                "rows": int(support[n]),
            }
            for n, name in enumerate(classes)
            for metric, values in (("precision", precision), ("recall", recall), ("f1", f1))
        ],
        "confusion": {"digit": {"classes": classes, "counts": metrics.confusion_matrix(y, predicted).tolist()}},
        "residuals": {"progression": {"quantiles": shares.tolist(), "values": np.quantile(residuals, shares).tolist()}},
    }
    _write_evaluation(folder / "evaluation", rows=len(y), **facts)
    _write_samples(folder / "evaluation")
    return {"evaluation": "Evaluation"}


def _write_samples(folder: Path) -> None:
    """Write samples of a captioned digit: a picture as input, texts as reference and answer."""
    (folder / "samples").mkdir()
    Image.fromarray((datasets.load_digits().images[0] * 15.9).astype(np.uint8)).save(folder / "samples" / "0.png")
    row = {
        "row": 0,
        "kind": "worst",
        "score": 12.5,
        "reference": "a round zero",
        "answer": HOSTILE,
        "columns": {"writer": 7},
        "media": {"image": "samples/0.png"},
        "answers": {"certainty": 0.25},
        "answer_media": {},
        "picture": None,
    }
    group = {"output": "caption", "metric": "chrf", "direction": "up", "rows": [row, {**row, "kind": "random"}]}
    write_json(folder / "samples" / "samples.json", {"groups": [group]})


def explanation_artifacts(folder: Path) -> dict[str, str]:
    data, x, y, model, p, _ = cancer(1.0)
    names = [str(name) for name in data.feature_names[:-1]] + [HOSTILE]
    shuffled = permutation_importance(model, x, y, scoring="neg_log_loss", n_repeats=5, random_state=0)
    order = np.argsort(-shuffled.importances_mean)
    scaled, weights = model[0].transform(x), model[1].coef_[0]
    gradients = np.abs(scaled * weights).mean(0)  # exact for a linear model, from the mean as the baseline
    parts = []
    for feature in order[:3]:
        found = partial_dependence(model, x, [feature], kind="both", grid_resolution=30)
        low, high = np.quantile(found["individual"][0], [0.1, 0.9], axis=0)
        parts.append(
            {
                "feature": names[feature],
                "kind": "number",
                "x": list(found["grid_values"][0]),
                "y": list(found["average"][0]),
                "low": list(low),
                "high": list(high),
            }
        )
    parts.append({**parts[0], "feature": "by class", "class": "benign"})
    parts.append({**parts[0], "feature": "by class", "class": "malignant", "y": [1 - y for y in parts[0]["y"]]})
    parts.append(
        {
            "feature": HOSTILE,
            "kind": "category",
            "x": ["benign", HOSTILE],
            "y": [0.4, 0.6],
            "low": [0.3, 0.5],
            "high": [0.5, 0.7],
        }
    )
    facts = {
        "version": 1,
        "split": "test",
        "rows": len(y),
        "sampled": False,
        "seed": 0,
        "output": "malignant",
        "permutation": {
            "metric": "log_loss",
            "direction": "down",
            "value": metrics.log_loss(y, p),
            "repeats": 5,
            "features": [
                {
                    "feature": names[f],
                    "importance": shuffled.importances_mean[f],
                    "low": shuffled.importances[f].min(),
                    "high": shuffled.importances[f].max(),
                }
                for f in order
            ],
        },
        "integrated_gradients": {
            "steps": 64,
            "baseline": "zeros",
            "completeness_error": 1e-4,
            "features": [{"feature": "x", "mean_absolute": gradients.mean(), "places": list(gradients)}],
        },
        "partial_dependence": parts,
        "worst": {"by": "loss", "rows": _worst_digits(folder / "explanation")},
    }
    write_json(folder / "explanation" / "explanation.json", facts)
    return {"explanation": "Explanation"}


def _write_evaluation(folder: Path, *, rows: int, **facts) -> None:
    """`metrics.json` with what is the same in all."""
    same = {
        "version": 1,
        "split": "test",
        "rows": rows,
        "weighted": False,
        "confidence": 0.95,
        "replicates": REPLICATES,
        "seed": 0,
        "small_slice_rows": 50,
        "slicings": [],
        "baseline": None,
        "per_class": [],
        "confusion": {},
        "thresholds": {},
        "curves": {},
        "residuals": {},
        "fairness": [],
        "forms": [],
        "latency": None,
        "notes": [],
    }
    write_json(folder / "metrics.json", {**same, **facts})


def _plain(output, metric, direction, value, rows) -> dict:
    return {
        "output": output,
        "slicing": "",
        "slice": "",
        "rows": rows,
        "weight": float(rows),
        "small": False,
        "metric": metric,
        "direction": direction,
        "value": value,
        "low": None,
        "high": None,
        "interval": None,
        "difference": None,
        "p_value": None,
        "p_corrected": None,
        "baseline": None,
        "change": None,
        "change_low": None,
        "change_high": None,
    }


def _entry(output, metric, y, p, before, slicing="", name="", part=None) -> dict:
    """Return a metric of some rows, its bootstrap interval, and its change from the baseline."""
    direction, measure = BINARY[metric]
    inside = np.ones(len(y), bool) if part is None else part
    yi, pi, bi = y[inside], p[inside], before[inside]
    value, baseline = measure(yi, pi), measure(yi, bi)
    picks = np.random.default_rng(0).integers(0, len(yi), (REPLICATES, len(yi)))
    drawn = [(measure(yi[k], pi[k]), measure(yi[k], bi[k])) for k in picks]
    drawn = np.array([pair for pair in drawn if None not in pair]) if value is not None else np.zeros((0, 2))
    low, high = np.quantile(drawn[:, 0], [0.025, 0.975]) if len(drawn) else (None, None)
    change_low, change_high = np.quantile(drawn[:, 0] - drawn[:, 1], [0.025, 0.975]) if len(drawn) else (None, None)
    rest = None if part is None else measure(y[~inside], p[~inside])
    p_value = None
    if part is not None and metric == "accuracy":
        right = (p > 0.5) == y
        table = [[int((right & side).sum()), int((~right & side).sum())] for side in (inside, ~inside)]
        p_value = float(stats.fisher_exact(table)[1])
    known = value is not None
    return {
        **_plain(output, metric, direction, value, int(inside.sum())),
        "slicing": slicing,
        "slice": name,
        "small": int(inside.sum()) < 50,
        "low": low,
        "high": high,
        "interval": "bootstrap",
        "difference": value - rest if known and rest is not None else None,
        "p_value": p_value,
        "baseline": baseline,
        "change": value - baseline if known else None,
        "change_low": change_low,
        "change_high": change_high,
    }


def _correct(entries: list[dict]) -> None:
    """Holm's step-down correction, in place."""
    reached = 0.0
    for place, entry in enumerate(sorted(entries, key=lambda e: e["p_value"])):
        reached = max(reached, min(1.0, entry["p_value"] * (len(entries) - place)))
        entry["p_corrected"] = reached


def _rule(metric: str, bound: float, entry: dict) -> dict:
    kept = bool(entry["value"] >= bound)
    return {
        "rule": f"{metric} at least {bound}",
        "output": "malignant",
        "metric": metric,
        "slicing": "",
        "slice": "",
        "kind": "min",
        "bound": bound,
        "confidence": None,
        "value": entry["value"],
        "low": entry["low"],
        "high": entry["high"],
        "kept": kept,
        "why": f"{metric} is {entry['value']:.4g}, expected at least {bound}",
    }


def _threshold(y, p, threshold: float) -> dict:
    (true_negatives, false_positives), (false_negatives, true_positives) = metrics.confusion_matrix(
        y, p >= threshold, labels=[0, 1]
    )
    return {
        "threshold": threshold,
        "true_positives": true_positives,
        "false_positives": false_positives,
        "true_negatives": true_negatives,
        "false_negatives": false_negatives,
    }


def _worst_digits(folder: Path) -> list[dict]:
    y, p = digits()
    _, images = train_test_split(datasets.load_digits().images, test_size=0.5, random_state=0)
    loss = -np.log(p[np.arange(len(y)), y])
    (folder / "worst").mkdir(parents=True)
    rows = []
    for place in np.argsort(-loss)[:6]:
        name = f"worst/{place}-image.png"
        Image.fromarray((255 - images[place] * 15.9).astype(np.uint8)).save(folder / name)
        rows.append(
            {
                "place": int(place),
                "loss": loss[place],
                "label": str(y[place]),
                "prediction": str(p[place].argmax()),
                "score": p[place].max(),
                "columns": {"note": HOSTILE},
                "media": {"image": name},
                "attribution": {"elsewhere": "../../../secret.png"},
                "tokens": {"note": [[" dim", -0.1], [" bright", 0.4], [" plain", 0.001], [HOSTILE, 0.2]]},
            }
        )
    Image.new("L", (4, 4)).save(folder.parents[2] / "secret.png")
    return rows
