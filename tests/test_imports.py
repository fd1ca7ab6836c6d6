"""How the project's modules import each other: in one direction, and without circles."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

FOLDERS = {"kerasline": "kerasline", "components": "kerasline.components", "pipeline": "kerasline.pipeline"}


def modules() -> dict[str, Path]:
    """Every module of the project by its dotted name."""
    found = {}
    for folder, package in FOLDERS.items():
        for path in sorted((REPOSITORY / folder).rglob("*.py")):
            parts = path.relative_to(REPOSITORY / folder).with_suffix("").parts
            name = ".".join((package, *parts)).removesuffix(".__init__")
            found[name] = path
    return found


def imports(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Return the import statements of a module, also inside functions, but not under `TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            yield child
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            yield from imports(ast.Module(child.orelse, []))
        else:
            yield from imports(child)


def imported(statement: ast.Import | ast.ImportFrom, known: dict[str, Path]) -> set[str]:
    """Return the modules of the project that a statement imports."""
    if isinstance(statement, ast.Import):
        return {alias.name for alias in statement.names} & set(known)
    inner = {f"{statement.module}.{alias.name}" for alias in statement.names}
    return (inner & set(known)) or ({str(statement.module)} & set(known))


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    known = modules()
    trees = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in known.items()}
    return {
        name: {other for statement in imports(tree) for other in imported(statement, known)} - {name}
        for name, tree in trees.items()
    }


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return the strongly connected components of more than one module (Tarjan, 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph[node]):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            place = stack.index(node)
            members = stack[place:]
            del stack[place:]
            if len(members) > 1:
                found.append(sorted(members))

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


def test_modules_do_not_import_each_other_in_circles(graph):
    assert circles(graph) == []


def test_components_do_not_import_pipeline(graph):
    wrong = {
        name: [other for other in others if other.startswith("kerasline.pipeline")]
        for name, others in graph.items()
        if name.startswith("kerasline.components")
    }
    assert {name: others for name, others in wrong.items() if others} == {}


def test_circles_are_found_where_there_are_some():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
    assert circles({"a": {"b"}, "b": set()}) == []


def test_imports_in_functions_count_and_those_for_type_checkers_do_not():
    source = "if TYPE_CHECKING:\n    import a\nelse:\n    import b\ndef f():\n    from c import d\n"
    found = {ast.unparse(statement) for statement in imports(ast.parse(source))}
    assert found == {"import b", "from c import d"}
