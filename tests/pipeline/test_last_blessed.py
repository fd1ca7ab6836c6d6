"""What a stage blessed last, as the input of its next run."""

import pytest

from kerasline.components.core.component import LastBlessed
from kerasline.components.core.errors import WiringError
from kerasline.pipeline.metadata.store import Store
from kerasline.pipeline.run import RunRequest, run_pipeline
from kerasline.pipeline.storage.artifact_root import ArtifactRoot
from kerasline.pipeline.storage.garbage import collect
from tests.pipeline.blessing import Judge, Make, judged


@pytest.fixture
def run(tmp_path, store_url):
    store, root = Store(store_url), ArtifactRoot(tmp_path)

    def call(number):
        summary = run_pipeline(RunRequest(judged(number), store, root))
        judge = next(e for e in summary.executions if e.node == "Judge")
        return judge.state, judge.metrics.get("against")

    call.store, call.root = store, root
    return call


def test_first_run_has_none_and_an_equal_run_is_cached(run):
    assert run(1) == ("ran", None)
    assert run(1) == ("cached", None)


def test_next_model_is_compared_with_the_last_blessed_one(run):
    run(1)
    assert run(-2) == ("ran", 1)
    assert run(3) == ("ran", 1)  # not against the refused one
    assert run(4) == ("ran", 3)
    assert run(4) == ("cached", 3)


def test_earlier_model_is_compared_with_the_newest_blessed_one(run):
    run(1)
    run(2)
    assert run(1) == ("ran", 2)


def test_last_blessed_artifact_survives_gc(run):
    run(1)
    for number in (-1, -2, -3):
        run(number)
    collect(run.store, run.root, keep=1, dry_run=False)
    assert run(5) == ("ran", 1)


def test_lineage_names_the_last_blessed_artifact(run):
    run(1)
    run(2)
    newest = run.store.runs()[0]
    judge = next(e for e in run.store.executions(newest.id) if e.node == "Judge")
    assert set(judge.inputs) == {"report", "earlier"}
    assert judge.inputs["earlier"].digest != judge.inputs["report"].digest


def test_input_is_none_without_a_pipeline(tmp_path):
    made = Make(number=7).execute(tmp_path / "made")
    assert Judge(made.report, earlier=LastBlessed("report")).execute(tmp_path / "judged").metrics["against"] is None


@pytest.mark.parametrize(
    ("named", "message"),
    [("reprot", "does not name another input; did you mean 'report'"), ("earlier", "does not name another input")],
)
def test_unknown_input_name_fails_at_construction(named, message):
    with pytest.raises(WiringError, match=message):
        Judge(Make(number=1), earlier=LastBlessed(named))


def test_required_input_cannot_be_last_blessed():
    with pytest.raises(WiringError, match="or None"):
        Judge(LastBlessed("earlier"))
