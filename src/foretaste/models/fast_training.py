"""The quick training path, for decoders of the Llama, Mistral, Qwen2 and Qwen3 shape on a CPU.

Same numbers and gradients as transformers' own forward up to rounding, in a fraction of the time. Hidden states
are feature-major (H x M), one column a token; `fast_layout.py` says which. In that layout every matrix product of the
forward and backward pass has its operands as the matrix unit wants them (a transposed left operand, as in a weight's
gradient, costs up to four times as much), and the element-wise passes between them are single loops over columns
(`kernels.py`). One layer is in `fast_training_layer.py`.

Shape letters: M columns, H hidden size, N action tokens, V vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from foretaste.models import fast_layers, kernels
from foretaste.models.critic import decoder_layers
from foretaste.models.fast_layout import Arrangement, arrange
from foretaste.models.fast_training_layer import Layout, dense, run_layer

if TYPE_CHECKING:
    from foretaste.models.actor_critic import ActorCritic
    from foretaste.models.trunk import Packed

SCORE_BYTES = 1 << 26
"""Full-vocabulary logits that exist at the same time."""
_EVEN_ROWS = 64
"""Chunks of logits are multiples of it: products of other numbers of rows may take twice as long."""


def supports(model: ActorCritic, length: int = 1) -> bool:
    """True if policy and critic have a shape that this path computes for sequences of this length."""
    return not why_not(model, length)


def why_not(model: ActorCritic, length: int = 1) -> str:
    """Return why this path does not compute the model; empty if it does."""
    weight = model.decoder.norm.weight if hasattr(model.decoder, "norm") else None
    if weight is None:
        return fast_layers.why_not(model.decoder, length) or "its decoder has no final norm"
    if weight.device.type != "cpu":
        return f"the quick paths are for processors, not for {weight.device.type}"
    if reason := kernels.why_not(weight.dtype):
        return reason
    if any(parameter.dtype != weight.dtype for parameter in model.decoder.parameters()):
        return "its weights are of several types"
    return fast_layers.why_not(model.decoder, length) or fast_layers.why_not(model.critic.decoder, length)


def run_policy(model: ActorCritic, packed: Packed, *, policy: bool, values: bool) -> tuple[Tensor | None, list[Tensor]]:
    """Return the policy's final hidden states before the action tokens, NH, and what enters the critic, HM, detached.

    Without `policy` the policy runs without gradient and only as deep as the critic needs it.
    """
    critic, layers = model.critic, decoder_layers(model.decoder)
    wanted = values and not critic.reads_tokens
    if not policy and not wanted:
        return None, []
    there = arrange(packed)
    layout = _layout(model, there)
    entering = []
    with torch.set_grad_enabled(policy and torch.is_grad_enabled()):
        x = _embed(model.decoder, there.tokens_M)
        for number in range(len(layers) if policy else critic.start):
            if wanted and number == critic.start:
                entering = [x.detach()]
            x = run_layer(layers[number], x, layout)
        if wanted and not entering:
            entering = [x.detach()]
        return _finish(model.decoder, x, there.columns_N) if policy else None, entering


def run_critic(model: ActorCritic, packed: Packed, entering: list[Tensor]) -> Tensor:
    """Return the critic's final hidden states before the action tokens, NH, from what `run_policy` says enters it."""
    critic = model.critic
    there = arrange(packed)
    layout = _layout(model, there)
    x = _embed(critic.decoder, there.tokens_M) if critic.reads_tokens else entering[0]
    for layer in decoder_layers(critic.decoder):
        x = run_layer(layer, x, layout)
    return _finish(critic.decoder, x, there.columns_N)


def scores(model: ActorCritic) -> bool:
    """True if `score` computes what the model's output layer does: one matrix and no more."""
    head, config = model.language_model.get_output_embeddings(), model.language_model.config
    more = ("final_logit_softcapping", "logits_scaling", "logit_scale")
    return dense(head)[1] is None and not any(getattr(config, name, None) for name in more)


