"""Held-out figures: an item is solved or not, in the share as in the interval."""

from foretaste.config import CurriculumConfig, TrainConfig
from foretaste.rl.held_out import HeldOut, _by_source


def outcome(*success):
    return HeldOut("curve", list(success), 0, 0.0, None)


def test_a_graded_success_below_one_is_not_solved_and_a_failed_item_not_judged():
    assert outcome(1.0, 0.9, None, 0.5).solved == 1 / 3
    assert outcome(0.95, 0.95).solved == 0.0
    assert outcome(None).solved is None


def test_sources_are_counted_alike():
    config = TrainConfig(curriculum=CurriculumConfig(sources=("guess@1", "guess@2")))
    found = _by_source(config, [1.0, 0.9, 0.8, None])["by_source"]
    assert found == {"guess@1": {"success": 0.5, "n": 2}, "guess@2": {"success": 0.0, "n": 1}}
