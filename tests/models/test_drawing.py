from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foretaste.errors import ModelError
from foretaste.models import kernels
from foretaste.models.drawing import _draw_in_chunks, draw, uniforms


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31), vocabulary=st.integers(1, 700), u=st.floats(0, 1, exclude_max=True))
def test_draw_is_the_inverse_of_the_cumulative_distribution(seed: int, vocabulary: int, u: float) -> None:
    logits = torch.randn(3, vocabulary, generator=torch.Generator().manual_seed(seed)) * 4
    tokens, logprobs = draw(logits, 1.0, torch.full((3,), u, dtype=torch.float64))
    exact = logits.double().softmax(-1)
    until = exact.cumsum(-1)
    for row, token in enumerate(tokens.tolist()):
        below = until[row, token] - exact[row, token]
        assert below - 1e-5 <= u <= until[row, token] + 1e-5
        assert logprobs[row].item() == pytest.approx(exact[row, token].log().item(), abs=1e-4)


def test_tokens_without_probability_are_never_drawn() -> None:
    logits = torch.full((1, 600), -torch.inf)
    logits[0, [3, 590]] = 0.0
    drawn = {
        draw(logits, 1.0, torch.tensor([u], dtype=torch.float64))[0].item()
        for u in [0.0, 0.1, 0.4999, 0.5001, 0.9, 1 - 2**-53]
    }
    assert drawn == {3, 590}


def test_temperature_zero_is_greedy() -> None:
    logits = torch.tensor([[0.0, 2.0, 1.0]])
    tokens, logprobs = draw(logits, 0.0, torch.tensor([0.999], dtype=torch.float64))
    assert tokens.item() == 1
    assert logprobs.item() == pytest.approx(logits.log_softmax(-1)[0, 1].item())


def test_uniforms_belong_to_seed_and_position() -> None:
    both = uniforms([1, 2], [10, 10])
    assert both[0] != both[1]
    assert uniforms([2], [10])[0] == both[1]
    many = uniforms(list(range(4000)), [7] * 4000)
    along = uniforms([123] * 4000, list(range(4000)))
    for sample in (many, along):
        assert sample.min() >= 0
        assert sample.max() < 1
        assert abs(sample.mean() - 0.5) < 0.02
        assert abs(sample.var() - 1 / 12) < 0.005
        assert abs((sample[1:] * sample[:-1]).mean() - 0.25) < 0.02


def test_diverged_logits_are_named() -> None:
    logits = torch.zeros(9, 10)
    logits[8, 2] = torch.nan
    with pytest.raises(ModelError, match="diverged"):
        draw(logits, 1.0, torch.full((9,), 0.5, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_the_kernel_draws_what_pytorch_draws(dtype: torch.dtype, temperature: float) -> None:
    assert kernels.available(dtype, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    logits = (torch.randn(40, 5000, generator=generator) * 3).to(dtype)
    chosen = torch.rand(40, generator=generator, dtype=torch.float64)
    tokens, logprobs = draw(logits, temperature, chosen)
    expected_tokens, expected = _draw_in_chunks(logits, temperature, chosen)
    assert torch.equal(tokens, expected_tokens)
    torch.testing.assert_close(logprobs, expected, atol=1e-5, rtol=0)
