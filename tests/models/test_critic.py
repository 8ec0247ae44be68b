"""The critic's layers read what entered them in the policy, whatever a family does to embeddings before its layers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from foretaste.models.critic import Critic, decoder_layers
from foretaste.models.value_head import ValueHead

USUAL = {
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
}
SETTINGS: dict[str, dict[str, Any]] = {
    "Llama": USUAL,
    "Granite": {**USUAL, "embedding_multiplier": 12.0},
    "Gemma2": USUAL,
    "GPT2": {"vocab_size": 50, "n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 32},
    "Bloom": {"vocab_size": 50, "hidden_size": 16, "n_layer": 3, "n_head": 2},
}


@pytest.mark.parametrize("family", SETTINGS)
def test_what_enters_the_critic_is_what_enters_those_layers_of_the_policy(family: str) -> None:
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**SETTINGS[family])
    decoder = getattr(transformers, f"{family}Model")(config).eval()
    critic = Critic(decoder, 2, ValueHead(16, "bce", (0.0, 1.0)))
    entered: dict[str, torch.Tensor] = {}
    for name, layer in (("policy", decoder_layers(decoder)[1]), ("critic", decoder_layers(critic.decoder)[0])):
        layer.register_forward_pre_hook(
            lambda _, given, options, name=name: entered.update(
                {name: given[0] if given else options["hidden_states"]}
            ),
            with_kwargs=True,
        )
    with torch.no_grad():
        out = decoder(input_ids=torch.arange(1, 9)[None]).last_hidden_state
        seen = critic(entered["policy"]).last_hidden_state
    torch.testing.assert_close(entered["critic"], entered["policy"], rtol=0, atol=0)
    torch.testing.assert_close(seen, out)  # its layers are copies of the policy's
