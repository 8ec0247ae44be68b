"""Float32 weights for models that compute in bfloat16: the optimiser of actor and critic.

A bfloat16 weight of 1.0 has no neighbour nearer than 0.0078: an update of 1e-5 would vanish. So the optimiser keeps
what bfloat16 leaves out of each weight (`split_adamw.py`) and adds up the gradients of micro-batches in float32. A
float32 parameter needs none of that and takes PyTorch's AdamW.

    masters.accumulate(); loss.backward()     once per micro-batch
    norms = masters.step({"actor": 3e-5, "critic": 1e-4})
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from foretaste.models.split_adamw import SplitAdamW


class Optimizer(Protocol):
    """AdamW over some parameters of one precision."""

    def accumulate(self) -> None:
        """Make room for the gradients of another backward pass, keeping the sum of those that there are."""
        ...

    def norm(self) -> float | None:
        """Return the Euclidean norm of all gradients; None if there is none."""
        ...

    def step(self, rate: float, *, clip: float) -> None:
        """Update the weights that have a gradient, multiplied by `clip`."""
        ...

    def clear(self) -> None:
        """Forget all gradients."""
        ...

    def weights(self) -> list[Tensor]:
        """Return the weights in float32."""
        ...

    def state(self) -> dict[str, Any]:
        """Return what `load` takes; the tensors are those in use."""
        ...

    def load(self, state: Mapping[str, Any]) -> None:
        """Take up a saved state, the weights included."""
        ...


class WholeAdamW:
    """Implements `Optimizer` for float32 parameters."""

    def __init__(self, parameters: Sequence[nn.Parameter], *, betas: tuple[float, float], weight_decay: float) -> None:
        self.parameters = list(parameters)
        self._optimizer = torch.optim.AdamW(self.parameters, lr=0.0, betas=betas, weight_decay=weight_decay, fused=True)

    def accumulate(self) -> None:
        """See `Optimizer`: backward passes add up as they are."""

    def norm(self) -> float | None:
        """See `Optimizer`."""
        found = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        return float(nn.utils.get_total_norm(found)) if found else None

    def step(self, rate: float, *, clip: float) -> None:
        """See `Optimizer`."""
        for parameter in self.parameters:
            if parameter.grad is not None:
                parameter.grad.mul_(clip)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        for parameter in self.parameters:  # the fused optimiser changes a weight without counting it as a change
            torch.autograd.graph.increment_version(parameter)

    def clear(self) -> None:
        """See `Optimizer`."""
        for parameter in self.parameters:
            parameter.grad = None

    def weights(self) -> list[Tensor]:
        """See `Optimizer`."""
        return [parameter.data for parameter in self.parameters]

    def state(self) -> dict[str, Any]:
        """See `Optimizer`."""
        return {"weights": self.weights(), "optimizer": self._optimizer.state_dict()}

    @torch.no_grad()
    def load(self, state: Mapping[str, Any]) -> None:
        """See `Optimizer`."""
        for parameter, saved in zip(self.parameters, state["weights"], strict=True):
            parameter.copy_(saved)
        self._optimizer.load_state_dict(state["optimizer"])


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
        """Take the weights as they are; they must be float32 or bfloat16."""
        self.max_grad_norm = max_grad_norm
        self._groups: dict[str, list[Optimizer]] = {}
        for name, members in groups.items():
            parameters = list(members)
            kinds = (WholeAdamW, torch.float32), (SplitAdamW, torch.bfloat16)
            parted = [(kind, [p for p in parameters if p.dtype == dtype]) for kind, dtype in kinds]
            self._groups[name] = [kind(own, betas=betas, weight_decay=weight_decay) for kind, own in parted if own]
            if others := {str(p.dtype) for p in parameters} - {str(dtype) for _, dtype in kinds}:
                raise TypeError(f"weights of {name!r} are {', '.join(sorted(others))}; accepted: float32, bfloat16")

    @torch.no_grad()
    def accumulate(self) -> None:
        """Keep the gradients that there are as a sum, so that another backward pass can follow."""
        for part in self._parts():
            part.accumulate()

    @torch.no_grad()
    def step(self, learning_rates: Mapping[str, float]) -> dict[str, float]:
        """Clip and update the named groups; return each one's gradient norm before clipping.

        Groups that are not named keep their weights and lose their gradients. A group whose norm is not
        finite is not updated; its norm is returned as it is, for the caller to report.
        """
        norms: dict[str, float] = {}
        for name, rate in learning_rates.items():
            parts = self._groups[name]
            found = [norm for part in parts if (norm := part.norm()) is not None]
            norms[name] = norm = math.hypot(*found)
            if found and math.isfinite(norm):
                clip = float((self.max_grad_norm / (torch.tensor(norm) + 1e-6)).clamp(max=1.0))
                for part in parts:
                    part.step(rate, clip=clip)
        self.clear()
        return norms

    def clear(self) -> None:
        """Forget all gradients."""
        for part in self._parts():
            part.clear()

    def weights(self, name: str) -> list[Tensor]:
        """Return the weights of a group in float32."""
        return [weight for part in self._groups[name] for weight in part.weights()]

    def state_dict(self) -> dict[str, Any]:
        """Return all that an exact resumption needs, the weights included; the tensors are those in use."""
        return {name: [part.state() for part in parts] for name, parts in self._groups.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a saved state and write the weights back into the parameters."""
        for name, parts in self._groups.items():
            for part, saved in zip(parts, state[name], strict=True):
                part.load(saved)

    def _parts(self) -> Iterable[Optimizer]:
        return (part for parts in self._groups.values() for part in parts)
