"""`taught`: what is a value function worth that has learned on other tasks of the kind before this one begins?

Once for every seed a critic is taught on many rule tables of `lock`, by the play of a policy that answers at random and
never learns. Then each method meets a table that neither it nor the critic has seen.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from foretaste.config import TrainConfig, to_dict
from foretaste.lab.cells import METRIC, Cell, lock_base, median_tokens, ratio, times_fewer, tokens_text
from foretaste.lab.jobs import Context, alone, code_version, config_key, train_arm
from foretaste.lab.methods import method
from foretaste.lab.results import Results
from foretaste.lab.sequences import Bounds
from foretaste.lab.study import Arm, Expectation, Plan, Study

WORK = "foretaste.lab.taught:teach_and_train"
TABLES = 128
"""Rule tables that a critic is taught on."""
FIRST_TABLE = 100_000
"""Far from those that are scored; each seed teaches on tables of its own."""
REPLAY = "success-replay"
KIND = "at once"
"""The kind of lock whose critic is also put to use where it does not belong."""

RARE, RARER, LATE = Cell(5, "at once", 10), Cell(8, "at once", 10), Cell(5, "late", 10)
SILENT = Cell(5, "silent", 10)


def teaching(cell: Cell, seed: int, budget: int) -> TrainConfig:
    """Return the run that teaches a critic a kind of lock: many tables at once, and a policy that stands still."""
    made = method("value", lock_base(cell, seed))
    tables = cell.with_tables(table=FIRST_TABLE + TABLES * seed, tables=TABLES)
    return dataclasses.replace(
        made,
        env=dataclasses.replace(made.env, id=tables),
        algorithm=dataclasses.replace(made.algorithm, freeze_policy=True),
        replay=dataclasses.replace(made.replay, critic_episodes=256, policy_passes=0, success_episodes=0),
        held_out=dataclasses.replace(made.held_out, items=32, every=0, seed=seed),
        episodes_per_step=64,
        token_budget=budget,
        steps=100_000,
        seed=seed,
    )


def teach_and_train(arguments: dict[str, Any], context: Context) -> dict[str, Any]:
    """Teach the critic that the options name, or take it from the run that did, then train with it."""
    options = arguments["options"]
    teacher = teaching(Cell(*options["cell"]), arguments["seed"], options["budget"])
    critic = _taught(teacher, context)
    config = arguments["config"]
    trained = train_arm({"config": {**config, "model": {**config["model"], "critic_from": critic}}}, context)
    return trained | {"teaching_tokens": float(options["budget"])}


def _taught(teacher: TrainConfig, context: Context) -> str:
    """Return the checkpoint of a teaching run: one that is finished, or a new one. Arms that share it wait for it."""
    from foretaste.rl.train import train

    key = f"{config_key(to_dict(teacher))}-{code_version(WORK)}"
    place = context.folder / "lab" / "taught" / key
    context.report(0.0, "teach the critic")
    with alone(context.folder / "lab" / "locks" / f"taught-{key}"):
        if not place.exists():
            path = train(dataclasses.replace(teacher, runs_folder=str(context.folder))).path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(path, encoding="utf-8")
        return place.read_text(encoding="utf-8")


def _arm(name: str, cell: Cell, *, kind: str | None, teaching_tokens: int) -> Arm:
    """Return a method in a cell, with a critic taught on five critical cues and mistakes of a `kind`, or with none."""

    def config(seed: int) -> TrainConfig:
        made = method(name, lock_base(cell, seed))
        return dataclasses.replace(made, held_out=dataclasses.replace(made.held_out, every=2))

    if kind is None:
        return Arm(config)
    return Arm(config, WORK, {"cell": list(Cell(5, kind, cell.horizon)), "budget": teaching_tokens})


def _plan(cells: tuple[Cell, ...], seeds: tuple[int, ...], budget: int, teaching_tokens: int, minutes: float) -> Plan:
    arms: dict[str, Any] = {}
    for cell in cells:
        words = {"taught": cell.visibility, "auto": None, REPLAY: None}
        if cell == SILENT:
            words = {"misled": KIND, REPLAY: None}
        for name, kind in words.items():
            method_name = REPLAY if name == REPLAY else "auto"
            arms[f"{name} @ {cell.name}"] = _arm(method_name, cell, kind=kind, teaching_tokens=teaching_tokens)
    return Plan(arms, seeds=seeds, token_budget=budget, minutes=minutes, max_steps=2000)


PLACES: dict[str, tuple[str, tuple[Cell, ...]]] = {
    "taught, rarer": ("taught", (RARER,)),
    "taught, rare": ("taught", (RARE, LATE)),
    "misled, silent": ("misled", (SILENT,)),
}
"""The arm that an expectation is about, and the cells over which its log ratio is averaged."""


def effects(results: Results, expectation: Expectation) -> dict[int, Bounds]:
    """Return each seed's mean log ratio, over the expectation's cells, of success replay's tokens to those of ours."""
    name, planned = PLACES[expectation.treatment]
    cells = [cell for cell in planned if f"{name} @ {cell.name}" in results.arms]
    found = {}
    for seed in results.seeds:
        known = [bounds for cell in cells if (bounds := ratio(results, name, cell, seed)) is not None]
        if cells and len(known) == len(cells):
            low, high = (sum(ends) / len(known) for ends in zip(*known, strict=True))
            found[seed] = Bounds(low, high)
    return found


