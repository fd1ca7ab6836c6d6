"""The examples in docstrings, each run as it stands, in an empty folder.

An example may use `kl` (kerasline), `np` (NumPy) and `folder`, an empty folder, without importing them.
"""

from __future__ import annotations

import doctest
import importlib
import re

import numpy as np
import pytest

import kerasline as kl
from tests.test_imports import modules

OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
# Modules whose examples need the extra `language`.
OF_LANGUAGE = ("subwords", "tokenizer", "word_piece")
WITH_EXAMPLES = [name for name, path in modules().items() if re.search(r"^\s*>>> ", path.read_text("utf-8"), re.M)]


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_docstring_examples_print_what_they_say(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    if name.rpartition(".")[2] in OF_LANGUAGE:
        pytest.importorskip("tensorflow_text", reason="tensorflow-text is not installed")
        pytest.importorskip("sentencepiece", reason="sentencepiece is not installed")
    names = {**vars(module), "kl": kl, "np": np}
    found = [test for test in doctest.DocTestFinder().find(module, globs=names) if test.examples]
    assert found, f"{name} has lines that begin with >>>, but not in a docstring that doctest finds"
    runner = doctest.DocTestRunner(optionflags=OPTIONS)
    for number, test in enumerate(found):
        test.globs["folder"] = tmp_path / str(number)
        test.globs["folder"].mkdir()
        runner.run(test)
    assert runner.failures == 0, capsys.readouterr().out
