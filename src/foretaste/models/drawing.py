"""Draw tokens from logits: inverse CDF with one uniform number per token, float32 log-probabilities.

The uniform belongs to the conversation and the position, not to the batch: u = hash(sample seed, position),
by the splitmix64 finaliser (Steele, Lea & Flood 2014). The CDF is walked in two levels, over blocks of the
vocabulary and then inside one block, since a cumulative sum over 49,152 entries costs more than the model's
attention.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from foretaste.errors import ModelError
from foretaste.models import decode_kernels, kernels

BLOCK = 256
LONGEST = 4096 * BLOCK
"""Vocabulary that the compiled kernel has room for."""
ROWS = 8
"""Rows handled at a time: 8 x 49,152 float32 weights stay in the processor's cache."""
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def uniforms(seeds: Sequence[int], positions: Sequence[int]) -> Tensor:
    """Return one number in [0, 1) for each (sample seed, position in the conversation). Shapes: B, B -> B float64."""
    mixed = _hash(seeds, positions)
    return torch.from_numpy((mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def stream_seed(seed: int, position: int) -> int:
    """Return a seed in [0, 2^62) for the action of a conversation that begins at a position."""
    return int(_hash([seed], [position])[0] >> np.uint64(2))


def diverged() -> ModelError:
    """Return the error of a policy whose logits are not finite."""
    return ModelError(
        "The policy's logits are not finite (NaN or infinite), so no token can be drawn. Its weights have "
        "diverged: go back to an earlier checkpoint and lower the learning rate"
    )


def _hash(seeds: Sequence[int], positions: Sequence[int]) -> np.ndarray:
    with np.errstate(over="ignore"):
        key = _mix(np.array([seed & 0xFFFFFFFFFFFFFFFF for seed in seeds], dtype=np.uint64))
        return _mix(key + _GOLDEN * (np.array(positions, dtype=np.uint64) + np.uint64(1)))


def _mix(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def draw(logits_BV: Tensor, temperature: float, uniforms_B: Tensor) -> tuple[Tensor, Tensor]:
    """Return sampled token ids and their log-probabilities at the sampling temperature. Shapes: BV, B -> B, B.

    Temperature 0 takes the most likely token and reports its log-probability at temperature 1.
    Raises: ModelError for logits without a finite sum of weights.
    """
    if temperature > 0.0 and kernels.available(logits_BV.dtype, logits_BV.device) and logits_BV.shape[1] <= LONGEST:
        tokens_B, logprobs_B = decode_kernels.draw(logits_BV, uniforms_B, temperature)
    else:
        tokens_B, logprobs_B = _draw_in_chunks(logits_BV, temperature, uniforms_B)
    if not bool(torch.isfinite(logprobs_B).all()):
        raise diverged()
    return tokens_B, logprobs_B


def _draw_in_chunks(logits_BV: Tensor, temperature: float, uniforms_B: Tensor) -> tuple[Tensor, Tensor]:
    """What the kernel does, with PyTorch's operations: on other devices, and for temperature 0."""
    chunks = zip(logits_BV.split(ROWS), uniforms_B.to(logits_BV.device).split(ROWS), strict=True)
    parts = [_draw(logits, temperature, chosen) for logits, chosen in chunks]
    tokens_B, logprobs_B = (torch.cat(column) for column in zip(*parts, strict=True))
    return tokens_B, logprobs_B


def _draw(logits_BV: Tensor, temperature: float, uniforms_B: Tensor) -> tuple[Tensor, Tensor]:
    size, vocabulary = logits_BV.shape
    peak_B1 = logits_BV.amax(dim=-1, keepdim=True).float()
    weights_BV = logits_BV.float() - peak_B1
    if temperature not in (0.0, 1.0):
        weights_BV /= temperature
    weights_BV.exp_()
    blocks = -(-vocabulary // BLOCK)
    if blocks * BLOCK != vocabulary:
        weights_BV = torch.nn.functional.pad(weights_BV, (0, blocks * BLOCK - vocabulary))
    weights = weights_BV.view(size, blocks, BLOCK)
    block_sums = weights.sum(-1)
    until = block_sums.double().cumsum(-1)
    total_B = until[:, -1]
    if temperature == 0.0:
        chosen_B = logits_BV.argmax(-1)
    else:
        wanted_B1 = (uniforms_B * total_B)[:, None]
        block_B = torch.searchsorted(until, wanted_B1, right=True).squeeze(-1).clamp_max(blocks - 1)
        rows = torch.arange(size, device=block_B.device)
        inside = weights[rows, block_B].double()
        # Blocks were summed in float32: walk the chosen block on its own scale, so that rounding never leaves it.
        share = (wanted_B1.squeeze(-1) - until[rows, block_B]) / block_sums[rows, block_B].double() + 1.0
        within = inside.cumsum(-1)
        offset_B = torch.searchsorted(within, (share * within[:, -1])[:, None], right=True).squeeze(-1)
        last_B = BLOCK - 1 - (inside > 0).flip(-1).int().argmax(-1)
        chosen_B = (block_B * BLOCK + torch.minimum(offset_B, last_B)).clamp_max(vocabulary - 1)
    score_B = logits_BV.gather(-1, chosen_B[:, None]).float() - peak_B1
    if temperature not in (0.0, 1.0):
        score_B /= temperature
    return chosen_B, score_B.squeeze(-1) - total_B.log().float()
