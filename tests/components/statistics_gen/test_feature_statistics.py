"""Statistics of features, merged and compared with one pass."""

import functools
import io
import pickle
import wave

import numpy as np
import pyarrow as pa
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from kerasline.components.data.accumulators.value_counts import HLL_LG_REGISTERS, MAX_VALUES, ValueCounts
from kerasline.components.statistics_gen.feature_statistics import FeatureSummary

FLOATS = st.floats(-1e6, 1e6, allow_nan=False)


LISTS = st.lists(st.one_of(st.none(), FLOATS), max_size=20)


def merged_by(data, summaries):
    """Merge neighbours in an order that hypothesis draws, which is any tree over the parts."""
    while len(summaries) > 1:
        place = data.draw(st.integers(0, len(summaries) - 2))
        summaries[place : place + 2] = [summaries[place].merge(summaries[place + 1])]
    return summaries[0]


@given(st.lists(LISTS, min_size=1, max_size=6), st.data())
def test_numbers_merged_in_any_tree_equal_one_pass(parts, data):
    every = [v for part in parts for v in part]
    parts = data.draw(st.permutations(parts))
    merged = merged_by(data, [FeatureSummary.of(pa.array(part, pa.float64())) for part in parts])
    known = np.array([v for v in every if v is not None])
    assert (merged.rows, merged.missing) == (len(every), len(every) - len(known))
    if len(known):
        numbers = merged.numbers
        assert numbers.moments.mean == pytest.approx(known.mean(), rel=1e-9, abs=1e-6)
        assert numbers.moments.std == pytest.approx(known.std(), rel=1e-6, abs=1e-5)
        assert (numbers.minimum, numbers.maximum) == (known.min(), known.max())
        assert numbers.zeros == (known == 0).sum()
        ranks = [0.1, 0.25, 0.5, 0.9, 1.0]
        assert numbers.at(ranks) == np.quantile(known, ranks, method="inverted_cdf").tolist()
        bounds = [-5.0, 0.0, 7.5]
        assert numbers.cumulative_shares(bounds) == pytest.approx([(known <= b).mean() for b in bounds])
        assert merged.counts.distinct == len(np.unique(known))


LIST = st.one_of(st.none(), st.lists(st.integers(0, 9), max_size=4))
NESTED = st.lists(st.one_of(st.none(), st.lists(LIST, max_size=4)))


@given(st.lists(NESTED, min_size=1, max_size=5), st.data())
def test_levels_of_lists_merged_in_any_tree_equal_one_pass(parts, data):
    kind = pa.list_(pa.list_(pa.int64()))
    merged = merged_by(data, [FeatureSummary.of(pa.array(part, kind)) for part in parts])
    outer = [row for part in parts for row in part]
    for level in merged.levels:
        present = [len(one) for one in outer if one is not None]
        assert (level.lists, level.missing, level.values) == (len(present), len(outer) - len(present), sum(present))
        assert (level.fewest, level.most) == (min(present, default=0), max(present, default=0))
        outer = [one for row in outer if row is not None for one in row]


def test_values_in_lists_of_lists_with_nulls_are_counted():
    lists = [[[[1], None], None], None, [], [[[2, None], []]]]
    summary = FeatureSummary.of(pa.array(lists, pa.list_(pa.list_(pa.list_(pa.int64())))))
    assert (summary.rows, summary.missing, summary.valency.moments.mean) == (4, 1, 1.0)  # 1, 0 and 2 values


@given(
    st.lists(st.lists(st.one_of(st.none(), st.text("aé", max_size=2)), max_size=20), min_size=1, max_size=6), st.data()
)
def test_strings_merged_in_any_tree_equal_one_pass(parts, data):
    merged = merged_by(data, [FeatureSummary.of(pa.array(part, pa.string())) for part in parts])
    every = [v for part in parts for v in part if v is not None]
    counts = sorted(((v, every.count(v)) for v in set(every)), key=lambda item: (-item[1], item[0]))
    assert merged.counts.exact and merged.counts.top(100) == counts
    if every:
        lengths = [len(v.encode()) for v in every]
        assert merged.lengths.moments.mean == pytest.approx(np.mean(lengths))
        assert (merged.lengths.minimum, merged.lengths.maximum) == (min(lengths), max(lengths))


@given(
    st.lists(st.lists(st.one_of(st.none(), st.lists(FLOATS, max_size=4)), max_size=8), min_size=1, max_size=4),
    st.data(),
)
def test_lists_merged_in_any_tree_equal_one_pass(parts, data):
    kind = pa.list_(pa.float64())
    merged = merged_by(data, [FeatureSummary.of(pa.array(part, kind)) for part in parts])
    every = [v for part in parts for v in part]
    present = [v for v in every if v is not None]
    assert (merged.rows, merged.missing, merged.values) == (
        len(every),
        len(every) - len(present),
        sum(map(len, present)),
    )
    if present:
        assert (merged.min_values, merged.max_values) == (min(map(len, present)), max(map(len, present)))
    flat = [x for v in present for x in v]
    if flat:
        assert merged.numbers.moments.mean == pytest.approx(np.mean(flat), rel=1e-9, abs=1e-6)


