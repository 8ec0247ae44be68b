"""An exam as an Inspect task: `inspect eval foretaste/exam -T paper=practice --model ...` (extra `[inspect]`).

Every item is played in its environment, over as many turns as it takes, and marked as a sitting marks
it, so the scores are those of `foretaste exam`. Sealed papers spend a look; `inspect eval-retry LOG` asks the
log's own items again and spends none. Compare the logs, paired and clustered, with
`foretaste exam compare A.eval B.eval`.
"""

# pyright: reportMissingImports=false
# inspect-ai is an extra; this module is imported by Inspect itself, through the entry point.

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ChatMessage, ChatMessageAssistant, ChatMessageSystem, ChatMessageUser, GenerateConfig
from inspect_ai.scorer import CORRECT, INCORRECT, Score, Target, accuracy, scorer, stderr
from inspect_ai.solver import Generate, Solver, TaskState, solver

from foretaste.exams.answers import Mark, mark_of
from foretaste.exams.bridges import items_of, sitting_with
from foretaste.exams.comparing import item_id
from foretaste.exams.paper import Item
from foretaste.exams.wording import Pools, planned_hashes
from foretaste.ledger import Ledger
from foretaste.records import Action, Message
from foretaste.rl import tasks


@task
def exam(
    paper: str = "practice", runs_folder: str = "runs", examples: int = 2, temperature: float = 0.0, tokens: int = 256
) -> Task:
    """Return the task of a paper (a name or TOML file) or of an earlier sitting's items (its id)."""
    with Ledger.open(runs_folder) as ledger:
        retried = _retried_items()
        wanted = paper if retried is None else sitting_with(ledger, retried)
        _, plan = items_of(wanted, ledger, Path(runs_folder), reader="inspect")
    pools = Pools(examples, planned_hashes(plan.items))
    return Task(
        dataset=MemoryDataset([_sample(item) for item in plan.items], name=paper),
        solver=play(pools),
        scorer=marked(),
        config=GenerateConfig(temperature=temperature, max_tokens=tokens),
        fail_on_error=False,  # an item that fails is data, and left out of the accuracy
        name=f"foretaste_exam_{Path(paper).stem}",
    )


def _retried_items() -> list[str] | None:
    """Return the sample ids of the log that `inspect eval-retry` is about to go on with; None in a new evaluation.

    Inspect makes a retried task anew from its arguments and does not tell it of the log, which is found among its
    callers' variables. Where a version of Inspect keeps it elsewhere, a retry counts as a new evaluation.
    """
    frame = sys._getframe(1)
    while frame is not None:
        for value in frame.f_locals.values():
            if type(value).__name__ == "PreviousTask":  # of a private module of Inspect, so not imported
                return [str(name) for name in value.log.eval.dataset.sample_ids or []]
        frame = frame.f_back
    return None


def _sample(item: Item) -> Sample:
    seed = str(item.seed)  # a viewer in JavaScript would round it
    return Sample(
        id=item_id(item.env, item.level, item.seed, item.register),
        input=f"{item.env}, level {item.level}, {item.register}",
        metadata={
            "env": item.env,
            "level": item.level,
            "register": item.register,
            "seed": seed,
            "cluster": f"{item.env}:{item.level}:{item.seed}",
            "stratum": f"{item.env}:{item.level}",
        },
    )


@solver
def play(pools: Pools) -> Solver:
    """Play the item's episode; each reply is one `generate`."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        told = state.metadata
        asked = tasks.Task(told["env"], int(told["seed"]), int(told["level"]), told["register"], 0)
        player = pools.of(asked).player(asked, None)
        conversation = player.start(str(state.sample_id))
        if conversation is None:
            raise RuntimeError(player.error)
        state.messages = [_chat(message) for message in conversation.messages]
        while True:
            state = await generate(state)
            cut = state.output.stop_reason in ("max_tokens", "model_length")
            observation = player.answer(Action(state.output.completion, cut=cut))
            if observation is None or player.end is not None:
                break
            state.messages.append(ChatMessageUser(content=observation))
        episode = player.episode()
        pools.of(asked).give_back(player)
        mark = mark_of(episode)
        if mark is Mark.ERROR:
            raise RuntimeError(episode.error)
        state.metadata["mark"] = mark.value
        return state

    return solve


def _chat(message: Message) -> ChatMessage:
    kinds: dict[str, Any] = {"system": ChatMessageSystem, "user": ChatMessageUser, "assistant": ChatMessageAssistant}
    return kinds[message.role](content=message.content)


@scorer(metrics=[accuracy(), stderr(cluster="cluster")])
def marked() -> Any:
    """Score 1 where the episode's mark is `right`."""

    async def score(state: TaskState, target: Target) -> Score:
        mark = state.metadata["mark"]
        return Score(
            value=CORRECT if mark == Mark.RIGHT else INCORRECT, answer=state.output.completion, explanation=mark
        )

    return score
