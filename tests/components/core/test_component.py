import re
from typing import Annotated, Literal

import pytest
from annotated_types import Gt

from kerasline.components.core.artifacts import Examples, Report, Schema
from kerasline.components.core.component import Component, Input, Output, Parameter, component
from kerasline.components.core.parameters import parse_value
from kerasline.components.core.errors import ParameterError, WiringError


class Source(Component):
    examples: Output[Examples]
    rows: Parameter[int] = 3
    shares: Parameter[dict[str, float]] = {}


class Two(Component):
    first: Output[Report]
    second: Output[Report]


class Sink(Component):
    examples: Input[Examples]
    schema: Input[Schema] = None
    report: Output[Report]

    def run(self, inputs, outputs, context):
        (outputs.report.path / "told.txt").write_text(str(inputs.schema))
        return {"told": 1}


@component
def Shout(report: Input[Report], louder: Output[Report], times: int = 2):
    text = (report.path / "told.txt").read_text()
    (louder.path / "told.txt").write_text(text.upper() * times)
    return {"times": times}


def test_a_component_runs_alone_without_a_pipeline(tmp_path):
    done = Sink(Examples(tmp_path)).execute(tmp_path / "out")
    assert (done.report.path / "told.txt").read_text() == "None"
    assert done.metrics == {"told": 1}


def test_a_plain_function_is_a_component(tmp_path):
    told = Sink(Examples(tmp_path)).execute(tmp_path / "out")
    loud = Shout(told.report, times="3").execute(tmp_path / "loud")
    assert (loud.louder.path / "told.txt").read_text() == "NONE" * 3


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda: Sink(), "Sink.examples: no input given, Examples wanted"),
        (lambda: Sink(Shout(Report("x"))), "Examples wanted, no output fits: Shout gives Shout.louder (Report)"),
        (lambda: Sink(Schema("x")), "Sink.examples: Examples wanted, Schema('x') given"),
        (lambda: Sink(3), "int given"),
        (lambda: Shout(Two()), "several outputs fit"),
        (lambda: Sink(Source(), schem=1), "did you mean 'schema'?"),
    ],
)
def test_wrong_wiring_is_one_line_when_built(wrong, told):
    with pytest.raises(WiringError) as error:
        wrong()
    assert told in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"row": 1}, "did you mean 'rows'?"),
        ({"rows": "many"}, "Source.rows: 'many' given, int wanted"),
        ({"shares": "x"}, "Source.shares"),
    ],
)
def test_wrong_parameters_are_one_line(change, told):
    with pytest.raises(ParameterError) as error:
        Source().with_parameters(change)
    assert told in str(error.value) and "\n" not in str(error.value)


POSITIVE = Annotated[int, Gt(0)]


@pytest.mark.parametrize(
    ("kind", "called"),
    [
        (POSITIVE, "int"),
        (POSITIVE | None, "int | None"),
        (float | list[POSITIVE], "float | list"),
        (Literal["low", "high"], "one of low, high"),
    ],
)
def test_the_type_that_is_wanted_is_told_in_words(kind, called):
    with pytest.raises(ParameterError, match=f"^Source.x: '-' given, {re.escape(called)} wanted"):
        parse_value("Source.x", kind, "-")


def test_texts_of_a_command_line_become_the_declared_types():
    source = Source()
    source.with_parameters({"rows": "7", "shares.train": "0.5"})
    assert source.parameters == {"rows": 7, "shares": {"train": 0.5}}
    source.with_parameters({"shares": '{"a": 1}'})
    assert source.shares == {"a": 1.0}


def test_a_component_wired_to_another_does_not_run_alone(tmp_path):
    with pytest.raises(WiringError, match="has not run"):
        Sink(Source()).execute(tmp_path)


@component
def Maybe(report: Output[Report], examples: Input[Examples] = None):
    (report.path / "told.txt").write_text(str(examples))


def test_an_optional_input_of_a_function_is_none_where_left_out(tmp_path):
    done = Maybe().execute(tmp_path)
    assert (done.report.path / "told.txt").read_text() == "None"
