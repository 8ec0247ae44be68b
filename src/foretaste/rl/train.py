"""The training loop, top to bottom: config in, Checkpoint out, every figure in the ledger.

    imitate (optional) -> held-out before -> value pretraining -> steps -> held-out after -> checkpoint

Each step samples new episodes (`collect.py`), updates actor and critic (`update.py`), measures the critic
(`diagnostics.py`) and writes it all down. Killed at any moment, `resume=RUN` goes on to the same result.
"""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import gymnasium

from foretaste.checks import check
from foretaste.config import TrainConfig, from_dict, to_dict
from foretaste.errors import ConfigError, ForetasteError, Terminated
from foretaste.ledger import Ledger
from foretaste.locks import only_one
from foretaste.models import checkpoint as checkpoints
from foretaste.models.actor_critic import ActorCritic
from foretaste.models.engines import make_engine
from foretaste.models.loading import CARD_FILE
from foretaste.models.paths import paths_of
from foretaste.progress import Progress, Silent
from foretaste.records import Checkpoint, Episode, to_json
from foretaste.rl import diagnostics
from foretaste.rl.advise import Advice
from foretaste.rl.batch import as_failures, make_batch
from foretaste.rl.collect import Collector, until_telling
from foretaste.rl.curriculum import Curriculum, metrics_of
from foretaste.rl.gate import GateKeeper
from foretaste.rl.held_out import HeldOut, measure, record_episodes
from foretaste.rl.identity import identity, named, same_items
from foretaste.rl.imitate import imitate
from foretaste.rl.learn import Learner
from foretaste.rl.pools import pool_of
from foretaste.rl.reference import Reference
from foretaste.rl.replay import Replay
from foretaste.rl.resume import LOCK_FILE, Progressed, check_episodes, load_state, restoring, save_state
from foretaste.rl.rollout import Pool, Rollout
from foretaste.rl.sources import title, training_sources
from foretaste.rl.summary import provenance, summarize
from foretaste.rl.tasks import training_tasks
from foretaste.rl.update import Updater
from foretaste.stopping import later, terminable
from foretaste.writers import open_writers

ENOUGH_POINTS = 2
"""Points of the learning curve in a row that end training at `held_out.enough`: one may be luck."""


def train(
    config: TrainConfig | None = None,
    *,
    env: Callable[[], gymnasium.Env[Any, Any]] | None = None,
    resume: str | None = None,
    progress: Progress | None = None,
    runs_folder: str | None = None,
) -> Checkpoint:
    """Train a policy and its value function; return the saved checkpoint.

    `env` is an environment class to use instead of looking `config.env.id` up. `resume` continues the
    run of that id (or "latest") to the result it would have had uninterrupted; its config is the one
    it was started with, found in the ledger of `runs_folder` (default: the config's).

    A run that is interrupted (Ctrl-C, SIGTERM) while it samples keeps every finished step; while it learns, a signal
    other than Ctrl-C waits for the step's end.

    Raises: ConfigError for settings that cannot be used; ModelError, EnvError for what cannot be
    loaded; RunError if no episode can be played or written, or another process is at this run. Whatever was saved
    before stays.
    """
    if config is None and resume is None:
        raise ConfigError("Nothing to train: pass a config, or the id of a run to resume")
    folder = Path(runs_folder or (config or TrainConfig()).runs_folder).absolute()  # whatever an environment does
    with closing(Ledger.open(folder)) as ledger:
        if resume is None:
            assert config is not None
            config = check(named(config, env))
            run = ledger.start_run("train", title(config), to_dict(config))
        else:
            run = ledger.run(resume, kind="train").id
            config = from_dict(TrainConfig, ledger.run(run).config)
        with only_one(folder / run / LOCK_FILE, f"Run {run}"), terminable():
            return _held(config, ledger, run, folder / run, env, progress or Silent(), resuming=resume is not None)


