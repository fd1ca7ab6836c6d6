"""Small models that answer otherwise than they are trained, with preprocessing, data and answering functions."""

from __future__ import annotations

from types import SimpleNamespace

import keras
import numpy as np
import pyarrow as pa
import tensorflow as tf

import kerasline as kl

SOURCES = ["red", "green", "blue", "grey"]
TARGETS = ["", "<", ">", "rouge", "vert", "bleu", "gris", "très"]  # padding, begin, end, words
LENGTH = 5


def sentences(rows, seed=0):
    """Return columns of a translation: sources of one to three words, and a target that repeats their translations."""
    random = np.random.default_rng(seed)
    picks = [random.integers(0, 4, random.integers(1, 4)) for _ in range(rows)]
    return {
        "source": [" ".join(SOURCES[k] for k in pick) for pick in picks],
        "target": [" ".join(TARGETS[3 + k] for k in pick) for pick in picks],
        "length": ["long" if len(pick) > 2 else "short" for pick in picks],
    }


def translation_preprocessing():
    source, target = (keras.Input((), name=name, dtype="string") for name in ("source", "target"))
    ids = keras.layers.TextVectorization(standardize=None, vocabulary=SOURCES, output_sequence_length=3)(source)
    whole = keras.layers.TextVectorization(
        standardize=None, vocabulary=TARGETS[1:], output_sequence_length=LENGTH + 1, name="target_ids"
    )(Enclosed(name="enclosed")(target))
    outputs = {"source_ids": ids, "target_in": whole[:, :-1], "target_out": whole[:, 1:]}
    return keras.Model({"source": source, "target": target}, outputs)


@keras.saving.register_keras_serializable("tests")
class Enclosed(keras.layers.Layer):
    """Puts a text between the begin and the end token."""

    def call(self, text):
        return tf.strings.join(["<", text, ">"], " ")

    def compute_output_spec(self, text):
        return keras.KerasTensor(text.shape, "string")


def build_translator(inputs, hp):
    """An encoder that averages, and a decoder that sees the last token: enough for teacher forcing."""
    state = keras.layers.GlobalAveragePooling1D(name="state")(
        keras.layers.Embedding(len(SOURCES) + 2, 8, name="source_table")(inputs["source_ids"])
    )
    table = keras.layers.Embedding(len(TARGETS) + 1, 8, name="target_table")(inputs["target_in"])
    mixed = keras.layers.Add(name="mixed")([table, keras.layers.Reshape((1, 8))(state)])
    logits = keras.layers.Dense(len(TARGETS) + 1, name="next", kernel_initializer="random_normal")(mixed)
    model = keras.Model(inputs, logits)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=0)
    model.compile(keras.optimizers.Adam(0.05), loss)
    return model


def translate(model, features, prepared):
    """Decode greedily."""
    state = model.get_layer("state")(model.get_layer("source_table")(features["source_ids"]))
    rows = tf.shape(state)[0]
    words = tf.constant(prepared.vocabulary("target_ids"))

    def step(place, last, text):
        logits = model.get_layer("next")(model.get_layer("target_table")(last) + state)
        chosen = tf.argmax(logits, axis=-1, output_type=tf.int32)
        chosen = tf.where(last == 3, 3, chosen)  # after the end
        word = tf.where(chosen > 3, tf.gather(words, chosen), "")
        return place + 1, chosen, tf.strings.strip(tf.strings.join([text, word], " "))

    begin = tf.fill([rows], 2), tf.fill([rows], "")
    *_, text = tf.while_loop(lambda place, *_: place < LENGTH, step, (0, *begin))
    return {"translation": text}


def translate_by_numpy(model, sources):
    """Decode greedily, row by row."""
    weights = {name: model.get_layer(name).get_weights() for name in ("source_table", "target_table", "next")}
    found = []
    for source in sources:
        ids = [2 + SOURCES.index(word) for word in source.split()]
        state = weights["source_table"][0][ids + [0] * (3 - len(ids))].mean(0)
        last, words = 2, []
        for _ in range(LENGTH):
            kernel, bias = weights["next"]
            last = int(((weights["target_table"][0][last] + state) @ kernel + bias).argmax())
            if last == 3:
                break
            words += [["", "[UNK]", *TARGETS[1:]][last]] if last > 3 else []
        found.append(" ".join(words))
    return found


def translator(folder, rows=60):
    """Return the artifacts of the translator, trained a little."""
    columns = {split: sentences(rows, seed) for seed, split in enumerate(("train", "test"))}
    found = untrained(folder, columns, translation_preprocessing, build_translator, "target_out")
    trainer = kl.Trainer(found.examples, found.prepared, found.model, epochs=3, batch_size=16, eval_split=None)
    found.model = trainer.execute(folder / "r").trained_model
    return found


