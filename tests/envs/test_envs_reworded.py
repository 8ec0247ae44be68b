"""Any environment can be met in any register of training; those of held-out families are kept for exams."""

import dataclasses

import pytest

from foretaste.config import EnvConfig, ImitateConfig, ModelConfig, SamplingConfig, TrainConfig
from foretaste.envs.registry import make
from foretaste.envs.reworded import Reworded, in_registers
from foretaste.errors import ConfigError
from foretaste.registers import trainable
from foretaste.rl.rollout import EnvPool, Oracle, rollout
from foretaste.rl.tasks import training_tasks
from foretaste.rl.train import train


@pytest.mark.parametrize("name", ["maze", "reasoning/chain_sum", "guess"])
def test_every_register_of_training_keeps_the_text_and_the_answer(name):
    config = TrainConfig(env=EnvConfig(name, registers=trainable(), examples=0))
    tasks = training_tasks(config, 1, 3 * len(trainable()))
    played = rollout(Oracle(), tasks, EnvPool(config.env)).episodes
    assert {task.register for task in tasks} == set(trainable())
    assert [episode.success for episode in played] == [1.0] * len(tasks)


def test_what_an_environment_renders_itself_is_left_to_it():
    env = make("extract")
    assert in_registers(env, ("plain", "casual"), "extract") is env
    worded = in_registers(make("maze"), ("plain", "formal"), "maze")
    assert isinstance(worded, Reworded)
    options = {"level": 1, "register": "plain"}
    assert worded.reset(seed=5, options=options)[0] == make("maze").reset(seed=5, options=options)[0]


@pytest.mark.parametrize(
    ("register", "said"),
    [("chinese", "held out for exams"), ("email", "held out for exams"), ("formall", "Did you mean 'formal'?")],
)
def test_held_out_and_unknown_registers_are_refused(register, said):
    with pytest.raises(ConfigError, match=said):
        EnvPool(EnvConfig("maze", registers=("plain", register)))


def test_a_model_learns_in_wordings_that_the_environment_has_not(tmp_path):
    config = TrainConfig(
        env=EnvConfig("reasoning/chain_sum", registers=("formal", "emoji"), examples=0),
        model=ModelConfig("nano-xs", critic_layers=1),
        sampling=SamplingConfig(max_new_tokens=4),
        imitate=ImitateConfig(episodes=4, passes=1),
        steps=1,
        episodes_per_step=4,
        runs_folder=str(tmp_path),
    )
    config = dataclasses.replace(config, held_out=dataclasses.replace(config.held_out, items=4))
    config = dataclasses.replace(config, algorithm=dataclasses.replace(config.algorithm, value_pretraining_episodes=4))
    assert train(config).run
