"""What flows through foretaste, from rollout to disk to training to report. Nothing is re-tokenised.

    TextEnv --observation--> Policy --Action--> TextEnv ...     one pass of that is a Turn
    Turn, Turn, ...                                             an Episode
    Episodes -> make_batch -> update -> Checkpoint              a training run, written to the Ledger

All records are frozen, carry plain Python values, and go to and from JSON (`to_json`, `from_json`).
Action tokens were sampled by the policy; observation tokens came from the environment.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

RECORD_VERSION = 1
"""Raised when a field changes its meaning; readers refuse newer versions than they know."""


def well_formed(text: str) -> str:
    """Return text as UTF-8 can carry it: halves of a surrogate pair are joined, one alone becomes U+FFFD."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class EpisodeEnd(StrEnum):
    """Why an episode has no further turn."""

    TERMINATED = "terminated"
    """The task ended; nothing is worth anything after it."""
    TRUNCATED = "truncated"
    """A limit (turns, context) cut it; its future is estimated by `Episode.final_value`."""
    STOPPED = "stopped"
    """The gate gave it up with a known probability; `final_value` stands for its future."""
    ERROR = "error"
    """The environment or grader failed; the episode is data, left out of every loss and mean."""

    @property
    def cut(self) -> bool:
        """Whether the task could have gone on: V of the last state stands for its future."""
        return self in (EpisodeEnd.TRUNCATED, EpisodeEnd.STOPPED)


class Message(NamedTuple):
    """One message of a chat: `role` is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Action:
    """What a policy answered in one turn. Policies without access to tokens leave the tuples empty."""

    text: str
    tokens: tuple[int, ...] = ()
    """The sampled ids, the end-of-turn token included when it was sampled."""
    logprobs: tuple[float, ...] = ()
    """Log-probability of each token under the sampling distribution, at the sampling temperature."""
    values: tuple[float, ...] = ()
    """V(s_t) read at the position before each token, in units of return."""
    cut: bool = False
    """True if the token limit ended the action before the policy did."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One observation and the action taken on it."""

    observation: str
    """The environment's text (the first turn's excludes instructions and worked examples)."""
    action: Action
    observation_tokens: tuple[int, ...] = ()
    """Tokens appended before the action, template included; the first turn's are the whole prompt."""
    reward: float = 0.0
    """Reward the environment returned for this action."""
    gate_probability: float = 0.0
    """Known probability with which the gate could have stopped the episode just before this action."""
    checks: tuple[bool, ...] | None = None
    """Which checks pass after this action, where the environment has checks."""
    harm: float = 0.0
    """Harm done to others by this action, where the environment measures it."""
    privileged: str | None = None
    """Text about the state before this action that only a critic may read, only in training."""


