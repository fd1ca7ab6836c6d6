"""Supported Beam runners, and the errors for the others."""

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
def test_supported_runners_are_accepted(options):
    check_runner(options)


@pytest.mark.parametrize(
    "name, reason",
    [
        ("DaskRunner", "silently loses written files"),
        ("PrismRunner", "downloads"),
        ("FlinkRunner", "--runner=PortableRunner"),
        ("SparkRunner", "--runner=PortableRunner"),
    ],
)
def test_unsupported_runners_are_refused_with_reason_and_alternative(name, reason):
    for options in ([f"--runner={name}"], ["--runner", name]):
        with pytest.raises(ParameterError, match=reason):
            check_runner(options)


def test_unknown_runner_gets_a_suggestion():
    with pytest.raises(ParameterError, match="no such runner; did you mean 'PortableRunner'"):
        check_runner(["--runner=PortabelRunner"])


def test_runner_is_separated_from_other_options():
    options = ["--parallelism=2", "--runner", "DirectRunner", "--direct_num_workers=1"]
    assert runner_name(options) == "DirectRunner"
    assert without_runner(options) == ["--parallelism=2", "--direct_num_workers=1"]


def test_command_line_refuses_a_runner_before_the_run(cli, tmp_path):
    refused = cli("run", "penguins", "--", "--runner=DaskRunner")
    assert refused.returncode == 2
    assert [line for line in refused.stderr.splitlines() if "DaskRunner" in line and "loses" in line]
    assert not (tmp_path / "runs" / "artifacts").exists()
