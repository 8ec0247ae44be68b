"""Subcommands of `foretaste exam`: papers, looks, compare, reveal, export. Each parses, calls, prints.

Those about own questions and records of sittings are in `exam_records.py`.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from foretaste.commands.arguments import parse
from foretaste.config import TrainConfig
from foretaste.errors import ConfigError

RUNS = TrainConfig().runs_folder
COMPARE_EXAMPLES = """\
  foretaste exam compare quick-1122-0143-7f3a quick-1122-0201-11c9
  foretaste exam compare before.eval after.eval
  foretaste exam compare old/samples_gsm8k.jsonl new/samples_gsm8k.jsonl --metric exact_match,flexible-extract
  foretaste exam compare old-folder new-folder --metric acc --cluster passage"""
EXPORT_EXAMPLES = """\
  foretaste exam export practice --format jsonl --output practice.jsonl
  foretaste exam export practice --format lm-eval --output practice-task
  foretaste exam export quick-1122-0143-7f3a --format inspect --output quick.jsonl"""


@dataclass(frozen=True)
class PapersArguments:
    """List the ready-made papers, or print one as TOML, to be changed and saved under a name of your own."""

    name: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[PAPER]")] = None
    """Print this paper as TOML."""


@dataclass(frozen=True)
class LooksArguments:
    """Show every look at a sealed paper: who, when, and how many are left. Checks the ledger's hash chain."""

    paper: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[PAPER]")] = None
    """Only looks at this paper."""
    runs_folder: str = RUNS
    """Where the ledger is."""


@dataclass(frozen=True)
class CompareArguments:
    """Say whether B is better than A, paired by item and clustered. Exit codes: 0 B is better, 1 A is, 2 undecided.

    A and B are sittings, Inspect logs (.eval, .json), lm-evaluation-harness samples (.jsonl), or folders of such logs,
    which are compared task by task. Only answers to the same questions are compared.
    """

    a: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="A")]
    """The baseline."""
    b: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="B")]
    """The candidate."""
    metric: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """What to compare by where logs have several: SCORER, SCORER.KEY, METRIC or METRIC,FILTER."""
    cluster: Annotated[str | None, tyro.conf.arg(metavar="FIELD")] = None
    """Field of the items that names their cluster, e.g. a passage that questions share."""
    lower_is_better: bool = False
    """Less of the metric is better, e.g. a word error rate; needed where the logs do not say."""
    higher_is_better: bool = False
    """More of the metric is better; needed where the logs do not say."""
    despite_differences: bool = False
    """Compare although task, scorer, filter, scale or questions differ; items of one id are then paired."""
    alpha: float = 0.05
    """Chance of a wrong verdict."""
    json: bool = False
    """Print the figures as JSON."""
    runs_folder: str = RUNS
    """Where the ledger is."""


@dataclass(frozen=True)
class RevealArguments:
    """Show the secret behind a sitting's commitment, and check that its items follow from it.

    The secret is retired: whoever knows it can compute all items, so the next sitting makes a new one.
    """

    sitting: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SITTING")]
    """Id of a sitting of a sealed paper, the unique beginning of one, or `latest`."""
    runs_folder: str = RUNS
    """Where the ledger is."""


@dataclass(frozen=True)
class ExportArguments:
    """Write rendered items for another harness. New items of a sealed paper spend a look."""

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PAPER|SITTING")]
    """A paper, or a sitting whose items are meant."""
    output: str
    """File (jsonl, inspect) or folder (lm-eval) to write."""
    format: Literal["jsonl", "lm-eval", "inspect"] = "jsonl"
    """For which harness."""
    examples: int = 2
    """Worked examples in the prompt."""
    runs_folder: str = RUNS
    """Where the ledger is."""


def papers(arguments: list[str]) -> None:
    """List papers, or print one."""
    given = parse(PapersArguments, arguments, command="exam papers", examples="  foretaste exam papers quick")
    from foretaste.config import load_recipe
    from foretaste.exams import paper as module

    if given.name is not None:
        print(module.to_toml(module.load_paper(given.name)), end="")
        return
    from importlib import resources

    for name in module.ready_made():
        with resources.as_file(resources.files("foretaste.exams") / "papers" / f"{name}.toml") as file:
            paper = load_recipe(file, module.Paper)
        kind = f"sealed, {paper.looks} looks" if paper.sealed else "public"
        print(f"{name:<9} {kind:<17} {paper.description}")


