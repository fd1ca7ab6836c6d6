"""`kl.run`: pipelines run by a program."""

import pytest

import kerasline as kl


@kl.component
def Count(examples: kl.Input[kl.Examples], report: kl.Output[kl.Report], times: int = 1, fails: bool = False):
    """Counts the rows of a split."""
    if fails:
        raise kl.KeraslineError("deliberate failure")
    (report.path / "rows.txt").write_text(str(times * examples.rows("train")))
    return {"rows": times * examples.rows("train")}


@kl.component
def Copy(report: kl.Input[kl.Report], copy: kl.Output[kl.Report]):
    """Copies a count."""
    (copy.path / "rows.txt").write_text((report.path / "rows.txt").read_text())


def counting(**parameters):
    examples = kl.InMemoryExampleGen({"x": [1.0, 2.0, 3.0]}, splits={"train": 1})
    return kl.Pipeline("counting", [Copy(Count(examples, **parameters))])


def states(summary):
    return {execution.node: execution.state for execution in summary.executions}


def test_summary_has_executions_outputs_and_report(tmp_path):
    summary = kl.run(counting(), root=tmp_path)
    summary.raise_if_failed()
    assert (summary.state, summary.recipe) == ("succeeded", "counting")
    assert summary.execution("Count").metrics == {"rows": 3}
    copied = summary.output("Copy", "copy")
    assert isinstance(copied, kl.Report) and (copied.path / "rows.txt").read_text() == "3"
    assert summary.report.is_file() and summary.run_id in summary.report.read_text(encoding="utf-8")
    assert (tmp_path / "logs" / f"{summary.run_id}.log").is_file()


def test_second_run_is_cached_and_writes_no_report(tmp_path):
    first, second = (kl.run(counting(), root=tmp_path) for _ in range(2))
    assert set(states(first).values()) == {"ran"} and set(states(second).values()) == {"cached"}
    assert second.run_id != first.run_id and second.report is None
    assert second.output("Count", "report").path == first.output("Count", "report").path


def test_parameters_are_set(tmp_path):
    summary = kl.run(counting(), root=tmp_path, parameters={"Count.times": 2}, report=False)
    assert summary.execution("Count").metrics == {"rows": 6}
    again = kl.run(counting(times=2), root=tmp_path, report=False)
    assert set(states(again).values()) == {"cached"}


def test_only_selected_nodes_run(tmp_path):
    kl.run(counting(), root=tmp_path, report=False)
    summary = kl.run(counting(), root=tmp_path, nodes=["Copy"], use_cache=False, report=False)
    assert states(summary) == {"Copy": "ran"}
    with pytest.raises(kl.KeraslineError, match="no node 'Count' in this run"):
        summary.execution("Count")


def test_failed_stage_is_in_the_summary_and_raised_on_demand(tmp_path):
    summary = kl.run(counting(fails=True), root=tmp_path, report=True)
    assert summary.state == "failed" and summary.report.is_file()
    assert states(summary) == {"ExampleGen": "ran", "Count": "failed", "Copy": "skipped"}
    with pytest.raises(kl.KeraslineError, match=f"run {summary.run_id} failed: Count: deliberate failure"):
        summary.raise_if_failed()
    with pytest.raises(
        kl.KeraslineError, match="Count has no output 'report'; it has none, because its state is 'failed'"
    ):
        summary.output("Count", "report")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"parameters": {"Count.time": 2}}, "Count.time: no such parameter; did you mean 'times'?"),
        ({"nodes": ["Cout"]}, "pipeline counting has no node 'Cout'; did you mean 'Count'?"),
        ({"run_id": "a/b"}, "a/b"),
    ],
)
def test_wrong_calls_raise_and_leave_no_run(arguments, message, tmp_path):
    with pytest.raises(kl.KeraslineError) as caught:
        kl.run(counting(), root=tmp_path, **arguments)
    assert message in str(caught.value)


def test_unknown_output_is_an_error_with_a_suggestion(tmp_path):
    summary = kl.run(counting(), root=tmp_path, report=False)
    with pytest.raises(kl.KeraslineError, match="Count has no output 'reprot'; did you mean 'report'"):
        summary.output("Count", "reprot")
