"""Plays the attempts of a sitting: a model as a stream, an endpoint in threads, any other policy in batches.

Environments are stepped in the calling thread alone; only requests to an endpoint run beside it. Each
answer is handed over as its episode ends, so that what is answered is kept whatever happens next.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from foretaste.envs.guarded import Fault, guarded
from foretaste.envs.process import kept_process
from foretaste.errors import EnvError
from foretaste.exams.endpoint import Endpoint
from foretaste.records import Action, Conversation, Episode, EpisodeEnd, Message, Policy
from foretaste.rl.player import Player
from foretaste.rl.rollout import Oracle, Pool, is_sampler, rollout
from foretaste.rl.tasks import Task

OnEpisode = Callable[[Episode, str | None], None]
"""(episode, why the endpoint gave a request of it up)."""


class _Live(NamedTuple):
    player: Player
    conversation: Conversation


class _Lazy(Sequence[Task]):
    """Tasks that stop coming when the verdict is certain; `rollout` only iterates."""

    def __init__(self, tasks: Iterable[Task]) -> None:
        self.tasks = tasks

    def __iter__(self) -> Iterator[Task]:
        return iter(self.tasks)

    def __len__(self) -> int:
        raise TypeError("it is not known how many tasks will come")

    def __getitem__(self, index: Any) -> Any:
        raise TypeError("tasks come one after another")


def play(
    policy: Policy,
    tasks: Iterable[Task],
    pool: Pool,
    on_episode: OnEpisode,
    *,
    concurrent: int,
    checkpoint: str | None = None,
) -> None:
    """Play every task once, at most `concurrent` at the same time.

    Raises: ModelError if the endpoint cannot work at all; whatever else the policy raises.
    """
    if is_sampler(policy):
        rollout(policy, _Lazy(tasks), pool, checkpoint=checkpoint, on_episode=lambda episode: on_episode(episode, None))
        return
    asking = _Threads(policy, concurrent) if isinstance(policy, Endpoint) else _Batches(policy)
    try:
        with kept_process():
            _play_texts(asking, iter(tasks), pool, on_episode, concurrent, checkpoint)
    finally:
        asking.close()


def _play_texts(
    asking: _Threads | _Batches,
    tasks: Iterator[Task],
    pool: Pool,
    on_episode: OnEpisode,
    concurrent: int,
    checkpoint: str | None,
) -> None:
    live = 0

    def over(player: Player, failure: str | None = None) -> None:
        on_episode(player.episode(), failure)
        pool.of(player.task).give_back(player)

    while True:
        while live < concurrent and (task := next(tasks, None)) is not None:
            player = pool.of(task).player(task, checkpoint)
            conversation = player.start(str(task.sample_seed))
            if conversation is None:
                over(player)
            else:
                asking.ask(_Live(player, conversation))
                live += 1
        if not live:
            return
        (player, conversation), action, failure = asking.answered()
        if action is None:  # nothing was said: the item has failed, and the environment is left where it was
            player.end, player.error = EpisodeEnd.ERROR, " ".join((failure or "no answer").split())
            over(player, failure if isinstance(asking, _Threads) else None)
            live -= 1
            continue
        observation = player.answer(action)
        if observation is None or player.end is not None:
            over(player)
            live -= 1
            continue
        conversation.messages += [Message("assistant", action.text), Message("user", observation)]
        asking.ask(_Live(player, conversation))


class _Batches:
    """Answers of a policy in this process: all waiting conversations in one call."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._waiting: list[_Live] = []
        self._ready: list[tuple[_Live, Action | None, str | None]] = []

    def ask(self, live: _Live) -> None:
        """Queue a conversation."""
        self._waiting.append(live)

    def answered(self) -> tuple[_Live, Action | None, str | None]:
        """Return (conversation, action, None), or (conversation, None, why not)."""
        if not self._ready:
            waiting, self._waiting = self._waiting, []
            if isinstance(self.policy, Oracle):
                self._ready = [_oracle(live) for live in waiting]
            else:
                actions = self.policy.act([live.conversation for live in waiting])
                self._ready = [(live, action, None) for live, action in zip(waiting, actions, strict=True)]
            self._ready.reverse()
        return self._ready.pop()

    def close(self) -> None:
        """Nothing is open."""


def _oracle(live: _Live) -> tuple[_Live, Action | None, str | None]:
    oracle: Any = getattr(live.player.env.unwrapped, "oracle", None)
    try:
        return live, Action(guarded("the oracle", lambda: str(oracle()))), None
    except Fault as fault:  # an environment without an oracle, or one that fails
        known = isinstance(fault.__cause__, EnvError)
        return live, None, str(fault.__cause__) if known else f"the oracle failed: {fault}"


class _Threads:
    """Requests to an endpoint, `concurrent` at a time. The threads are daemons: Ctrl-C does not wait for them."""

    def __init__(self, endpoint: Endpoint, concurrent: int) -> None:
        self.endpoint = endpoint
        self._asked: queue.SimpleQueue[_Live | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[tuple[_Live, Action | None, str | None, BaseException | None]] = (
            queue.SimpleQueue()
        )
        self._open = True
        for _ in range(concurrent):
            threading.Thread(target=self._work, daemon=True).start()
        self._threads = concurrent

    def ask(self, live: _Live) -> None:
        """Send a conversation's next request as soon as a thread is free."""
        self._asked.put(live)

    def answered(self) -> tuple[_Live, Action | None, str | None]:
        """Return the next answer to come, whichever it is."""
        live, action, failure, error = self._answers.get()
        if error is not None:
            raise error
        return live, action, failure

    def close(self) -> None:
        """Send no further request; threads end with the request they are in."""
        self._open = False
        for _ in range(self._threads):
            self._asked.put(None)

    def _work(self) -> None:
        while (live := self._asked.get()) is not None and self._open:
            key = live.conversation.key
            try:
                action = self.endpoint.answer(live.conversation)
                failure = self.endpoint.failures.get(key)
                self._answers.put((live, None if failure else action, failure, None))
            except BaseException as error:
                self._answers.put((live, None, None, error))
