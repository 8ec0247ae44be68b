from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from foretaste.models.precision import MasterWeights


def pair(dtype: torch.dtype) -> tuple[nn.Parameter, nn.Parameter]:
    return nn.Parameter(torch.ones(4, dtype=dtype)), nn.Parameter(torch.ones(4, dtype=dtype))


def test_updates_below_bf16_resolution_survive_and_add_up() -> None:
    actor, critic = pair(torch.bfloat16)
    masters = MasterWeights({"actor": [actor], "critic": [critic]})
    for _ in range(600):
        actor.grad = torch.ones_like(actor)
        masters.step({"actor": 1e-5})
    assert torch.equal(critic, torch.ones_like(critic))
    assert actor.float().mean().item() == pytest.approx(1 - 600e-5, abs=0.004)
    assert not torch.equal(actor, torch.ones_like(actor))


def test_micro_batches_add_up_in_float32() -> None:
    actor, _ = pair(torch.bfloat16)
    masters = MasterWeights({"actor": [actor]}, max_grad_norm=1e9)
    for _ in range(1000):
        actor.grad = torch.full_like(actor, 1.0)
        masters.accumulate()
        assert actor.grad is None
    actor.grad = torch.full_like(actor, 2**-7)
    assert masters.step({"actor": 0.0})["actor"] == pytest.approx(2 * (1000 + 2**-7), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_groups_are_clipped_apart_and_have_their_own_rates(dtype: torch.dtype) -> None:
    actor, critic = pair(dtype)
    masters = MasterWeights({"actor": [actor], "critic": [critic]}, betas=(0.0, 0.0))
    actor.grad, critic.grad = torch.full_like(actor, 100.0), torch.full_like(critic, 0.25)
    norms = masters.step({"actor": 0.25, "critic": 0.5})
    assert norms == pytest.approx({"actor": 200.0, "critic": 0.5})
    assert actor.tolist() == pytest.approx([0.75] * 4, abs=1e-3)
    assert critic.tolist() == pytest.approx([0.5] * 4, abs=1e-3)
    assert actor.grad is None
    assert critic.grad is None


def test_an_infinite_gradient_changes_nothing() -> None:
    actor, _ = pair(torch.bfloat16)
    masters = MasterWeights({"actor": [actor]})
    actor.grad = torch.full_like(actor, torch.inf)
    assert masters.step({"actor": 0.1})["actor"] == torch.inf
    assert torch.equal(actor, torch.ones_like(actor))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_resumed_optimizer_continues_exactly(dtype: torch.dtype) -> None:
    def steps(masters: MasterWeights, parameter: nn.Parameter, first: int, last: int) -> None:
        for step in range(first, last):
            parameter.grad = torch.sin(torch.arange(4.0) + step).to(dtype)
            masters.step({"actor": 1e-3})

    whole, _ = pair(dtype)
    masters = MasterWeights({"actor": [whole]})
    steps(masters, whole, 0, 5)
    saved = copy.deepcopy(masters.state_dict())
    steps(masters, whole, 5, 10)
    resumed, _ = pair(dtype)
    again = MasterWeights({"actor": [resumed]})
    again.load_state_dict(saved)
    steps(again, resumed, 5, 10)
    assert torch.equal(whole, resumed)
    final, other = masters.state_dict()["masters"]["actor"], again.state_dict()["masters"]["actor"]
    assert torch.equal(final[0], other[0])
