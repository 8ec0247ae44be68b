"""`reasoning/<family>`: every family plays; the reference wins, garbage and hedging never do; seeds never neighbour."""

import inspect
import json
import os
import re
import subprocess
import sys

import pytest

from foretaste.envs import make, seed_for, seeds
from foretaste.envs import reasoning as under_test
from foretaste.envs.reasoning import NOT_REPRODUCIBLE, WITHOUT_REFERENCE, families, judge, make_family, pays_for_hedging
from foretaste.envs.reasoning_shapes import SHAPES
from foretaste.errors import ConfigError, EnvError

SLOW_FAMILIES = {"knight_swap", "sokoban"}
FAMILIES = [family for family in families() if family not in SLOW_FAMILIES]
GARBAGE = ("", "banana", "5 or 6", "<answer>", "\x00", "💥" * 50, "[[[", "{}", "None", "a/0", "9**9**9**9", "-" * 300)


@pytest.mark.parametrize("family", FAMILIES)
def test_reference_wins_and_garbage_does_not(family):
    env = make_family(family)
    question, info = env.reset(seed=seed_for("practice", 3))
    assert question.strip()
    for reply in GARBAGE:
        observation, reward, terminated, info = env.act(reply)
        assert (observation, reward, terminated) == ("", 0.0, True), reply
        assert info.get("success", 0.0) == 0.0
        assert ("success" in info) != ("error" in info), reply
    if family in WITHOUT_REFERENCE:
        with pytest.raises(EnvError, match="without solutions"):
            env.oracle()
        assert env.worked_examples(2, 1) == []
        return
    gold = env.oracle()
    assert info["privileged"] == gold
    for reply, wins in {
        gold: 1.0,
        f"  {gold}\n": 1.0,
        f"Let me think.\n<answer>{gold}</answer>": 1.0,
        f"<answer>{gold}</answer> or not": 0.0,
        f"<answer>{gold}</answer><answer>{gold}</answer>": 0.0,
        f"{gold} or {gold}": 0.0,
        f"{gold}\n\n{gold}": 0.0,
        f"{gold} or banana": 0.0,
        f"The answer is maybe {gold}, or maybe banana": 0.0,
    }.items():
        assert env.act(reply)[1] == wins, reply
    _, reward, terminated, truncated, info = env.step(gold)
    assert (reward, terminated, truncated, info["success"]) == (1.0, True, False, 1.0)


def test_reference_scores_in_full_under_the_library_except_where_there_is_none():
    without = set()
    for family in FAMILIES:
        env = make_family(family)
        for seed, _ in zip(seeds("train"), range(2), strict=False):
            env.reset(seed=seed)
            if env.gold is None or env.dataset.score_answer(env.gold, env.item) < 1.0:
                without.add(family)
    assert without == set(WITHOUT_REFERENCE)


def test_every_level_of_the_curricula_is_one_the_library_accepts():
    for family in FAMILIES:
        env = make_family(family, level=make_family(family).levels[-1])
        assert env.level == env.levels[-1] >= 1
    assert make_family("caesar_cipher").levels == range(1, 3)
    assert make_family("acre").levels == range(1, 2)
    with pytest.raises(ConfigError, match="has no level 99"):
        make_family("gcd", level=99)


def test_same_seed_same_item_and_other_seeds_other_items():
    repeated = {}
    for family in FAMILIES:
        env = make_family(family)
        questions = [env.reset(seed=seed)[0] for seed, _ in zip(seeds("practice"), range(3), strict=False)]
        again = [env.reset(seed=seed)[0] for seed, _ in zip(seeds("practice"), range(3), strict=False)]
        assert questions == again, family
        if len(set(questions)) == 1:
            repeated[family] = questions[0]
    assert not repeated


def test_neighbouring_env_seeds_do_not_share_items(monkeypatch):
    drawn = []
    real = under_test._generate
    monkeypatch.setattr(under_test, "_generate", lambda f, level, seed: (drawn.append(seed), real(f, level, seed))[1])
    env = make_family("gcd")
    for seed in range(300):
        env.reset(seed=seed)
    for level in env.levels:
        env.reset(seed=0, options={"level": level})
    gaps = [after - before for before, after in zip(sorted(set(drawn)), sorted(set(drawn))[1:], strict=False)]
    assert len(set(drawn)) == 300 + len(env.levels) - 1
    assert min(gaps) > 1_000_000