def looks(arguments: list[str]) -> None:
    """List the looks that were spent."""
    given = parse(LooksArguments, arguments, command="exam looks", examples="  foretaste exam looks quick")
    from rich.console import Console
    from rich.table import Table

    from foretaste.exams.looks import looks as spent
    from foretaste.ledger import Ledger

    with Ledger.open(given.runs_folder, create=False) as ledger:
        ledger.verify()
        found = spent(ledger, given.paper)
        infos = {info.id: info for info in ledger.runs("exam")}
    if not found:
        print("No look was spent. Sit a paper: foretaste exam quick --policy oracle")
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("paper", "look", "policy", "status", "alpha", "created (UTC)", "sitting"):
        table.add_column(heading, overflow="fold")
    for name, look in found:
        of = f"{look.number} of {look.allowed}" if look.allowed else str(look.number)
        created = look.created[:16].replace("T", " ")
        table.add_row(name, of, look.policy, infos[look.run].status, f"{look.alpha:.2g}", created, look.run)
    Console().print(table, markup=False)
    print("The hash chain is intact.")


def compare(arguments: list[str]) -> int:
    """Compare two sittings or logs; the exit code says which is better."""
    given = parse(CompareArguments, arguments, command="exam compare", examples=COMPARE_EXAMPLES)
    if not 0 < given.alpha < 1:
        raise ConfigError(f"--alpha = {given.alpha} cannot be used; accepted: more than 0, less than 1")
    if given.lower_is_better and given.higher_is_better:
        raise ConfigError("--lower-is-better and --higher-is-better exclude each other; give one")
    from contextlib import ExitStack

    from foretaste.exams.comparing import compare as compared
    from foretaste.exams.comparing import load_tasks
    from foretaste.exams.comparing_tasks import compare_tasks
    from foretaste.exams.logs import Log
    from foretaste.ledger import Ledger

    with ExitStack() as stack:
        only_files = all(Path(name).exists() for name in (given.a, given.b))
        ledger = None if only_files else stack.enter_context(Ledger.open(given.runs_folder, create=False))
        a, b = (load_tasks(ledger, name) for name in (given.a, given.b))
    settings: dict[str, Any] = {
        "alpha": given.alpha,
        "lower_is_better": given.lower_is_better if given.lower_is_better or given.higher_is_better else None,
        "despite_differences": given.despite_differences,
    }
    if isinstance(a, Log) and isinstance(b, Log) and (given.metric or given.cluster):
        raise ConfigError("--metric and --cluster are for logs: sittings are scored right or wrong, by base item")
    if not isinstance(a, Log) and not isinstance(b, Log) and max(len(a), len(b)) > 1:
        table = compare_tasks(a, b, (given.a, given.b), metric=given.metric, cluster=given.cluster, **settings)
        return _told(table, task_lines(table), as_json=given.json)
    one, other = (side if isinstance(side, Log) else _only(side, given) for side in (a, b))
    found = compared(one, other, **settings)
    return _told(found, comparison_lines(found), as_json=given.json)


def _only(logs: Any, given: CompareArguments) -> Any:
    """Return the scores of the one task of a log that is compared with a sitting, or with another of one task."""
    if len(logs) > 1:
        raise ConfigError(f"A log of one task is needed beside a sitting, not of {', '.join(log.task for log in logs)}")
    return logs[0].scores(metric=given.metric, cluster=given.cluster)


def _told(found: Any, lines: list[str], *, as_json: bool) -> int:
    """Print a comparison; return its exit code."""
    if as_json:
        json.dump(found.to_json(), sys.stdout, indent=2)
        print()
    else:
        print("\n".join(lines))
    return found.exit_code


def comparison_lines(found: Any) -> list[str]:
    """Return a comparison as lines, the verdict first."""
    d = found.difference
    lines = [
        _verdict(found),
        f"  A  {found.mean_a:.3f}  {found.a}",
        f"  B  {found.mean_b:.3f}  {found.b}",
        f"  B - A  {d.mean:+.3f}  [{d.low:+.3f}, {d.high:+.3f}]  {d.level:.0%} interval",
        f"  {_how(found)}",
    ]
    if found.paired:
        lines.append(
            f"  paired on {d.n} scores of {d.clusters} {'clusters' if found.cluster else 'items'}; A alone ahead on "
            f"{found.a_only}, B on {found.b_only}; e-value {found.e_value:.3g}"
        )
    else:
        lines.append("  other items of the same families: not paired; sit the same items with --items-of to pair them")
    if found.left_out:
        lines.append(f"  left out: {found.left_out} scores that only one has, or that failed")
    lines += [f"  note: {note}" for note in found.notes]
    if found.tasks:
        width = max(len(row.task) for row in found.tasks)
        lines += ["", f"  {'task':<{width}}  scores      A      B   B - A"]
        for row in found.tasks:
            e = row.difference
            figures = f"{row.n:>6}  {row.mean_a:.3f}  {row.mean_b:.3f}  {e.mean:+.3f}"
            lines.append(f"  {row.task:<{width}}  {figures}  [{e.low:+.3f}, {e.high:+.3f}]")
    return lines