def score(model: ActorCritic, hidden_NH: Tensor, targets_N: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Return log-probabilities of the targets at a temperature, and entropies. Shapes: NH, N -> N, N."""
    weight = dense(model.language_model.get_output_embeddings())[0]
    return _Score.apply(hidden_NH, weight, targets_N, temperature)  # pyright: ignore[reportReturnType]


def _layout(model: ActorCritic, there: Arrangement) -> Layout:
    """Add to an arrangement what the layers need of the model."""
    config: Any = model.decoder.config
    cos, sin = model.decoder.rotary_emb(model.decoder.norm.weight.detach(), there.positions_M[None])
    half = cos.shape[-1] // 2
    return Layout(
        there.nodes,
        there.shared,
        there.end,
        config.num_attention_heads,
        config.num_key_value_heads,
        cos[0, :, :half].t().contiguous(),
        sin[0, :, :half].t().contiguous(),
        config.rms_norm_eps,
    )


def _embed(decoder: Any, tokens_M: Tensor) -> Tensor:
    return _Transpose.apply(decoder.embed_tokens(tokens_M))  # pyright: ignore[reportReturnType]


def _finish(decoder: Any, x: Tensor, columns_N: Tensor) -> Tensor:
    return _Finish.apply(x, decoder.norm.weight, decoder.config.rms_norm_eps, columns_N)  # pyright: ignore


class _Transpose(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return kernels.transpose(x.contiguous())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return kernels.transpose(gradients[0].contiguous())


class _Finish(torch.autograd.Function):
    """Take the wanted columns, norm them, and return them token-major. Shapes: H M, H -> N H."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float, columns_N: Tensor) -> Tensor:
        chosen = x.index_select(1, columns_N)
        normed, inverse = kernels.rms_norm(chosen, weight, epsilon)
        ctx.save_for_backward(chosen, inverse, weight, columns_N)
        ctx.columns = x.shape[1]
        return kernels.transpose(normed)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        chosen, inverse, weight, columns_N = ctx.saved_tensors
        gradient = kernels.transpose(gradients[0].contiguous())
        dchosen, dweight = kernels.rms_norm_backward(chosen, weight, inverse, gradient, None)
        dx = chosen.new_zeros(len(chosen), ctx.columns)
        dx[:, columns_N] = dchosen
        return dx, dweight if ctx.needs_input_grad[1] else None, None, None


class _Score(torch.autograd.Function):
    """Log-probabilities and entropies in chunks, each chunk's logits computed again for its gradient."""

    @staticmethod
    def forward(ctx: Any, hidden_NH: Tensor, weight: Tensor, targets_N: Tensor, temperature: float) -> Any:
        parts = [
            kernels.score(torch.nn.functional.linear(hidden, weight), targets, temperature)
            for hidden, targets in _chunks(weight, hidden_NH, targets_N)
        ]
        logprobs_N, entropies_N, lse_N = (torch.cat(column) for column in zip(*parts, strict=True))
        ctx.save_for_backward(hidden_NH, weight, targets_N, lse_N, entropies_N)
        ctx.temperature = temperature
        return logprobs_N, entropies_N

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        hidden_NH, weight, targets_N, lse_N, entropies_N = ctx.saved_tensors
        dhidden_NH = torch.empty_like(hidden_NH)
        total = _WeightGradient(weight) if ctx.needs_input_grad[1] else None
        arrays = (hidden_NH, dhidden_NH, targets_N, lse_N, entropies_N, *(g.contiguous() for g in gradients))
        for hidden, dhidden, targets, lse, entropies, dlogprobs, dentropies in _chunks(weight, *arrays):
            logits = torch.nn.functional.linear(hidden, weight)
            kernels.score_backward(logits, targets, ctx.temperature, (lse, entropies), (dlogprobs, dentropies))
            torch.mm(logits, weight, out=dhidden)
            if total is not None:
                total.add(logits, hidden)
        return dhidden_NH, None if total is None else total.result(), None, None


class _WeightGradient:
    """The sum of the chunks' products of logits' gradients (N V, transposed) and hidden states (N H)."""

    def __init__(self, weight: Tensor) -> None:
        # The matrix unit's products would transpose so wide a left operand in memory: there the sum lies turned (and in
        # float32, where every sum is made as it always was).
        self._turned = weight.dtype != torch.bfloat16 or kernels.matrix_unit()
        self._sum = weight.new_zeros(weight.shape[::-1] if self._turned else weight.shape)

    def add(self, dlogits: Tensor, hidden: Tensor) -> None:
        if self._turned:
            self._sum.addmm_(kernels.transpose(hidden.contiguous()), dlogits)
        else:
            self._sum.addmm_(dlogits.t(), hidden)

    def result(self) -> Tensor:
        return kernels.transpose(self._sum) if self._turned else self._sum


def _chunks(weight: Tensor, *arrays: Tensor) -> Any:
    """Split arrays of N rows so that a chunk's logits stay within bounds."""
    rows = max(1, SCORE_BYTES // (len(weight) * weight.element_size()))
    rows -= rows % _EVEN_ROWS if rows > _EVEN_ROWS else 0
    return zip(*(array.split(rows) for array in arrays), strict=True)
