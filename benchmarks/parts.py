"""Where our own seconds go: `python -m benchmarks.parts`.

Processor seconds (user + system) on one thread, so that they mean something on a busy machine too: a decode step and a
prompt pass, by the matrix unit and by the chain of products, and the two halves of a whole PPO step.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from unittest import mock

import torch

from benchmarks import side_ours
from foretaste.config import ModelConfig
from foretaste.models import matrix_unit
from foretaste.models.actor_critic import ActorCritic
from foretaste.models.drawing import draw, uniforms
from foretaste.models.fast_decode import FastDecoder
from foretaste.rl.batch import make_batch
from foretaste.rl.rollout import rollout
from foretaste.rl.tasks import training_tasks

ROWS, PROMPT, STEPS = 64, 24, 16


def decoding(decoder: FastDecoder) -> tuple[float, float]:
    """Return the seconds of reading 64 prompts of 24 tokens, and of a decode step after them."""
    choose = random.Random(0)
    decoder.begin()
    for _ in range(ROWS):
        decoder.admit()
    started = time.process_time()
    decoder.extend([[choose.randrange(1000, 49000) for _ in range(PROMPT)] for _ in range(ROWS)])
    read = time.process_time() - started
    started = time.process_time()
    for number in range(STEPS):
        logits_BV, _ = decoder.extend([[7]] * ROWS)
        draw(logits_BV, 1.0, uniforms([1] * ROWS, [number] * ROWS))
    return read, (time.process_time() - started) / STEPS


def training(step: side_ours.Step, number: int) -> tuple[float, float]:
    """Return the seconds of sampling 64 x 32 tokens and of learning from them."""
    started = time.process_time()
    played = rollout(step.sampler, training_tasks(step.config, number), step.pool)
    sampled = time.process_time()
    step.updater.update(make_batch(played.episodes), step=number, seed=0)
    return sampled - started, time.process_time() - sampled


def main(arguments: list[str] | None = None) -> None:
    """Print the medians."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parts", description="Where our own seconds go.")
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args(arguments).rounds
    torch.set_num_threads(1)
    model = ActorCritic.load(ModelConfig())
    decoders = {"": FastDecoder(model)}
    with mock.patch.object(matrix_unit, "supports", return_value=False):
        decoders[", chained products"] = FastDecoder(model)
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, decoder in decoders.items():
            for part, seconds in zip(("64 prompts of 24 tokens", "a decode step"), decoding(decoder), strict=True):
                found.setdefault(f"{part}{name}", []).append(seconds)
    step = side_ours.Step()
    training(step, 1)
    for number in range(2, rounds + 2):
        for part, seconds in zip(
            ("sampling of a PPO step", "learning of a PPO step"), training(step, number), strict=True
        ):
            found.setdefault(part, []).append(seconds)
    print("| part | processor seconds: median | least | most |\n|---|---|---|---|")
    for part, seconds in found.items():
        print(f"| {part} | {statistics.median(seconds):.3f} | {min(seconds):.3f} | {max(seconds):.3f} |")


if __name__ == "__main__":
    main()
