"""Does foretaste compute what a model of transformers computes? Asked once when it is loaded, on a few short contexts.

Sampling and training take a model apart: they read what contexts share once, read on from a cache, and stop at the
layer where the critic begins. An architecture in which that changes the result is refused here, before anything
learns from a policy that is not the one that acts. `architecture.py` refuses what its settings alone give away.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from foretaste.errors import ModelError
from foretaste.models.decode import PlainDecoder
from foretaste.models.fast_layers import SHAPES
from foretaste.models.trunk import pack

if TYPE_CHECKING:
    from foretaste.models.actor_critic import ActorCritic

SHARED = 9
"""Tokens that all contexts begin with; enough that they are read once."""
LENGTHS = ((14, 3, 1), (11, 12, 1), (12, 1, 8))
"""Tokens of each context: those of its prompt, and those that it grows by."""
BOUNDS = {torch.float32: 2e-3, torch.float64: 2e-3}
"""Largest difference, as a part of the root mean square of what is right. Float32 rounds by 1e-6."""
COARSE = 0.15
"""The same for narrower types, which round by up to some hundredths; of the middle one of the positions."""


class _Right(NamedTuple):
    """What transformers' own pass over whole contexts says, at some positions. Shapes: NV, NH."""

    logits: Tensor
    hidden: Tensor


def check(model: ActorCritic) -> None:
    """Hold training's pass, the sampler's and a fresh critic against transformers' own pass.

    Decoders of the quick paths' shapes are not asked: they are tested whole.

    Raises: ModelError, saying what differs and by how much, or what failed.
    """
    if type(model.decoder).__name__ in SHAPES:
        return
    kind = type(model.language_model).__name__
    training = model.training
    try:
        model.eval()
        found = differences(model)
    except Exception as error:  # whatever an unknown architecture raises
        reason = f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no reason given'])[0]}"
        raise ModelError(f"{_cannot(kind)} It cannot be read on from a cache: {reason}. {_NEXT}") from error
    finally:
        model.train(training)
    bound = BOUNDS.get(next(model.policy.parameters()).dtype, COARSE)
    wrong = [f"{name} by {size:.0%}" for name, size in found.items() if not size <= bound]
    if wrong:
        raise ModelError(
            f"{_cannot(kind)} On short contexts the results differ from transformers' own pass: {', '.join(wrong)} "
            f"(accepted: {bound:.1%}). {_NEXT}"
        )


_NEXT = "Accepted: causal language models of attention layers, such as Llama, Qwen, Gemma, Mistral, GPT-2, OLMo."


def _cannot(kind: str) -> str:
    return f"A model of the class {kind} cannot be trained by foretaste."


@torch.no_grad()
def differences(model: ActorCritic) -> dict[str, float]:
    """Return how far each reading is from transformers' own pass, as a part of its root mean square."""
    contexts = _contexts(model)
    passes = {
        "the policy in training": lambda: _trained(model, contexts)[0],
        "the critic in training": lambda: _trained(model, contexts)[1],
        "the policy in sampling": lambda: _sampled(model, contexts)[0],
        "the critic in sampling": lambda: _sampled(model, contexts)[1],
    }
    found = {}
    for name, reading in passes.items():
        at, hidden = reading()
        right = _right(model, contexts, at)
        if "critic" in name:
            found[name] = _apart(hidden, right.hidden)
        else:
            found[name] = _apart(model.logits(hidden), right.logits)
    return found


At = list[tuple[int, int]]
"""Positions: context, and index of the last token that is read."""


def _contexts(model: ActorCritic) -> list[list[int]]:
    """Return token ids that need no tokenizer, the same every time."""
    size = model.language_model.get_input_embeddings().weight.shape[0]
    draw = torch.Generator().manual_seed(0)
    shared = torch.randint(size, (SHARED,), generator=draw).tolist()
    return [[*shared, *torch.randint(size, (sum(parts) - SHARED,), generator=draw).tolist()] for parts in LENGTHS]


def _right(model: ActorCritic, contexts: list[list[int]], at: At) -> _Right:
    logits, hidden = [], []
    for tokens in contexts:
        ids = torch.tensor([tokens], device=model.device)
        logits.append(model.policy(input_ids=ids, use_cache=False).logits[0])
        hidden.append(model.decoder(input_ids=ids, use_cache=False).last_hidden_state[0])
    rows = [torch.stack([found[row][column] for row, column in at]) for found in (logits, hidden)]
    return _Right(*rows)


def _trained(model: ActorCritic, contexts: list[list[int]]) -> tuple[tuple[At, Tensor], tuple[At, Tensor]]:
    """Return where training reads, and the final hidden states of policy and critic there."""
    from foretaste.models import trunk
    from foretaste.models.actor_critic import TokenSequence

    packed = pack([TokenSequence(x, [i > SHARED for i in range(len(x))]) for x in contexts], model.device)
    hidden, entering = trunk.run_policy(model, packed, policy=True, values=True)
    assert hidden is not None
    columns = (packed.columns_N + packed.prefix_1P.shape[1]).tolist()
    at = list(zip(packed.rows_N.tolist(), columns, strict=True))
    return (at, hidden), (at, trunk.run_critic(model, packed, entering))


def _sampled(model: ActorCritic, contexts: list[list[int]]) -> tuple[tuple[At, Tensor], tuple[At, Tensor]]:
    """Return where a decoder reads that feeds all contexts in uneven pieces, and final hidden states there."""
    decoder = PlainDecoder(model)
    ends = [list(itertools.accumulate(parts)) for parts in LENGTHS]
    at: At = []
    read = []
    decoder.admit()
    decoder.hidden([contexts[0][: SHARED + 1]])
    begun = [SHARED + 1, SHARED, 0]
    decoder.admit(0, SHARED)
    decoder.admit()
    for turn in range(len(ends[0])):
        now = [end[turn] for end in ends]
        read.append(decoder.hidden([x[a:b] for x, a, b in zip(contexts, begun, now, strict=True)]))
        at += [(row, end - 1) for row, end in enumerate(now)]
        begun = now
    policy, critic = (torch.cat(parts) for parts in zip(*read, strict=True))
    return (at, policy), (at, critic)


def _apart(found: Tensor, right: Tensor) -> float:
    """Return the largest difference of a position (the middle one for narrow types); infinite if not a number."""
    found, right = found.float(), right.float()
    centre: Any = right.mean(-1, keepdim=True)
    size = (right - centre).square().mean(-1).sqrt().clamp_min(1e-12)
    apart = ((found - right).square().mean(-1).sqrt() / size).nan_to_num(float("inf"))
    return float(apart.max() if right.dtype in BOUNDS and found.dtype in BOUNDS else apart.median())
