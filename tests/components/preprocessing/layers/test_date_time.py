"""DateTimeParts, compared with Python's datetime and NumPy's datetime64."""

import datetime

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasline.components.preprocessing.layers.date_time import CYCLES, PARTS, SOURCES, DateTimeParts
from tests.components.preprocessing.layers.round_trip import round_trips

EPOCH = datetime.datetime(1970, 1, 1)
UTC = datetime.UTC
MOMENTS = st.datetimes(datetime.datetime(1, 1, 1), datetime.datetime(9999, 12, 31, 23, 59, 59))
ALL = {source: DateTimeParts(PARTS, source=source, dtype="float64") for source in SOURCES}
NOTHING = [np.nan] * len(PARTS)


def expected(moment: datetime.datetime) -> list[int]:
    """Return the parts from Python's calendar, in the order of PARTS."""
    days = moment.toordinal() - EPOCH.toordinal()
    named = {
        "year": moment.year,
        "quarter": (moment.month - 1) // 3 + 1,
        "month": moment.month,
        "week": moment.isocalendar()[1],
        "day": moment.day,
        "day_of_year": moment.timetuple().tm_yday,
        "weekday": moment.weekday(),
        "hour": moment.hour,
        "minute": moment.minute,
        "second": moment.second,
        "is_weekend": moment.isoweekday() in (6, 7),
        "epoch_days": days,
        "epoch_seconds": days * 86400 + (moment.hour * 60 + moment.minute) * 60 + moment.second,
    }
    return [int(named[part]) for part in PARTS]


def parts_of(texts):
    return ALL["iso"](np.array(texts, dtype=object)).numpy()


@settings(max_examples=60)
@given(st.lists(MOMENTS, min_size=1, max_size=40))
def test_strings_are_parsed_as_by_python(moments):
    want = [expected(moment) for moment in moments]
    np.testing.assert_array_equal(parts_of([m.isoformat() for m in moments]), want)
    np.testing.assert_array_equal(parts_of([m.isoformat(" ", "seconds") + "Z" for m in moments]), want)
    want = [expected(datetime.datetime.combine(moment, datetime.time())) for moment in moments]
    np.testing.assert_array_equal(parts_of([m.date().isoformat() for m in moments]), want)


@settings(max_examples=60)
@given(st.lists(MOMENTS, min_size=1, max_size=40), st.sampled_from(["s", "ms", "us"]))
def test_numbers_are_interpreted_as_by_numpy(moments, unit):
    numbers = np.array(moments, f"datetime64[{unit}]").astype("int64")
    want = [expected(m) if n != -1 else NOTHING for m, n in zip(moments, numbers)]
    np.testing.assert_array_equal(ALL[unit](numbers), want)


@settings(max_examples=30)
@given(st.lists(st.integers(-(2**63), 2**63 - 1).filter(lambda n: n != -1), min_size=1, max_size=40))
def test_nanoseconds_agree_with_numpy(numbers):
    moments = (np.array(numbers) // 10**9).astype("datetime64[s]").tolist()
    np.testing.assert_array_equal(ALL["ns"](np.array(numbers)), list(map(expected, moments)))


@settings(max_examples=60)
@given(MOMENTS, st.integers(-23 * 60 - 59, 23 * 60 + 59), st.sampled_from([":", ""]))
def test_utc_offsets_are_subtracted(moment, minutes, colon):
    zone = f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}{colon}{abs(minutes) % 60:02}"
    text = moment.isoformat(timespec="minutes") + zone
    try:
        offset = datetime.timezone(datetime.timedelta(minutes=minutes))
        local = moment.replace(second=0, microsecond=0, tzinfo=offset)
        want = expected(local.astimezone(UTC).replace(tzinfo=None))
    except OverflowError:  # before the year 1 or after 9999
        want = NOTHING
    np.testing.assert_array_equal(parts_of([text]), [want])


