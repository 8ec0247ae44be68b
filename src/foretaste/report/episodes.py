"""Picks episodes for the viewer and packs them small: pieces of text with their values and log-probabilities.

A page stays below about a megabyte, so it holds some episodes of each kind and not all of them:
errors, successes and failures of before, during and after training in turn, and always the best, the
worst, and those whose value was most mistaken about the outcome.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jinja2.utils import htmlsafe_json_dumps

from foretaste.report.words import number

MAX_EPISODES = 60
MAX_BYTES = 560_000
"""Characters of all episodes of a page together."""
MAX_EPISODE_BYTES = 90_000
MAX_OBSERVATION = 4_000
"""Characters of one observation that are shown."""
_MOMENTS = {"after": "after", "before": "before"}


def choose(episodes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the packed episodes a page shows, in the order in which they were recorded."""
    packed = [pack(episode, index) for index, episode in enumerate(episodes)]
    wanted: list[int] = []
    whole = [p for p in packed if p["outcome"] != "error"]
    for moment in ("after", "before", "during"):
        here = [p for p in whole if p["moment"] == moment]
        if here:
            wanted.append(max(here, key=lambda p: p["reward"])["id"])
            wanted.append(min(here, key=lambda p: p["reward"])["id"])
        mistaken = [p for p in here if p["mistake"] is not None]
        wanted += [p["id"] for p in sorted(mistaken, key=lambda p: -p["mistake"])[:2]]
    groups: dict[tuple[str, str], list[int]] = {}
    for p in packed:
        groups.setdefault((p["moment"], p["outcome"]), []).append(p["id"])
    while any(groups.values()):  # one of each kind in turn, so that no kind crowds out another
        for members in groups.values():
            if members:
                wanted.append(members.pop(0))
    taken: set[int] = set()
    size = 0
    for index in dict.fromkeys(wanted):
        cost = _size(packed[index])
        if len(taken) < MAX_EPISODES and size + cost <= MAX_BYTES:
            taken.add(index)
            size += cost
    return [p for p in packed if p["id"] in taken]


def pack(episode: dict[str, Any], index: int) -> dict[str, Any]:
    """Return one episode as the viewer's script reads it: short names, three digits, no token ids."""
    success, end = number(episode.get("success")), str(episode.get("end", ""))
    outcome = "error" if end == "error" or episode.get("error") else "unknown"
    if outcome != "error" and success is not None:
        outcome = "success" if success > 0.5 else "failure"
    texts = episode.get("tokens_text") or []
    turns: list[dict[str, Any]] = []
    size, left_out = 0, 0
    source = episode.get("turns") or []
    for place, turn in enumerate(source):
        packed = _pack_turn(turn, texts[place] if place < len(texts) else None)
        size += _size(packed)
        if size > MAX_EPISODE_BYTES and turns:
            left_out = len(source) - place
            break
        turns.append(packed)
    values = [value for turn in turns for value in turn["v"] if value is not None]
    mistake = None
    if values and success is not None and outcome != "error":
        mistake = abs(sum(values[len(values) // 2 :]) / len(values[len(values) // 2 :]) - success)
    return {
        "id": index,
        "moment": _MOMENTS.get(str(episode.get("label")), "during"),
        "label": str(episode.get("label", "")),
        "step": episode.get("step"),
        "env": str(episode.get("env", "")),
        "level": episode.get("level"),
        "register": str(episode.get("register", "")),
        "seed": str(episode.get("seed", "")),  # beyond what a script's numbers hold exactly
        "split": str(episode.get("split", "")),
        "end": end,
        "outcome": outcome,
        "success": success,
        "reward": sum(number(turn.get("reward")) or 0.0 for turn in source),
        "error": episode.get("error"),
        "mistake": _short(mistake),
        "turns": turns,
        "left_out": left_out,
    }


def value_range(packed: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """Return the ends of the colour scale: [0, 1] for probabilities of success, else what occurred."""
    values = [v for episode in packed for turn in episode["turns"] for v in turn["v"] if v is not None]
    low, high = min(values, default=0.0), max(values, default=1.0)
    return (0.0, 1.0) if low >= -0.05 and high <= 1.05 else (low, high)


def _pack_turn(turn: dict[str, Any], pieces: Sequence[str] | None) -> dict[str, Any]:
    action = turn.get("action") or {}
    values, logprobs = action.get("values") or [], action.get("logprobs") or []
    # Text that does not match its tokens one to one is shown whole and unshaded rather than shaded wrongly.
    if not pieces or (values and len(pieces) != len(values)):
        pieces, values, logprobs = [str(action.get("text", ""))], [], []
    observation = str(turn.get("observation", ""))
    packed: dict[str, Any] = {
        "o": observation[:MAX_OBSERVATION],
        "k": [str(piece) for piece in pieces],
        "v": [_short(value) for value in values],
        "p": [_short(logprob) for logprob in logprobs],
        "r": _short(turn.get("reward")) or 0,
    }
    if len(observation) > MAX_OBSERVATION:
        packed["more"] = len(observation) - MAX_OBSERVATION
    if turn.get("checks") is not None:
        packed["checks"] = [bool(check) for check in turn["checks"]]
    if turn.get("harm"):
        packed["harm"] = _short(turn["harm"])
    if turn.get("gate_probability"):
        packed["gate"] = _short(turn["gate_probability"])
    if action.get("cut"):
        packed["cut"] = True
    return packed


def _size(packed: dict[str, Any]) -> int:
    """Return the characters it takes in the page, escapes included."""
    return len(htmlsafe_json_dumps(packed))


def _short(value: Any) -> float | None:
    found = number(value)
    return None if found is None else round(found, 3)
