"""One GRPO step of TRL: sample groups, learn once from each token. It has no critic and reads no values.

Runs in an environment of its own (`peers.py`). TRL's defaults, but for what the workload says, CPU and bfloat16.
"""

from __future__ import annotations

import os
import tempfile
import time
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import torch

from benchmarks import workloads
from benchmarks.protocol import Line, peak_bytes

MICROBATCH = 8
"""Sequences of a forward pass: TRL's default `per_device_train_batch_size`."""


def reward(completions: list[Any], **options: Any) -> list[float]:
    """Return the reward of each attempt."""
    return [workloads.step_reward(completion[0]["content"]) for completion in completions]


def main() -> None:
    """Train for as many steps as there are requests, one each."""
    line = Line()
    from datasets import Dataset  # pyright: ignore[reportMissingImports]
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer  # pyright: ignore[reportMissingImports]

    torch.set_num_threads(int(os.environ["BENCH_THREADS"]))
    quick = os.environ.get("BENCH_QUICK") == "1"
    groups = 2 if quick else workloads.STEP_GROUPS
    count = groups * workloads.STEP_GROUP_SIZE

    class Clock(TrainerCallback):
        """Holds each step back until it is asked for, and times it."""

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            line.say({"ready": True})

        def on_step_begin(self, args: Any, state: Any, control: Any, **__: Any) -> None:
            if line.request() is None:
                os._exit(0)
            self.started = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            seconds = time.perf_counter() - self.started
            line.say({"seconds": seconds, "tokens": count * workloads.STEP_NEW_TOKENS, "peak_bytes": peak_bytes()})

    prompts = [
        [{"role": "system", "content": workloads.STEP_INSTRUCTIONS}, {"role": "user", "content": question}]
        for question in workloads.step_questions(200)
    ]
    with tempfile.TemporaryDirectory() as folder:
        config = GRPOConfig(
            output_dir=folder,
            per_device_train_batch_size=MICROBATCH,
            gradient_accumulation_steps=count // MICROBATCH,
            num_generations=workloads.STEP_GROUP_SIZE,
            max_completion_length=workloads.STEP_NEW_TOKENS,
            max_steps=100,
            learning_rate=1e-6,
            bf16=True,
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            model_init_kwargs={"dtype": os.environ.get("BENCH_TRL_DTYPE", "bfloat16")},
        )
        trainer = GRPOTrainer(
            model=os.environ["BENCH_MODEL"],
            reward_funcs=reward,
            args=config,
            train_dataset=Dataset.from_dict({"prompt": prompts}),
            callbacks=[Clock()],
        )
        trainer.train()


if __name__ == "__main__":
    main()
