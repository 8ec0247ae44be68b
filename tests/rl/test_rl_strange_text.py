"""Text that no file and no tokenizer can hold ends no run: U+FFFD is read in its place, and the check says it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import foretaste
from foretaste.config import AlgorithmConfig, EnvConfig, HeldOutConfig, ImitateConfig, ModelConfig, SamplingConfig
from foretaste.envs.check import check_env
from foretaste.records import Action, well_formed
from foretaste.rl.player import Player
from foretaste.rl.tasks import Task

HALF = "\ud83d"


class Strange(foretaste.TextEnv):
    name, instructions = "strange", f"Say hi. {HALF}"

    def begin(self):
        return f"item {self.random.randrange(1000)} {HALF} \x00 \ufeff {'x' * 40}", {"privileged": f"hi {HALF}"}

    def oracle(self):
        return f"hi{HALF}"

    def act(self, action):
        right = float(action.startswith("hi"))
        if self.turn == 0 and self.seed % 3 == 0:
            return HALF, 0.0, True, {"error": f"broken {HALF}"}
        return f"{HALF}again", right, self.turn > 0, {"success": right, "privileged": HALF}

    def max_turns(self):
        return 2


def test_a_run_goes_through_with_half_a_character_everywhere(tmp_path: Path) -> None:
    config = foretaste.TrainConfig(
        env=EnvConfig(id="strange", examples=1),
        model=ModelConfig(name="nano-xs", privileged_critic=True),
        steps=1,
        episodes_per_step=2,
        imitate=ImitateConfig(episodes=2, passes=1),
        sampling=SamplingConfig(max_new_tokens=4),
        held_out=HeldOutConfig(items=2),
        runs_folder=str(tmp_path),
        algorithm=AlgorithmConfig(value_pretraining_episodes=2, value_pretraining_passes=1, passes=1),
    )
    assert Path(foretaste.train(config, env=Strange).path).is_dir()


@pytest.mark.parametrize(
    "where", ["observation of reset", "observation of step", "privileged", "instructions", "worked"]
)
def test_the_check_names_half_a_character(where: str) -> None:
    assert any(where in fault and "half of a surrogate pair" in fault for fault in check_env(Strange))


def test_an_action_of_an_endpoint_reaches_environment_and_record_alike() -> None:
    class Echo(Strange):
        def act(self, action):
            return action, 0.0, False, {"success": 0.0}

    player = Player(Task("strange", 1, 1, "plain", 0), Echo(), [])
    assert player.start("0") is not None
    assert player.answer(Action(f"a{HALF}")) == "a\ufffd"
    assert player.turns[0].action.text == "a\ufffd"


@given(st.text(st.characters(codec=None, categories=None)))
def test_well_formed_text_keeps_all_that_utf_8_can_carry(text: str) -> None:
    made = well_formed(text)
    made.encode("utf-8")
    assert well_formed(made) == made
    kept = [c for c in made if c != "\ufffd" and ord(c) < 0x10000]
    assert kept == [c for c in text if c != "\ufffd" and not "\ud800" <= c <= "\udfff" and ord(c) < 0x10000]


def test_halves_that_belong_together_are_joined() -> None:
    assert well_formed("a\ud83d\ude42b\ude42\ud83d") == "a🙂b\ufffd\ufffd"
