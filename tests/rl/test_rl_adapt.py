"""Lambda follows the measured ranking of V, and nothing else."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretaste.records import Action, Episode, EpisodeEnd, Turn
from foretaste.rl.adapt import LambdaAdapter, pairs_of, pooled
from foretaste.rl.diagnostics import Judged


def episode(value, success):
    turn = Turn("", Action("", (1,), (-0.1,), (value,)), (2,))
    return Episode("toy", 1, "train", 1, "plain", (turn,), EpisodeEnd.TERMINATED, success)


def step(rng, count, *, skill, share=0.3, offset=0.0):
    won = rng.random(count) < share
    return [episode(float(skill * w + rng.normal() + offset), float(w)) for w in won]


def test_lambda_is_one_before_anything_is_measured_and_for_a_critic_that_guesses():
    adapter = LambdaAdapter(0.7)
    assert adapter.value == 1.0
    assert adapter.ranking is None
    assert adapter.update([episode(0.3, 0.0)] * 8) == 1.0  # no success: no pair
    rng = np.random.default_rng(0)
    values = [LambdaAdapter(0.7).update(step(rng, 200, skill=0.0)) for _ in range(40)]
    assert np.mean(values) > 0.97


def test_lambda_reaches_its_floor_for_a_critic_that_ranks():
    adapter, rng = LambdaAdapter(0.7), np.random.default_rng(1)
    for _ in range(4):
        value = adapter.update(step(rng, 64, skill=4.0))
    assert value == pytest.approx(0.7)
    ranking = adapter.ranking
    assert ranking is not None
    assert ranking.auc > 0.95


def test_a_few_lucky_episodes_do_not_buy_trust():
    few = LambdaAdapter(0.5).update([episode(0.9, 1.0), episode(0.1, 0.0)])
    many = LambdaAdapter(0.5).update([episode(0.9, 1.0)] * 20 + [episode(0.1, 0.0)] * 20)
    assert few > 0.8
    assert many == pytest.approx(0.5)


def test_a_policy_that_gets_better_is_no_critic_that_ranks():
    """V rises with success from step to step, and says nothing within a step."""
    adapter, rng = LambdaAdapter(0.7), np.random.default_rng(2)
    for number in range(8):
        value = adapter.update(step(rng, 100, skill=0.0, share=0.1 + 0.1 * number, offset=5.0 * number))
    assert value > 0.95


def test_it_forgets_and_resumes():
    adapter, rng = LambdaAdapter(0.7, steps=2), np.random.default_rng(3)
    adapter.update(step(rng, 200, skill=5.0))
    for _ in range(2):
        value = adapter.update(step(rng, 200, skill=-5.0))
    assert value == 1.0  # a critic that ranks the wrong way round is not trusted
    other = LambdaAdapter(0.7, steps=2)
    other.load(adapter.state())
    assert other.value == value
    following = step(rng, 50, skill=1.0)
    assert other.update(following) == adapter.update(following)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60), st.floats(0, 1))
def test_lambda_stays_between_its_floor_and_one(rows, floor):
    value = LambdaAdapter(floor).update([episode(v, float(s)) for v, s in rows])
    assert floor - 1e-9 <= value <= 1.0


def test_the_standard_error_is_that_of_repeated_draws():
    rng = np.random.default_rng(4)
    found = []
    for _ in range(400):
        won = np.arange(60) < 20
        found.append(
            pairs_of([Judged([v], float(w), 1.0) for v, w in zip(rng.normal(size=60) + won, won, strict=True)], 0.5)
        )
    shares = [row[1] / row[0] for row in found]
    assert math.sqrt(np.mean([row[2] for row in found])) == pytest.approx(np.std(shares), rel=0.15)
    assert pooled(found).error == pytest.approx(np.std(shares) / math.sqrt(len(found)), rel=0.2)
    assert pooled([]) is None


def test_survivors_of_the_gate_stand_for_those_that_were_stopped():
    """Of the doomed three in four are stopped: the others weigh four, and the ranking is that of whole episodes."""
    rng = np.random.default_rng(5)
    gated, whole, errors = [], [], []
    for _ in range(300):
        doomed = rng.random(80) < 0.6
        scores = rng.normal(size=80) - 2 * doomed
        won = ~doomed & (rng.random(80) < 0.5)
        judged = [Judged([v], float(w), 4.0 if d else 1.0) for v, w, d in zip(scores, won, doomed, strict=True)]
        stays = ~doomed | (rng.random(80) < 0.25)
        whole.append(pairs_of([one._replace(weight=1.0) for one in judged], 0.5))
        gated.append(pairs_of([one for one, stay in zip(judged, stays, strict=True) if stay], 0.5))
        errors.append(gated[-1][2])
    assert pooled(gated).auc == pytest.approx(pooled(whole).auc, abs=0.01)
    assert math.sqrt(np.mean(errors)) == pytest.approx(np.std([row[1] / row[0] for row in gated]), rel=0.25)
    assert np.mean([row[0] for row in gated]) < np.mean([row[0] for row in whole])
