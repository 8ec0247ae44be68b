"""Tiny environments that each isolate one fault of a trainer. `doctor.py` runs them; `registry` does not list them.

Each needs only that the policy sometimes says one of two words, which a short imitation of `uniform_action` teaches.
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

    def oracle(self) -> str:
        """Return the word that is rewarded where only the word matters."""
        return WORDS[0]

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


class Delayed(Probe):
    """Only the first of three words matters, and it pays after the third: credit must travel."""

    name = "probe-delayed"
    turns = 3

    def earned(self) -> float:
        """Return whether the first word was right."""
        return float(self.answers[0] == WORDS[0])


class Observed(Probe):
    """The right word depends on the sign shown: the policy must read."""

    name = "probe-observed"

    def show(self) -> str:
        """Return the turn's sign."""
        return f"Sign {self.signs[self.turn]}"

    def oracle(self) -> str:
        """Return the sign's word."""
        return SIGNS[self.signs[self.turn]]

    def earned(self) -> float:
        """Return whether the word fits the sign."""
        return float(self.answers[-1] == SIGNS[self.signs[len(self.answers) - 1]])


class Masking(Observed):
    """Two turns with signs of their own, each paid at once: every token needs its own mask and reward."""

    name = "probe-masking"
    turns = 2

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
