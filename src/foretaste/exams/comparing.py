"""Is B better than A? Two sittings, or two logs of other harnesses, paired item by item and clustered.

On the same items the comparison is paired: what the items share cancels out. On different items of
the same families it is stratified, which needs many more of them; logs of other harnesses are never compared so
unless it is asked for, since other questions say nothing of who is better. The verdict is the e-value's, on the
same mean difference with clusters as units, so it may be looked at at any time; the interval beside it
is the size of the effect. Folders of several tasks: `comparing_tasks.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from foretaste.errors import ConfigError
from foretaste.exams.answers import Answer
from foretaste.exams.gaps import public_sealed_gap
from foretaste.exams.logs import Log, Scored, TaskLog, open_logs
from foretaste.exams.other_harnesses.scores import OURS
from foretaste.exams.results import estimate
from foretaste.exams.sequential import MeanVerdict, compare_means, compare_paired
from foretaste.exams.statistics import Estimate, paired_clustered_difference
from foretaste.ledger import Ledger

_OTHER_SCALE = 5.0
"""Scores of one log within [0, 1] and one of the other's at least this large are marks on another scale."""


class TaskDifference(NamedTuple):
    """B minus A on one task or family of a comparison; a description, not a verdict."""

    task: str
    n: int
    mean_a: float
    mean_b: float
    difference: Estimate


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
    """Base items on which A was better."""
    b_only: int
    left_out: int
    """Scores in one log alone, or failed in either."""
    task: str = ""
    metric: str = ""
    filter: str = ""
    higher_is_better: bool | None = True
    """None: not known, and so nothing is better."""
    cluster: str = ""
    """Field that names the clusters; "" where each item is its own."""
    notes: tuple[str, ...] = ()
    tasks: tuple[TaskDifference, ...] = ()
    """By task or family, where there are several."""

    @property
    def exit_code(self) -> int:
        """0: B is better; 1: A is better; 2: undecided."""
        return {"B": 0, "A": 1, None: 2}[self.better]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        tasks = [{**row._asdict(), "difference": estimate(row.difference)} for row in self.tasks]
        return {**values, "difference": estimate(self.difference), "tasks": tasks, "notes": list(self.notes)}


def load_tasks(ledger: Ledger | None, name: str) -> list[TaskLog] | Log:
    """Return the tasks of a log file or folder, or the scores of a sitting in the ledger.

    Raises: ConfigError or LedgerError for a name that is neither; LedgerError for a ledger that was changed.
    """
    if Path(name).exists() or ledger is None or "/" in name:
        return open_logs(Path(name))
    info = ledger.run(name)
    if info.kind != "exam":
        raise ConfigError(f"{info.id} is a {info.kind} run, not a sitting. See: foretaste exam list")
    ledger.verify()
    return Log(f"{info.config.get('policy')} ({info.id})", scores_of(ledger, info.id))


def load(ledger: Ledger | None, name: str, *, metric: str | None = None, cluster: str | None = None) -> Log:
    """Return the scores of a sitting in the ledger, or of a log of one task.

    Raises: ConfigError or LedgerError for a name that is neither.
    """
    found = load_tasks(ledger, name)
    if isinstance(found, Log):
        return found
    if len(found) > 1:
        raise ConfigError(f"{name} holds several tasks: {', '.join(task.task for task in found)}; give one file")
    return found[0].scores(metric=metric, cluster=cluster)


def scores_of(ledger: Ledger, run: str) -> list[Scored]:
    """Return the scores of a sitting; the latest answer counts where an item was asked again."""
    answers: dict[Any, Answer] = {}
    for record in ledger.records(run, "answer"):
        answer = Answer.from_json(record.payload)
        if not answer.public and not answer.scarce:
            answers[answer.key] = answer
    if not answers:
        raise ConfigError(f"{run} holds no answers. Go on with it: foretaste exam --resume {run}")
    families = (ledger.run(run).config.get("paper") or {}).get("families") or ()
    files = {family["env"]: str(family.get("sha256") or "") for family in families}
    return [
        Scored(
            f"{item_id(a.env, a.level, a.seed, a.register)}#{a.sample + 1}",
            f"{a.env}:{a.level}:{a.seed}",
            a.score,
            f"{a.env}:{a.level}",
            files.get(a.env, ""),
        )
        for a in answers.values()
    ]


