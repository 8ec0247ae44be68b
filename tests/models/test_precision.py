from __future__ import annotations

import copy
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from torch import nn

from foretaste.models import kernels, split_adamw
from foretaste.models.precision import MasterWeights
from foretaste.models.split_adamw import SplitAdamW

WAYS = ["kernel", "plain"]


def pair(dtype: torch.dtype) -> tuple[nn.Parameter, nn.Parameter]:
    return nn.Parameter(torch.ones(4, dtype=dtype)), nn.Parameter(torch.ones(4, dtype=dtype))


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """By the compiled kernel and by PyTorch's operations, in pieces of 3 numbers."""
    if request.param == "plain":
        monkeypatch.setattr(kernels, "available", lambda *_: False)
        monkeypatch.setattr(split_adamw, "PIECE", 3)
    elif kernels.library(torch.bfloat16) is None:
        pytest.skip("no compiler")
    return request.param


def test_updates_below_bf16_resolution_survive_and_add_up(way: str) -> None:
    actor, critic = pair(torch.bfloat16)
    masters = MasterWeights({"actor": [actor], "critic": [critic]})
    for _ in range(600):
        actor.grad = torch.ones_like(actor)
        masters.step({"actor": 1e-5})
    assert torch.equal(critic, torch.ones_like(critic))
    assert masters.weights("actor")[0].tolist() == pytest.approx([1 - 600e-5] * 4, abs=2e-5)
    assert actor.float().mean().item() == pytest.approx(1 - 600e-5, abs=0.004)
    assert not torch.equal(actor, torch.ones_like(actor))


