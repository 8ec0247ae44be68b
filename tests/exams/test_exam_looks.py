"""The look budget cannot be refilled or erased; the Ladder and Thresholdout withstand a simulated tuner."""

import math
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretaste.errors import LedgerError, RunError
from foretaste.exams.looks import alpha_of_look, looks, spend_look
from foretaste.exams.paper import Family, Paper
from foretaste.exams.scarce import (
    Ladder,
    Release,
    Thresholdout,
    ladder_bound,
    ladder_step,
    sigma_for,
    store_state,
    stored_state,
)
from foretaste.ledger import Ledger

PAPER = Paper("small", (Family("maze"),), looks=3, alpha=0.06)


def sitting(ledger: Ledger, paper: Paper = PAPER, policy: str = "me") -> object:
    return spend_look(ledger, ledger.start_run("exam", paper.name, {}), paper, policy)


def test_every_sitting_spends_a_look_until_none_is_left(tmp_path: Path) -> None:
    with Ledger.open(tmp_path) as ledger:
        ledger.start_run("train", "maze", {})
        spent = [sitting(ledger), sitting(ledger, policy="you")]
        edited = Paper("small", (Family("maze", items=3),), looks=3, alpha=0.06)  # an edit refills nothing
        spent.append(sitting(ledger, edited))
        assert [look.number for look in spent] == [1, 2, 3]  # type: ignore[attr-defined]
        assert [look.alpha for look in spent] == pytest.approx([0.02] * 3)  # type: ignore[attr-defined]
        with pytest.raises(RunError, match="allows 3 looks and 3 are spent"):
            sitting(ledger)
        assert [look.policy for _, look in looks(ledger, "small")] == ["me", "you", "me"]
        assert len({look.content_hash for _, look in looks(ledger)}) == 2
        assert looks(ledger, "other") == []


def test_an_edited_number_of_looks_or_alpha_refills_nothing(tmp_path: Path) -> None:
    first = Paper("small", (Family("maze"),), looks=2, alpha=0.04)
    with Ledger.open(tmp_path) as ledger:
        sitting(ledger, first)
        generous = Paper("small", (Family("maze"),), looks=50, alpha=0.5)
        assert sitting(ledger, generous).alpha == pytest.approx(0.02)  # type: ignore[attr-defined]
        for edited in (generous, Paper("small", (Family("maze"),), looks=0, alpha=0.5)):
            with pytest.raises(RunError, match=f"allows 2 looks .*looks = {edited.looks} came later.* 2 are spent"):
                sitting(ledger, edited)
        assert sum(look.alpha for _, look in looks(ledger)) == pytest.approx(0.04)
        assert {look.allowed for _, look in looks(ledger)} == {2}


def test_public_papers_are_free(tmp_path: Path) -> None:
    with Ledger.open(tmp_path) as ledger:
        assert sitting(ledger, Paper("open", (Family("maze"),), sealed=False)) is None
        assert looks(ledger) == []


def test_two_sittings_at_once_cannot_share_the_last_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paper = Paper("one", (Family("maze"),), looks=1)
    with Ledger.open(tmp_path) as ledger:
        append = ledger.append

        def late(run: str, kind: str, payload: dict, *, step: int | None = None) -> None:
            monkeypatch.setattr(ledger, "append", append)
            other = ledger.start_run("exam", "one", {})
            append(other, "look", payload)  # somebody else's look comes between our count and our own
            append(run, kind, payload, step=step)

        monkeypatch.setattr(ledger, "append", late)
        with pytest.raises(RunError, match="another sitting took the last"):
            sitting(ledger, paper)
        assert [look.alpha for _, look in looks(ledger)] == [0.05, 0.0]


def test_an_erased_look_is_noticed(tmp_path: Path) -> None:
    with Ledger.open(tmp_path) as ledger:
        sitting(ledger)
        sitting(ledger)
    with sqlite3.connect(tmp_path / "ledger.sqlite") as database:
        tables = [row[0] for row in database.execute("select name from sqlite_master where type = 'table'")]
        table = next(name for name in tables if "record" in name)
        for (trigger,) in list(database.execute("select name from sqlite_master where type = 'trigger'")):
            database.execute(f"drop trigger {trigger}")
        assert database.execute(f"delete from {table} where seq = 2 and kind = 'look'").rowcount == 1
    database.close()
    with Ledger.open(tmp_path) as ledger, pytest.raises(LedgerError, match="2"):
        sitting(ledger)


def test_shares_of_alpha_sum_to_alpha() -> None:
    assert sum(alpha_of_look(0.05, k, 7) for k in range(1, 8)) == pytest.approx(0.05)
    assert 0.0499 < sum(alpha_of_look(0.05, k, 0) for k in range(1, 20_000)) < 0.05
    with pytest.raises(ValueError, match="not one of the 7"):
        alpha_of_look(0.05, 8, 7)


