"""Whose code a file holds: the user's, a library's or kerasline's own. And the versions of libraries."""

from __future__ import annotations

import functools
import importlib.metadata
import site
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from kerasline.components.core.import_path import source_folders
from kerasline.pipeline import recipes


def is_users(file: str | None) -> bool:
    """Return whether a file belongs to the user, and not to a library or to kerasline.

    The recipes of kerasline count as files of the user, who may edit them. A folder of `sys.path` that has metadata of
    installed distributions (`*.dist-info`) holds libraries, wherever it is.
    """
    return file is not None and _belongs_to_user(file, tuple(sys.path))


def is_kerasline(file: str | None) -> bool:
    """Return whether a file is part of kerasline."""
    return file is not None and not set(Path(file).resolve().parents).isdisjoint(source_folders())


@functools.cache
def distribution_version(distribution: str) -> str:
    """Return the installed version of a distribution, or "absent". `tensorflow-cpu` also counts as `tensorflow`."""
    for name in [distribution, "tensorflow-cpu"] if distribution == "tensorflow" else [distribution]:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "absent"


@functools.cache
def module_version(module: str) -> str:
    """Return the version of the distribution that provides a module, or "absent".

    Several distributions may share a namespace, such as `google`. Then the result lists all of them.
    """
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names or distribution_version(top) != "absent":
        return "" if top in sys.stdlib_module_names else distribution_version(top)
    return " ".join(sorted(_providers(top))) or "absent"


def _providers(top: str) -> Iterator[str]:
    """Yield name and version of each distribution that installed a module or package of this name.

    `importlib.metadata.packages_distributions` parses the lists of all files, which takes ten times as long.
    """
    for distribution in importlib.metadata.distributions():
        names = distribution.read_text("top_level.txt")
        record = "" if names else distribution.read_text("RECORD") or ""
        if names and top in names.split() or f"\n{top}/" in f"\n{record}" or f"\n{top}." in f"\n{record}":
            yield f"{distribution.name} {distribution.version}"


@functools.cache
def _belongs_to_user(file: str, search_path: tuple[str, ...]) -> bool:
    path = Path(file).resolve()
    above = set(path.parents)
    if Path(recipes.__path__[0]).resolve() in above:
        return True
    if is_kerasline(file) or not {"site-packages", "dist-packages"}.isdisjoint(path.parts):
        return False
    return above.isdisjoint(_library_folders()) and above.isdisjoint(_installed_folders(search_path))


@functools.cache
def _library_folders() -> set[Path]:
    folders = [sysconfig.get_path(key) for key in ("stdlib", "platstdlib", "purelib", "platlib")]
    folders += [*site.getsitepackages(), site.getusersitepackages()]
    return {Path(folder).resolve() for folder in folders if folder}


@functools.cache
def _installed_folders(search_path: tuple[str, ...]) -> set[Path]:
    folders = {Path(folder).resolve() for folder in search_path}
    return {folder for folder in folders if next(folder.glob("*.dist-info"), None)}