def test_days_around_leap_years_and_year_ends():
    days = np.concatenate(
        [
            np.arange("1896-01-01", "1909-01-01", dtype="datetime64[D]"),
            np.arange("1999-01-01", "2005-01-01", dtype="datetime64[D]"),
            np.array([f"{year:04}-{day}" for year in range(1, 10000) for day in ("12-30", "01-01")], "datetime64[D]"),
        ]
    )
    moments = [datetime.datetime(day.year, day.month, day.day) for day in days.tolist()]
    numbers = days.astype("int64")
    known = numbers != -1
    want = np.array(list(map(expected, moments)))
    np.testing.assert_array_equal(ALL["days"](numbers)[known], want[known])
    np.testing.assert_array_equal(ALL["days"](numbers[~known]), np.tile(NOTHING, ((~known).sum(), 1)))


def test_weeks_at_year_ends_follow_iso_8601():
    weeks = {
        "2021-01-03": 53,
        "2021-01-04": 1,
        "2018-12-31": 1,
        "2020-12-31": 53,
        "2016-01-03": 53,
        "2024-12-30": 1,
    }
    layer = DateTimeParts(["week"])
    np.testing.assert_array_equal(layer(np.array(list(weeks)))[:, 0], list(weeks.values()))


def test_all_formats_of_a_time_give_the_same():
    forms = [
        "2026-11-24T01:38:35",
        "2026-11-24 01:38:35",
        "2026-11-24T01:38:35.999",
        "2026-11-24T01:38:35,9",
        "2026-11-24t01:38:35.123456789z",
        "2026-11-24T01:38:35Z",
        "2026-11-24T02:38:35+01",
        "2026-11-24T02:38:35+0100",
        "2026-11-24 02:38:35.123456789+01:00",
        "2026-11-23T22:08:35.5-03:30",
    ]
    want = expected(datetime.datetime(2026, 11, 24, 1, 38, 35))
    np.testing.assert_array_equal(parts_of(forms), [want] * len(forms))


def test_missing_or_unreadable_times_are_nan():
    texts = [
        "",
        "2026-02-30",
        "2026-02-29",
        "1900-02-29",
        "2026-13-01",
        "2026-00-10",
        "2026-04-31",
        "2026-01-00",
        "0000-01-01",
        "2026-1-1",
        "20260101",
        "24.11.2026",
        "2026-11-24T",
        "2026-11-24T01",
        "2026-11-24T24:00",
        "2026-11-24T01:60",
        "2026-11-24T01:38:60",
        "2026-11-24T01:38+24:00",
        "2026-11-24T01:38+01:60",
        "2026-11-24Z",
        "2026-11-24T01:38:35.",
        "2026-11-24T01:38:35.1234567891",
        "2026-11-24T01:38+1",
        "2026-11-24 ",
        " 2026-11-24",
        "2026-11-24\n",
        "12026-11-24",
        "-2026-11-24",
        "２０２６-11-24",
        b"2026-11-2\xff",
        "x" * 1000,
        "0001-01-01T00:30+01:00",
        "9999-12-31T23:30-01:00",
    ]
    np.testing.assert_array_equal(parts_of(texts), np.full((len(texts), len(PARTS)), np.nan))
    for source in ("s", "ms", "us", "ns", "days"):
        for dtype in ("int64", "int32", "int8"):
            assert np.isnan(ALL[source](np.array([-1], dtype))).all()
        assert np.isnan(ALL[source](np.array([np.nan, np.inf, -np.inf, 1e300]))).all()
    for source in ("s", "ms", "us", "days"):
        assert np.isnan(ALL[source](np.array([2**63 - 1, -(2**63)]))).all()


def test_leap_days_are_parsed():
    texts = ["2024-02-29", "2000-02-29", "0004-02-29"]
    want = [expected(datetime.datetime.fromisoformat(text)) for text in texts]
    np.testing.assert_array_equal(parts_of(texts), want)


def test_fractions_are_rounded_down_and_days_are_exact_to_the_second():
    late = expected(datetime.datetime(1969, 12, 31, 23, 59, 59))
    np.testing.assert_array_equal(ALL["s"](np.array([-1.0, -0.25])), [late, late])
    np.testing.assert_array_equal(ALL["ms"](np.array([-2, -1000])), [late, late])
    shares = np.arange(1440) / 1440 + 20781
    np.testing.assert_array_equal(ALL["days"](shares)[:, -1], 20781 * 86400 + np.arange(1440) * 60)


