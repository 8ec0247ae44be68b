"""The learner's own process: holds an actor-critic, answers many chats at once, takes up new weights in between.

The server speaks to it over a pipe (`learner_client.py`). A receiver's thread sorts what comes; the main thread
samples, and lets requests join and leave a running batch. New weights are loaded in a third thread while the old
ones go on; then no request is admitted until the running ones have ended, and the new ones take over. If the pipe
closes (the server is gone) the process ends.
"""

from __future__ import annotations

import heapq
import itertools
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, NamedTuple

from foretaste.deploy.records import LearnerAnswer
from foretaste.deploy.settings import LearnerConfig
from foretaste.records import Action, Conversation, Message

if TYPE_CHECKING:
    from foretaste.models.sampler import Sampler


class Ask(NamedTuple):
    """One chat to answer."""

    job: int
    messages: list[tuple[str, str]]
    seed: int
    urgent: bool


class Cancel(NamedTuple):
    """Nobody waits for this job any more."""

    job: int


class Load(NamedTuple):
    """Take up the weights in this folder."""

    path: str


class Stop(NamedTuple):
    """End the process."""


class Answered(NamedTuple):
    """The answer to a job."""

    job: int
    answer: LearnerAnswer


class Failed(NamedTuple):
    """A job that gets no answer."""

    job: int
    reason: str


class Loaded(NamedTuple):
    """The weights that answer from now on; with a reason instead of an id, those that could not be loaded."""

    path: str
    checkpoint: str | None
    reason: str = ""


