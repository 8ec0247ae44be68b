"""Float32 master weights for models that compute in bfloat16.

A bfloat16 weight of 1.0 has no neighbour nearer than 0.0078: an update of 1e-5 would vanish. So the
optimiser owns float32 copies, adds up the gradients of micro-batches there, steps, and writes the rounded
result back. A float32 parameter is its own master.

    loss.backward(); masters.accumulate()     once per micro-batch
    norms = masters.step({"actor": 3e-5, "critic": 1e-4})
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn


class MasterWeights:
    """AdamW over named groups of parameters ("actor", "critic"), each clipped by its own gradient norm."""

    def __init__(
        self,
        groups: Mapping[str, Iterable[nn.Parameter]],
        *,
        max_grad_norm: float = 1.0,
        betas: tuple[float, float] = (0.9, 0.95),
        weight_decay: float = 0.0,
    ) -> None:
        """Copy every parameter that is not float32."""
        self.max_grad_norm = max_grad_norm
        self._parameters = {name: list(parameters) for name, parameters in groups.items()}
        self._masters: dict[str, list[Tensor]] = {
            name: [p if p.dtype == torch.float32 else p.detach().float().requires_grad_() for p in parameters]
            for name, parameters in self._parameters.items()
        }
        self._optimizers = {
            name: torch.optim.AdamW(masters, lr=0.0, betas=betas, weight_decay=weight_decay, fused=True)
            for name, masters in self._masters.items()
        }

    @torch.no_grad()
    def accumulate(self) -> None:
        """Add the parameters' gradients to the masters' and clear them: after each backward pass."""
        for parameter, master in self._pairs():
            if parameter is not master and parameter.grad is not None:
                if master.grad is None:
                    master.grad = parameter.grad.float()
                else:
                    master.grad.add_(parameter.grad)
                parameter.grad = None

    @torch.no_grad()
    def step(self, learning_rates: Mapping[str, float]) -> dict[str, float]:
        """Clip, update and write back the named groups; return each one's gradient norm before clipping.

        Groups that are not named keep their weights and lose their gradients. A group whose norm is not
        finite is not updated; its norm is returned as it is, for the caller to report.
        """
        self.accumulate()
        norms: dict[str, float] = {}
        for name, rate in learning_rates.items():
            masters = [master for master in self._masters[name] if master.grad is not None]
            norms[name] = norm = float(nn.utils.clip_grad_norm_(masters, self.max_grad_norm))
            if not math.isfinite(norm) or not masters:
                continue
            optimizer = self._optimizers[name]
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            self._write_back(name)
        self.clear()
        return norms

    def clear(self) -> None:
        """Forget all gradients."""
        for parameter, master in self._pairs():
            parameter.grad = master.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Return all that an exact resumption needs, the float32 weights included."""
        return {
            "masters": {name: [m.detach().clone() for m in masters] for name, masters in self._masters.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self._optimizers.items()},
        }

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a saved state and write the weights back into the parameters."""
        for name, saved in state["masters"].items():
            for master, value in zip(self._masters[name], saved, strict=True):
                master.copy_(value)
            self._optimizers[name].load_state_dict(state["optimizers"][name])
            self._write_back(name)

    def _pairs(self) -> Iterable[tuple[nn.Parameter, Tensor]]:
        for name, parameters in self._parameters.items():
            yield from zip(parameters, self._masters[name], strict=True)

    def _write_back(self, name: str) -> None:
        for parameter, master in zip(self._parameters[name], self._masters[name], strict=True):
            if parameter is not master:
                parameter.copy_(master)
            else:  # the fused optimiser changes a weight without counting it as a change
                torch.autograd.graph.increment_version(parameter)