@pytest.mark.parametrize("family", ["game_of_life_halting", "gsm_symbolic", "knights_knaves", "letter_jumble"])
def test_graders_that_pay_for_hedging_are_caught(family):
    env = make_family(family)
    env.reset(seed=seed_for("train", 5))
    assert env.dataset.score_answer(f"{env.gold} or {env.gold}", env.item) > 0.999
    assert pays_for_hedging(env.dataset, env.item)
    assert judge(family, env.dataset, env.item, f"{env.gold} {env.gold}").score == 0.0
    assert judge(family, env.dataset, env.item, env.gold.upper()).score == 1.0


def test_other_right_answers_count_where_the_grader_is_sound():
    env = make_family("countdown")
    env.reset(seed=seed_for("train", 1))
    assert env.step(f"({env.gold})")[1] == 1.0
    env = make_family("graph_color")
    env.reset(seed=seed_for("train", 1))
    colours = json.loads(env.gold)
    swapped = json.dumps({vertex: {1: 2, 2: 1}.get(colour, colour) for vertex, colour in colours.items()})
    assert swapped != env.gold
    assert env.step(swapped)[1] == 1.0


def test_every_grader_that_evaluates_text_is_behind_a_shape():
    evaluating = set()
    for family in families():
        source = inspect.getsource(sys.modules[under_test.factory.DATASETS[family][0].__module__])
        if re.search(r"(?<![\w.])(?:eval|exec)\(\s*answer|parse_expr\(\s*answer|sympify\(\s*answer", source):
            evaluating.add(family)
    assert {"countdown", "spiral_matrix", "string_insertion", "simple_integration"} <= evaluating <= set(SHAPES)


@pytest.mark.parametrize(
    "text",
    ["__import__('os').system('x')", "exit", "9**9**9", "(9**9)**9", "(9**9*x)**9", "(x**9)**9**9", "x**999", "open(x)",
     "x or y", "x\ny", "f'x'", "lambda: 1", "x" * 500, "x.y", "a_b", "[x]"],
)  # fmt: skip
def test_no_expression_that_could_run_or_hang_passes(text):
    assert not SHAPES["simple_integration"](text)
    assert not SHAPES["countdown"](text)


@pytest.mark.parametrize(
    "text",
    [
        "-98*x**3/3 - 84*x**2 - 72*x + C",
        "exp(x)*sin(2*x)/5 + C",
        "(3*x + 2)**5/15 + C",
        "2*sqrt(x)",
        "x**(3/2)",
        "(x**2 + 1)**5",
    ],
)
def test_ordinary_expressions_pass(text):
    assert SHAPES["simple_integration"](text)


def test_a_failing_grader_is_an_error_and_not_a_wrong_answer():
    class Broken:
        def score_answer(self, answer, entry):
            raise RuntimeError("out of order")

    judged = judge("gcd", Broken(), {"answer": "3", "metadata": {}}, "4")
    assert judged.error == "reasoning/gcd: grader judge.<locals>.<lambda> raised RuntimeError: out of order"


def test_unknown_family_is_named_with_a_suggestion():
    with pytest.raises(ConfigError, match=r"Unknown reasoning family 'gcdd'\. Did you mean 'gcd'\?"):
        make("reasoning/gcdd")


ITEMS = """
import json, sys
from foretaste.envs import seed_for
from foretaste.envs.reasoning import families, make_family
names = sys.argv[1:] or families()
print(json.dumps({f: [make_family(f).reset(seed=seed_for("train", i)) for i in range(3)] for f in names}))
"""


def _items_under(hash_seed, names):
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ITEMS, *names],
        env={**os.environ, "PYTHONHASHSEED": hash_seed}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(run.stdout.strip().splitlines()[-1].lstrip("."))


@pytest.mark.slow
def test_fixed_hash_seed_makes_the_unreproducible_families_reproducible():
    names = sorted(NOT_REPRODUCIBLE)
    assert _items_under("0", names) == _items_under("0", names)


@pytest.mark.slow
def test_which_families_differ_between_processes():
    first, second = _items_under("1", []), _items_under("2", [])
    assert {family for family in first if first[family] != second[family]} == set(NOT_REPRODUCIBLE)


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(SLOW_FAMILIES))
def test_slow_families_play_too(family):
    test_reference_wins_and_garbage_does_not(family)
