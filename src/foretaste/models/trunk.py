"""The forward pass of training: pack sequences, compute the shared prefix once, run policy and critic.

Sequences are right-padded after their shared prefix. The prefix runs as a batch of one, its keys and
values are repeated to the batch; gradient flows back through the repetition and sums up. Positions are
explicit, padding comes after every real token and is masked.

Shape letters: B sequences, P prefix tokens, S suffix tokens, H hidden size, N action tokens.
"""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from foretaste.errors import ModelError
from foretaste.models.critic import decoder_layers

if TYPE_CHECKING:
    from foretaste.models.actor_critic import ActorCritic, TokenSequence

MIN_SHARED = 8
"""Shorter shared prefixes are not worth a pass of their own."""


class Packed(NamedTuple):
    """Sequences ready to run; the last sampled token of each is a target only, never an input."""

    prefix_1P: Tensor
    suffix_BS: Tensor
    mask_BT: Tensor
    """1 on real tokens, T = P + S."""
    rows_N: Tensor
    columns_N: Tensor
    """Where, within the suffix, the hidden state before each action token is."""
    targets_N: Tensor

    def gather(self, hidden_BSH: Tensor) -> Tensor:
        """Return the hidden states before the action tokens. Shapes: BSH -> NH."""
        return hidden_BSH[self.rows_N, self.columns_N]


class _Enough(Exception):
    """Ends a forward pass that has computed what was wanted."""


def pack(sequences: Sequence[TokenSequence], device: torch.device) -> Packed:
    """Split off the shared prefix, pad the rest, and list the action tokens."""
    actions = [[i for i, sampled in enumerate(sequence.action_mask) if sampled] for sequence in sequences]
    if any(found and found[0] == 0 for found in actions):
        raise ModelError(
            "A sequence begins with an action token; nothing comes before it that could have a value or a "
            "prediction. Put at least one prompt token first."
        )
    kept = [(list(s.tokens), found) for s, found in zip(sequences, actions, strict=True) if found]
    shared = _shared([tokens[: found[0]] for tokens, found in kept])
    width = max((found[-1] - shared for _, found in kept), default=0)
    suffix = torch.zeros(len(kept), width, dtype=torch.long)
    mask = torch.zeros(len(kept), shared + width, dtype=torch.long)
    rows, columns, targets = [], [], []
    for row, (tokens, found) in enumerate(kept):
        suffix[row, : found[-1] - shared] = torch.tensor(tokens[shared : found[-1]])
        mask[row, : found[-1]] = 1
        rows += [row] * len(found)
        columns += [index - 1 - shared for index in found]
        targets += [tokens[index] for index in found]
    prefix = torch.tensor([kept[0][0][:shared] if kept else []], dtype=torch.long)
    indices = (torch.tensor(values, dtype=torch.long) for values in (rows, columns, targets))
    return Packed(*(tensor.to(device) for tensor in (prefix, suffix, mask, *indices)))


def common_prefix(sequences: Sequence[list[int]]) -> int:
    """Return how many tokens all sequences begin with: what the smallest and the largest have in common."""
    pairs = zip(min(sequences), max(sequences), strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def _shared(prompts: list[list[int]]) -> int:
    """Length of the prefix that all prompts share, leaving each at least one token of its own."""
    if len(prompts) < 2:
        return 0
    shared = min(common_prefix(prompts), min(map(len, prompts)) - 1)
    return shared if shared >= MIN_SHARED else 0


def run_policy(model: ActorCritic, packed: Packed, *, policy: bool, values: bool) -> tuple[Tensor | None, list[Tensor]]:
    """Run any Hugging Face decoder; return the policy's hidden states before the action tokens, NH, and what
    enters the critic (prefix, then suffix; detached).

    Without `policy` nothing carries gradient and the pass ends where the critic's input is known.
    """
    if values and model.critic.reads_tokens:
        entering: list[Tensor] = [packed.prefix_1P, packed.suffix_BS]
        if not policy:
            return None, entering
    else:
        entering = []
    depth = None if model.critic.reads_tokens or not values else model.critic.start
    with torch.set_grad_enabled(policy and torch.is_grad_enabled()), _tap(model.decoder, depth, not policy) as tapped:
        hidden = _with_prefix(model.decoder, packed, packed.prefix_1P, packed.suffix_BS, "input_ids")
    if depth is not None:
        entering = tapped if packed.prefix_1P.shape[1] else [tapped[0][:1, :0], *tapped]
    return None if hidden is None or not policy else packed.gather(hidden), entering


def run_critic(model: ActorCritic, packed: Packed, entering: list[Tensor]) -> Tensor:
    """Run the critic's own layers over the whole context; return its hidden states before the action tokens, NH."""
    key = "input_ids" if model.critic.reads_tokens else "inputs_embeds"
    hidden = _with_prefix(model.critic.decoder, packed, entering[0], entering[1], key)
    assert hidden is not None
    return packed.gather(hidden)


def _with_prefix(decoder: Any, packed: Packed, prefix: Tensor, suffix: Tensor, key: str) -> Tensor | None:
    """Run a decoder over the shared prefix once and over all suffixes after it; return the suffixes' hidden states.

    None if a tap ended the pass early.
    """
    from transformers import DynamicCache

    device = packed.mask_BT.device
    shared, width = packed.prefix_1P.shape[1], packed.suffix_BS.shape[1]
    options: dict[str, Any] = {"use_cache": False}
    if shared:
        cache: Any = DynamicCache(config=decoder.config)
        options = {"use_cache": True, "past_key_values": cache}
        _run(decoder, {key: prefix, **options, "position_ids": torch.arange(shared, device=device)[None]})
        for layer in cache.layers:
            if layer.is_initialized:
                layer.batch_repeat_interleave(len(packed.suffix_BS))
    positions = torch.arange(shared, shared + width, device=device)[None]
    return _run(decoder, {key: suffix, **options, "position_ids": positions, "attention_mask": packed.mask_BT})


def _run(decoder: Any, options: dict[str, Any]) -> Tensor | None:
    try:
        return decoder(**accepted(decoder, options)).last_hidden_state
    except _Enough:
        return None


@functools.cache
def _parameters(kind: type) -> frozenset[str] | None:
    """Return the names that a decoder's forward takes, or None if it takes any."""
    parameters = inspect.signature(kind.forward).parameters.values()
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return frozenset(parameter.name for parameter in parameters)


def accepted(decoder: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Return what of the options a decoder takes: one without positions of its own (ALiBi) takes no `position_ids`."""
    known = _parameters(type(decoder))
    without = known is not None and "position_ids" not in known
    return {name: value for name, value in options.items() if not (without and name == "position_ids")}


@contextmanager
def _tap(decoder: Any, depth: int | None, stop: bool) -> Iterator[list[Tensor]]:
    """Collect, detached, what enters layer `depth` in each pass; with `stop`, end the pass there."""
    tapped: list[Tensor] = []
    if depth is None:
        yield tapped
        return

    def look(_: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        tapped.append((arguments[0] if arguments else options["hidden_states"]).detach())
        if stop:
            raise _Enough

    handle = decoder_layers(decoder)[depth].register_forward_pre_hook(look, with_kwargs=True)
    try:
        yield tapped
    finally:
        handle.remove()
