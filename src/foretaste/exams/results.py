"""What a sitting measured, computed from its answers alone: plain values that the ledger keeps.

Every figure's formula is in `statistics.py`, `gaps.py`, `pingpong.py` or `verdict.py`. Answers marked `error`
enter no figure but the failure budget; scarce families appear only with their released score.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any

from foretaste.exams.answers import REFUSALS_READ_IN, Answer, Mark
from foretaste.exams.gaps import SplitBrain, public_sealed_gap, split_brain
from foretaste.exams.paper import Paper
from foretaste.exams.pingpong import ping_pong_of, total
from foretaste.exams.statistics import (
    Estimate,
    calibration_by_turn,
    clustered_proportion,
    pass_at_k,
    pass_hat_k,
)
from foretaste.registers import REGISTERS
from foretaste.statistics import exact_interval

_LEAST_FOR_FLOOR = 20
"""Base items of a family and level from which the share of the commonest answer is worth stating."""


def results(
    paper: Paper, answers: Sequence[Answer], *, floors: dict[str, Counter[str]] | None = None
) -> dict[str, Any]:
    """Return all figures of a sitting as JSON-ready values; what was not measured is None or empty.

    `floors`: "env:level" -> how often each reference answer occurred among the base items.
    """
    main = [a for a in answers if not a.public and not a.scarce and a.sample == 0]
    public = [a for a in answers if a.public and not a.scarce]
    judged = [a for a in main if a.score is not None]
    with_checks = [m for m in (ping_pong_of(a.episode()) for a in main) if m is not None]
    return {
        "base_items": len({a.cluster for a in main}),
        "answers": len(main),
        "accuracy": estimate(_proportion(judged)),
        "by_register": _by_register(judged),
        "by_family": _by_family(judged, floors or {}),
        "cells": _cells(main),
        "split_brain": _split_brain(answers),
        "gap": estimate(_gap(public, main)),
        "failures": {mark.value: sum(a.mark is mark for a in main) for mark in Mark},
        "failures_by_family": _failures(main),
        "refusals_read_in": REFUSALS_READ_IN,
        "right_without_markup": sum(a.right_without_markup for a in main),
        "errors": dict(Counter(a.error or "" for a in answers if a.mark is Mark.ERROR).most_common(12)),
        "without_reference": sorted({a.env for a in main if a.error and "without solutions" in a.error}),
        "trained_on": sum(a.trained_on for a in main),
        "ping_pong": total(with_checks)._asdict() if with_checks else None,
        "calibration": [dict(turn._asdict()) for turn in calibration_by_turn([a.episode() for a in main])],
        "reliability": _reliability(main),
        "repeated": _repeated(answers),
        "metric": paper.metric,
    }


def estimate(found: Estimate | None) -> dict[str, Any] | None:
    """Return an estimate as plain values; infinite bounds become None, the interval's level is `confidence`."""
    if found is None:
        return None
    values = {"confidence" if name == "level" else name: x for name, x in found._asdict().items()}
    return {name: None if isinstance(x, float) and not math.isfinite(x) else x for name, x in values.items()}


def _proportion(judged: Sequence[Answer]) -> Estimate | None:
    """The share of right answers, with the Beta-binomial interval, widened to hold the share itself."""
    if not judged:
        return None
    scores = [a.score or 0.0 for a in judged]
    found = clustered_proportion(scores, [a.cluster for a in judged])
    share = sum(scores) / len(scores)
    return found._replace(mean=share, low=min(found.low, share), high=max(found.high, share))


def _by_register(judged: Sequence[Answer]) -> list[dict[str, Any]]:
    rows = []
    for name in dict.fromkeys(a.register for a in judged):
        scores = [a.score or 0.0 for a in judged if a.register == name]
        found = exact_interval(int(sum(scores)), len(scores))
        register = REGISTERS.get(name)
        rows.append(
            {
                "register": name,
                "family": register.family if register else "own",
                "held_out": bool(register and register.held_out),
                "mean": found.mean,
                "low": found.low,
                "high": found.high,
                "n": found.n,
            }
        )
    return rows


def _by_family(judged: Sequence[Answer], floors: dict[str, Counter[str]]) -> list[dict[str, Any]]:
    rows = []
    for env, level in dict.fromkeys((a.env, a.level) for a in judged):
        here = [a for a in judged if (a.env, a.level) == (env, level)]
        found = estimate(_proportion(here)) or {}
        golds = floors.get(f"{env}:{level}", Counter())
        enough = golds.total() >= _LEAST_FOR_FLOOR
        floor = golds.most_common(1)[0][1] / golds.total() if enough else None
        rows.append({"env": env, "level": level, "floor": floor, **found})
    return rows


def _cells(main: Sequence[Answer]) -> list[dict[str, Any]]:
    """Right answers and judged answers of every environment in every wording."""
    cells: dict[tuple[str, str], list[float]] = {}
    for a in main:
        cells.setdefault((a.env, a.register), []).extend([] if a.score is None else [a.score])
    return [
        {"env": env, "register": register, "right": int(sum(scores)), "n": len(scores)}
        for (env, register), scores in cells.items()
    ]