@dataclass(frozen=True, slots=True)
class Episode:
    """One attempt at one item of an environment."""

    env: str
    seed: int
    split: str
    """train, practice, sealed or example: see `envs/seeds.py`."""
    level: int
    register: str
    turns: tuple[Turn, ...]
    end: EpisodeEnd
    success: float | None
    """Final success in [0, 1]; None where it is unknown (errors, stopped episodes)."""
    checkpoint: str | None = None
    """Content hash of the policy that acted, if it has one."""
    final_value: float = 0.0
    """V of the state after the last turn; 0 for terminated episodes."""
    error: str | None = None
    """What failed, in one line, when `end` is ERROR."""
    sample_seed: int = 0
    """Seed of the policy's own random stream in this episode."""
    final_observation_tokens: tuple[int, ...] = ()
    """Tokens after the last action of a truncated or stopped episode: the state that `final_value` is about. Where the
    context was full, as many as fitted, perhaps none."""
    final_observation: str = ""
    """The environment's text behind those tokens, whole."""
    final_privileged: str | None = None
    """What only a critic may read of that state, only in training."""

    @property
    def total_reward(self) -> float:
        """Sum of the rewards of all turns (undiscounted)."""
        return sum(turn.reward for turn in self.turns)

    @property
    def solved(self) -> bool:
        """Whether the goal was reached in full; False where success is not known."""
        return (self.success or 0.0) >= 1.0

    @property
    def action_tokens(self) -> int:
        """Number of sampled tokens."""
        return sum(len(turn.action.tokens) for turn in self.turns)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A saved policy and critic: a Hugging Face folder with `critic.safetensors` beside it."""

    id: str
    """SHA-256 of the weights, hexadecimal: equal weights have equal ids."""
    path: str
    model: str
    """Name the weights started from, e.g. smollm2-135m."""
    parents: tuple[str, ...] = ()
    """Ids this one came from: none for a base, one for trained, several for merged."""
    run: str | None = None
    step: int = 0


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with its interval; what kind of interval it is, the function says that makes it."""

    mean: float
    low: float
    high: float
    n: int
    level: float = 0.95


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What a finished training run shows; the fields of `summary.json`."""

    run: str
    env: str
    model: str
    success_before: float
    success_after: float
    success_before_interval: tuple[float, float]
    success_after_interval: tuple[float, float]
    gain: float
    gain_interval: tuple[float, float]
    n_items: int
    episodes: int
    sampled_tokens: int
    wall_seconds: float
    value_calibration_error: float | None
    """Expected calibration error of V on held-out episodes after training, ten equal bins."""
    value_auc: float | None
    """Rank correlation of V halfway through an episode with the final success."""
    checkpoint: str
    checkpoint_path: str
    report: str
    notes: tuple[str, ...] = field(default=())
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall seconds by part of the run."""
    value_calibration_floor: float | None = None
    """What `value_calibration_error` would be for a perfectly calibrated V on these items, on average."""


class Conversation:
    """One episode's exchange as a policy sees it: messages for text policies, ids for token policies.

    The rollout appends; a token policy keeps its cache for `key` until `release(key)`.
    """

    __slots__ = ("key", "messages", "sample_seed", "tokens")

    def __init__(self, key: str, messages: list[Message], *, sample_seed: int = 0) -> None:
        self.key = key
        self.messages = messages
        self.tokens: list[int] = []
        self.sample_seed = sample_seed


class Policy(Protocol):
    """Anything that answers conversations: a trained model, an endpoint, a scripted oracle."""

    @property
    def name(self) -> str:
        """Shown in reports and ledgers."""
        ...

    def act(self, conversations: list[Conversation]) -> list[Action]:
        """Return one action per conversation, in order."""
        ...


def to_json(record: Any) -> dict[str, Any]:
    """Return a record as JSON-ready values, with its version."""
    return {"version": RECORD_VERSION, **dataclasses.asdict(record)}


def episode_from_json(values: dict[str, Any]) -> Episode:
    """Read an episode written by `to_json`."""
    check_version(values)
    fields = {name: value for name, value in values.items() if name != "version"}
    turns = tuple(_turn_from_json(turn) for turn in fields.pop("turns"))
    final = tuple(fields.pop("final_observation_tokens", ()))
    return Episode(**{**fields, "turns": turns, "end": EpisodeEnd(fields["end"]), "final_observation_tokens": final})


def _turn_from_json(values: dict[str, Any]) -> Turn:
    action: dict[str, Any] = values["action"]
    tuples = {name: tuple(action[name]) for name in ("tokens", "logprobs", "values")}
    checks = values["checks"]
    return Turn(
        **{
            **values,
            "observation_tokens": tuple(values["observation_tokens"]),
            "checks": None if checks is None else tuple(checks),
            "action": Action(**{**action, **tuples}),
        }
    )


def check_version(values: dict[str, Any]) -> None:
    """Raise ValueError for a record written by a newer foretaste."""
    version = values.get("version", RECORD_VERSION)
    if version > RECORD_VERSION:
        raise ValueError(
            f"record version {version} is newer than this foretaste reads ({RECORD_VERSION}); upgrade foretaste"
        )
