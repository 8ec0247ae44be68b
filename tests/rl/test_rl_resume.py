"""A resume point of an older version: gone on with where nothing is lost, and else refused with what is missing."""

import dataclasses

import pytest
import torch

from foretaste.config import (
    AlgorithmConfig,
    CurriculumConfig,
    EnvConfig,
    GateConfig,
    HeldOutConfig,
    ModelConfig,
    SamplingConfig,
    TrainConfig,
)
from foretaste.errors import RunError
from foretaste.ledger import Ledger
from foretaste.progress import Silent
from foretaste.rl.resume import PARTS, load_state
from foretaste.rl.train import train

PLAIN = TrainConfig(
    env=EnvConfig("guess", examples=0),
    model=ModelConfig("nano-xs", critic_layers=1),
    sampling=SamplingConfig(max_new_tokens=3),
    algorithm=AlgorithmConfig(learning_rate=1e-3, value_pretraining_episodes=8),
    held_out=HeldOutConfig(items=4),
    steps=2,
    episodes_per_step=8,
    save_every=1,
)
SEVERAL = dataclasses.replace(PLAIN, curriculum=CurriculumConfig(sources=("guess@1", "guess@2")))
GATED = dataclasses.replace(PLAIN, gate=GateConfig(max_probability=0.5))
HELD = dataclasses.replace(PLAIN, algorithm=dataclasses.replace(PLAIN.algorithm, kl_coefficient=0.1))


class Interrupting(Silent):
    """Breaks a run off in its second step."""

    def metrics(self, step, values):
        if step == 2:
            raise KeyboardInterrupt


def written(folder, state):
    folder.mkdir(exist_ok=True)
    torch.save(state, folder / "trainer.pt")
    return folder


def without(*parts):
    return {name: {} for name in PARTS if name not in parts}


def test_a_run_from_before_there_were_curricula_goes_on_to_the_same_weights(tmp_path):
    whole = train(dataclasses.replace(PLAIN, runs_folder=str(tmp_path / "whole")))
    folder = tmp_path / "old"
    with pytest.raises(KeyboardInterrupt):
        train(dataclasses.replace(PLAIN, runs_folder=str(folder)), progress=Interrupting())
    (file,) = folder.glob("*/state/trainer.pt")
    state = torch.load(file, weights_only=True)
    assert set(state) == set(PARTS)
    for part in ("curriculum", "gate", "reference"):
        del state[part]
    torch.save(state, file)
    assert train(resume="latest", runs_folder=str(folder)).id == whole.id  # every weight, bit by bit


@pytest.mark.parametrize(
    ("config", "part", "why"),
    [
        (SEVERAL, "curriculum", "it draws from 2 sources"),
        (GATED, "gate", "gate.max_probability = 0.5"),
        (HELD, "reference", "algorithm.kl_coefficient = 0.1"),
    ],
)
def test_a_part_that_decided_something_is_asked_for(tmp_path, config, part, why):
    folder = written(tmp_path / "state", without(part))
    assert load_state(folder, PLAIN, run="r")[part] is None
    with pytest.raises(RunError) as error:
        load_state(folder, config, run="maze-1122")
    said = str(error.value)
    assert f"of run maze-1122 has no {part!r}, which this run needs ({why})." in said
    assert f"Found: {', '.join(sorted(name for name in PARTS if name != part))}." in said
    assert "Accepted: updater, learner, gate, curriculum, reference, progressed" in said
    assert "start the run again" in said


@pytest.mark.parametrize("part", ["updater", "learner", "progressed"])
def test_what_every_run_needs_has_no_default(tmp_path, part):
    folder = written(tmp_path / "state", without(part, "curriculum"))
    with pytest.raises(RunError, match=f"has no '{part}', which this run needs. Found"):
        load_state(folder, PLAIN, run="r")


def test_a_resume_point_that_holds_something_else_is_named(tmp_path):
    with pytest.raises(RunError, match=r"holds a list\. Accepted"):
        load_state(written(tmp_path / "state", [1, 2]), PLAIN, run="r")


@pytest.mark.parametrize(
    ("part", "change", "found"),
    [
        ("learner", lambda part: part.pop("adapter"), "no 'adapter' in it"),
        ("progressed", lambda part: part.update(moods=3), "moods"),
        ("updater", lambda part: part["optimizer"].clear(), "no '"),
    ],
)
def test_a_part_of_another_shape_is_named_and_the_run_is_marked_as_failed(tmp_path, part, change, found):
    with pytest.raises(KeyboardInterrupt):
        train(dataclasses.replace(PLAIN, runs_folder=str(tmp_path)), progress=Interrupting())
    (file,) = tmp_path.glob("*/state/trainer.pt")
    state = torch.load(file, weights_only=True)
    change(state[part])
    torch.save(state, file)
    with pytest.raises(RunError) as error:
        train(resume="latest", runs_folder=str(tmp_path))
    assert f"The part {part!r} of the resume point of run" in str(error.value)
    assert found in str(error.value)
    with Ledger.open(tmp_path) as ledger:
        assert ledger.run("latest").status == "failed"
