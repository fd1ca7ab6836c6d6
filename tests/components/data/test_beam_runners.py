"""Which of Beam's runners are taken, and what is said of the others."""

import pytest

from kerasline.components.core.errors import ParameterError
from kerasline.components.data.beam_runners import check_runner, runner_name, without_runner


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--runner=DirectRunner"],
        ["--runner", "PortableRunner"],
        ["--runner=DataflowRunner"],
        ["--runner=mine.runners.Runner"],
    ],
)
def test_runners_that_do_are_taken(options):
    check_runner(options)


@pytest.mark.parametrize(
    "name, told",
    [
        ("DaskRunner", "loses what is written"),
        ("PrismRunner", "downloads"),
        ("FlinkRunner", "--runner=PortableRunner"),
        ("SparkRunner", "--runner=PortableRunner"),
    ],
)
def test_runners_that_do_not_are_refused_with_the_reason_and_another_way(name, told):
    for options in ([f"--runner={name}"], ["--runner", name]):
        with pytest.raises(ParameterError, match=told):
            check_runner(options)


def test_an_unknown_runner_is_told_with_the_likeliest_right_one():
    with pytest.raises(ParameterError, match="no such runner; did you mean 'PortableRunner'"):
        check_runner(["--runner=PortabelRunner"])


def test_the_runner_is_told_apart_from_other_options():
    options = ["--parallelism=2", "--runner", "DirectRunner", "--direct_num_workers=1"]
    assert runner_name(options) == "DirectRunner"
    assert without_runner(options) == ["--parallelism=2", "--direct_num_workers=1"]


def test_the_command_line_refuses_a_runner_before_anything_runs(cli, tmp_path):
    refused = cli("run", "penguins", "--", "--runner=DaskRunner")
    assert refused.returncode == 2
    assert [line for line in refused.stderr.splitlines() if "DaskRunner" in line and "loses" in line]
    assert not (tmp_path / "runs" / "artifacts").exists()