def test_ladder_by_hand() -> None:
    ladder = Ladder(step=0.1)
    told = []
    for correct in (52, 60, 66, 64, 90, 20):
        release, ladder = ladder.submit([1.0] * correct + [0.0] * (100 - correct))
        told.append((release.score, release.news))
    # .60 beats .5 by no more than the step; .66 does and is rounded; .64 repeats; .20 repeats
    expected = [(0.5, True), (0.5, False), (0.7, True), (0.7, False), (0.9, True), (0.9, False)]
    assert [news for _, news in told] == [news for _, news in expected]
    assert [score for score, _ in told] == pytest.approx([score for score, _ in expected])
    assert ladder.submissions == 6


def test_parameter_free_ladder_by_hand() -> None:
    base = [1.0] * 50 + [0.0] * 50
    release, ladder = Ladder().submit(base)
    assert release == Release(0.5, True)
    better_by_one = [1.0] * 51 + [0.0] * 49  # the difference has mean .01 and s / sqrt(n) = .01: no news
    assert ladder.submit(better_by_one)[0] == Release(0.5, False)
    release, _ = ladder.submit([1.0] * 60 + [0.0] * 40)  # mean .1, s / sqrt(n) = .03
    assert release.news
    assert release.score == pytest.approx(0.6)
    with pytest.raises(ValueError, match="same items"):
        ladder.submit([1.0])


@given(st.lists(st.lists(st.integers(0, 1), min_size=5, max_size=5), max_size=8), st.sampled_from([None, 0.1]))
def test_ladder_only_climbs_and_its_stored_state_continues_exactly(
    submissions: list[list[float]], step: float | None
) -> None:
    ladder = restored = Ladder(step=step)
    previous = -1.0
    for scores in submissions:
        release, ladder = ladder.submit(scores)
        again, restored = Ladder.from_json(restored.to_json()).submit(scores)
        assert (again, restored) == (release, ladder)
        assert release.score is not None
        assert release.score >= previous
        previous = release.score


def test_boosting_attack_breaks_a_naive_holdout_and_not_the_ladder() -> None:
    """Blum & Hardt's attack: guess at random, keep what scored well, submit the majority. True accuracy: 1/2."""
    n, submissions = 1000, 12_000
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, n)
    guesses = rng.integers(0, 2, (submissions, n), dtype=np.int8)
    right = guesses == truth

    kept = guesses[right.mean(axis=1) > 0.5]
    naive = float(((kept.mean(axis=0) > 0.5) == truth).mean())
    step = ladder_step(n, submissions)
    bound = ladder_bound(n, submissions, step)
    assert naive - 0.5 > bound

    for ladder in (Ladder(step=step), Ladder()):
        best, votes, count = 0.0, np.zeros(n), 0
        for guess, scores in zip(guesses, right, strict=True):
            release, ladder = ladder.submit(scores)
            if release.score is not None and release.score > best:  # all that the attacker learns
                best, votes, count = release.score, votes + guess, count + 1
        majority = (votes / max(count, 1) > 0.5).astype(int)
        release, ladder = ladder.submit((majority == truth).astype(float))
        assert release.score is not None
        assert abs(release.score - 0.5) < 0.15
        assert release.score - 0.5 <= bound


def test_greedy_attack_gains_less_from_the_ladder() -> None:
    """An attacker who keeps each change that seems to help, told the exact score or the Ladder's."""
    n, submissions = 1000, 3000

    def attack(ladder: Ladder | None) -> float:
        rng = np.random.default_rng(1)
        truth, current, best = rng.integers(0, 2, n), rng.integers(0, 2, n), -1.0
        for _ in range(submissions):
            trial = np.where(rng.random(n) < 0.02, 1 - current, current)
            scores = (trial == truth).astype(float)
            told = float(scores.mean())
            if ladder is not None:
                release, ladder = ladder.submit(scores)
                told = release.score or 0.0
            if told > best:
                best, current = told, trial
        return best - 0.5

    naive, guarded = attack(None), attack(Ladder(step=ladder_step(n, submissions)))
    assert naive > 0.2
    assert guarded <= ladder_bound(n, submissions, ladder_step(n, submissions))
    assert guarded < 0.15


def test_tuned_features_fool_a_naive_holdout_and_not_thresholdout() -> None:
    """Dwork et al.'s experiment: noise features chosen by asking about each; true accuracy: 1/2."""
    n, features, tolerance = 2000, 2000, 0.07
    rng = np.random.default_rng(2)
    public, sealed = (rng.choice([-1, 1], (n, features)) * rng.choice([-1, 1], (n, 1)) for _ in range(2))
    public, sealed = (public + 1) / 2, (sealed + 1) / 2  # entry: does feature j agree with the label here

    def attack(guard: Thresholdout | None) -> tuple[float, float]:
        told, worst = [], 0.0
        for j in range(features):
            answer = float(sealed[:, j].mean())
            if guard is not None:
                release, guard = guard.ask(public[:, j], sealed[:, j])
                answer = 0.5 if release.score is None else release.score
            told.append(answer)
        told_F, shown_F = np.array(told) - 0.5, public.mean(axis=0) - 0.5
        worst = float(np.abs(told_F).max())
        chosen = np.flatnonzero((told_F * shown_F > 0) & (np.abs(told_F) > 0.3 / np.sqrt(n)))
        signs = np.sign(shown_F[chosen])

        def votes(agrees: np.ndarray) -> np.ndarray:
            return ((2 * agrees[:, chosen] - 1) @ signs > 0).astype(float)

        if guard is None:
            return float(votes(sealed).mean()) - 0.5, worst
        release, guard = guard.ask(votes(public), votes(sealed))
        assert release.score is not None
        return release.score - 0.5, worst

    naive, _ = attack(None)
    guarded, worst = attack(Thresholdout.for_tolerance("s", tolerance, queries=features + 1, budget=10))
    assert naive > 0.15
    assert naive > 2 * tolerance
    assert abs(guarded) <= tolerance
    assert worst <= tolerance


