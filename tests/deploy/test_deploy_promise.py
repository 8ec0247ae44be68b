"""The promise: unknown is bounded both ways, delta is spent for ever, volunteers only stop things."""

from dataclasses import replace

import numpy as np
import pytest

from foretaste.deploy.analysis import interval
from foretaste.deploy.promise.calibration import recalibrated
from foretaste.deploy.promise.statement import trial_delta
from foretaste.deploy.promise.volunteers import Exposure, Vote, complaint_warning, not_counted, records_of
from foretaste.deploy.promise.watch import CREDIT, QUIET, Running, check_share, log_e_path
from foretaste.deploy.stages import gives_way
from foretaste.deploy.state import State
from foretaste.deploy.takeover import Judged, Threshold, calibrate, choose_threshold, renewed
from foretaste.exams.sequential import confidence_sequence


def test_unknown_counts_as_wrong_for_a_threshold_and_as_right_for_its_fall() -> None:
    known = [Judged("c", 0.9, True)] * 150
    assert calibrate(known, "c", alpha=0.05, delta=0.05).tau == 0.9
    unknown = [*known, *([Judged("c", 0.9, None)] * 50)]
    found = calibrate(unknown, "c", alpha=0.05, delta=0.05, standing=0.9)
    assert (found.tau, found.refuted) == (None, False)
    standing = Threshold(0.9, 1.0, 0.04, 150, 0, "")
    assert renewed(standing, found) == standing
    wrong = [*known, *([Judged("c", 0.9, False)] * 50)]
    assert renewed(standing, calibrate(wrong, "c", alpha=0.05, delta=0.05, standing=0.9)).tau is None


def test_no_rollback_gives_a_part_of_delta_back() -> None:
    assert sum(trial_delta(0.05, trial) for trial in range(1, 10_000)) < 0.05
    state, trials = State(checkpoint="c"), []
    for last in (150, 300, 450):
        state = recalibrated(state, [Judged("c", 0.9, True)] * 200, last=last, alpha=0.05, delta=0.05)
        trials.append((state.trial, state.looks))
        state = replace(state, looks=0, threshold=None, tau=None) if last == 300 else state
    assert trials == [(1, 1), (1, 2), (2, 1)]


def test_what_the_second_judge_finds_is_added_to_the_first() -> None:
    n = 900
    missed = [place % 20 == 0 if place % 3 == 0 else None for place in range(n)]
    assert choose_threshold([0.9] * n, [True] * n, alpha=0.05, delta=0.05).tau == 0.9
    assert choose_threshold([0.9] * n, [True] * n, alpha=0.05, delta=0.05, missed=missed).tau is None
    clean = [None if one is None else False for one in missed]
    assert choose_threshold([0.9] * n, [True] * n, alpha=0.05, delta=0.05, missed=clean).tau == 0.9


def test_the_watch_is_the_same_one_check_at_a_time_and_rarely_false() -> None:
    rng, alerts, false = np.random.default_rng(0), (7, 60), 0
    for _ in range(100):
        wrong = rng.random(200) < 0.05
        path, running = np.exp(log_e_path(wrong, 0.05, alerts)), Running(0.05)
        one = [running.add(bool(w), alert=place in alerts) for place, w in enumerate(wrong)]
        assert path == pytest.approx(one)
        false += path.max() >= 20
    assert false <= 11
    assert check_share([], average=0.1, served=0, alpha=0.05, usual=0.02) == pytest.approx(0.1 * QUIET)
    assert check_share([True, True], average=0.1, served=30, alpha=0.05, usual=0.02) == 1.0
    spent = [True] * (CREDIT + 2)
    assert check_share(spent, average=0.1, served=10, alpha=0.05, usual=0.02) < 0.1


def test_keys_that_contradict_the_judge_are_named_and_complaints_have_a_baseline() -> None:
    liar = [Vote("liar", True, False)] * 12
    honest = [Vote("ada", True, True)] * 30 + [Vote("ada", False, False)] * 5 + [Vote("ada", None, False)] * 9
    assert list(not_counted(records_of([*liar, *honest]))) == ["liar"]
    same = {str(key): Exposure(50, 50, 2, 2) for key in range(20)}
    assert complaint_warning(same) == ""
    worse = {str(key): Exposure(50, 50, 3, 0) for key in range(20)}
    assert "60 of 60" in complaint_warning(worse)
    assert complaint_warning({"loud": Exposure(50, 50, 50, 0)}) == ""


def test_new_weights_wait_while_the_present_ones_are_worth_it() -> None:
    good, bad = [Judged("c", 0.9, True)] * 40, [Judged("c", 0.9, False)] * 40
    near = Threshold(None, 0.0, 1.0, 100, 200, "")
    assert gives_way([], None, looks=0, alpha=0.05)
    assert not gives_way(good, near, looks=1, alpha=0.05)
    assert gives_way(good, replace(near, needed=201), looks=1, alpha=0.05)
    assert gives_way(good, near, looks=3, alpha=0.05)
    assert gives_way(bad, None, looks=0, alpha=0.05)
    assert gives_way(good, near, looks=1, alpha=0.05, held_back="exam: FAIL")


def test_the_interval_is_the_confidence_sequence() -> None:
    for wrong, n in ((0, 20), (3, 40), (40, 40)):
        assert interval(wrong, n, 0.05) == pytest.approx(tuple(map(float, confidence_sequence(wrong, n, 0.05))))
