"""One e-value that several parts share: is an error rate above what is allowed, whenever one looks?"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaln, xlog1py, xlogy
from scipy.stats import beta


def log_e_above(wrong: ArrayLike, n: ArrayLike, rate: float) -> NDArray[np.float64]:
    """Return ln E of "the error is at most `rate`" after n judged answers; vectorised over counts.

        E = integral over q from rate to 1 of (q / rate)^w ((1 - q) / (1 - rate))^(n - w) dq / (1 - rate)

    Each q above the rate makes a supermartingale under every error up to it, so P(E >= 1/delta at any n) <= delta.

    Source: mixture of likelihood ratios, Robbins 1970; Ville 1939.
    """
    w, total = np.asarray(wrong, dtype=float), np.asarray(n, dtype=float)
    tail = beta.logsf(rate, w + 1, total - w + 1)
    return betaln(w + 1, total - w + 1) + tail - math.log1p(-rate) - xlogy(w, rate) - xlog1py(total - w, -rate)


@lru_cache(maxsize=65_536)
def log_e_of(wrong: int, n: int, rate: float) -> float:
    """Return `log_e_above` of one pair of counts; looks ask for the same ones again and again."""
    return float(log_e_above(wrong, n, rate))
