import re
from dataclasses import dataclass, field
from typing import Annotated, Literal

import pytest
from annotated_types import Gt
from pydantic import BaseModel, ConfigDict

from kerasline.components.core.artifacts import Examples, Model, Report, Schema
from kerasline.components.core.component import Component, Input, Output, Parameter, Parameters, component
from kerasline.components.core.errors import ParameterError, WiringError
from kerasline.components.core.parameters import parse_value


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
        (outputs.report.path / "note.txt").write_text(str(inputs.schema))
        return {"notes": 1}


@component
def Shout(report: Input[Report], louder: Output[Report], times: int = 2):
    text = (report.path / "note.txt").read_text()
    (louder.path / "note.txt").write_text(text.upper() * times)
    return {"times": times}


def test_component_runs_without_a_pipeline(tmp_path):
    done = Sink(Examples(tmp_path)).execute(tmp_path / "out")
    assert (done.report.path / "note.txt").read_text() == "None"
    assert done.metrics == {"notes": 1}


def test_function_becomes_a_component(tmp_path):
    noted = Sink(Examples(tmp_path)).execute(tmp_path / "out")
    loud = Shout(noted.report, times="3").execute(tmp_path / "loud")
    assert (loud.louder.path / "note.txt").read_text() == "NONE" * 3


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: Sink(), "Sink.examples: missing input, expected Examples"),
        (
            lambda: Sink(Shout(Report("x"))),
            "no output matches: the outputs of Shout are Shout.louder (Report)",
        ),
        (lambda: Sink(Schema("x")), "Sink.examples: expected Examples, received Schema('x')"),
        (lambda: Sink(3), "received int"),
        (lambda: Shout(Two()), "several outputs match"),
        (lambda: Sink(Source(), schem=1), "did you mean 'schema'?"),
    ],
)
def test_wrong_wiring_raises_one_line_at_construction(wrong, message):
    with pytest.raises(WiringError) as error:
        wrong()
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"row": 1}, "did you mean 'rows'?"),
        ({"rows": "many"}, "Source.rows: expected int, received 'many'"),
        ({"shares": "x"}, "Source.shares"),
    ],
)
def test_wrong_parameter_raises_one_line(change, message):
    with pytest.raises(ParameterError) as error:
        Source().with_parameters(change)
    assert message in str(error.value) and "\n" not in str(error.value)


POSITIVE = Annotated[int, Gt(0)]


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (POSITIVE, "int"),
        (POSITIVE | None, "int | None"),
        (float | list[POSITIVE], "float | list"),
        (Literal["low", "high"], "one of low, high"),
    ],
)
def test_message_names_the_expected_type(kind, name):
    with pytest.raises(ParameterError, match=f"^Source.x: expected {re.escape(name)}, received '-'"):
        parse_value("Source.x", kind, "-")


def test_command_line_strings_become_the_declared_types():
    source = Source()
    source.with_parameters({"rows": "7", "shares.train": "0.5"})
    assert source.parameters == {"rows": 7, "shares": {"train": 0.5}}
    source.with_parameters({"shares": '{"a": 1}'})
    assert source.shares == {"a": 1.0}
    assert parse_value("Source.x", str | dict, '{"a": 1}') == {"a": 1}
    assert parse_value("Source.x", str | dict, "{a}") == "{a}"


def test_message_names_the_wrong_key_of_a_nested_value():
    class Part(BaseModel):
        model_config = ConfigDict(extra="forbid")
        epochs: int

    with pytest.raises(ParameterError, match=r"\(0\.freze: Extra inputs are not permitted\)"):
        parse_value("Source.x", list[Part] | None, '[{"epochs": 1, "freze": 2}]')
    with pytest.raises(ParameterError, match=r"\(1\.epochs: Field required\)"):
        parse_value("Source.x", list[Part], [{"epochs": 1}, {}])


def test_artifact_is_connected_by_its_path(tmp_path):
    sink = Sink(Source())
    sink.with_parameters({"schema": str(tmp_path)})
    assert isinstance(sink.inputs["schema"], Schema) and sink.inputs["schema"].path == tmp_path
    with pytest.raises(ParameterError, match="Sink.schema: expected the path of a Schema, received 'nowhere'"):
        sink.with_parameters({"schema": "nowhere"})


def test_component_with_an_upstream_component_does_not_run_alone(tmp_path):
    with pytest.raises(WiringError, match="has not run"):
        Sink(Source()).execute(tmp_path)


@component
def Maybe(report: Output[Report], examples: Input[Examples] = None):
    (report.path / "note.txt").write_text(str(examples))


def test_omitted_optional_input_of_a_function_is_none(tmp_path):
    done = Maybe().execute(tmp_path)
    assert (done.report.path / "note.txt").read_text() == "None"


@dataclass(frozen=True, kw_only=True)
class MixedSettings:
    rows: int
    names: list[str] = field(default_factory=list)


class Mixed(Component):
    report: Output[Report]
    settings: Parameters[MixedSettings]


class MixedWithMore(Mixed):
    depth: Parameter[int] = 1


def test_fields_of_a_dataclass_are_parameters():
    stage = MixedWithMore(3, depth="2", names=["a"])
    assert stage.settings == MixedSettings(rows=3, names=["a"])
    assert stage.parameters == {"rows": 3, "names": ["a"], "depth": 2} and stage.depth == 2
    stage.with_parameters({"rows": "5"})
    assert stage.settings.rows == 5 and stage.settings.names == ["a"]


def test_dataclass_parameters_are_checked_like_others():
    with pytest.raises(ParameterError, match="^Mixed.rows: missing value"):
        Mixed()
    with pytest.raises(ParameterError, match="^Mixed.rows: expected int, received 'many'"):
        Mixed(rows="many")
    with pytest.raises(WiringError, match="did you mean 'names'"):
        Mixed(rows=1, name_s=[])


def test_parameters_takes_a_frozen_dataclass_only():
    class Loose(Component):
        settings: Parameters[dict]

    with pytest.raises(WiringError, match="Loose.settings: expected a frozen dataclass"):
        Loose()


def test_dict_of_inputs_has_an_edge_for_each_name(tmp_path):
    class Judged(Component):
        judges: Input[dict[str, Examples | Model]] = None

        def run(self, inputs, outputs, context):
            return {name: str(judge.path) for name, judge in inputs.judges.items()}

    assert Judged().execute(tmp_path).metrics == {}
    stage = Judged({"a": Examples("x"), "b": Model("y")})
    assert list(stage.inputs) == ["judges.a", "judges.b"]
    assert stage.execute(tmp_path).metrics == {"a": "x", "b": "y"}
    with pytest.raises(WiringError, match="judges.a: expected Examples or Model, received Schema"):
        Judged({"a": Schema("z")})