def test_seconds_as_float64_are_exact_and_as_float32_within_128():
    now = 1_795_484_315
    assert ALL["s"](np.array([now + 0.75]))[0, -1] == now
    coarse = DateTimeParts(["epoch_seconds", "epoch_days"], source="s")(np.array([now]))
    assert coarse.dtype == tf.float32 and coarse[0, 1] == now // 86400
    assert abs(float(coarse[0, 0]) - now) <= 64


def test_cyclic_parts_become_angles():
    days = np.arange("2023-12-25", "2025-01-10", dtype="datetime64[D]").astype("int64")
    seconds = np.concatenate([days * 86400 + 3723, np.arange(days[0] * 86400, (days[0] + 1) * 86400, 47)])
    plain, cyclic = (DateTimeParts(PARTS, source="s", cyclic=cyclic) for cyclic in (False, True))
    numbers, angles = dict(zip(plain.columns, plain(seconds).numpy().T)), cyclic(seconds).numpy()
    assert cyclic.columns[:3] == ["year", "quarter_sin", "quarter_cos"]
    assert angles.shape[1] == len(cyclic.columns)
    for place, name in enumerate(cyclic.columns):
        want = numbers.get(name)
        if want is None:
            part, wave = name[:-4], {"_sin": np.sin, "_cos": np.cos}[name[-4:]]
            first, period = CYCLES[part]
            want = wave(2 * np.pi * (numbers[part] - first) / period)
        np.testing.assert_allclose(angles[:, place], want, atol=1e-6)
    assert np.isnan(cyclic(np.array([-1]))).all()


@pytest.mark.parametrize("shape", [(), (1,)])
def test_saved_and_loaded_model_gives_the_same_outputs(tmp_path, shape):
    raw = {
        "text": keras.Input(shape, name="text", dtype="string"),
        "n": keras.Input(shape, name="n", dtype="int64"),
    }
    outputs = {
        "text": DateTimeParts(PARTS, name="of_text")(raw["text"]),
        "n": DateTimeParts(("day", "year"), source="ms", cyclic=True, name="of_n")(raw["n"]),
    }
    model = keras.Model(raw, outputs)
    assert model.output["text"].shape == (None, 13) and model.output["n"].shape == (None, 3)
    texts = np.array(["2026-11-24T01:38:35+02:00", "", "1066-10-14"]).reshape(-1, *shape)
    inputs = {"text": texts, "n": np.array([-1, 0, 1_795_484_315_123]).reshape(texts.shape)}
    round_trips(model, inputs, tmp_path)


def test_runs_in_tf_data_and_on_empty_batches():
    layer = DateTimeParts()
    texts = np.array(["2026-11-24", "2024-02-29", ""], dtype=object)
    batches = list(tf.data.Dataset.from_tensor_slices(texts).batch(2).map(layer))
    np.testing.assert_array_equal(np.concatenate(batches), layer(texts))
    assert layer(texts[:1])[0].numpy().tolist() == [11, 24, 1, 0]
    assert layer(texts[:0]).shape == (0, 4)
    assert DateTimeParts(source="days")(np.empty((0, 1), "int64")).shape == (0, 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parts": ["month", "hours"]}, "invalid parts: expected .*hour, .*, received .*'hours'.*"),
        ({"parts": []}, "invalid parts: .* received \\[\\]"),
        ({"source": "seconds"}, "invalid source: expected one of iso, s, ms, us, ns, days.*, received 'seconds'"),
    ],
)
def test_invalid_arguments_raise(options, message):
    with pytest.raises(ValueError, match=message):
        DateTimeParts(**options)


@pytest.mark.parametrize(("source", "dtype"), [("iso", "int64"), ("s", "string"), ("s", "bool")])
def test_wrong_input_type_raises(source, dtype):
    with pytest.raises(ValueError, match=f"invalid inputs for source '{source}': expected .* received '{dtype}'"):
        DateTimeParts(source=source)(keras.Input((1,), dtype=dtype))
    with pytest.raises(ValueError, match=r"invalid inputs: .* received \(None, 2\)"):
        DateTimeParts()(keras.Input((2,), dtype="string"))
