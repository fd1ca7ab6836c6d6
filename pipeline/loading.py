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

from kerasline.components.core.errors import KeraslineError, UserCodeError, WiringError, nearest
from kerasline.components.core.user_code import import_file
from kerasline.pipeline import recipes
from kerasline.pipeline.dag import Pipeline

MAIN_RECIPE = "penguins"


@dataclass(frozen=True)
class Settings:
    """Settings passed to a pipeline function.

    Attributes:
        root: the pipeline root, absolute: artifacts are below it. `root / "served"` is a folder of your own
            there, a path or, as the root is, an URL.
    """

    root: Path | FolderURL


class FolderURL(str):
    """The URL of a folder; as with a path, `/` leads into it."""

    def __truediv__(self, name: str) -> FolderURL:
        return FolderURL(f"{self.rstrip('/')}/{name}")


def load_pipeline(recipe: str, root: str, parameters: Mapping[str, Any]) -> Pipeline:
    """Build the pipeline of a recipe or file, with parameters set as `{"NODE.PARAM": value}`.

    Raises:
        WiringError: no such recipe or file, or it holds no usable `pipeline(settings)`.
        UserCodeError: the user's file, or its `pipeline` function, raised.
        ParameterError: an unknown parameter or a wrong value.
    """
    module = load_recipe(recipe)
    build = getattr(module, "pipeline", None)
    if not callable(build):
        raise WiringError(f"{recipe}: it defines no function pipeline(settings)")
    pipeline = _guarded(recipe, build, Settings(FolderURL(root) if "://" in root else Path(root)))
    if not isinstance(pipeline, Pipeline):
        raise WiringError(f"{recipe}: pipeline(settings) returned {type(pipeline).__name__}, not a Pipeline")
    pipeline.with_parameters(parameters)
    where = (
        recipe if recipe in recipe_names() else str(Path(recipe).resolve())
    )  # a worker may have another working directory
    return pipeline.rebuilt_by(_rebuilt, where, root, tuple(parameters.items()))


@functools.cache
def _rebuilt(recipe: str, root: str, parameters: tuple[tuple[str, Any], ...]) -> Pipeline:
    """Return the pipeline in a worker. Each process builds it once, however often it is unpickled."""
    return load_pipeline(recipe, root, dict(parameters))


def load_recipe(recipe: str) -> types.ModuleType:
    """The module of a recipe by its name, or of a user's file by its path."""
    if recipe in recipe_names():
        return importlib.import_module(f"kerasline.pipeline.recipes.{recipe}")
    path = Path(recipe)
    if path.is_file():
        return _guarded(recipe, import_file, path.resolve())
    if path.suffix == ".py" or len(path.parts) > 1:
        raise WiringError(f"{recipe}: no such file")
    raise WiringError(f"no recipe {recipe!r}; {nearest(recipe, recipe_names())}")


def recipe_names() -> list[str]:
    """The recipes that come with the project: the modules here that define a pipeline."""
    found = [module.name for module in pkgutil.iter_modules(recipes.__path__)]
    return sorted(name for name in found if name not in recipes.HELPERS)


def recipe_summary(name: str) -> str:
    """The first sentence of a recipe's docstring, read without running the recipe."""
    source = Path(recipes.__path__[0], f"{name}.py").read_text(encoding="utf-8")
    paragraph = (ast.get_docstring(ast.parse(source)) or "").partition("\n\n")[0]
    return " ".join(paragraph.split())


def _guarded(where: str, function: Any, *arguments: Any) -> Any:
    """Calls the user's code; what it raises becomes one line with the place in the user's file."""
    try:
        return function(*arguments)
    except KeraslineError:
        raise
    except SyntaxError as error:
        raise UserCodeError(f"{error.filename}, line {error.lineno}: {error.msg}") from error
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        raise UserCodeError(
            f"{where}: {type(error).__name__}: {error} ({last.filename}, line {last.lineno})"
        ) from error
