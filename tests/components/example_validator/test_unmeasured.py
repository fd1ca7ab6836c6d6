"""What could not be compared is a warning, and distances by chance are no alarm."""

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon

from kerasline.components.core.errors import ParameterError
from kerasline.components.example_validator.drift_anomalies import Distance, _divergence_by_chance


def jensen_shannon_of(name, kind, threshold=0.01, extra=""):
    comparator = f"drift_comparator {{ jensen_shannon_divergence {{ threshold: {threshold} {extra} }} }}"
    return f'feature {{ name: "{name}" type: {kind} {comparator} }}'


def test_unknown_environment_is_refused(validate):
    schema = 'feature { name: "a" type: INT not_in_environment: "SERVING" } default_environment: "TRAINING"'
    with pytest.raises(ParameterError, match="no environment 'SERVNG'; did you mean 'SERVING'"):
        validate({"train": {"a": [1]}}, schema, environment="SERVNG")


def test_column_outside_the_environment_is_reported_and_checked(validate):
    schema = (
        'feature { name: "a" type: INT int_domain { max: 5 } not_in_environment: "SERVING" } '
        'default_environment: "TRAINING" default_environment: "SERVING"'
    )
    _, anomalies, _ = validate({"train": {"a": [1, 9]}}, schema, environment="SERVING")
    assert [(one["kind"], one["severity"]) for one in anomalies] == [
        ("SCHEMA_NEW_COLUMN", "warning"),
        ("INT_TYPE_BIG_INT", "error"),
    ]


def test_split_that_the_previous_span_lacks_is_a_warning(validate):
    columns = {"a": np.arange(50.0)}
    schema = jensen_shannon_of("a", "FLOAT")
    metrics, anomalies, distances = validate({"train": columns}, schema, previous={"training": columns})
    assert metrics == {"anomalies": 0, "warnings": 1, "distances": 0} and distances == []
    assert "no split 'train', so it is not compared; it has training" in anomalies[0]["seen"]


def test_schema_without_comparators_is_a_warning(validate):
    columns = {"a": [1.0]}
    _, anomalies, _ = validate({"train": columns}, 'feature { name: "a" type: FLOAT }', previous={"train": columns})
    assert [one["seen"] for one in anomalies] == ["the schema has no drift_comparator, so nothing is compared"]


def test_distance_that_cannot_be_computed_is_a_warning(validate):
    schema = 'feature { name: "a" type: FLOAT drift_comparator { infinity_norm { threshold: 0.1 } } }'
    columns = {"a": np.linspace(0, 1, 30)}
    _, anomalies, _ = validate({"train": columns}, schema, previous={"train": columns})
    assert [(one["kind"], one["severity"]) for one in anomalies] == [("STATS_NOT_AVAILABLE", "warning")]


def test_parts_of_the_schema_that_nothing_checks_are_named(validate):
    schema = """
      feature { name: "a" type: BYTES video_domain { } }
      feature { name: "b" type: BYTES natural_language_domain { vocabulary: "words" token_constraints { } } }
      dataset_constraints { num_examples_version_comparator { min_fraction_threshold: 1 } }
    """
    _, anomalies, _ = validate({"train": {"a": ["x"], "b": ["y"]}}, schema)
    assert {(one["feature"], one["seen"]) for one in anomalies if one["severity"] == "warning"} == {
        ("a", "the schema's video_domain is not checked"),
        ("b", "the schema's natural_language_domain.vocabulary is not checked"),
        ("b", "the schema's natural_language_domain.token_constraints is not checked"),
        ("*", "the schema's dataset_constraints.num_examples_version_comparator is not checked"),
    }


GENERATOR = np.random.default_rng(1)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("INT", 1_600_000_000 + GENERATOR.integers(0, 10**7, 20_000)),
        ("FLOAT", GENERATOR.lognormal(0, 2, 20_000)),
    ],
    ids=["timestamps", "lognormal"],
)
def test_random_halves_do_not_differ(validate, kind, values):
    halves = [{"train": {"a": half}} for half in np.array_split(values, 2)]
    metrics, _, (distance,) = validate(halves[0], jensen_shannon_of("a", kind, 0.01), previous=halves[1])
    assert metrics == {"anomalies": 0, "warnings": 0, "distances": 1}
    assert distance["value"] < max(distance["by_chance"], 0.01)


