"""Items that another process would draw otherwise from the same seed: kept as text, question and reference together.

Five families of reasoning-gym depend on Python's string hashing, which differs from process to process. A sitting
that goes on in another one, an export, a second sitting on the same items must ask what was asked before.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from typing import NamedTuple

from foretaste.envs.registry import make


class KeptItem(NamedTuple):
    """An item of reasoning-gym as it was drawn."""

    family: str
    level: int
    seed: int
    text: str
    """The item as a Python literal: JSON would turn tuples into lists, and graders compare."""


def keep(places: Iterable[tuple[str, int, int]]) -> tuple[KeptItem, ...]:
    """Return the items of (env, level, seed) that only this process draws so; each once, others left out."""
    found: dict[tuple[str, int, int], KeptItem] = {}
    for env, level, seed in places:
        prefix, _, family = env.partition("/")
        if prefix != "reasoning" or (env, level, seed) in found:
            continue
        from foretaste.envs.reasoning import NOT_REPRODUCIBLE  # imports reasoning-gym: seconds

        if family in NOT_REPRODUCIBLE:
            one = make(env, level=level).unwrapped
            one.reset(seed=seed, options={"level": level})
            text = repr(one.item)
            if _read(text) == one.item:
                found[env, level, seed] = KeptItem(family, level, seed, text)
    return tuple(found.values())


def restore(items: Iterable[KeptItem]) -> None:
    """Let this process draw the items as they were kept."""
    for item in items:
        from foretaste.envs.reasoning import keep_item

        read = _read(item.text)
        if isinstance(read, dict):
            keep_item(item.family, item.level, item.seed, read)


def _read(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):  # an item that is more than plain values; it ends as an error, as it did
        return None
