"""Loads task families from a user's module or file and from installed packages.

Nothing here is imported because a bundle, a recording or a run folder names it: the user names a
source, or an installed package has an entry point of that name.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
import traceback
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any

from sim.errors import UserError, listed, short
from sim.files.bounded import read_bounded
from sim.files.lookup import check_text

MOST_BYTES = 2**24  # of a file of Python
GROUP = "mlsh_ros.task_families"  # of entry points: name -> class
EXPECTED = "package.module:Class, FILE.py or FILE.py:Class"


@dataclass(frozen=True)
class FamilySource:
    """Origin of a task family's class."""

    text: str  # as the user may name it again, from any folder
    file: Path  # of the class
    digest: str  # SHA-256 of the file


def is_source(text: str) -> bool:
    """True if a text refers to a class or a file instead of a task family's name."""
    return ":" in text or text.endswith(".py")


def load_source(text: str) -> tuple[type, FamilySource]:
    """Import the class that the user refers to; does not check that it is a task family.

    Args:
        text: package.module:Class, FILE.py, or FILE.py:Class.

    Raises:
        UserError: there is no such file, module or class, or importing it fails.
    """
    where, colon, name = text.partition(":")
    if where.endswith(".py"):
        path = Path(where).absolute()
        check_text("task family", str(path))
        module = _import_file(path, text)
        cls = _named(module, name, text) if name else _only_family(module, text)
        return cls, source_of(cls, f"{path}:{cls.__qualname__}")
    if not (colon and re.fullmatch(r"\w+(\.\w+)*", where) and re.fullmatch(r"\w+", name)):
        raise UserError(f"task family {short(text, 500)}: {EXPECTED} is expected")
    try:
        module = importlib.import_module(where)
    except (Exception, SystemExit) as error:  # whatever a stranger's module does
        raise _does_not_import(text, where, error) from None
    cls = _named(module, name, text)
    return cls, source_of(cls, text)


def load_entry_point(entry: EntryPoint) -> tuple[type, FamilySource]:
    """Import the class of an installed package's entry point.

    Raises:
        UserError: it does not load, or is no class.
    """
    where = owner(entry)
    try:
        cls = entry.load()
    except (Exception, SystemExit) as error:
        raise _does_not_import(entry.name, where, error) from None
    if not isinstance(cls, type):
        raise UserError(f"task family {short(entry.name)}: {where} is no class")
    return cls, source_of(cls, entry.value)


def source_of(cls: type, text: str = "") -> FamilySource:
    """Returns the origin of a class; by default as package.module:Class."""
    file = Path(str(getattr(sys.modules[cls.__module__], "__file__", None) or "built-in"))
    text = text or f"{cls.__module__}:{cls.__qualname__}"
    return FamilySource(text, file, _digest(file) if file.is_file() else "")


def owner(entry: EntryPoint) -> str:
    """Returns the description of an entry point for errors."""
    package = entry.dist.name if entry.dist is not None else "an installed package"
    return f"{entry.value} of package {package}"


def _import_file(path: Path, text: str) -> ModuleType:
    if not path.is_file():
        raise UserError(f"task family {short(text, 500)}: no file {str(path)!r}")
    digest = _digest(path)
    name = f"task_family_{path.stem}_{hashlib.sha256(f'{path} {digest}'.encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look up their annotations there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
        at = f"{path}, line {frames[-1].lineno}" if frames else str(path)
        raise _does_not_import(text, at, error) from None
    return module


def _does_not_import(text: str, where: str, error: BaseException) -> UserError:
    return UserError(
        f"task family {short(text, 500)}: {where} does not import: {type(error).__name__}: {error}"
    )


def _named(module: ModuleType, name: str, text: str) -> type:
    cls = getattr(module, name, None)
    if not isinstance(cls, type):
        known = listed(_classes(module)) or "none"
        raise UserError(
            f"task family {short(text, 500)}: no class {name!r} there. Classes: {known}"
        )
    return cls


def _only_family(module: ModuleType, text: str) -> type:
    families = {n: c for n, c in _classes(module).items() if isinstance(_get(c, "name"), str)}
    if len(families) != 1:
        there = f"there are {listed(families)}" if families else "no class there has a `name`"
        raise UserError(
            f"task family {short(text, 500)}: say which class, as FILE.py:Class; {there}"
        )
    return next(iter(families.values()))


def _classes(module: ModuleType) -> dict[str, type]:
    """Returns the classes that are defined in a module."""
    found = vars(module).items()
    return {n: c for n, c in found if isinstance(c, type) and c.__module__ == module.__name__}


def _get(cls: type, name: str) -> Any:
    return inspect.getattr_static(cls, name, None)


def _digest(path: Path) -> str:
    return hashlib.sha256(read_bounded(path, MOST_BYTES)).hexdigest()
