"""`nano`: a small randomly initialised Llama decoder with a tiny tokenizer, for tests and quick studies.

It runs through the same code as a downloaded model. Its tokenizer (byte-level BPE, any text can be
written) ships with the package; `tools/train_nano_tokenizer.py` made it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from foretaste.models.seeding import seeded

TOKENIZER_FILE = Path(__file__).with_name("nano_tokenizer.json")
SPECIAL_TOKENS = ("<|end|>", "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def tokenizer() -> Any:
    """Return nano's tokenizer: 1,024 tokens, digits singly, common action words whole."""
    from transformers import PreTrainedTokenizerFast

    loaded = PreTrainedTokenizerFast(
        tokenizer_file=str(TOKENIZER_FILE),
        eos_token=SPECIAL_TOKENS[0],
        pad_token=SPECIAL_TOKENS[1],
        additional_special_tokens=list(SPECIAL_TOKENS[2:]),
        clean_up_tokenization_spaces=False,
    )
    loaded.chat_template = CHAT_TEMPLATE
    loaded.name_or_path = "nano"
    return loaded


class Shape(NamedTuple):
    """What sets the sizes apart."""

    width: int
    inner: int
    layers: int
    heads: int
    key_heads: int


SHAPES = {"nano": Shape(128, 320, 3, 4, 2), "nano-xs": Shape(64, 160, 2, 4, 2)}
"""`nano`: 0.6 million parameters; `nano-xs`: 0.15 million, for studies of many runs."""


def policy(seed: int, name: str = "nano") -> Any:
    """Return a fresh float32 decoder of the named shape, drawn from `seed`."""
    return decoder(seed, SHAPES[name])


def decoder(seed: int, shape: Shape) -> Any:
    """Return a fresh float32 decoder of any shape, drawn from `seed`: laws of scale need sizes without a name."""
    from transformers import LlamaConfig, LlamaForCausalLM

    words = tokenizer()
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=shape.width,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_heads,
        max_position_embeddings=8192,
        initializer_range=0.04,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )
    with seeded(seed):
        return LlamaForCausalLM(config).eval()
