"""Write what the documentation takes from the code: docs/cli.md, docs/deploy-settings.md, the tree of files in
docs/architecture.md.

`make docs` runs it; with `--check` it only says what is out of date (exit code 1), as a test does.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import inspect
import io
import os
import re
import sys
from pathlib import Path

import docstring_parser

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "foretaste"
WIDTH = 100
TREE = re.compile(r"(<!-- tree -->\n).*?(<!-- end of tree -->)", re.DOTALL)


def help_of(command: list[str]) -> str:
    """Return what `foretaste COMMAND --help` prints, without colours, at a fixed width."""
    from foretaste.cli import main as foretaste

    printed = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")  # boxes are drawn only where they can be written
    try:
        with contextlib.redirect_stdout(printed):
            foretaste([*command, "--help"])
    except SystemExit as stopped:
        if stopped.code:
            raise
    printed.seek(0)
    return "\n".join(line.rstrip() for line in printed.read().strip().splitlines())


def cli_page() -> str:
    """Return docs/cli.md."""
    from foretaste.cli import COMMANDS
    from foretaste.commands import exam, lab

    parts = [
        "# Command line",
        "Written by `make docs` from the `--help` texts; a test compares the two. Exit codes: 0 done, 1 a check found\n"
        "faults, 2 an error that you can repair (one message on stderr), 130 interrupted with Ctrl-C. `exam` has\n"
        "codes of its own: docs/exam.md.",
        f"```text\n{help_of([])}\n```",
    ]
    more = {"envs": ["check"], "exam": list(exam.SUBCOMMANDS), "lab": list(lab.SUBCOMMANDS)}
    more["deploy"] = ["plan", "simulate"]  # the others have no help of their own
    for name in COMMANDS:
        for command in ([name], *([name, below] for below in more.get(name, ()))):
            parts += [f"## foretaste {' '.join(command)}", f"```text\n{help_of(command)}\n```"]
    return "\n\n".join(parts) + "\n"


def settings_page() -> str:
    """Return docs/deploy-settings.md: each setting of a deployment, its default and its docstring."""
    from foretaste.deploy import settings

    lines = [
        "# Settings of a deployment",
        "Written by `make docs` from `src/foretaste/deploy/`. What is not set has the default shown.\n"
        "`foretaste deploy init` writes a commented file with the ones most often set; what they do together:\n"
        "[deploy.md](deploy.md) and [deploy-decisions.md](deploy-decisions.md).",
    ]
    for section in dataclasses.fields(settings.DeployConfig):
        kind = section.default_factory
        if dataclasses.is_dataclass(kind):
            lines += [f"## [{section.name}]", inspect.getdoc(kind) or "", _settings(kind)]
            for table in dataclasses.fields(kind):
                inner = table.default_factory
                if dataclasses.is_dataclass(inner):
                    lines += [f"## [{section.name}.{table.name}]", inspect.getdoc(inner) or "", _settings(inner)]
    return "\n\n".join(lines) + "\n"


def _settings(kind: type) -> str:
    """Return a table of a dataclass's fields: name, default, and the text that stands below each."""
    said = {
        one.arg_name: " ".join(str(one.description).split()) for one in docstring_parser.parse_from_object(kind).params
    }
    rows = ["| setting | default | meaning |", "|---|---|---|"]
    for field in dataclasses.fields(kind):
        if field.default is dataclasses.MISSING:
            rows.append(f"| `{field.name}` | a table | {said.get(field.name, '')} |")
            continue
        default = {None: "none", (): "[]"}.get(field.default, field.default)
        default = list(default) if isinstance(default, tuple) else default
        default = str(default).lower() if isinstance(default, bool) else default
        rows.append(f"| `{field.name}` | `{default}` | {said.get(field.name, '').replace('|', chr(92) + '|')} |")
    return "\n".join(rows)


def tree() -> str:
    """Return every module with the first sentence of its docstring, folder by folder."""
    lines = []
    folders = [PACKAGE, *sorted(path.parent for path in PACKAGE.glob("*/**/__init__.py"))]
    for folder in folders:
        modules = [file for file in sorted(folder.glob("*.py")) if file.name != "__init__.py"]
        if modules:
            lines += [f"\n**`{folder.relative_to(ROOT / 'src').as_posix()}/`**{_said_by(folder / '__init__.py')}\n"]
            lines += [f"- `{file.name}`{_said_by(file)}" for file in modules]
    return "\n".join(lines) + "\n"


def _said_by(file: Path) -> str:
    """Return ": first paragraph of the docstring" up to its first sentence's end; "" without a docstring."""
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    paragraph = " ".join(text.split("\n\n")[0].split())
    sentence = re.split(r"(?<=[a-z)`\"])[.] (?=[A-Z`])", paragraph)[0].removesuffix(".")
    return f": {sentence}" if sentence else ""


def pages() -> dict[Path, str]:
    """Return each generated page and what it should contain."""
    architecture = ROOT / "docs" / "architecture.md"
    text = architecture.read_text(encoding="utf-8")
    return {
        ROOT / "docs" / "cli.md": cli_page(),
        ROOT / "docs" / "deploy-settings.md": settings_page(),
        architecture: TREE.sub(lambda found: found[1] + tree() + "\n" + found[2], text),
    }


def main() -> int:
    """Write the pages, or check them."""
    sys.path.insert(0, str(ROOT / "src"))
    os.environ |= {"COLUMNS": str(WIDTH), "NO_COLOR": "1"}  # before what prints is imported
    old = [path for path, text in pages().items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    if "--check" in sys.argv[1:]:
        for path in old:
            print(f"{path.relative_to(ROOT)} does not say what the code says. Repair: make docs", file=sys.stderr)
        return 1 if old else 0
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
    print("\n".join(f"wrote {path.relative_to(ROOT)}" for path in old) or "the documentation is up to date")
    return 0


if __name__ == "__main__":
    sys.exit(main())
