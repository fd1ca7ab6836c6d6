"""Generating DAG files without Airflow: their text, the arguments of each task, and wrong calls."""

import ast
import datetime
import json
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerasline.pipeline.runners.airflow import code, description, stage
from tests.conftest import REPOSITORY
from tests.marks import slowly

QUICK = REPOSITORY / "tests" / "pipeline" / "quick.py"
DAYS = REPOSITORY / "tests" / "end_to_end" / "days.py"
ROOT = "/pipelines/runs"


@pytest.fixture
def write(cli, tmp_path):
    """Return a function that writes the DAG file of a pipeline with the command line and returns its text."""

    def call(recipe, *more, name="dag.py"):
        result = cli("airflow", recipe, "-o", tmp_path / name, "--root", ROOT, *more)
        assert result.returncode == 0, result.stderr
        return (tmp_path / name).read_text()

    return call


def edges(text):
    """Return the edges of a DAG file as pairs of node names."""
    tree = ast.parse(text)
    (stages,) = [one for one in tree.body if isinstance(one, ast.FunctionDef) and one.name == "stages"]
    names = {s.targets[0].id: s.value.args[0].value for s in stages.body if isinstance(s, ast.Assign)}
    found = set()
    for arrow in (s.value for s in stages.body if isinstance(s, ast.Expr) and isinstance(s.value, ast.BinOp)):
        before = arrow.left.elts if isinstance(arrow.left, ast.List) else [arrow.left]
        found |= {(names[one.id], names[arrow.right.id]) for one in before}
    return found


def imported(text):
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def test_output_folder_is_created_and_a_file_in_its_place_is_reported(cli, tmp_path):
    assert cli("airflow", QUICK, "-o", tmp_path / "dags" / "dag.py").returncode == 0
    (tmp_path / "file").touch()
    refused = cli("airflow", QUICK, "-o", tmp_path / "file" / "dag.py")
    assert refused.returncode == 2
    assert refused.stderr == f"error: --output {tmp_path / 'file' / 'dag.py'}: Not a directory\n"
    assert (tmp_path / "dags" / "dag.py").exists()


def test_dag_file_has_a_task_for_each_stage_and_the_edges_of_the_pipeline(write):
    assert edges(write(QUICK)) == {("Start", "Left"), ("Start", "Right"), ("Left", "Join"), ("Right", "Join")}
    from kerasline.pipeline.loading import load_pipeline

    penguins = load_pipeline("penguins", ROOT, {})
    assert edges(write("penguins")) == {(one, node) for node in penguins.order for one in penguins.upstream(node)}


@pytest.mark.parametrize("operator", description.OPERATORS)
def test_dag_file_only_imports_airflow_sdk_and_the_standard_library(write, operator):
    text = write(DAYS, "--operator", operator, "--image", "kerasline:1", "--schedule", "@daily")
    compile(text, "dag.py", "exec")
    inside = {"kerasline.pipeline.runners.airflow.stage"} if operator in ("external-python", "docker") else set()
    modules = set(imported(text)) - inside
    assert all(name == "airflow.sdk" or name.partition(".")[0] in sys.stdlib_module_names for name in modules)
    assert "airflow.sdk" in modules


@pytest.mark.parametrize("recipe", ["penguins", slowly("taxi"), slowly(QUICK), DAYS])
def test_dag_file_is_deterministic_and_formatted(write, tmp_path, recipe):
    ruff = pytest.importorskip("ruff", reason="ruff is not installed")
    for operator in description.OPERATORS:
        more = (
            "--operator",
            operator,
            "--image",
            "kerasline:1",
            "--pool",
            "cpus",
            "--metadata",
            "sqlite:////m.sqlite",
        )
        assert write(recipe, *more) == write(recipe, *more)
        for check in (["format", "--check"], ["check", "--select", "E,F,I,UP,W"]):
            command = [ruff.find_ruff_bin(), *check, "--isolated", "--line-length", "115", tmp_path / "dag.py"]
            done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr


def test_params_have_types_and_omit_paths_of_this_machine(write):
    text = write("penguins")
    names = {"ROOT": ROOT, "Param": lambda default, about=None, **schema: (default, schema), "PARAMS": None}
    table = text[text.index("\nPARAMS = {") : text.index("\nfor key, param")]
    exec(table, names)
    params = names["PARAMS"]
    assert params["Trainer.epochs"] == (30, {"type": ["null", "integer"], "exclusiveMinimum": 0})
    assert params["Trainer.precision"][1]["enum"] == ["auto", "float32", "mixed_bfloat16", "mixed_float16"]
    assert params["Trainer.shuffle"] == (True, {"type": "boolean"})
    assert params["Evaluator.confidence"] == (
        0.95,
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
    )
    assert params["ModelBuilder.hyperparameters.learning_rate"] == (0.01, {"type": "number"})
    assert params["Pusher.destination"][0] == f"{ROOT}/served/penguins" and f"{ROOT}/served" not in text
    assert params["SchemaGen.schema_file"] == (None, {"type": ["null", "string"]})
    assert "Transform.function" not in params and "Evaluator.thresholds" not in params


