"""The subcommands of `foretaste exam`: papers, looks, compare, reveal, export. Each parses, calls, prints."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
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
  foretaste exam compare old/samples_gsm8k.jsonl new/samples_gsm8k.jsonl --metric exact_match --cluster passage"""
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

    A and B are sittings, Inspect logs (.eval, .json) or lm-evaluation-harness samples (.jsonl, or their folder).
    """

    a: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="A")]
    """The baseline."""
    b: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="B")]
    """The candidate."""
    metric: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Scorer or metric of the logs, where they have several."""
    cluster: Annotated[str | None, tyro.conf.arg(metavar="FIELD")] = None
    """Field of the items that names their cluster, e.g. a passage that questions share."""
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
    from contextlib import ExitStack

    from foretaste.exams.comparing import compare as compared
    from foretaste.exams.comparing import load
    from foretaste.ledger import Ledger

    with ExitStack() as stack:
        only_files = all(Path(name).exists() for name in (given.a, given.b))
        ledger = None if only_files else stack.enter_context(Ledger.open(given.runs_folder, create=False))
        a, b = (load(ledger, name, metric=given.metric, cluster=given.cluster) for name in (given.a, given.b))
    found = compared(a, b, alpha=given.alpha)
    if given.json:
        json.dump(found.to_json(), sys.stdout, indent=2)
        print()
        return found.exit_code
    print("\n".join(comparison_lines(found)))
    return found.exit_code


def comparison_lines(found: Any) -> list[str]:
    """Return a comparison as lines, the verdict first."""
    d = found.difference
    if found.better:
        first = f"{found.better} is better"
    elif not found.paired:
        first = "UNDECIDED"
    elif found.more_needed is None:
        equal = "" if d.mean else "equal so far: "
        first = f"UNDECIDED ({equal}no number of further items can be named)"
    else:
        first = f"UNDECIDED (needs {found.more_needed} more items)"
    lines = [
        first,
        f"  A  {found.mean_a:.3f}  {found.a}",
        f"  B  {found.mean_b:.3f}  {found.b}",
        f"  B - A  {d.mean:+.3f}  [{d.low:+.3f}, {d.high:+.3f}]  {d.level:.0%} interval",
    ]
    if found.paired:
        lines.append(
            f"  paired on {d.n} scores of {d.clusters} items; A alone ahead on {found.a_only}, B on {found.b_only}; "
            f"e-value {found.e_value:.3g}"
        )
    else:
        lines.append("  other items of the same families: not paired; sit the same items with --items-of to pair them")
    if found.left_out:
        lines.append(f"  left out: {found.left_out} scores that only one has, or that failed")
    return lines


def reveal(arguments: list[str]) -> None:
    """Print the secret of a sitting and the check of its items."""
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
    print("Anybody checks with foretaste.exams.seal.verify_commitment(commitment, secret, text of the paper).")
    print("The secret is retired; the next sitting of this paper makes a new one.")


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
