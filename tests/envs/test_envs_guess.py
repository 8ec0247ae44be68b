"""`guess`: halving always wins, the shown range is true, a wasted guess costs a try."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretaste.envs import make, seed_for, seeds
from foretaste.envs.guess import LEVELS, Guess


@pytest.mark.parametrize("register", Guess.registers)
@pytest.mark.parametrize("level", Guess.levels)
def test_halving_finds_every_number(level, register):
    env = make("guess", level=level)
    for seed, _ in zip(seeds("practice"), range(50), strict=False):
        observation, info = env.reset(seed=seed, options={"register": register})
        hidden = int(re.search(r"\d+", info["privileged"])[0])
        done, total = False, 0.0
        while not done:
            low, high = (int(n) for n in re.findall(r"\d+", observation)[-3:-1])
            assert low <= hidden <= high
            observation, reward, done, truncated, info = env.step(env.oracle())
            total += reward
            assert not truncated
        assert (total, info["success"]) == (1.0, 1.0)


@pytest.mark.parametrize("level", Guess.levels)
def test_tries_are_the_least_that_halving_needs(level):
    assert 2 ** (LEVELS[level].tries - 1) <= LEVELS[level].highest < 2 ** LEVELS[level].tries


@pytest.mark.parametrize("reply", ["", "banana", "5 or 6", "4 5", "1,2,3,4,5,6,7,8,9,10", "5.0", "-5", "٥", "9" * 30])
def test_a_reply_that_is_not_one_number_wastes_a_try(reply):
    env = make("guess", level=1)
    env.reset(seed=seed_for("train", 0))
    for turn in range(4):
        _, reward, terminated, truncated, info = env.step(reply)
        assert reward == 0.0
        assert not truncated
        assert terminated == (turn == 3)
    assert info["success"] == 0.0


@given(st.lists(st.integers(0, 30), min_size=4, max_size=4))
def test_found_exactly_when_the_number_is_said(guesses):
    env = make("guess", level=1)
    env.reset(seed=seed_for("train", 1))
    for guess in guesses:
        _, reward, terminated, _, info = env.step(str(guess))
        assert (reward == 1.0) == (guess == env.hidden)
        if terminated:
            assert info["success"] == float(guess == env.hidden)
            break