def rows(results: Results) -> list[dict[str, Any]]:
    """Return one row a cell: median tokens to half success, and after how many such tasks the teaching has paid."""
    found = []
    for cell in (RARE, RARER, LATE, SILENT):
        arms = {name: f"{name} @ {cell.name}" for name in ("taught", "misled", "auto", REPLAY)}
        medians = {name: median_tokens(results, arm) for name, arm in arms.items() if arm in results.arms}
        if not medians:
            continue
        ours = "misled" if "misled" in medians else "taught"
        done = [result for seed in results.seeds if (result := results.result(arms[ours], seed))]
        spent = done[0]["teaching_tokens"] if done else None
        row: dict[str, Any] = {"start": cell.start, "mistakes": cell.visibility}
        row["critic taught where they show"] = KIND if ours == "misled" else cell.visibility
        row |= {f"{name}, tokens": tokens_text(tokens) for name, tokens in medians.items()}
        row["times fewer"] = times_fewer(medians[REPLAY], medians[ours])
        row["tokens to teach"] = spent and f"{spent:,.0f}"
        row["tasks until it has paid"] = _paid(spent, medians[REPLAY] - medians[ours])
        found.append(row)
    return found


def _paid(spent: float | None, saved: float) -> str:
    if spent is None or not math.isfinite(saved):
        return "not known"
    return f"{spent / saved:.0f}" if saved > 0 else "never"


STUDY = Study(
    name="taught",
    claim=(
        "A value function taught once on other tasks of the kind needs at least 5 times fewer tokens to half success "
        "than success replay where success starts at 0.4% and mistakes can be seen, and at least 2 times fewer at 3%"
    ),
    source="a trained value function is a product: what going wrong looks like need not be learned anew for each task",
    expectations=(
        Expectation(METRIC, "taught, rarer", REPLAY, size=5.0, effect="speedup", center="median"),
        Expectation(METRIC, "taught, rare", REPLAY, size=2.0, effect="speedup", center="median"),
        Expectation(METRIC, "misled, silent", REPLAY, size=0.8, effect="speedup", center="median", required=False),
    ),
    quick=_plan((RARE, RARER, SILENT), (1, 2), 10_000, 40_000, 5),
    full=_plan((RARE, RARER, LATE, SILENT), tuple(range(201, 213)), 30_000, 200_000, 60),
    effects=effects,
    rows=rows,
    notes=(
        "taught: `auto` with a critic from another run, which played 128 other rule tables at random and learned "
        "nothing but values. misled: the same where mistakes never show, with a critic that knows locks whose do.",
        "auto: without such a critic. success-replay: without any, the best baseline of credit-map in every cell.",
        "Every seed has a teaching, a warm start and rule tables of its own; none was seen before the settings stood.",
        "Teaching is played with five critical cues, also for the lock with eight.",
        "Tokens of the teaching are not in those of a method: they are spent once, and stand in a column of their own.",
        "Quick mode has two seeds, too few for an interval of a median: it shows figures and stays undecided.",
    ),
)
