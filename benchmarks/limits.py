"""The least time that a workload can take on this machine, from its arithmetic and its traffic alone."""

from __future__ import annotations

from typing import Any, NamedTuple

from benchmarks.workloads import CONCURRENT, Talk


class Size(NamedTuple):
    """A policy and its critic, in numbers of weights."""

    layers: int
    """Weights of all decoder layers, the critic's included."""
    head: int
    """Weights of the output matrix."""
    cached: int
    """Numbers that one token leaves in the cache: keys and values of all layers, the critic's included."""
    attended: int
    """Multiplications by which one query looks at one token, in all layers."""


def size_of(config: Any, critic_layers: int) -> Size:
    """Return the sizes of a decoder of the Llama shape with a critic of so many layers."""
    hidden, inner = config.hidden_size, config.intermediate_size
    head_size = getattr(config, "head_dim", None) or hidden // config.num_attention_heads
    layers = config.num_hidden_layers + critic_layers
    both = (config.num_attention_heads + config.num_key_value_heads) * head_size
    return Size(
        layers * (2 * hidden * both + 3 * hidden * inner),
        config.vocab_size * hidden,
        layers * 2 * config.num_key_value_heads * head_size,
        layers * 2 * config.num_attention_heads * head_size,
    )


def sampling_seconds(talks: list[Talk], size: Size, gflops: float, gbytes: float) -> float:
    """Return the least seconds for sampling: all arithmetic, or all traffic, whichever takes longer.

    A token is read once, however often it is in a context; the weights are read once for every round of
    `CONCURRENT` tokens; each token's keys and values are read by every later token of its conversation, and a prompt
    that a group shares is computed once.
    """
    flops = traffic = 0.0
    sampled = 0
    prompts: set[tuple[int, ...]] = set()
    for talk in talks:
        prompt = tuple(talk.prompt)
        context = 0 if prompt not in prompts else len(prompt)
        new = len(prompt) - context
        prompts.add(prompt)
        for turn in talk.turns:
            read = new + turn.new_tokens
            flops += 2 * read * size.layers + 2 * turn.new_tokens * size.head
            flops += 2 * size.attended * sum(range(context, context + read))
            traffic += 2 * size.cached * sum(range(context + new, context + read))
            sampled += turn.new_tokens
            context += read
            new = len(turn.observation)
    rounds = max(sampled / CONCURRENT, max(sum(turn.new_tokens for turn in talk.turns) for talk in talks))
    traffic += 2 * rounds * (size.layers + size.head)
    return max(flops / gflops, traffic / gbytes) / 1e9


def training_seconds(tokens: int, sampled: int, policy: Size, critic: Size, gflops: float) -> float:
    """Return the least seconds for a forward and backward pass: three products a weight, of all tokens.

    `tokens` are read, `sampled` are predicted (they need the output matrix). Attention is left out.
    """
    return 6 * (tokens * (policy.layers + critic.layers) + sampled * policy.head) / gflops / 1e9
