"""`extract`: the default task. A customer's message is turned into one order as JSON."""

from __future__ import annotations

from typing import Any, ClassVar, cast

from foretaste.envs.base import TextEnv
from foretaste.envs.extract.compose import render
from foretaste.envs.extract.order import draw_order, states, to_json
from foretaste.envs.extract.voices import REGISTERS
from foretaste.envs.extract.words import BANKS
from foretaste.envs.seeds import Split


class Extract(TextEnv):
    """One message in, one JSON order out; reward and success are 1 if every key, value and type is right, else 0.

    | level | the message | the JSON |
    |---|---|---|
    | 1 | name, quantity (digits or words), colour, item in plural | name, item, colour, quantity |
    | 2 | one of them unsaid (null), or a sentence beside the point, or both | the same |
    | 3 | two or three items | name, items: a list of item, colour, quantity |
    | 4 | something said wrong and put right, and a date | as level 1, date as MM-DD |
    | 5 | all of these, and sentences with other names and orders in them | as level 3, date |

    Difficulty: the exact form, the singular, numbers in words, then what is missing, corrected or
    meant for somebody else. Messages are composed of independent parts (`frames`, `voices`,
    `words`); practice and sealed items use sentences, names and items that training never shows.
    """

    name: ClassVar[str] = "extract"
    instructions: ClassVar[str] = (
        "Turn the customer's message into one order: one line of JSON and nothing else. "
        "Keys: name, item (singular), colour, quantity (a number). Unknown is null. "
        "Several items: a list under items. A date: date as MM-DD."
    )
    levels: ClassVar[range] = range(1, 6)
    registers: ClassVar[tuple[str, ...]] = REGISTERS

    def begin(self) -> tuple[str, dict[str, Any]]:
        """Draw an order from the split's own words and render it in the register."""
        split = cast(Split, self.split)
        words = BANKS[split]
        order = draw_order(self.level, words, self.random)
        self.gold = to_json(order)
        return render(order, words, split, self.register, self.random), {"privileged": self.gold}

    def act(self, action: str) -> tuple[str, float, bool, dict[str, Any]]:
        """Judge the reply; the episode ends."""
        success = float(states(action, self.gold))
        return "", success, True, {"privileged": self.gold, "success": success}

    def oracle(self) -> str:
        """Return the gold JSON."""
        return self.gold
