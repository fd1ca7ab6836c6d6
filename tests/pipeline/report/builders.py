"""A run with everything that a report can show, without training: its figures are scikit-learn's.

`Evaluator`: breast cancer, logistic regression, one output. `DigitEvaluator`: two outputs, handwritten digits
and the progression of diabetes.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn import datasets, linear_model, metrics, neural_network
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tensorflow_metadata.proto.v0 import statistics_pb2

from kerasline.components.charts import Dot, scatter, standalone
from kerasline.components.core.artifacts import Statistics
from kerasline.components.infra_validator.verdict import Check, Findings, Tally
from kerasline.pipeline.metadata.store import Execution, Run, Store, StoredArtifact, sqlite_url
from tests.pipeline.report.evaluations import cancer_artifacts, explanation_artifacts, two_outputs_artifacts
from tests.pipeline.report.models import HOSTILE, cancer, write_json

STARTED = datetime.datetime(2026, 11, 20, 9, 30)
EPOCHS = 12
EDGES = {
    "StatisticsGen": ["ExampleGen"],
    "SchemaGen": ["StatisticsGen"],
    "ExampleValidator": ["StatisticsGen", "SchemaGen"],
    "Transform": ["ExampleGen", "SchemaGen"],
    "Tuner": ["ExampleGen", "Transform"],
    "ModelBuilder": ["Transform", "Tuner"],
    "Trainer": ["ExampleGen", "Transform", "ModelBuilder", "Tuner"],
    "Evaluator": ["ExampleGen", "Transform", "Trainer"],
    "DigitEvaluator": ["ExampleGen", "Transform", "Trainer"],
    "Explainer": ["ExampleGen", "Transform", "Trainer"],
    "Exporter": ["Transform", "Trainer"],
    "InfraValidator": ["Exporter", "ExampleGen", "SchemaGen"],
    "Pusher": ["Exporter", "Evaluator", "InfraValidator"],
}


def build(root: Path, run_id: str = "rich", strength: float = 1.0, epochs: int = EPOCHS) -> Store:
    """Writes the artifacts of a run below `root` and records it; the regression is regularized by `strength`."""
    store = Store(sqlite_url(root / "metadata.sqlite"))
    settings = {"Trainer.epochs": str(epochs), "Evaluator.strength": str(strength)}
    store.begin_run(Run(run_id, "cells", "cells.py", str(root), "running", STARTED, settings))
    makers = {
        "ExampleGen": _examples,
        "StatisticsGen": _statistics,
        "SchemaGen": _schema,
        "ExampleValidator": _anomalies,
        "Transform": _preprocessing,
        "Tuner": _tuner,
        "ModelBuilder": _model,
        "Trainer": lambda folder: _trained(folder, epochs),
        "Evaluator": lambda folder: cancer_artifacts(folder, strength),
        "DigitEvaluator": two_outputs_artifacts,
        "Explainer": explanation_artifacts,
        "Exporter": _exported,
        "InfraValidator": _tried_out,
    }
    # What is cached was made by a run before.
    store.begin_run(
        Run(f"{run_id}-before", "cells", "cells.py", str(root), "succeeded", STARTED - datetime.timedelta(days=1))
    )
    done: dict[str, Execution] = {}
    for number, (node, make) in enumerate(makers.items()):
        folder = root / "artifacts" / "cells" / node / f"{number:012d}-{run_id}"
        outputs = {}
        for name, kind in make(folder).items():
            outputs[name] = StoredArtifact(kind, str(folder / name), f"digest-{node}", 1000)
        parameters = {"epochs": epochs, "batch_size": 32} if node == "Trainer" else {}
        environment = {
            "python": "3.11.2",
            "libraries": {"keras": "3.15.1", "numpy": "2.4.0" if strength == 1 else "2.3.0"},
        }
        manifest = {"parameters": parameters, "run_id": run_id, "environment": environment}
        (folder / "execution.json").write_text(json.dumps(manifest))
        inputs = {source: next(iter(done[source].outputs.values())) for source in EDGES.get(node, ())}
        state = "cached" if number < 3 else "ran"
        done[node] = Execution(
            run_id,
            "cells",
            node,
            f"components.{node}",
            state,
            STARTED + datetime.timedelta(seconds=number),
            f"{number:064d}",
            str(folder),
            {"rows": 569} if node == "ExampleGen" else {},
            None,
            STARTED,
            0.0 if state == "cached" else 1.5 * number,
            inputs,
            outputs,
        )
        if state == "cached":
            store.record(dataclasses.replace(done[node], run_id=f"{run_id}-before", state="ran", id=f"{run_id}-{node}"))
        store.record(done[node])
        # What the store already knew by its path keeps its id.
        done[node] = next(e for e in store.executions(run_id) if e.node == node)
    blank = Execution(run_id, "cells", "Pusher", "kerasline.Pusher", "skipped", STARTED + datetime.timedelta(minutes=1))
    inputs = {source: next(iter(done[source].outputs.values())) for source in EDGES["Pusher"]}
    store.record(
        dataclasses.replace(blank, message="model refused: recall is 0.93, at least 0.99 required", inputs=inputs)
    )
    store.finish_run(run_id, "succeeded", 83.2)
    return store


def _examples(folder: Path) -> dict[str, str]:
    splits = {
        "train": [{"path": "train/00000.parquet", "rows": 284}],
        "test": [{"path": "test/00000.parquet", "rows": 285}],
    }
    write_json(folder / "examples" / "examples.json", {"splits": splits})
    return {"examples": "Examples"}


def _statistics(folder: Path) -> dict[str, str]:
    """Histograms by NumPy, of three measurements; and of a text with a hostile name and value."""
    data, x, *_ = cancer(1.0)
    proto = statistics_pb2.DatasetFeatureStatisticsList()
    for split, rows in (("train", data.data), ("test", x)):
        dataset = proto.datasets.add(name=split, num_examples=len(rows))
        for column in range(3):
            values = rows[:, column]
            feature = dataset.features.add(type=statistics_pb2.FeatureNameStatistics.FLOAT)
            feature.path.step.append(str(data.feature_names[column]))
            numbers = feature.num_stats
            numbers.common_stats.num_non_missing = len(values)
            numbers.mean, numbers.std_dev = values.mean(), values.std()
            numbers.min, numbers.max, numbers.median = values.min(), values.max(), np.median(values)
            counts, edges = np.histogram(values, 10)
            histogram = numbers.histograms.add(type=statistics_pb2.Histogram.STANDARD)
            for low, high, count in zip(edges, edges[1:], counts):
                histogram.buckets.add(low_value=low, high_value=high, sample_count=count)
            feature.custom_stats.add(name="unique", num=len(set(values)))
        text = dataset.features.add(type=statistics_pb2.FeatureNameStatistics.STRING)
        text.path.step.append(HOSTILE)
        text.string_stats.common_stats.num_non_missing = len(rows) - 7
        text.string_stats.common_stats.num_missing = 7
        text.string_stats.unique = 2
        counts = (("benign", 357), (HOSTILE, 205)) if split == "train" else ((HOSTILE, 180), ("benign", 98))
        for rank, (label, count) in enumerate(counts):
            text.string_stats.rank_histogram.buckets.add(low_rank=rank, high_rank=rank, label=label, sample_count=count)
    (folder / "statistics").mkdir(parents=True)
    Statistics(folder / "statistics").write(proto, statistics_pb2.DatasetFeatureStatisticsList())
    return {"statistics": "Statistics"}


def _schema(folder: Path) -> dict[str, str]:
    (folder / "schema").mkdir(parents=True)
    return {"schema": "Schema"}


def _anomalies(folder: Path) -> dict[str, str]:
    found = [
        {
            "kind": "ENUM_TYPE_UNEXPECTED_STRING_VALUES",
            "seen": f"value {HOSTILE} is not in the domain",
            "fix": "add it",
            "severity": "error",
            "split": "test",
            "feature": HOSTILE,
        },
        {
            "kind": "COMPARATOR_L_INFTY_HIGH",
            "seen": "L-infinity distance 0.12 from the span before, at most 0.1 allowed",
            "fix": "see what changed",
            "severity": "warning",
            "split": "train",
            "feature": "mean radius",
        },
    ]
    write_json(folder / "anomalies" / "anomalies.json", found)
    return {"anomalies": "Anomalies"}


def _preprocessing(folder: Path) -> dict[str, str]:
    out = folder / "preprocessing"
    (out / "state").mkdir(parents=True)
    (out / "state" / "words.txt").write_text(f"benign\t357\n{HOSTILE}\t205\n")
    write_json(out / "state" / "scaled.json", {"mean": [14.1], "variance": [12.4], "count": [569.0]})
    states = [
        {"layer": "scaled", "kind": "Moments", "file": "state/scaled.json", "mean": [14.1], "variance": [12.4]},
        {"layer": HOSTILE, "kind": "Vocabulary", "file": "state/words.txt", "values": 2, "too_low_by": 0},
    ]
    names = {"malignant": ["benign", HOSTILE], "radius": None}
    facts = {"label": ["malignant", "radius"], "sample_weight": None, "class_names": names, "state": states}
    write_json(out / "preprocessing.json", facts)
    return {"preprocessing": "Preprocessing"}


def _tuner(folder: Path) -> dict[str, str]:
    """Trials: the log loss of a regression by the strength of its regularization."""
    data, x, y, *_ = cancer(1.0)
    rows = []
    for number, strength in enumerate(10.0 ** np.linspace(-4, 2, 8), start=1):
        model = make_pipeline(StandardScaler(), linear_model.LogisticRegression(C=strength, max_iter=500)).fit(
            x[:140], y[:140]
        )
        loss = float(metrics.log_loss(y[140:], model.predict_proba(x[140:])))
        trial = {"trial": number, "state": "complete", "val_loss": loss, "C": strength}
        rows.append({**trial, "units": [8, 4], "reason": None})
    best = min(rows, key=lambda row: row["val_loss"])
    (folder / "trials_report").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "trials_report" / "trials.parquet")
    panel = scatter(
        [Dot(row["C"], row["val_loss"]) for row in rows], title="C", x_label="C", y_label="val_loss", x_log=True
    )
    (folder / "trials_report" / "trials.svg").write_text(standalone([panel], 360, 230))
    facts = {
        "hyperparameters": {"C": best["C"]},
        "trainer": {},
        "objective": "val_loss",
        "value": best["val_loss"],
        "trial": best["trial"],
    }
    write_json(folder / "best" / "hyperparameters.json", facts)
    return {"best": "Hyperparameters", "trials_report": "Report"}


def _model(folder: Path) -> dict[str, str]:
    write_json(folder / "model" / "summary.json", SUMMARY)
    (folder / "model" / "graph.svg").write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 40" width="100" height="40">'
        '<style>rect{fill:red}</style><rect width="90" height="30" x="5" y="5"/></svg>'
    )
    return {"model": "Model"}


SUMMARY = {
    "name": "cells",
    "parameters": 31,
    "trainable_parameters": 31,
    "bytes": 124,
    "optimizer": "Adam",
    "loss": "binary_crossentropy",
    "layers": [
        {"name": "x", "class": "InputLayer", "output_shape": [None, 30], "parameters": 0, "trainable": True},
        {"name": HOSTILE, "class": "Dense", "output_shape": [None, 1], "parameters": 31, "trainable": True},
    ],
    "flops": {"forward": 61, "training": 183},
    "activation_bytes": {"1": 124, "1024": 126976},
}


def _trained(folder: Path, epochs: int) -> dict[str, str]:
    """A perceptron on the digits, its losses epoch by epoch and step by step."""
    data = datasets.load_digits()
    train_x, x, train_y, y = train_test_split(data.data / 16, data.target, test_size=0.3, random_state=0)
    net = neural_network.MLPClassifier((16,), learning_rate_init=0.005, random_state=0)
    rows, losses = [], []
    for epoch in range(1, epochs + 1):
        for begin in range(0, len(train_x), 32):
            part = slice(begin, begin + 32)
            net.partial_fit(train_x[part], train_y[part], classes=range(10))
            losses.append({"step": len(losses) + 1, "epoch": epoch, "loss": float(net.loss_)})
        row = {"epoch": epoch, "steps": len(losses) // epoch, "rows": len(train_x)}
        for prefix, xs, ys in (("", train_x, train_y), ("val_", x, y)):
            row[f"{prefix}loss"] = float(metrics.log_loss(ys, net.predict_proba(xs)))
            row[f"{prefix}accuracy"] = float(net.score(xs, ys))
        rows.append({**row, "learning_rate": 0.005})
    (folder / "history").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "history" / "history.parquet")
    pq.write_table(pa.Table.from_pylist(losses), folder / "history" / "steps.parquet")
    write_json(folder / "trained_model" / "summary.json", SUMMARY)
    training = {
        "device": "CPU",
        "precision": "float32",
        "steps": len(losses),
        "tensorflow": "2.21.0",
        "keras": "3.15.1",
    }
    write_json(folder / "trained_model" / "training.json", training)
    return {"trained_model": "Model", "history": "Report"}


def _exported(folder: Path) -> dict[str, str]:
    (folder / "saved_model").mkdir(parents=True)
    return {"saved_model": "SavedModel"}


def _tried_out(folder: Path) -> dict[str, str]:
    """Return the validation of a server that gave one wrong answer and then ended."""
    account = Findings("kerasline", ending=f"the server was ended by SIGABRT: {HOSTILE}", log=["loading", HOSTILE])
    for form, number in (("REST rows", 0), ("gRPC", 1)):
        account.tallies["edge cases", form] = Tally("edge cases", form, 12, 9 - number, 3, number)
    wrong = {"kind": "edge cases", "form": "gRPC", "case": f"{HOSTILE}: missing", "why": "y: 1 served"}
    account.problems.append(wrong)
    account.checks += [
        Check("the model loads in a process of its own", True, "it does"),
        Check("edge cases are answered as in process", False, "1 of 24 requests"),
    ]
    account.latency = {"requests": 200, "p50_ms": 0.5, "p99_ms": 1.25, "bound_ms": None}
    for name in ("validation", "blessing"):
        (folder / name).mkdir(parents=True)
    write_json(folder / "validation" / "validation.json", account.as_json())
    write_json(folder / "blessing" / "blessing.json", account.blessing())
    return {"validation": "InfraValidation", "blessing": "Blessing"}
