import importlib
import linecache
import sys

import pytest

from kerasline.pipeline.fingerprint import code_digest, value_digest

MAIN = """
import helper
from helper import add{more}
RATE = {rate}
def build():
    {comment}
    import json
    return add(RATE, helper.OFFSET)
def other():
    return {other}
"""
HELPER = """
import deep
OFFSET = {offset}
def add(a, b):
    return a + b + deep.DEPTH
"""


@pytest.fixture
def digests(tmp_path, monkeypatch):
    """Writes a user's file with two files that it imports; gives the digests of its two functions."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(rate=1, comment="'''Builds.'''", other=1, offset=2, depth=3, more=""):
        (tmp_path / "usermain.py").write_text(MAIN.format(rate=rate, comment=comment, other=other, more=more))
        (tmp_path / "helper.py").write_text(HELPER.format(offset=offset))
        (tmp_path / "deep.py").write_text(f"DEPTH = {depth}\n")
        for name in ("usermain", "helper", "deep"):
            sys.modules.pop(name, None)
        linecache.clearcache()
        importlib.invalidate_caches()
        module = importlib.import_module("usermain")
        return code_digest(module.build), code_digest(module.other)

    yield write
    for name in ("usermain", "helper", "deep"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("change", [{"rate": 2}, {"offset": 5}, {"depth": 4}, {"comment": "x = 1"}])
def test_a_change_that_the_function_uses_changes_its_digest_alone(digests, change):
    before, after = digests(), digests(**change)
    assert before[0] != after[0] and before[1] == after[1]


@pytest.mark.parametrize("change", [{"comment": "# a remark\n"}, {"comment": "'''Other words.'''"}, {"other": 7}])
def test_comments_docstrings_and_other_functions_do_not_count(digests, change):
    assert digests()[0] == digests(**change)[0]


def test_closures_and_defaults_count():
    def make(constant, default):
        def inner(x=default):
            return x + constant

        return inner

    assert code_digest(make(1, 1)) == code_digest(make(1, 1))
    assert len({code_digest(make(1, 1)), code_digest(make(2, 1)), code_digest(make(1, 2))}) == 3


def test_values_are_told_apart():
    values = [1, 1.5, "1", None, True, [1], {"a": 1}, {"a": 2}, {1, 2}, (1, 2)]
    digests = [repr(value_digest(value)) for value in values]
    assert len(set(digests)) == len(values)
