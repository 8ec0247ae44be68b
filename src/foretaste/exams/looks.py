"""The look budget: what the researcher has seen, counted in the ledger.

Every sitting of a sealed paper spends a look *before* it begins, so a failed one counts too. With fresh
items per look, a union bound over the looks keeps the verdicts honest. Where items are scarce, `scarce.py`
also coarsens what a look tells.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from foretaste.errors import RunError
from foretaste.exams.paper import Paper
from foretaste.ledger import Ledger


class Look(NamedTuple):
    """One look at a sealed paper."""

    number: int
    """From 1, over everybody who uses this ledger."""
    run: str
    policy: str
    created: str
    content_hash: str
    """Of the paper as it was then: a paper edited under its old name keeps its count."""
    alpha: float
    """Chance of a wrong verdict that this look may spend."""
    allowed: int
    """Looks in all, 0 without a limit: of the paper as it was at its first look."""


def alpha_of_look(alpha: float, number: int, allowed: int) -> float:
    """Return look `number`'s share of alpha; the shares of all looks sum to alpha at most.

    alpha / allowed for each of a limited number; without a limit (0) alpha * 6 / (pi^2 number^2).
    """
    if number < 1 or (allowed and number > allowed):
        raise ValueError(f"look {number} is not one of the {allowed} allowed")
    return alpha / allowed if allowed else alpha * 6 / (math.pi**2 * number**2)


def looks(ledger: Ledger, paper: str | None = None) -> list[tuple[str, Look]]:
    """Return (paper name, look) of every look in the ledger, in the order they were spent.

    Budget and alpha are those of a paper's first look: an edit of the paper changes neither.
    """
    found = []
    for info in ledger.runs("exam"):
        found += [record for record in ledger.records(info.id, "look") if paper in (None, record.payload["paper"])]
    counts: dict[str, int] = {}
    budgets: dict[str, tuple[float, int]] = {}
    result: list[tuple[str, Look]] = []
    for record in sorted(found, key=lambda record: record.seq):
        values = record.payload
        name = values["paper"]
        number = counts[name] = counts.get(name, 0) + 1
        alpha, allowed = budgets.setdefault(name, (values["alpha"], values["allowed"]))
        # An over-spent look, from two sittings begun in the same instant, has no alpha left.
        share = 0.0 if allowed and number > allowed else alpha_of_look(alpha, number, allowed)
        told = values["policy"], record.created, values["content_hash"]
        result.append((name, Look(number, record.run, *told, share, allowed)))
    return result


def next_look(ledger: Ledger, paper: Paper) -> int:
    """Return the number of a paper's next look, so that its items can be drawn before it is spent; 0 for public ones.

    Raises: RunError if none is left.
    """
    if not paper.sealed:
        return 0
    spent = looks(ledger, paper.name)
    allowed = spent[0][1].allowed if spent else paper.looks
    if allowed and len(spent) >= allowed:
        edited = "" if allowed == paper.looks else f" (its first look fixed that; looks = {paper.looks} came later)"
        raise RunError(
            f"Paper {paper.name!r} allows {allowed} looks{edited} and {len(spent)} are spent. See them: foretaste exam "
            "looks. Practise on a public paper, or write a new paper with items of other families."
        )
    return len(spent) + 1


def spend_look(ledger: Ledger, run: str, paper: Paper, policy: str) -> Look | None:
    """Spend a look for the sitting `run`, before its first item; None for public papers, which are free.

    The chain is verified first: looks that were erased are noticed. The count goes by the paper's
    name, and looks and alpha are those of its first look, so that editing a paper does not refill its
    budget; another name is another paper, and `looks` shows them all.

    Raises: RunError if none is left; LedgerError if the ledger was tampered with.
    """
    if not paper.sealed:
        return None
    ledger.verify()
    next_look(ledger, paper)
    values = {"paper": paper.name, "content_hash": paper.content_hash, "policy": policy}
    ledger.append(run, "look", {**values, "alpha": paper.alpha, "allowed": paper.looks})
    # Numbered by the ledger's own order, so that two sittings at once cannot both be look k.
    mine = [look for _, look in looks(ledger, paper.name) if look.run == run][-1]
    if mine.allowed and mine.number > mine.allowed:
        raise RunError(
            f"Paper {paper.name!r}: another sitting took the last of the {mine.allowed} looks just before this."
        )
    return mine
