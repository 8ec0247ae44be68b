"""Where our own seconds go: `python -m benchmarks.parts`.

Processor seconds (user + system) on one thread, so that they mean something on a busy machine too: a decode step and a
prompt pass, in one call and by the chain of products, the two halves of a whole PPO step, and a training pass of
the smallest model over sequences of several lengths. `--only nano` measures the last alone.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from unittest import mock

import torch

from benchmarks import side_ours
from benchmarks.growth import training_pass
from foretaste.config import ModelConfig
from foretaste.models import packed_layers
from foretaste.models.actor_critic import ActorCritic
from foretaste.models.drawing import draw, uniforms
from foretaste.models.fast_decode import FastDecoder
from foretaste.rl.batch import make_batch
from foretaste.rl.rollout import rollout
from foretaste.rl.tasks import training_tasks

ROWS, PROMPT, STEPS = 64, 24, 16
PASS, LENGTHS = 8192, (64, 256, 1024)
"""Tokens of a training pass of the smallest model, and of each of its sequences."""


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


def smollm2(rounds: int) -> dict[str, list[float]]:
    """Return what each part of the language model's work took."""
    model = ActorCritic.load(ModelConfig())
    decoders = {"": FastDecoder(model)}
    with mock.patch.object(packed_layers, "supports", return_value=False):
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
    return found


def nano(rounds: int) -> dict[str, list[float]]:
    """Return what training passes of `nano-xs` with a critic of its size took, by the length of the sequences."""
    model = ActorCritic.load(ModelConfig(name="nano-xs", critic_layers=-1))
    passes = {length: training_pass(model, PASS // length, length) for length in LENGTHS}
    found: dict[str, list[float]] = {}
    for number in range(rounds + 1):
        for length, work in passes.items():
            started = time.process_time()
            work()
            if number:
                part = f"a training pass of nano-xs, {PASS:,} tokens in sequences of {length:,}"
                found.setdefault(part, []).append(time.process_time() - started)
    return found


def main(arguments: list[str] | None = None) -> None:
    """Print the medians."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parts", description="Where our own seconds go.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=("smollm2", "nano"), help="measure the parts of one model")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    found: dict[str, list[float]] = {}
    for name, measure in (("smollm2", smollm2), ("nano", nano)):
        if chosen.only in (None, name):
            found |= measure(chosen.rounds)
    print("| part | processor seconds: median | least | most |\n|---|---|---|---|")
    for part, seconds in found.items():
        print(f"| {part} | {statistics.median(seconds):.3f} | {min(seconds):.3f} | {max(seconds):.3f} |")


if __name__ == "__main__":
    main()
