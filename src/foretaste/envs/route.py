"""`route`: read a customer's message and name the queue that must handle it."""

from __future__ import annotations

from typing import Any, ClassVar, cast

from foretaste.envs.base import TextEnv
from foretaste.envs.grading import without_thoughts
from foretaste.envs.route_words import BANKS, QUEUES
from foretaste.envs.seeds import Split
from foretaste.registers import REGISTERS, rewrite


class Route(TextEnv):
    """One message in, one queue's name out; reward and success are 1 or 0.

    | level | queues | the message |
    |---|---|---|
    | 1 | 4 | a complaint, greeting and closing |
    | 2 | 5 | also a sentence that belongs to no queue |
    | 3 | 6 | also a sentence about another queue's matter that needs no help |

    Difficulty: the words of held-out messages (practice, sealed) are not those of training, so the
    meaning must be understood; at level 3 a word of the wrong queue stands in the message. Registers
    are those of `foretaste.registers`, around or in the same message.
    """

    name: ClassVar[str] = "route"
    instructions: ClassVar[str] = (
        "Name the one queue that must handle the customer's message. Reply with the queue's name and nothing else."
    )
    levels: ClassVar[range] = range(1, 4)
    registers: ClassVar[tuple[str, ...]] = tuple(REGISTERS)

    def begin(self) -> tuple[str, dict[str, Any]]:
        """Draw a queue and compose a message from the split's own sentences."""
        bank, draw = BANKS[cast(Split, self.split)], self.random.choice
        self.queues = QUEUES[: self.level + 3]
        self.queue = draw(self.queues)
        said = [draw(bank.complaints[self.queue])]
        if self.level >= 2:
            said.insert(draw((0, 1)), draw(bank.asides))
        if self.level >= 3:
            other = draw([queue for queue in self.queues if queue != self.queue])
            said.insert(draw((0, len(said))), draw(bank.settled[other]))
        if self.random.random() < 0.7:
            said.insert(0, draw(bank.openings))
        if self.random.random() < 0.6:
            said.append(draw(bank.closings))
        message = " ".join(said).format(thing=draw(bank.things))
        shown = rewrite(message, self.register, self.random, protected=self.queues)
        return f"Queues: {', '.join(self.queues)}\nMessage: {shown}", {"privileged": self.queue}

    def act(self, action: str) -> tuple[str, float, bool, dict[str, Any]]:
        """Judge the reply: the queue's name alone, in any case, a final full stop allowed."""
        success = float(without_thoughts(action).strip().removesuffix(".").lower() == self.queue)
        return "", success, True, {"privileged": self.queue, "success": success}

    def oracle(self) -> str:
        """Return the queue's name."""
        return self.queue