def _split_brain(answers: Sequence[Answer]) -> dict[str, Any] | None:
    """Compare each wording with plain on the items asked in both, net of the flips of plain asked again."""
    own = [a for a in answers if not a.public and not a.scarce]
    first = {(a.cluster, a.register): a.score for a in own if a.sample == 0 and a.score is not None}
    again: dict[str, list[float]] = {}
    for a in own:
        if a.sample > 0 and a.register == "plain" and a.score is not None:
            again.setdefault(a.cluster, []).append(a.score)
    names = list(dict.fromkeys(register for _, register in first if register != "plain"))
    samples = max((len(scores) for scores in again.values()), default=0)
    rows: list[dict[str, Any]] = []
    for name in names:
        # Items with an error in either wording, or in a repeated sample, are left out of this row.
        items = [
            cluster
            for cluster, register in first
            if register == name and (cluster, "plain") in first and len(again.get(cluster, [])) == samples
        ]
        if not items:
            continue
        scores = {"plain": [first[i, "plain"] for i in items], name: [first[i, name] for i in items]}
        found: SplitBrain = split_brain(scores, [again[i] for i in items] if samples else None)
        net = found.net_lost.get(name)
        rows.append(
            {
                "register": name,
                "n": len(items),
                "plain": found.by_register["plain"],
                "mean": found.by_register[name],
                "lost": found.lost.get(name),
                "flip_rate": found.flip_rate,
                "net": estimate(net),
            }
        )
    if not rows:
        return None
    wordings = Counter(cluster for cluster, _ in first)
    right = Counter(cluster for (cluster, _), score in first.items() if score == 1)
    several = [cluster for cluster, count in wordings.items() if count > 1]
    worst = min(_by_register([a for a in own if a.sample == 0 and a.score is not None]), key=lambda row: row["mean"])
    return {
        "rows": rows,
        "samples": samples + 1,
        "items": len(several),
        "all_right": sum(right[c] == wordings[c] for c in several) / len(several) if several else None,
        "none_right": sum(right[c] == 0 for c in several) / len(several) if several else None,
        "worst_register": worst["register"],
        "worst": worst["mean"],
    }


def _gap(public: Sequence[Answer], main: Sequence[Answer]) -> Estimate | None:
    """Public minus sealed success in the wording that both were asked in."""
    registers = {(a.env, a.level): a.register for a in public}
    sides: list[dict[Hashable, list[float]]] = [{}, {}]
    for side, group in zip(sides, (public, main), strict=True):
        for a in group:
            key = (a.env, a.level)
            if a.score is not None and registers.get(key) == a.register:
                side.setdefault(key, []).append(a.score)
    return public_sealed_gap(sides[0], sides[1]) if set(sides[0]) & set(sides[1]) else None


def _failures(main: Sequence[Answer]) -> list[dict[str, Any]]:
    counts: dict[str, Counter[str]] = {}
    for a in main:
        counts.setdefault(a.env, Counter())[a.mark.value] += 1
    return [{"env": env, **{mark.value: count[mark.value] for mark in Mark}} for env, count in counts.items()]


def _reliability(main: Sequence[Answer], bins: int = 10) -> list[dict[str, Any]]:
    """Mean value and mean outcome at the start of episodes, in equal bins of V."""
    pairs = [
        (a.turns[0].value, a.score) for a in main if a.turns and a.turns[0].value is not None and a.score is not None
    ]
    rows: list[dict[str, Any]] = []
    for k in range(bins if pairs else 0):
        here = [(v, s) for v, s in pairs if v is not None and min(int(max(v, 0.0) * bins), bins - 1) == k]
        n = len(here)
        rows.append(
            {
                "low": k / bins,
                "high": (k + 1) / bins,
                "n": n,
                "mean_value": sum(v for v, _ in here) / n if n else None,
                "mean_outcome": sum(s for _, s in here) / n if n else None,
            }
        )
    return rows


def _repeated(answers: Sequence[Answer]) -> dict[str, Any] | None:
    """pass@k and pass^k of the plain wording, averaged over base items with all samples judged."""
    tries: dict[str, list[float | None]] = {}
    for a in answers:
        if not a.public and not a.scarce and a.register == "plain":
            tries.setdefault(a.cluster, []).append(a.score)
    samples = max((len(scores) for scores in tries.values()), default=0)
    whole = [[s for s in scores if s is not None] for scores in tries.values()]
    whole = [scores for scores in whole if len(scores) == samples]
    if samples < 2 or not whole:
        return None
    counts = [int(sum(scores)) for scores in whole]
    rows = [
        {
            "k": k,
            "pass_at_k": sum(pass_at_k(c, samples, k) for c in counts) / len(counts),
            "pass_hat_k": sum(pass_hat_k(c, samples, k) for c in counts) / len(counts),
        }
        for k in range(1, samples + 1)
    ]
    return {"samples": samples, "items": len(whole), "rows": rows}