def run(pipe: Connection[Any, Any], config: LearnerConfig, path: str) -> None:
    """Answer what the pipe asks, until it closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's: it ends this process in order
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import torch

    torch.set_num_threads(config.threads)
    _Process(pipe, config).serve(path)


@dataclass(slots=True)
class _Weights:
    sampler: Sampler
    checkpoint: str
    path: str


@dataclass(slots=True)
class _Inbox:
    """What waits to be done; every access holds `changed`."""

    changed: threading.Condition = field(default_factory=threading.Condition)
    jobs: list[tuple[int, int, Ask]] = field(default_factory=list)  # a heap: urgent ones first, then in order
    cancelled: set[int] = field(default_factory=set)
    next_weights: _Weights | None = None
    closed: bool = False


class _Process:
    def __init__(self, pipe: Connection[Any, Any], config: LearnerConfig) -> None:
        self.pipe, self.config = pipe, config
        self.inbox = _Inbox()
        self.order = itertools.count()
        self.sending = threading.Lock()
        self.admitted: dict[str, tuple[Ask, float, int]] = {}

    def serve(self, path: str) -> None:
        weights = self._load(path)
        if weights is not None:
            self._send(Loaded(path, weights.checkpoint))
        threading.Thread(target=self._receive, daemon=True).start()
        while weights is None:  # nothing to answer with until weights come that can be loaded
            weights = self._wait(None)
            if self.inbox.closed:
                return
        while not self.inbox.closed:
            weights = self._wait(weights) or weights
            if self.inbox.jobs:
                self._sample(weights)

    def _wait(self, weights: _Weights | None) -> _Weights | None:
        """Wait for something to do; return new weights if they are there."""
        inbox = self.inbox
        with inbox.changed:
            while not (inbox.closed or inbox.next_weights or (weights and inbox.jobs)):
                inbox.changed.wait()
            taken, inbox.next_weights = inbox.next_weights, None
        if taken is not None:
            self._send(Loaded(taken.path, taken.checkpoint))
        return taken

    def _sample(self, weights: _Weights) -> None:
        """Sample until no job is left, or new weights wait."""

        def on_action(conversation: Conversation, action: Action) -> None:
            ask, started, prompt_tokens = self.admitted.pop(conversation.key)
            spent = time.perf_counter() - started
            self._send(Answered(ask.job, _answer(conversation, action, prompt_tokens, weights.checkpoint, spent)))

        try:
            weights.sampler.run(_Admission(self, weights), on_action)
        except Exception as error:  # a fault of one batch must not end the service
            for ask, _, _ in self.admitted.values():
                self._send(Failed(ask.job, type(error).__name__))
            self.admitted.clear()

    def admit(self, weights: _Weights) -> Conversation | None:
        """Return the next job as a conversation; None if none waits, or new weights do."""
        inbox = self.inbox
        while True:
            with inbox.changed:
                if inbox.closed or inbox.next_weights or not inbox.jobs:
                    return None
                ask = heapq.heappop(inbox.jobs)[2]
                if ask.job in inbox.cancelled:
                    inbox.cancelled.discard(ask.job)
                    continue
            conversation = Conversation(str(ask.job), [Message(*one) for one in ask.messages], sample_seed=ask.seed)
            try:
                conversation.tokens.extend(weights.sampler.actor_critic.template.start(conversation.messages))
            except Exception as error:  # templates raise what they like about orders of roles
                self._send(Failed(ask.job, type(error).__name__))
                continue
            if not 0 < len(conversation.tokens) < weights.sampler.max_context:
                self._send(Failed(ask.job, "too_long"))
                continue
            self.admitted[conversation.key] = (ask, time.perf_counter(), len(conversation.tokens))
            return conversation

    def _receive(self) -> None:
        inbox = self.inbox
        try:
            while True:
                message = self.pipe.recv()
                if isinstance(message, Stop):
                    raise EOFError
                with inbox.changed:
                    if isinstance(message, Ask):
                        heapq.heappush(inbox.jobs, (0 if message.urgent else 1, next(self.order), message))
                    elif isinstance(message, Cancel):
                        inbox.cancelled.add(message.job)
                        inbox.cancelled &= {entry[2].job for entry in inbox.jobs}
                    elif isinstance(message, Load):
                        threading.Thread(target=self._prepare, args=(message.path,), daemon=True).start()
                    inbox.changed.notify()
        except (EOFError, OSError):
            with inbox.changed:
                inbox.closed = True
                inbox.changed.notify()

    def _prepare(self, path: str) -> None:
        weights = self._load(path)
        if weights is not None:
            with self.inbox.changed:
                self.inbox.next_weights = weights
                self.inbox.changed.notify()

    def _load(self, path: str) -> _Weights | None:
        """Load weights; on a failure say why and return None."""
        from foretaste.config import SamplingConfig
        from foretaste.models import checkpoint
        from foretaste.models.sampler import Sampler

        try:
            identity = checkpoint.content_id(path)
            model = checkpoint.load(path, device=self.config.device)
            if not model.critic_restored:
                raise ValueError("the checkpoint has no trained value function")
            sampling = SamplingConfig(
                temperature=self.config.temperature,
                max_new_tokens=self.config.max_new_tokens,
                concurrent=self.config.concurrent,
                max_context=self.config.max_context,
            )
            weights = _Weights(Sampler(model, sampling), identity, path)
        except Exception as error:  # whatever is wrong with a folder, the old weights go on
            self._send(Loaded(path, None, f"{type(error).__name__}: {error}"))
            return None
        return weights

    def _send(self, message: Any) -> None:
        try:
            with self.sending:
                self.pipe.send(message)
        except (BrokenPipeError, OSError):
            self.inbox.closed = True


class _Admission(Iterator[Conversation]):
    """Ends whenever nothing waits, and goes on when something does: the sampler asks again at every token."""

    def __init__(self, process: _Process, weights: _Weights) -> None:
        self._process, self._weights = process, weights

    def __next__(self) -> Conversation:
        conversation = self._process.admit(self._weights)
        if conversation is None:
            raise StopIteration
        return conversation


def _answer(
    conversation: Conversation, action: Action, prompt_tokens: int, checkpoint: str, spent: float
) -> LearnerAnswer:
    trace = {
        "prompt": conversation.tokens[:prompt_tokens],
        "tokens": list(action.tokens),
        "logprobs": [round(one, 6) for one in action.logprobs],
        "values": [round(one, 6) for one in action.values],
    }
    first, last = action.values[0], action.values[-1]
    return LearnerAnswer(
        action.text, checkpoint, first, last, prompt_tokens, len(action.tokens), action.cut, spent, trace
    )
