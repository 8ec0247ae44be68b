"""Numbers and sentences of a report."""

from __future__ import annotations

import math

import pytest

from foretaste.records import Interval
from foretaste.report import words

BEFORE, AFTER = Interval(0.04, 0.017, 0.077, 200), Interval(0.91, 0.861, 0.946, 200)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((0.914, ".91"), (1.0, "1.00"), (0.0, ".00"), (-0.25, "-.25"), (-0.001, ".00"), (2.5, "2.50")),
        *((None, "not measured"), (math.nan, "not measured"), (math.inf, "not measured"), ("x", "not measured")),
    ],
)
def test_rates(value: object, text: str) -> None:
    assert words.rate(value) == text


def test_other_numbers() -> None:
    assert [words.signed(x) for x in (0.87, -0.02, 0, None)] == ["+.87", "-.02", "+.00", "not measured"]
    assert [words.count(x) for x in (12345, 0, None)] == ["12,345", "0", "not measured"]
    assert [words.duration(x) for x in (4.25, 42, 303, 7800, None)] == [
        "4.2 s",
        "42 s",
        "5 min 3 s",
        "2 h 10 min",
        "not measured",
    ]
    assert [words.figure(x) for x in (0, 0.01234, 12345, 3e9, True)] == [
        "0",
        "0.0123",
        "12,345",
        "3.00e+09",
        "not measured",
    ]


def test_the_verdict_says_which_way_it_went() -> None:
    assert words.verdict("extract", BEFORE, AFTER) == (
        "extract: success on 200 fresh held-out items rose from .04 [.02, .08] to .91 [.86, .95]"
    )
    assert "fell from .91" in words.verdict("extract", AFTER, BEFORE)
    assert "stayed at .91" in words.verdict("extract", AFTER, AFTER)
    assert "not measured after it" in words.verdict("extract", BEFORE, None)
    assert "not measured before it" in words.verdict("extract", None, AFTER)
    assert words.verdict("extract", None, None) == "extract: success on held-out items was not measured"


def test_a_gain_is_claimed_only_where_its_interval_excludes_zero() -> None:
    assert "excludes zero." in words.gain_sentence(Interval(0.5, 0.1, 0.8, 50), paired=True)
    assert "made it worse" in words.gain_sentence(Interval(-0.5, -0.8, -0.1, 50), paired=True)
    unclear = words.gain_sentence(Interval(0.1, 0.0, 0.2, 50), paired=False)
    assert "includes zero, so this run does not show that anything was learned" in unclear
    assert "different items" in unclear
    assert "not measured" in words.gain_sentence(None, paired=False)
