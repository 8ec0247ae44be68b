"""The process that learns on the job: judged answers from the store in, checkpoints named by their content out.

It goes on from its last checkpoint and reads on where that one stopped (`training.json` beside the store), so a process
that was killed learns the same again and leaves no judgement out. It begins with the accepted weights where a person
chose others than it made, or an alarm took back what had been learned since them. Permission is looked up in the state
before every step. What it makes is only written down; the supervisor tries it in shadow. Next: `online.py` for the
learning itself.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from foretaste.deploy import audit, state
from foretaste.deploy.database import open_engine, reading, writing
from foretaste.deploy.files import read_json, write_json
from foretaste.deploy.judging import exact
from foretaste.deploy.processes import parent_lives
from foretaste.deploy.settings import DeployConfig, files_folder, store_url
from foretaste.deploy.store import add_alarms, add_checkpoint, corrections_of, judgements_made
from foretaste.deploy.tables import answers
from foretaste.records import Action

if TYPE_CHECKING:
    from foretaste.deploy.online import Experience, OnlineReport, OnlineTrainer

logger = logging.getLogger(__name__)

PROGRESS_FILE = "training.json"
POLL_SECONDS = 1.0
RETRY_SECONDS = 5.0


def run(config: DeployConfig, folder: str) -> None:
    """Learn until the process that started this one is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.umask(0o077)  # checkpoints and what is learned from hold what users said
    import torch

    torch.set_num_threads(config.training.threads)
    work = TrainingWork(config, Path(folder))
    while parent_lives():
        if not work.step():
            time.sleep(POLL_SECONDS)


