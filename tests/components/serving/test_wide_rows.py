"""The parser for wide rows agrees with the general parser, or leaves the body to it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasline.components.models.signatures import Signature, TensorSpec
from kerasline.components.serving.http import json_codec, wide_rows
from kerasline.components.serving.runtime.errors import RequestError

pytest.importorskip("simdjson", reason="without simdjson the general parser reads everything")
WIDTH = 16


def signature(*names: str, dtype=np.float32, width: int = WIDTH) -> Signature:
    spec = {name: TensorSpec(f"{name}:0", 1, np.dtype(dtype), (None, width)) for name in names}
    return Signature("serving_default", "tensorflow/serving/predict", spec, {})


def read_generally(body: bytes, target: Signature) -> list[np.ndarray]:
    inputs, _by_row = json_codec.predict_inputs(json_codec.parse(body), target)
    return inputs if isinstance(inputs, list) else inputs.arrays()


def numbers(start: int = 0) -> list[float]:
    return [(start + n) / 7 for n in range(WIDTH)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_wide_rows_match_the_general_parser(dtype):
    rows = [{"a": numbers(n), "b": [n, -0.0, 1e-300, 2**52 - 1, *range(WIDTH - 4)]} for n in range(5)]
    body = json.dumps({"instances": rows}).encode()
    target = signature("a", "b", dtype=dtype)
    for found, expected in zip(wide_rows.read(body, target), read_generally(body, target), strict=True):
        assert found.dtype == dtype and found.shape == (5, WIDTH)
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(np.signbit(found), np.signbit(expected))


def test_plain_list_is_a_row_of_the_only_input():
    body = json.dumps({"instances": [numbers(), numbers(1)]}).encode()
    (found,) = wide_rows.read(body, signature("a"))
    np.testing.assert_array_equal(found, np.array([numbers(), numbers(1)], np.float32))
    assert wide_rows.read(body, signature("a", "b")) is None


@pytest.mark.parametrize(
    "text",
    [
        '{"instances": []}',
        '{"instances": [[%s]], "instances": [[%s]]}',
        '{"instances": [[%s]], "signature_name": "other"}',
        '{"inputs": [[%s]]}',
        '{"instances": [[%s]], "inputs": 1}',
        '{"instances": [{"a": [%s], "a": [%s]}]}',
        '{"instances": [{"a": [%s], "b": 1}]}',
        '{"instances": [{"b": [%s]}]}',
        '{"instances": [[%s, 1]]}',
        '{"instances": [[[%s]]]}',
        '{"instances": [[%s], 5]}',
        '{"instances": {"a": [%s]}}',
        "[[%s]]",
        '{"instances": [[%s]]} x',
        '{"instances": [[%s]]',
        "",
    ],
)
def test_other_documents_are_left_to_the_general_parser(text):
    body = text.replace("%s", ", ".join(map(str, numbers()))).encode()
    assert wide_rows.read(body, signature("a")) is None


OTHER_VALUES = ["true", "null", '"1"', "NaN", "1e400", "[1]", "[]", "{}", str(2**53), str(10**30)]


@pytest.mark.parametrize("other", OTHER_VALUES)
def test_other_values_are_left_to_the_general_parser(other):
    values = [*map(str, numbers())][1:]
    for place in (0, 7, WIDTH - 1):
        row = ", ".join([*values[:place], other, *values[place:]])
        assert wide_rows.read(f'{{"instances": [[{row}]]}}'.encode(), signature("a")) is None


def test_other_inputs_are_left_to_the_general_parser():
    body = json.dumps({"instances": [numbers()]}).encode()
    assert wide_rows.read(body, None) is None
    assert wide_rows.read(body, signature("a", dtype=np.int32)) is None
    assert wide_rows.read(body, signature("a", dtype=np.float16)) is None
    narrow = json.dumps({"instances": [[1.0, 2.0]]}).encode()
    assert wide_rows.read(narrow, signature("a", width=2)) is None


value = st.one_of(
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.none(),
    st.text(max_size=2),
    st.lists(st.integers(0, 9), max_size=2),
)
ordinary = st.one_of(st.integers(-100, 100), st.floats(-1e6, 1e6))
row = st.lists(ordinary, min_size=WIDTH - 1, max_size=WIDTH + 1) | st.lists(value, min_size=WIDTH, max_size=WIDTH)
key = st.sampled_from(["instances", "inputs", "signature_name", "a", "b"])
document = st.dictionaries(key, st.lists(row | st.dictionaries(key, row, max_size=2), max_size=3), max_size=2)


@settings(max_examples=300)
@given(document, st.binary(max_size=2), st.integers(0, 400))
def test_random_documents_match_the_general_parser(made, inserted, place):
    text = json.dumps(made).encode()
    for body in (text, text[:place] + inserted + text[place:]):
        for names in (("a",), ("a", "b")):
            found = wide_rows.read(body, signature(*names))
            if found is None:
                continue
            try:
                expected = read_generally(body, signature(*names))
            except RequestError as error:
                raise AssertionError(f"{body!r} is refused: {error}") from error
            for ours, theirs in zip(found, expected, strict=True):
                np.testing.assert_array_equal(ours, theirs)


def test_server_answers_wide_rows_and_reports_errors(tmp_path):
    import tensorflow as tf

    from tests.components.serving.servers import serving

    class Weighted(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, WIDTH], tf.float32, name="a")])
        def answer(self, a):
            return {"y": tf.linalg.matvec(a, tf.range(WIDTH, dtype=tf.float32))}

    module = Weighted()
    tf.saved_model.save(module, str(tmp_path / "wide" / "1"), signatures={"serving_default": module.answer})
    rows = np.random.default_rng(0).normal(size=(7, WIDTH)).round(4)
    with serving(tmp_path / "log", str(tmp_path / "wide"), "--no-grpc") as server:
        for instances in (rows.tolist(), [{"a": row} for row in rows.tolist()]):
            status, answer = server.post("/v1/models/wide:predict", {"instances": instances})
            assert status == 200
            np.testing.assert_allclose(answer["predictions"], rows @ np.arange(WIDTH), rtol=1e-5, atol=1e-4)
        status, answer = server.post("/v1/models/wide:predict", {"instances": [[*rows[0].tolist()[1:], "x"]]})
        assert status == 400 and '"x"' in answer["error"]
        status, answer = server.post("/v1/models/wide:predict", {"instances": [rows[0].tolist()[1:]]})
        assert status == 400 and "expected shape [?,16], received [1,15]" in answer["error"]