def test_params_have_the_descriptions_of_the_docstrings(write):
    text = " ".join(write("penguins", "--param", "ExampleGen.data_dir").split())
    assert """Param( None, "folder for prepared data. By default TFDS's own.", type=["null", "string"] )""" in text


def test_param_patterns_select_the_params(write):
    text = write("penguins", "--param", "Trainer.e*", "--param", "Pusher.keep")
    table = text[text.index("PARAMS = {") :]
    found = re.findall(r'"(\S+)": Param\(', table)
    # `Trainer.early_stopping` is not a simple value.
    trainer = {"Trainer.epochs", "Trainer.eval_split", "Trainer.ema", "Trainer.evaluate_answers"}
    assert set(found) == {*trainer, "Pusher.keep"}


def test_docstrings_and_names_of_a_recipe_are_escaped(write, tmp_path):
    file = tmp_path / "odd.py"
    file.write_text(
        '''r"""It says \\"\\"\\" and C:\\new and {braces}."""
from kerasline.components.core.artifacts import Report
from kerasline.components.core.component import Input, Output, component
from kerasline.pipeline.dag import Pipeline

@component
def One(report: Output[Report], text: str = 'both \\' and " {x}'):
    """A "quoted" one."""

@component
def Two(report: Input[Report], other: Output[Report]): ...

def pipeline(settings):
    return Pipeline("odd", [Two(One(name="class"), name="stage"), Two(One(name="a.b"), name="a-b")])
'''
    )
    text = write(file, "--dag-id", "1.odd")
    assert edges(text) == {("class", "stage"), ("a.b", "a-b")}
    assert ast.get_docstring(ast.parse(text)).startswith('It says \\"\\"\\" and C:\\new and {braces}.')


TEXTS = st.text(st.one_of(st.sampled_from("\"'\\{}/r\n\r\0nuU🚀\u200d"), st.characters()))


@given(TEXTS)
def test_any_string_can_be_written_as_source(text):
    source = code.text(text)
    assert ast.literal_eval(source) == text and source.isprintable()
    assert eval(code.below_root(text, "/r"), {"ROOT": "/r"}) == text


@pytest.mark.parametrize("dag_id", ["re", "options", "stages", "pipeline_dag", "ROOT", "whole"])
def test_dag_id_does_not_hide_another_name_of_the_file(write, dag_id):
    names = []
    for one in ast.parse(write(DAYS, "--dag-id", dag_id, "--schedule", "@daily")).body:
        if isinstance(one, (ast.Import, ast.ImportFrom)):
            names += [alias.asname or alias.name.partition(".")[0] for alias in one.names]
        elif isinstance(one, (ast.FunctionDef, ast.ClassDef)):
            names.append(one.name)
        elif isinstance(one, ast.Assign):
            names += [target.id for target in one.targets if isinstance(target, ast.Name)]
    assert len(names) == len(set(names))


def test_params_that_json_or_a_form_cannot_hold_are_left_to_the_pipeline(write, tmp_path):
    file = tmp_path / "odd.py"
    file.write_text("""
from typing import Annotated, Literal, Union
from annotated_types import Gt, Lt
from kerasline.components.core.artifacts import Report
from kerasline.components.core.component import Output, component
from kerasline.pipeline.dag import Pipeline

@component
def One(
    report: Output[Report], limit: float = float("inf"), place: Literal["/a", "/b"] = "/a",
    share: Union[Annotated[int, Gt(0)], Annotated[float, Lt(1)]] = 0.5,
    both: Union[Annotated[int, Gt(0)], Annotated[float, Gt(0)]] = 0.5,
): ...

def pipeline(settings):
    return Pipeline("my.odd", [One()])
""")
    text = write(file, "--start-date", "20261101")
    names = {"ROOT": ROOT, "Param": lambda default, about=None, **schema: (default, schema), "PARAMS": None}
    exec(text[text.index("\nPARAMS = {") : text.index("\nfor key, param")], names)
    assert names["PARAMS"] == {
        "One.limit": (None, {"type": ["null", "number"]}),
        "One.place": (None, {"type": ["null", "string"], "enum": ["/a", "/b", None]}),
        "One.share": (0.5, {"type": ["integer", "number"]}),
        "One.both": (0.5, {"type": ["integer", "number"], "exclusiveMinimum": 0}),
    }
    assert "datetime.datetime(2026, 11, 1," in text and '@task_group(group_id="my_odd")' in text


