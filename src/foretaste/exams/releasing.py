"""Scores of scarce families, released through the Ladder or Thresholdout instead of being told.

Their items are the same at every look, so every exact score would be a step of tuning to them. Their
answers enter neither the verdict nor any figure of the page; their texts are not kept at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from foretaste.errors import RunError
from foretaste.exams.answers import Answer
from foretaste.exams.paper import Paper
from foretaste.exams.planning import Plan
from foretaste.exams.scarce import Ladder, Release, Thresholdout, store_state, stored_state
from foretaste.exams.seal import secret_in
from foretaste.ledger import Ledger


def check_scarce(ledger: Ledger, paper: Paper, plan: Plan) -> None:
    """Refuse scarce items that the Ladder cannot compare with those of earlier looks, before a look is spent.

    Raises: RunError if their number has changed.
    """
    for family in paper.families if paper.sealed else ():
        for level in family.levels if family.release == "ladder" else ():
            state = stored_state(ledger, paper.name, f"{family.env}:{level}:{family.release}") or {}
            before = len(state.get("best_scores", ()))
            now = len({item.cluster for item in plan.items if (item.env, item.level) == (family.env, level)})
            if before and now != before:
                raise RunError(
                    f"Paper {paper.name!r} asked {before} items of {family.env} at level {level} before and would ask "
                    f"{now} now; the Ladder compares the same items at every look. No look was spent. "
                    "Give the paper another name, which begins anew"
                )


def release_scarce(
    ledger: Ledger, run: str, paper: Paper, answers: Sequence[Answer], runs_folder: Path
) -> list[dict[str, Any]]:
    """Return what may be told of each scarce family and level, and store the mechanisms' new state.

    An item that failed counts as wrong: leaving it out would change what the score is of. What this sitting has
    released before, an interrupted end, is told again and not submitted twice.
    """
    told: list[dict[str, Any]] = []
    before = {record.payload["key"]: record.payload["released"] for record in ledger.records(run, "release")}
    for family in paper.families if paper.sealed else ():
        if family.release == "fresh":
            continue
        for level in family.levels:
            sealed, public = (
                _scores([a for a in answers if (a.env, a.level, a.public) == (family.env, level, side)])
                for side in (False, True)
            )
            if not sealed:
                continue
            key = f"{family.env}:{level}:{family.release}"
            if key in before:
                release = Release(**before[key])
            else:
                state = stored_state(ledger, paper.name, key)
                release = _ask(family.release, state, sealed, public, ledger, run, paper, key, runs_folder)
            told.append(
                {"env": family.env, "level": level, "mechanism": family.release, "items": len(sealed)}
                | {"score": release.score, "news": release.news}
            )
    return told


def _scores(answers: Sequence[Answer]) -> list[float]:
    """Mean over wordings of every base item, in the order of the items."""
    items: dict[str, list[float]] = {}
    for answer in sorted(answers, key=lambda a: (a.cluster, a.register)):
        items.setdefault(answer.cluster, []).append(answer.score or 0.0)
    return [sum(scores) / len(scores) for scores in items.values()]


def _ask(
    mechanism: str,
    state: dict[str, Any] | None,
    sealed: list[float],
    public: list[float],
    ledger: Ledger,
    run: str,
    paper: Paper,
    key: str,
    runs_folder: Path,
) -> Release:
    if mechanism == "ladder":
        release, following = (Ladder() if state is None else Ladder.from_json(state)).submit(sealed)
    else:
        # A secret of its own: revealing the paper's secret must not let anybody subtract the noise.
        secret = secret_in(runs_folder / "secrets", f"{paper.name}-noise")
        start = Thresholdout(secret) if state is None else Thresholdout.from_json(state, secret=secret)
        release, following = start.ask(public, sealed)
    store_state(ledger, run, paper.name, key, release, following)
    return release
