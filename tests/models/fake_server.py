"""A `TokenServer` without vLLM: transformers' own forward over whole contexts, with the weights it was last given."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from foretaste.config import SamplingConfig
from foretaste.models.actor_critic import ActorCritic
from foretaste.models.drawing import draw, uniforms
from foretaste.models.vllm_server import Answer


@dataclass
class Asked:
    """A context whose action is being sampled."""

    context: list[int]
    limit: int
    seed: int
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)


class FakeServer:
    """Notes what it is asked; samples by its own copy of the policy, which begins as nothing but zeros."""

    def __init__(self, actor_critic: ActorCritic, config: SamplingConfig, max_context: int = 8192) -> None:
        policy = actor_critic.policy
        merged = copy.deepcopy(policy)
        self.model = merged.merge_and_unload() if hasattr(merged, "peft_config") else merged
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.zero_()
        self.ends, self.temperature, self.max_context = actor_critic.template.end_ids, config.temperature, max_context
        self.live: dict[str, Asked] = {}
        self.asked: list[Asked] = []
        self.most = 0
        self.events: list[str] = []
        """What was done to it, without asking and stepping."""

    def begin(self) -> None:
        assert not self.live
        self.events.append("begin")

    def load(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        assert not self.live
        given = dict(weights)
        missing, unexpected = self.model.load_state_dict(given, strict=False)
        assert not unexpected
        assert set(missing) <= {"lm_head.weight"}
        assert len(given) == len(list(self.model.named_parameters()))
        self.events.append("load")

    def ask(self, key: str, tokens: Sequence[int], *, limit: int, seed: int) -> None:
        assert key not in self.live
        assert 0 < len(tokens) < self.max_context
        assert 0 < limit <= self.max_context - len(tokens)
        self.live[key] = Asked(list(tokens), limit, seed)
        self.asked.append(self.live[key])
        self.most = max(self.most, len(self.live))

    @torch.no_grad()
    def step(self) -> list[Answer]:
        ended = []
        for key, one in list(self.live.items()):
            logits_1V = self.model(torch.tensor([[*one.context, *one.tokens]])).logits[:, -1]
            token, logprob = draw(logits_1V, self.temperature, uniforms([one.seed], [len(one.tokens)]))
            one.tokens.append(int(token))
            one.logprobs.append(float(logprob))
            if one.tokens[-1] in self.ends or len(one.tokens) == one.limit:
                ended.append(Answer(key, one.tokens, one.logprobs))
                del self.live[key]
        return ended

    def drop(self, keys: Sequence[str]) -> None:
        for key in keys:
            del self.live[key]

    def rest(self) -> None:
        self.events.append("rest")
