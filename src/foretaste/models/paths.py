"""Which path computes a model, the quick one or the plain one, and why not the quick one?

Both paths compute the same up to rounding (`docs/performance.md`); a run that is slow, or that repeats another one but
for its last digits, is explained by this.
"""

from __future__ import annotations

from typing import NamedTuple

from foretaste.config import SamplingConfig
from foretaste.models import fast_training
from foretaste.models.actor_critic import ActorCritic
from foretaste.models.fast_decode import FastDecoder
from foretaste.models.turns import context_limit


class Paths(NamedTuple):
    """Why sampling and training do not take the quick path; empty where they do."""

    sampling: str
    training: str

    def lines(self) -> list[str]:
        """Return one sentence, or one for each of the two if they differ."""
        if self.sampling == self.training:
            return [_line("sampling and training", self.sampling)]
        return [_line("sampling", self.sampling), _line("training", self.training)]

    def to_json(self) -> dict[str, dict[str, str]]:
        """Return it as the ledger keeps it."""
        return {name: {"path": "plain" if why else "quick", "why": why} for name, why in self._asdict().items()}


def paths_of(model: ActorCritic, config: SamplingConfig) -> Paths:
    """Return which paths a run with this model takes."""
    longest = context_limit(model, config)
    sampling = f"vLLM samples ({config.engine})" if config.engine == "vllm" else FastDecoder.why_not(model, longest)
    return Paths(sampling, fast_training.why_not(model, longest))


def _line(what: str, why: str) -> str:
    return f"{what} by the plain path, not the quick one: {why}" if why else f"{what} by the quick path"
