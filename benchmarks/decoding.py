"""Compare an exported model with the bare function and KerasHub's `generate`, and tokenizing with Python loops.

    python benchmarks/decoding.py [--sentences 1000000] [--length 64] [--rounds 5]

The sides of a comparison alternate in one process, with the same model. The best of the rounds counts.
"""

from __future__ import annotations

import argparse
import functools
import pathlib
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

import kerasline as kl

PROMPT = 8


def best(rounds: int, **calls: Callable[[], Any]) -> dict[str, float]:
    """Return the shortest time of each call, in seconds, after a first one that is not measured."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for place in range(rounds + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if place:
                times[name].append(time.perf_counter() - start)
    return {name: min(found) for name, found in times.items()}


def compare_generation(length: int, rounds: int) -> None:
    import keras_hub

    sizes = {"num_layers": 4, "num_heads": 4, "hidden_dim": 256, "intermediate_dim": 1024}
    backbone = keras_hub.models.GPT2Backbone(vocabulary_size=8000, max_sequence_length=length, **sizes)
    model = keras_hub.models.GPT2CausalLM(backbone, preprocessor=None)
    print(f"GPT-2, {model.count_params():,} parameters, from {PROMPT} to {length} ids; ids/s")
    for beams in (1, 4):
        model.compile(sampler="greedy" if beams == 1 else keras_hub.samplers.BeamSampler(num_beams=beams))
        hub = functools.partial(model.make_generate_function(), stop_token_ids=None)
        with tempfile.TemporaryDirectory() as folder:
            signature = exported(model, length, beams, folder)
            for rows in (1, 32):
                tokens = np.random.default_rng(0).integers(1, 8000, (rows, length)).astype("int32")
                mask = np.tile(np.arange(length) < PROMPT, (rows, 1))
                inputs = {"token_ids": tf.constant(tokens * mask), "padding_mask": tf.constant(mask)}
                times = best(rounds, exported=functools.partial(signature, inputs), hub=functools.partial(hub, inputs))
                same = np.array_equal(signature(inputs), hub(inputs)["token_ids"])
                speeds = [rows * (length - PROMPT) / times[name] for name in ("exported", "hub")]
                print(
                    f"  beams {beams}, batch {rows:2}: exported {speeds[0]:.0f}, KerasHub (XLA) {speeds[1]:.0f}, "
                    f"ratio {speeds[0] / speeds[1]:.2f}, {'same' if same else 'different'} ids"
                )


def exported(model: Any, length: int, beams: int, folder: str) -> Callable[[dict[str, tf.Tensor]], tf.Tensor]:
    """Return the signature of a SavedModel that generates."""
    import keras

    def ids(token_ids: tf.Tensor, padding_mask: tf.Tensor) -> tf.Tensor:
        inputs = {"token_ids": token_ids, "padding_mask": padding_mask}
        return kl.decoding.generate_with_hub(model, inputs, beams=beams).ids

    archive = keras.export.ExportArchive()
    archive.track(model)
    signature = [tf.TensorSpec([None, length], tf.int32), tf.TensorSpec([None, length], tf.bool)]
    archive.add_endpoint("serve", ids, input_signature=signature)
    archive.write_out(folder, verbose=False)
    restored = tf.saved_model.load(folder)
    return lambda inputs: restored.serve(inputs["token_ids"], inputs["padding_mask"])


def compare_answers(length: int, rounds: int) -> None:
    """Compare the signature that Exporter writes for `answer` with a tf.function of the same computation."""
    import keras

    from kerasline.components.models.session import SavedModelSession
    from kerasline.components.models.signatures import DEFAULT_SIGNATURE

    def preprocessing() -> keras.Model:
        first = keras.Input((), name="first", dtype="int64")
        return keras.Model({"first": first}, {"first": keras.layers.Identity()(first)})

    def build_model(inputs: dict[str, Any], hp: Any) -> keras.Model:
        table = keras.layers.Embedding(1000, 256, name="table")(inputs["first"][:, None])
        state = keras.layers.GRU(256, name="decoder")(table)
        model = keras.Model(inputs, keras.layers.Dense(1000, name="next")(state))
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return model

    def answer(model: keras.Model, features: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        table, decoder, following = (model.get_layer(name) for name in ("table", "decoder", "next"))

        def step(tokens: tf.Tensor, position: tf.Tensor, state: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            output, (state,) = decoder.cell(table(tokens), [state])
            return following(output), state

        begin = tf.cast(features["first"], tf.int32)
        return {"ids": kl.generate(step, begin, tf.zeros([tf.shape(begin)[0], 256]), length=length).ids}

    columns = {"first": list(range(64)), "label": [0] * 64}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        examples = kl.InMemoryExampleGen(columns, splits={"train": 1}).execute(folder / "e").examples
        transform = kl.Transform(examples, function=preprocessing, label="label")
        prepared = transform.execute(folder / "t").preprocessing
        built = kl.ModelBuilder(prepared, function=build_model).execute(folder / "m").model
        saved = kl.Exporter(prepared, built, answer=answer).execute(folder / "x").saved_model
        model, session = built.load(), SavedModelSession(saved.path)
        loaded = tf.saved_model.load(str(saved.path)).signatures[DEFAULT_SIGNATURE]
        bare = tf.function(lambda first: answer(model, {"first": first}), autograph=False)
        print(f"a recurrent decoder of {length} ids; milliseconds a call")
        for rows in (1, 32):
            array = np.arange(rows)
            calls = {
                "bare": functools.partial(bare, tf.constant(array)),
                "signature": functools.partial(loaded, first=tf.constant(array)),
                "server": functools.partial(session.call, session.signatures[DEFAULT_SIGNATURE], [array]),
            }
            times = best(rounds * 20, **calls)
            text = ", ".join(f"{name} {1000 * one:.2f} ({one / times['bare']:.3f})" for name, one in times.items())
            print(f"  batch {rows:2}: {text}")


def compare_tokenizing(sentences: int, rounds: int) -> None:
    import sentencepiece
    import tensorflow_text

    generator = np.random.default_rng(0)
    words = [
        "".join(generator.choice(list("abcdefghijklmnopqrstuvwxyz"), size)) for size in generator.integers(2, 10, 5000)
    ]
    texts = [" ".join(generator.choice(words, 12)) for _ in range(20_000)]
    layer = kl.layers.Subwords(top=4000, length=64, algorithm="bpe")
    layer.adapt(texts)
    texts = (texts * (1 + sentences // len(texts)))[:sentences]
    processor = sentencepiece.SentencePieceProcessor(model_proto=layer.model)
    column = tf.constant(texts)

    def in_graph() -> None:
        data = tf.data.Dataset.from_tensor_slices(column).batch(4096)
        for _ in data.map(layer, num_parallel_calls=tf.data.AUTOTUNE).prefetch(2):
            pass

    def in_python(encode: Callable[[str], Any], number: int) -> None:
        ids = np.zeros((number, 64), np.int32)
        for place, text in enumerate(texts[:number]):
            found = encode(text)[:64]
            ids[place, : len(found)] = found

    operation = tensorflow_text.SentencepieceTokenizer(layer.model)
    few = max(1, sentences // 100)  # an operation for each sentence takes long
    calls = {
        "layer in tf.data": (in_graph, sentences),
        "loop over TensorFlow Text": (
            functools.partial(in_python, lambda text: operation.tokenize(text).numpy(), few),
            few,
        ),
        "loop over SentencePiece": (functools.partial(in_python, processor.encode, sentences), sentences),
    }
    times = best(rounds, **{name: call for name, (call, _) in calls.items()})
    print(f"{sentences:,} sentences of 12 words to rows of 64 ids; sentences/s")
    for name, (_, number) in calls.items():
        print(f"  {name} {number / times[name]:.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sentences", type=int, default=1_000_000)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    compare_answers(arguments.length, arguments.rounds)
    compare_generation(arguments.length, arguments.rounds)
    compare_tokenizing(arguments.sentences, min(arguments.rounds, 2))


if __name__ == "__main__":
    main()
