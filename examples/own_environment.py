"""Train on an environment of your own. Run it: python examples/own_environment.py

`nano` is a tiny decoder with random weights, so this takes seconds and shows the path; for a language model
leave `model` out (smollm2-135m), or name any Hugging Face causal LM.
"""

import foretaste


class Parity(foretaste.TextEnv):
    """One turn: say whether a number is even or odd."""

    name = "parity"
    instructions = "Answer with one word: even or odd."

    def begin(self):
        self.number = self.random.randrange(1000)
        return str(self.number), {}

    def oracle(self):
        return "odd" if self.number % 2 else "even"

    def act(self, action):
        right = float(action.strip() == self.oracle())
        return "", right, True, {"success": right}


def main(runs_folder: str = "runs") -> foretaste.Checkpoint:
    """Train for a few steps; return the checkpoint, whose folder transformers can load."""
    config = foretaste.TrainConfig(
        model=foretaste.ModelConfig(name="nano"),
        env=foretaste.EnvConfig(id="parity", examples=0),
        sampling=foretaste.SamplingConfig(max_new_tokens=8),
        imitate=foretaste.ImitateConfig(episodes=160, learning_rate=3e-3),
        held_out=foretaste.HeldOutConfig(items=50),
        steps=3,
        episodes_per_step=32,
        runs_folder=runs_folder,
    )
    return foretaste.train(config, env=Parity, progress=foretaste.RichProgress(steps=config.steps))


if __name__ == "__main__":
    print(main().path)
