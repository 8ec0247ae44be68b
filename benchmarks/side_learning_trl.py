"""TRL's side of the comparison of learning: `GRPOTrainer` with an `environment_factory`, its own multi-turn loop.

Runs in an environment of its own (`peers.py`). The lock lives in foretaste's interpreter (`learning_task.py`) and is
asked by lines of JSON. TRL's defaults, but for what the comparison fixes; see docs/learning.md.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks.learning_plan import CALL, CONTEXT, EPISODES, GROUP, RESPONSE_TEMPLATE, TURNS, knobs
from benchmarks.protocol import Line, peak_bytes

SLACK = 1.1
"""More steps than the budget should take: it ends the run, never the schedule of the learning rate."""


class Server:
    """The task, in foretaste's interpreter."""

    def __init__(self, python: str, seed: int) -> None:
        self._process = subprocess.Popen(
            [python, "-m", "benchmarks.learning_task", str(seed)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        """Return the answer to a request. Raises: RuntimeError if the process has died."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the environment's process stopped")
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def factory(server: Server) -> type:
    """Return a class of environments as TRL documents them: public methods are tools, `get_reward` is the reward."""
    numbers = count()

    class Lock:
        def __init__(self) -> None:
            self._id, self._opened = next(numbers), 0.0

        def reset(self, **columns: Any) -> str:
            self._opened = 0.0
            return server.ask(reset=columns["item"], id=self._id)["observation"]

        def pick(self, word: str) -> str:
            """
            Answer a cue.

            Args:
                word: The word to answer with.

            Returns:
                The next cue.
            """
            answer = server.ask(act=CALL + word, id=self._id)
            self._opened = answer["opened"]
            return answer["observation"]

        def get_reward(self) -> float:
            return self._opened

    return Lock


def steps_of(chosen: dict[str, int]) -> int:
    """Return the optimiser steps on a round: `steps_per_generation` of TRL, as often as `num_iterations` says."""
    return EPISODES // chosen["per_device_train_batch_size"] * chosen["num_iterations"]


def learn(job: dict[str, Any], line: Line) -> dict[str, Any]:
    """Train until the budget is used up; save the policy as a Hugging Face folder."""
    from datasets import Dataset  # pyright: ignore[reportMissingImports]
    from transformers import AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer  # pyright: ignore[reportMissingImports]

    server = Server(job["python"], job["seed"])
    rounds = math.ceil(SLACK * job["tokens"] / (EPISODES * job["episode_tokens"]))
    items = server.ask(items=rounds)["items"]
    spent = {"tokens": 0, "last_tokens": 0, "episodes": 0}

    class Budget(TrainerCallback):
        """Counts what the policy has sampled, and ends the run in the round in which the budget is used up."""

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
            if logs and "completions/mean_length" in logs:  # of sampled tokens; a round is logged by its first update
                spent["last_tokens"] = round(logs["completions/mean_length"] * EPISODES)
                spent["tokens"] += spent["last_tokens"]
                spent["episodes"] += EPISODES
                line.say({"tokens": spent["tokens"], "episodes": spent["episodes"], "success": logs.get("reward")})

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            learned = state.global_step % (args.steps_per_generation * args.num_iterations) == 0
            if learned and spent["tokens"] >= job["tokens"]:
                control.should_training_stop = True

    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    tokenizer.response_template = RESPONSE_TEMPLATE
    folder = Path(job["folder"]) / "trl"
    chosen = {"num_iterations": 1, "per_device_train_batch_size": GROUP} | knobs("trl", job.get("updates", 1))
    trainer = GRPOTrainer(
        model=job["model"],
        args=GRPOConfig(
            output_dir=str(folder / "log"),
            num_generations=GROUP,
            generation_batch_size=EPISODES,
            max_completion_length=CONTEXT,
            max_tool_calling_iterations=TURNS,
            max_steps=rounds * steps_of(chosen),
            **chosen,
            learning_rate=job["rate"],
            shuffle_dataset=False,
            seed=job["seed"],
            bf16=True,
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            logging_steps=1,
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_dict({"prompt": [[{"role": "user", "content": ""}]] * len(items), "item": items}),
        processing_class=tokenizer,
        environment_factory=factory(server),
        callbacks=[Budget()],
    )
    started = time.perf_counter()
    trainer.train()
    seconds, peak = time.perf_counter() - started, peak_bytes()
    trainer.save_model(str(folder / "model"))
    server.close()
    return {"model": str(folder / "model"), **spent, "seconds": seconds, "peak_bytes": peak}


def main() -> None:
    """Do one job."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    line = Line()
    job = json.loads(sys.stdin.readline())
    import torch

    torch.set_num_threads(job["threads"])
    line.say({"done": learn(job, line)})


if __name__ == "__main__":
    main()
