"""What all arms of the comparison of learning share: the task's form, the budget, and when a result counts.

Standard library only: TRL's interpreter reads it too. The task is `learning_task.py`, the command `learning.py`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

ARMS = ("auto", "success-replay", "grpo", "leave-one-out", "trl")
TURNS = 6
"""Cues of an episode; a closing reply follows."""
OPTIONS = f"horizon={TURNS}&choices=4&critical=3&accepted=2&cues=4&visibility=at+once"
"""Of the lock: a policy that knows the form and no rule succeeds in (2/4)^3 = .125 of the attempts."""
NEW_TOKENS = 8
"""Of one reply; a call has 4."""
CONTEXT = 256
"""Tokens of an episode at most; one that keeps the form has about 110."""
EPISODES = 32
"""Sampled between two rounds of learning, by every arm."""
GROUP = 8
"""Attempts at an item, for the arms that compare attempts. `auto` and success replay play each item once."""
RATE_SEED = 100
"""Of the runs that settings are chosen on: other rules and other items than those of the comparison."""
UPDATES: dict[str, dict[int, dict[str, int]]] = {
    "auto": {1: {}, 4: {"policy_passes": 4, "success_passes": 32}},
    "success-replay": {1: {"success_passes": 8}, 4: {"success_passes": 32}},
    "grpo": {1: {"passes": 2}, 4: {"passes": 8}, 8: {"passes": 8, "minibatches": 4}},
    "leave-one-out": {1: {"passes": 2}, 4: {"passes": 8}, 8: {"passes": 8, "minibatches": 4}},
    "trl": {1: {}, 4: {"num_iterations": 4}, 8: {"num_iterations": 4, "per_device_train_batch_size": 4}},
}
"""Of each arm, the optimiser steps that it takes on a round's episodes, in multiples of its own default, and the
settings that take so many. TRL's `steps_per_generation` is 32 over `per_device_train_batch_size` (8 by default). A
multiple that an arm lacks is its largest below."""

TOOL, ARGUMENT = "pick", "word"
CALL = f"{TOOL} {ARGUMENT} "
"""How a call begins; the word and the end of the message follow."""
CLOSING = "done"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ 'user' if message['role'] == 'tool' else message['role'] }}\n{{ message['content'] }}"
    "{% for call in message['tool_calls'] or [] %}{% set called = call['function'] %}{{ called['name'] }}"
    "{% for name, value in called['arguments'].items() %} {{ name }} {{ value }}{% endfor %}{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""SmolLM2's own form, without its default system message, with calls, and with results as the user's messages."""
RESPONSE_TEMPLATE = {
    "defaults": {"role": "assistant"},
    "start_anchor": "<|im_start|>assistant\n",
    "fields": {
        "tool_calls": {
            "open": CALL,
            "close_pattern": r"<\|im_end\|>\s*",
            "repeats": True,
            "content": "text",
            "transform": {"type": "function", "function": {"name": TOOL, "arguments": {ARGUMENT: "{content}"}}},
        },
        "content": {"close_pattern": r"<\|im_end\|>\s*", "content": "text"},
    },
}
"""How transformers reads a call out of a reply."""


class Unfair(Exception):
    """Results that may not stand beside each other; the message says why."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a result was measured under. Results of different plans never meet in one table."""

    tokens: int
    """Sampled action tokens of an arm; sampling for the exam is not counted."""
    items: int
    """Held-out items of the exam."""
    warm: str
    """Content id of the checkpoint that every arm starts from."""
    task: str = OPTIONS
    episodes: int = EPISODES
    group: int = GROUP

    def key(self, arm: str, seed: int, rate: float, updates: int = 1) -> str:
        """Return the file name of a run's result; any change of the plan changes it."""
        more = [] if updates == 1 else [updates]
        text = json.dumps([asdict(self), arm, seed, rate, *more], sort_keys=True)
        digest = hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
        return f"{arm}-seed{seed}-{rate:g}-{''.join(f'x{one}-' for one in more)}{digest}.json"


@dataclass(frozen=True, slots=True)
class Result:
    """One run of one arm. A missing number is None."""

    arm: str
    seed: int
    rate: float
    plan: dict[str, Any]
    before: list[float | None]
    """Success on each held-out item, before training; None where the environment failed."""
    after: list[float | None]
    tokens: int
    """Sampled action tokens that were paid for."""
    last_tokens: int
    """Of the last round of sampling: by at most so many may a run exceed its budget."""
    episodes: int
    seconds: float
    """Of sampling and learning; loading, saving and the exam left out."""
    peak_bytes: int
    updates: int = 1
    """Optimiser steps on a round's episodes, in multiples of the arm's own default (`UPDATES`)."""


def check_fair(results: Sequence[Result], plan: Plan) -> None:
    """Raise Unfair unless all results have the plan, its budget, the exam's items and, by seed, the same start."""
    for one in results:
        name = f"{one.arm}, seed {one.seed}"
        if one.plan != asdict(plan):
            raise Unfair(f"{name} was measured under another plan: {one.plan}, not {asdict(plan)}")
        if one.tokens < plan.tokens:
            raise Unfair(f"{name} sampled {one.tokens} of {plan.tokens} tokens: its budget was not used up")
        if one.tokens - one.last_tokens >= plan.tokens:
            raise Unfair(f"{name} sampled {one.tokens} tokens: it went on after its {plan.tokens} were used up")
        if len(one.before) != plan.items or len(one.after) != plan.items:
            raise Unfair(f"{name} sat {len(one.before)} and {len(one.after)} of {plan.items} items")
        if any(other.before != one.before for other in results if other.seed == one.seed):
            raise Unfair(f"{name} did not start from the same success as the other arms of its seed")


class Setting(NamedTuple):
    """What each arm is tuned by."""

    rate: float
    updates: int


def best_settings(tries: Sequence[Result]) -> dict[str, Setting]:
    """Return of each arm the setting with the highest success after training; of equals the lowest rate, then updates.

    Raises: Unfair if an arm had other settings to choose from than the others, or more tokens to try them.
    """
    tried = {
        arm: sorted(Setting(one.rate, one.updates) for one in tries if one.arm == arm)
        for arm in dict.fromkeys(one.arm for one in tries)
    }
    if len({tuple(settings) for settings in tried.values()}) > 1:
        raise Unfair(f"the arms tried different learning rates or updates: {tried}")
    if len({one.plan["tokens"] for one in tries}) > 1 or any(one.seed != RATE_SEED for one in tries):
        raise Unfair(f"settings must be tried with one budget, on seed {RATE_SEED} alone")
    ranked = sorted(tries, key=lambda one: (-(mean(one.after) or 0.0), one.rate, one.updates))
    return {arm: next(Setting(one.rate, one.updates) for one in ranked if one.arm == arm) for arm in tried}


def knobs(arm: str, updates: int) -> dict[str, int]:
    """Return the settings by which an arm takes so many times its own number of optimiser steps on a round."""
    return UPDATES[arm][max(known for known in UPDATES[arm] if known <= updates)]


def mean(outcomes: Sequence[float | None]) -> float | None:
    """Return the share of judged items that were solved; None if none was judged."""
    judged = [outcome for outcome in outcomes if outcome is not None]
    return sum(judged) / len(judged) if judged else None
