"""Tiny environments that each isolate one fault of a trainer. `doctor.py` runs them; `registry` does not list them.

Each begins with a short imitation of `oracle`, which shows the rewarded word in a share `shown` of the turns. Where
something is to be learned, that share is a quarter: the policy starts leaning to the wrong words and must turn round.

- A policy that drifts without a signal ends in what it leant to, so it does not pass by luck; least of all `Observed`,
  where it must turn round twice.
- It reads from the start. A policy that says either word on either sign alike is pulled to one of them before it
  tells the signs apart, which silences the signal: reward finds the reading after 5 steps or after 50, however right
  the trainer is.
"""

from __future__ import annotations

from typing import Any, ClassVar

from foretaste.envs.base import TextEnv

WORDS = ("left", "right")
SIGNS = {"<": "left", ">": "right"}


def word_of(action: str) -> str:
    """Return an answer without case and surrounding punctuation."""
    return action.strip(" \t\r\n.,!?:;\"'`*").lower()


class Probe(TextEnv):
    """Two words to answer with; the subclasses say what is rewarded."""

    instructions: ClassVar[str] = "Answer with one word: left or right."
    turns: ClassVar[int] = 1
    shown: ClassVar[float] = 0.5
    """Share of the turns in which a warm start shows the rewarded word."""

    def begin(self) -> tuple[str, dict[str, Any]]:
        """Show the first sign."""
        self.answers: list[str] = []
        self.signs = [self.random.choice(sorted(SIGNS)) for _ in range(self.turns + 1)]
        return self.show(), {}

    def show(self) -> str:
        """Return the observation of the current turn."""
        return "Go."

    def uniform_action(self) -> str:
        """Return one of the two words at random."""
        return self.random.choice(WORDS)

    def rewarded(self) -> str:
        """Return the word that is rewarded in this turn, where one is."""
        return WORDS[0]

    def oracle(self) -> str:
        """Return the word that a warm start shows."""
        right = self.rewarded()
        return right if self.random.random() < self.shown else next(word for word in WORDS if word != right)

    def max_turns(self) -> int:
        """Return the turns of an episode."""
        return self.turns

    def earned(self) -> float:
        """Return the reward of the last turn."""
        return float(self.answers[-1] == WORDS[0])

    def act(self, action: str) -> tuple[str, float, bool, dict[str, Any]]:
        """Take a word; everything is rewarded in the last turn."""
        self.answers.append(word_of(action))
        done = self.turn + 1 == self.turns
        reward = self.earned() if done else 0.0
        info = {"success": float(reward >= 1.0)} if done else {}
        self.turn += 1  # `show` speaks of the turn to come
        observation = self.show()
        self.turn -= 1
        return observation, reward, done, info


class Constant(Probe):
    """Every episode earns 0.3, whatever is done: V must say 0.3."""

    name = "probe-constant"
    turns = 2
    paid = 0.3

    def earned(self) -> float:
        """Return the constant."""
        return self.paid


class OneChoice(Probe):
    """One turn, one right word, always the same: the policy must move there."""

    name = "probe-one-choice"
    shown = 0.25


class Delayed(Probe):
    """Only the first of three words matters, and it pays after the third: credit must travel."""

    name = "probe-delayed"
    turns = 3
    shown = 0.25

    def earned(self) -> float:
        """Return whether the first word was right."""
        return float(self.answers[0] == WORDS[0])


class Observed(Probe):
    """The right word depends on the sign shown: the policy must read."""

    name = "probe-observed"
    shown = 0.25

    def show(self) -> str:
        """Return the turn's sign."""
        return f"Sign {self.signs[self.turn]}"

    def rewarded(self) -> str:
        """Return the sign's word."""
        return SIGNS[self.signs[self.turn]]

    def earned(self) -> float:
        """Return whether the word fits the sign."""
        return float(self.answers[-1] == SIGNS[self.signs[len(self.answers) - 1]])


class Masking(Observed):
    """Two turns with signs of their own, each paid at once: every token needs its own mask and reward."""

    name = "probe-masking"
    turns = 2
    shown = 0.5

    def act(self, action: str) -> tuple[str, float, bool, dict[str, Any]]:
        """Take a word; 0.5 if it fits the sign, else 0.2, so that a misplaced reward always shows."""
        observation, _, done, info = super().act(action)
        right = [answer == SIGNS[sign] for answer, sign in zip(self.answers, self.signs, strict=False)]
        return observation, 0.5 if right[-1] else 0.2, done, {"success": float(all(right))} if done else info


class Endless(Probe):
    """Pays a little each turn and does not end: a limit of the run cuts it, and its future is still worth something."""

    name = "probe-endless"
    turns = 2
    paid = 0.1

    def max_turns(self) -> int:
        """Return far more turns than the run allows."""
        return 100

    def act(self, action: str) -> tuple[str, float, bool, dict[str, Any]]:
        """Pay the same each turn."""
        observation, _, _, _ = super().act(action)
        return observation, self.paid, False, {"success": 0.0}
