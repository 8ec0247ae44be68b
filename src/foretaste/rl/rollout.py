"""Play many episodes at once: a policy on one side, environments on the other, Episodes out.

An `Engine` is driven as a stream (a finished conversation leaves, the next one enters, keys and values
stay between turns); any other `Policy` (an endpoint, an oracle) is driven in rounds of one turn each.
Next: `player.py` for one episode, `batch.py` for what training makes of the result.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeGuard

from foretaste.envs.guarded import Fault, guarded
from foretaste.envs.process import kept_process
from foretaste.records import Action, Conversation, Episode, EpisodeEnd, Message, Policy
from foretaste.rl.env_pool import EnvPool, Pool
from foretaste.rl.gate import Gate
from foretaste.rl.player import Player
from foretaste.rl.tasks import Task

if TYPE_CHECKING:
    from foretaste.models.turns import Ended, Engine, Next

__all__ = ["EnvPool", "Oracle", "Pool", "Rollout", "is_sampler", "rollout"]


@dataclass(frozen=True, slots=True)
class Rollout:
    """Episodes in the order of their tasks, and where the time went."""

    episodes: list[Episode]
    sample_seconds: float
    env_seconds: float


class Oracle:
    """The environment's own scripted solver as a policy: what is solvable, and how demonstrations look."""

    name = "oracle"

    def act(self, conversations: list[Conversation]) -> list[Action]:
        """Not callable: an oracle reads the state of its environment, so `rollout` asks the environment."""
        raise TypeError("an Oracle answers from inside its environment; pass it to rollout()")


def is_sampler(policy: Policy) -> TypeGuard[Engine]:
    """Return whether a policy samples from a model of this process.

    Whoever has such an engine has imported its module, and torch with it; an endpoint or an oracle waits for neither.
    """
    module = sys.modules.get("foretaste.models.turns")
    return module is not None and isinstance(policy, module.Engine)


def rollout(
    policy: Policy,
    tasks: Sequence[Task],
    pool: Pool,
    *,
    gate: Gate | None = None,
    give_up: Callable[[Player, float], bool] | None = None,
    checkpoint: str | None = None,
    on_episode: Callable[[Episode], None] | None = None,
) -> Rollout:
    """Play every task once.

    `gate` may stop episodes at turn boundaries with a known probability; `give_up(player, V)` stops them for certain,
    which would bias training and is for use alone (both: samplers only). `on_episode` is called as each ends.
    """
    started = time.perf_counter()
    with kept_process():
        if is_sampler(policy):
            play = _Streamed(policy, tasks, pool, gate, give_up, checkpoint, on_episode)
            play.run()
            players = play.players
        else:
            players = _play_in_rounds(policy, tasks, pool, checkpoint, on_episode)
    env_seconds = sum(player.env_seconds for player in players)
    return Rollout([player.episode() for player in players], time.perf_counter() - started - env_seconds, env_seconds)


