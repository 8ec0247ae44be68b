"""Tiny random models of any architecture, written as folders that transformers reads."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch
import transformers

from foretaste.models import nano

SIZES: dict[str, Any] = {
    "vocab_size": 1024,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 1,
}


def folder(where: Path, kind: str, **over: Any) -> str:
    """Save a model of a configuration class with nano's tokenizer, if it is not there yet; None leaves a size out."""
    if not (where / "config.json").is_file():
        made: Any = getattr(transformers, f"{kind}Config")
        known = {name for one in made.__mro__ for name in _names(one)} | set(made.attribute_map)
        sizes = {name: value for name, value in (SIZES | over).items() if value is not None and name in known}
        model: Any = transformers.AutoModelForCausalLM.from_config(made(**sizes)).float()
        draw = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.normal_(std=0.1, generator=draw)
        model.save_pretrained(where)
        nano.tokenizer().save_pretrained(where)
    return str(where)


def _names(kind: type) -> set[str]:
    return {*inspect.signature(kind.__init__).parameters, *getattr(kind, "__annotations__", {})}
