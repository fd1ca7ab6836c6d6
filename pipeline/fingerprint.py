"""Compute the cache key of a stage: one SHA-256 over everything that determines its outputs.

Files count by content. Functions count by their code and by what that code uses of the user's own
files: comments, formatting and unrelated functions do not matter, a constant in a helper three
files away does. Libraries count by their version.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import importlib.util
import inspect
import json
import os
import site
import sys
import sysconfig
import textwrap
import types
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from kerasline.components.core.component import Component
from kerasline.components.core.import_path import source_folders
from kerasline.pipeline import recipes


def node_fingerprint(component: Component, input_digests: Mapping[str, str], file_digest: Callable[[Path], str]) -> str:
    """Return the fingerprint of a stage for the given inputs.

    Args:
        component: the stage; its class, version, parameters and external inputs count.
        input_digests: the content digest of each input artifact, by input name.
        file_digest: the content digest of a file outside the pipeline.

    Returns:
        64 hexadecimal digits.
    """
    cls = type(component)
    facts = {
        "component": f"{cls.__module__}.{cls.__qualname__}",
        "version": component.VERSION,
        "code": None if _is_house_stage(cls) else code_digest(getattr(cls, "FUNCTION", cls)),
        "libraries": {name: library_version(name) for name in component.LIBRARIES},
        "inputs": dict(input_digests),
        "parameters": {k: value_digest(v) for k, v in component.identifying_parameters().items()},
        "external": [file_digest(item) if isinstance(item, Path) else item for item in component.external_inputs()],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def value_digest(value: Any) -> Any:
    """Return a parameter value as canonical JSON: equal if and only if the values are equal."""
    if isinstance(value, (bool, int, float, str, type(None))):
        return value
    if isinstance(value, Mapping):
        return {"dict": [[value_digest(k), value_digest(v)] for k, v in value.items()]}
    if isinstance(value, (list, tuple)):
        return [value_digest(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return {"set": sorted(json.dumps(value_digest(item)) for item in value)}
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, functools.partial):
        return {"partial": [value_digest(v) for v in (value.func, value.args, value.keywords)]}
    if callable(value):
        return {"code": code_digest(value)}
    if not _has_plain_repr(value):  # identified by its class and contents, not by its address
        return {"object": [code_digest(type(value)), value_digest(getattr(value, "__dict__", {}))]}
    return {"repr": f"{type(value).__module__}.{type(value).__qualname__}:{value!r}"}


def code_digest(function: Any) -> str:
    """Return the digest of a function or class and of all code it uses from the user's own files."""
    digest = hashlib.sha256()
    for text in _CodeWalk().visit(function):
        digest.update(text.encode() + b"\0")
    return digest.hexdigest()


@functools.cache
def library_version(distribution: str) -> str:
    """Return the installed version of a library, or 'absent'. Also accepts `tensorflow-cpu` as `tensorflow`."""
    names = [distribution, "tensorflow-cpu"] if distribution == "tensorflow" else [distribution]
    for name in names:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "absent"


