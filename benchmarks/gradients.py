"""Is the quick training path's gradient as good as the plain one's? `python -m benchmarks.gradients`.

Both compute the gradient of the same loss in bfloat16, and each is held against transformers' own forward pass in
float32 with the same weights. Prints, over all weight tensors, the cosine with the float32 gradient and the relative
error |g - g32| / |g32|: the median, the worst, and the name of the worst.
"""

from __future__ import annotations

import random
import statistics
from contextlib import AbstractContextManager
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from benchmarks import machine
from foretaste.config import ModelConfig
from foretaste.models import fast_training
from foretaste.models.actor_critic import ActorCritic, TokenSequence

SEQUENCES, SHARED, OWN, SAMPLED = 16, 48, 12, 24


def sequences(words: int) -> list[TokenSequence]:
    """Return sequences of a shared prompt, a part of their own, and sampled tokens."""
    choose = random.Random(0)
    prompt = [choose.randrange(1000, words) for _ in range(SHARED)]
    mask = [False] * (SHARED + OWN) + [True] * SAMPLED
    return [
        TokenSequence(prompt + [choose.randrange(1000, words) for _ in range(OWN + SAMPLED)], mask)
        for _ in range(SEQUENCES)
    ]


def path(*, fast: bool) -> AbstractContextManager[Any]:
    """Return a block in which models are read by the quick training path where it can, or by transformers alone."""
    return mock.patch.object(fast_training, "supports", fast_training.supports if fast else lambda *_: False)


def gradients(model: ActorCritic, *, fast: bool) -> dict[str, Tensor]:
    """Return the gradient of a weighted sum of log-probabilities, entropies and values, in float32."""
    with path(fast=fast):
        evaluation = model.evaluate(sequences(model.language_model.config.vocab_size))
        weights = torch.randn(3, len(evaluation.logprobs_N), generator=torch.Generator().manual_seed(0))
        parts = (evaluation.logprobs_N, 0.1 * evaluation.entropy_N, evaluation.values_N)
        sum((w * part).sum() for w, part in zip(weights, parts, strict=True)).backward()  # pyright: ignore
    found = {name: p.grad.float() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def compared(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> list[tuple[str, float, float]]:
    """Return name, cosine and relative error of each tensor."""
    if found.keys() != wanted.keys():
        raise AssertionError(f"other weights have a gradient: {sorted(found.keys() ^ wanted.keys())}")
    rows = []
    for name, exact in wanted.items():
        one = found[name]
        cosine = torch.nn.functional.cosine_similarity(one.flatten().double(), exact.flatten().double(), dim=0)
        rows.append((name, float(cosine), float((one - exact).norm() / exact.norm())))
    return rows


def main() -> None:
    """Print the comparison."""
    torch.set_num_threads(machine.threads())
    model = ActorCritic.load(ModelConfig(dtype="bfloat16"))
    exact = ActorCritic.load(ModelConfig(dtype="float32"))
    for one in (model, exact):  # a fresh head is too small to send a gradient
        one.critic.head.linear.weight.data.normal_(std=0.05, generator=torch.Generator().manual_seed(0))
    wanted = gradients(exact, fast=False)
    results = {"quick, bfloat16": gradients(model, fast=True), "plain, bfloat16": gradients(model, fast=False)}
    print("| path | tensors | cosine: median | worst | relative error: median | worst | worst tensor |")
    print("|---|---|---|---|---|---|---|")
    for name, found in results.items():
        rows = compared(found, wanted)
        cosines, errors = [row[1] for row in rows], [row[2] for row in rows]
        worst = max(rows, key=lambda row: row[2])[0]
        figures = f"{statistics.median(cosines):.5f} | {min(cosines):.5f} | {statistics.median(errors):.4f}"
        print(f"| {name} | {len(rows)} | {figures} | {max(errors):.4f} | {worst} |")
    rows = compared(results["quick, bfloat16"], results["plain, bfloat16"])
    cosines = [row[1] for row in rows]
    print(f"\nquick beside plain: cosine {statistics.median(cosines):.5f} in the median, {min(cosines):.5f} at worst")


if __name__ == "__main__":
    main()
