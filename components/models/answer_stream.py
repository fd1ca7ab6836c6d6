"""An answering function that calls `kl.generate`, split into steps that a server runs for many requests at once.

A request has a slot. `start` reads its prompt and returns the state after it, `step` generates one id in every slot,
each at its own position, and `answers` turns the ids so far into the answers of the function. They run the user's own
code, so a streamed answer is the whole answer, piece by piece.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from kerasline.components.core.artifacts import Model, Preprocessing
from kerasline.components.core.errors import UserCodeError
from kerasline.components.core.user_code import name_of
from kerasline.components.decoding.generation import Generated, Generation, intercepted
from kerasline.components.decoding.steps import prompt_lengths, take_step, with_shapes
from kerasline.components.models.answering import (
    Answering,
    Function,
    Tensors,
    answering_with,
    reached,
    stand_in,
)
from kerasline.components.models.preprocessed_model import PreprocessedModel
from kerasline.components.models.signatures import RAW_COLUMN, STATE, STREAM_ANSWERS, STREAM_START, STREAM_STEP

Specs = dict[str, tf.TensorSpec]
BYTES_SUFFIX = "_bytes"  # of names of binary values


class AnswerStream:
    """The three functions of one answering function.

    Args:
        answering: the answering function.
        raw_specs: specs (rows, ...) of the raw columns that it depends on, by name.
        prepare: returns its features, given raw columns.

    Raises:
        UserCodeError: the answers are not generated id by id, or depend on more than the ids.
    """

    def __init__(self, answering: Answering, raw_specs: Specs, prepare: Callable[[Tensors], Tensors]) -> None:
        self._answering, self._raw_specs, self._prepare = answering, raw_specs, prepare
        self._generation = _find_generation(answering)
        self.text = self._text()

    def check(self) -> None:
        """Trace what a server will run. Raise a UserCodeError if that is not possible."""
        for function, specs in self.signatures.values():
            tf.function(function, input_signature=[specs], autograph=False).get_concrete_function()

    @property
    def facts(self) -> dict[str, Any]:
        """What a server needs to know besides the signatures."""
        of = self._generation
        settings = {"length": of.ids.shape[1], "end": of.end, "pad": of.pad}
        return {"text": self.text, **settings, "top_k": of.top_k, "top_p": of.top_p}

    @property
    def signatures(self) -> dict[str, tuple[Callable[..., Any], Specs]]:
        """The functions and the specs of their inputs, by signature."""
        of_rows = functools.partial(tf.TensorSpec, (None,))
        state = {name: tf.TensorSpec(leaf.shape, leaf.dtype) for name, leaf in self._state(self._generation).items()}
        chosen_by = {"chances": of_rows(tf.float32), "temperatures": of_rows(tf.float32)}
        places = {"tokens": of_rows(tf.int32), "positions": of_rows(tf.int32)}
        ids = {"ids": tf.TensorSpec(self._generation.ids.shape, tf.int32), "lengths": of_rows(tf.int32)}
        seeds = {"seed": of_rows(tf.int64), "is_seeded": of_rows(tf.bool)}
        raw = {f"{RAW_COLUMN}{name}": spec for name, spec in self._raw_specs.items()}
        return {
            STREAM_START: (self.start, {**seeds, **raw}),
            STREAM_STEP: (self.step, {**places, **chosen_by, **state}),
            STREAM_ANSWERS: (self.answers, {**ids, "scores": of_rows(tf.float32)}),
        }

    def start(self, inputs: Tensors) -> dict[str, tf.Tensor]:
        """Read the prompt of one request.

        Args:
            inputs: raw columns, `seed` and whether it replaces that of the function, `is_seeded`, all of one row.

        Returns:
            The ids of the prompt, the position of the last of them, the random numbers by which ids will be drawn, the
            temperature, and the state before that position, all of one row.
        """
        raw = {name: inputs[f"{RAW_COLUMN}{name}"] for name in self._raw_specs}
        generation = _generation_of(self._answering, self._prepare(raw))
        pad, end = generation.pad, generation.end
        last = tf.maximum(prompt_lengths(generation.prompt, pad)[0] - 1, 0)

        def body(t: tf.Tensor, state: Any) -> tuple[tf.Tensor, Any]:
            _, next_state = take_step(generation.step, generation.ids[:, t], t, state, pad, end)
            return with_shapes((t + 1, next_state), (t, state))

        first = (tf.cast(generation.start, tf.int32), generation.state)
        _, state = tf.while_loop(lambda t, _: t < last, body, first)
        chances = generation._replace(seed=inputs["seed"]).chances()
        return {
            "ids": generation.ids,
            "position": last[None],
            "chances": tf.where(inputs["is_seeded"][:, None], chances, generation.chances()),
            "temperature": generation.temperatures(),
            **self._state(generation._replace(state=state)),
        }

    def step(self, inputs: Tensors) -> dict[str, tf.Tensor]:
        """Generate the next id of each slot.

        Args:
            inputs: `tokens` at `positions`, `chances`, `temperatures` and the state, of a row for each slot.

        Returns:
            `ids`, the logarithms of their probabilities, and the part of the state that changes.
        """
        features = self._stand_ins(tf.shape(inputs["tokens"])[0])
        generation = _generation_of(self._answering, features)
        names = list(self._state(generation))

        def of_slot(slot: tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
            token, position, rows = slot
            state = tf.nest.pack_sequence_as(generation.state, [row[None] for row in rows])
            logits, next_state = take_step(
                generation.step, token[None], position, state, generation.pad, generation.end
            )
            new = zip(names, tf.nest.flatten(state), tf.nest.flatten(next_state))
            return logits[0], {name: after[0] for name, before, after in new if after is not before}

        state = [inputs[name] for name in names]
        logits, new_state = tf.vectorized_map(of_slot, (inputs["tokens"], inputs["positions"], state), warn=False)
        self._check_inputs(
            [logits, *new_state.values()], features, "the step of kl.generate", "pass it on in its state"
        )
        ids, scores = generation.choose(logits, inputs["chances"], inputs["temperatures"])
        return {"ids": ids, "scores": scores, **new_state}

    def answers(self, inputs: Tensors) -> dict[str, tf.Tensor]:
        """Return the answers of the function to requests with these `ids`, `lengths` and `scores`."""
        features = self._stand_ins(tf.shape(inputs["ids"])[0])
        generated = Generated(inputs["ids"], inputs["lengths"], inputs["scores"])
        with intercepted(lambda _: generated):
            answers = self._answering(features)
        advice = "compute it from what kl.generate returns"
        self._check_inputs(list(answers.values()), features, "what follows kl.generate", advice)
        return answers

    def _text(self) -> str:
        texts = [name for name, spec in self._answering.outputs.items() if spec.dtype == tf.string]
        texts = [name for name in texts if not name.endswith(BYTES_SUFFIX)]
        if len(texts) != 1:
            received = ", ".join(texts) or "none"
            raise UserCodeError(f"{self._name}: expected one text among the streamed answers, received {received}")
        return texts[0]

    def _state(self, generation: Generation) -> dict[str, tf.Tensor]:
        leaves = tf.nest.flatten(generation.state)
        state = {f"{STATE}{number:04}": leaf for number, leaf in enumerate(leaves)}
        for leaf in leaves:
            if not leaf.shape[1:].is_fully_defined():
                raise UserCodeError(
                    f"{self._name}: the state of kl.generate has a tensor of shape {leaf.shape}; expected fixed sizes "
                    "after the first dimension, so that the answers of several requests can be generated at once"
                )
        return state

    @property
    def _name(self) -> str:
        return name_of(self._answering.function)

    def _stand_ins(self, rows: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return features that have no influence on the results, which `_check_inputs` checks."""
        return {name: tf.identity(stand_in(rows, spec)) for name, spec in self._answering.features.items()}

    def _check_inputs(self, results: list[tf.Tensor], features: Tensors, place: str, advice: str) -> None:
        names = reached(results)
        found = [name for name, tensor in features.items() if tensor.op.name in names]
        if found:
            raise UserCodeError(
                f"{self._name} cannot be streamed: {place} depends on the feature {found[0]!r}; {advice}"
            )


