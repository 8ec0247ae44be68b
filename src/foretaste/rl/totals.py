"""What an update adds up over its micro-batches, and the metrics that come of it (docs/metrics.md)."""

from __future__ import annotations

import numpy as np


class Totals:
    """Sums over the tokens of an update."""

    def __init__(self, first_fresh: int = 0) -> None:
        self.first_fresh = first_fresh
        self.tokens = 0
        self.policy_loss = self.value_loss = self.clipped = self.kl = self.entropy = 0.0
        self.log_ratios: list[np.ndarray] = []
        self.sampler_differences: list[np.ndarray] = []
        self.norms: list[dict[str, float]] = []

    def metrics(self, has_critic: bool) -> dict[str, float]:
        """Return the means under their documented names."""
        ratios = np.exp(np.concatenate(self.log_ratios))
        differences = np.concatenate(self.sampler_differences)
        metrics = {
            "policy/loss": self.policy_loss / self.tokens,
            "policy/entropy": self.entropy / self.tokens,
            "policy/clip_fraction": self.clipped / self.tokens,
            "policy/kl": self.kl / self.tokens,
            "policy/ratio_max": float(ratios.max()),
            "policy/ratio_p999": float(np.quantile(ratios, 0.999)),
            "policy/gradient_norm": float(np.mean([norms["policy"] for norms in self.norms])),
        }
        if differences.size:
            metrics["policy/sampler_difference_max"] = float(differences.max())
            metrics["policy/sampler_difference_p999"] = float(np.quantile(differences, 0.999))
        if has_critic:
            metrics["value/loss"] = self.value_loss / self.tokens
            metrics["value/gradient_norm"] = float(np.mean([norms["value"] for norms in self.norms]))
        return metrics
