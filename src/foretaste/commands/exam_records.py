"""Subcommands of `foretaste exam` about own questions and what sittings left: new, list, answers."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from foretaste.commands.arguments import parse
from foretaste.config import TrainConfig
from foretaste.errors import ConfigError, RunError

RUNS = TrainConfig().runs_folder
LONGEST_CELL = 60
"""Characters of one text in a table on the terminal."""
NEW_EXAMPLES = """\
  foretaste exam new questions.jsonl
  foretaste exam questions.toml --policy openai:qwen3@http://localhost:8000/v1"""
ANSWERS_EXAMPLES = """\
  foretaste exam answers latest
  foretaste exam answers questions-1122-0143-7f3a --csv answers.csv"""


@dataclass(frozen=True)
class NewArguments:
    """Write the paper of a file of your own questions: a sealed exam, ready to be sat.

    Each line is one question: {"prompt": "...", "answer": "...", "grader": "exact"}; graders: exact, number, regex,
    module:callable. The paper holds the file's SHA-256, so that an edit of the file is noticed.
    """

    file: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FILE.jsonl")]
    """JSON lines, one question each."""
    output: Annotated[str | None, tyro.conf.arg(metavar="PAPER.toml")] = None
    """Where to write the paper; beside the questions by default."""
    name: str = ""
    """Of the paper; the file's own by default."""
    items: int | None = None
    """Questions of one sitting and level; all by default. Fewer leave some for later sittings."""
    looks: int = 5
    """Sittings allowed in all."""
    threshold: float = 0.8
    """Success that must be shown for PASS."""
    public: bool = False
    """Ask the same questions at every sitting, without limit; such an exam can be practised on."""


@dataclass(frozen=True)
class ListArguments:
    """List the sittings with their verdicts and scores, the latest last."""

    paper: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[PAPER]")] = None
    """Only sittings of this paper."""
    json: bool = False
    """Print them as JSON."""
    runs_folder: str = RUNS
    """Where the ledger is."""


@dataclass(frozen=True)
class AnswersArguments:
    """Show every answer of a sitting beside the right one, or write them all to a file."""

    sitting: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SITTING")]
    """Id of a sitting, the unique beginning of one, or `latest`."""
    csv: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """Write them as a table of comma-separated values."""
    jsonl: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """Write them as JSON lines."""
    runs_folder: str = RUNS
    """Where the ledger is."""


def new(arguments: list[str]) -> None:
    """Write a paper of own questions."""
    given = parse(NewArguments, arguments, command="exam new", examples=NEW_EXAMPLES)
    from foretaste.exams.own_data import paper_of
    from foretaste.exams.paper import to_toml

    file = Path(given.file)
    made = paper_of(
        file,
        name=given.name,
        items=given.items,
        looks=given.looks,
        threshold=given.threshold,
        public=given.public,
    )
    output = Path(given.output) if given.output else file.with_suffix(".toml")
    try:
        with output.open("x", encoding="utf-8") as opened:
            opened.write(to_toml(made.paper))
    except FileExistsError:
        raise ConfigError(f"{output} is there already; name another with --output, or delete it first") from None
    except OSError as error:
        raise RunError(f"The paper cannot be written to {output}: {error}. Name another with --output") from error
    print(f"{output}: {made.questions} questions, {made.per_look} at a sitting")
    if not given.public:
        rounds = made.questions // made.per_look
        print(
            f"No question is asked twice: they last for {rounds} sitting{'' if rounds == 1 else 's'} with a verdict. "
            "To compare another policy on the same ones: --items-of SITTING"
        )
    print(f"Sit it: foretaste exam {output} --policy openai:MODEL@URL")


def sittings(arguments: list[str]) -> None:
    """List sittings."""
    given = parse(ListArguments, arguments, command="exam list", examples="  foretaste exam list quick")
    from foretaste.exams.own_data import sitting_rows
    from foretaste.ledger import Ledger

    with Ledger.open(given.runs_folder, create=False) as ledger:
        found = sitting_rows(ledger, given.paper)
        ledger.verify()
    rows = [
        {
            "sitting": info.id,
            "paper": info.name,
            "look": look or None,
            "policy": str(info.config.get("policy")),
            "status": info.status,
            "verdict": ("comparison only" if verdict.get("comparison") else verdict.get("outcome")),
            "score": verdict.get("mean"),
            "low": verdict.get("low"),
            "high": verdict.get("high"),
            "items": verdict.get("n"),
            "errors": verdict.get("errors"),
            "created": info.created[:16].replace("T", " "),
        }
        for info, verdict, look in found
    ]
    if given.json:
        print(json.dumps(rows, indent=2))
        return
    if not rows:
        print("There is no sitting yet. Sit a paper: foretaste exam quick --policy oracle")
        return
    _print_table([{**row, "score": _figure(row["score"]), "bounds": _bounds(row)} for row in rows], _LISTED)


_LISTED = ("sitting", "paper", "look", "policy", "status", "verdict", "score", "bounds", "items", "errors", "created")


def _bounds(row: dict[str, Any]) -> str:
    return "" if row["low"] is None else f"[{row['low']:.3f}, {row['high']:.3f}]"


def _figure(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.3f}"


def answers(arguments: list[str]) -> None:
    """Show or write the answers of a sitting."""
    given = parse(AnswersArguments, arguments, command="exam answers", examples=ANSWERS_EXAMPLES)
    from foretaste.exams.own_data import answer_rows
    from foretaste.ledger import Ledger

    with Ledger.open(given.runs_folder, create=False) as ledger:
        info = ledger.run(given.sitting, kind="exam")
        ledger.verify()
        rows = answer_rows(ledger, info.id)
    if not rows:
        raise ConfigError(f"{info.id} holds no answers yet. Go on with it: foretaste exam --resume {info.id}")
    try:
        if given.csv is not None:
            with Path(given.csv).open("w", newline="", encoding="utf-8", errors="replace") as opened:
                writer = csv.DictWriter(opened, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
        if given.jsonl is not None:
            text = "".join(json.dumps(row) + "\n" for row in rows)
            Path(given.jsonl).write_text(text, encoding="utf-8")
    except OSError as error:
        raise RunError(f"The answers cannot be written: {error}. Name a file you can write to") from error
    written = [name for name in (given.csv, given.jsonl) if name is not None]
    if written:
        print(f"{len(rows)} answers: {', '.join(written)}")
        return
    _print_table(
        [{**row, "reply": row["error"] or row["reply"]} for row in rows if not row["public"]],
        ("mark", "task", "wording", "question", "reply", "right_answer"),
    )


def _print_table(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    """Print columns of plain text, long texts cut, so that the output can be read by other programs too."""
    cells = [[_cell(row[column]) for column in columns] for row in rows]
    widths = [max(len(text) for text in column) for column in zip(columns, *cells, strict=True)]
    for line in ([column.replace("_", " ") for column in columns], *cells):
        print("  ".join(f"{text:<{width}}" for text, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: Any) -> str:
    text = "".join(c if c.isprintable() else " " for c in " ".join(str("" if value is None else value).split()))
    return text if len(text) <= LONGEST_CELL else f"{text[: LONGEST_CELL - 3]}..."
