"""Commitments bind, seeds are far apart and differ by everything that names an item, training texts are found."""

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretaste.envs.seeds import split_of
from foretaste.errors import ConfigError, LedgerError
from foretaste.exams.seal import (
    commitment,
    item_hash,
    item_seed,
    new_secret,
    secret_in,
    trained_on,
    verify_commitment,
)
from foretaste.ledger import Ledger
from foretaste.records import Action, Episode, EpisodeEnd, Turn, to_json
from foretaste.rl.replay import write_episodes

SECRET = "ab" * 32


@given(st.text(max_size=40), st.text(max_size=40))
def test_a_commitment_binds_secret_and_paper(paper: str, other: str) -> None:
    paper, other = paper.encode("utf-8", "ignore").decode(), other.encode("utf-8", "ignore").decode()
    shown = commitment(SECRET, paper)
    verify_commitment(shown.upper(), SECRET, paper)
    assert SECRET not in shown
    if other != paper:
        with pytest.raises(LedgerError, match="another secret or another paper"):
            verify_commitment(shown, SECRET, other)
    with pytest.raises(LedgerError):
        verify_commitment(shown, "cd" * 32, paper)


def test_weak_secrets_are_refused() -> None:
    with pytest.raises(ConfigError, match="64 hexadecimal digits, not 6"):
        commitment("secret", "paper")
    assert new_secret() != new_secret()
    assert len(commitment(new_secret(), "")) == 64


def test_secret_files_are_private_and_kept(tmp_path: Path) -> None:
    first = secret_in(tmp_path / "new", "quick")
    assert secret_in(tmp_path / "new", "quick") == first
    file = next((tmp_path / "new").iterdir())
    assert file.stat().st_mode & 0o077 == 0
    file.write_text("damaged")
    with pytest.raises(ConfigError, match="must be 64"):
        secret_in(tmp_path / "new", "quick")


def test_seeds_differ_by_every_part_of_the_name_and_are_never_neighbours() -> None:
    seeds = [
        item_seed(secret, env, level, index, look=look)
        for secret in (SECRET, "cd" * 32)
        for env in ("maze", "maze1")
        for level in (1, 11)
        for look in (0, 1)
        for index in range(200)
    ]
    assert len(set(seeds)) == len(seeds)
    ordered = sorted(seeds)
    assert min(b - a for a, b in itertools.pairwise(ordered)) > 10_000
    assert {split_of(seed) for seed in seeds} == {"sealed"}
    assert split_of(item_seed("", "maze", 1, 0, split="practice")) == "practice"
    assert item_seed(SECRET, "maze", 1, 3) == item_seed(SECRET, "maze", 1, 3)


def episode(text: str) -> Episode:
    turns = (
        Turn(text, Action("a", (1,), (0.0,), (0.5,)), (5, 6)),
        Turn("later", Action("b", (2,), (0.0,), (0.5,)), (7,)),
    )
    return Episode("maze", 1, "train", 1, "plain", turns, EpisodeEnd.TERMINATED, 1.0)


def test_training_texts_come_from_stored_episodes_and_the_ledger(tmp_path: Path) -> None:
    with Ledger.open(tmp_path) as ledger:
        run = ledger.start_run("train", "maze", {})
        other = ledger.start_run("train", "maze", {})
        ledger.append(run, "episode", to_json(episode("shown in the ledger")))
        folder = tmp_path / run / "episodes"
        folder.mkdir(parents=True)
        write_episodes(folder / "step-000001.npz", [episode("stored on disk"), episode("é中 too")])
        found = trained_on(ledger, tmp_path)
        assert found == {item_hash(text) for text in ("shown in the ledger", "stored on disk", "é中 too")}
        assert trained_on(ledger, tmp_path, [other]) == frozenset()
