"""Non-finite numbers in JSON responses."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from kerasline.components.serving.http.json_codec import predict_response

NON_FINITE = [float("nan"), float("inf"), float("-inf")]
SHAPES = st.sampled_from([(3,), (3, 2), (3, 1, 2)])
NUMBERS = SHAPES.flatmap(
    lambda shape: st.one_of(
        arrays.arrays(np.float32, shape, elements=st.one_of(st.sampled_from(NON_FINITE), st.floats(width=32))),
        arrays.arrays(np.float64, shape, elements=st.one_of(st.sampled_from(NON_FINITE), st.floats())),
    )
)
TEXTS = st.lists(st.one_of(st.sampled_from(["null", ',null,"', '\\"null', "NaN"]), st.text()), min_size=3, max_size=3)


@given(NUMBERS, NUMBERS, TEXTS, st.booleans())
def test_every_number_is_read_back_in_its_place(first, second, texts, rows):
    words = np.array([text.encode("utf-8", "replace") for text in texts], object)
    body = predict_response(["a", "null", "b"], [first, words, second], rows=rows)
    answer = json.loads(body)["predictions" if rows else "outputs"]
    for name, expected in (("a", first), ("b", second)):
        found = [row[name] for row in answer] if rows else answer[name]
        np.testing.assert_array_equal(np.array(found, expected.dtype), expected)
    found = [row["null"] for row in answer] if rows else answer["null"]
    assert [text.encode() for text in found] == words.tolist()


@pytest.mark.parametrize("number", NON_FINITE)
def test_single_non_finite_number(number):
    assert str(json.loads(predict_response(["y"], [np.float32(number)], rows=False))["outputs"]) == str(number)
