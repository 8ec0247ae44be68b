"""Policy losses against hand-computed values and gradients."""

import math

import pytest
import torch

from foretaste.rl.losses import imitation_loss, k2_penalty, ppo_loss


def loss_of(ratios, advantages, weights=None, normalizer=None):
    old = torch.zeros(len(ratios))
    new = torch.tensor([math.log(r) for r in ratios], requires_grad=True)
    result = ppo_loss(
        new,
        old,
        torch.tensor(advantages),
        torch.ones(len(ratios)) if weights is None else torch.tensor(weights),
        clip_low=0.2,
        clip_high=0.28,
        normalizer=normalizer or len(ratios),
    )
    result.loss.backward()
    return result, new.grad


def test_ppo_clips_asymmetrically_and_only_the_improving_side():
    # (ratio, advantage): inside; above with A > 0 (clipped at 1.28); above with A < 0 (kept);
    # below with A < 0 (clipped at .8); below with A > 0 (kept)
    result, gradient = loss_of([1.1, 1.5, 1.5, 0.5, 0.5], [1.0, 1.0, -1.0, -1.0, 1.0])
    assert result.loss.item() == pytest.approx(-(1.1 + 1.28 - 1.5 - 0.8 + 0.5) / 5)
    assert result.clipped.item() == 2
    assert gradient.tolist() == pytest.approx([-1.1 / 5, 0, 1.5 / 5, 0, -0.5 / 5])


def test_ppo_gradient_at_ratio_one_is_the_weighted_policy_gradient():
    _, gradient = loss_of([1.0, 1.0], [2.0, -3.0], weights=[1.0, 4.0], normalizer=10.0)
    assert gradient.tolist() == pytest.approx([-0.2, 1.2])


def test_microbatches_add_up_to_the_whole():
    whole, _ = loss_of([1.1, 0.9, 1.0], [1.0, -1.0, 0.5], normalizer=3.0)
    parts = [loss_of([r], [a], normalizer=3.0)[0].loss for r, a in ((1.1, 1.0), (0.9, -1.0), (1.0, 0.5))]
    assert sum(part.item() for part in parts) == pytest.approx(whole.loss.item())


def test_displayed_kl_is_never_negative_and_zero_for_equal_policies():
    assert loss_of([1.0, 1.0], [1.0, 1.0])[0].kl.item() == 0
    assert loss_of([2.0, 0.5], [1.0, 1.0])[0].kl.item() == pytest.approx(
        (2 - 1 - math.log(2)) + (0.5 - 1 + math.log(2))
    )


def test_k2_gradient_equals_the_gradient_of_the_true_kl():
    torch.manual_seed(0)
    logits = torch.randn(6, dtype=torch.float64, requires_grad=True)
    reference = torch.log_softmax(torch.randn(6, dtype=torch.float64), 0)
    logprobs = torch.log_softmax(logits, 0)
    (torch.exp(logprobs) * (logprobs - reference)).sum().backward()
    true_gradient = logits.grad.clone()
    logits.grad = None
    logprobs = torch.log_softmax(logits, 0)  # expectation over tokens, sampled from the policy itself
    chances = torch.exp(logprobs).detach()
    sum(
        chances[token] * k2_penalty(logprobs[token : token + 1], reference[token : token + 1], normalizer=1.0)
        for token in range(6)
    ).backward()
    torch.testing.assert_close(logits.grad, true_gradient)


def test_imitation_is_mean_negative_log_likelihood():
    assert imitation_loss(torch.tensor([-1.0, -3.0]), normalizer=2.0).item() == 2.0
