"""The process that learns on the job: judged answers from the store in, checkpoints named by their content out.

It goes on from its last checkpoint and reads on where that one stopped (`training.json` beside the store), so a process
that was killed learns the same again and leaves no judgement out. It begins with the best kept weights where an alarm
took back what had been learned since, and with the accepted ones where a person chose others than it made. Permission
is looked up in the state before every step. What it makes is only written down; the supervisor tries it in shadow.
Next: `online.py` for the learning itself, `training/experiences.py` for what it reads.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy.engine import Engine

from foretaste.deploy import audit, state
from foretaste.deploy.alarms import Alarm
from foretaste.deploy.database import open_engine, reading, writing
from foretaste.deploy.files import read_json, write_json
from foretaste.deploy.judging import comparator, verifier
from foretaste.deploy.processes import parent_lives
from foretaste.deploy.settings import DeployConfig, files_folder, store_url
from foretaste.deploy.store import add_alarms, add_checkpoint, judgements_made, requests_seen
from foretaste.deploy.training import held_back, status
from foretaste.deploy.training.admission import Admission
from foretaste.deploy.training.keeping import clear_scratch
from foretaste.deploy.training.response import Response
from foretaste.errors import ForetasteError

if TYPE_CHECKING:
    from foretaste.deploy.online import Experience, OnlineReport, OnlineTrainer
    from foretaste.models.actor_critic import ActorCritic
    from foretaste.records import Checkpoint

logger = logging.getLogger(__name__)

PROGRESS_FILE = "training.json"
BEAT_FILE = "training.beat"
"""Touched while the process lives and its step is not too long; the server watches it."""
POLL_SECONDS = 1.0
BEAT_SECONDS = 2.0
TOLD_SECONDS = 15.0
"""Longest time between two words about a process that waits."""


def run(config: DeployConfig, folder: str) -> None:
    """Learn until the process that started this one is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.umask(0o077)  # checkpoints and what is learned from hold what users said
    import torch

    beat = Beat(files_folder(config, Path(folder)) / BEAT_FILE, config.training.step_seconds)
    torch.set_num_threads(config.training.threads)
    try:
        work = TrainingWork(config, Path(folder))
        while parent_lives():
            beat.step()
            if not work.step():
                time.sleep(POLL_SECONDS)
    except Exception as error:
        tell_failure(config, Path(folder), error)
        raise


class Beat:
    """Touches a file from a thread of its own, as long as the main thread begins a step often enough."""

    def __init__(self, file: Path, most_seconds: float) -> None:
        self._file, self._most, self._began = file, most_seconds, time.monotonic()
        threading.Thread(target=self._run, name="foretaste-beat", daemon=True).start()

    def step(self) -> None:
        """A step begins."""
        self._began = time.monotonic()

    def _run(self) -> None:
        while True:
            if time.monotonic() - self._began < self._most:
                with contextlib.suppress(OSError):  # a full disk must not look like a process that hangs
                    self._file.touch()
            time.sleep(BEAT_SECONDS)


def tell_failure(config: DeployConfig, folder: Path, error: Exception) -> None:
    """Write down why the process ends, for people to read; a failing store keeps it from nobody else."""
    reason = str(error) if isinstance(error, ForetasteError) else type(error).__name__
    logger.error("Learning on the job failed: %s", reason)
    with contextlib.suppress(Exception):
        engine = open_engine(store_url(config, folder), create=False)
        with writing(engine) as connection:
            status.write(connection, {**status.read(connection), "phase": "failed", "reason": reason})
        engine.dispose()


