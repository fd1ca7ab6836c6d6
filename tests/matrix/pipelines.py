"""Write the pipeline of a combination as a user would: a Python file, its data, and for some a module of layers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from string import Template

import numpy as np

ROWS = 160
SPECIES = ["Adelie", "Chinstrap", "Gentoo"]
VOCABULARY = ["blue", "green", "grey", "large", "red", "round", "small", "square"]
SENTENCE_WORDS = 4


@dataclass(frozen=True)
class Task:
    """How a task appears in a pipeline.

    Attributes:
        label: Transform's label.
        outputs: code of the model's outputs, computed from `x`.
        loss: code of the loss.
        evaluator: further arguments of Evaluator, as code.
    """

    label: str | list[str]
    outputs: str
    loss: str
    evaluator: str = ""


def _dense(units: int, name: str, activation: str | None = None) -> str:
    return f'keras.layers.Dense({units}, activation={activation!r}, name="{name}")(x)'


_SCORES = _dense(SENTENCE_WORDS * len(VOCABULARY), "scores")
_SEQUENCE = f"keras.layers.Softmax(name='tokens')(keras.layers.Reshape({SENTENCE_WORDS, len(VOCABULARY)})({_SCORES}))"
TASKS = {
    "binary": Task("bought", _dense(1, "bought", "sigmoid"), "'binary_crossentropy'"),
    "text_classes": Task("species", _dense(3, "species", "softmax"), "'sparse_categorical_crossentropy'"),
    "integer_classes": Task("grade", _dense(3, "grade", "softmax"), "'sparse_categorical_crossentropy'"),
    "multi_label": Task("topics", _dense(3, "topics", "sigmoid"), "'binary_crossentropy'"),
    "regression": Task("price", _dense(1, "price"), "'mse'"),
    "two_regressions": Task(
        ["price", "area"],
        f"""{{"price": {_dense(1, "price")}, "area": {_dense(1, "area")}}}""",
        "{'price': 'mse', 'area': 'mae'}",
    ),
    "class_and_number": Task(
        ["grade", "price"],
        f"""{{"grade": {_dense(3, "grade", "softmax")}, "price": {_dense(1, "price")}}}""",
        "{'grade': 'sparse_categorical_crossentropy', 'price': 'mse'}",
    ),
    "tokens": Task("tokens", _SEQUENCE, "'sparse_categorical_crossentropy'"),
    "text": Task(
        "tokens",
        _SEQUENCE,
        "'sparse_categorical_crossentropy'",
        ', task="text", decode=decode, reference="sentence", text_metrics=["wer", "chrf"]',
    ),
}

EVALUATORS = {
    "alone": "",
    "saved_model": ", saved_model=exported",
    "baseline": ", saved_model=exported, baseline=untrained",
    "slices": ', slices=["region", {"column": "x0", "buckets": 2}]',
    "weights": "",
    "no_replicates": ", replicates=0",
}

PIPELINE = Template('''\
"""$description."""

$imports
import kerasline as kl

NUMBERS = $numbers
WORDS = $words
$layers

$preprocessing
def build_model(inputs, hp):
    import keras

    x = keras.layers.Concatenate()(list(inputs.values()))
    x = keras.layers.Dense(hp["units"], activation="relu")(x)
    $own_layer
    outputs = $outputs
    model = keras.Model(inputs, outputs)
    model.compile("adam", $loss)
    return model


def decode(output, batch):
    vocabulary = $vocabulary
    return [" ".join(vocabulary[token] for token in row) for row in output.argmax(axis=-1)]


def pipeline(settings):
    examples = kl.$reader("$data", splits={"train": 8, "eval": 1, "test": 1}, split_by="ratio")
    transform = kl.Transform(examples, $how, label=$label$sample_weight)
    model = kl.ModelBuilder(transform, function=build_model, hyperparameters={"units": 8})
    trained = kl.Trainer(examples, transform, model, steps=4)
    exported = kl.Exporter(transform, trained, forms=$forms)
    untrained = $untrained
    evaluated = kl.Evaluator(examples, transform, trained$evaluator)
    explained = $explained
    return kl.Pipeline("matrix", [exported, evaluated, *explained])
''')

FEATURES = """\
FEATURES = {name: kl.features.Number() for name in NUMBERS}
FEATURES |= {name: kl.features.Category(encode="one_hot") for name in WORDS}
$sentence

