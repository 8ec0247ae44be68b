"""The work that `split-brain` and `student-a-b` share: learn from some wordings, be asked in others.

A tiny decoder copies demonstrations of `route` in the registers it is given, then answers fresh items, each in plain
words and in every register of the held-out families (`foretaste.registers`). The items differ from the
demonstrations, their vocabulary does not: what is measured is the wording alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from foretaste.config import EnvConfig, ImitateConfig, ModelConfig, SamplingConfig, TrainConfig, from_dict
from foretaste.envs.seeds import seed_for
from foretaste.errors import RunError
from foretaste.exams.gaps import split_brain
from foretaste.lab.jobs import Context
from foretaste.lab.study import Arm, Plan
from foretaste.registers import REGISTERS, families, trainable

WORK = "foretaste.lab.wordings:copy_and_examine"
HELD_OUT = tuple(name for name, register in REGISTERS.items() if register.held_out)
MANY = trainable()


def student(registers: tuple[str, ...], demonstrations: int) -> TrainConfig:
    """Return the config of a student: which wordings it is shown, and how often; everything else is alike."""
    return TrainConfig(
        env=EnvConfig("route", registers=registers, examples=0),
        model=ModelConfig("nano-xs", critic_layers=1),
        sampling=SamplingConfig(max_new_tokens=8, temperature=0.1, concurrent=128),
        imitate=ImitateConfig(episodes=demonstrations, passes=4, learning_rate=3e-3),
    )


def plan(students: Mapping[str, TrainConfig], seeds: int, items: int, minutes: float) -> Plan:
    """Return a plan with an arm for every student, each asked so many items; nothing is sampled for learning."""
    arms = {name: Arm(config, WORK, {"items": items}) for name, config in students.items()}
    return Plan(arms, seeds=tuple(range(1, seeds + 1)), token_budget=1, minutes=minutes)


def copy_and_examine(arguments: dict[str, Any], context: Context) -> dict[str, Any]:
    """Return success in plain words and in each held-out family, the gap, and split-brain.

    `lost`: P(wrong in a held-out wording | right in plain words) beyond what sampling again does, mean over wordings.
    `all_right`: share of the items that are right in every wording.

    Raises: RunError if an item could not be judged.
    """
    from foretaste.models.actor_critic import ActorCritic
    from foretaste.models.sampler import Sampler
    from foretaste.progress import Silent
    from foretaste.rl.imitate import imitate
    from foretaste.rl.rollout import EnvPool, rollout
    from foretaste.rl.tasks import Task, keyed_seed
    from foretaste.rl.update import Updater

    config, items = from_dict(TrainConfig, arguments["config"]), arguments["options"]["items"]
    pool = EnvPool(config.env)
    model = ActorCritic.load(config.model, seed=config.seed)
    updater = Updater(model, config.algorithm, temperature=config.sampling.temperature)
    context.report(0.0, "copying demonstrations")
    imitate(config, pool, updater, model.template, Silent())
    sampler = Sampler(model, config.sampling)
    seeds = [seed_for("train", index, secret=f"wordings {config.seed}") for index in range(items)]

    def asked(register: str, attempt: int = 0) -> np.ndarray:
        context.report(0.5, f"asked in {register}")
        draws = [keyed_seed(config.seed, register, attempt, seed) for seed in seeds]
        tasks = [Task(config.env.id, seed, 1, register, draw) for seed, draw in zip(seeds, draws, strict=True)]
        success = [episode.success for episode in rollout(sampler, tasks, pool).episodes]
        if None in success:
            raise RunError(
                f"an item in the wording {register!r} could not be judged, so the wordings cannot be compared"
            )
        return np.array(success, dtype=float)

    scores = {register: asked(register) for register in ("plain", *HELD_OUT)}
    split = split_brain(scores, asked("plain", 1))
    by_family = {
        family: float(np.mean([scores[name].mean() for name in names]))
        for family, names in sorted(families().items())
        if set(names) <= set(HELD_OUT)
    }
    plain, held_out = float(scores["plain"].mean()), float(np.mean(list(by_family.values())))
    return {
        "plain": plain,
        "held_out": held_out,
        "gap": plain - held_out,
        "lost": float(np.mean([loss.mean for loss in split.net_lost.values()])) if split.net_lost else None,
        "all_right": split.all_right,
        "demonstrations": config.imitate.episodes,
        **{f"family:{family}": value for family, value in by_family.items()},
    }
