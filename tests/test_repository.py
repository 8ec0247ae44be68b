"""The repository as a whole: recipes, documentation, examples and pinned versions say what the code does."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from foretaste.checks import check
from foretaste.config import TrainConfig, load_recipe, to_dict

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "recipes").glob("*.toml"))
METRIC = re.compile(r"(train|value|policy|gate|curriculum|drives|time)/[a-z0-9_]+")


def text_of(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def leaves(values: dict[str, Any], path: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= leaves(value, f"{path}{name}.") if isinstance(value, dict) else {path + name: value}
    return found


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.stem)
def test_a_recipe_can_be_used_and_holds_only_its_differences_from_the_defaults(recipe: Path) -> None:
    check(load_recipe(recipe))
    defaults = leaves(to_dict(TrainConfig()))
    repeated = [name for name, value in leaves(tomllib.loads(recipe.read_text())).items() if defaults[name] == value]
    assert repeated == []


def test_the_default_recipe_trains_the_language_model_on_extract() -> None:
    config = load_recipe(ROOT / "recipes" / "extract.toml")
    assert (config.env.id, config.model.name) == ("extract", "smollm2-135m")
    assert "RECIPE ?= recipes/extract.toml" in text_of("Makefile")


def logged_names() -> set[str]:
    """Names of metrics in the source; a part that is filled in at run time is "*"."""
    found: set[str] = set()
    for file in sorted((ROOT / "src" / "foretaste" / "rl").glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                text = "".join(str(part.value) if isinstance(part, ast.Constant) else "9" for part in node.values)
                name = re.sub("9", "*", text) if METRIC.fullmatch(text) else ""
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and METRIC.fullmatch(node.value):
                name = node.value
            else:
                continue
            if name:
                found.add(name)
    return {name for name in found if name + "*" not in found}  # without the constant part of an f-string


def defined_names() -> set[str]:
    """Names defined in docs/metrics.md: the first cell of a table's row."""
    return set(re.findall(r"^\| `([a-z]+/[a-z0-9_]+)` \|", text_of("docs/metrics.md"), re.MULTILINE))


def test_every_logged_metric_is_defined_and_every_defined_metric_is_logged() -> None:
    logged, defined = logged_names(), defined_names()
    patterns = {name: re.compile(re.escape(name).replace(r"\*", ".+")) for name in logged}
    undefined = [name for name, pattern in patterns.items() if not any(map(pattern.fullmatch, defined))]
    unlogged = [name for name in defined if not any(pattern.fullmatch(name) for pattern in patterns.values())]
    assert (undefined, unlogged) == ([], [])
    assert len(defined) > 20


def test_metrics_used_elsewhere_are_defined() -> None:
    used: set[str] = set()
    for file in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and METRIC.fullmatch(node.value):
                used.add(node.value)
    defined = defined_names()
    whole = {name for name in used if not any(other.startswith(name.rstrip("_") + "_") for other in defined)}
    assert whole - defined == set()


def test_pages_taken_from_the_code_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "write_docs.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def pages() -> list[Path]:
    return [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_links_between_pages_lead_somewhere() -> None:
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in pages()
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        if not target.startswith(("http://", "https://")) and not (page.parent / target).exists()
    ]
    assert broken == []


def test_files_and_folders_named_in_the_readme_tree_exist() -> None:
    tree = text_of("README.md").split("## What is where")[1].split("```")[1]
    base = ROOT / "src" / "foretaste"
    for line in tree.strip().splitlines()[1:]:
        inside = line.startswith("  ")
        for name in re.split(r" {3,}", line.strip())[0].split():
            assert ((base if inside else ROOT) / name).exists(), name


def test_every_decision_is_in_the_index() -> None:
    index = text_of("docs/decisions/README.md")
    decisions = sorted(path.name for path in (ROOT / "docs" / "decisions").glob("0*.md"))
    assert re.findall(r"\((0\d+[^)]+)\)", index) == decisions
    assert [name[:4] for name in decisions] == [f"{number:04}" for number in range(1, len(decisions) + 1)]


def test_the_changelog_names_the_version() -> None:
    version = tomllib.loads(text_of("pyproject.toml"))["project"]["version"]
    assert f"## {version}" in text_of("CHANGELOG.md")


def test_every_dependency_is_pinned_to_a_version_it_allows() -> None:
    project = tomllib.loads(text_of("pyproject.toml"))
    pins = {}
    for line in text_of("constraints.txt").splitlines():
        if line and not line.startswith("#"):
            name, version = line.split("==")
            pins[name.lower().replace("_", "-")] = Version(version)
    for text in [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]:
        requirement = Requirement(text)
        pinned = pins[requirement.name.lower().replace("_", "-")]
        assert pinned in requirement.specifier, text
    assert str(pins["torch"]) == "2.13.0"


def test_continuous_integration_runs_what_a_person_runs() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    commands = [line for line in script.read_text().splitlines() if line and not line.startswith(("#", "set", "cd"))]
    assert commands == ["exec make test"]


def test_make_help_lists_the_two_commands_of_a_newcomer() -> None:
    done = subprocess.run(["make", "-C", str(ROOT), "--no-print-directory"], capture_output=True, text=True, check=True)
    for target in ("demo", "test", "venv", "clean"):
        assert re.search(rf"^  make {target} +\S", done.stdout, re.MULTILINE)


def test_a_python_that_is_too_old_or_missing_is_a_clear_error() -> None:
    done = subprocess.run(
        ["bash", str(ROOT / "tools" / "find-python")],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHON": "no-such-python"},
        check=False,
    )
    assert done.returncode == 1
    assert "needs Python 3.11 or newer" in done.stderr
    assert "tried: no-such-python" in done.stderr
