"""The laboratory's own test: a warm start by imitation makes `nano` win the guessing game more often than none.

Nobody doubts it, so a verdict other than "held" means that the laboratory, or training, is broken.
"""

from __future__ import annotations

from foretaste.config import AlgorithmConfig, EnvConfig, HeldOutConfig, ImitateConfig, ModelConfig, SamplingConfig
from foretaste.config import TrainConfig as Config
from foretaste.lab.study import Expectation, Plan, Study


def _config(*, demonstrations: int) -> Config:
    return Config(
        env=EnvConfig("guess", examples=0),
        model=ModelConfig("nano"),
        sampling=SamplingConfig(max_new_tokens=8),
        algorithm=AlgorithmConfig(learning_rate=3e-4, critic_learning_rate=1e-3, value_pretraining_episodes=32),
        imitate=ImitateConfig(episodes=demonstrations, passes=4, learning_rate=1e-3),
        held_out=HeldOutConfig(items=64, every=2, curve_items=32),
        episodes_per_step=32,
    )


_ARMS = {"warm": _config(demonstrations=600), "cold": _config(demonstrations=0)}

STUDY = Study(
    name="smoke",
    claim="A decoder that first copied demonstrations has a higher mean held-out success than one that did not",
    source="no claim of anybody's: a fact that the laboratory must be able to find",
    expectations=(Expectation("area", "warm", "cold", size=0.05, center="mean"),),
    quick=Plan(_ARMS, seeds=(1, 2, 3), token_budget=1500, minutes=3, max_steps=20),
    full=Plan(_ARMS, seeds=(1, 2, 3, 4, 5), token_budget=6000, minutes=10, max_steps=60),
    internal=True,
)
