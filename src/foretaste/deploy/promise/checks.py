"""Random checks of served answers, as columns: what the stages, the watch and a simulation count.

A server fills them from its store (`evidence.py`), a simulated deployment from what it drew (`simulation/`). Both then
count in the same way. Next: `analysis.py`, `watch.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from foretaste.deploy.promise.watch import alerts_in

RIGHT, WRONG, UNKNOWN = 1, 0, -1
"""What a judge says of an answer."""


class Counted(NamedTuple):
    """Mature checks, counted for a promotion."""

    judged: int
    correct: int
    unknown: int


@dataclass(frozen=True, slots=True)
class ServedChecks:
    """Checks of served answers in the order of their requests; every column has shape [N]."""

    number: NDArray[np.int64]
    """Of the request."""
    live: NDArray[np.bool_]
    """Served in the live stage."""
    share: NDArray[np.float64]
    """Share of served answers that were checked when the request arrived."""
    mature: NDArray[np.bool_]
    first: NDArray[np.int8]
    """The first judge's word: `RIGHT`, `WRONG` or `UNKNOWN`."""
    second: NDArray[np.int8]
    """The second judge's word; `UNKNOWN` where it was not asked."""
    asked: NDArray[np.bool_]

    @property
    def wrong(self) -> NDArray[np.bool_]:
        """Whether any judge calls the answer wrong."""
        return (self.first == WRONG) | (self.second == WRONG)

    def counted(self, since: float) -> Counted:
        """Count mature checks of requests after `since`: right only by the word of every judge that was asked.

        Checks that are judged before they are mature wait too: wrong answers may be found later than right ones.
        """
        ripe = self.mature & (self.number > since)
        right = ripe & (self.first == RIGHT) & (~self.asked | (self.second == RIGHT))
        known = int((ripe & (self.wrong | right)).sum())
        return Counted(known, int((right & ~self.wrong).sum()), int(ripe.sum()) - known)

    def evidence(self, since: float) -> dict[str, Any]:
        """Return the parts of `analysis.Evidence` that checks fill; `since`: the stage's, or step's, first request."""
        judged, correct, unknown = self.counted(since)
        return {
            "served_judged": judged,
            "served_correct": correct,
            "served_unknown": unknown,
            "served_outcomes": tuple((self.first != WRONG).tolist()),
            "alerts": alerts_in(self.share),
            "second_outcomes": tuple((~self.wrong)[self.asked].tolist()),
        }
