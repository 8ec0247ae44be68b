"""Steps of PPO whose episodes vLLM samples, read again by the trainer and by the sampler (see `vllm_engine.py`).

Log-probabilities: of the sampled tokens, by vLLM, by the trainer with the weights that sampled and with those of the
step before, and by the sampler's decoder. Values: those that came with the episodes, and what the sampler's decoder
reads of the same tokens.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from foretaste.config import (
    AlgorithmConfig,
    EnvConfig,
    HeldOutConfig,
    ModelConfig,
    SamplingConfig,
    TrainConfig,
)
from foretaste.ledger import Ledger
from foretaste.models.actor_critic import ActorCritic, TokenSequence
from foretaste.models.decode import Decoder
from foretaste.models.engines import make_engine
from foretaste.models.sampler import Sampler
from foretaste.models.vllm_sampler import VllmSampler
from foretaste.rl.batch import Batch, make_batch
from foretaste.rl.reading import Reader
from foretaste.rl.rollout import EnvPool, rollout
from foretaste.rl.tasks import training_tasks
from foretaste.rl.train import train
from foretaste.rl.update import Updater

QUANTILES = (0.5, 0.9, 0.99, 0.999)
ENV = EnvConfig("guess", level=2)
LEARNING_RATE = 5e-5

Numbers = NDArray[np.float64]


def decoded(model: ActorCritic, sequences: Sequence[TokenSequence]) -> tuple[Numbers, Numbers]:
    """Return log-probabilities and values of all action tokens as the sampler's decoder reads them, token by token."""
    decoder: Decoder = Sampler(model, SamplingConfig())._decoder
    logprobs: list[float] = []
    values: list[float] = []
    decoder.begin()
    for sequence in sequences:
        decoder.admit()
        fed = 0
        for index in np.flatnonzero(sequence.action_mask).tolist():
            logits_1V, values_1 = decoder.extend([sequence.tokens[fed:index]])
            logprobs.append(logits_1V.float().log_softmax(-1)[0, sequence.tokens[index]].item())
            values.append(values_1.item())
            fed = index
        decoder.drop(0)
    return np.array(logprobs), np.array(values)


def trainer(model: ActorCritic, batch: Batch) -> Numbers:
    """Return the log-probability of each sampled token as the trainer reads it."""
    return Reader(model, AlgorithmConfig(), temperature=1.0).logprobs(batch)[batch.mask_BT]


def row(label: str, one: Numbers, other: Numbers) -> None:
    """Print quantiles of the absolute differences."""
    figures = " | ".join(f"{value:.3f}" for value in np.quantile(np.abs(one - other), QUANTILES))
    print(f"| {label} | {len(one):,} | {figures} |", flush=True)


def steps(config: TrainConfig) -> None:
    """Take `config.steps` steps; print a row for each comparison of each step."""
    model = ActorCritic.load(config.model)
    with torch.no_grad():  # a critic whose values differ from token to token, as they do once it has learned
        model.critic.head.linear.weight.normal_(std=0.05, generator=torch.Generator().manual_seed(0))
    engine = make_engine(model, config.sampling)
    updater, pool = Updater(model, config.algorithm, temperature=1.0), EnvPool(config.env)
    before: ActorCritic | None = None
    for step in range(1, config.steps + 1):
        tasks = training_tasks(config, step)
        episodes = rollout(engine, tasks, pool).episodes
        batch = make_batch(episodes)
        sampled, values = batch.logprobs_BT[batch.mask_BT], batch.values_BT[batch.mask_BT]
        row(f"step {step}: vLLM, trainer", sampled, trainer(model, batch))
        if before is not None:
            row(f"step {step}: vLLM, trainer before step {step - 1} was learned", sampled, trainer(before, batch))
        if step == config.steps:
            logprobs_N, values_N = decoded(model, batch.sequences)
            row(f"step {step}: vLLM, sampler", sampled, logprobs_N)
            row(f"step {step}: values, sampler's (deviation {values_N.std():.3f})", values, values_N)
            again = rollout(engine, tasks, pool).episodes
            same = [a.turns == b.turns for a, b in zip(episodes, again, strict=True)]
            print(f"\nSampled again with the same seeds: {sum(same)} of {len(same)} episodes are the same\n")
        before = copy.deepcopy(model)
        engine.rest()
        updater.update(batch, step=step, seed=0)


def adapter(config: TrainConfig) -> None:
    """Print rows for a policy with a LoRA adapter of random weights, beside one without it."""
    model = ActorCritic.load(dataclasses.replace(config.model, lora_rank=8))
    with torch.no_grad():
        for name, parameter in model.policy.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05, generator=torch.Generator().manual_seed(0))
    engine = make_engine(model, config.sampling)
    batch = make_batch(rollout(engine, training_tasks(config, 1), EnvPool(config.env)).episodes)
    sampled = batch.logprobs_BT[batch.mask_BT]
    row("LoRA adapter: vLLM, trainer", sampled, trainer(model, batch))
    row("LoRA adapter: vLLM, trainer without it", sampled, trainer(ActorCritic.load(config.model), batch))


def seconds(config: TrainConfig) -> None:
    """Print what sampling takes, episodes with their values, by either engine; a look, not a benchmark."""
    model = ActorCritic.load(config.model)
    pool, tasks = EnvPool(config.env), training_tasks(config, 1)
    for name in ("vllm", "auto"):
        engine = make_engine(model, dataclasses.replace(config.sampling, engine=name))
        rollout(engine, tasks[:8], pool)
        reading = 0.0
        if isinstance(engine, VllmSampler):
            read = engine._read

            def timed(*given: Any, read: Callable[..., Any] = read) -> Any:
                nonlocal reading
                began = time.perf_counter()
                try:
                    return read(*given)
                finally:
                    reading += time.perf_counter() - began

            engine._read = timed
        started = time.perf_counter()
        played = rollout(engine, tasks, pool).episodes
        took, tokens = time.perf_counter() - started, sum(episode.action_tokens for episode in played)
        turns = sum(len(episode.turns) for episode in played)
        print(
            f"engine {name}: {tokens:,} tokens in {turns} turns, {took:.1f} s, {reading:.1f} s of them reading values",
            flush=True,
        )


def main() -> None:
    """Print everything."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.vllm_engine")
    parser.add_argument("--quick", action="store_true", help="a third of the episodes, two steps")
    quick = parser.parse_args().quick
    config = TrainConfig(
        env=ENV,
        model=ModelConfig(),
        sampling=SamplingConfig(engine="vllm", max_new_tokens=16),
        algorithm=AlgorithmConfig(learning_rate=LEARNING_RATE, warmup_steps=0, value_pretraining_episodes=8),
        held_out=HeldOutConfig(items=8),
        steps=2 if quick else 3,
        episodes_per_step=8 if quick else 24,
    )
    print(f"\n{config.model.name}, {ENV.id} level {ENV.level}, {config.episodes_per_step} episodes a step")
    print("\n| absolute difference between | tokens | " + " | ".join(f"{q:.1%}" for q in QUANTILES) + " |")
    print("|---|---|" + "---|" * len(QUANTILES), flush=True)
    adapter(config)
    steps(config)
    seconds(config)
    with tempfile.TemporaryDirectory() as folder:
        train(config, runs_folder=folder)
        ledger = Ledger.open(folder)
        [run] = ledger.runs()
        for record in ledger.records(run.id, "metrics"):
            apart = record.payload["policy/sampler_difference_p999"]
            print(f"foretaste train, step {record.step}: policy/sampler_difference_p999 {apart:.3f}")
        ledger.close()


if __name__ == "__main__":
    main()