def item_id(env: str, level: int, seed: int, register: str) -> str:
    """Return what names an item in one wording, here and in exported files."""
    return f"{env}:{level}:{seed}:{register}"


def compare(
    a: Log, b: Log, *, alpha: float = 0.05, lower_is_better: bool | None = None, despite_differences: bool = False
) -> Comparison:
    """Compare two logs: paired where they share items, else stratified by family.

    Args:
        lower_is_better: of the scores; None takes what the logs say, and without a word of theirs nothing is better.
        despite_differences: compare although task, scorer, filter, scale or questions differ, and say so. Items
            that have the same id are then paired.

    Raises: ConfigError for logs that differ in one of these, or share neither items nor families.
    """
    unlike = _differences(a, b)
    higher = _direction(a, b, lower_is_better)
    pairs, changed = _pairs(a, b)
    if not pairs and changed:
        unlike.append(f"{changed} items have the same id in both and other questions or reference answers")
    if not despite_differences:
        _refuse(a, b, unlike)
        if not pairs and not (a.grader == b.grader == OURS):
            raise ConfigError(f"{a.name} and {b.name} share no question, so nothing can be paired.{_ASKED_FOR}")
    elif not pairs and changed:
        pairs = _by_id(a, b)
    found = _paired(a, b, pairs, alpha, higher) if pairs else _stratified(a, b, alpha, higher)
    notes = list(dict.fromkeys((*a.notes, *b.notes)))
    if pairs and changed and not unlike:
        notes.append(f"{changed} items have the same id and other questions or reference answers: they are not paired")
    notes += [f"compared all the same: {line}" for line in unlike]
    if a.cluster_field != b.cluster_field and not a.grader == b.grader == OURS:
        notes.append(f"only one log has the field {a.cluster_field or b.cluster_field!r}; the clusters are A's")
    same = a.task if a.task == b.task else f"{a.task or a.name} and {b.task or b.name}"
    return replace(
        found,
        task=same,
        metric=a.metric if a.metric == b.metric else f"{a.metric or 'the exam'} and {b.metric or 'the exam'}",
        filter=a.filter if a.filter == b.filter else f"{a.filter or 'none'} and {b.filter or 'none'}",
        higher_is_better=higher,
        cluster=a.cluster_field,
        notes=tuple(notes),
    )


_ASKED_FOR = " If the comparison is meant all the same: --despite-differences"


def _refuse(a: Log, b: Log, unlike: Sequence[str]) -> None:
    if unlike:
        raise ConfigError(f"{a.name} and {b.name} are not of the same: {'; '.join(unlike)}.{_ASKED_FOR}")


def _differences(a: Log, b: Log) -> list[str]:
    """Return in what two logs differ that makes their scores no measure of who is better."""
    if a.grader == b.grader == OURS:
        return []
    pairs = [
        ("harness", a.grader, b.grader),
        ("task", a.task, b.task),
        ("scorer" if "inspect" in (a.grader, b.grader) else "metric", a.metric, b.metric),
        ("filter", a.filter, b.filter),
    ]
    found = [f"{what} {x!r} and {y!r}" for what, x, y in pairs if x != y and x and y]
    largest = sorted(max((abs(s.score) for s in log.scores if s.score is not None), default=0.0) for log in (a, b))
    if largest[0] <= 1 and largest[1] >= _OTHER_SCALE:
        found.append(f"scale (scores up to {largest[0]:g} in one, up to {largest[1]:g} in the other)")
    if None not in (a.higher_is_better, b.higher_is_better) and a.higher_is_better != b.higher_is_better:
        found.append("direction (more is better in one, less in the other)")
    return found


def _direction(a: Log, b: Log, lower_is_better: bool | None) -> bool | None:
    if lower_is_better is not None:
        return not lower_is_better
    if a.higher_is_better is None:
        return b.higher_is_better
    return None if b.higher_is_better == (not a.higher_is_better) else a.higher_is_better


