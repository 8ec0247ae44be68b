"""From hidden states to values: three heads behind one interface.

    bce         sigmoid(z), for returns in [0, 1]; loss: binary cross-entropy, linear in its target, so that
                importance-corrected targets slightly outside [0, 1] stay unbiased
    regression  z itself; loss: squared error
    hl_gauss    expectation over bins; loss: cross-entropy against a Gaussian smeared over the bins around the
                target (Imani & White 2018, arXiv:1806.04613; Farebrother et al. 2024, arXiv:2403.03950)

Everything here is float32, whatever the model computes in.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

BINS = 51
_PADDING = 3
"""Bins added beyond each end, so that the smeared target of an extreme return keeps its mean."""
_SIGMA_BINS = 0.75
"""Standard deviation of the smear in bin widths, as Farebrother et al. chose it."""


class ValueHead(nn.Module):
    """A linear layer from hidden size to one logit, or to bins."""

    centers: Tensor

    def __init__(
        self, hidden_size: int, kind: Literal["bce", "regression", "hl_gauss"], value_range: tuple[float, float]
    ) -> None:
        """`value_range` is the support of the bins; other heads ignore it."""
        super().__init__()
        self.kind = kind
        self.low, self.high = value_range
        width = (self.high - self.low) / (BINS - 1)
        steps = torch.arange(-_PADDING, BINS + _PADDING, dtype=torch.float32)
        self.register_buffer("centers", self.low + steps * width, persistent=False)
        self.width = width
        self.linear = nn.Linear(hidden_size, len(steps) if kind == "hl_gauss" else 1)
        nn.init.normal_(self.linear.weight, std=0.1 / hidden_size)
        nn.init.zeros_(self.linear.bias)

    def forward(self, hidden_NH: Tensor) -> Tensor:
        """Return value logits. Shapes: N H -> N, or N x bins for hl_gauss."""
        logits = self.linear(hidden_NH.float())
        return logits if self.kind == "hl_gauss" else logits.squeeze(-1)

    def value(self, logits: Tensor) -> Tensor:
        """Return values in units of return. Shapes: as `forward` returns -> N."""
        if self.kind == "bce":
            return torch.sigmoid(logits)
        return logits.softmax(-1) @ self.centers if self.kind == "hl_gauss" else logits

    def loss(self, logits: Tensor, targets_N: Tensor, weights_N: Tensor) -> Tensor:
        """Return the weighted mean loss, sum(w * loss) / sum(w). Targets carry no gradient."""
        targets_N, weights_N = targets_N.detach().float(), weights_N.float()
        if self.kind == "bce":
            losses = functional.softplus(logits) - logits * targets_N
        elif self.kind == "regression":
            losses = (logits - targets_N) ** 2
        else:
            losses = -(self.smear(targets_N) * logits.log_softmax(-1)).sum(-1)
        return (weights_N * losses).sum() / weights_N.sum().clamp_min(torch.finfo(torch.float32).tiny)

    def smear(self, targets_N: Tensor) -> Tensor:
        """Return the Gaussian's mass in each bin, normalised over the bins. Shapes: N -> N x bins."""
        targets_N = targets_N.clamp(self.low, self.high)
        edges = torch.cat([self.centers - self.width / 2, self.centers[-1:] + self.width / 2])
        z = (edges - targets_N[:, None]) / (_SIGMA_BINS * self.width * math.sqrt(2.0))
        mass = torch.erf(z).diff(dim=-1) / 2
        return mass / mass.sum(-1, keepdim=True)

    @property
    def untouched(self) -> bool:
        """Whether the bias is the 0 of a new head: none was set, and the head has learned nothing."""
        return not bool(self.linear.bias.any())

    @torch.no_grad()
    def set_bias(self, mean_return: float) -> None:
        """Set the bias so that a zero input has the value `mean_return`."""
        bias = self.linear.bias
        if self.kind == "regression":
            bias.fill_(mean_return)
        elif self.kind == "bce":
            mean = min(max(mean_return, 1e-3), 1 - 1e-3)
            bias.fill_(math.log(mean / (1 - mean)))
        else:
            bias.copy_(self._tilt(min(max(mean_return, self.low), self.high)) * self.centers)

    def _tilt(self, mean: float) -> float:
        """Return the t for which softmax(t * centers) has this mean: the flattest such distribution."""
        reach = 200.0 / (self.high - self.low)
        low, high = -reach, reach
        for _ in range(60):
            middle = (low + high) / 2
            if float((middle * self.centers.double()).softmax(-1) @ self.centers.double()) < mean:
                low = middle
            else:
                high = middle
        return (low + high) / 2
