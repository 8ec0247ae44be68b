"""Make `nano_tokenizer.json`: `python -m foretaste.models.train_nano_tokenizer [TEXT_FILE ...]`.

Byte-level BPE over text in the style of the environments. Text files given as arguments (for example
rendered oracle episodes, one message a line) are added to the built-in sentences. Same input, same file.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path

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


def lines(extra: list[Path]) -> Iterator[str]:
    """Yield the training text, deterministically."""
    draw = random.Random(0)
    words = " ".join(ACTIONS).split()
    for _ in range(60):
        yield from words
        yield " ".join(draw.sample(words, 12))
        yield ", ".join(draw.sample(words, 6))
    for _ in range(20):
        yield from SENTENCES
    for file in extra:
        yield from file.read_text(encoding="utf-8").splitlines()


def main(extra: list[Path]) -> None:
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
    tokenizer.train_from_iterator(lines(extra), trainer)
    tokenizer.save(str(TOKENIZER_FILE), pretty=False)
    print(f"{TOKENIZER_FILE}: {tokenizer.get_vocab_size()} tokens")


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]])
