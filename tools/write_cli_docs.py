"""Write docs/cli.md from the --help texts; `--check` only says whether it is up to date (exit code 1: it is not).

Run it with `make docs` after changing a command.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "cli.md"
WIDTH = 100


def help_of(command: list[str]) -> str:
    """Return what `foretaste COMMAND --help` prints, without colours, at a fixed width."""
    environment = {**os.environ, "COLUMNS": str(WIDTH), "NO_COLOR": "1", "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-m", "foretaste.cli", *command, "--help"],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    return "\n".join(line.rstrip() for line in done.stdout.strip().splitlines())


def page() -> str:
    """Return the whole page."""
    sys.path.insert(0, str(ROOT / "src"))
    from foretaste.cli import COMMANDS

    parts = [
        "# Command line",
        "Written by `make docs` from the `--help` texts; a test compares the two. Exit codes: 0 done, 1 a check found\n"
        "faults, 2 an error that you can repair (one message on stderr), 130 interrupted with Ctrl-C.",
        f"```text\n{help_of([])}\n```",
    ]
    for command in [*([name] for name in COMMANDS), ["envs", "check"]]:
        parts += [f"## foretaste {' '.join(command)}", f"```text\n{help_of(command)}\n```"]
    return "\n\n".join(parts) + "\n"


def main() -> int:
    text = page()
    if "--check" in sys.argv[1:]:
        if not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != text:
            print("docs/cli.md does not say what --help says. Write it anew: make docs", file=sys.stderr)
            return 1
        return 0
    PAGE.write_text(text, encoding="utf-8")
    print(PAGE.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
