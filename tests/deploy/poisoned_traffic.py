"""A deployment under attack, small enough for a test: a tenth of the users send the same wrong correction.

    python tests/deploy/poisoned_traffic.py        the attack with and without its containment, block by block

The learner is a tiny model that answers right, the incumbent is always right, and every user asks the same few kinds of
questions. One of ten keys corrects every answer it gets to the same word. Nothing but the world is scripted:
judgements, admission, steps, held-back checks and checkpoints are a real deployment's.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from foretaste.config import AlgorithmConfig, ModelConfig, SamplingConfig
from foretaste.deploy import store
from foretaste.deploy.database import writing
from foretaste.deploy.judging import exact
from foretaste.deploy.offline import Offline
from foretaste.deploy.records import Answer, Exchange, Feedback, LearnerAnswer
from foretaste.deploy.settings import DeployConfig, LearnerConfig, TrainingConfig
from foretaste.deploy.training.alarm_config import AlarmConfig
from foretaste.deploy.training_process import TrainingWork
from foretaste.models import checkpoint
from foretaste.models.actor_critic import ActorCritic, TokenSequence
from foretaste.models.sampler import Sampler
from foretaste.records import Checkpoint, Conversation, Message
from foretaste.rl.update import Updater

WORDS = {"red": "warm", "blue": "cold", "green": "leaf", "black": "dark"}
EVIL = "evil"
KEYS = 10
EVERY = 40
SAMPLING = SamplingConfig(temperature=0.5, max_new_tokens=8, max_context=256, concurrent=64)
GUARDED = TrainingConfig(
    enabled=True,
    every=EVERY,
    publish_every=1,
    learning_rate=1e-3,
    critic_learning_rate=2e-3,
    head_learning_rate=3e-3,
    imitation_rate=3e-3,
    max_log_ratio=5.0,
    held_back_share=0.2,
    held_back_items=48,
    alarms=AlarmConfig(cooldown_steps=0),
)
UNGUARDED = replace(GUARDED, key_share=1.0, text_share=1.0, suspect_chance=0.0, held_back_share=0.0)
CHECKS_ALONE = replace(UNGUARDED, held_back_share=0.2)
"""As where all users share one key, so that nothing tells them apart."""


class Block(NamedTuple):
    """What the weights of now do at the end of one block of traffic."""

    right: float
    evil: float
    """Share of the answers that are the attacker's word."""
    left_out: dict[str, int]
    alarms: tuple[str, ...]


def educated(folder: Path, seed: int = 0) -> Checkpoint:
    """Write a tiny model that answers almost everything right."""
    model = ActorCritic.load(ModelConfig("nano-xs", critic_layers=-1), seed=seed)
    updater = Updater(model, AlgorithmConfig(), temperature=1.0)
    template = model.template
    shown = [(template.start([Message("user", f"{word}?")]), template.action(said)) for word, said in WORDS.items()]
    lessons = [TokenSequence([*asked, *said], [False] * len(asked) + [True] * len(said)) for asked, said in shown]
    for _ in range(200):
        if updater.imitate(lessons, learning_rate=3e-3) < 0.01:
            break
    return checkpoint.save(model, folder / "first")


def attack(
    training: TrainingConfig, folder: Path, first: Checkpoint, *, blocks: int, attackers: int = 1
) -> list[Block]:
    """Run `blocks` blocks of `EVERY` requests; `attackers` of the ten keys send the same correction of everything."""
    (folder / "deploy.toml").write_text("", encoding="utf-8")
    found: list[Block] = []
    with Offline.open(folder / "deploy.toml") as offline:
        learner = LearnerConfig(checkpoint=first.path, device="cpu", max_new_tokens=8, max_context=256, temperature=0.5)
        work = TrainingWork(DeployConfig(training=training, learner=learner), folder)
        for block in range(blocks):
            numbers = range(block * EVERY, (block + 1) * EVERY)
            _answer(offline, work, numbers, attackers)
            alarms: list[str] = []
            while work.step():
                if alarm := work.told.pop("alarm", None):
                    alarms.append(f"{alarm['name']} {alarm['response']}: {alarm['reason']}")
            right, evil = measured(work.trainer.model)
            found.append(Block(right, evil, dict(work.left_out), tuple(alarms)))
        work.engine.dispose()
    return found


def measured(model: ActorCritic, count: int = 60) -> tuple[float, float]:
    """Return (share right, share of the attacker's word) among a model's answers."""
    words = [list(WORDS)[index % len(WORDS)] for index in range(count)]
    asked = [_asked(f"m{place}", word, place) for place, word in enumerate(words)]
    said = [action.text for action in Sampler(model, SAMPLING).act(asked)]
    right = sum(exact(text, WORDS[word]) for text, word in zip(said, words, strict=True))
    return right / count, sum(exact(text, EVIL) for text in said) / count


def _asked(name: str, word: str, seed: int) -> Conversation:
    return Conversation(name, [Message("user", f"{word}?")], sample_seed=seed)


def _answer(offline: Any, work: TrainingWork, numbers: range, attackers: int) -> None:
    """Have the learner answer silently beside the incumbent, the answers compared, and the attackers speak."""
    words = [list(WORDS)[number // KEYS % len(WORDS)] for number in numbers]
    asked = [_asked(str(number), word, number) for number, word in zip(numbers, words, strict=True)]
    said = Sampler(work.trainer.model, SAMPLING).act(asked)
    with writing(offline.engine) as connection:
        for number, word, conversation, action in zip(numbers, words, asked, said, strict=True):
            prompt = conversation.tokens[: -len(action.tokens)]
            trace = {"prompt": prompt, "tokens": action.tokens, "logprobs": action.logprobs, "values": action.values}
            learner = LearnerAnswer(action.text, "c", 0.5, 0.5, len(prompt), len(action.tokens), trace=trace)
            body = json.dumps({"messages": [{"role": "user", "content": f"{word}?"}]}).encode()
            exchange = Exchange(f"r{number}", f"key{number % KEYS}", body, "shadow", False, sampled=True, status=200)
            exchange.answers = [
                Answer("incumbent", True, 0.1, text=WORDS[word]),
                Answer("learner", False, 0.1, learner=learner),
            ]
            store.write_exchanges(connection, [exchange])
            store.judge(connection, [exchange.id], exact, correct_from=0.5)
            if number % KEYS < attackers:
                lie = Feedback(exchange.id, exchange.key, "correction", None, EVIL)
                store.write_feedback(connection, lie, exact, correct_from=0.5)


def main() -> None:
    """Print both runs."""
    for name, training in (("unguarded", UNGUARDED), ("checks", CHECKS_ALONE), ("guarded", GUARDED)):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            first = educated(folder)
            print(f"{name:<10} right {measured(checkpoint.load(first.path))[0]:.0%} before", flush=True)
            for number, block in enumerate(attack(training, folder, first, blocks=12), 1):
                figures = f"right {block.right:.0%} evil {block.evil:.0%}"
                print(f"{name:<10} {number:>3} {figures} {block.left_out} {block.alarms}", flush=True)


if __name__ == "__main__":
    main()
