"""How often each source of items is drawn: uniformly, in an order, or by learning progress.

A bandit over sources. Its shares of a step follow from the config and the episodes before that step, and its
state is part of the resume point, so a resumed run draws what an uninterrupted one would have drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from foretaste.config import CurriculumConfig
from foretaste.records import Episode, EpisodeEnd
from foretaste.rl.gate import episode_weight
from foretaste.rl.sources import Source


class Standing(NamedTuple):
    """What the newest episodes say of a source."""

    success: float
    """Of the newest `window` episodes."""
    progress: float
    """Learning progress, see `Curriculum`."""


class Curriculum:
    """Remembers the outcomes of each source's newest episodes, and turns them into shares.

    Learning progress of a source is the absolute difference between its success in the newer and the older half of
    its newest 2 * `window` episodes, plus the standard error of that difference:

        progress = |p_new - p_old| + sqrt(p (1 - p) (1 / n_new + 1 / n_old))

    Forgetting counts like learning, since both call for practice. The error makes it an upper bound, as in any
    optimistic bandit: a source of which little is known, or whose success is neither 0 nor 1, is not given up for one
    flat window, while hopeless (p = 0) and finished (p = 1) sources fall to 0. Mean |advantage| (2505.14970) reads the
    same two ends off a single step, but gives a source of pure chance the same share for ever; here it falls with the
    window. Loss-based gains (1704.03003) need a loss that falls as the policy learns, which the policy gradient's
    does not.

    Until a source has `window` judged episodes it counts as the most promising of those that are known. An episode
    that failed is no evidence; one that the gate stopped is represented by survivors, with their weights.

    Source: absolute learning progress over a window of outcomes, Colas et al. 1810.06284 section 3; bandits over
    sources, Graves et al. 1704.03003; optimism, Auer et al. 2002.
    """

    def __init__(self, config: CurriculumConfig, sources: Sequence[Source]) -> None:
        self.config = config
        self.sources = tuple(sources)
        self.outcomes: list[list[tuple[float, float]]] = [[] for _ in self.sources]
        """(success, weight) of each source's newest judged episodes, oldest first."""

    def shares(self) -> list[float]:
        """Return the probability of each source for the next step's items, in the order of the config."""
        count = len(self.sources)
        chosen = self._chosen()
        total = sum(chosen)
        if total <= 0:
            return [1 / count] * count
        explore = self.config.explore
        return [explore / count + (1 - explore) * weight / total for weight in chosen]

    def standings(self) -> list[Standing | None]:
        """Return what is known of each source; None below `window` judged episodes."""
        return [self._standing(outcomes) for outcomes in self.outcomes]

    def update(self, episodes: Sequence[Episode]) -> dict[str, Any]:
        """Take in a step's episodes; return what the ledger keeps of the step, one entry a source."""
        drawn, shares = [0] * len(self.sources), self.shares()
        for episode in episodes:
            index = next(
                i for i, one in enumerate(self.sources) if one.covers(episode.env, episode.level, episode.register)
            )
            drawn[index] += 1
            if episode.success is not None and episode.end is not EpisodeEnd.ERROR:
                judged = (float(episode.success), episode_weight(episode))
                self.outcomes[index] = [*self.outcomes[index], judged][-2 * self.config.window :]
        standings = self.standings()
        return {
            "sources": [source.name for source in self.sources],
            "share": shares,
            "episodes": drawn,
            "success": [one and one.success for one in standings],
            "progress": [one and one.progress for one in standings],
        }

    def state(self) -> list[list[list[float]]]:
        """Return what `load` restores."""
        return [[list(judged) for judged in outcomes] for outcomes in self.outcomes]

    def load(self, state: list[list[list[float]]]) -> None:
        """Restore a state returned by `state`."""
        self.outcomes = [[(success, weight) for success, weight in outcomes] for outcomes in state]

    def _chosen(self) -> list[float]:
        """Return weights of the sources beside exploration; all 0 where the order has no opinion."""
        standings, order = self.standings(), self.config.order
        if order == "learning_progress":
            known = [one.progress for one in standings if one is not None]
            return [max(known, default=0.0) if one is None else one.progress for one in standings]
        open_ = [i for i, one in enumerate(standings) if one is None or one.success < self.config.mastered]
        if order == "uniform" or not open_ or (order == "easiest_first" and None in standings):
            return [0.0] * len(standings)
        next_ = open_[0] if order == "listed" else max(open_, key=lambda i: one.success if (one := standings[i]) else 0)
        return [float(i == next_) for i in range(len(standings))]

    def _standing(self, outcomes: Sequence[tuple[float, float]]) -> Standing | None:
        if len(outcomes) < self.config.window:
            return None
        middle = len(outcomes) // 2
        old, new, both = (_mean(part) for part in (outcomes[:middle], outcomes[middle:], outcomes))
        spread = both * (1 - both) * (1 / middle + 1 / (len(outcomes) - middle))
        return Standing(_mean(outcomes[-self.config.window :]), abs(new - old) + math.sqrt(max(0.0, spread)))


def metrics_of(record: dict[str, Any]) -> dict[str, float]:
    """Return a step's figures over all sources, from what `Curriculum.update` returned."""
    shares, known = record["share"], [value for value in record["progress"] if value is not None]
    metrics = {"curriculum/sources": math.exp(-sum(share * math.log(share) for share in shares if share > 0))}
    return metrics | ({"curriculum/progress": sum(known) / len(known)} if known else {})


def _mean(outcomes: Sequence[tuple[float, float]]) -> float:
    """Return the mean success, each episode counted as often as it stands for others."""
    return sum(success * weight for success, weight in outcomes) / sum(weight for _, weight in outcomes)
