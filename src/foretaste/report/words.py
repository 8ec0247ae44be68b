"""How a report writes numbers and sentences. A missing number is always "not measured"."""

from __future__ import annotations

import math
from typing import Any

from foretaste.records import Interval

NOT_MEASURED = "not measured"


def number(value: Any) -> float | None:
    """Return a finite float, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def rate(value: Any, digits: int = 2) -> str:
    """Write a proportion without its leading zero: .91, 1.00, -.25."""
    found = number(value)
    if found is None:
        return NOT_MEASURED
    text = f"{found:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("0.", ".", 1) if text.lstrip("-").startswith("0.") else text


def signed(value: Any) -> str:
    """Write a difference of proportions with its sign: +.87, -.02."""
    found = number(value)
    if found is None:
        return NOT_MEASURED
    text = rate(found)
    return text if text.startswith("-") else f"+{text}"


def bounds(interval: Interval | None, *, sign: bool = False) -> str:
    """Write an interval: [.86, .95]."""
    if interval is None:
        return NOT_MEASURED
    write = signed if sign else rate
    return f"[{write(interval.low)}, {write(interval.high)}]"


def count(value: Any) -> str:
    """Write a count with thin groups of thousands: 12,345."""
    found = number(value)
    return NOT_MEASURED if found is None else f"{round(found):,}"


def figure(value: Any) -> str:
    """Write any number with three significant digits."""
    found = number(value)
    if found is None:
        return NOT_MEASURED
    if found == 0:
        return "0"
    if abs(found) >= 1000:
        return f"{found:,.0f}" if abs(found) < 1e6 else f"{found:.2e}"
    return f"{found:.3g}"


def duration(seconds: Any) -> str:
    """Write seconds as a person says them: 42 s, 5 min 3 s, 2 h 10 min."""
    found = number(seconds)
    if found is None:
        return NOT_MEASURED
    if found < 60:
        return f"{found:.1f} s" if found < 10 else f"{found:.0f} s"
    minutes, rest = divmod(round(found), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def verdict(name: str, before: Interval | None, after: Interval | None) -> str:
    """Say in one sentence what training did to the success on held-out items."""
    if before is None and after is None:
        return f"{name}: success on held-out items was not measured"
    if before is None or after is None:
        known, when = (before, "before") if before is not None else (after, "after")
        assert known is not None
        missing = "after" if when == "before" else "before"
        return (
            f"{name}: success on {known.n} fresh held-out items was {rate(known.mean)} {bounds(known)} "
            f"{when} training; not measured {missing} it"
        )
    moved = "rose" if after.mean > before.mean else "fell" if after.mean < before.mean else "stayed"
    end = f"at {rate(after.mean)} {bounds(after)}"
    if moved != "stayed":
        end = f"from {rate(before.mean)} {bounds(before)} to {rate(after.mean)} {bounds(after)}"
    items = f"{after.n}" if before.n == after.n else f"{before.n} and {after.n}"
    return f"{name}: success on {items} fresh held-out items {moved} {end}"


def gain_sentence(gain: Interval | None, *, paired: bool) -> str:
    """Say whether the gain's interval excludes zero, and what follows from that."""
    if gain is None:
        return "The gain and its interval were not measured."
    how = "the same items before and after" if paired else "different items before and after"
    text = f"The gain is {signed(gain.mean)} {bounds(gain, sign=True)} ({gain.level:.0%} interval, {how})"
    if gain.low > 0:
        return f"{text}; the interval excludes zero."
    if gain.high < 0:
        return f"{text}; the interval excludes zero: training made it worse."
    return f"{text}; the interval includes zero, so this run does not show that anything was learned."
