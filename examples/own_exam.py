"""Examine a policy of your own on a paper of your own, from Python."""

from pathlib import Path

from foretaste import Ledger
from foretaste.exams.exam import SitConfig, Sitting, sit
from foretaste.exams.paper import Family, Paper
from foretaste.records import Action, Conversation

PAPER = Paper(
    name="queues",
    families=(Family("route", items=20, registers=("plain", "casual", "chinese")),),
    threshold=0.6,
)


class Keyword:
    """Names the queue whose name stands in the message, else the first."""

    name = "keyword"

    def act(self, conversations: list[Conversation]) -> list[Action]:
        return [Action(self.queue(conversation.messages[-1].content)) for conversation in conversations]

    @staticmethod
    def queue(text: str) -> str:
        listed, _, message = text.partition("Message:")
        queues = listed.removeprefix("Queues: ").strip().split(", ")
        return next((queue for queue in queues if queue in message), queues[0])


def main(runs_folder: str = "runs") -> Sitting:
    """Sit the paper once and return the sitting."""
    with Ledger.open(runs_folder) as ledger:
        return sit(PAPER, SitConfig(), ledger, runs_folder=Path(runs_folder), policy=Keyword())


if __name__ == "__main__":
    sitting = main()
    print(sitting.verdict.sentence())
    print(sitting.results["failures"])
