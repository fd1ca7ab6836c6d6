"""The reference of the public API builds, and describes every public name."""

import inspect
import subprocess
import sys

import pytest

import kerasline as kl
from tests.conftest import REPOSITORY

PAGES = ["kerasline", "kerasline.layers", "kerasline.features", "kerasline.metrics"]


def test_every_public_class_and_function_has_a_docstring():
    for module in (kl, kl.layers, kl.features, kl.metrics):
        public = {name: getattr(module, name) for name in module.__all__}
        bare = [name for name, value in public.items() if callable(value) and not inspect.getdoc(value)]
        assert bare == [], module.__name__


@pytest.mark.slow
def test_reference_builds_with_an_entry_for_each_public_name(tmp_path):
    pytest.importorskip("pdoc", reason="pdoc, which builds the reference, is not installed")
    command = [sys.executable, "-m", "pdoc", "--docformat", "google", "-o", str(tmp_path), *PAGES]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "does not resolve" not in done.stderr, done.stderr
    for module, page in ((kl, "kerasline"), (kl.layers, "kerasline/layers"), (kl.features, "kerasline/features")):
        text = (tmp_path / f"{page}.html").read_text(encoding="utf-8")
        assert [name for name in module.__all__ if f'id="{name}"' not in text and f"{name}.html" not in text] == []