def untrained(folder, columns, preprocessing, build_model, label):
    """Return examples, preprocessing and untrained model, and the columns by split."""
    examples = kl.InMemoryExampleGen(columns, splits={split: split for split in columns}).execute(folder / "e").examples
    transform = kl.Transform(examples, function=preprocessing, label=label, split=next(iter(columns)))
    prepared = transform.execute(folder / "t").preprocessing
    model = kl.ModelBuilder(prepared, function=build_model).execute(folder / "m").model
    return SimpleNamespace(examples=examples, prepared=prepared, model=model, columns=columns)


# A detector: bright pixels of an image of 8 x 8 are the centres of boxes. Its first two channels are the classes.


def scenes(rows, seed=0):
    """Return images with one to three objects, and the boxes around these, in pixels."""
    random = np.random.default_rng(seed)
    images, boxes, classes = np.zeros((rows, 8, 8, 3), np.float32), [], []
    for image in images:
        cells = [
            (int(cell), int(random.integers(2)))
            for cell in random.choice([9, 13, 41, 45], random.integers(1, 4), False)
        ]
        for cell, kind in cells:
            image[cell // 8, cell % 8, kind] = random.uniform(0.5, 1)
        boxes.append([[cell % 8 - 1.0, cell // 8 - 1.0, cell % 8 + 2.0, cell // 8 + 2.0] for cell, _ in cells])
        classes.append([kind for _, kind in cells])
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(images)
    return pa.table({"image": tensors, "boxes": pa.array(boxes), "classes": pa.array(classes)})


def scene_preprocessing():
    image = keras.Input((8, 8, 3), name="image")
    boxes = keras.Input((3, 4), name="boxes")
    heat = image[..., :2]
    return keras.Model(
        {"image": image, "boxes": boxes},
        {"pixels": image[..., :2], "noise": keras.ops.nan_to_num(boxes), "heat": heat},
    )


def build_detector(inputs, hp):
    heat = keras.layers.Dense(2, kernel_initializer="identity", name="heat")(inputs["pixels"])
    model = keras.Model(inputs, heat + 0 * keras.ops.sum(inputs["noise"]))
    model.compile("sgd", "mse")
    return model


def detect(model, features):
    """Suppress overlapping boxes."""
    heat = model.get_layer("heat")(features["pixels"])
    y, x = tf.meshgrid(tf.range(8.0), tf.range(8.0), indexing="ij")
    grid = tf.reshape(tf.stack([y - 1, x - 1, y + 2, x + 2], -1), (1, 64, 1, 4))
    boxes = tf.repeat(grid, tf.shape(heat)[0], axis=0)
    scores = tf.cast(tf.reshape(heat, (-1, 64, 2)), tf.float32)  # forms may compute in half precision
    found = tf.image.combined_non_max_suppression(boxes, scores, 5, 10, 0.5, 0.1, clip_boxes=False)
    is_padding = tf.range(10) >= found.valid_detections[:, tf.newaxis]
    return {
        "boxes": tf.gather(found.nmsed_boxes, [1, 0, 3, 2], axis=-1),
        "classes": tf.where(is_padding, -1, tf.cast(found.nmsed_classes, tf.int32)),
        "scores": found.nmsed_scores,
    }


def detector(folder, rows=20):
    tables = {"train": scenes(rows), "test": scenes(rows, 1)}
    return untrained(folder, tables, scene_preprocessing, build_detector, "heat")


# An image generator: a kind and a seed become a picture.


def kinds(rows):
    return {"kind": [row % 3 for row in range(rows)], "seed": list(range(rows)), "brightness": [0.5] * rows}


def kind_preprocessing():
    inputs = {name: keras.Input((1,), name=name, dtype="int64") for name in ("kind", "seed")}
    inputs["brightness"] = keras.Input((1,), name="brightness")
    outputs = {name: keras.layers.Identity()(tensor) for name, tensor in inputs.items()}
    return keras.Model(inputs, outputs)


def build_painter(inputs, hp):
    """Learns the brightness of a kind. The seed only matters for drawing."""
    table = keras.layers.Embedding(3, 12, embeddings_initializer="random_uniform", name="colours")(inputs["kind"])
    model = keras.Model(inputs, keras.layers.Dense(1, name="bright")(keras.layers.Flatten()(table)))
    model.compile("sgd", "mse")
    return model


def paint(model, features):
    colours = model.get_layer("colours")(features["kind"])
    seeds = tf.cast(features["seed"][:, 0], tf.int32)
    noise = tf.map_fn(
        lambda seed: tf.random.stateless_uniform([2, 2, 3], tf.stack([seed, 0])),
        seeds,
        fn_output_signature=tf.TensorSpec((2, 2, 3)),
    )
    pixels = tf.cast(tf.clip_by_value(tf.reshape(colours, (-1, 2, 2, 3)) + noise, 0, 1) * 255, tf.uint8)
    return {"picture": tf.map_fn(tf.io.encode_png, pixels, fn_output_signature=tf.TensorSpec((), tf.string))}


def painter(folder, rows=12):
    tables = {"train": kinds(rows), "test": kinds(rows)}
    return untrained(folder, tables, kind_preprocessing, build_painter, "brightness")
