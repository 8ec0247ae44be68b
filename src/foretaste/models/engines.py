"""Which engine samples while training: one function, from the setting `sampling.engine`."""

from __future__ import annotations

from foretaste.config import SamplingConfig
from foretaste.models.actor_critic import ActorCritic
from foretaste.models.sampler import Sampler
from foretaste.models.turns import Engine


def make_engine(actor_critic: ActorCritic, config: SamplingConfig) -> Engine:
    """Return the engine that the config names. Raises: ModelError if vLLM is asked for and cannot be had."""
    if config.engine == "vllm":
        from foretaste.models.vllm_sampler import VllmSampler

        return VllmSampler(actor_critic, config)
    return Sampler(actor_critic, config)
