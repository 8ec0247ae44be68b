"""A critic that is taught before a run of a study begins: once for a seed and a kind of lock, for all arms that ask.

It learns on many rule tables of `lock` that no study scores, from the play of a policy that answers at random and never
learns; `taught_arm` gives an arm the critic that comes out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from foretaste.config import GateConfig, TrainConfig, to_dict
from foretaste.lab.cells import Cell, lock_base
from foretaste.lab.jobs import Context, alone, code_version, config_key, train_arm
from foretaste.lab.methods import method
from foretaste.lab.study import Arm

WORK = "foretaste.lab.teaching:teach_and_train"
TABLES = 128
"""Rule tables that a critic is taught on."""
FIRST_TABLE = 100_000
"""Far from those that are scored; each seed teaches on tables of its own."""
GATE = GateConfig(max_probability=0.75)
"""The gate of the studies that have one."""


def prepared(made: TrainConfig, gate: GateConfig, *, at_once: bool, every: int) -> TrainConfig:
    """Return the run with a gate and a held-out measurement after so many steps.

    With a critic that sees a mistake `at_once` lambda between turns is 0: no later turn is needed to see it.
    """
    algorithm = dataclasses.replace(made.algorithm, turn_lambda=0.0) if at_once else made.algorithm
    held_out = dataclasses.replace(made.held_out, every=every)
    return dataclasses.replace(made, algorithm=algorithm, held_out=held_out, gate=gate)


def taught_arm(config: Callable[[int], TrainConfig], cell: Cell, tokens: int) -> Arm:
    """Return an arm that trains as `config` says, with a critic taught on locks like `cell` for so many tokens."""
    return Arm(config, WORK, {"cell": list(cell), "budget": tokens})


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