class _CodeWalk:
    """Collects texts that identify code, following names into the user's own files, each once."""

    def __init__(self) -> None:
        self._seen: set[Any] = set()

    def visit(self, thing: Any) -> Iterable[str]:
        thing = inspect.unwrap(thing) if callable(thing) else thing
        key = thing.__name__ if isinstance(thing, types.ModuleType) else id(thing)
        if key in self._seen:
            return
        self._seen.add(key)
        if isinstance(thing, types.ModuleType):
            yield from self._module(thing.__name__, getattr(thing, "__file__", None))
        elif isinstance(thing, (types.FunctionType, types.MethodType, type)):
            yield from self._definition(thing)
        elif callable(thing) and not isinstance(thing, types.BuiltinFunctionType):
            yield f"instance {thing!r}" if _has_plain_repr(thing) else type(thing).__qualname__
            yield from self.visit(type(thing))
        else:
            yield json.dumps(value_digest(thing), sort_keys=True)

    def _definition(self, thing: Any) -> Iterable[str]:
        module = sys.modules.get(thing.__module__)
        if not _is_users_file(getattr(module, "__file__", None) or _source_file(thing)):
            yield f"{thing.__module__}.{thing.__qualname__}"
            return
        try:
            source = textwrap.dedent(inspect.getsource(thing))
        except (OSError, TypeError):  # defined where no source is available, such as in a shell
            code = getattr(thing, "__code__", None)
            yield f"{thing.__qualname__} {code.co_code.hex() if code else ''} {_constants(code)}"
            return
        try:
            tree = ast.parse(source)
        except SyntaxError:  # a lambda inside an expression: use its line
            yield source
            return
        yield _normalised(tree)
        function = thing.__func__ if isinstance(thing, types.MethodType) else thing
        yield from self._defaults_and_closure(function)
        yield from self._names(tree, _namespace(function, module))

    def _defaults_and_closure(self, function: Any) -> Iterable[str]:
        for cell in getattr(function, "__closure__", None) or ():
            try:
                yield from self._value(cell.cell_contents)
            except ValueError:  # an empty cell: a name not bound yet
                continue
        for default in getattr(function, "__defaults__", None) or ():
            yield from self._value(default)

    def _names(self, tree: ast.AST, namespace: Mapping[str, Any]) -> Iterable[str]:
        """Follow every global name that the code reads and every module that it imports."""
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and node.id in namespace:
                yield node.id
                yield from self._value(namespace[node.id])
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    yield from self._import(alias.name, namespace)
            elif isinstance(node, ast.ImportFrom):
                base = "." * node.level + (node.module or "")
                yield from self._import(base, namespace)
                for alias in node.names:  # `from package import module`
                    yield from self._import(f"{base}.{alias.name}".replace("..", "."), namespace)

    def _value(self, value: Any) -> Iterable[str]:
        if callable(value) or isinstance(value, types.ModuleType):
            yield from self.visit(value)
        else:
            yield json.dumps(value_digest(value), sort_keys=True)

    def _import(self, name: str, namespace: Mapping[str, Any]) -> Iterable[str]:
        try:
            name = importlib.util.resolve_name(name, namespace.get("__package__") or None)
            # find_spec imports the parents of a submodule. Skip libraries, which are slow to import.
            top = importlib.util.find_spec(name.partition(".")[0])
            if top is None or not _may_hold_users_files(top.origin):
                return
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError, AttributeError):
            return
        if spec is not None and name not in self._seen:
            self._seen.add(name)
            yield from self._module(name, spec.origin)

    def _module(self, name: str, file: str | None) -> Iterable[str]:
        """Add all code of a user's module, since the names used from it are unknown."""
        if file is None or not _is_users_file(file):
            yield f"module {name}"
            return
        tree = ast.parse(Path(file).read_text(encoding="utf-8"))
        yield _normalised(tree)
        package = name if Path(file).name == "__init__.py" else name.rpartition(".")[0]
        for node in ast.walk(tree):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                yield from self._names(node, {"__package__": package})


def _normalised(tree: ast.AST) -> str:
    """Return code without comments, formatting and docstrings."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(node, _DOCUMENTED):
            first = body[0]
            if isinstance(first, ast.Expr) and isinstance(getattr(first, "value", None), ast.Constant):
                body[:1] = [ast.Pass()] if len(body) == 1 else []
    return ast.dump(tree)


_DOCUMENTED = (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def _namespace(thing: Any, module: types.ModuleType | None) -> Mapping[str, Any]:
    return getattr(thing, "__globals__", None) or (vars(module) if module else {})


def _constants(code: Any) -> str:
    return repr([c for c in getattr(code, "co_consts", ()) if not hasattr(c, "co_code")])


def _has_plain_repr(thing: Any) -> bool:
    return type(thing).__repr__ is not object.__repr__


def _source_file(thing: Any) -> str | None:
    try:
        return inspect.getsourcefile(thing)
    except TypeError:
        return None


@functools.cache
def _is_users_file(file: str | None) -> bool:
    """Whether a file's text is the user's to change: neither a library's nor the project's own.

    The project's recipes are read as a user's files are.
    """
    if file is None or not file.endswith(".py"):
        return False
    path = Path(file).resolve()
    if Path(recipes.__path__[0]).resolve() in path.parents:
        return True
    if _is_ours(path):
        return False
    if not {"site-packages", "dist-packages"}.isdisjoint(path.parts):  # of another environment on PYTHONPATH, too
        return False
    return not any(folder in path.parents for folder in _library_folders())


def _may_hold_users_files(origin: str | None) -> bool:
    """Whether a package may be the user's own; one without a file, a mere folder, may be."""
    return origin is None or _is_users_file(origin) or _is_ours(Path(origin).resolve())


@functools.cache
def _is_ours(path: Path) -> bool:
    return any(folder in path.parents for folder in source_folders())


@functools.cache
def _library_folders() -> list[Path]:
    folders = [sysconfig.get_path(key) for key in ("stdlib", "platstdlib", "purelib", "platlib")]
    folders += [*site.getsitepackages(), site.getusersitepackages()]
    return [Path(folder).resolve() for folder in folders if folder]


def _is_house_stage(cls: type) -> bool:
    """Whether the class is one of the project's own stages, whose `VERSION` stands for its code."""
    return cls.__module__.startswith("kerasline.components.")
