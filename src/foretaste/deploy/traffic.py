"""A simulated world for `simulate.py`: requests that arrive, an incumbent that answers them, and a change midway.

Requests are items of environments, so that every answer can be judged. All of it follows from a seed and the
request's number: two runs meet the same traffic.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from foretaste.deploy.old_tasks import OldTask
from foretaste.envs.registry import make
from foretaste.envs.seeds import seed_for
from foretaste.errors import ConfigError
from foretaste.records import Message
from foretaste.rl.tasks import keyed_seed

Change = Literal["none", "policy", "register"]


@dataclass(frozen=True, slots=True)
class Part:
    """One kind of request."""

    env: str
    """A single-turn environment."""
    level: int = 1
    register: str = "plain"
    share: float = 1.0
    """Weight of this kind among all requests."""

    @property
    def name(self) -> str:
        """How it is called in figures."""
        return f"{self.env} {self.register}"


class Request(NamedTuple):
    """One request, with what nobody but the simulated world knows."""

    number: int
    part: Part
    messages: tuple[Message, ...]
    answer: str
    """The right answer, under the policy of the time."""
    incumbent: str
    """What the incumbent answers."""
    draw: float
    """Uniform in [0, 1): whether the learner may answer."""
    audit: float
    """Uniform in [0, 1), independent of `draw`: whether the answers are judged."""

    def right(self, text: str) -> bool:
        """Return whether an answer is right."""
        return same_answer(text, self.answer)


class World:
    """Makes requests; from request `change_at` on, the parts of `after` arrive and `moved` answers are others."""

    def __init__(
        self,
        before: tuple[Part, ...],
        after: tuple[Part, ...],
        moved: dict[str, str],
        *,
        change_at: int,
        incumbent_accuracy: float,
        seed: int,
    ) -> None:
        """`moved` maps answers to those that replace them after the change, e.g. billing -> account.

        Raises: ConfigError for shares that are none; what `make` raises for an unknown environment.
        """
        if not before or not after or min(part.share for part in (*before, *after)) <= 0:
            raise ConfigError("Every world needs at least one part, each with a share above 0")
        self.before, self.after, self.moved = before, after, moved
        self.change_at, self.accuracy, self.seed = change_at, incumbent_accuracy, seed
        self._envs = {part.env: make(part.env) for part in (*before, *after)}

    def request(self, number: int) -> Request:
        """Return the request of that number."""
        rng = random.Random(keyed_seed(self.seed, "request", number))
        changed = number >= self.change_at
        parts = self.after if changed else self.before
        part = rng.choices(parts, [one.share for one in parts])[0]
        prompt, answer, others = self._item(part, seed_for("train", number, secret=f"traffic {self.seed}"))
        if changed:
            answer = self.moved.get(answer, answer)
        wrong = [other for other in others if not same_answer(other, answer)]
        says = answer if rng.random() < self.accuracy else rng.choice(wrong)
        return Request(number, part, prompt, answer, says, rng.random(), rng.random())

    def old_tasks(self, count: int, label: str, parts: tuple[Part, ...]) -> list[tuple[OldTask, str]]:
        """Return items of `parts` whose right answer the change leaves alone, each with that answer.

        Different labels have different items.
        """
        found: list[tuple[OldTask, str]] = []
        number = 0
        while len(found) < count:
            part = parts[number % len(parts)]
            seed = seed_for("train", number, secret=f"old tasks {label} {self.seed}")
            prompt, answer, _ = self._item(part, seed)
            number += 1
            if answer not in self.moved:
                found.append((OldTask(part.name, prompt, _judge(answer), seed=number), answer))
        return found

    def _item(self, part: Part, seed: int) -> tuple[tuple[Message, ...], str, list[str]]:
        """Return an item's messages, its right answer, and answers that the incumbent may give by mistake."""
        env: Any = self._envs[part.env]
        observation, _ = env.reset(seed=seed, options={"level": part.level, "register": part.register})
        answer = str(env.unwrapped.oracle())
        queues = [str(queue) for queue in getattr(env.unwrapped, "queues", ())]
        return (Message("user", observation),), answer, queues or _near(answer)


def same_answer(one: str, other: str) -> bool:
    """Return whether two answers are the same up to blanks, case and a final full stop."""
    return one.strip().removesuffix(".").lower() == other.strip().removesuffix(".").lower()


def _judge(answer: str) -> Callable[[str], bool]:
    return lambda text: same_answer(text, answer)


def _near(answer: str) -> list[str]:
    """Return wrong answers of the same form."""
    try:
        return [str(int(answer) + 1), str(int(answer) - 1)]
    except ValueError:
        return [f"not {answer}"]
