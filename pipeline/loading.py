"""Load a pipeline from a recipe name or the path of a user's file."""

from __future__ import annotations

import ast
import functools
import importlib
import pkgutil
import traceback
import types
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kerasline.components.core.errors import KeraslineError, UserCodeError, WiringError, named_cause, nearest
from kerasline.components.core.user_code import import_file
from kerasline.pipeline import recipes
from kerasline.pipeline.dag import Pipeline

MAIN_RECIPE = "penguins"


@dataclass(frozen=True)
class Settings:
    """Settings passed to a pipeline function.

    Attributes:
        root: the absolute pipeline root, which contains the artifacts. `root / "served"` is a folder of your own
            there: a path, or a URL if the root is a URL.
    """

    root: Path | FolderURL


class FolderURL(str):
    """The URL of a folder. As with a path, `/` appends a name."""

    def __truediv__(self, name: str) -> FolderURL:
        return FolderURL(f"{self.rstrip('/')}/{name}")


def load_pipeline(recipe: str, root: str, parameters: Mapping[str, Any]) -> Pipeline:
    """Build the pipeline of a recipe or file, with parameters set as `{"NODE.PARAM": value}`.

    Raises:
        WiringError: there is no such recipe or file, or it has no usable `pipeline(settings)`.
        UserCodeError: the user's file or its `pipeline` function raised.
        ParameterError: a parameter is unknown or has an invalid value.
    """
    module = load_recipe(recipe)
    build = getattr(module, "pipeline", None)
    if not callable(build):
        raise WiringError(f"{recipe}: it defines no function pipeline(settings)")
    pipeline = _guarded(recipe, build, Settings(FolderURL(root) if "://" in root else Path(root)))
    if not isinstance(pipeline, Pipeline):
        raise WiringError(f"{recipe}: pipeline(settings) returned {type(pipeline).__name__}, not a Pipeline")
    pipeline.with_parameters(parameters)
    # A worker may have another working directory.
    place = recipe if recipe in recipe_names() else str(Path(recipe).resolve())
    return pipeline.rebuilt_by(_rebuilt, place, root, tuple(parameters.items()))


@functools.cache
def _rebuilt(recipe: str, root: str, parameters: tuple[tuple[str, Any], ...]) -> Pipeline:
    """Return the pipeline in a worker. Each process builds it once, however often it is unpickled."""
    return load_pipeline(recipe, root, dict(parameters))


def load_recipe(recipe: str) -> types.ModuleType:
    """Import a recipe by its name, or a user's file by its path, and return the module."""
    if recipe in recipe_names():
        return importlib.import_module(f"kerasline.pipeline.recipes.{recipe}")
    path = Path(recipe)
    if path.is_file():
        return _guarded(recipe, import_file, path.resolve())
    if path.suffix == ".py" or len(path.parts) > 1:
        raise WiringError(f"{recipe}: no such file")
    raise WiringError(f"no recipe {recipe!r}; {nearest(recipe, recipe_names())}")


def recipe_names() -> list[str]:
    """Return the names of the recipes that come with kerasline."""
    found = [module.name for module in pkgutil.iter_modules(recipes.__path__)]
    return sorted(name for name in found if name not in recipes.HELPERS)


def recipe_summary(name: str) -> str:
    """Return the first paragraph of a recipe's docstring without importing the recipe."""
    source = Path(recipes.__path__[0], f"{name}.py").read_text(encoding="utf-8")
    paragraph = (ast.get_docstring(ast.parse(source)) or "").partition("\n\n")[0]
    return " ".join(paragraph.split())


def _guarded(where: str, function: Any, *arguments: Any) -> Any:
    """Call the user's code, and convert its exceptions to one line with the place in the user's file."""
    try:
        return function(*arguments)
    except KeraslineError:
        raise
    except SyntaxError as error:
        raise UserCodeError(f"{error.filename}, line {error.lineno}: {error.msg}") from error
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        raise UserCodeError(f"{where}: {named_cause(error)} ({last.filename}, line {last.lineno})") from error