def test_description_survives_json(write, tmp_path):
    write(DAYS, "--schedule", "@daily", "--pool", "Total=big", "--set", "Total.word=a", name="days.json")
    found = description.read(tmp_path / "days.json")
    assert found.dated == ("ExampleGen",) and found.fixed == {"Total.word": "a"}
    assert {one.node: one.pool for one in found.stages}["Total"] == "big"
    assert found.as_json() == (tmp_path / "days.json").read_text()
    (tmp_path / "old.json").write_text(json.dumps({**json.loads(found.as_json()), "format": 0}))
    with pytest.raises(ValueError, match="write it again"):
        description.read(tmp_path / "old.json")


def test_script_of_an_environment_stands_for_the_python_beside_it(write):
    text = write(QUICK, "--operator", "external-python", "--command", "/opt/env/bin/kerasline")
    assert '"/opt/env/bin/python"' in text


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--operator", "dokcer"], "--operator dokcer: did you mean 'docker'"),
        (["--operator", "docker"], "--image"),
        (["--operator", "external-python", "--command", "keraslin"], "--command 'keraslin'"),
        (["--schedule", "daily"], "--schedule 'daily': expected a cron expression"),
        (["--schedule", "@dayly"], "--schedule '@dayly': did you mean '@daily'"),
        (["--schedule", "99 * * * *"], "--schedule '99 * * * *': expected 0 to 59 for the minute, received 99"),
        (["--schedule", "0 3 * * 1-9"], "expected 0 to 7 for the day of the week, received 9"),
        (["--catchup"], "--catchup: there is nothing to catch up with"),
        (["--start-date", "soon"], "--start-date 'soon'"),
        (["--timezone", "Mars/Base"], "--timezone 'Mars/Base'"),
        (["--pool", "Lft=big"], "--pool Lft=big: no such node; did you mean 'Left'"),
        (["--dag-id", "my dag"], "--dag-id 'my dag'"),
        (["--metadata", "postgresql://me:secret@host/db"], "--metadata: a password would be written"),
        (["--metadata", "postgresql://me:se/cret@host/db"], "--metadata: a password would be written"),
        (["--metadata", "postgresql://host/db?password=secret"], "--metadata: a password would be written"),
        (["--set", "Left.sconds=1"], "Left.sconds: no such parameter"),
        (["--retries", "-1"], "--retries"),
        (["-o", "/proc/nowhere/dag.py"], "--output /proc/nowhere/dag.py"),
    ],
)
def test_wrong_call_prints_one_line_and_writes_nothing(cli, tmp_path, more, message):
    result = cli("airflow", QUICK, "-o", tmp_path / "dag.py", *more)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert message in line and "secret" not in line
    assert not (tmp_path / "dag.py").exists()


def test_password_in_a_parameter_is_not_written(write, tmp_path):
    file = tmp_path / "database.py"
    file.write_text("""
from kerasline import SqlExampleGen
from kerasline.pipeline.dag import Pipeline

def pipeline(settings):
    return Pipeline("database", [SqlExampleGen("postgresql://me:secret@host/db", query="SELECT 1")])
""")
    assert "secret" not in write(file)


def test_run_name_is_unique_and_the_same_for_all_stages():
    scheduled = "scheduled__2026-11-01T00:00:00+00:00"
    assert stage.run_name("penguins", "", scheduled) == f"penguins.{scheduled}"
    assert stage.run_name("larger", "taxi.inner", scheduled) == f"larger.taxi.inner.{scheduled}"
    odd = {stage.run_name("penguins", "", run_id) for run_id in ("by hand", "by_hand", "by/hand", "by-hand", "x" * 250)}
    assert len(odd) == 5
    from kerasline.pipeline.metadata.records import checked_run_id

    assert all(checked_run_id(name) == name for name in odd)


def test_only_changed_params_are_set():
    defaults = {"Trainer.epochs": 30, "Trainer.seed": 0, "Trainer.split": "train"}
    params = {"Trainer.epochs": 3, "Trainer.seed": 0, "other": 1}
    assert stage.changed(params, defaults) == {"Trainer.epochs": 3}
    # The pipeline refuses the unknown parameter of a stage. `Load` is a task of the larger DAG.
    assert stage.changed({**params, "Trainer.epohcs": 2, "Load.day": 1}, defaults) == {
        "Trainer.epochs": 3,
        "Trainer.epohcs": 2,
    }
    assert stage.options({"a.b": True, "a.c": None, "a.d": "x y", "a.e": 1.5}) == [
        "--set",
        "a.b=true",
        "--set",
        "a.c=null",
        "--set",
        "a.d=x y",
        "--set",
        "a.e=1.5",
    ]