def task_lines(table: Any) -> list[str]:
    """Return the comparison of several tasks as lines: the verdict, all tasks as one, then a row a task and metric."""
    if table.together is None:
        first = f"{table.better} is better" if table.better else "UNDECIDED"
        lines = [f"{first} (task by task: the tasks have different metrics, so there is no common figure)"]
    else:
        lines = comparison_lines(replace(table.together, tasks=()))
    names = [(row.task, ",".join(filter(None, (row.metric, row.filter)))) for row in table.rows]
    widths = [max(len(text) for text in column) for column in zip(*names, ("task", "metric"), strict=True)]
    lines += ["", f"  {'task':<{widths[0]}}  {'metric':<{widths[1]}}  scores      A      B   B - A"]
    for row, (task, metric) in zip(table.rows, names, strict=True):
        d = row.difference
        interval = f"[{d.low:+.3f}, {d.high:+.3f}]"
        figures = f"{d.n:>6}  {row.mean_a:.3f}  {row.mean_b:.3f}  {d.mean:+.3f}"
        lines.append(f"  {task:<{widths[0]}}  {metric:<{widths[1]}}  {figures}  {interval}  {_verdict(row)}")
    lines += [f"  {_how(row)} in {row.task}" for row in table.rows if table.together is None]
    lines += [f"  note: {note}" for note in dict.fromkeys(note for row in table.rows for note in row.notes)]
    if table.in_one_alone:
        lines.append(f"  left out: tasks that only one has: {', '.join(table.in_one_alone)}")
    return lines


def _verdict(found: Any) -> str:
    if found.better:
        return f"{found.better} is better"
    if found.higher_is_better is None:
        return "NO VERDICT (is more better, or less? --higher-is-better or --lower-is-better says it)"
    if not found.paired:
        return "UNDECIDED"
    if found.more_needed is None:
        equal = "" if found.difference.mean else "equal so far: "
        return f"UNDECIDED ({equal}no number of further items can be named)"
    return f"UNDECIDED (needs {found.more_needed} more items)"


def _how(found: Any) -> str:
    """Say by what the scores were made and grouped, and in which direction they are read."""
    direction = {True: "more is better", False: "less is better", None: "direction not known"}[found.higher_is_better]
    task = f"task {found.task}, " if found.task else ""
    scored = f"scored by {found.metric}" if found.metric else "scored by the exam"
    filtered = f", filter {found.filter}" if found.filter else ""
    clusters = f"clustered by the field {found.cluster}" if found.cluster else "clustered by item"
    return f"{task}{scored}{filtered}; {direction}; {clusters}"


def reveal(arguments: list[str]) -> int:
    """Print the secret of a sitting and the check of its items; 1 if a file behind them has changed since."""
    given = parse(RevealArguments, arguments, command="exam reveal", examples="  foretaste exam reveal latest")
    from foretaste.exams.revealing import reveal as revealed
    from foretaste.ledger import Ledger

    with Ledger.open(given.runs_folder, create=False) as ledger:
        wanted = given.sitting
        if wanted == "latest":
            sittings = ledger.runs("exam")
            wanted = sittings[-1].id if sittings else wanted
        found = revealed(ledger, wanted, Path(given.runs_folder))
    print(f"Secret:      {found.secret}")
    print(f"Commitment:  {found.commitment}  (matches)")
    print(f"Items:       {found.matching} of {found.items} seeds follow from secret, paper and look {found.look}")
    print(f"Paper:       {found.paper_file}")
    if found.changed:
        print(f"CHANGED:     {found.changed}")
    print("Anybody checks with foretaste.exams.seal.verify_commitment(commitment, secret, text of the paper).")
    print("The secret is retired; the next sitting of this paper makes a new one.")
    return 1 if found.changed else 0


def export(arguments: list[str]) -> None:
    """Write items for another harness."""
    given = parse(ExportArguments, arguments, command="exam export", examples=EXPORT_EXAMPLES)
    from foretaste.exams.bridges import export as write
    from foretaste.exams.bridges import items_of
    from foretaste.ledger import Ledger

    with Ledger.open(given.runs_folder) as ledger:
        paper, plan = items_of(given.name, ledger, Path(given.runs_folder), reader=f"export ({given.format})")
    done = write(plan.items, paper.name, given.format, Path(given.output), examples=given.examples)
    print(f"{done.items} items: {done.path}")
    for env, why in done.left_out.items():
        print(f"Left out {env}: {why}")
