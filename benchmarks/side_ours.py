"""Our side: sampling with log-probabilities and values, and a whole PPO step with a critic."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Sequence
from typing import Any

import torch

from benchmarks import workloads
from benchmarks.protocol import Line, serve
from benchmarks.workloads import Talk
from foretaste.config import AlgorithmConfig, EnvConfig, ModelConfig, SamplingConfig, TrainConfig
from foretaste.envs.base import TextEnv
from foretaste.models.actor_critic import ActorCritic, TokenSequence
from foretaste.models.sampler import Next, Sampler
from foretaste.records import Action, Conversation
from foretaste.rl.batch import make_batch
from foretaste.rl.rollout import EnvPool, rollout
from foretaste.rl.tasks import training_tasks
from foretaste.rl.update import Updater


class FixedLengths(Sampler):
    """Actions end after the number of tokens that the workload says, and not before."""

    def __init__(self, model: ActorCritic, talks: list[Talk]) -> None:
        """Play these conversations; the model's end tokens count as any other token."""
        super().__init__(model, SamplingConfig(concurrent=workloads.CONCURRENT, max_new_tokens=256))
        model.template.end_ids = frozenset()
        self.start(talks)

    def start(self, talks: list[Talk]) -> None:
        """Take up other conversations."""
        self.talks = talks
        self.turn = [0] * len(talks)

    def limit(self, conversation: Conversation) -> int:
        """See `Sampler.limit`."""
        index = int(conversation.key)
        return self.talks[index].turns[self.turn[index]].new_tokens

    def play(self) -> int:
        """Sample everything; return the number of tokens, each with its log-probability and value."""
        conversations = []
        for index, talk in enumerate(self.talks):
            conversations.append(Conversation(str(index), [], sample_seed=index))
            conversations[-1].tokens.extend(talk.prompt)
        tokens = 0

        def on_action(conversation: Conversation, action: Action) -> Next | None:
            nonlocal tokens
            tokens += min(len(action.logprobs), len(action.values))
            index = int(conversation.key)
            self.turn[index] += 1
            observation = self.talks[index].turns[self.turn[index] - 1].observation
            return Next(observation) if observation else None

        self.run(iter(conversations), on_action)
        return tokens


class Stories(TextEnv):
    """The prompts of the training step as an environment."""

    name = "stories"
    instructions = workloads.STEP_INSTRUCTIONS

    def begin(self) -> tuple[str, dict[str, Any]]:
        """See `TextEnv`."""
        return workloads.step_questions(1, seed=self.random.randrange(1000))[0], {}

    def act(self, action: str) -> tuple[str, float, bool, dict[str, Any]]:
        """See `TextEnv`."""
        return "", workloads.step_reward(action), True, {"success": 0.0}

    def oracle(self) -> str:
        """See `TextEnv`."""
        return "Once upon a time."


class Step:
    """One PPO step with a critic: sample a batch, learn once from each token, both networks."""

    def __init__(self) -> None:
        """Load the model and its optimiser."""
        self.config = TrainConfig(
            env=EnvConfig(id="stories", examples=0),
            sampling=SamplingConfig(max_new_tokens=workloads.STEP_NEW_TOKENS),
            algorithm=AlgorithmConfig(
                group_size=workloads.STEP_GROUP_SIZE, passes=1, minibatches=1, learning_rate=1e-6, warmup_steps=0
            ),
            episodes_per_step=workloads.STEP_GROUPS * workloads.STEP_GROUP_SIZE,
        )
        model = ActorCritic.load(self.config.model)
        self.sampler = Sampler(model, self.config.sampling)
        self.updater = Updater(model, self.config.algorithm, temperature=1.0)
        self.pool = EnvPool(self.config.env, Stories)

    def take(self, step: int, quick: bool) -> dict[str, float]:
        """Take one step; return what `sides.Measured` says of it."""
        config = dataclasses.replace(self.config, episodes_per_step=16) if quick else self.config
        played = rollout(self.sampler, training_tasks(config, step), self.pool)
        batch = make_batch(played.episodes)
        started = time.perf_counter()
        self.sampler.rest()
        self.updater.update(batch, step=step, seed=0)
        return {
            "tokens": batch.tokens,
            "learn_seconds": time.perf_counter() - started,
            "read_tokens": _read_tokens(batch.sequences, batch.shared_prefix),
        }


def _read_tokens(sequences: Sequence[TokenSequence], shared: int) -> int:
    """Return how many tokens have to be read: what all begin with once, and once the prompt of attempts at one task."""
    prompts = {tuple(one.tokens[: list(one.action_mask).index(True)]) for one in sequences}
    own = sum(len(one.tokens) - 1 - list(one.action_mask).index(True) for one in sequences)
    return own + shared + sum(len(prompt) - shared for prompt in prompts)


def main() -> None:
    """Serve requests. The model is loaded when the first one says what is wanted."""
    line = Line()
    torch.set_num_threads(int(os.environ["BENCH_THREADS"]))
    sampler: FixedLengths | None = None
    step: Step | None = None

    def work(name: str, seed: int, quick: bool) -> dict[str, float]:
        nonlocal sampler, step
        if name == "step":
            step = step or Step()
            return step.take(seed + 1, quick)
        talks = workloads.talks(name, seed, quick=quick)
        sampler = sampler or FixedLengths(ActorCritic.load(ModelConfig()), talks)
        sampler.start(talks)
        return {"tokens": sampler.play()}

    serve(line, work)


if __name__ == "__main__":
    main()