"""
FEATURE_SPACE = """\
def preprocessing():
    import keras

    Space = keras.utils.FeatureSpace
    features = {name: Space.float_normalized() for name in NUMBERS}
    features |= {name: Space.string_categorical(output_mode="one_hot") for name in WORDS}
    return Space(features, output_mode="dict")


"""
FUNCTION = """\
def preprocessing():
    import keras
    $helper
    raw = {name: keras.Input((1,), name=name) for name in NUMBERS}
    raw |= {name: keras.Input((1,), name=name, dtype="string") for name in WORDS}
    outputs = {name: $scaling(raw[name]) for name in NUMBERS}
    outputs |= {name: keras.layers.StringLookup(output_mode="one_hot")(raw[name]) for name in WORDS}
    $sentence
    $text_label
    return keras.Model(raw, outputs)


"""
# In a FeatureSpace, Keras 3.15 gives TextVectorization's multi-hot output another shape than its values have.
SENTENCE = {
    "features": 'FEATURES["sentence"] = kl.features.Text(encode="binary")',
    "function": """\
raw["sentence"] = keras.Input((), name="sentence", dtype="string")
    outputs["sentence"] = keras.layers.TextVectorization(output_mode="multi_hot")(raw["sentence"])""",
}
TEXT_LABEL = """\
raw["species"] = keras.Input((1,), name="species", dtype="string")
    outputs["species_number"] = keras.layers.StringLookup(num_oov_indices=0)(raw["species"])"""
LAYERS = Template('''

class Largest:
    """The largest absolute value."""

    value = 0.0

    def add(self, values):
        self.value = max(self.value, float(np.abs(values).max(initial=0)))

    def merge(self, other):
        self.value = max(self.value, other.value)

    def readable(self):
        return {"largest": self.value}


@keras.saving.register_keras_serializable("$package")
class ShareOfLargest(keras.layers.Layer):
    """A layer with state: the share of each value in the largest one."""

    def build(self, shape):
        self.largest = self.add_weight(shape=(), initializer="ones", trainable=False, name="largest")

    def call(self, values):
        return values / self.largest

    def new_state(self):
        return Largest()

    def set_state(self, state):
        self.largest.assign(state.value)


@keras.saving.register_keras_serializable("$package")
class Halved(keras.layers.Layer):
    """A layer of the model."""

    def call(self, values):
        return values / 2
''')


def write_pipeline(combination: dict, folder: Path, name: str) -> Path:
    """Write the pipeline, its data and its helper module into a folder.

    Args:
        combination: a choice for each key of `combinations.CHOICES`.
        folder: an existing folder.
        name: distinguishes the names of the pipeline's module and layers from those of other combinations, because
            one process loads the models of all of them.

    Returns:
        The path of the pipeline's file.
    """
    data = _write_data(combination, folder)
    if combination["preprocessing"] == "layer_in_helper":
        (folder / f"helper_{name}.py").write_text(_own_layers(name))
    file = folder / f"pipeline_{name}.py"
    file.write_text(_source(combination, name, data))
    return file


def _source(combination: dict, name: str, data: str) -> str:
    kind, task = combination["preprocessing"], TASKS[combination["task"]]
    columns = [f"x{number}" for number in range(combination["inputs"])]
    words = columns[3::4]
    layers_in_file = kind == "layer_in_file"
    return PIPELINE.substitute(
        description=", ".join(f"{axis} {value}" for axis, value in combination.items()),
        imports="import keras\nimport numpy as np\n" if layers_in_file else "",
        numbers=[column for column in columns if column not in words],
        words=words,
        layers=LAYERS.substitute(package=name) if layers_in_file else "",
        preprocessing=_preprocessing(combination, name),
        own_layer=_own_layer_in_model(kind, name),
        outputs=task.outputs,
        loss=task.loss,
        vocabulary=VOCABULARY,
        reader="CsvExampleGen" if data.endswith(".csv") else "ParquetExampleGen",
        data=data,
        how="features=FEATURES" if kind == "features" else "function=preprocessing",
        label=repr("species_number" if _computes_label(combination) else task.label),
        sample_weight=', sample_weight="weight"' if combination["evaluator"] == "weights" else "",
        forms=[] if combination["form"] == "none" else [combination["form"]],
        untrained=_baseline(combination),
        evaluator=EVALUATORS[combination["evaluator"]] + task.evaluator,
        explained="[kl.Explainer(examples, transform, trained, repeats=1, steps=8)]"
        if combination["explainer"] == "with"
        else "[]",
    )


def _baseline(combination: dict) -> str:
    """Return the code of Evaluator's baseline."""
    if combination["evaluator"] != "baseline":
        return "None"
    if combination["way"] == "second_run":
        return 'kl.LastBlessed("saved_model")'
    return 'kl.Exporter(transform, model, name="Untrained")'


