"""The task of the comparison of learning: `lock` as a tool that is called once a turn, then a closing reply.

An agent loop by tool calls, as TRL has it, ends with a reply that calls nothing. So this environment ends with one
too, and the conversations of all arms are alike token by token. `python -m benchmarks.learning_task` serves it to
another interpreter: a line of JSON in, a line of JSON out.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from benchmarks.learning_plan import CALL, CLOSING, EPISODES, GROUP, OPTIONS, TURNS
from foretaste.config import AlgorithmConfig, EnvConfig, TrainConfig
from foretaste.envs import make
from foretaste.envs.base import TextEnv
from foretaste.envs.lock import Lock
from foretaste.rl.tasks import training_tasks


class ToolLock(TextEnv):
    """Call `pick word WORD` once a cue; a reply without a call ends the episode.

    After the last cue comes the result, and whatever is replied to it ends the episode with the lock's own success.
    """

    name = "tool-lock"

    def __init__(self, level: int | None = None, *, table: int = 0, cues: int | None = None) -> None:
        """`table` draws the rules; `cues` replaces the number of cues of either kind."""
        super().__init__(level)
        given = f"{OPTIONS}&table={table}"
        made = make(f"lock?{given}&terse=true")
        assert isinstance(made, Lock)
        self.lock = made
        if cues is not None:
            self.lock.cues = cues

    def begin(self) -> tuple[str, dict[str, Any]]:
        """Start the lock of the same seed."""
        self.opened = 0.0
        return self.lock.reset(seed=self.seed)[0], {}

    def act(self, action: str) -> tuple[str, float, bool, dict[str, Any]]:
        """Hand the word of a call to the lock."""
        if self.turn == TURNS:
            return "", self.opened, True, {"success": self.opened}
        _, called, word = action.partition(CALL)
        if not called:
            return "", 0.0, True, {"success": 0.0}
        observation, reward, _, _, _ = self.lock.step(word)
        self.opened = float(reward)
        return observation, 0.0, False, {"opened": self.opened}

    def oracle(self) -> str:
        """Call with an accepted word, then close."""
        return CLOSING if self.turn == TURNS else CALL + self.lock.oracle()

    def uniform_action(self) -> str:
        """Call with a random word, then close: the form, and no rule."""
        return CLOSING if self.turn == TURNS else CALL + self.lock.uniform_action()

    def max_turns(self) -> int:
        """Return the cues and the closing reply."""
        return TURNS + 1


def config_of(seed: int) -> TrainConfig:
    """Return the settings that say which items a seed's runs meet: its rules, its training items, groups of 8."""
    env = EnvConfig(id=f"benchmarks.learning_task:ToolLock?table={seed}", examples=0, instructions=False)
    algorithm = AlgorithmConfig(name="grpo", group_size=GROUP)
    return TrainConfig(env=env, algorithm=algorithm, episodes_per_step=EPISODES, seed=seed)


def items_of(seed: int, steps: int) -> list[int]:
    """Return the seeds of the items of the first `steps` rounds of sampling, as foretaste's own groups meet them."""
    config = config_of(seed)
    return [task.seed for step in range(1, steps + 1) for task in training_tasks(config, step)[::GROUP]]


def serve() -> None:
    """Answer requests: {"items": steps}, {"reset": item, "id": n} or {"act": text, "id": n}."""
    seed = int(sys.argv[1])
    places: dict[int, TextEnv] = {}
    for line in sys.stdin:
        request = json.loads(line)
        if "items" in request:
            answer: dict[str, Any] = {"items": items_of(seed, request["items"])}
        elif "reset" in request:
            place = places.setdefault(request["id"], make(config_of(seed).env.id))
            answer = {"observation": place.reset(seed=request["reset"])[0]}
        else:
            observation, _, ended, _, info = places[request["id"]].step(request["act"])
            answer = {"observation": observation, "opened": info.get("opened", 0.0), "ended": ended}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve()
