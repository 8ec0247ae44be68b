"""Which code made a result, and which code judges it: hashes in which comments, docstrings and layout do not count.

A job's hash covers all that its work imports, and the packages whose modules are found by their names in a config. A
study's hash covers what turns results into a decision: its own effects, the figures, the intervals, the verdict.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from foretaste.lab.study import Study

PACKAGE = Path(__file__).parent.parent

RELEVANT = ("config.py", "records.py", "registers.py", "statistics.py", "envs", "models", "rl", "lab/curves.py")
"""Files and folders of the package whose code decides what a training run gives, whatever the work imports."""

NOT_WORK = ("charts", "grids", "results", "sequences", "study", "tuning", "versions")
"""Modules of the laboratory that plan, judge and draw; study files import them, jobs use nothing of theirs."""

JUDGING = ("curves", "results", "sequences", "verdict")
"""Modules of the laboratory that turn the results of every study into a decision."""

NOT_JUDGING = ("charts", "grids", "jobs", "methods", "study", "tuning")
"""Modules of the laboratory that decide what is run and drawn; what they decide of the runs is in the jobs' content."""


def work_version(file: Path) -> str:
    """Return a hash of the code behind jobs whose work is in this file."""
    files = {file, *imported(file, besides=NOT_WORK)}
    for name in RELEVANT:
        files |= {PACKAGE / name} if name.endswith(".py") else set((PACKAGE / name).rglob("*"))
    return _hash(one for one in files if one.suffix in (".py", ".json"))


def judging_version(study: Study) -> str:
    """Return a hash of the code that judges a study; its claim, arms and expectations are registered themselves."""
    files = {PACKAGE / "lab" / f"{name}.py" for name in JUDGING}
    own = getattr(sys.modules.get(getattr(study.effects, "__module__", "")), "__file__", None)
    if own is not None:
        laboratory = {one for one in imported(Path(own), besides=NOT_JUDGING) if one.parent == PACKAGE / "lab"}
        files |= {Path(own), *laboratory}
    return _hash(files)


@functools.cache
def imported(file: Path, besides: tuple[str, ...] = ()) -> frozenset[Path]:
    """Return the package's modules that a file imports, in functions too, and those that they import in turn.

    `besides` names modules of the laboratory that are left out with what they import.
    """
    left_out = {PACKAGE / "lab" / f"{name}.py" for name in besides}
    found: set[Path] = set()
    waiting = [file]
    while waiting:
        new = _imports(waiting.pop()) - found - left_out
        found |= new
        waiting += new
    return frozenset(found)


def _hash(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for name, file in sorted((_name(file), file) for file in files):
        digest.update(name.encode() + _code(file))
    return digest.hexdigest()[:16]


def _name(file: Path) -> str:
    return str(file.relative_to(PACKAGE)) if file.is_relative_to(PACKAGE) else file.name


@functools.cache
def _imports(file: Path) -> frozenset[Path]:
    found = set()
    for node in ast.walk(_tree(file)):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return frozenset(path for name in found if (path := _file_of(name)))


def _file_of(module: str) -> Path | None:
    """Return the file of a module of the package; None for any other."""
    top, *rest = module.split(".")
    if top != PACKAGE.name or not rest:
        return None
    place = PACKAGE.joinpath(*rest)
    return next((file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()), None)


@functools.cache
def _code(file: Path) -> bytes:
    return ast.unparse(_tree(file)).encode() if file.suffix == ".py" else file.read_bytes()


def _tree(file: Path) -> ast.Module:
    """Return a module without documentation, imports for types alone, and the `Study` that it states."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [item for item in body if not _says_nothing(item)]  # type: ignore[attr-defined]
    return tree


def _says_nothing(item: ast.stmt) -> bool:
    """Return whether a statement neither computes nor judges: a text alone, imports for types, a study's statement."""
    if isinstance(item, ast.Expr):
        return isinstance(item.value, ast.Constant) and isinstance(item.value.value, str)
    if isinstance(item, ast.If):
        return _called(item.test, "TYPE_CHECKING")
    return isinstance(item, ast.Assign) and isinstance(item.value, ast.Call) and _called(item.value.func, "Study")


def _called(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name
