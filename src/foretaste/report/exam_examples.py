"""Single answers on an exam's page: examples of each kind of failure, and episodes that swap bugs back and forth."""

from __future__ import annotations

import itertools
from typing import Any

from foretaste.report import words
from foretaste.report.exam_gather import ExamData

LONGEST_TEXT = 1_200
"""Characters of one text in an example."""
LONGEST_CELL = 200
"""Characters of one text in the table of all answers."""
MOST_ROWS = 300
"""Answers in that table."""


def ping_pong(data: ExamData, most: int = 6) -> dict[str, Any] | None:
    """Return the back and forth of repair episodes: totals, and the check matrices of the most restless ones."""
    totals = data.results.get("ping_pong")
    if not totals:
        return None
    episodes = []
    for answer in data.main:
        rows = [turn["checks"] for turn in answer["turns"] if turn["checks"]]
        if len(rows) > 1:
            changes = [list(zip(a, b, strict=True)) for a, b in itertools.pairwise(rows)]
            broken = sum((a, b) == (True, False) for pairs in changes for a, b in pairs)
            swaps = [i + 1 for i, p in enumerate(changes) if (True, False) in p and (False, True) in p]
            episodes.append((broken, answer, rows, swaps))
    # The most restless, and one that went straight to its end, so that the worst is not taken for the rule.
    restless = sorted(episodes, key=lambda e: -e[0])
    chosen = restless[:most]
    calm = next((e for e in restless[::-1] if e[1]["mark"] == "right" and e not in chosen), None)
    shown = [
        {
            "title": f"{a['env']}, {a['register']}, seed ...{str(a['seed'])[-6:]}: {a['mark']}",
            "checks": list(zip(*rows, strict=True)),
            "turns": len(rows),
            "swaps": swaps,
            "broken": broken,
        }
        for broken, a, rows, swaps in [*chosen, *([calm] if calm else [])]
    ]
    figures = [
        ("Passing checks broken again, per transition", words.rate(totals["mean_regression_rate"])),
        ("Turns that fix one and break another", words.rate(totals["mean_swap_rate"])),
        ("Episodes with a check fixed, then broken", words.rate(totals["recurring_share"])),
        ("Episodes that came back to an earlier state", words.rate(totals["revisiting_share"])),
        ("Episodes that went in circles", words.rate(totals["cycling_share"])),
        ("Episodes", words.count(totals["episodes"])),
    ]
    return {"figures": figures, "episodes": shown}


def examples(data: ExamData, most: int = 8) -> list[dict[str, Any]]:
    """Return base items with two wordings side by side; those that contradict the headline are said to.

    First items that one wording wins and another loses, then items all of whose wordings speak against
    the verdict, then some that agree with it.
    """
    clusters: dict[str, list[dict[str, Any]]] = {}
    for answer in data.main:
        if answer["turns"] or answer["error"]:
            clusters.setdefault(answer["cluster"], []).append(answer)
    passed = data.verdict.get("outcome") == "PASS" or (
        data.verdict.get("outcome") != "FAIL" and (data.verdict.get("mean") or 0) >= 0.5
    )
    split, against, agreeing = [], [], []
    for answers in clusters.values():
        right = [a for a in answers if a["mark"] == "right"]
        wrong = [a for a in answers if a["mark"] not in ("right", "error")]
        if right and wrong:
            first = next((a for a in right if a["register"] == "plain"), right[0])
            split.append(("One item, two wordings, two outcomes", [first, wrong[0]]))
        elif right and not wrong:
            (agreeing if passed else against).append(("", right[:2]))
        elif wrong:
            (against if passed else agreeing).append(("", wrong[:2]))
    groups = [(title, pair) for title, pair in _varied(split, most // 2)]
    groups += [("Contradicts the headline", pair) for _, pair in _varied(against, most // 4)]
    groups += [("Agrees with the headline", pair) for _, pair in _varied(agreeing, most // 4)]
    return [
        {"title": f"{title}: {pair[0]['env']}, level {pair[0]['level']}", "sides": [_side(a) for a in pair]}
        for title, pair in groups
    ]


def answers(data: ExamData) -> dict[str, Any]:
    """Return the answers that count as a table, those that are not right first: question, reply, right answer, mark."""
    ranked = sorted(data.main, key=lambda a: (a["mark"] == "right", a["item"]))
    rows = []
    for answer in ranked[:MOST_ROWS]:
        first, last = (answer["turns"] or [None])[0], (answer["turns"] or [None])[-1]
        texts = (
            first["observation"] if first else "",
            answer["error"] or (last["action"] if last else ""),
            answer.get("expected") or "",
        )
        place = f"{answer['env']}, level {answer['level']}"
        rows.append((place, answer["register"], *(_cut(text, LONGEST_CELL) for text in texts), answer["mark"]))
    return {"rows": rows, "total": len(ranked)}


def _varied(groups: list[tuple[str, list[dict[str, Any]]]], count: int) -> list[tuple[str, list[dict[str, Any]]]]:
    """Return up to `count` groups, one environment after another."""
    chosen: list[tuple[str, list[dict[str, Any]]]] = []
    left = list(groups)
    while left and len(chosen) < count:
        taken: set[str] = set()
        for group in list(left):
            env = group[1][0]["env"]
            if env not in taken and len(chosen) < count:
                taken.add(env)
                chosen.append(group)
                left.remove(group)
    return chosen


def _side(answer: dict[str, Any]) -> dict[str, Any]:
    turns = answer["turns"]
    shown = turns if len(turns) <= 4 else [*turns[:2], *turns[-2:]]
    said: list[tuple[str, str]] = []
    for place, turn in enumerate(shown):
        if place == 2 and len(turns) > 4:
            said.append(("note", f"{len(turns) - 4} turns left out"))
        said += [("asked", _short(turn["observation"])), ("replied", _short(turn["action"]))]
    if answer["error"]:
        said.append(("note", str(answer["error"])))
    elif answer["mark"] != "right" and answer.get("expected"):
        said.append(("right answer", _short(answer["expected"])))
    value = turns[0]["value"] if turns else None
    return {
        "register": answer["register"],
        "mark": answer["mark"],
        "value": None if value is None else words.rate(value),
        "said": said,
    }


def _short(text: str) -> str:
    return _cut(text, LONGEST_TEXT)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]} ... ({len(text) - most} more)"
