"""Repair: items are solvable and can be played in circles, and no text can do harm to the evaluator."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretaste.envs.base import demonstrate
from foretaste.envs.partition import belongs
from foretaste.envs.repair import LEVELS, Repair
from foretaste.envs.repair_items import passes, swaps
from foretaste.envs.repair_program import LARGEST, OPERATORS, Line, parse_edit, parse_line, run
from foretaste.envs.seeds import SPLITS, seed_for

NAMES = st.sampled_from(["a", "p", "q", "x", "y", "zz9"])
OPERANDS = st.one_of(NAMES, st.integers(-999, 999).map(str))


def program(*lines: str) -> list[Line]:
    parsed = [parse_line(line) for line in lines]
    assert None not in parsed
    return [line for line in parsed if line is not None]


@pytest.mark.parametrize("level", Repair.levels)
def test_the_oracle_repairs_every_item_in_at_most_as_many_turns_as_there_are_bugs(level: int) -> None:
    repair = Repair()
    for index in range(50):
        seed = seed_for(SPLITS[index % 4], index)
        _, info = repair.reset(seed=seed, options={"level": level})
        wrong = sum(line != wanted for line, wanted in zip(repair.program, repair.correct, strict=True))
        assert wrong == LEVELS[level].bugs
        assert not all(info["checks"])
        played = demonstrate(repair, seed, level=level)
        assert all(passes(repair.program, repair.checks))
        assert 1 <= len(played) <= wrong <= repair.max_turns()


def test_the_top_levels_allow_fourteen_turns_and_more() -> None:
    assert LEVELS[4].turns >= 14
    assert Repair.levels[-1] == 5


@pytest.mark.parametrize("level", [2, 3, 4, 5])
def test_mending_one_line_and_unmending_it_swaps_two_bugs_for_ever(level: int) -> None:
    repair = Repair()
    for index in range(20):
        _, info = repair.reset(seed=seed_for("train", index), options={"level": level})
        line = swaps(tuple(repair.program), repair.correct, repair.checks)[0]
        texts = [f"{line + 1}: {repair.correct[line]}", f"{line + 1}: {repair.program[line]}"]
        vectors = [info["checks"]]
        for turn in range(4):
            _, reward, terminated, _, info = repair.step(texts[turn % 2])
            vectors.append(info["checks"])
            changes = set(zip(*vectors[-2:], strict=True))
            assert {(True, False), (False, True)} <= changes
            assert not terminated
            assert reward == 0.0
        assert vectors[0] == vectors[2] == vectors[4] != vectors[1] == vectors[3]


def test_following_only_the_check_in_view_can_break_one_that_passed() -> None:
    broken = program("p = a + 5", "x = p - 1", "y = p * 2")
    correct = program("p = a + 2", "x = p + 2", "y = p * 2")
    repair = Repair(2)
    repair.reset(seed=seed_for("train", 0))
    repair.program, repair.correct = list(broken), tuple(correct)
    repair.checks = tuple(
        type(repair.checks[0])(name, value, run(correct, value)[name] or 0) for name in "xy" for value in (1, 4)
    )
    assert passes(broken, repair.checks) == (True, True, False, False)
    observation, _, _, _, info = repair.step("1: p = a + 2")
    assert info["checks"] == (False, False, True, True)
    assert observation.splitlines()[-2:] == ["x fail fail y pass pass", "a = 1: x is 2, want 5"]
    _, reward, terminated, _, info = repair.step("2: x = p + 2")
    assert (reward, terminated, info["success"]) == (1.0, True, 1.0)


def test_the_pass_vector_keeps_its_length_and_agrees_with_the_observation() -> None:
    repair = Repair()
    for level in Repair.levels:
        observation, info = repair.reset(seed=seed_for("train", 4), options={"level": level})
        assert len(info["checks"]) == 2 * LEVELS[level].outputs
        for text in ("1: x = 3", "nonsense", "2: p = q", "9: x = 1"):
            shown = re.findall(r"\b(pass|fail)\b", observation)
            assert tuple(word == "pass" for word in shown) == info["checks"]
            observation, _, _, _, info = repair.step(text)
            assert len(info["checks"]) == 2 * LEVELS[level].outputs


def test_a_constant_never_passes_both_checks_of_an_output() -> None:
    repair = Repair(3)
    for index in range(30):
        repair.reset(seed=seed_for("train", index))
        for check, other in zip(repair.checks[::2], repair.checks[1::2], strict=True):
            assert check.output == other.output
            assert check.value != other.value
            assert check.expected != other.expected


def test_every_line_of_a_correct_program_matters() -> None:
    repair = Repair()
    for level in Repair.levels:
        for index in range(20):
            repair.reset(seed=seed_for("train", index), options={"level": level})
            read = {name for line in repair.correct for name in (line.left, line.right)}
            shared = {line.target for line in repair.correct[: LEVELS[level].shared]}
            assert shared <= read


def test_privileged_text_names_exactly_the_wrong_lines() -> None:
    repair = Repair(3)
    _, info = repair.reset(seed=seed_for("train", 1))
    while "success" not in info:
        wrong = [
            f"{number}: {wanted}"
            for number, (line, wanted) in enumerate(zip(repair.program, repair.correct, strict=True), start=1)
            if line != wanted
        ]
        assert info["privileged"] == "wrong " + ", ".join(wrong)
        _, _, _, _, info = repair.step(repair.oracle())


@pytest.mark.parametrize(
    ("text", "edit"),
    [
        ("2: x = p + 3", (2, "x = p + 3")), ("Line 1: P = a-4", (1, "p = a - 4")),
        ("`3: y=p min 5`", (3, "y = p min 5")),
        ("1 p = a", (1, "p = a")), ("1. x = -007", (1, "x = -7")), ("12: x = a * a", (12, "x = a * a")),
        ("x = 3", None), ("2: x = p + 3 + 1", None), ("2: x == 3", None), ("2: x = 1000", None),
        ("2: x = 3\n3: y = 2", None),
        ("2: x = p ** 9", None), ("2: min = 3", None), ("2: x = max", None), ("2: x = p minq", None), ("", None),
    ],
)  # fmt: skip
def test_edits_are_read_strictly(text: str, edit: tuple[int, str] | None) -> None:
    parsed = parse_edit(text)
    assert (parsed and (parsed[0], str(parsed[1]))) == edit


@pytest.mark.parametrize(
    "text",
    [
        "1: p = __import__('os').system('true')", "1: p = a.__class__", "1: p = open('x')", "1: p = 9 ** 9 ** 9",
        "1: p = 'a' * 999999999", "1: p = [a] * 9", "1: p = (lambda: a)()", "1: p = 1 if a else 2",
        "1: p = " + "(" * 9999,
        "1: p = " + "9" * 5000, "1: p = ٣", "1: p = a; import os", "1: import os", "1: p = a\x00", "1: " + " " * 10**6,
        "1" + " " * 30_000 + "x\nx",
    ],
)  # fmt: skip
def test_forbidden_text_is_no_edit_and_takes_no_time(text: str) -> None:
    repair = Repair(2)
    repair.reset(seed=seed_for("train", 0))
    before = list(repair.program)
    started = time.perf_counter()
    observation, reward, _, _, _ = repair.step(text)
    assert time.perf_counter() - started < 0.5
    assert observation.startswith("Not an edit.")
    assert repair.program == before
    assert reward == 0.0


def test_values_stay_small_however_long_a_program_multiplies() -> None:
    lines = program("x = 999 * 999", *["x = x * x"] * 12)
    assert run(lines, 3)["x"] is None
    assert run(program("x = 999 * 999", "y = x + 3"), 0) == {"a": 0, "x": 998001, "y": 998004}


def test_unknown_names_have_no_value_and_spread() -> None:
    assert run(program("x = q + 1", "y = x * 0", "z = a"), 5) == {"a": 5, "x": None, "y": None, "z": 5}


@settings(deadline=None)  # a busy machine is no fault
@given(
    st.lists(st.tuples(NAMES, OPERANDS, st.sampled_from(sorted(OPERATORS)), OPERANDS), max_size=12), st.integers(0, 9)
)
def test_programs_agree_with_arithmetic_while_values_are_small(
    rows: list[tuple[str, str, str, str]], value: int
) -> None:
    lines = program(*(f"{target} = {left} {operator} {right}" for target, left, operator, right in rows))
    results = run(lines, value)
    assert all(result is None or abs(result) <= LARGEST for result in results.values())
    values: dict[str, int | None] = {"a": value}
    for target, *parts in rows:
        left, right = (values.get(part) if part[0].isalpha() else int(part) for part in (parts[0], parts[2]))
        known = left is not None and right is not None
        result = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b, "min": min, "max": max}[
            parts[1]
        ](left, right) if known else None  # fmt: skip
        values[target] = result if result is not None and abs(result) <= LARGEST else None
    assert results == values


@settings(deadline=None)  # a busy machine is no fault
@given(st.lists(st.one_of(st.text(max_size=80), st.from_regex(r"[0-9]: [a-z] = [a-z0-9] [-+*] [a-z0-9]")), max_size=10))
def test_any_text_is_answered(texts: list[str]) -> None:
    repair = Repair(3)
    repair.reset(seed=seed_for("train", 2))
    for turn, text in enumerate(texts, start=1):
        observation, reward, terminated, truncated, info = repair.step(text)
        assert isinstance(observation, str)
        assert reward == float(all(info["checks"]))
        assert terminated == (bool(reward) or turn == repair.max_turns())
        assert not truncated  # the limit is a rule of the task: reaching it ends the task
        assert ("success" in info) == (terminated or truncated)
        if terminated or truncated:
            break


def test_a_seed_repeats_its_item_and_splits_share_no_program() -> None:
    repair = Repair(1)
    programs: dict[str, set[str]] = {split: set() for split in SPLITS}
    for split in SPLITS:
        for index in range(60):
            first = repair.reset(seed=seed_for(split, index))
            assert repair.reset(seed=seed_for(split, index)) == first
            text = "\n".join(map(str, repair.correct))
            assert belongs(text, split)
            programs[split].add(text)
    assert not programs["practice"] & (programs["train"] | programs["example"] | programs["sealed"])
    assert not programs["sealed"] & (programs["train"] | programs["example"])


def test_worked_examples_are_whole_and_short() -> None:
    for level in Repair.levels:
        for played in Repair().worked_examples(2, level):
            assert 1 <= len(played) <= 2
