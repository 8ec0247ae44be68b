"""Calls the kernels of decoding (`kernels_decode.c`, `kernels_attend.c`): token-major, one row of an array a token.

`kernels.py` compiles them. Used by `fast_decode.py` and `drawing.py`.

Shape letters: N tokens of a pass, M of them attended with, K key heads, D head size, R rows of a cache, S slots.
"""

from __future__ import annotations

import torch
from torch import Tensor

from foretaste.models.kernels import call

SLOTS = 32
"""Slots in a block of keys; as in `kernels_attend.c`."""
MAX_HEAD_SIZE = 256
"""As in `kernels_attend.c`."""


def rms_norm_rows(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """Return the normed x. Shapes: ... H, H -> ... H."""
    x = x.contiguous()
    out = torch.empty_like(x)
    call("rms_norm_rows", x, x, weight, epsilon, out, x.numel() // x.shape[-1], x.shape[-1])
    return out


def swiglu_rows(gate_up: Tensor) -> Tensor:
    """Return silu(gate) * up. Shapes: N 2I -> N I."""
    rows, width = gate_up.shape
    out = gate_up.new_empty(rows, width // 2)
    call("swiglu_rows", gate_up, gate_up, out, rows, width // 2)
    return out


def remember(
    qkv: Tensor, cos: Tensor, sin: Tensor, rows: Tensor, slots: Tensor, keys: Tensor, values: Tensor, heads: int
) -> None:
    """Rotate queries and keys in place, and write keys and values to the slots of their rows.

    Shapes: qkv N (heads + 2K) D, cos and sin N D/2, rows and slots N, keys R K S/SLOTS D SLOTS, values R K S D.
    """
    sizes = len(qkv), heads, values.shape[1], values.shape[3], values.shape[2]
    call("remember", qkv, qkv, cos, sin, rows, slots, keys, values, *sizes)


def attend(
    qkv: Tensor,
    tokens: Tensor,
    places: tuple[Tensor, Tensor],
    tree: tuple[Tensor, Tensor],
    keys: Tensor,
    values: Tensor,
    heads: int,
) -> Tensor:
    """Return the attention of some tokens over their row up to their own slot and over what the row inherits.

    `places`: rows and slots of all tokens; `tree`: each row's parent (-1: none) and how many tokens it inherits.
    Shapes: qkv N (heads + 2K) D (from `remember`), tokens M, N twice, R twice -> M heads D.
    """
    size = values.shape[3]
    out = qkv.new_empty(len(tokens), heads, size)
    sizes = len(tokens), heads, values.shape[1], size, values.shape[2]
    call("attend", qkv, qkv, tokens, *places, *tree, keys, values, out, size**-0.5, *sizes)
    return out


def draw(logits: Tensor, uniforms: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Return drawn tokens and their log-probabilities. Shapes: N V, N (float64) -> N, N."""
    logits, uniforms = logits.contiguous(), uniforms.contiguous()
    tokens, logprobs = torch.empty(len(logits), dtype=torch.long), torch.empty(len(logits))
    call("draw", logits, logits, uniforms, 1.0 / temperature, tokens, logprobs, *logits.shape)
    return tokens, logprobs
