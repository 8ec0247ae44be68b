"""Train on questions and answers of your own, one JSON object a line. Run it: python examples/own_dataset.py

Every line has a `prompt` and an `answer`. How answers are graded: src/foretaste/envs/dataset.py.
"""

import json
import random
from pathlib import Path

import foretaste


def write_questions(file: Path, count: int = 200) -> None:
    """Write a small data set: which of two numbers is larger?"""
    draw = random.Random(0)
    with file.open("w", encoding="utf-8") as lines:
        for _ in range(count):
            first, second = draw.sample(range(100), 2)
            row = {"prompt": f"Which is larger, {first} or {second}?", "answer": str(max(first, second))}
            lines.write(json.dumps(row) + "\n")


def main(runs_folder: str = "runs") -> foretaste.Checkpoint:
    """Write the questions, train for a few steps, return the checkpoint."""
    folder = Path(runs_folder)
    folder.mkdir(parents=True, exist_ok=True)
    questions = folder / "questions.jsonl"
    write_questions(questions)
    config = foretaste.TrainConfig(
        model=foretaste.ModelConfig(name="nano"),
        env=foretaste.EnvConfig(id=f"dataset:{questions}", examples=1),
        sampling=foretaste.SamplingConfig(max_new_tokens=8),
        algorithm=foretaste.AlgorithmConfig(value_pretraining_episodes=16),
        held_out=foretaste.HeldOutConfig(items=20),
        steps=2,
        episodes_per_step=16,
        runs_folder=runs_folder,
    )
    return foretaste.train(config, progress=foretaste.RichProgress(steps=config.steps))


if __name__ == "__main__":
    print(main().path)
