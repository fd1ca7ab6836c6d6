"""Remote roots, and hosts that run pipelines on them."""

import uuid
from types import SimpleNamespace

import pytest

from kerasline.pipeline.loading import load_pipeline
from kerasline.pipeline.metadata.store import Store, sqlite_url
from kerasline.pipeline.run import RunRequest, run_pipeline
from kerasline.pipeline.storage.roots import root_of
from tests.pipeline.remote import QUICK


@pytest.fixture(params=["s3", "memory"])
def url(request):
    """Return an empty root."""
    name = uuid.uuid4().hex[:8]
    return f"{request.getfixturevalue('s3')}/{name}/root" if request.param == "s3" else f"memory://{name}/root"


@pytest.fixture
def s3_url(s3):
    return f"{s3}/{uuid.uuid4().hex[:8]}/root"


@pytest.fixture
def host(tmp_path, monkeypatch):
    """Simulate a host with its own disk in this process, and run pipelines on it."""

    def become(name, store=None):
        monkeypatch.setenv("KERASLINE_WORK", str(tmp_path / name))
        store = Store(sqlite_url(tmp_path / (store or name) / "metadata.sqlite"))

        def run(url, file=QUICK, use_cache=True, selected=(), **settings):
            pipeline = load_pipeline(str(file), url, {key.replace("__", "."): v for key, v in settings.items()})
            root = root_of(url)
            request = RunRequest(pipeline, store, root, str(file), selected, settings, use_cache=use_cache)
            summary = run_pipeline(request)
            by_name = {e.node: e for e in summary.executions}
            return SimpleNamespace(
                root=root,
                store=store,
                summary=summary,
                nodes=by_name,
                states={name: e.state for name, e in by_name.items()},
                output=lambda node, output: by_name[node].outputs[output].path,
            )

        return run

    return become
