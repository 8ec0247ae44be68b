"""Bring a policy, its tokenizer and a saved critic into memory, with errors that say what to do.

`sources.py` turns names into folders; this file reads the folders. `actor_critic.py` assembles.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch

from foretaste.config import ModelConfig, from_dict
from foretaste.errors import ModelError
from foretaste.models import nano, sources
from foretaste.models.pretrained import architecture, weight_files

CRITIC_FILE = "critic.safetensors"
CARD_FILE = "foretaste.json"
"""Beside the weights in a checkpoint folder: config, parents, run, step."""


def device(name: str) -> torch.device:
    """Return the device; `auto` is the GPU if there is one. Raises: ModelError if it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(name)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(
            f"Device {name!r} is not available here ({reason}). Accepted: auto, cpu, cuda, cuda:1 ... "
            "where PyTorch sees such a device."
        ) from error
    return chosen


def policy(config: ModelConfig, seed: int) -> tuple[Any, Any, Path | None]:
    """Return the causal LM, its tokenizer, and the folder they came from (None for a fresh nano)."""
    _quieten()
    if config.name in nano.SHAPES:
        return nano.policy(seed, config.name).to(_dtype(config, None)), nano.tokenizer(), None
    where = sources.resolve(config.name)
    folder = Path(where) if Path(where).is_dir() else None
    model, tokenizer = _from_pretrained(config, where, _dtype(config, folder))
    return model, tokenizer, folder


def _from_pretrained(config: ModelConfig, where: str | Path, dtype: torch.dtype) -> tuple[Any, Any]:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    if isinstance(where, Path):
        weight_files.check_files(where)
    try:
        settings = AutoConfig.from_pretrained(where)
        architecture.check(settings, config.name)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            where, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True
        )
        tokenizer: Any = AutoTokenizer.from_pretrained(where)
    except ModelError:
        raise
    except (
        Exception
    ) as error:  # hubs, files, tokenizers and packages that a model needs: each has exceptions of its own
        raise _unloadable(config.name, error) from error
    model, info = loaded
    _check_kind(model, config.name)
    weight_files.check_loaded(info, config.name)
    return model.eval(), tokenizer


def _unloadable(name: str, error: Exception) -> ModelError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    kind = "is no causal language model that transformers can load" if "AutoModel" in reason else "cannot be loaded"
    return ModelError(
        f"Model {name!r} {kind}: {reason}. Accepted: a folder with config.json, safetensors and a "
        "tokenizer, or the name of such a model on a hub that can be reached from here. Known: foretaste models"
    )


def _check_kind(model: Any, name: str) -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    masked = model.config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not model.config.is_decoder
    whole = model.can_generate() and model.get_output_embeddings() is not None
    if getattr(model.config, "is_encoder_decoder", False) or masked or not whole:
        raise ModelError(
            f"Model {name!r} ({type(model).__name__}) is no decoder-only language model. "
            "Accepted: causal language models such as Llama, Qwen, Mistral, GPT-2."
        )


def _quieten() -> None:
    """Turn off transformers' own progress bars, for loading and saving; foretaste shows its own."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def _dtype(config: ModelConfig, folder: Path | None) -> torch.dtype:
    """Return the compute precision; `auto` keeps a checkpoint's own, nano is float32, all else bfloat16."""
    if config.dtype != "auto":
        return getattr(torch, config.dtype)
    if folder is None:
        return torch.float32 if config.name in nano.SHAPES else torch.bfloat16
    saved = saved_card(folder)
    return getattr(torch, saved["dtype"]) if saved else torch.bfloat16


def with_lora(model: Any, rank: int) -> Any:
    """Return the policy with a LoRA adapter on all its inner linear layers. Raises: ModelError without peft."""
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise ModelError("lora_rank needs the package peft: pip install 'foretaste[lora]'") from error
    settings = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers for a renamed property
        return get_peft_model(model, settings)


def saved_card(folder: Path) -> dict[str, Any] | None:
    """Return what `foretaste.json` in a checkpoint folder says, or None for any other folder."""
    file = folder / CARD_FILE
    if not file.is_file():
        return None
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ModelError(f"{file} is damaged ({error}); restore it or take an earlier checkpoint") from error


def saved_config(folder: Path) -> ModelConfig | None:
    """Return the model settings of a checkpoint folder, or None for any other folder."""
    card = saved_card(folder)
    return None if card is None else from_dict(ModelConfig, card["config"], where=str(folder / CARD_FILE))


def critic_differences(saved: ModelConfig, wanted: ModelConfig) -> list[str]:
    """Return the settings in which two critics' shapes differ, each as `name = saved, not wanted`."""
    shape = ("critic_layers", "value_head", "value_range", "privileged_critic")
    pairs = [(name, getattr(saved, name), getattr(wanted, name)) for name in shape]
    return [f"model.{name} = {old!r}, not {new!r}" for name, old, new in pairs if old != new]


def take_critic(critic: torch.nn.Module, config: ModelConfig) -> list[list[float]]:
    """Load the critic of the checkpoint that `config.critic_from` names; return how well it ranked when it was saved.

    Raises: ModelError if that is no checkpoint, or its critic has another shape.
    """
    folder = Path(str(config.critic_from))
    saved = saved_config(folder) if folder.is_dir() else None
    if saved is None:
        raise ModelError(
            f"model.critic_from = {config.critic_from!r} is no foretaste checkpoint: it has no {CARD_FILE}. Accepted: "
            "the folder `checkpoint` of a run of `foretaste train`"
        )
    differences = critic_differences(saved, config)
    if differences:
        raise ModelError(
            f"The critic of {folder} has another shape: {'; '.join(differences)}. Set the same in this run, or teach a "
            "critic of this shape"
        )
    load_critic(critic, folder)
    return (saved_card(folder) or {}).get("ranking", [])


def load_critic(critic: torch.nn.Module, folder: Path) -> None:
    """Load `critic.safetensors` into a critic of the same shape."""
    from safetensors.torch import load_file

    try:
        critic.load_state_dict(load_file(folder / CRITIC_FILE))
    except (OSError, RuntimeError) as error:
        raise ModelError(f"The critic of {folder} cannot be loaded: {str(error).splitlines()[0]}") from error
