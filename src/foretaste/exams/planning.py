"""What a sitting will ask, in which order: items, further samples, and the public twin.

Base items come in an order drawn from the secret and the look, so that the verdict may be read after
any number of them. The plan is written to the ledger before the first question.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from foretaste.config import TrainConfig, from_dict
from foretaste.envs.registry import make
from foretaste.errors import ConfigError, ForetasteError, RunError
from foretaste.exams.answers import Attempt
from foretaste.exams.kept_items import KeptItem, keep, restore
from foretaste.exams.paper import Family, Item, Paper, dataset_file, expand
from foretaste.exams.seal import item_hash, trained_on
from foretaste.exams.wording import Renderer
from foretaste.ledger import Ledger
from foretaste.rl.sources import held_out_sources, training_sources
from foretaste.rl.tasks import Task, demonstration_tasks, keyed_seed


@dataclass(frozen=True, slots=True)
class Plan:
    """The items of a sitting, and what had to be left out."""

    items: list[Item]
    public: list[Item]
    """Items of the public twin, in one wording; for the gap and for Thresholdout."""
    shortfalls: dict[str, int]
    """"env:level" -> base items missing, because the family has no more that were not seen before."""
    replaced: int = 0
    """Base items passed over because training had shown them, or because they repeat."""
    different: dict[str, int] = field(default_factory=dict)
    """"env:level" of the shortfalls -> different items that the family has, as far as was drawn."""
    repeated: int = 0
    """Base items that an earlier look asked too, since the family has so few."""
    kept: tuple[KeptItem, ...] = ()
    """Items that another process would draw otherwise from the same seeds."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values for the ledger."""
        return {
            "items": [list(item) for item in self.items],
            "public": [list(item) for item in self.public],
            "shortfalls": self.shortfalls,
            "replaced": self.replaced,
            "different": self.different,
            "repeated": self.repeated,
            "kept": [list(item) for item in self.kept],
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Plan:
        """Read what `to_json` wrote."""
        items, public = ([Item(*row) for row in values[name]] for name in ("items", "public"))
        different = dict(values.get("different") or {})
        kept = tuple(KeptItem(*row) for row in values.get("kept") or ())
        repeated = int(values.get("repeated") or 0)
        restore(kept)  # so that whoever plays these items plays these, and not what this process would draw
        return cls(items, public, dict(values["shortfalls"]), int(values["replaced"]), different, repeated, kept)


def make_plan(
    paper: Paper,
    *,
    secret: str = "",
    look: int = 0,
    seen: Collection[str] = frozenset(),
    asked_before: Collection[str] = frozenset(),
    public: bool = True,
) -> Plan:
    """Return the plan of one look at a paper; `public=False` leaves out the twin where no mechanism needs it.

    `seen` are the hashes of items that training has shown, `asked_before` those of earlier looks (`asked_at_looks`).
    """
    render = Renderer()
    drawn = expand(paper, secret=secret, look=look, render=render, seen=seen, asked_before=asked_before)
    ranks = {item.cluster: keyed_seed(secret or paper.content_hash, look, item.cluster) for item in drawn.items}
    items = sorted(drawn.items, key=lambda item: ranks[item.cluster])  # stable: wordings of an item stay together
    twin: list[Item] = []
    if paper.sealed:
        families = []
        for family in paper.families:
            if family.release == "thresholdout" or (public and _has_public_items(family)):
                one = "plain" if "plain" in family.registers else family.registers[0]
                wordings = family.registers if family.release == "thresholdout" else (one,)
                families.append(replace(family, registers=wordings, release="fresh"))
        if families:
            open_paper = replace(paper, sealed=False, families=tuple(families), looks=0)
            twin = expand(open_paper, render=render).items
    fresh = {family.env for family in paper.families if family.release == "fresh"}
    again = {item.cluster for item in items if item.env in fresh and item.hash in asked_before}
    kept = keep((i.env, i.level, i.seed) for i in (*items, *twin) if i.env in fresh)  # of scarce ones no text is kept
    return Plan(items, twin, drawn.shortfalls, _passed_over(items), drawn.different, len(again), kept)


def asked_at_looks(ledger: Ledger, paper: Paper) -> frozenset[str]:
    """Return the hashes of the items that earlier sittings asked of the families of a sealed paper.

    Items of a person's own file count whatever the paper was called that asked them.
    """
    if not paper.sealed:
        return frozenset()
    names = {family.env for family in paper.families}
    return frozenset(
        str(row[5])
        for info in ledger.runs("exam")
        for record in ledger.records(info.id, "plan")
        for row in record.payload["items"]
        if len(row) > 5 and row[5] and (row[0] in names or dataset_file(row[0]) is not None)
    )


def _has_public_items(family: Family) -> bool:
    """Return whether there is anything to ask in public: a file may hold sealed items alone."""
    if dataset_file(family.env) is None:
        return True
    return all(make(family.env, level=level).unwrapped.count("practice", level) for level in family.levels)


def shortfall_lines(plan: Plan) -> list[str]:
    """Say of each family that has too few items how many it has, and how many are asked."""
    asked = Counter(stem for stem, _, _ in (cluster.rpartition(":") for cluster in {i.cluster for i in plan.items}))
    lines = []
    if plan.repeated:
        lines.append(f"{plan.repeated} items were asked at an earlier look too: their families have no others")
    for name, missing in plan.shortfalls.items():
        met, count = plan.different.get(name), asked[name]
        known = "" if met is None else f" has {met} different item{'' if met == 1 else 's'}"
        known += f", {met - count} of them trained on or asked already" if met is not None and met > count else ""
        lines.append(f"{name}{known or ' has too few items'}: {count} of {count + missing} are asked")
    return lines


def check_plan(plan: Plan, paper: Paper) -> None:
    """Refuse a plan that asks nothing, before a look is spent on it.

    Raises: RunError.
    """
    if not plan.items:
        files = [str(file) for family in paper.families if (file := dataset_file(family.env)) is not None]
        advice = "Sit a paper with other levels or families: foretaste exam papers prints one to be changed"
        if files:
            advice = (
                f"Add questions to {', '.join(files)} and make a new paper (foretaste exam new FILE), compare policies "
                "on questions already asked (--items-of SITTING), or make a public paper, which asks the same ones at "
                "every sitting (foretaste exam new FILE --public)"
            )
        raise RunError(
            f"Paper {paper.name!r} has no item left to ask: {'; '.join(shortfall_lines(plan))}. No look was spent. "
            f"{advice}"
        )


def _passed_over(items: Sequence[Item]) -> int:
    """Count the gaps in the base items' numbers: seeds that were drawn and not asked."""
    numbers: dict[str, set[int]] = {}
    for item in items:
        stem, _, index = item.cluster.rpartition(":")
        numbers.setdefault(stem, set()).add(int(index))
    return sum(max(found) + 1 - len(found) for found in numbers.values())


def attempts_of(plan: Plan, paper: Paper, samples: int) -> list[Attempt]:
    """Return everything to be asked, in order; further samples follow their plain wording, the twin comes last."""
    scarce = {(f.env, level) for f in paper.families if f.release != "fresh" for level in f.levels}
    attempts: list[Attempt] = []
    for index, item in enumerate(plan.items):
        hidden = (item.env, item.level) in scarce
        count = samples if item.register == "plain" and not hidden else 1
        attempts += [Attempt(index, item, sample, scarce=hidden) for sample in range(count)]
    for index, item in enumerate(plan.public):
        hidden = (item.env, item.level) in scarce
        attempts.append(Attempt(index, item, public=True, scarce=hidden))
    return attempts


def task_of(attempt: Attempt) -> Task:
    """Return the attempt as the rollout plays it; its random stream depends on the item, wording and sample alone."""
    asked = attempt.asked
    stream = keyed_seed("exam", asked.env, asked.level, asked.register, asked.seed, attempt.sample)
    return Task(asked.env, asked.seed, asked.level, asked.register, stream)


def seen_in_training(ledger: Ledger, runs_folder: Path, paper: Paper) -> frozenset[str]:
    """Return the hashes of all items that training on the paper's environments has shown, demonstrations included.

    Demonstrations are not stored as episodes: they are listed from the run's settings. A run whose settings this
    version cannot read is searched for episodes all the same.
    """
    names = {_bare(family.env) for family in paper.families}
    runs: list[str] = []
    demonstrated: set[tuple[str, int, int]] = set()
    for info in ledger.runs("train"):
        try:
            config = from_dict(TrainConfig, info.config, where=info.id)
            sources = {source.env for source in (*training_sources(config), *held_out_sources(config))}
        except ConfigError:
            runs.append(info.id)
            continue
        if not any(_bare(env) in names or ":" in env for env in sources):
            continue
        runs.append(info.id)
        tasks = demonstration_tasks(config)
        demonstrated.update((task.env, task.level, task.seed) for task in tasks if _bare(task.env) in names)
    render = Renderer()
    marks: set[str] = set()
    for place in demonstrated:
        with contextlib.suppress(ForetasteError):  # an environment that is gone
            marks.add(item_hash(render(*place)))
    return trained_on(ledger, runs_folder, runs) | marks if runs else frozenset()


def _bare(env: str) -> str:
    """Return an environment's id without its arguments and Gymnasium's namespace."""
    return env.partition("?")[0].removeprefix("foretaste/").removesuffix("-v1")
