"""The value function: a decoder of its own above the policy's detached hidden state, and a value head.

A linear head on detached hidden states learns next to nothing, and one on shared hidden states pulls the
policy about. So the critic has layers of its own: the last k of the policy, copied, fed with what enters
those layers in the policy, without gradient into it. It costs k/L of a forward pass and never disturbs
the policy. With k = -1 (or k >= L) it is a whole second decoder that reads the tokens themselves.
`actor_critic.py` runs it; `value_head.py` turns its output into values and losses.
"""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn

from foretaste.errors import ModelError
from foretaste.models.value_head import ValueHead


def decoder_of(language_model: Any) -> Any:
    """Return a causal language model without its output layer (Llama 4 names itself there)."""
    found = language_model.get_decoder()
    return getattr(language_model, "model", found) if found is language_model else found


def decoder_layers(decoder: Any) -> nn.ModuleList:
    """Return the list of layers of a Hugging Face decoder (named differently from family to family)."""
    count = decoder.config.num_hidden_layers
    for child in decoder.children():
        if isinstance(child, nn.ModuleList) and len(child) == count:
            return child
    raise ModelError(
        f"{type(decoder).__name__} does not keep its {count} layers in one list, so a critic cannot be grown on it. "
        "Use a decoder-only model of the usual shape (Llama, Qwen, Mistral, GPT-2, OLMo ...)."
    )


def _last_layers(decoder: Any, count: int) -> Any:
    """Return a copy of a decoder that has its last layers alone, and no embedding unless it has all layers.

    The layers themselves are copied, not made anew from settings: what a layer does may depend on its number (its
    window, positions or none, dense or a mixture of experts).
    """
    old = decoder_layers(decoder)
    start = len(old) - count
    left_out = {id(layer): None for layer in old[:start]}
    if start:
        left_out[id(decoder.get_input_embeddings())] = None
    new = copy.deepcopy(decoder, left_out)
    new.requires_grad_(True).zero_grad(set_to_none=True)
    name = next(name for name, child in decoder.named_children() if child is old)
    kept = nn.ModuleList(layer for layer in getattr(new, name) if layer is not None)
    setattr(new, name, kept)
    new.config.num_hidden_layers = count
    for name, value in vars(new.config).items():
        if "layer" in name and isinstance(value, list) and len(value) == len(old):
            setattr(new.config, name, value[start:])
    for number, layer in enumerate(kept):
        for module in layer.modules():
            if isinstance(getattr(module, "layer_idx", None), int):
                module.layer_idx = number  # pyright: ignore[reportArgumentType]  # its place in a cache
    return new


class Critic(nn.Module):
    """A decoder of `layers` layers and a value head.

    `reads_tokens` says what goes in: token ids (a separate decoder), or the hidden state that enters
    layer `start` of the policy.
    """

    def __init__(self, policy_decoder: Any, layers: int, head: ValueHead) -> None:
        """Build it and copy the policy's last layers and final norm (and embedding, if it reads tokens)."""
        super().__init__()
        depth = policy_decoder.config.num_hidden_layers
        if layers == 0 or layers < -1:
            raise ModelError(f"critic_layers = {layers} cannot be used; accepted: -1, or 1 to {depth}")
        self.reads_tokens = layers == -1 or layers >= depth
        layers = depth if self.reads_tokens else layers
        self.start = depth - layers
        decoder = _last_layers(policy_decoder, layers)
        self._embedding_width: int = policy_decoder.get_input_embeddings().weight.shape[1]
        if not self.reads_tokens:
            decoder.register_forward_pre_hook(self._take, with_kwargs=True)
            decoder_layers(decoder)[0].register_forward_pre_hook(self._enter, with_kwargs=True)
        self._given: Tensor | None = None
        self.decoder = decoder.eval()
        self.head = head.to(next(policy_decoder.parameters()).device)

    def _take(self, _: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Keep the hidden states that the decoder is given; it gets others if its embeddings are of another width."""
        given = self._given = options["inputs_embeds"]
        if given.shape[-1] == self._embedding_width:
            return None
        return arguments, {**options, "inputs_embeds": given.new_zeros(*given.shape[:-1], self._embedding_width)}

    def _enter(self, _: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Let the first layer have them as they are.

        Decoders take them for embeddings, to which GPT-2 adds positions, which Granite scales, and so on; the policy
        has done that already.
        """
        given, self._given = self._given, None
        if given is None:  # the layer is run by itself
            return None
        return ((given, *arguments[1:]), options) if arguments else (arguments, {**options, "hidden_states": given})

    def forward(self, inputs: Tensor, **options: Any) -> Any:
        """Run the decoder. Shapes: inputs BS (ids) or BSH (hidden states); `last_hidden_state` BSH comes out."""
        key = "input_ids" if self.reads_tokens else "inputs_embeds"
        return self.decoder(**{key: inputs}, **options)
