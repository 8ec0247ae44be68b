"""Think longer: spend more tokens on an item, and let the value function say what to keep.

    one            one attempt
    vote           n attempts, the most frequent last answer                        (baseline)
    likelihood     n attempts, the one with the highest mean log-probability        (baseline)
    best           n attempts, the one that V rates highest at its end
    beam           each turn is sampled n times; the action after which V is highest is taken
    restart        an attempt is given up where V falls low and begun anew; it ends with the first that V is sure of

V at the end of an action is read before its last token, when everything it says is known and nothing of what the
environment answers: it costs nothing more. Every sampled token counts, those of dropped attempts too.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import gymnasium
import numpy as np

from foretaste.config import EnvConfig, HeldOutConfig, SamplingConfig, TrainConfig
from foretaste.errors import ConfigError, ModelError, unknown
from foretaste.models.actor_critic import ActorCritic
from foretaste.models.sampler import Sampler
from foretaste.records import Action, Conversation, Episode, EpisodeEnd, Interval, Message
from foretaste.rl.held_out import different_tasks
from foretaste.rl.player import Player
from foretaste.rl.rollout import EnvPool, rollout
from foretaste.rl.tasks import Task, keyed_seed
from foretaste.statistics import exact_interval

Method = Literal["one", "vote", "likelihood", "best", "beam", "restart"]
METHODS: tuple[Method, ...] = get_args(Method)
USES_VALUE: tuple[Method, ...] = ("best", "beam", "restart")


@dataclass(frozen=True, slots=True)
class Budget:
    """How much a method may try."""

    n: int = 8
    """Attempts at an item, or candidates of a turn."""
    give_up: float = 0.5
    """`restart`: an attempt ends where V falls below this share of V in its first state."""
    sure: float = 0.9
    """`restart`: an attempt that V rates this high at its end is kept without another."""


@dataclass(frozen=True, slots=True)
class Thought:
    """What a method came to on one item, and what it cost."""

    success: float | None
    """None where the environment failed in every attempt."""
    answer: str
    """The last action of the chosen attempt."""
    tokens: int
    """Sampled tokens of all attempts and candidates."""
    attempts: int


@dataclass(frozen=True, slots=True)
class Thinking:
    """A method on a set of items."""

    method: str
    n: int
    thoughts: tuple[Thought, ...]

    @property
    def interval(self) -> Interval | None:
        """Share of judged items solved, with its exact interval."""
        judged = [thought.success for thought in self.thoughts if thought.success is not None]
        return exact_interval(sum(1 for value in judged if value >= 1.0), len(judged)) if judged else None

    @property
    def tokens_per_item(self) -> float:
        """Sampled tokens an item."""
        return float(np.mean([thought.tokens for thought in self.thoughts])) if self.thoughts else 0.0

    def to_json(self) -> dict[str, Any]:
        """Return plain values; `solved` is None where nothing could be judged."""
        interval = self.interval
        return {
            "method": self.method,
            "n": self.n,
            "items": len(self.thoughts),
            "solved": interval and interval.mean,
            "interval": interval and [interval.low, interval.high],
            "tokens_per_item": self.tokens_per_item,
            "attempts_per_item": float(np.mean([thought.attempts for thought in self.thoughts])),
            "success": [thought.success for thought in self.thoughts],
            "tokens": [thought.tokens for thought in self.thoughts],
        }


def think(
    actor_critic: ActorCritic,
    env: EnvConfig,
    sampling: SamplingConfig,
    *,
    method: Method,
    items: int = 50,
    budget: Budget | None = None,
    seed: int = 0,
    env_class: Callable[[], gymnasium.Env[Any, Any]] | None = None,
) -> Thinking:
    """Try `items` held-out items with a method; which items, and the attempts, depend on the seed alone.

    Raises: ConfigError for an unknown method or budget, or another engine than `auto`; ModelError where V is needed
    and cannot be used: a checkpoint without a trained critic, or one with a privileged critic.
    """
    budget = budget or Budget()
    check_method(actor_critic, method, budget)
    if sampling.engine != "auto":
        raise ConfigError(f"sampling.engine = {sampling.engine!r} is for training; thinking samples by: 'auto'")
    sampler = Sampler(actor_critic, sampling)
    pool = EnvPool(env, env_class)
    config = TrainConfig(env=env, held_out=HeldOutConfig(seed=seed))
    tasks = [dataclasses.replace(task, sample_seed=0) for task in different_tasks(config, pool, "think", items)]
    attempt = _Attempts(sampler, pool, seed)
    if method == "beam":
        thoughts = _beam(sampler, pool, tasks, budget, seed)
    elif method == "restart":
        thoughts = _restart(attempt, tasks, budget)
    else:
        count = 1 if method == "one" else budget.n
        rounds = [attempt(tasks, index) for index in range(count)]
        thoughts = [_chosen(method, list(tries)) for tries in zip(*rounds, strict=True)]
    return Thinking(method, 1 if method == "one" else budget.n, tuple(thoughts))


def check_method(actor_critic: ActorCritic, method: str, budget: Budget) -> None:
    """Refuse a method or budget that cannot be used with a model.

    Raises: ConfigError for an unknown method or budget; ModelError where V is needed and cannot be used.
    """
    if method not in METHODS:
        raise ConfigError(unknown("method", method, METHODS))
    if budget.n < 1:
        raise ConfigError(f"n = {budget.n} cannot be used; accepted: 1 or more")
    if method not in USES_VALUE:
        return
    if actor_critic.config.privileged_critic:
        raise ModelError(
            f"The critic of {actor_critic.source!r} is privileged: it learned from text that only the environment "
            f"knows, so its V means nothing in use. Method {method!r} needs V; accepted without it: one, vote, "
            "likelihood. Train with model.privileged_critic = false for the others."
        )
    if not actor_critic.critic_restored:
        raise ModelError(
            f"{actor_critic.source!r} has no trained critic, and method {method!r} picks by V. Name a checkpoint "
            "written by `foretaste train`, or use: one, vote, likelihood"
        )
    if method == "restart" and not actor_critic.config.rates_success:
        raise ModelError(
            f"V of {actor_critic.source!r} is no probability of success (model.value_head = "
            f"{actor_critic.config.value_head!r}, model.value_range = {actor_critic.config.value_range}), and method "
            "'restart' compares shares of it. Accepted here: one, vote, likelihood, best, beam. Train with "
            'model.value_head = "bce" for restart.'
        )


class _Attempts:
    """Plays every task once more; attempt k at an item is the same whichever method asks for it."""

    def __init__(self, sampler: Sampler, pool: EnvPool, seed: int) -> None:
        self.sampler, self.pool, self.seed = sampler, pool, seed

    def __call__(self, tasks: Sequence[Task], index: int, *, stop: float = 0.0) -> list[Episode]:
        """Play attempt `index`; with `stop`, give up where V falls below that share of V at the start."""
        seeded = [
            dataclasses.replace(task, sample_seed=keyed_seed(self.seed, "think", task.seed, index)) for task in tasks
        ]

        def falls_low(player: Player, value: float) -> bool:
            values = player.turns[0].action.values
            return bool(values) and value < stop * values[0]

        return rollout(self.sampler, seeded, self.pool, give_up=falls_low if stop > 0 else None).episodes


def final_rating(episode: Episode) -> float:
    """Return V before the last token of the last action; -inf for an attempt that failed or was given up."""
    if episode.end in (EpisodeEnd.ERROR, EpisodeEnd.STOPPED) or not episode.turns:
        return -np.inf
    values = episode.turns[-1].action.values
    return values[-1] if values else -np.inf


def mean_logprob(episode: Episode) -> float:
    """Return the mean log-probability of the sampled tokens; -inf for an attempt that failed."""
    logprobs = [value for turn in episode.turns for value in turn.action.logprobs]
    return float(np.mean(logprobs)) if logprobs and episode.end is not EpisodeEnd.ERROR else -np.inf


def _last_answer(episode: Episode) -> str:
    return episode.turns[-1].action.text.strip() if episode.turns else ""


def _chosen(method: Method, tries: list[Episode]) -> Thought:
    """Pick one attempt, the earliest among equals."""
    if method == "vote":
        valid = [episode for episode in tries if episode.end is not EpisodeEnd.ERROR] or tries
        winner = Counter(map(_last_answer, valid)).most_common(1)[0][0]
        picked = next(episode for episode in valid if _last_answer(episode) == winner)
    elif method == "one":
        picked = tries[0]
    else:
        picked = max(tries, key=mean_logprob if method == "likelihood" else final_rating)
    return _thought(picked, tries)


def _thought(picked: Episode, tries: Sequence[Episode]) -> Thought:
    success = None if picked.end is EpisodeEnd.ERROR else picked.success or 0.0
    return Thought(success, _last_answer(picked), sum(episode.action_tokens for episode in tries), len(tries))


def _restart(attempt: _Attempts, tasks: Sequence[Task], budget: Budget) -> list[Thought]:
    """Try again until V is sure of an attempt, or n were made; the last one is never given up."""
    tries: list[list[Episode]] = [[] for _ in tasks]
    open_items = list(range(len(tasks)))
    for index in range(budget.n):
        last = index == budget.n - 1
        # An item whose attempts were all given up needs one that is played to its end.
        stops = {
            item: 0.0 if last and max(map(final_rating, tries[item]), default=-np.inf) == -np.inf else budget.give_up
            for item in open_items
        }
        for stop in sorted(set(stops.values())):
            chosen = [item for item in open_items if stops[item] == stop]
            for item, episode in zip(chosen, attempt([tasks[i] for i in chosen], index, stop=stop), strict=True):
                tries[item].append(episode)
        open_items = [item for item in open_items if final_rating(tries[item][-1]) < budget.sure]
        if not open_items:
            break
    return [_thought(max(found, key=final_rating), found) for found in tries]


def _beam(sampler: Sampler, pool: EnvPool, tasks: Sequence[Task], budget: Budget, seed: int) -> list[Thought]:
    """Sample every turn n times and take the action after which V is highest; the environment sees only that one."""
    players = [pool.player(task, None) for task in tasks]
    spent = [0] * len(tasks)
    live: list[tuple[int, Player, Conversation]] = []
    template = sampler.actor_critic.template
    for index, player in enumerate(players):
        conversation = player.start(str(index))
        if conversation is not None:
            conversation.tokens = template.start(conversation.messages)
            player.observation_tokens = tuple(conversation.tokens)
            live.append((index, player, conversation))
    while live:
        copies = [_copies(conversation, player, budget.n, seed) for _, player, conversation in live]
        actions = sampler.act([copy for group in copies for copy in group])
        remaining: list[tuple[int, Player, Conversation]] = []
        for row, (index, player, conversation) in enumerate(live):
            candidates = actions[row * budget.n : (row + 1) * budget.n]
            spent[index] += sum(len(action.tokens) for action in candidates)
            best = max(candidates, key=_rating)
            observation = player.answer(best)
            if observation is None or player.end is not None:
                continue
            follow = template.follow(observation, ended=not best.cut)
            tokens = [*conversation.tokens, *best.tokens, *follow]
            if len(tokens) >= sampler.max_context:
                player.cut()
                continue
            conversation.tokens = tokens
            conversation.messages += [Message("assistant", best.text), Message("user", observation)]
            player.observation_tokens = tuple(follow)
            remaining.append((index, player, conversation))
        live = remaining
    episodes = [player.episode() for player in players]
    for player in players:
        pool.give_back(player)
    return [
        dataclasses.replace(_thought(episode, [episode]), tokens=tokens)
        for episode, tokens in zip(episodes, spent, strict=True)
    ]


def _rating(action: Action) -> float:
    """Return V before the action's last token; an action that was cut short says nothing reliable and comes last."""
    return -np.inf if action.cut or not action.values else action.values[-1]


def _copies(conversation: Conversation, player: Player, count: int, seed: int) -> list[Conversation]:
    """Return candidates of a turn: the same tokens, other random streams."""
    found = []
    for k in range(count):
        key = keyed_seed(seed, "beam", player.task.seed, len(player.turns), k)
        copy = Conversation(f"{conversation.key}/{k}", conversation.messages, sample_seed=key)
        copy.tokens = list(conversation.tokens)
        found.append(copy)
    return found