def test_shift_is_found_and_small_distances_are_listed(validate):
    columns = {"a": GENERATOR.lognormal(0, 2, 5000), "b": GENERATOR.random(5000)}
    shifted = {"a": GENERATOR.lognormal(1, 2, 5000), "b": GENERATOR.random(5000)}
    schema = jensen_shannon_of("a", "FLOAT") + jensen_shannon_of("b", "FLOAT")
    _, anomalies, distances = validate({"train": columns}, schema, previous={"train": shifted})
    assert [one["feature"] for one in anomalies] == ["a"]
    assert [(one["feature"], one["measure"]) for one in distances] == [("a", "Jensen-Shannon"), ("b", "Jensen-Shannon")]


def test_schema_chooses_the_histogram(validate):
    columns, others = (GENERATOR.lognormal(0, 2, 3000) for _ in range(2))
    schema = "".join(
        jensen_shannon_of(name, "FLOAT", extra=f"source {{ type: {name} }}") for name in ("STANDARD", "QUANTILES")
    )
    given, previous = ({"train": dict.fromkeys(("STANDARD", "QUANTILES"), one)} for one in (columns, others))
    *_, distances = validate(given, schema, previous=previous)
    found = {one["feature"]: one["value"] for one in distances}
    assert found["QUANTILES"] < 0.01 < found["STANDARD"]


@pytest.mark.parametrize(("by_chance", "is_high"), [(0.04, True), (0.06, False)])
def test_alarm_exceeds_the_distance_by_chance(by_chance, is_high):
    assert Distance("train", "a", "", "Jensen-Shannon", 0.05, 0.01, by_chance, "").is_high is is_high


def test_distance_by_chance_is_the_mean_of_samples():
    def divergence() -> float:
        one, other = (GENERATOR.multinomial(size, [0.1] * 10) / size for size in (300, 500))
        return jensenshannon(one, other, base=2) ** 2

    mean = np.mean([divergence() for _ in range(2000)])
    assert _divergence_by_chance(10, 300, 500) == pytest.approx(mean, rel=0.05)


BOUNDS = 'feature { name: "a" type: BYTES '
MOSTLY_X = 'string_domain { value: "x" } distribution_constraints { min_domain_mass: 0.8 } }'


@pytest.mark.parametrize(
    ("values", "schema", "kinds"),
    [
        (["x"] * 8 + [None] * 2, BOUNDS + "presence { min_fraction: 0.8 } }", []),
        (
            ["x"] * 8 + ["y"] * 2,
            BOUNDS + 'string_domain { value: "x" } distribution_constraints { min_domain_mass: 0.8 } }',
            [],
        ),
        (
            ["x"] * 7 + [None] * 3,
            BOUNDS + "presence { min_fraction: 0.8 min_count: 9 } }",
            ["FEATURE_TYPE_LOW_FRACTION_PRESENT", "FEATURE_TYPE_LOW_NUMBER_PRESENT"],
        ),
        (["1_000", "7"], BOUNDS + "int_domain { } }", ["INT_TYPE_NOT_INT_STRING"]),
        (["٣", "7"], BOUNDS + "int_domain { } }", ["INT_TYPE_NOT_INT_STRING"]),
        ([" 3", "7"], BOUNDS + "float_domain { } }", ["FLOAT_TYPE_STRING_NOT_FLOAT"]),
        ([["x"], ["y"]], BOUNDS + "value_count { max: 0 } }", ["FEATURE_TYPE_HIGH_NUMBER_VALUES"]),
    ],
)
def test_bounds_are_exact(validate, values, schema, kinds):
    _, anomalies, _ = validate({"train": {"a": values}}, schema)
    assert [one["kind"] for one in anomalies] == kinds
