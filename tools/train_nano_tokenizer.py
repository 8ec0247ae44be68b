"""Make nano's tokenizer: `python tools/train_nano_tokenizer.py` writes `src/foretaste/models/nano_tokenizer.json`.

Byte-level BPE over oracle episodes of every environment, and sentences in their style. Same code, same file.
It is a tool beside the package, since models know nothing of environments.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from foretaste.envs import registry
from foretaste.envs.base import TextEnv, demonstrate
from foretaste.envs.seeds import seed_for
from foretaste.errors import EnvError
from foretaste.models.nano import SPECIAL_TOKENS, TOKENIZER_FILE

VOCABULARY = 1024

ACTIONS = (
    "north south east west take open wait look key door yes no higher lower correct left right up down go stop push",
    "pull press red green blue billing shipping returns technical sales account refund cancel lookup search reply",
    "escalate order set add swap delete insert replace line check pass fail true false null name item colour color",
    "quantity date customer status unlock use move answer value",
)
SENTENCES = (
    "You are in a room. Exits: north, east. You see a key. The door is locked. The key is 3 north and 2 west of you.",
    "Guess a whole number from 1 to 20. Too low. Too high. Try again. You have 4 tries left. Correct, well done.",
    "Answer with one word only. Answer with the number only. Reply with JSON only.",
    "Hi, I would like to order two red shirts and a large blue mug, please. My name is Anna. No, make that five.",
    "Where is my parcel? It has not arrived. I want my money back. I cannot log in to my account. Please help me.",
    "Each turn, send one action. Nothing happens. That is not possible here. You move. The task is done.",
    "x = 3\ny = x + 4\nif x > 2:\n    y = y - 1\nreturn y\ncheck 1: pass\ncheck 2: fail, expected 7, got 5\n",
    '{"name": "Anna", "item": "mug", "colour": "blue", "quantity": 2}\n{"tool": "lookup", "order": 1234}\n',
    "The turn ended. Step 5 of 10. Press one of the buttons. The lock clicks. The light is on. The light is off.",
)


def episodes(per_level: int = 12) -> Iterator[str]:
    """Yield instructions, observations and oracle actions of the package's own environments."""
    for name in sorted(registry.names()):
        if "/" in name or ":" in name:
            continue
        env = registry.make(name).unwrapped
        if not isinstance(env, TextEnv):
            continue
        yield env.instructions
        for level in env.levels:
            for index in range(per_level):
                try:
                    played = demonstrate(env, seed_for("train", index), level=level, turns=12)
                except EnvError:
                    continue
                yield from (text for pair in played for text in pair)


def lines() -> Iterator[str]:
    """Yield the training text, deterministically."""
    draw = random.Random(0)
    words = " ".join(ACTIONS).split()
    for _ in range(60):
        yield from words
        yield " ".join(draw.sample(words, 12))
        yield ", ".join(draw.sample(words, 6))
    for _ in range(20):
        yield from SENTENCES
    yield from episodes()


def main() -> None:
    """Train and write the tokenizer."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(  # pyright: ignore[reportAttributeAccessIssue]
        [
            pre_tokenizers.Split(Regex(r"\d"), "isolated"),
            pre_tokenizers.Split(Regex(r"\n"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,  # pyright: ignore[reportCallIssue]
        special_tokens=list(SPECIAL_TOKENS),  # pyright: ignore[reportCallIssue]
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),  # pyright: ignore[reportCallIssue]
        show_progress=False,  # pyright: ignore[reportCallIssue]
    )
    tokenizer.train_from_iterator(lines(), trainer)
    tokenizer.save(str(TOKENIZER_FILE), pretty=False)
    print(f"{TOKENIZER_FILE}: {tokenizer.get_vocab_size()} tokens")


if __name__ == "__main__":
    main()
