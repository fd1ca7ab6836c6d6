import functools
import importlib
import linecache
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from kerasline.components.core.component import Component
from kerasline.components.core.errors import ParameterError
from kerasline.pipeline.code_origin import is_users, module_version
from kerasline.pipeline.fingerprint import code_digest, node_fingerprint, value_digest
from kerasline.pipeline.storage.artifact_root import file_digest, file_state

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
    """Write a user's file and two files that it imports, and return the digests of its two functions."""
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
def test_digest_changes_only_with_code_that_the_function_uses(digests, change):
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


class Scale:
    """A callable with a state, whose repr hides it."""

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, x):
        return x * self.factor

    def __repr__(self):
        return "Scale"

    def method(self, x):
        return x * self.factor


class Linked:
    """Its instance, its class and a function that reads it refer to each other."""

    def instance(self):
        return LINKED


LINKED = Linked()
LINKED.itself = LINKED


def reads_linked():
    return LINKED.instance()


def with_keyword_default(value):
    def scale(x, *, factor=value):
        return x * factor

    return scale


def class_with_closure(value):
    class Layer:
        def call(self, x):
            return x * value

    return Layer


def class_with_attribute(value):
    class Layer:
        words = value

    return Layer


def cached_function(value):
    @functools.lru_cache
    def scale(x):
        return x * value

    return scale


SAME_LINE = [lambda x: x + 1, lambda x: x + 2]


@pytest.mark.parametrize(
    "make",
    [
        Scale,
        lambda value: Scale(value).method,
        lambda value: functools.partial(Scale(1), value),
        with_keyword_default,
        class_with_closure,
        class_with_attribute,
        cached_function,
        lambda value: SAME_LINE[value],
        lambda value: {"words": frozenset([value, "a", "b"])},
        lambda value: np.where(np.arange(5000) == 2500, value, 7),  # its repr leaves out the middle
        lambda value: np.array(["a", None, value], object),
        lambda value: pd.DataFrame({"x": np.where(np.arange(500) == 250, value, 7)}),
        lambda value: bytes([value]),
    ],
)
def test_state_that_a_repr_hides_counts(make):
    assert value_digest(make(0)) == value_digest(make(0)) != value_digest(make(1))


def test_circular_references_terminate():
    assert value_digest(LINKED) == value_digest(LINKED) and code_digest(reads_linked) == code_digest(reads_linked)


def test_equal_functions_in_another_order_differ():
    first, second = SAME_LINE
    assert len({repr(value_digest(order)) for order in ([first, second, first], [first, second, second])}) == 2


def test_values_of_different_types_differ():
    values = [1, 1.5, "1", None, True, [1], {"a": 1}, {"a": 2}, {1, 2}, (1, 2)]
    digests = [repr(value_digest(value)) for value in values]
    assert len(set(digests)) == len(values)


def test_digests_are_the_same_in_every_process(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "import numpy as np\nWORDS = {'a', 'b', 'c'}\nclass Mine:\n    pass\nMINE = Mine()\n"
        "pick = lambda x: x in {'d', 'e', 'f'} and WORDS\n"
        "def use():\n    return MINE, pick(1), np.pi\n"
    )
    program = "import mine; from kerasline.pipeline.fingerprint import code_digest; print(code_digest(mine.use))"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


@pytest.fixture
def library(tmp_path, monkeypatch):
    """Install a library as `pip install --target` does, in a folder on the search path."""
    folder = tmp_path / "libraries"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))

    def install(version, text="", module="spelling", distribution="spelling-tools"):
        for old in folder.glob("*.dist-info/*"):
            old.unlink()
        info = folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir(exist_ok=True)
        for old in set(folder.glob("*.dist-info")) - {info}:
            old.rmdir()
        (folder / f"{module}.py").write_text(text)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (info / "RECORD").write_text(f"{module}.py,,\n")
        importlib.invalidate_caches()
        module_version.cache_clear()
        return str(folder / f"{module}.py")

    yield install
    module_version.cache_clear()


FORMS = [
    "import spelling",
    "import spelling as s",
    "from spelling import check",
    "import importlib; importlib.import_module('spelling')",
]


@pytest.mark.parametrize("form", FORMS)
def test_version_of_a_library_imported_inside_a_function_counts(digests, library, form):
    library("1.0")
    before = digests(comment=form)
    assert digests(comment=form) == before
    library("1.1")
    assert digests(comment=form)[0] != before[0]


def test_library_outside_site_packages_is_not_user_code(digests, library):
    file = library("1.0", text="check = 1")
    assert not is_users(file)
    before = digests(comment="import spelling")
    library("1.0", text="check = 2")
    assert digests(comment="import spelling") == before


def test_value_computed_by_a_helper_module_counts(digests, tmp_path):
    (tmp_path / "words.txt").write_text("a b")
    values = {"comment": "x = helper.WORDS", "offset": f"1\nWORDS = open({str(tmp_path / 'words.txt')!r}).read()"}
    before = digests(**values)
    (tmp_path / "words.txt").write_text("a c")
    assert digests(**values)[0] != before[0]


class Reads(Component):
    """A stage that reads files of the user."""


def test_declared_files_count_by_content_and_not_by_path(tmp_path):
    def fingerprint(*files):
        return node_fingerprint(Reads(files=files), {}, file_digest)

    for folder in ("here", "there"):
        (tmp_path / folder / "inner").mkdir(parents=True)
        (tmp_path / folder / "inner" / "words.txt").write_text("a b")
    before = fingerprint(tmp_path / "here")
    assert before == fingerprint(tmp_path / "there") != fingerprint(tmp_path / "here" / "inner")
    (tmp_path / "here" / "inner" / "words.txt").write_text("a c")
    assert fingerprint(tmp_path / "here") != before
    (tmp_path / "there" / "inner" / "words.txt").rename(tmp_path / "there" / "inner" / "word.txt")
    assert fingerprint(tmp_path / "there") != before


def test_missing_declared_file_is_reported_at_construction(tmp_path):
    with pytest.raises(ParameterError, match=r"Reads.files: .*/none.txt does not exist; correct the path"):
        Reads(files=[tmp_path / "none.txt"])
    with pytest.raises(ParameterError, match="Reads.files: expected a list of paths, received 'words.txt'"):
        Reads(files="words.txt")


def test_change_with_the_same_size_and_time_is_detected(tmp_path):
    file = tmp_path / "words.txt"
    file.write_text("a b")
    os.utime(file, ns=(1, 1))
    before = file_state(file.stat())
    file.write_text("a c")
    os.utime(file, ns=(1, 1))
    assert file_state(file.stat()) != before
