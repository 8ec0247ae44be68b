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
        config = copy.deepcopy(policy_decoder.config)
        config.num_hidden_layers = layers
        if getattr(config, "layer_types", None):
            config.layer_types = list(config.layer_types)[-layers:]
        parameter = next(policy_decoder.parameters())
        decoder: Any = type(policy_decoder)(config).to(device=parameter.device, dtype=parameter.dtype)
        self._copy(policy_decoder, decoder)
        if not self.reads_tokens:
            decoder.set_input_embeddings(None)
            decoder.register_forward_pre_hook(self._take, with_kwargs=True)
            decoder_layers(decoder)[0].register_forward_pre_hook(self._enter, with_kwargs=True)
        self._given: Tensor | None = None
        self.decoder = decoder.eval()
        self.head = head.to(parameter.device)

    def _copy(self, source: Any, target: Any) -> None:
        old, new = decoder_layers(source), decoder_layers(target)
        for index, layer in enumerate(new):
            layer.load_state_dict(old[self.start + index].state_dict())
        source_state = source.state_dict()
        outside = {name for name, child in target.named_children() if child is not new}
        rest = {name: value for name, value in source_state.items() if name.split(".")[0] in outside}
        target.load_state_dict(rest, strict=False)

    def _take(self, _: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        """Keep the hidden states that the decoder is given."""
        self._given = options["inputs_embeds"]

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
