"""How cost grows with batch, context and model size: `python -m benchmarks.growth`.

Each line is a decode step (one token for every row, with log-probability and value) or a training pass (forward and
backward of policy and critic), the median of several. Prints tables in Markdown, for docs/performance.md.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable

import torch

from benchmarks import machine
from foretaste.config import ModelConfig
from foretaste.models.actor_critic import ActorCritic, TokenSequence
from foretaste.models.drawing import draw, uniforms
from foretaste.models.fast_decode import FastDecoder

MODELS = ("nano-xs", "nano", "smollm2-135m")
BATCHES = (1, 8, 32, 64, 128, 256)
CONTEXTS = (32, 128, 512, 1024)
STEPS = 8


def decode_seconds(model: ActorCritic, rows: int, context: int) -> float:
    """Return the seconds of a decode step of `rows` rows that hold `context` tokens each."""
    choose = random.Random(0)
    words = model.language_model.config.vocab_size
    decoder = FastDecoder(model)
    for _ in range(rows):
        decoder.admit()
    decoder.extend([[choose.randrange(5, words) for _ in range(context)] for _ in range(rows)])

    def step() -> None:
        logits_BV, _ = decoder.extend([[7]] * rows)
        draw(logits_BV, 1.0, uniforms([1] * rows, [1] * rows))

    return _median(step)


def training_pass(model: ActorCritic, sequences: int, context: int) -> Callable[[], None]:
    """Return a forward and backward pass over sequences of random tokens, half of each sampled."""
    choose = random.Random(0)
    words = model.language_model.config.vocab_size
    mask = [False] * (context // 2) + [True] * (context // 2)
    made = [TokenSequence([choose.randrange(5, words) for _ in mask], mask) for _ in range(sequences)]

    def step() -> None:
        evaluation = model.evaluate(made)
        (evaluation.logprobs_N.sum() + evaluation.values_N.sum()).backward()
        model.zero_grad()

    return step


def _median(work: Callable[[], None], tries: int = STEPS) -> float:
    work()
    seconds = []
    for _ in range(tries):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def _table(title: str, columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    print(f"\n{title}\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)


def main(arguments: list[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description="How cost grows.")
    parser.add_argument("--models", nargs="*", default=MODELS, choices=MODELS, help="of the third table")
    parser.add_argument("--model", default=MODELS[-1], choices=MODELS, help="of the first two tables")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(machine.threads())
    model = ActorCritic.load(ModelConfig(name=chosen.model))
    seconds = [(rows, decode_seconds(model, rows, 64)) for rows in BATCHES]
    made = [(str(rows), f"{1e3 * s:.1f}", f"{rows / s:,.0f}") for rows, s in seconds]
    _table(f"Batch ({chosen.model}, 64 tokens of context)", ("rows", "ms a step", "tokens/s"), made)
    seconds = [(context, decode_seconds(model, 64, context)) for context in CONTEXTS]
    made = [(str(context), f"{1e3 * s:.1f}", f"{64 / s:,.0f}") for context, s in seconds]
    _table(f"Context ({chosen.model}, 64 rows of their own)", ("tokens", "ms a step", "tokens/s"), made)
    made = []
    for name in chosen.models:
        model = ActorCritic.load(ModelConfig(name=name))
        weights = sum(parameter.numel() for parameter in model.parameters())
        step, train = decode_seconds(model, 64, 64), _median(training_pass(model, 64, 64), tries=3)
        made.append((name, f"{weights / 1e6:.1f}", f"{1e3 * step:.1f}", f"{64 / step:,.0f}", f"{64 * 64 / train:,.0f}"))
    columns = ("model", "million weights, critic included", "ms a decode step", "sampled tokens/s", "trained tokens/s")
    _table("Model size (64 rows, 64 tokens)", columns, made)


if __name__ == "__main__":
    main()