def test_micro_batches_add_up_in_float32() -> None:
    actor, _ = pair(torch.bfloat16)
    masters = MasterWeights({"actor": [actor]}, max_grad_norm=1e9)
    for _ in range(1000):
        masters.accumulate()
        assert actor.grad is None
        actor.grad = torch.full_like(actor, 1.0)
    masters.accumulate()
    actor.grad = torch.full_like(actor, 2**-7)
    assert masters.step({"actor": 0.0})["actor"] == pytest.approx(2 * (1000 + 2**-7), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_micro_batches_give_the_step_of_the_whole_batch(dtype: torch.dtype, way: str) -> None:
    parted, whole = pair(dtype)
    one, other = MasterWeights({"actor": [parted]}), MasterWeights({"actor": [whole]})
    gradients = torch.tensor([[0.5, -0.25, 2.0, 0.0], [1.5, -0.75, 1.0, 0.0]], dtype=dtype)
    for _ in range(3):
        one.accumulate()
        (parted * gradients[0]).sum().backward()
        one.accumulate()
        (parted * gradients[1]).sum().backward()
        whole.grad = gradients.sum(0)
        assert one.step({"actor": 0.01}) == pytest.approx(other.step({"actor": 0.01}))
    assert torch.equal(one.weights("actor")[0], other.weights("actor")[0])
    assert parted[3] == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_groups_are_clipped_apart_and_have_their_own_rates(dtype: torch.dtype, way: str) -> None:
    actor, critic = pair(dtype)
    masters = MasterWeights({"actor": [actor], "critic": [critic]}, betas=(0.0, 0.0))
    actor.grad, critic.grad = torch.full_like(actor, 100.0), torch.full_like(critic, 0.25)
    norms = masters.step({"actor": 0.25, "critic": 0.5})
    assert norms == pytest.approx({"actor": 200.0, "critic": 0.5})
    assert actor.tolist() == pytest.approx([0.75] * 4, abs=1e-3)
    assert critic.tolist() == pytest.approx([0.5] * 4, abs=1e-3)
    assert actor.grad is None
    assert critic.grad is None


def test_a_group_of_both_precisions_has_one_norm() -> None:
    rough, fine = nn.Parameter(torch.ones(4, dtype=torch.bfloat16)), nn.Parameter(torch.ones(9))
    masters = MasterWeights({"actor": [rough, fine]}, betas=(0.0, 0.0))
    rough.grad, fine.grad = torch.full_like(rough, 2.0), torch.full_like(fine, 1.0)
    assert masters.step({"actor": 0.25})["actor"] == pytest.approx(5.0)
    assert rough.tolist() == pytest.approx([0.75] * 4, abs=1e-3)
    assert fine.tolist() == pytest.approx([0.75] * 9, abs=1e-3)


def test_other_precisions_are_refused() -> None:
    with pytest.raises(TypeError, match=r"'actor' are torch.float16; accepted: float32, bfloat16"):
        MasterWeights({"actor": [nn.Parameter(torch.ones(1, dtype=torch.float16))]})


@pytest.mark.parametrize("bad", [torch.inf, torch.nan])
def test_a_gradient_that_is_not_finite_changes_nothing(bad: float, way: str) -> None:
    actor, _ = pair(torch.bfloat16)
    masters = MasterWeights({"actor": [actor]})
    actor.grad = torch.full_like(actor, bad)
    assert masters.step({"actor": 0.1})["actor"] == pytest.approx(bad, nan_ok=True)
    assert torch.equal(actor, torch.ones_like(actor))
    assert actor.grad is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_resumed_optimizer_continues_exactly(dtype: torch.dtype, way: str) -> None:
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
    assert torch.equal(masters.weights("actor")[0], again.weights("actor")[0])


def noisy(parameter: nn.Parameter, step: int) -> torch.Tensor:
    """A gradient of noise around a mean that differs from weight to weight, of very different sizes."""
    draw = torch.Generator().manual_seed(step)
    size = torch.logspace(-7, 0, parameter.numel())
    return size * (torch.randn(parameter.numel(), generator=draw) + torch.linspace(-1, 1, parameter.numel()))


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_it_moves_as_adamw_in_float32_does(weight_decay: float, way: str) -> None:
    rough = nn.Parameter(torch.linspace(-2, 2, 5000).to(torch.bfloat16))
    fine = nn.Parameter(rough.detach().float())
    ours = SplitAdamW([rough], betas=(0.9, 0.95), weight_decay=weight_decay)
    theirs = torch.optim.AdamW([fine], lr=1e-4, betas=(0.9, 0.95), weight_decay=weight_decay)
    start = fine.detach().clone()
    for step in range(200):
        rough.grad = noisy(rough, step).to(torch.bfloat16)
        fine.grad = rough.grad.float()
        ours.step(1e-4, clip=1.0)
        theirs.step()
    moved, wanted = ours.weights()[0] - start, fine.detach() - start
    assert wanted.abs().mean() > 1e-3
    assert (moved - wanted).abs().mean() < 0.005 * wanted.abs().mean()
    assert (rough.detach().float() - ours.weights()[0]).abs().max() <= 2**-8


def test_kernel_and_plain_path_agree() -> None:
    if kernels.library(torch.bfloat16) is None:
        pytest.skip("no compiler")
    found = []
    for compiled in (True, False):
        parameter = nn.Parameter(torch.linspace(-2, 2, 9001).to(torch.bfloat16))
        ours = SplitAdamW([parameter], betas=(0.9, 0.95), weight_decay=0.1)
        with mock.patch.object(kernels, "available", lambda *_, on=compiled: on):
            for step in range(5):
                parameter.grad = noisy(parameter, step).to(torch.bfloat16)
                norm = ours.norm()
                ours.step(1e-3, clip=0.5)
        found.append((norm, ours.weights()[0]))
    (norm, compiled), (other, plain) = found
    assert norm == pytest.approx(other, rel=1e-6)
    gap = (compiled - plain).abs()
    assert gap.mean() < 1e-6
    assert gap.max() < 2e-5  # a moment on the other side of a rounding: a hundredth of a step


@given(npst.arrays(np.float32, 7, elements=st.floats(-(2.0**99), 2.0**99, width=32, allow_subnormal=False)))
def test_halves_make_the_number(numbers: np.ndarray) -> None:
    """A step that decays the weights by nothing and moves them by a gradient of 0 leaves every bit as it is."""
    whole = torch.from_numpy(numbers)
    bits = whole.view(torch.int32)
    low = ((bits & 0xFFFF) ^ 0x8000) - 0x8000
    upper = ((bits - low) >> 16).to(torch.int16).view(torch.bfloat16)
    parameter = nn.Parameter(upper)
    ours = SplitAdamW([parameter], betas=(0.9, 0.95), weight_decay=0.0)
    ours._low[0].copy_(low)
    assert torch.equal(ours.weights()[0], whole)
    gap = (parameter.detach().float() - whole).abs()
    assert bool((gap <= whole.abs() * 2**-8 + 1e-38).all())
    parameter.grad = torch.zeros_like(parameter)
    ours.step(1.0, clip=1.0)
    assert torch.equal(ours.weights()[0], whole)