class _Streamed:
    """The callbacks of one `Engine.run`."""

    def __init__(
        self,
        sampler: Engine,
        tasks: Sequence[Task],
        pool: Pool,
        gate: Gate | None,
        give_up: Callable[[Player, float], bool] | None,
        checkpoint: str | None,
        on_episode: Callable[[Episode], None] | None,
    ) -> None:
        self.sampler, self.tasks, self.pool, self.gate = sampler, tasks, pool, gate
        self.give_up, self.checkpoint, self.on_episode = give_up, checkpoint, on_episode
        self.players: list[Player] = []
        self.places: set[EnvPool] = set()
        # Tasks that come one by one depend on how those before them ended, so that none can begin ahead.
        self.ahead = isinstance(tasks, list | tuple)
        self.late: deque[tuple[Player, Action]] = deque()
        """Last turns that are still going on in threads, while their conversations have left the sampler."""

    def run(self) -> None:
        self.sampler.run(
            self._conversations(),
            self._on_action,
            on_state=self._on_state if self.gate or self.give_up else None,
            on_value=self._on_value,
            on_ended=self._on_ended,
        )
        while self.late:
            self._finish_late()

    def _upcoming(self) -> Iterator[tuple[str, Player]]:
        """Make the players of the tasks, the next ones' slow resets begun in threads."""
        begun: deque[tuple[str, Player]] = deque()
        for index, task in enumerate(self.tasks):
            place = self.pool.of(task)
            self.places.add(place)
            player = place.player(task, self.checkpoint)
            self.players.append(player)
            begun.append((str(index), player))
            wanted = 0
            if self.ahead and place.in_threads("reset"):
                player.begin()
                wanted = place.config.threads
            while len(begun) > wanted:
                yield begun.popleft()
        yield from begun

    def _conversations(self) -> Iterator[Conversation]:
        template = self.sampler.actor_critic.template
        for key, player in self._upcoming():
            self._finish_those_over()
            conversation = player.start(key)
            self.pool.of(player.task).note("reset", player)
            if conversation is None:
                self._over(player)
                continue
            conversation.tokens = template.start(conversation.messages)
            if len(conversation.tokens) >= self.sampler.max_context:
                player.end, player.error = (
                    EpisodeEnd.ERROR,
                    (
                        f"the prompt has {len(conversation.tokens)} tokens and sampling.max_context is "
                        f"{self.sampler.max_context}; raise it or lower env.examples"
                    ),
                )
                self._over(player)
                continue
            player.observation_tokens = tuple(conversation.tokens)
            yield conversation

    def _on_ended(self, ended: Ended) -> None:
        """Begin slow steps in threads, all that come in this pass at once."""
        self._finish_those_over()
        if not any(place.in_threads("step") for place in self.places):
            return
        for conversation, action in ended():
            player = self.players[int(conversation.key)]
            if self.pool.of(player.task).in_threads("step"):
                player.begin_step(action)

    def _finish_those_over(self) -> None:
        while self.late and not self.late[0][0].waits:
            self._finish_late()

    def _finish_late(self) -> None:
        player, action = self.late.popleft()
        player.answer(action)
        self.pool.of(player.task).note("step", player)
        self._over(player)

    def _on_action(self, conversation: Conversation, action: Action) -> Next | None:
        from foretaste.models.turns import Next

        player = self.players[int(conversation.key)]
        if self.ahead and player.waits and player.in_last_turn:  # the sampler need not wait for how it ends
            self.late.append((player, action))
            return None
        observation = player.answer(action)
        self.pool.of(player.task).note("step", player)
        if observation is None:
            self._over(player)
            return None
        conversation.messages += [Message("assistant", action.text), Message("user", observation)]
        tokens = self.sampler.actor_critic.template.follow(observation, ended=not action.cut)
        room = self.sampler.max_context - len(conversation.tokens)
        player.observation_tokens = tuple(tokens[:room])  # what the sampler reads of them
        if player.end is None and len(tokens) >= room:
            player.cut()  # no room for another action; the sampler still reads V, as far in as it can
        return Next(tokens, generate=player.end is None)

    def _on_state(self, conversation: Conversation, value: float) -> bool:
        player = self.players[int(conversation.key)]
        stop = bool(self.give_up and self.give_up(player, value))
        if self.gate is not None:
            past, key = [turn.gate_probability for turn in player.turns], (player.task.sample_seed, len(player.turns))
            player.gate_probability, stop = self.gate.decide(value, past, key, player.turns[0].action.values[0])
        if stop:
            player.stop(value)
            self._over(player)
        return not stop

    def _on_value(self, conversation: Conversation, value: float) -> None:
        player = self.players[int(conversation.key)]
        player.final_value = value
        self._over(player)

    def _over(self, player: Player) -> None:
        self.pool.of(player.task).give_back(player)
        if self.on_episode:
            self.on_episode(player.episode())


def _play_in_rounds(
    policy: Policy,
    tasks: Sequence[Task],
    pool: Pool,
    checkpoint: str | None,
    on_episode: Callable[[Episode], None] | None,
) -> list[Player]:
    """Drive a text policy: every live conversation takes one turn a round."""
    players = [pool.of(task).player(task, checkpoint) for task in tasks]
    live: list[tuple[Player, Conversation]] = []

    def over(player: Player) -> None:
        pool.of(player.task).give_back(player)
        if on_episode:
            on_episode(player.episode())

    for index, player in enumerate(players):
        conversation = player.start(str(index))
        if conversation is None:
            over(player)
        else:
            live.append((player, conversation))
    while live:
        if isinstance(policy, Oracle):
            actions = [_asked(player) for player, _ in live]
        else:
            actions = policy.act([conversation for _, conversation in live])
        remaining: list[tuple[Player, Conversation]] = []
        for (player, _), action in zip(live, actions, strict=True):
            if action is None:
                over(player)
                continue
            if pool.of(player.task).in_threads("step"):
                player.begin_step(action)
        for (player, conversation), action in zip(live, actions, strict=True):
            if action is None:
                continue
            observation = player.answer(action)
            pool.of(player.task).note("step", player)
            if observation is None or player.end is not None:
                over(player)
                continue
            conversation.messages += [Message("assistant", action.text), Message("user", observation)]
            remaining.append((player, conversation))
        live = remaining
    return players


def _asked(player: Player) -> Action | None:
    """Return the action of the environment's oracle; None where it fails, which ends the episode with an error."""

    def oracle() -> str:
        action = player.env.unwrapped.oracle()  # pyright: ignore[reportAttributeAccessIssue]
        if not isinstance(action, str):
            raise Fault(f"the oracle returned an action of type {type(action).__name__}; return str")
        return action

    try:
        return Action(guarded("the oracle", oracle))
    except Fault as fault:
        player.fail(str(fault))
        return None
