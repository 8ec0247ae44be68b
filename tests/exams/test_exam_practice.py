"""Practising for an exam: the kinds of items of a public paper, never its own items, never a sealed paper."""

from pathlib import Path

import pytest

from foretaste.commands.train import read_arguments
from foretaste.errors import ConfigError
from foretaste.exams.paper import expand, load_paper
from foretaste.exams.practice import sources_of
from foretaste.rl.pools import MixedPool
from foretaste.rl.tasks import training_tasks

PAPER = """
name = "mine"
sealed = false
[[families]]
env = "guess"
levels = [1, 2]
registers = ["plain", "chinese", "emoji"]
[[families]]
env = "reasoning/chain_sum"
registers = ["formal"]
"""


@pytest.fixture
def paper(tmp_path: Path) -> str:
    file = tmp_path / "mine.toml"
    file.write_text(PAPER)
    return str(file)


def test_a_papers_families_levels_and_wordings_are_trained_on_but_for_held_out_ones(paper: str) -> None:
    config, _ = read_arguments(["--practice", paper, "--model", "nano-xs", "--env.examples", "0"])
    assert config.curriculum.sources == (
        "guess@1/plain", "guess@1/emoji", "guess@2/plain", "guess@2/emoji", "reasoning/chain_sum@1/formal"
    )  # fmt: skip
    pool = MixedPool(config)
    tasks = training_tasks(config, 1)
    assert {pool.of(task).config.id for task in tasks} == {"guess", "reasoning/chain_sum"}


def test_no_item_of_the_paper_is_trained_on(paper: str) -> None:
    config, _ = read_arguments(["--practice", paper])
    asked = {(item.env, item.seed) for item in expand(load_paper(paper)).items}
    trained = {(task.env, task.seed) for step in range(1, 20) for task in training_tasks(config, step)}
    assert asked
    assert not asked & trained


def test_sealed_papers_and_two_lists_of_sources_are_refused(paper: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is sealed"):
        sources_of("quick")
    with pytest.raises(ConfigError, match="both say what to draw"):
        read_arguments(["--practice", paper, "--curriculum.sources", "maze"])
    with pytest.raises(ConfigError, match="leave out --practice"):
        read_arguments(["--practice", paper, "--resume", "latest"])
    file = tmp_path / "foreign.toml"
    file.write_text('name = "foreign"\nsealed = false\n[[families]]\nenv = "guess"\nregisters = ["chinese"]\n')
    with pytest.raises(ConfigError, match="held-out families alone"):
        sources_of(str(file))