class TrainingWork:
    """One deployment's learning, a step at a time."""

    def __init__(self, config: DeployConfig, folder: Path) -> None:
        """Load the weights to go on from, and the place up to which they have learned from judgements.

        Raises: ModelError if the accepted weights cannot be loaded.
        """
        from foretaste.deploy.online import OnlineTrainer
        from foretaste.deploy.training.experiences import Reader
        from foretaste.models import checkpoint

        self.config, training = config, config.training
        files = files_folder(config, folder)
        self.engine: Engine = open_engine(store_url(config, folder), create=False)
        self.key = audit.load_key(files, create=False)
        self.progress = files / PROGRESS_FILE
        clear_scratch(files / training.folder)
        now = state.load(self.engine, self.key)
        path = folder / (now.accepted_path or now.checkpoint_path or config.learner.checkpoint or "")
        accepted = checkpoint.read(path)
        progress = read_json(self.progress)
        learned, made = progress.get("learned"), progress.get("made", [])
        with reading(self.engine) as connection:
            self.learned = min(learned, judgements_made(connection)) if isinstance(learned, int) else 0
            self.told = status.read(connection)
        self.corrected = int(progress.get("corrected", 0))
        newest = files / training.folder / progress.get("newest", "none")
        model = self._resumed(newest) if accepted.id in made and newest.is_dir() else None
        self.made: list[str] = made if model is not None else [accepted.id]
        trainer = OnlineTrainer(
            model or checkpoint.load(path, device=config.learner.device), _online(config), files / training.folder
        )
        self.trainer: OnlineTrainer = trainer
        if model is not None:
            trainer.accept(accepted)
            trainer.best = self._read(files / training.folder / progress.get("best", "none")) or trainer.best
        trainer.ladder.load(progress.get("ladder", {}))
        if trainer.ladder.level > training.alarms.soft_responses:
            trainer.ladder.reset()  # it had stopped: that it runs again is a person's word
        trainer.resume_rates()
        compare, verify = comparator(config.takeover.comparator), verifier(config.takeover.verifier)
        admission = Admission(training, compare, verify, config.takeover.correct_from)
        self.reader = Reader(self.engine, config, trainer.model.template, admission)
        self.fresh_from = now.fresh_from
        self.steps = 0
        self.left_out: Counter[str] = Counter()
        self.outcomes: dict[str, dict[str, bool]] = {}
        """By content id: which held-back checks were right."""
        self._noticed: frozenset[str] = frozenset()
        self._corrected_to = self.corrected
        self._looked_at: tuple[int, int, int] | None = None
        self._last_told = 0.0
        self._tell("starting")

    def step(self) -> bool:
        """Learn from the next judgements if there are enough and it is permitted; return whether something was done."""
        now = state.load(self.engine, self.key)
        if not now.may_learn or now.killed:
            return False
        if self.trainer.stopped:  # a person permitted it again
            self.trainer.resume()
            self._save()
        if now.accepted is not None and now.accepted_path and now.accepted != self.trainer.accepted.id:
            from foretaste.models import checkpoint

            self.trainer.accept(checkpoint.read(now.accepted_path))
        if now.fresh_from > self.fresh_from:  # stepped back: what is remembered may be right no longer
            self.fresh_from = now.fresh_from
            self.trainer.forget()
        experiences, last = self.experiences()
        if len(experiences) < self.config.training.every:
            if not experiences:  # nothing up to there can be learned from
                self.learned, self.corrected = last, self._corrected_to
            if time.monotonic() - self._last_told > TOLD_SECONDS:
                self._tell("waiting", missing=self.config.training.every - len(experiences))
            return False
        self.left_out += self.reader.left_out
        report = self.trainer.step(experiences)
        self.learned, self.corrected = last, self._corrected_to
        if report.response is Response.COOLING_DOWN:
            self._tell("cooling_down", report)
            return True
        self.steps += 1
        taken_back = report.response in (Response.SOFTENED, Response.STOPPED)
        if not taken_back and self.steps % self.config.training.publish_every == 0:
            report = self._publish(report)
        self._say(report)
        return True

    def experiences(self) -> tuple[list[Experience], int]:
        """Return judged answers that were not learned from yet, oldest judgement first, and the last one's place."""
        from foretaste.deploy.training.experiences import Places

        with reading(self.engine) as connection:
            newest = (judgements_made(connection), requests_seen(connection), self.fresh_from)
            if newest != self._looked_at:  # it reads thousands of requests: not at every poll
                self.reader.admission.look(connection, self.fresh_from)
                self._looked_at = newest
        found, places = self.reader.read(Places(self.learned, self.corrected))
        self._corrected_to = places.corrected
        return found, places.judged

    # Checkpoints --------------------------------------------------------------------------------

    def _publish(self, report: OnlineReport) -> OnlineReport:
        """Publish the weights of now, unless held-back checks say that they are worse than the best kept ones."""
        found = self._compared()
        if found is not None and found.chance <= self.config.training.alarms.worse_chance:
            best = self.trainer.best
            reason = (
                f"{found.right} of {found.n} held-back checks are right, {found.best_right} of the best kept "
                f"checkpoint {best.id[:12]}"
            )
            knob = "training.key_share (lower), training.text_share (lower), training.learning_rate (lower)"
            alarm = Alarm("held_back", reason, knob, f"a chance of {found.chance:.1g} between equals")
            alarms, response = self.trainer.answer((alarm,))
            self.trainer.forget()  # what is remembered taught it
            return report._replace(alarms=alarms, response=response, stopped=response is Response.STOPPED)
        made = self.trainer.publish()
        note: dict[str, Any] = {"step": report.step, "masked": report.masked, "metrics": report.metrics}
        note["held_back"] = found._asdict() if found is not None else None
        with writing(self.engine) as connection:
            add_checkpoint(connection, made.id, made.path, made.parents[0] if made.parents else None, note)
            audit.append(connection, self.key, "trained", "training", {"checkpoint": made.id, "step": report.step})
        if found is not None and found.won > found.lost:
            self.trainer.best = made
            self.outcomes = {made.id: self.outcomes.get("now", {})}
        self.made.append(made.id)
        self._save(newest=made)
        return report

    def _compared(self) -> held_back.Compared | None:
        """Have the weights of now and the best kept ones answer held-back checks; None where there are none."""
        from foretaste.models import checkpoint

        training, admission = self.config.training, self.reader.admission
        with reading(self.engine) as connection:
            asked = held_back.checks(
                connection,
                share=training.held_back_share,
                newest=training.held_back_items,
                fresh_from=self.fresh_from,
                compare=admission.compare,
                verify=admission.verify,
                correct_from=admission.correct_from,
            )
        if not asked:
            return None
        best = self.trainer.best
        known = self.outcomes.setdefault(best.id, {})
        missing = [one for one in asked if one.request not in known]
        if missing:
            known |= self._answered(checkpoint.load(best.path, device=self.config.learner.device), missing)
        newer = self.outcomes["now"] = self._answered(self.trainer.model, asked)
        wanted = {one.request for one in asked}
        found = held_back.compared(newer, {name: right for name, right in known.items() if name in wanted})
        self.told["held_back"] = found._asdict()
        return found

    def _answered(self, model: ActorCritic, asked: list[held_back.Check]) -> dict[str, bool]:
        from foretaste.config import SamplingConfig
        from foretaste.models.sampler import Sampler

        learner = self.config.learner
        sampling = SamplingConfig(
            temperature=learner.temperature,
            max_new_tokens=learner.max_new_tokens,
            concurrent=learner.concurrent,
            max_context=learner.max_context,
        )
        most = learner.max_context - learner.max_new_tokens
        fitting = [one for one in asked if 0 < len(model.template.start(one.messages)) < most]
        return held_back.outcomes(Sampler(model, sampling), fitting)

    def _resumed(self, newest: Path) -> ActorCritic | None:
        """Return the newest weights; None if their folder is damaged: the accepted ones are taken then."""
        from foretaste.errors import ModelError
        from foretaste.models import checkpoint

        try:
            return checkpoint.load(newest, device=self.config.learner.device)
        except (ModelError, OSError) as error:
            logger.error("Learning begins with the accepted weights: the newest cannot be loaded (%s)", error)
            return None

    def _read(self, folder: Path) -> Checkpoint | None:
        from foretaste.errors import ModelError
        from foretaste.models import checkpoint

        try:
            return checkpoint.read(folder)
        except ModelError:
            return None

    def _save(self, *, newest: Checkpoint | None = None) -> None:
        """Write down where a process that is started again goes on."""
        before = read_json(self.progress)
        values = {**before, "best": Path(self.trainer.best.path).name, "ladder": self.trainer.ladder.state()}
        if newest is not None:
            values |= {"learned": self.learned, "corrected": self.corrected}
            values |= {"made": self.made, "newest": Path(newest.path).name}
        write_json(self.progress, values)

    # What people are told -----------------------------------------------------------------------

    def _say(self, report: OnlineReport) -> None:
        """Write down what a step did; an alarm also in the audit log, and against what it took back."""
        new = report.response is not Response.NOTICED or {one.name for one in report.alarms} - self._noticed
        if report.alarms and new:
            self._alarm(report)
        self._noticed = frozenset(one.name for one in report.alarms)
        self._tell("stopped" if report.stopped else "learning", report)

    def _alarm(self, report: OnlineReport) -> None:
        """Write an alarm down: audited, and against all checkpoints that it takes back.

        A stop is a change of the state (`may_learn`), which only a person makes undone.
        """
        first, response = report.alarms[0], report.response
        told = [{"name": one.name, "reason": one.reason, "evidence": one.evidence} for one in report.alarms]
        payload = {"alarms": told, "step": report.step, "response": response.value, "knob": first.knob}
        self.told["alarm"] = {**first._asdict(), "response": response.value, "step": report.step, "at": time.time()}
        if response is not Response.NOTICED:
            best = self.trainer.best
            payload["restored"] = best.id
            kept = self.made[: self.made.index(best.id) + 1] if best.id in self.made else [self.trainer.accepted.id]
            self.made = kept
            learned = read_json(self.progress)
            places = {name: learned.get(name, 0) for name in ("learned", "corrected")}
            newest = {"newest": Path(best.path).name}
            write_json(self.progress, {**places, **newest, "made": kept})
            self._save()
        with writing(self.engine) as connection:
            if response is not Response.NOTICED:
                found = [f"{one.name}: {one.reason}" for one in report.alarms]
                add_alarms(connection, self.trainer.accepted.id, found, kept=self.trainer.best.id)
            audit.append(connection, self.key, "training_alarm", "training", payload)
        if response is Response.STOPPED:
            reason = f"{first.name}: {first.reason}"
            state.change(self.engine, self.key, "learning_stopped", "training", {"may_learn": False}, reason)

    def _tell(self, phase: str, report: OnlineReport | None = None, *, missing: int | None = None) -> None:
        """Bring the row that people are shown up to date."""
        self._last_told = time.monotonic()
        if report is not None:
            self.told |= {"step": report.step, "metrics": report.metrics or self.told.get("metrics", {})}
        self.told |= {
            "phase": phase,
            "missing": missing,
            "learned": self.learned,
            "soft_answers": self.trainer.ladder.level,
            "left_out": dict(self.left_out),
            "suspects": self.reader.admission.suspects,
            "best": self.trainer.best.id,
            "accepted": self.trainer.accepted.id,
            "reason": "",
        }
        with writing(self.engine) as connection:
            status.write(connection, self.told)


def _online(config: DeployConfig) -> Any:
    """Return how the learner learns, from the settings."""
    from foretaste.config import AlgorithmConfig
    from foretaste.deploy.online import OnlineConfig

    training = config.training
    algorithm = AlgorithmConfig(
        learning_rate=training.learning_rate,
        critic_learning_rate=training.critic_learning_rate,
        head_learning_rate=training.head_learning_rate,
        kl_coefficient=training.kl_coefficient,
        entropy_coefficient=training.entropy_coefficient,
    )
    return OnlineConfig(
        algorithm=algorithm,
        temperature=config.learner.temperature,
        imitation_rate=training.imitation_rate,
        max_log_ratio=training.max_log_ratio,
        alarms=training.alarms,
    )
