"""Find a hidden number by asking: each guess is answered with "higher" or "lower".

The smallest task of several turns: the answer to a guess is known at once, and the range that is
still possible is shown, so a policy needs no memory, only the habit of halving.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar, NamedTuple

from foretaste.envs.base import TextEnv


class Range(NamedTuple):
    """What a level asks: numbers from 1 to `highest`, found in `tries` guesses."""

    highest: int
    tries: int


LEVELS = {1: Range(10, 4), 2: Range(20, 5), 3: Range(50, 6), 4: Range(100, 7), 5: Range(1000, 10)}
"""Tries are the least with which halving always succeeds: 2**tries > highest."""

_WORDS = {
    "plain": ("My number is higher than {guess}.", "My number is lower than {guess}.", "That is not a whole number.",
              "It is from {low} to {high}. Tries left: {left}."),
    "terse": ("> {guess}.", "< {guess}.", "Not a number.", "{low} to {high}, {left} left."),
    "casual": ("Nope, go higher than {guess}!", "Nope, it's under {guess}!", "Huh? Give me a whole number.",
               "So it's somewhere from {low} to {high}, and you've got {left} left."),
    "formal": ("The number sought exceeds {guess}.", "The number sought is below {guess}.",
               "A whole number is required.",
               "It lies between {low} and {high} inclusive. Remaining attempts: {left}."),
}  # fmt: skip
_GUESS = re.compile(r"\s*(\d{1,9})\s*\.?\s*", re.ASCII)


class Guess(TextEnv):
    """Guess a number from 1 to 10 (level 1) up to 1000 (level 5), with just enough tries for halving.

    Success: the number was found. Reward: 1 on the turn that finds it. Difficulty: the tries leave
    no room for a wasted guess, and a reply that is not exactly one whole number wastes one.
    """

    name: ClassVar[str] = "guess"
    instructions: ClassVar[str] = (
        "Find the hidden whole number. Reply with one number and nothing else. "
        "You are told whether the hidden number is higher or lower."
    )
    levels: ClassVar[range] = range(1, 6)
    registers: ClassVar[tuple[str, ...]] = tuple(_WORDS)

    def begin(self) -> tuple[str, dict[str, Any]]:
        """Hide a number."""
        self.low, self.high = 1, LEVELS[self.level].highest
        self.hidden = self.random.randint(self.low, self.high)
        return self._range(used=0), self._info()

    def act(self, action: str) -> tuple[str, float, bool, dict[str, Any]]:
        """Answer one guess; the episode ends when the number is found or the tries are used up."""
        higher, lower, no_number, _ = _WORDS[self.register]
        match = _GUESS.fullmatch(action)
        guess = int(match[1]) if match else None
        if guess == self.hidden:
            return "", 1.0, True, {**self._info(), "success": 1.0}
        if guess is None:
            answer = no_number
        elif guess < self.hidden:
            answer, self.low = higher.format(guess=guess), max(self.low, guess + 1)
        else:
            answer, self.high = lower.format(guess=guess), min(self.high, guess - 1)
        used = self.turn + 1
        if used >= self.max_turns():
            return answer, 0.0, True, {**self._info(), "success": 0.0}
        return f"{answer} {self._range(used)}", 0.0, False, self._info()

    def oracle(self) -> str:
        """Halve what is left."""
        return str((self.low + self.high) // 2)

    def identity(self) -> str:
        """Return the hidden number and the level's rules."""
        return f"guess {self.hidden} of 1 to {LEVELS[self.level].highest} in {self.max_turns()}"

    def max_turns(self) -> int:
        """Return the tries of the current level."""
        return LEVELS[self.level].tries

    def _range(self, used: int) -> str:
        return _WORDS[self.register][3].format(low=self.low, high=self.high, left=self.max_turns() - used)

    def _info(self) -> dict[str, Any]:
        return {"privileged": f"The number is {self.hidden}."}
