"""foretaste's side of the comparison of learning: the warm start, the runs of its arms, and the exam of all arms.

One job a process, as a line of JSON on standard input; progress and the answer as lines on standard output.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.learning_plan import CHAT_TEMPLATE, CONTEXT, EPISODES, GROUP, NEW_TOKENS, TURNS, knobs
from benchmarks.learning_task import config_of
from benchmarks.protocol import Line, peak_bytes
from foretaste.api import summary_of
from foretaste.config import (
    AlgorithmConfig,
    HeldOutConfig,
    ImitateConfig,
    ModelConfig,
    ReplayConfig,
    SamplingConfig,
    TrainConfig,
)
from foretaste.lab.methods import METHODS
from foretaste.ledger import Ledger
from foretaste.models import checkpoint as checkpoints
from foretaste.models.actor_critic import ActorCritic
from foretaste.models.sampler import Sampler
from foretaste.models.sources import resolve
from foretaste.progress import Silent
from foretaste.rl.imitate import imitate
from foretaste.rl.pools import pool_of
from foretaste.rl.rollout import rollout
from foretaste.rl.tasks import held_out_tasks
from foretaste.rl.train import train
from foretaste.rl.update import Updater

ALGORITHMS = {
    "auto": AlgorithmConfig(name="auto"),
    "success-replay": AlgorithmConfig(name="reinforce"),
    "grpo": AlgorithmConfig(name="grpo", group_size=GROUP),
    "leave-one-out": AlgorithmConfig(name="reinforce", group_size=GROUP),
}
REPLAYS = {"success-replay": ReplayConfig(**METHODS["success-replay"]["replay"])}
"""Those of the studies, for the control without a critic; the other arms have the defaults."""
DEMONSTRATIONS = 192
WARM_RATE = 1e-4
"""Learning rate of the warm start."""
PAID = ("sampling", "environment", "value pretraining", "training")
"""Parts of a run that count as its time; loading, saving and held-out items do not."""
ALL_CUES = 18
"""Of either kind: the warm start meets every character that a cue can be."""


class Told(Silent):
    """Says after each step how far a run is. Tokens of value pretraining are known, and told, at the end alone."""

    def __init__(self, line: Line) -> None:
        self.line, self.tokens, self.episodes = line, 0, 0

    def metrics(self, step: int, values: dict[str, float]) -> None:
        """Count what the step has sampled."""
        self.tokens += int(values["train/sampled_tokens"])
        self.episodes += EPISODES
        self.line.say({"tokens": self.tokens, "episodes": self.episodes, "success": values.get("train/success")})


def config(job: dict[str, Any]) -> TrainConfig:
    """Return the settings of a run: foretaste's defaults, but for what the comparison fixes."""
    arm = job.get("arm", "auto")
    chosen = knobs(arm, job.get("updates", 1))
    in_replay = {name: value for name, value in chosen.items() if hasattr(ReplayConfig, name)}
    in_algorithm = {name: value for name, value in chosen.items() if name not in in_replay}
    return dataclasses.replace(
        config_of(job["seed"]),
        model=ModelConfig(name=job["model"], device="cpu", dtype="bfloat16"),
        sampling=SamplingConfig(max_new_tokens=NEW_TOKENS, max_context=CONTEXT),
        algorithm=dataclasses.replace(ALGORITHMS[arm], learning_rate=job.get("rate", 1e-4), **in_algorithm),
        replay=dataclasses.replace(REPLAYS.get(arm, ReplayConfig()), **in_replay),
        held_out=HeldOutConfig(items=1),  # the exam is another job, the same for all arms
        token_budget=job.get("tokens"),
        steps=1_000_000,
        save_every=1_000_000,
        runs_folder=job.get("folder", "runs"),
    )


def warm(job: dict[str, Any], line: Line) -> dict[str, Any]:
    """Teach the form of a call by random words, and save the checkpoint that all arms start from."""
    source, folder = resolve("smollm2-135m"), Path(job["folder"])
    base = folder.parent / "base"
    base.mkdir(parents=True, exist_ok=True)
    for file in Path(source).iterdir():
        link = base / file.name
        link.unlink(missing_ok=True)
        link.symlink_to(file.resolve())
    (base / "chat_template.jinja").unlink(missing_ok=True)
    (base / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    settings = config({"seed": 0, "model": str(base)})
    settings = dataclasses.replace(
        settings,
        env=dataclasses.replace(settings.env, id=f"{settings.env.id}&cues={ALL_CUES}"),
        imitate=ImitateConfig(episodes=DEMONSTRATIONS, teacher="uniform_action", passes=2, learning_rate=WARM_RATE),
    )
    actor_critic = ActorCritic.load(settings.model, seed=0)
    updater = Updater(actor_critic, settings.algorithm, temperature=1.0)
    losses = imitate(settings, pool_of(settings, None), updater, actor_critic.template, Silent())
    line.say({"note": f"warm start: loss {losses[0]:.3f} -> {losses[-1]:.3f}"})
    saved = checkpoints.save(actor_critic, folder)
    (folder / checkpoints.CRITIC_FILE).unlink()  # every run begins with a critic of its own
    (folder / checkpoints.CARD_FILE).unlink()
    return {"id": saved.id, "loss": losses[-1]}


def learn(job: dict[str, Any], line: Line) -> dict[str, Any]:
    """Run one arm."""
    settings = config(job)
    checkpoint = train(settings, progress=Told(line))
    assert checkpoint.run is not None
    with Ledger.open(job["folder"], create=False) as ledger:
        summary = summary_of(ledger, checkpoint.run)
        last = ledger.records(checkpoint.run, "metrics")[-1].payload
    return {
        "model": checkpoint.path,
        "tokens": summary.sampled_tokens,
        "last_tokens": int(last["train/sampled_tokens"]),
        "episodes": summary.episodes,
        "seconds": sum(summary.seconds.get(part, 0.0) for part in PAID),
        "peak_bytes": peak_bytes(),
    }


def exam(job: dict[str, Any], line: Line) -> dict[str, Any]:
    """Let a model's folder play the held-out items; which items and which draws depends on the seed alone."""
    settings = config(job)
    sampler = Sampler(ActorCritic.load(settings.model, seed=0), settings.sampling)
    tasks = held_out_tasks(settings, "exam", job["items"])
    episodes = rollout(sampler, tasks, pool_of(settings, None)).episodes
    finished = sum(len(episode.turns) == TURNS + 1 for episode in episodes)
    line.say({"note": f"{finished} of {len(episodes)} kept the form to the end"})
    return {
        "success": [episode.success for episode in episodes],
        "tokens": sum(episode.action_tokens for episode in episodes),
    }


def main() -> None:
    """Do one job."""
    line = Line()
    job = json.loads(sys.stdin.readline())
    import torch

    torch.set_num_threads(job["threads"])
    line.say({"done": {"warm": warm, "learn": learn, "exam": exam}[job["work"]](job, line)})


if __name__ == "__main__":
    main()
