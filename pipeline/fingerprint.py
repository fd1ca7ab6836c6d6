"""Compute the cache key of a stage: one SHA-256 over everything that determines its outputs.

Files count by content. Functions count by their code and by the code and values that they use from the user's own
files: comments, formatting and unrelated functions do not matter, a constant in a helper three files away does.
Libraries count by their version.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import inspect
import json
import os
import re
import sys
import textwrap
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from kerasline.components.core.component import Component
from kerasline.pipeline.code_origin import distribution_version, is_kerasline, is_users, module_version


def node_fingerprint(component: Component, input_digests: Mapping[str, str], file_digest: Callable[[Path], str]) -> str:
    """Return the fingerprint of a stage for the given inputs.

    Args:
        component: the stage; its class, version, parameters, external inputs and declared files count.
        input_digests: the content digest of each input artifact, by input name.
        file_digest: returns the content digest of a file outside the pipeline.

    Returns:
        64 hexadecimal digits.
    """
    cls = type(component)
    facts = {
        # The module of the user's file is named after its path, which may change.
        "component": cls.__qualname__ if _is_users(cls) else f"{cls.__module__}.{cls.__qualname__}",
        "version": component.VERSION,
        # The `VERSION` of kerasline's own stages stands for their code.
        "code": None if cls.__module__.startswith("kerasline.") else code_digest(getattr(cls, "FUNCTION", cls)),
        "libraries": {name: distribution_version(name) for name in component.LIBRARIES},
        "inputs": dict(input_digests),
        "parameters": {k: value_digest(v) for k, v in component.identifying_parameters().items()},
        "external": [file_digest(item) if isinstance(item, Path) else item for item in component.external_inputs()],
        "files": [[str(name), file_digest(path)] for name, path in component.declared_files()],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _is_users(cls: type) -> bool:
    return is_users(getattr(sys.modules.get(cls.__module__), "__file__", None))


def value_digest(value: Any) -> Any:
    """Return a value as canonical JSON: equal if and only if the values are equal."""
    return _Walk().value(value)


def code_digest(function: Any) -> str:
    """Return the digest of a function or class and of all code and values that it uses from the user's own files."""
    return _sha256(_Walk().code(function))