def test_thresholdout_answers_and_ends() -> None:
    guard = Thresholdout("secret", threshold=0.1, sigma=1e-6, budget=2)
    release, guard = guard.ask([1, 0], [1, 0])
    assert (release, guard.budget) == (Release(0.5, False), 2)
    release, guard = guard.ask([1, 1], [1, 0])
    assert release.news
    assert release.score == pytest.approx(0.5, abs=1e-3)
    _, guard = guard.ask([1, 1], [0, 0])
    assert guard.budget == 0
    assert guard.ask([1, 1], [1, 1])[0] == Release(None, False)


def test_thresholdout_noise_is_laplace_and_depends_on_the_secret() -> None:
    guard = Thresholdout("secret", sigma=0.5)
    values = []
    for _ in range(4000):
        noise, guard = guard._noise(1)
        values.append(noise)
    assert np.mean(values) == pytest.approx(0, abs=0.04)
    assert np.mean(np.abs(values)) == pytest.approx(0.5, abs=0.03)  # Laplace(b): E|x| = b, median ln 2 b
    assert np.median(np.abs(values)) == pytest.approx(0.5 * np.log(2), abs=0.03)
    assert Thresholdout("other", sigma=0.5)._noise(1)[0] != Thresholdout("secret", sigma=0.5)._noise(1)[0]


def test_states_survive_in_the_ledger(tmp_path: Path) -> None:
    with Ledger.open(tmp_path) as ledger:
        assert stored_state(ledger, "small", "maze") is None
        run = ledger.start_run("exam", "small", {})
        release, ladder = Ladder().submit([1.0, 0.0])
        store_state(ledger, run, "small", "maze", release, ladder)
        guard = Thresholdout("secret").ask([1, 0], [1, 1])[1]
        store_state(ledger, run, "small", "lock", Release(None, False), guard)
        assert Ladder.from_json(stored_state(ledger, "small", "maze") or {}) == ladder
        stored = stored_state(ledger, "small", "lock") or {}
        assert "secret" not in stored
        assert Thresholdout.from_json(stored, secret="secret") == guard
        assert stored_state(ledger, "other", "maze") is None


@pytest.mark.parametrize("n", [100, 400])
def test_asking_the_same_again_and_again_does_not_tell_the_sealed_score(n: int) -> None:
    """An attacker spends the whole budget on one submission, averages the answers and rounds to the nearest item."""
    rng = np.random.default_rng(0)
    right = far = 0
    for trial in range(150):
        solved = int(rng.integers(n // 5, n // 2))
        sealed, guard, told = np.arange(n) < solved, Thresholdout(f"secret {trial}"), []
        for _ in range(200):
            release, guard = guard.ask(np.ones(n), sealed)
            if release.score is None:
                break
            if release.news:
                told.append(release.score)
        assert len(told) == 20
        right += round(float(np.mean(told)) * n) == solved
        far += abs(np.mean(told) - solved / n) > 6 / n
    assert (
        right / 150 < 0.5
    )  # a standard deviation of one item: 38%; with a tenth of an item's noise it was always right
    assert far / 150 < 0.05  # and the answers are still worth something


def test_noise_and_threshold_follow_the_items_and_the_budget() -> None:
    assert sigma_for(100, 20) == pytest.approx(math.sqrt(10) / 100)
    settled = Thresholdout("secret", budget=2).ask(np.ones(1000), np.ones(1000))[1]
    assert (settled.sigma, settled.threshold) == (0.001, 0.04)
    small = Thresholdout("secret", budget=8).ask(np.ones(50), np.ones(50))[1]
    assert small.sigma == pytest.approx(0.04)
    assert small.threshold == pytest.approx(0.32)
    assert Thresholdout.from_json(small.to_json(), secret="secret") == small


def test_a_state_with_the_noise_of_earlier_versions_takes_up_more() -> None:
    earlier = {"threshold": 0.04, "sigma": 0.001, "budget": 12, "draws": 31, "noisy_threshold": 0.0413}
    guard = Thresholdout.from_json(earlier, secret="secret").ask(np.ones(100), np.ones(100))[1]
    assert guard.sigma == sigma_for(100, 12)
    assert guard.draws > 31  # no noise is drawn twice