def _computes_label(combination: dict) -> bool:
    """Whether the preprocessing numbers the classes. With `features=`, Transform does so itself."""
    return combination["task"] == "text_classes" and combination["preprocessing"] != "features"


def _preprocessing(combination: dict, name: str) -> str:
    kind, reads_text = combination["preprocessing"], combination["task"] == "text"
    template = {"features": FEATURES, "feature_space": FEATURE_SPACE}.get(kind, FUNCTION)
    own = kind.startswith("layer_")
    return Template(template).substitute(
        sentence=SENTENCE.get(kind, SENTENCE["function"]) if reads_text else "",
        helper=f"from helper_{name} import ShareOfLargest\n" if kind == "layer_in_helper" else "",
        scaling="ShareOfLargest()" if own else "keras.layers.Normalization()",
        text_label=TEXT_LABEL if _computes_label(combination) else "",
    )


def _own_layer_in_model(kind: str, name: str) -> str:
    if not kind.startswith("layer_"):
        return ""
    imported = f"from helper_{name} import Halved\n\n    " if kind == "layer_in_helper" else ""
    return f"{imported}x = Halved()(x)"


def _own_layers(name: str) -> str:
    return "import keras\nimport numpy as np\n" + LAYERS.substitute(package=name)


def _write_data(combination: dict, folder: Path) -> str:
    """Write the rows as CSV, or as Parquet if the label is a list, and return the name of the file."""
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    table = pa.table(_columns(combination["inputs"]))
    if combination["task"] in ("multi_label", "tokens", "text"):
        pyarrow.parquet.write_table(table, folder / "rows.parquet")
        return "rows.parquet"
    pyarrow.csv.write_csv(table.drop_columns(["topics", "tokens"]), folder / "rows.csv")
    return "rows.csv"


def _columns(inputs: int) -> dict[str, list]:
    """Return inputs, three numbers to a text, and the columns of all tasks."""
    chance = np.random.default_rng(0)
    numbers = chance.normal(size=(inputs, ROWS)).astype("float32")
    first, noise = numbers[0], chance.normal(scale=0.1, size=ROWS)
    third = np.digitize(first + noise, [-0.4, 0.4])
    tokens = chance.integers(len(VOCABULARY), size=(ROWS, SENTENCE_WORDS))
    columns = {f"x{number}": values.tolist() for number, values in enumerate(numbers)}
    columns |= {f"x{n}": chance.choice(["red", "green", "blue"], ROWS).tolist() for n in range(3, inputs, 4)}
    return columns | {
        "bought": (first + noise > 0).astype(int).tolist(),
        "species": [SPECIES[number] for number in third],
        "grade": third.tolist(),
        "topics": np.stack([first > 0, noise > 0, first > 1], axis=1).astype(int).tolist(),
        "price": (2 * first + noise).tolist(),
        "area": (3 - first + noise).tolist(),
        "tokens": tokens.tolist(),
        "sentence": [" ".join(VOCABULARY[token] for token in row) for row in tokens],
        "weight": chance.uniform(0.5, 2, ROWS).tolist(),
        "region": chance.choice(["north", "south"], ROWS).tolist(),
    }