class _Walk:
    """Describes values and code, following names into the user's own files.

    Code and objects that were already met are described by a reference, so that cycles end.
    """

    def __init__(self, met: Iterable[Any] = ()) -> None:
        self._met = dict(met)  # by identity; the objects are kept, so that no identity is used twice

    def value(self, value: Any) -> Any:
        if isinstance(value, (bool, int, float, str, type(None))):
            return value
        if isinstance(value, Mapping):
            return {"dict": [[self.value(k), self.value(v)] for k, v in value.items()]}
        if isinstance(value, (list, tuple)):
            return [self.value(item) for item in value]
        if isinstance(value, (set, frozenset)):  # of any order, so no item may refer to another
            return {"set": sorted(json.dumps(_Walk(self._met.items()).value(item)) for item in value)}
        if isinstance(value, (bytes, bytearray, memoryview)):
            return {"bytes": hashlib.sha256(value).hexdigest()}
        if isinstance(value, os.PathLike):
            return os.fspath(value)
        if isinstance(value, functools.partial):
            return {"partial": [self.value(part) for part in (value.func, value.args, value.keywords)]}
        if isinstance(inspect.unwrap(value), _CODE):
            return {"code": _sha256(self.code(value))}
        return _data(value) or self._object(value)

    def code(self, thing: Any) -> Iterator[str]:
        """Yield texts that identify a function, class, method or module."""
        thing = inspect.unwrap(thing)
        if isinstance(thing, types.MethodType):
            yield json.dumps(self.value(thing.__self__))
            thing = thing.__func__
        reference = self._reference(thing, thing.__name__ if isinstance(thing, types.ModuleType) else id(thing))
        if reference:
            yield reference
        elif isinstance(thing, types.ModuleType):
            yield from self._module(thing.__name__, getattr(thing, "__file__", None))
        else:
            yield from self._definition(thing)

    def _reference(self, thing: Any, key: Any) -> str | None:
        if key in self._met:
            return f"see {self._met[key][0]}"
        self._met[key] = (len(self._met), thing)
        return None

    def _object(self, value: Any) -> Any:
        """Describe an instance by its class and by its state as pickle sees it, else by its repr."""
        reference = self._reference(value, id(value))
        if reference:
            return {"object": reference}
        kind = self.value(type(value))
        try:
            if hasattr(value, "get_config"):  # an object of Keras, whose pickle is a file
                weights = [_data(weight) for weight in getattr(value, "weights", ())]
                # The config of a loss lacks the arguments of its function, which it keeps in a dict.
                options = [] if hasattr(value, "built") else [v for v in vars(value).values() if isinstance(v, dict)]
                return {"object": [kind, self.value(value.get_config()), weights, self.value(options)]}
            reduced = value.__reduce_ex__(4)
            parts = reduced if isinstance(reduced, str) else [list(p) if _is_iterator(p) else p for p in reduced[1:]]
        except Exception:  # each library has its own way to refuse
            return {"object": [kind, re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))]}
        return {"object": [kind, self.value(parts)]}

    def _definition(self, thing: Any) -> Iterator[str]:
        module = sys.modules.get(getattr(thing, "__module__", None) or "")
        name = f"{getattr(thing, '__module__', '')}.{getattr(thing, '__qualname__', thing)}"
        file = getattr(module, "__file__", None) or _source_file(thing)
        if getattr(module, "__name__", "") != "__main__" and not is_users(file):
            yield f"{name} {module_version(name)}"
            return
        tree = _syntax_tree(thing)
        if tree is None:
            yield from self._bytecode(thing)
        else:
            yield _normalised(tree)
            yield from self._names(tree, getattr(thing, "__globals__", None) or (vars(module) if module else {}))
        yield from self._bound(thing)

    def _bound(self, thing: Any) -> Iterator[str]:
        """Describe values that belong to a definition and are not in its text."""
        for cell in getattr(thing, "__closure__", None) or ():
            try:
                yield self._text(cell.cell_contents)
            except ValueError:  # an empty cell: a name not bound yet
                continue
        yield self._text([getattr(thing, "__defaults__", None), getattr(thing, "__kwdefaults__", None)])
        if isinstance(thing, type):
            yield self._text(thing.__bases__)
            for name, member in vars(thing).items():
                function = getattr(member, "__func__", None) or getattr(member, "fget", None) or member
                if isinstance(function, types.FunctionType):
                    yield from self._bound(inspect.unwrap(function))
                elif not name.startswith("__") and not callable(member) and not hasattr(type(member), "__get__"):
                    yield f"{name} {self._text(member)}"

    def _bytecode(self, thing: Any) -> Iterator[str]:
        """Describe a function without a source text of its own: a lambda, or one defined in a shell."""
        waiting = [thing.__code__] if isinstance(thing, types.FunctionType) else []
        yield getattr(thing, "__qualname__", "")
        for code in waiting:
            yield code.co_code.hex()
            yield self._text([constant for constant in code.co_consts if not isinstance(constant, types.CodeType)])
            waiting += [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
            for name in code.co_names:
                yield name
                if name in thing.__globals__:
                    yield self._text(thing.__globals__[name])

    def _names(self, tree: ast.AST, namespace: Mapping[str, Any]) -> Iterator[str]:
        """Follow every global name that the code reads and every module that it imports."""
        read = {node.id: None for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id in namespace}
        for name in read:
            yield f"{name} {self._text(namespace[name])}"
        for module, name in _attributes(tree):
            held = namespace.get(module)
            if isinstance(held, types.ModuleType) and is_users(getattr(held, "__file__", None)):
                value = getattr(held, name, None)
                if not isinstance(value, _CODE):  # code is part of the module's text
                    yield f"{module}.{name} {self._text(value)}"
        for imported in _imports(tree, namespace.get("__package__") or ""):
            yield from self._import(imported)

    def _text(self, value: Any) -> str:
        return json.dumps(self.value(value), sort_keys=True)

    def _import(self, name: str) -> Iterator[str]:
        top = name.partition(".")[0]
        try:
            # find_spec imports the parents of a submodule. Libraries are slow to import, so look for them first.
            spec = importlib.util.find_spec(top)
            if spec is None or spec.origin is None or is_users(spec.origin) or is_kerasline(spec.origin):
                spec = importlib.util.find_spec(name)
            else:
                name = top
        except (ImportError, ValueError, AttributeError):
            return
        if spec is not None and not self._reference(spec, name):
            yield from self._module(name, spec.origin)

    def _module(self, name: str, file: str | None) -> Iterator[str]:
        """Describe all code of a user's module, since the names used from it are unknown."""
        if file is None or not is_users(file) or not os.path.isfile(file):
            yield f"module {name} {module_version(name)}"
        elif not file.endswith(".py"):
            yield f"{name} {hashlib.sha256(Path(file).read_bytes()).hexdigest()}"
        else:
            tree = ast.parse(Path(file).read_text(encoding="utf-8"))
            yield _normalised(tree)
            package = name if Path(file).name == "__init__.py" else name.rpartition(".")[0]
            for imported in _imports(tree, package):
                yield from self._import(imported)


_CODE = (
    *(types.ModuleType, types.FunctionType, types.MethodType, types.BuiltinFunctionType, types.MethodWrapperType),
    *(types.MethodDescriptorType, types.WrapperDescriptorType, types.ClassMethodDescriptorType, type),
)
_DOCUMENTED = (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def _data(value: Any) -> dict[str, Any] | None:
    """Describe a table or array by its content. Their reprs leave out what is in the middle."""
    try:
        if hasattr(value, "__arrow_c_stream__"):
            from kerasline.components.data.arrow_types import table_digest

            return {"table": table_digest(value)}
        if hasattr(value, "__array__"):
            import numpy as np

            array = np.asarray(value)
            if array.dtype.hasobject:
                return {"array": value_digest(array.tolist())}
            return {"array": [str(array.dtype), array.shape, hashlib.sha256(array.tobytes()).hexdigest()]}
    except Exception:  # a symbolic tensor, or a table of Python objects
        return None
    return None


def _syntax_tree(thing: Any) -> ast.AST | None:
    """Return the source of a function or class, or None if it has no statement of its own, as a lambda."""
    if getattr(thing, "__name__", "") == "<lambda>":
        return None
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(thing)))
    except (OSError, TypeError, SyntaxError):
        return None


def _attributes(tree: ast.AST) -> Iterable[tuple[str, str]]:
    """Return each `name.attribute` in the code, once."""
    found = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name))
    return dict.fromkeys((node.value.id, node.attr) for node in found)  # type: ignore[attr-defined]


def _imports(tree: ast.AST, package: str) -> Iterator[str]:
    """Yield the full names of the modules that the code may import, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            try:
                base = importlib.util.resolve_name("." * node.level + (node.module or ""), package or None)
            except ImportError:
                continue
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)  # `from package import module`
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            yield from (a.value for a in node.args[:1] if isinstance(a, ast.Constant) and isinstance(a.value, str))


def _normalised(tree: ast.AST) -> str:
    """Return code without comments, formatting and docstrings."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(node, _DOCUMENTED):
            first = body[0]
            if isinstance(first, ast.Expr) and isinstance(getattr(first, "value", None), ast.Constant):
                body[:1] = [ast.Pass()] if len(body) == 1 else []
    return ast.dump(tree)


def _source_file(thing: Any) -> str | None:
    try:
        return inspect.getsourcefile(thing)
    except TypeError:
        return None


def _is_iterator(part: Any) -> bool:
    return hasattr(part, "__next__")


def _sha256(texts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()
