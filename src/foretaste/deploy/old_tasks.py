"""The gate of old tasks: nothing is promoted that forgets what the accepted version could do.

Candidate and accepted version answer the same old items. Two e-values, both valid at any time, look at the pairs:
one shows that the candidate is at most `margin` worse (the gate opens), one that it is worse (forgetting, named task by
task). Neither: more items are needed. Which items are old is a person's choice: those whose right answer still holds.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp

from foretaste.deploy.analysis import Finding, Verdict
from foretaste.exams.sequential import paired_log_e_value
from foretaste.records import Conversation, Message, Policy

MARGIN = 0.05
"""Loss of success on old tasks that is not worth holding a promotion for."""
BETS = 40
"""Sizes of the bet that are mixed."""


class OldTask(NamedTuple):
    """One item that the learner has to keep."""

    task: str
    """Its name in reports, e.g. "route plain"."""
    messages: tuple[Message, ...]
    right: Callable[[str], bool]
    """Whether an answer is right."""
    seed: int = 0
    """Seed of the policy's random stream on this item: the same for both versions."""


class Pair(NamedTuple):
    """One old item answered by both versions."""

    task: str
    accepted: bool
    """The accepted version was right."""
    candidate: bool


def log_e_not_worse(wins: ArrayLike, losses: ArrayLike, same: ArrayLike, margin: float) -> NDArray[np.float64]:
    """Return ln E of "the candidate is worse by `margin` or more", from items won, lost and answered alike.

        E = mean over bets b in (0, 1/(1 - m)) of (1 + b (1 + m))^wins (1 + b m)^same (1 - b (1 - m))^losses

    m = margin; vectorised over counts. Every factor has mean at most 1 if E[candidate - accepted] <= -m, so
    P(E >= 1/delta at any time) <= delta.

    Source: testing by betting on a bounded mean, Waudby-Smith & Ramdas 2010.09686, with a uniform mixture of bets.
    """
    bets = (np.arange(BETS) + 0.5) / BETS / (1 - margin)
    won, lost, alike = (np.asarray(count, dtype=float)[..., None] for count in (wins, losses, same))
    log_e = (
        won * np.log1p(bets * (1 + margin)) + alike * np.log1p(bets * margin) + lost * np.log1p(-bets * (1 - margin))
    )
    return np.asarray(logsumexp(log_e, axis=-1)) - math.log(BETS)


def old_tasks_gate(pairs: Iterable[Pair], *, margin: float = MARGIN, delta: float = 0.05) -> Finding:
    """Say whether the candidate kept the old tasks; looks after every pair and stops at the first verdict.

    Success: at most `margin` worse, failure: worse, each with confidence 1 - delta whenever it is said. With no pair
    there is nothing to forget yet, which is a success.
    """
    shown = list(pairs)
    if not shown:
        return Finding("old tasks", Verdict.SUCCESS, "there is no accepted version yet that could be forgotten")
    wins = np.cumsum([pair.candidate and not pair.accepted for pair in shown])
    losses = np.cumsum([pair.accepted and not pair.candidate for pair in shown])
    limit = -math.log(delta)
    kept = log_e_not_worse(wins, losses, np.arange(1, len(shown) + 1) - wins - losses, margin) >= limit
    for n, (won, lost) in enumerate(zip(wins.tolist(), losses.tolist(), strict=True), start=1):
        figure = f"{lost} lost and {won} gained of {n} old items"
        if lost > won and paired_log_e_value(won, lost) >= limit:
            named = Counter(pair.task for pair in shown[:n] if pair.accepted and not pair.candidate)
            tasks = ", ".join(f"{task} ({count} lost)" for task, count in named.most_common())
            return Finding("old tasks", Verdict.FAILURE, f"forgetting: {figure}: {tasks}")
        if kept[n - 1]:
            return Finding("old tasks", Verdict.SUCCESS, f"{figure}: at most {margin:.0%} worse")
    figure = f"{losses[-1]} lost and {wins[-1]} gained of {len(shown)} old items"
    return Finding("old tasks", Verdict.INCONCLUSIVE, f"{figure}: too few to rule out a loss of {margin:.0%}")


def answers(policy: Policy, tasks: Sequence[OldTask]) -> list[bool]:
    """Let a policy answer every old item once; return which were right."""
    conversations = [
        Conversation(f"old {index}", list(task.messages), sample_seed=task.seed) for index, task in enumerate(tasks)
    ]
    return [task.right(action.text) for task, action in zip(tasks, policy.act(conversations), strict=True)]


def pairs_of(tasks: Sequence[OldTask], accepted: Sequence[bool], candidate: Sequence[bool]) -> list[Pair]:
    """Return the pairs of two versions' results on the same items, in order."""
    return [Pair(task.task, a, c) for task, a, c in zip(tasks, accepted, candidate, strict=True)]
