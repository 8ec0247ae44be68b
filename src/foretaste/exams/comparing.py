"""Is B better than A? Two sittings, or two logs of other harnesses, paired item by item and clustered.

On the same items the comparison is paired: what the items share cancels out. On different items of
the same families it is stratified, which needs many more of them. The verdict is the e-value's, on the
same mean difference with clusters as units, so it may be looked at at any time; the interval beside it
is the size of the effect.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foretaste.errors import ConfigError
from foretaste.exams.answers import Answer
from foretaste.exams.gaps import public_sealed_gap
from foretaste.exams.logs import Log, Scored, read_log
from foretaste.exams.results import estimate
from foretaste.exams.sequential import MeanVerdict, compare_means, compare_paired
from foretaste.exams.statistics import Estimate, paired_clustered_difference
from foretaste.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Comparison:
    """B against A."""

    a: str
    b: str
    paired: bool
    mean_a: float
    mean_b: float
    difference: Estimate
    """B minus A, with its 95% interval."""
    better: str | None
    """"A", "B", or None while undecided."""
    e_value: float | None
    """Evidence against "equally good"; None on different items, where the interval decides."""
    more_needed: int | None
    """Further base items until decided, if the shares stay as they are; None: not known, or never."""
    a_only: int
    """Base items on which A scored more."""
    b_only: int
    left_out: int
    """Scores in one log alone, or failed in either."""

    @property
    def exit_code(self) -> int:
        """0: B is better; 1: A is better; 2: undecided."""
        return {"B": 0, "A": 1, None: 2}[self.better]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        values = {name: getattr(self, name) for name in self.__slots__ if name != "difference"}
        return {**values, "difference": estimate(self.difference)}


def load(ledger: Ledger | None, name: str, *, metric: str | None = None, cluster: str | None = None) -> Log:
    """Return the scores of a sitting in the ledger, or of a log file.

    Raises: ConfigError or LedgerError for a name that is neither.
    """
    if Path(name).exists() or ledger is None or "/" in name:
        return read_log(Path(name), metric=metric, cluster=cluster)
    info = ledger.run(name)
    if info.kind != "exam":
        raise ConfigError(f"{info.id} is a {info.kind} run, not a sitting. See: foretaste runs --kind exam")
    return Log(f"{info.config.get('policy')} ({info.id})", scores_of(ledger, info.id))


def scores_of(ledger: Ledger, run: str) -> list[Scored]:
    """Return the scores of a sitting; the latest answer counts where an item was asked again."""
    answers: dict[Any, Answer] = {}
    for record in ledger.records(run, "answer"):
        answer = Answer.from_json(record.payload)
        if not answer.public and not answer.scarce:
            answers[answer.key] = answer
    if not answers:
        raise ConfigError(f"{run} holds no answers. Go on with it: foretaste exam --resume {run}")
    return [
        Scored(
            f"{item_id(a.env, a.level, a.seed, a.register)}#{a.sample + 1}",
            f"{a.env}:{a.level}:{a.seed}",
            a.score,
            f"{a.env}:{a.level}",
        )
        for a in answers.values()
    ]


def item_id(env: str, level: int, seed: int, register: str) -> str:
    """Return what names an item in one wording, here and in exported files."""
    return f"{env}:{level}:{seed}:{register}"


def compare(a: Log, b: Log, *, alpha: float = 0.05) -> Comparison:
    """Compare two logs: paired if they share items, else stratified by family.

    Raises: ConfigError if they share neither items nor families.
    """
    first, second = (_unique(log) for log in (a, b))
    shared = [item for item in first if item in second]
    if not shared:
        return _stratified(a, b, alpha)
    pairs = [(first[item], second[item]) for item in shared]
    judged = [(x.score, y.score, x.cluster) for x, y in pairs if x.score is not None and y.score is not None]
    if not judged:
        raise ConfigError("No item was judged in both; nothing can be compared")
    scores_a, scores_b = [x for x, _, _ in judged], [y for _, y, _ in judged]
    clusters = [cluster for _, _, cluster in judged]
    sums: dict[str, list[float]] = {}
    for x, y, cluster in judged:
        sums.setdefault(cluster, []).append(float(y) - float(x))
    wins = [sum(differences) for differences in sums.values()]
    difference = paired_clustered_difference(scores_a, scores_b, clusters)
    tested = _tested(list(sums.values()), alpha, bounded=all(0 <= score <= 1 for score in (*scores_a, *scores_b)))
    agrees = tested.better in (None, "B" if difference.mean > 0 else "A")
    return Comparison(
        a.name,
        b.name,
        True,
        sum(scores_a) / len(judged),
        sum(scores_b) / len(judged),
        difference,
        tested.better if agrees else None,
        tested.e_value,
        tested.more_needed if agrees else None,
        sum(win < 0 for win in wins),
        sum(win > 0 for win in wins),
        len(first) + len(second) - 2 * len(judged),
    )


def _tested(clusters: Sequence[Sequence[float]], alpha: float, *, bounded: bool) -> MeanVerdict:
    """Test the mean difference that is shown, sum by sum of the clusters.

    Scores outside [0, 1] have no known bounds, without which no test of a mean is exact: there it is tested who wins
    more clusters.
    """
    if bounded:
        largest = max(map(len, clusters))
        return compare_means((sum(differences) / largest for differences in clusters), alpha)
    found = compare_paired([(sum(differences) < 0, sum(differences) > 0) for differences in clusters], alpha)
    return MeanVerdict(found.better, found.e_value, found.more_needed)


def _unique(log: Log) -> dict[str, Scored]:
    repeated = [item for item, count in Counter(s.item for s in log.scores).items() if count > 1]
    if repeated:
        raise ConfigError(f"{log.name} scores {repeated[0]!r} more than once; give one log at a time")
    return {scored.item: scored for scored in log.scores}


def _stratified(a: Log, b: Log, alpha: float) -> Comparison:
    sides = [_strata(log.scores) for log in (a, b)]
    shared = [key for key in sides[0] if key in sides[1]]
    if not shared:
        raise ConfigError(
            f"{a.name} and {b.name} share no item and no family. Sit the same items: "
            "foretaste exam PAPER --policy B --items-of SITTING_OF_A"
        )
    found = public_sealed_gap(sides[1], sides[0], 1 - alpha)
    better = "B" if found.low > 0 else "A" if found.high < 0 else None
    means = [sum(sum(side[key]) / len(side[key]) for key in shared) / len(shared) for side in sides]
    total = sum(len(side[key]) for side in sides for key in shared)
    left = len(a.scores) + len(b.scores)
    return Comparison(a.name, b.name, False, means[0], means[1], found, better, None, None, 0, 0, max(0, left - total))


def _strata(scores: Sequence[Scored]) -> dict[Hashable, list[float]]:
    """Mean over the scores of every cluster, by stratum."""
    clusters: dict[tuple[str, str], list[float]] = {}
    for scored in scores:
        if scored.score is not None:
            clusters.setdefault((scored.stratum, scored.cluster), []).append(scored.score)
    strata: dict[Hashable, list[float]] = {}
    for (stratum, _), values in clusters.items():
        strata.setdefault(stratum, []).append(sum(values) / len(values))
    return strata
