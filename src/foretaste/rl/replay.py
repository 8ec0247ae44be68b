"""Every episode ever sampled, kept to be learned from again: columnar files, one a step.

`runs/<run>/episodes/step-000012.npz` holds flat arrays over all tokens of the step's episodes and one JSON
line an episode for the rest, so that numpy alone reads it; step 0 is value pretraining. Learning draws the newest
episodes and a random share of older ones; how far an old episode may pull is the ratio truncation's business
(`returns.vtrace`). The same files serve learning on the job.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from foretaste.errors import RunError
from foretaste.records import Action, Episode, EpisodeEnd, Turn
from foretaste.rl.batch import usable

_TOKENS = ("tokens", "is_action", "logprobs", "values")


@dataclass(frozen=True, slots=True)
class Stored:
    """An episode and the step that sampled it."""

    step: int
    episode: Episode


class Replay:
    """Episodes of one run, oldest first; the newest `capacity` in memory, all on disk."""

    def __init__(self, folder: Path, *, capacity: int = 4096) -> None:
        self.folder = folder
        self.capacity = capacity
        self.stored: list[Stored] = []

    def add(self, episodes: Sequence[Episode], step: int) -> None:
        """Write a step's episodes to disk, failed ones too, and keep the usable ones for learning."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_episodes(self._file(step), episodes)
        self._keep(episodes, step)

    def load(self, last_step: int, expected: Sequence[int] = ()) -> list[Path]:
        """Read back what was sampled up to `last_step`; files of later steps belong to a lost attempt.

        Returns the files that are missing, of the steps `expected`, or that cannot be read.
        """
        self.stored = []
        found = {int(file.stem.removeprefix("step-")) for file in self.folder.glob("step-*.npz")}
        lost = []
        for step in sorted(step for step in {*found, *expected} if step <= last_step):
            try:
                self._keep(read_episodes(self._file(step)), step)
            except RunError:
                lost.append(self._file(step))
        return lost

    def newest(self, count: int) -> list[Episode]:
        """Return the last `count` usable episodes, oldest first."""
        return [stored.episode for stored in self.stored[-count:]]

    def draw(
        self,
        count: int,
        rng: np.random.Generator,
        *,
        half_life_steps: float | None = None,
        priority: Callable[[Episode], float] | None = None,
        exclude_newest: int = 0,
    ) -> list[Episode]:
        """Return up to `count` different older episodes.

        `half_life_steps` halves the chance of an episode with each so many steps of age; `priority`
        multiplies it by a non-negative number (successes, surprise); without either all are alike.
        """
        pool = self.stored[: max(0, len(self.stored) - exclude_newest)]
        if not pool or count <= 0:
            return []
        weights = np.ones(len(pool))
        if half_life_steps is not None:
            age = pool[-1].step - np.array([stored.step for stored in pool])
            weights *= 0.5 ** (age / half_life_steps)
        if priority is not None:
            weights *= [priority(stored.episode) for stored in pool]
        possible = int((weights > 0).sum())
        if possible == 0:
            return []
        chosen = rng.choice(len(pool), size=min(count, possible), replace=False, p=weights / weights.sum())
        return [pool[index].episode for index in sorted(chosen)]

    def _keep(self, episodes: Sequence[Episode], step: int) -> None:
        self.stored += [Stored(step, episode) for episode in episodes if usable(episode)]
        del self.stored[: -self.capacity]

    def _file(self, step: int) -> Path:
        return self.folder / f"step-{step:06d}.npz"


def write_episodes(file: Path, episodes: Sequence[Episode]) -> None:
    """Write episodes as columns, atomically.

    Columns over all tokens in order: `tokens`, `is_action`, `logprobs` and `values` (nan on
    observations and where nothing was recorded). `turn_lengths` holds (observation, action) token
    counts of each turn, `turns` the number of turns of each episode, `meta` JSON for everything else.
    """
    columns: dict[str, list[Any]] = {name: [] for name in _TOKENS}
    turn_lengths: list[tuple[int, int]] = []
    for episode in episodes:
        for turn in episode.turns:
            seen, done = len(turn.observation_tokens), len(turn.action.tokens)
            turn_lengths.append((seen, done))
            columns["tokens"] += [*turn.observation_tokens, *turn.action.tokens]
            columns["is_action"] += [False] * seen + [True] * done
            for name in ("logprobs", "values"):
                recorded = getattr(turn.action, name)
                columns[name] += [np.nan] * seen + list(recorded or [np.nan] * done)
    arrays = {
        "tokens": np.array(columns["tokens"], dtype=np.int32),
        "is_action": np.array(columns["is_action"], dtype=np.bool_),
        "logprobs": np.array(columns["logprobs"], dtype=np.float64),
        "values": np.array(columns["values"], dtype=np.float64),
        "turn_lengths": np.array(turn_lengths, dtype=np.int32).reshape(-1, 2),
        "turns": np.array([len(episode.turns) for episode in episodes], dtype=np.int32),
        "meta": np.array([json.dumps(_meta(episode), ensure_ascii=False) for episode in episodes], dtype=np.str_),
    }
    temporary = file.with_suffix(".writing")
    try:
        with temporary.open("wb") as stream:
            np.savez_compressed(stream, **arrays)
        temporary.replace(file)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RunError(f"Cannot write episodes to {file}: {error}. Make room, then resume the run.") from error


def read_episodes(file: Path) -> list[Episode]:
    """Read episodes written by `write_episodes`; they equal the originals.

    Raises: RunError if the file is damaged.
    """
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as data:
            arrays = {name: data[name] for name in data.files}
        return _episodes(arrays)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise RunError(f"The episode file {file} cannot be read: {error}") from error


def _meta(episode: Episode) -> dict[str, Any]:
    own = {name: getattr(episode, name) for name in Episode.__dataclass_fields__ if name not in ("turns", "end")}
    turns = [
        {
            **{name: getattr(turn, name) for name in Turn.__dataclass_fields__ if name not in _TURN_COLUMNS},
            "text": turn.action.text,
            "cut": turn.action.cut,
        }
        for turn in episode.turns
    ]
    return {**own, "end": str(episode.end), "turns": turns}


_TURN_COLUMNS = ("action", "observation_tokens")


def _episodes(arrays: dict[str, np.ndarray]) -> list[Episode]:
    episodes: list[Episode] = []
    turn = at = 0
    for text, count in zip(arrays["meta"], arrays["turns"], strict=True):
        meta = json.loads(str(text))
        turns: list[Turn] = []
        for values in meta.pop("turns"):
            seen, done = (int(n) for n in arrays["turn_lengths"][turn])
            start, turn = at + seen, turn + 1
            columns = {name: arrays[name][start : start + done].tolist() for name in ("tokens", "logprobs", "values")}
            recorded = {name: tuple(column) for name, column in columns.items() if not (column and np.isnan(column[0]))}
            action = Action(text=values.pop("text"), cut=values.pop("cut"), **recorded)
            checks = values.pop("checks")
            turns.append(
                Turn(
                    **values,
                    checks=None if checks is None else tuple(checks),
                    action=action,
                    observation_tokens=tuple(arrays["tokens"][at:start].tolist()),
                )
            )
            at = start + done
        if len(turns) != count:
            raise ValueError(f"{len(turns)} turns where {count} were written")
        final = tuple(meta.pop("final_observation_tokens", ()))
        end = EpisodeEnd(meta.pop("end"))
        episodes.append(Episode(**meta, turns=tuple(turns), end=end, final_observation_tokens=final))
    return episodes