def _held(
    config: TrainConfig,
    ledger: Ledger,
    run: str,
    folder: Path,
    env: Callable[[], gymnasium.Env[Any, Any]] | None,
    progress: Progress,
    *,
    resuming: bool,
) -> Checkpoint:
    """Train, with the run's lock held; however it ends, the ledger says so."""
    items = identity(config, env)
    if resuming:
        started = (record.payload["items"] for record in ledger.records(run, "status") if "items" in record.payload)
        same_items(next(started, None), items, run)
    ledger.append(run, "status", {"status": "started", "items": items, **provenance(config, resuming, run)})
    pool: Pool | None = None
    try:
        pool = pool_of(config, env)
        return _Run(config, ledger, run, folder, pool, progress).train(resuming=resuming)
    except KeyboardInterrupt:
        ledger.append(run, "status", {"status": "interrupted"})
        raise
    except Exception as error:
        said = str(error) if isinstance(error, ForetasteError) else f"{type(error).__name__}: {error}"
        ledger.append(run, "status", {"status": "failed", "error": said})
        raise
    finally:
        if pool is not None:
            pool.close()


class _Run:
    """One run's parts, built once and used by every phase."""

    def __init__(
        self,
        config: TrainConfig,
        ledger: Ledger,
        run: str,
        folder: Path,
        pool: Pool,
        progress: Progress,
    ) -> None:
        self.config, self.ledger, self.run, self.folder, self.progress = config, ledger, run, folder, progress
        self.pool = pool
        self.curriculum = Curriculum(config.curriculum, training_sources(config))
        progress.note(f"run {run} in {folder}")
        progress.phase("load model", None)
        self.clock = time.perf_counter()
        self.done = Progressed()
        with self._timed("loading"):
            self.actor_critic = ActorCritic.load(config.model, seed=config.seed)
        paths = paths_of(self.actor_critic, config.sampling)
        ledger.append(run, "paths", paths.to_json())
        for line in paths.lines():
            progress.note(line)
        for note in self.actor_critic.template.notes:
            progress.note(note)
        self.sampler = make_engine(self.actor_critic, config.sampling)
        self.collector = Collector(config, self.sampler, self.pool)
        self.updater = Updater(self.actor_critic, config.algorithm, temperature=config.sampling.temperature)
        self.replay = Replay(folder / "episodes")
        self.learner = Learner(config, self.updater, self.replay, self._tell)
        self.keeper = GateKeeper(config.gate)
        self.reference: Reference | None = None
        self.writers = open_writers(config.writers, folder, config=to_dict(config))

    # The story --------------------------------------------------------------------------------

    def train(self, *, resuming: bool) -> Checkpoint:
        config = self.config
        if resuming:
            self._load()
        else:
            if config.imitate.episodes:
                with self._timed("imitation"):
                    imitate(config, self.pool, self.updater, self.actor_critic.template, self.progress)
            before = self._held_out("before", config.held_out.items)
            self.done.success_before, self.done.items_before = before.success, before.items
            if config.algorithm.kl_coefficient:
                self.reference = Reference(self.actor_critic)
            wanted = config.algorithm
            first = wanted.value_pretraining_passes and wanted.value_pretraining_episodes
            if self.updater.has_critic and first and not self.actor_critic.critic_taught:
                with self._timed("value pretraining"):
                    self._pretrain_values()
            self._save()
        self.progress.phase("train", config.steps)
        self.progress.advance(self.done.step)
        budget = config.token_budget
        while (
            self.done.step < config.steps
            and (budget is None or self.done.sampled_tokens < budget)
            and self.done.good_points < ENOUGH_POINTS
        ):
            self._step(self.done.step + 1)
            self.progress.advance()
        after = self._held_out("after", config.held_out.items)
        return self._finish(after)

    def _step(self, step: int) -> None:
        """Sample, learn, measure, write down."""
        whole = copy.deepcopy(self.done)
        try:
            played, kept = self._sample_step(step)
        except KeyboardInterrupt:  # nothing of this step has been learned: the steps before it are kept
            self.done = whole
            self._save()
            raise
        over = False
        try:
            with later():
                self._learn_step(step, played, kept)
                over = True
        except Terminated:
            if over:
                self._save()
            raise

    def _learn_step(self, step: int, played: Rollout, kept: list[Episode]) -> None:
        config = self.config
        learned = played.episodes if config.gate.unbiased else as_failures(played.episodes)
        self._store(learned, step)
        batch = make_batch(kept if config.gate.unbiased else as_failures(kept))
        metrics = diagnostics.episode_metrics(played.episodes) | self.keeper.update(played.episodes)
        if len(self.curriculum.sources) > 1:
            drawn = self.curriculum.update(played.episodes)
            self.ledger.append(self.run, "curriculum", drawn, step=step)
            metrics |= metrics_of(drawn)
        if config.algorithm.group_size > 1:
            metrics["train/zero_signal_groups"] = diagnostics.zero_signal_share(make_batch(played.episodes))
        with self._timed("training") as training:
            self.sampler.rest()
            metrics |= self.learner.learn(batch, step, self.reference)
        self.done.step = step
        self.done.add("sampling", played.sample_seconds)
        self.done.add("environment", played.env_seconds)
        metrics["time/sample_seconds"] = played.sample_seconds
        metrics["time/env_seconds"] = played.env_seconds
        metrics["time/train_seconds"] = training.seconds
        if config.held_out.every and step % config.held_out.every == 0 and step < config.steps:
            point = self._held_out("curve", config.held_out.curve_items)
            metrics["time/held_out_seconds"] = point.seconds
            good = config.held_out.enough > 0 and (point.solved or 0.0) >= config.held_out.enough
            self.done.good_points = self.done.good_points + 1 if good else 0
        self._write_down(step, metrics, played.episodes)
        if step % config.save_every == 0 or step == config.steps:
            self._save()

    def _pretrain_values(self) -> None:
        """Fit the critic to the frozen policy's returns before the policy may move; the episodes stay in the replay."""
        config = self.config
        count = config.algorithm.value_pretraining_episodes
        self.progress.phase("value pretraining", count)
        tasks = training_tasks(config, 0, count)
        played = self._counted(self.collector.play(tasks, 0, on_episode=lambda episode: self.progress.advance()))
        self.curriculum.update(played.episodes)  # what was sampled anyway is evidence
        self._store(played.episodes, 0)
        metrics = self.learner.pretrain_values(played.episodes)
        self.ledger.append(self.run, "value_pretraining", metrics, step=0)
        self._warn(0, metrics)

    def _tell(self, step: int, advice: Advice) -> None:
        """Write down what `auto` has chosen and why."""
        self.ledger.append(self.run, "advice", advice.to_json(), step=step)
        self.progress.note(f"step {step}: auto learns by {advice.method}. {' '.join(advice.reasons)}")

    # Pieces -----------------------------------------------------------------------------------

    def _sample_step(self, step: int) -> tuple[Rollout, list[Episode]]:
        """Sample a step's episodes; return all of them, and those to learn from."""
        config, wanted = self.config, self.config.episodes_per_step
        shares, believed = self.curriculum.shares(), self.learner.taught is not None
        gate = self.keeper.gate(believed=believed) if self.learner.by_value else None

        def sample(first: int) -> Rollout:
            return self._counted(
                self.collector.play(training_tasks(config, step, first=first, shares=shares), step, gate=gate)
            )

        if config.algorithm.dynamic_sampling:
            return until_telling(sample, wanted)
        played = sample(0)
        return played, played.episodes

    def _store(self, episodes: Sequence[Episode], step: int) -> None:
        self.replay.add(episodes, step)
        self.done.stored_steps.append(step)

    def _counted(self, played: Rollout) -> Rollout:
        """Add what was sampled to the run's totals."""
        self.done.episodes += len(played.episodes)
        self.done.sampled_tokens += sum(episode.action_tokens for episode in played.episodes)
        return played

    def _held_out(self, label: str, items: int) -> HeldOut:
        self.progress.phase(f"held-out {label}", items)
        with self._timed("held-out items"):
            outcome = measure(
                self.config,
                self.sampler,
                self.pool,
                self.ledger,
                self.run,
                label=label,
                items=items,
                step=self.done.step,
                on_episode=lambda episode: self.progress.advance(),
            )
        if outcome.solved is not None:
            self.progress.note(f"held-out {label}: {outcome.solved:.3f} on {len(outcome.judged)} items")
        if label == "curve":
            self.progress.phase("train", self.config.steps)
            self.progress.advance(self.done.step)
        return outcome

    def _write_down(self, step: int, metrics: dict[str, float], episodes: Sequence[Episode]) -> None:
        self.ledger.append(self.run, "metrics", metrics, step=step)
        solved = next((episode for episode in episodes if episode.success), None)
        missed = next((episode for episode in episodes if not episode.success), None)
        record_episodes(
            self.ledger, self.run, self.sampler, [e for e in (solved, missed) if e], label="train", step=step
        )
        if self.done.first_entropy is None:
            self.done.first_entropy = metrics.get("policy/entropy")
        self._warn(step, metrics)
        for writer in self.writers:
            writer.write(step, metrics)
        self.progress.metrics(step, metrics)

    def _warn(self, step: int, metrics: dict[str, float]) -> None:
        """Write down what is likely wrong; the first of its kind is shown too."""
        for text, knob in diagnostics.warnings(metrics, step=step, max_entropy=self.done.first_entropy):
            self.ledger.append(self.run, "warning", {"text": text, "knob": knob}, step=step)
            if knob not in self.done.notes:
                self.done.notes.append(knob)
                self.progress.note(f"step {step}: {text}. Knob: {knob}")

    @contextmanager
    def _timed(self, part: str) -> Iterator[_Timer]:
        """Add what runs inside to the run's seconds of this part."""
        timer, started = _Timer(), time.perf_counter()
        yield timer
        timer.seconds = time.perf_counter() - started
        self.done.add(part, timer.seconds)

    def _save(self) -> None:
        """Write a resume point."""
        now = time.perf_counter()
        self.done.wall_seconds += now - self.clock
        self.clock = now
        with self._timed("saving"):
            self._save_state()

    def _save_state(self) -> None:
        state = {
            "updater": self.updater.state(),
            "learner": self.learner.state(),
            "gate": self.keeper.state(),
            "curriculum": self.curriculum.state(),
            "reference": self.reference.state() if self.reference else None,
            "progressed": dataclasses.asdict(self.done),
        }
        save_state(self.folder / "state", state, run=self.run)

    def _load(self) -> None:
        """Go back to the last resume point and say so in the ledger."""
        state = load_state(self.folder / "state", self.config, run=self.run)
        loaders: dict[str, Callable[[Any], None]] = {
            "updater": self.updater.load,
            "learner": self.learner.load,
            "gate": self.keeper.load,
            "curriculum": self.curriculum.load,
        }
        for part, load in loaders.items():
            if state[part] is not None:
                with restoring(part, run=self.run):
                    load(state[part])
        if state["reference"] is not None:
            self.reference = Reference(self.actor_critic, state["reference"])
        with restoring("progressed", run=self.run):
            self.done = Progressed(**state["progressed"])
        lost = self.replay.load(self.done.step, self.done.stored_steps)
        if note := check_episodes(lost, self.config, run=self.run):
            self.progress.note(note)
        self.ledger.append(self.run, "resume", {"from_step": self.done.step})
        self.progress.note(f"resumed after step {self.done.step}")

    def _finish(self, after: HeldOut) -> Checkpoint:
        """Save the checkpoint and the summary."""
        self.progress.phase("save", None)
        self.actor_critic.critic_ranking = self.learner.adapter.rows
        with self._timed("saving"):
            checkpoint = checkpoints.save(
                self.actor_critic,
                self.folder / "checkpoint",
                parents=self._parents(),
                run=self.run,
                step=self.done.step,
            )
        self.ledger.append(self.run, "checkpoint", to_json(checkpoint), step=self.done.step)
        self.done.wall_seconds += time.perf_counter() - self.clock
        summary = summarize(self.config, self.run, self.folder, self.done, checkpoint, after)
        self.ledger.append(self.run, "summary", to_json(summary), step=self.done.step)
        self.ledger.append(self.run, "status", {"status": "finished"})
        for writer in self.writers:
            writer.close()
        self.progress.finish(summary)
        return checkpoint

    def _parents(self) -> tuple[str, ...]:
        """The checkpoints that training started from: the policy's, unless it was a base model, and the critic's."""
        model = self.config.model
        folders = [Path(name) for name in (model.name, model.critic_from) if name is not None]
        return tuple(checkpoints.read(folder).id for folder in folders if (folder / CARD_FILE).is_file())


class _Timer:
    """Seconds of a timed block, known once it ends."""

    seconds = 0.0