def check_stream(function: Function, preprocessing: Preprocessing, model: Model) -> None:
    """Raise a UserCodeError if the answers of a function cannot be streamed. The model need not be trained."""
    written = (model.path / Model.FILE).stat().st_mtime_ns
    _check_stream(function, preprocessing.path, model.path, written)


@functools.lru_cache(maxsize=8)
def _check_stream(function: Function, preprocessing: Path, model: Path, written: int) -> None:
    answering = answering_with(function, Model(model).load(), Preprocessing(preprocessing))
    served = PreprocessedModel(answering.served_features(), answering.model)
    AnswerStream(answering, served.raw_specs, served.prepare).check()


def _find_generation(answering: Answering) -> Generation:
    """Return the call of `kl.generate`, with the specs of its tensors."""
    found: list[Generation] = []

    def trace(features: Mapping[str, tf.Tensor]) -> Any:
        found.append(_generation_of(answering, features))
        return found[0].ids

    tf.function(trace, input_signature=[answering.features], autograph=False).get_concrete_function()
    return found[0]


def _generation_of(answering: Answering, features: Tensors) -> Generation:
    """Return the call of `kl.generate` for some features, whose loop does not run."""
    found: list[Generation] = []

    def intercept(generation: Generation) -> Generated:
        found.append(generation)
        rows = tf.shape(generation.ids)[0]
        return Generated(generation.ids, tf.fill([rows], generation.ids.shape[1]), tf.zeros([rows]))

    with intercepted(intercept):
        answering(features)
    if len(found) != 1:
        calls = "no call" if not found else f"{len(found)} calls"
        raise UserCodeError(
            f"{name_of(answering.function)} cannot be streamed: expected one call of kl.generate, without beams; found "
            f"{calls}"
        )
    return found[0]
