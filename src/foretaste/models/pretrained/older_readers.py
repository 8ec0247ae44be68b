"""Let older programs read what transformers 5 saves: transformers 4, what builds on it, converters to other formats.

Version 5 gave some settings new names. A reader that knows only the old ones does not complain: it takes its default,
and computes another model. So they are written under both, as far as both mean the same.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TOKENIZER_CLASSES = {"TokenizersBackend": "PreTrainedTokenizerFast"}
"""Names of version 5, and those that both versions know for the same class."""
_ROTARY = ("rope_theta", "partial_rotary_factor")
_NEOX = ("rotary_emb_base", "rotary_pct")
_KINDS = ("full_attention", "sliding_attention")
_GEMMA = ("rope_theta", "rope_local_base_freq")
"""Gemma 3 has a rotary base for each kind of layer."""


def write_old_names(folder: Path, kind: Any) -> None:
    """Add old names to `config.json` and `tokenizer_config.json` of a saved model whose configuration class is `kind`.

    None is added if version 5 would then read another configuration.
    """
    _tokenizer(folder / "tokenizer_config.json")
    file = folder / "config.json"
    text = file.read_text(encoding="utf-8")
    settings = json.loads(text)
    parts = [settings, *(part for part in settings.values() if isinstance(part, dict) and "model_type" in part)]
    for part in parts:
        for name, value in _old_names(part).items():
            part.setdefault(name, value)
    before = kind.from_pretrained(folder).to_dict()
    _write(file, settings)
    after = kind.from_pretrained(folder).to_dict()
    if any(after.get(name) != value for name, value in before.items()):
        file.write_text(text, encoding="utf-8")


def _tokenizer(file: Path) -> None:
    settings = json.loads(file.read_text(encoding="utf-8"))
    name = settings.get("tokenizer_class")
    settings["tokenizer_class"] = TOKENIZER_CLASSES.get(name, name)
    if isinstance(settings.get("extra_special_tokens"), list):  # in version 4 that name is for a mapping
        settings["additional_special_tokens"] = settings.pop("extra_special_tokens")
    _write(file, {name: value for name, value in settings.items() if value is not None})


def _write(file: Path, settings: dict[str, Any]) -> None:
    file.write_text(json.dumps(settings, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def _old_names(settings: dict[str, Any]) -> dict[str, Any]:
    """Return what settings are called in version 4."""
    found: dict[str, Any] = {}
    if "dtype" in settings:
        found["torch_dtype"] = settings["dtype"]
    rope = settings.get("rope_parameters") or {}
    kind = str(settings.get("model_type"))
    if "full_attention" in rope:
        if kind.startswith("gemma3"):
            found |= {name: rope[at].get("rope_theta") for name, at in zip(_GEMMA, _KINDS, strict=True) if at in rope}
            found |= _scaling(rope["full_attention"])
    elif rope:
        names = _NEOX if kind.startswith("gpt_neox") else _ROTARY
        found |= {old: rope.get(new) for old, new in zip(names, _ROTARY, strict=True)}
        found |= _scaling(rope)
    return {name: value for name, value in found.items() if value is not None}


def _scaling(rope: dict[str, Any]) -> dict[str, Any]:
    if rope.get("rope_type", "default") == "default":
        return {}
    return {"rope_scaling": {name: value for name, value in rope.items() if name not in _ROTARY}}
