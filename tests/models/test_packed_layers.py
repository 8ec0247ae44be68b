"""Whole passes in one call against the chain of products, for every shape; skipped where no processor has them."""

from __future__ import annotations

import random
from typing import Any
from unittest import mock

import pytest
import torch
from test_fast_training import KINDS, tiny

from foretaste.models import packed_layers
from foretaste.models.actor_critic import ActorCritic
from foretaste.models.fast_decode import FastDecoder
from foretaste.models.fast_layers import ChainedLayers
from foretaste.models.packed_layers import PackedLayers

FITTING: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "head_dim": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def model_of(kind: str, **settings: Any) -> ActorCritic:
    model = tiny(kind, **{**FITTING, **settings}).to(torch.bfloat16)
    model.critic.head.float()
    return model


def decoder_of(model: ActorCritic, *, unit: bool) -> FastDecoder:
    with mock.patch.object(packed_layers, "supports", packed_layers.supports if unit else lambda *_: False):
        decoder = FastDecoder(model)
    assert isinstance(decoder._layers, PackedLayers if unit else ChainedLayers)
    return decoder


def played(decoder: FastDecoder) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Read prompts of 1 to 40 tokens, some going on from others, then single tokens; return all logits and values."""
    choose = random.Random(0)

    def words(count: int) -> list[int]:
        return [choose.randrange(5, 700) for _ in range(count)]

    decoder.begin()
    for _ in range(19):
        decoder.admit()
    found = [decoder.extend([words(1 + 39 * (row % 5 == 0)) for row in range(19)])]
    decoder.admit(5, 30)
    found.append(decoder.extend([words(1 + row % 3) for row in range(20)]))
    decoder.drop(0)
    return [*found, decoder.extend([words(1) for _ in range(19)])]


@pytest.fixture(autouse=True)
def _unit() -> None:
    weight = torch.zeros(1, dtype=torch.bfloat16)
    config = mock.Mock(hidden_size=32, intermediate_size=32, vocab_size=32)
    if not packed_layers.supports(config, 32, weight):
        pytest.skip("no products of bfloat16 in this processor")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("critic_layers", [2, -1])
def test_it_computes_what_the_chain_computes(kind: str, critic_layers: int) -> None:
    biases = {"attention_bias": True, "mlp_bias": True} if kind == "Llama" else {}
    model = model_of(kind, critic_layers=critic_layers, tie_word_embeddings=True, **biases)
    unit, chain = played(decoder_of(model, unit=True)), played(decoder_of(model, unit=False))
    for (logits, values), (wanted, wanted_values) in zip(unit, chain, strict=True):
        assert wanted.float().std() > 0.1
        gap = (logits.float() - wanted.float()).abs()
        assert gap.mean() < 0.02 * wanted.float().std()
        torch.testing.assert_close(values, wanted_values, atol=0.03, rtol=0)


def test_it_takes_up_changed_weights_and_an_adapter() -> None:
    model = model_of("Llama", lora_rank=3)
    decoder = decoder_of(model, unit=True)
    before = played(decoder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    after, wanted = played(decoder), played(decoder_of(model, unit=False))
    assert (after[0][0] - before[0][0]).abs().max() > 0.5
    for (logits, _), (other, _) in zip(after, wanted, strict=True):
        assert (logits.float() - other.float()).abs().mean() < 0.02 * other.float().std()


def test_sizes_that_do_not_fill_its_tiles_take_the_chain() -> None:
    model = model_of("Llama", intermediate_size=80)
    assert isinstance(FastDecoder(model)._layers, ChainedLayers)