@pytest.mark.parametrize(
    ("start", "end", "timezone", "span"),
    [
        ("2026-11-01T00:00+00:00", "2026-11-02T00:00+00:00", "UTC", "2026-11-01"),
        ("2026-11-01T00:00+00:00", "2026-11-08T00:00+00:00", "UTC", "2026-11-01:2026-11-07"),
        ("2026-11-01T06:00+00:00", "2026-11-01T12:00+00:00", "UTC", "2026-11-01"),
        ("2026-11-01T00:00+00:00", "2026-11-01T00:00+00:00", "UTC", "2026-11-01"),  # an instant
        ("2026-10-24T22:00+00:00", "2026-10-25T23:00+00:00", "Europe/Berlin", "2026-10-25"),  # 25 hours
        ("2026-10-31T23:00+00:00", "2026-11-01T23:00+00:00", "Europe/Berlin", "2026-11-01"),
        # Intervals that do not end at midnight cover each day once, after it has ended.
        ("2026-11-01T03:00+00:00", "2026-11-02T03:00+00:00", "UTC", "2026-11-01"),
        ("2026-11-02T03:00+00:00", "2026-11-03T03:00+00:00", "UTC", "2026-11-02"),
        ("2026-11-01T03:00+00:00", "2026-11-08T03:00+00:00", "UTC", "2026-11-01:2026-11-07"),
        ("2026-11-01T00:00+00:00", "2026-11-02T00:00+00:00", "Europe/Berlin", "2026-11-01"),
    ],
)
def test_span_has_the_days_of_the_data_interval(start, end, timezone, span):
    interval = tuple(datetime.datetime.fromisoformat(moment) for moment in (start, end))
    assert stage.spans(["ExampleGen"], {}, interval, timezone) == {"ExampleGen.span": span}


def test_no_span_without_an_interval_or_without_dates():
    assert stage.spans(["ExampleGen"], {}, (None, None), "UTC") == {}
    day = tuple(datetime.datetime(2026, 11, one, tzinfo=datetime.UTC) for one in (1, 2))
    assert stage.spans(["ExampleGen"], {"ExampleGen.input": "one.csv"}, day, "UTC") == {}
    assert stage.spans(["ExampleGen"], {"ExampleGen.input": "{YYYY}/{MM}/{DD}.csv"}, day, "UTC") != {}


def test_form_input_is_not_rendered_as_a_template():
    jinja2 = pytest.importorskip("jinja2")
    for typed in ("{{ var.value.key }}", "{% raw %}", "{# x #}", "{{{", "}} {", "plain"):
        assert jinja2.Environment().from_string(stage.untemplated(typed)).render() == typed


def test_stage_in_another_environment_gets_the_arguments_of_the_command():
    facts = {
        "dag_id": "days",
        "task_id": "days.Total",
        "run_id": "one",
        "params": '{"Total.word": "b"}',
        "start": "2026-11-01 00:00:00+00:00",
        "end": "2026-11-02 00:00:00+00:00",
    }
    plan = {
        "recipe": "days.py",
        "root": ROOT,
        "folder": None,
        "metadata": "sqlite:///m",
        "skipped": 99,
        "defaults": {"Total.word": "a"},
        "fixed": {"Total.word": "a"},
        "dated": ["ExampleGen"],
        "timezone": "UTC",
    }
    assert stage.arguments("Total", facts, plan) == [
        "run",
        "days.py",
        "--node",
        "Total",
        "--root",
        ROOT,
        "--run-id",
        "days.days.one",
        "--set",
        "ExampleGen.span=2026-11-01",
        "--set",
        "Total.word=b",
        "--metadata",
        "sqlite:///m",
        "--skipped-code",
        "99",
        "--report",
    ]
    nothing = {**facts, "task_id": "Total", "start": "", "end": "", "params": "{}"}
    assert "--set" in stage.arguments("Total", nothing, plan) and "ExampleGen.span" not in str(
        stage.arguments("Total", nothing, plan)
    )


def test_modules_for_airflow_need_no_dependencies_of_kerasline():
    """Import them in a Python that only has the standard library."""
    program = f"import sys; sys.path.append({str(REPOSITORY)!r})\n"
    program += "import kerasline.pipeline.runners.airflow.stage, kerasline.pipeline.runners.airflow.description"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
