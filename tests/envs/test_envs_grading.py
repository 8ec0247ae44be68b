"""Grading: one answer, read strictly; numbers by value; a failing grader is an error."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretaste.envs.grading import GRADERS, exact, grade, matches, number, one_answer, same_number

words = st.text(max_size=40).filter(lambda text: "<answer>" not in text and "</answer>" not in text)


@given(words, words)
def test_tags_hold_the_answer_and_thoughts_may_come_before(thoughts, answer):
    assert one_answer(f"{thoughts}<answer>{answer}</answer> \n") == (answer.strip() or None)


@given(words, words, words)
def test_two_answers_are_none(first, between, second):
    assert one_answer(f"<answer>{first}</answer>{between}<answer>{second}</answer>") is None


@given(words, words.filter(str.strip))
def test_text_after_the_answer_spoils_it(answer, after):
    assert one_answer(f"<answer>{answer}</answer>{after}") is None


@pytest.mark.parametrize("reply", ["<answer>5", "5</answer>", "</answer>5<answer>", "<answer></answer>", "", " \n"])
def test_broken_or_empty_replies_have_no_answer(reply):
    assert one_answer(reply) is None


@given(st.integers(-(10**18), 10**18))
def test_whole_numbers_are_read_back(value):
    assert number(str(value)) == value
    assert number(f" {value}. ") == value
    assert number(f"{value:,}") == value
    assert number(f"{value}.0") == value


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_are_read_by_value(value):
    read = number(repr(value))
    assert read is not None
    assert float(read) == value


@given(st.integers(-1000, 1000), st.integers(1, 1000))
def test_fractions_are_read_by_value(top, bottom):
    assert number(f"{top}/{bottom}") == Fraction(top, bottom)


@pytest.mark.parametrize(
    "text",
    ["", ".", "e5", "+", "5 or 6", "5 6", "5,6", "12,34", "1,2345", "five", "5kg", "$5", "1e9999", "1/0", "0x10",
     "٣", "nan", "inf", "9" * 100],
)  # fmt: skip
def test_what_is_not_one_number(text):
    assert number(text) is None


@given(st.integers(), st.integers(), st.sampled_from([" or ", " ", "\n", ", ", "; ", " and ", "/ ", " = "]))
def test_hedged_numbers_earn_nothing(right, other, between):
    gold = str(right % 10**9)
    for reply in (
        f"{gold}{between}{other}",
        f"{other}{between}{gold}",
        f"maybe {gold}",
        f"{gold}?",
        f"{gold}{between}{gold}",
    ):
        assert same_number(reply, gold) == 0.0
        assert exact(reply, gold) == 0.0


@given(st.integers(-(10**9), 10**9))
def test_the_number_itself_earns_all(value):
    for reply in (str(value), f"<answer>{value}</answer>", f"I think so.\n<answer> {value} </answer>"):
        assert same_number(reply, str(value)) == 1.0
        assert exact(reply, str(value)) == 1.0


def test_regular_expressions_match_the_whole_answer():
    assert matches("abc", "a.c") == 1.0
    assert matches("abcd", "a.c") == 0.0
    assert matches("abc or abd", "a.c") == 0.0
    assert matches("", ".*") == 0.0


@given(st.text(max_size=80), st.sampled_from(sorted(GRADERS)))
def test_graders_take_any_text(reply, name):
    assert grade(GRADERS[name], reply, "7") in ((0.0, None), (1.0, None))


@pytest.mark.parametrize("score", [float("nan"), float("inf"), -0.1, 1.1, "high", None])
def test_a_grader_that_fails_is_an_error(score):
    judged = grade(lambda reply, gold: score, "x", "y")
    assert judged.score == 0.0
    assert judged.error


def test_a_grader_that_raises_is_an_error():
    judged = grade(lambda reply, gold: 1 / 0, "x", "y")
    assert "ZeroDivisionError" in (judged.error or "")