def test_frequent_values_are_counted_within_the_error_bound():
    random = np.random.default_rng(0)
    rows = np.concatenate([np.repeat(np.arange(50), 2000), random.integers(50, 10**6, 200_000)])
    random.shuffle(rows)
    merged = functools.reduce(
        ValueCounts.merge,
        [ValueCounts().add(pa.array(p.astype(str))) for p in np.array_split(rows, 7)],
    )
    merged = pickle.loads(pickle.dumps(merged))
    assert not merged.exact
    true = {str(v): c for v, c in zip(*np.unique(rows, return_counts=True))}
    top = dict(merged.top(50))
    assert set(top) == {str(v) for v in range(50)}
    assert all(0 <= true[v] - count <= len(rows) / MAX_VALUES for v, count in top.items())
    assert merged.distinct == pytest.approx(len(true), rel=4 * 1.04 / 2 ** (HLL_LG_REGISTERS / 2))


def test_invalid_utf8_is_counted():
    column = pa.array([b"good", b"\xff", b"\xff", b"\xc3\x28", None])
    assert FeatureSummary.of(column).invalid_utf8 == 3


def test_images_and_audio_are_detected_by_their_headers():
    def png(height, width):
        file = io.BytesIO()
        Image.new("RGB", (width, height)).save(file, "PNG")
        return file.getvalue()

    def wav(frames):
        file = io.BytesIO()
        with wave.open(file, "wb") as clip:
            clip.setparams((2, 2, 16000, 0, "NONE", "not compressed"))
            clip.writeframes(b"\0" * 4 * frames)
        return file.getvalue()

    summary = FeatureSummary.of(pa.array([b"no image", png(10, 20), png(30, 40)], pa.binary()))
    images = summary.media
    assert (dict(images.formats), summary.is_media) == ({"PNG": 2}, True)
    assert (images.sizes["height"].minimum, images.sizes["height"].maximum) == (10, 30)
    assert images.sizes["width"].moments.mean == 30
    bytes_first = FeatureSummary.of(pa.array([b"\xff\x00"] * 3, pa.binary()))
    assert not bytes_first.merge(FeatureSummary.of(pa.array([png(1, 1)] * 3, pa.binary()))).is_media
    assert bytes_first.merge(FeatureSummary.of(pa.array([png(2, 1)], pa.binary()))).is_media
    assert dict(bytes_first.media.formats) == {"PNG": 4}
    clips = FeatureSummary.of(pa.array([wav(8000), wav(100)], pa.binary())).media
    assert dict(clips.formats) == {"WAV": 2}
    assert (clips.sizes["sample_rate"].minimum, clips.sizes["frames"].maximum) == (16000, 8000)
    assert clips.sizes["channels"].moments.mean == 2


def test_loudness_clipping_and_silence_of_sound_are_measured():
    """A sine has the power 1/2 of its squared amplitude; a square wave at full scale is clipped."""

    def wav(samples):
        file = io.BytesIO()
        with wave.open(file, "wb") as clip:
            clip.setparams((1, 2, 8000, 0, "NONE", "not compressed"))
            clip.writeframes(np.clip(np.rint(samples * 32768), -32768, 32767).astype("<i2").tobytes())
        return file.getvalue()

    sine = 0.5 * np.sin(2 * np.pi * 100 * np.arange(8000) / 8000)
    half = np.concatenate([np.tile([1.0, -1.0], 2000), np.zeros(4000)])
    sizes = FeatureSummary.of(pa.array([wav(sine), wav(half), wav(sine)[:44]], pa.binary())).media.sizes
    found = {
        name: sorted((sizes[name].minimum, sizes[name].maximum))
        for name in ("seconds", "loudness", "clipped", "silent")
    }
    assert found["seconds"][1] == 1 and found["clipped"] == [0, 0.5] and found["silent"] == [0, 0.5]
    expected = [10 * np.log10(0.125), 10 * np.log10(0.5)]
    np.testing.assert_allclose(found["loudness"], expected, atol=0.01)
    floats = io.BytesIO()
    soundfile.write(floats, half, 8000, format="WAV", subtype="FLOAT")
    sizes = FeatureSummary.of(pa.array([floats.getvalue()], pa.binary())).media.sizes
    assert (sizes["clipped"].maximum, sizes["silent"].maximum) == (0.5, 0.5)
