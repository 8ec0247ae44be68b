from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foretaste.models.value_head import ValueHead

KINDS = ("bce", "regression", "hl_gauss")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mean", [0.05, 0.5, 0.9])
def test_bias_starts_the_value_at_the_mean_return(kind, mean: float) -> None:
    head = ValueHead(8, kind, (-1.0, 2.0))
    head.set_bias(mean)
    assert head.value(head(torch.zeros(3, 8))).tolist() == pytest.approx([mean] * 3, abs=1e-4)


@settings(max_examples=50, deadline=None)
@given(st.floats(-1, 2))
def test_a_smeared_target_keeps_its_mean(target: float) -> None:
    head = ValueHead(8, "hl_gauss", (-1.0, 2.0))
    smeared = head.smear(torch.tensor([target]))
    assert smeared.sum().item() == pytest.approx(1.0, abs=1e-5)
    assert (smeared @ head.centers).item() == pytest.approx(target, abs=2e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_least_where_the_value_is_the_weighted_mean_target(kind) -> None:
    head = ValueHead(1, kind, (0.0, 1.0))
    targets, weights = torch.tensor([0.0, 1.0, 1.0]), torch.tensor([1.0, 2.0, 1.0])
    optimizer = torch.optim.Adam(head.parameters(), lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        head.loss(head(torch.zeros(3, 1)), targets, weights).backward()
        optimizer.step()
    assert head.value(head(torch.zeros(1, 1))).item() == pytest.approx(0.75, abs=0.01)


def test_bce_is_linear_in_targets_outside_zero_and_one() -> None:
    head = ValueHead(1, "bce", (0.0, 1.0))
    logits, weights = torch.tensor([0.7]), torch.ones(1)
    low, middle, high = (head.loss(logits, torch.tensor([t]), weights).item() for t in (-0.5, 0.5, 1.5))
    assert high - middle == pytest.approx(middle - low, abs=1e-6)
    assert high != middle