class TrainingWork:
    """One deployment's learning, a step at a time."""

    def __init__(self, config: DeployConfig, folder: Path) -> None:
        """Load the weights to go on from, and the place up to which they have learned from judgements."""
        from foretaste.config import AlgorithmConfig
        from foretaste.deploy.online import OnlineConfig, OnlineTrainer
        from foretaste.models import checkpoint

        self.config, training = config, config.training
        files = files_folder(config, folder)
        self.engine: Engine = open_engine(store_url(config, folder), create=False)
        self.key = audit.load_key(files, create=False)
        self.progress = files / PROGRESS_FILE
        now = state.load(self.engine, self.key)
        path = folder / (now.accepted_path or now.checkpoint_path or config.learner.checkpoint or "")
        accepted = checkpoint.read(path)
        progress = read_json(self.progress)
        learned, made = progress.get("learned"), progress.get("made", [])
        newest = files / training.folder / progress.get("newest", "none")
        with reading(self.engine) as connection:
            self.learned = min(learned, judgements_made(connection)) if isinstance(learned, int) else 0
        resumed = accepted.id in made and newest.is_dir()
        self.made: list[str] = made if resumed else [accepted.id]
        algorithm = AlgorithmConfig(
            learning_rate=training.learning_rate,
            critic_learning_rate=training.critic_learning_rate,
            head_learning_rate=training.head_learning_rate,
            kl_coefficient=training.kl_coefficient,
        )
        online = OnlineConfig(
            algorithm=algorithm, temperature=config.learner.temperature, imitation_rate=training.imitation_rate
        )
        model = checkpoint.load(newest if resumed else path, device=config.learner.device)
        self.trainer: OnlineTrainer = OnlineTrainer(model, online, files / training.folder)
        if resumed:
            self.trainer.accept(accepted)
        self.fresh_from = now.fresh_from
        self.steps = 0
        self.announced = False

    def step(self) -> bool:
        """Learn from the next judgements if there are enough and it is permitted; return whether something was done."""
        now = state.load(self.engine, self.key)
        if not now.may_learn or now.killed:
            return False
        if now.accepted is not None and now.accepted_path and now.accepted != self.trainer.accepted.id:
            from foretaste.models import checkpoint

            self.trainer.accept(checkpoint.read(now.accepted_path))
        if now.fresh_from > self.fresh_from:  # stepped back: what is remembered may be right no longer
            self.fresh_from = now.fresh_from
            self.trainer.forget()
        experiences, last = self.experiences()
        if len(experiences) < self.config.training.every:
            self.learned = self.learned if experiences else last  # nothing up to there can be learned from
            return False
        report = self.trainer.step(experiences)
        self.learned, self.steps = last, self.steps + 1
        if report.stopped:
            self._alarm(report)
        elif self.steps % self.config.training.publish_every == 0:
            self._publish(report)
        return True

    def experiences(self) -> tuple[list[Experience], int]:
        """Return judged answers that were not learned from yet, oldest judgement first, and the last one's place."""
        from foretaste.deploy.online import Experience

        every = self.config.training.every
        query = sa.select(answers).where(answers.c.role == "learner", answers.c.trace.is_not(None))
        found: list[Experience] = []
        last = self.learned
        while len(found) < every:  # answers without tokens are passed over
            with reading(self.engine) as connection:
                rows = list(
                    connection.execute(query.where(answers.c.judged > last).order_by(answers.c.judged).limit(every))
                )
                right = self._right_answers(connection, {row.request: row.text or "" for row in rows})
            if not rows:
                break
            for row in rows[: every - len(found)]:
                trace: dict[str, Any] = json.loads(row.trace)
                last = row.judged
                if not trace["tokens"]:
                    continue
                wrong = row.score < self.config.takeover.correct_from
                text = right.get(row.request) if wrong else None
                tokens, logprobs, values = (tuple(trace[name]) for name in ("tokens", "logprobs", "values"))
                action = Action(row.text or "", tokens, logprobs, values)
                correction = tuple(self.trainer.model.template.action(text)) if text else None
                prompt = tuple(trace["prompt"])
                found.append(Experience(row.request, row.checkpoint, prompt, action, row.score, correction))
        return found, last

    def _right_answers(self, connection: sa.Connection, said: dict[str, str]) -> dict[str, str]:
        """Return what should have been answered: a correction by a person, or else the incumbent's answer.

        `said` holds what the learner answered to each request. The incumbent's answer is right neither where somebody
        judged it wrong, nor where it is the learner's own, which was judged wrong.
        """
        found: dict[str, str] = {}
        if self.config.training.imitate_incumbent:
            query = sa.select(answers.c.request, answers.c.text).where(
                answers.c.request.in_(list(said)),
                answers.c.role != "learner",
                answers.c.text.is_not(None),
                sa.or_(answers.c.score.is_(None), answers.c.score >= self.config.takeover.correct_from),
            )
            rows = connection.execute(query)
            found |= {row.request: row.text for row in rows if not exact(row.text, said[row.request])}
        return found | corrections_of(connection, list(said))

    def _publish(self, report: OnlineReport) -> None:
        made = self.trainer.publish()
        note = {"step": report.step, "masked": report.masked, "metrics": report.metrics}
        with writing(self.engine) as connection:
            add_checkpoint(connection, made.id, made.path, made.parents[0] if made.parents else None, note)
            audit.append(connection, self.key, "trained", "training", {"checkpoint": made.id, "step": report.step})
        self.made.append(made.id)
        write_json(self.progress, {"learned": self.learned, "made": self.made, "newest": Path(made.path).name})

    def _alarm(self, report: OnlineReport) -> None:
        """Write the alarm down once, and against all that this learning has made since a version was accepted.

        Learning stands still until the process is started again, which begins with the accepted version.
        """
        if self.announced:
            return
        self.announced = True
        write_json(self.progress, {"learned": read_json(self.progress).get("learned", 0)})
        found = [f"{one.name}: {one.reason}" for one in report.alarms]
        payload = {"alarms": found, "step": report.step}
        with writing(self.engine) as connection:
            add_alarms(connection, self.trainer.accepted.id, found)
            audit.append(connection, self.key, "training_alarm", "training", payload)
