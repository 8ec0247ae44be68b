"""How far apart are sampler and trainer, and is it more than bfloat16 itself? `python -m benchmarks.agreement [MODEL]`.

Sampled tokens carry the sampler's log-probabilities; the trainer reads the same tokens again with other kernels. Both
are held against transformers' own forward pass in bfloat16, and all three against float32 with the same weights.
Prints quantiles of the absolute differences over all sampled tokens. MODEL: a folder, or a name that training takes.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import machine
from benchmarks.gradients import path
from foretaste.config import AlgorithmConfig, EnvConfig, ModelConfig, SamplingConfig, TrainConfig
from foretaste.models.actor_critic import ActorCritic
from foretaste.models.sampler import Sampler
from foretaste.rl.batch import Batch, make_batch
from foretaste.rl.rollout import EnvPool, rollout
from foretaste.rl.tasks import training_tasks
from foretaste.rl.update import Updater

QUANTILES = (0.5, 0.9, 0.99, 0.999)
EPISODES, NEW_TOKENS = 64, 32


def played(model: ActorCritic, config: TrainConfig) -> Batch:
    """Return episodes of `extract` as the model samples them."""
    return make_batch(rollout(Sampler(model, config.sampling), training_tasks(config, 1), EnvPool(config.env)).episodes)


def read(model: ActorCritic, batch: Batch, *, quick: bool) -> NDArray[np.float64]:
    """Return the log-probability of each sampled token, as the trainer reads it."""
    with path(fast=quick):
        updater = Updater(model, AlgorithmConfig(name="reinforce"), temperature=1.0)
        return updater.logprobs(batch)[batch.mask_BT]


def main() -> None:
    """Print the comparison."""
    torch.set_num_threads(machine.threads())
    name = sys.argv[1] if len(sys.argv) > 1 else ModelConfig().name
    config = TrainConfig(
        env=EnvConfig("extract"),
        sampling=SamplingConfig(max_new_tokens=NEW_TOKENS),
        episodes_per_step=EPISODES,
    )
    model = ActorCritic.load(ModelConfig(name, dtype="bfloat16"))
    batch = played(model, config)
    found = {
        "sampler": batch.logprobs_BT[batch.mask_BT],
        "trainer": read(model, batch, quick=True),
        "transformers": read(model, batch, quick=False),
    }
    exact = read(ActorCritic.load(ModelConfig(name, dtype="float32")), batch, quick=False)
    pairs = [(f"{one}, bfloat16", "float32", values - exact) for one, values in found.items()]
    pairs += [
        (one, other, found[one] - found[other]) for one, other in (("sampler", "trainer"), ("sampler", "transformers"))
    ]
    print(f"{name}, {batch.tokens:,} sampled tokens: absolute difference of log-probabilities\n")
    print("| | beside | " + " | ".join(f"{quantile:.1%}" for quantile in QUANTILES) + " |")
    print("|---|---|" + "---|" * len(QUANTILES))
    for one, other, difference in pairs:
        figures = " | ".join(f"{value:.3f}" for value in np.quantile(np.abs(difference), QUANTILES))
        print(f"| {one} | {other} | {figures} |")


if __name__ == "__main__":
    main()