def _pairs(a: Log, b: Log) -> tuple[list[tuple[Scored, Scored]], int]:
    """Return the items of the same question in both, and how many share an id but not the question.

    The question decides, where the log tells it: ids may be no more than places in a file. Where several items ask
    the same in words (other files belong to each), the id decides among them.
    """
    repeated = {key for log in (a, b) for key, count in Counter(map(_question, log.scores)).items() if count > 1}

    def keyed(log: Log) -> dict[Hashable, Scored]:
        keys = (_question(s) for s in log.scores)
        return _unique(
            log,
            [(key, s.item) if key in repeated or not s.text else key for key, s in zip(keys, log.scores, strict=True)],
        )

    first, second = keyed(a), keyed(b)
    pairs = [(first[key], second[key]) for key in first if key in second]
    matched = {x.item for x, _ in pairs}
    texts = {s.item: s.text for s in b.scores}
    changed = sum(s.item not in matched and s.item in texts and texts[s.item] != s.text for s in a.scores)
    return pairs, changed


def _question(scored: Scored) -> Hashable:
    """Return what tells questions apart, and repetitions of one question."""
    return scored.text, scored.item.rpartition("#")[2]


def _by_id(a: Log, b: Log) -> list[tuple[Scored, Scored]]:
    first, second = ({s.item: s for s in log.scores} for log in (a, b))
    return [(first[item], second[item]) for item in first if item in second]


def _unique(log: Log, keys: Sequence[Hashable]) -> dict[Hashable, Scored]:
    found: dict[Hashable, Scored] = {}
    for key, scored in zip(keys, log.scores, strict=True):
        if key in found:
            raise ConfigError(f"{log.name} scores {scored.item!r} more than once; give one log at a time")
        found[key] = scored
    return found


def _paired(a: Log, b: Log, pairs: Sequence[tuple[Scored, Scored]], alpha: float, higher: bool | None) -> Comparison:
    judged = [(x, y) for x, y in pairs if x.score is not None and y.score is not None]
    if not judged:
        raise ConfigError("No item was judged in both; nothing can be compared")
    scores_a, scores_b = ([float(s.score or 0.0) for s in side] for side in zip(*judged, strict=True))
    clusters = [x.cluster for x, _ in judged]
    sums: dict[str, list[float]] = {}
    for x, y, cluster in zip(scores_a, scores_b, clusters, strict=True):
        sums.setdefault(cluster, []).append((x - y) if higher is False else (y - x))
    wins = [sum(gains) for gains in sums.values()]
    difference = paired_clustered_difference(scores_a, scores_b, clusters)
    tested = _tested(list(sums.values()), alpha, bounded=all(0 <= score <= 1 for score in (*scores_a, *scores_b)))
    ahead = "B" if sum(wins) > 0 else "A"
    agrees = tested.better in (None, ahead)
    known = agrees and higher is not None
    return Comparison(
        a.name,
        b.name,
        True,
        sum(scores_a) / len(judged),
        sum(scores_b) / len(judged),
        difference,
        tested.better if known else None,
        tested.e_value,
        tested.more_needed if known else None,
        sum(win < 0 for win in wins),
        sum(win > 0 for win in wins),
        len(a.scores) + len(b.scores) - 2 * len(judged),
        tasks=_by_task(judged),
    )


def _by_task(judged: Sequence[tuple[Scored, Scored]]) -> tuple[TaskDifference, ...]:
    """Return the difference of every task or family, () where there is one."""
    strata: dict[str, list[tuple[Scored, Scored]]] = {}
    for x, y in judged:
        strata.setdefault(x.stratum, []).append((x, y))
    if len(strata) < 2:
        return ()
    rows = []
    for name, pairs in sorted(strata.items()):
        first, second = ([float(s.score or 0.0) for s in side] for side in zip(*pairs, strict=True))
        found = paired_clustered_difference(first, second, [x.cluster for x, _ in pairs])
        rows.append(TaskDifference(name, len(pairs), sum(first) / len(pairs), sum(second) / len(pairs), found))
    return tuple(rows)


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


def _stratified(a: Log, b: Log, alpha: float, higher: bool | None) -> Comparison:
    sides = [_strata(log.scores) for log in (a, b)]
    shared = [key for key in sides[0] if key in sides[1]]
    if not shared:
        raise ConfigError(
            f"{a.name} and {b.name} share no item and no family. Sit the same items: "
            "foretaste exam PAPER --policy B --items-of SITTING_OF_A"
        )
    found = public_sealed_gap(sides[1], sides[0], 1 - alpha)
    better = "B" if found.low > 0 else "A" if found.high < 0 else None
    if better is not None and higher is not True:
        better = None if higher is None else {"A": "B", "B": "A"}[better]
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
