"""Hugging Face `generate`, in bfloat16: tokens alone, neither log-probabilities nor values."""

from __future__ import annotations

import os
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.generation.stopping_criteria import StoppingCriteria, StoppingCriteriaList

from benchmarks import workloads
from benchmarks.protocol import Line, serve
from benchmarks.workloads import Talk


class Lengths(StoppingCriteria):
    """Ends each row after its own number of new tokens."""

    def __init__(self, prompt: int, lengths: list[int]) -> None:
        """`prompt` is the padded length of all prompts."""
        self.ends = torch.tensor([prompt + length for length in lengths])

    def __call__(self, input_ids: torch.Tensor, scores: Any, **options: Any) -> Any:
        """Say which rows are done."""
        return self.ends <= input_ids.shape[1]


@torch.inference_mode()
def answer(model: Any, contexts: list[list[int]], lengths: list[int]) -> list[list[int]]:
    """Sample for one batch of left-padded contexts; return the new tokens."""
    width = max(map(len, contexts))
    ids = torch.zeros(len(contexts), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, context in enumerate(contexts):
        ids[row, width - len(context) :] = torch.tensor(context)
        mask[row, width - len(context) :] = 1
    out = model.generate(
        input_ids=ids,
        attention_mask=mask,
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=max(lengths),
        pad_token_id=0,
        stopping_criteria=StoppingCriteriaList([Lengths(width, lengths)]),
    )
    return [row[width : width + length].tolist() for row, length in zip(out, lengths, strict=True)]


def play(model: Any, talks: list[Talk]) -> int:
    """Play conversations in batches; each turn reads its whole context again."""
    tokens = 0
    for first in range(0, len(talks), workloads.CONCURRENT):
        batch = talks[first : first + workloads.CONCURRENT]
        contexts = [list(talk.prompt) for talk in batch]
        for turn in range(len(batch[0].turns)):
            lengths = [talk.turns[turn].new_tokens for talk in batch]
            answers = answer(model, contexts, lengths)
            tokens += sum(map(len, answers))
            contexts = [c + a + t.turns[turn].observation for c, a, t in zip(contexts, answers, batch, strict=True)]
    return tokens


def main() -> None:
    """Serve requests."""
    line = Line()
    torch.set_num_threads(int(os.environ["BENCH_THREADS"]))
    model: Any = AutoModelForCausalLM.from_pretrained(os.environ["BENCH_MODEL"], dtype=torch.bfloat16).eval()
    model.generation_config.eos_token_id = None
    serve(line, lambda name, seed, quick: {"tokens": play(model, workloads.talks(name, seed, quick=quick))})


if __name__ == "__main__":
    main()
