from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from foretaste.config import ModelConfig
from foretaste.models.actor_critic import ActorCritic

sys.path.insert(0, str(Path(__file__).parent))


def make_nano(**settings: object) -> ActorCritic:
    """A nano with larger random weights, so that its predictions and values differ from position to position."""
    model = ActorCritic.load(ModelConfig(name="nano", **settings), seed=1)  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in model.policy.parameters():
            if parameter.dim() > 1:
                parameter.mul_(2.0)
        for parameter in model.critic.decoder.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3.0)
        model.critic.head.linear.weight.normal_(std=0.2, generator=torch.Generator().manual_seed(2))
    return model


@pytest.fixture(params=[-1, 1, 2], ids=["separate", "tower1", "tower2"])
def nano(request: pytest.FixtureRequest) -> ActorCritic:
    return make_nano(critic_layers=request.param)


@pytest.fixture
def tower() -> ActorCritic:
    return make_nano(critic_layers=2)
