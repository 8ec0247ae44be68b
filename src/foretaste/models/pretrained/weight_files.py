"""Are the weights of a model all there? Its files before they are read, and what transformers says afterwards."""

from __future__ import annotations

import json
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

from foretaste.errors import ModelError

NAMES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""What transformers looks for, in this order."""
_BUFFERS = re.compile(r"(inv_freq|masked_bias|attn\.bias|attention\.bias|position_ids|rope\.freqs)$")
"""Old checkpoints store tables that are computed today."""
_LAYER = re.compile(r"(^|\.)(layers|h|blocks)\.\d+\.")
"""A weight of a decoder layer: `model.layers.0.self_attn.q_proj.bias`."""
_NEXT = "Next: copy or download the model again"


def check_files(folder: Path) -> None:
    """Look at every file of weights in a folder, but not at the weights themselves (milliseconds).

    Raises: ModelError that names a file that is missing, empty, cut off or damaged.
    """
    for file in _files(folder):
        if not file.is_file():
            raise ModelError(f"{file} is missing; the index of the weights names it. {_NEXT}")
        if not file.stat().st_size:
            raise ModelError(f"{file} is empty. {_NEXT}")
        try:
            _open(file)
        except Exception as error:  # safetensors has an exception of its own, and pickles may raise anything
            raise ModelError(
                f"{file} is damaged or was cut off while it was copied ({_first_line(error)}; it has "
                f"{file.stat().st_size:,} bytes). {_NEXT}"
            ) from error


def _files(folder: Path) -> list[Path]:
    found = next((folder / name for name in NAMES if (folder / name).exists()), None)
    if found is None or found.suffix != ".json":
        return [] if found is None else [found]
    try:
        names = sorted(set(json.loads(found.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ModelError(f"{found} is damaged ({_first_line(error)}). {_NEXT}") from error
    return [folder / name for name in names]


def _open(file: Path) -> None:
    """Read what says where the weights lie."""
    if file.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(file, "pt"):
            return
    if zipfile.is_zipfile(file):  # its directory is at the end: a cut file has none
        return
    import torch

    with file.open("rb") as start:
        if start.read(1) != pickle.PROTO:  # every pickle begins so, and files of PyTorch before 1.6 are pickles
            raise ValueError("neither a zip archive nor a pickle")
    torch.load(file, map_location="cpu", weights_only=True)


def check_loaded(info: dict[str, Any], name: str) -> None:
    """Refuse a model some of whose weights were not in its files, so that transformers drew random ones.

    `info` is what `from_pretrained(output_loading_info=True)` returns. Weights that the model has no place for are
    refused where they belong to its layers, since it computes something else without them; heads beside it are not.

    Raises: ModelError that names the weights.
    """
    missing = sorted(info["missing_keys"])
    mismatched = sorted(str(key[0] if isinstance(key, tuple) else key) for key in info["mismatched_keys"])
    surplus = sorted(key for key in info["unexpected_keys"] if _LAYER.search(key) and not _BUFFERS.search(key))
    parts = {"weights are missing in its files": missing, "weights have another shape": mismatched}
    parts["weights have no place in a model of its config.json"] = surplus
    wrong = [f"{what}: {_some(keys)}" for what, keys in parts.items() if keys]
    if wrong:
        raise ModelError(
            f"Model {name!r} is incomplete: {'; '.join(wrong)}. Without them it is another model (of a random output "
            "layer, say). Next: save the whole model with its output layer (AutoModelForCausalLM), or "
            "set in config.json what its weights were made for (such as tie_word_embeddings)"
        )


def _some(keys: list[str]) -> str:
    shown = ", ".join(keys[:4])
    return shown if len(keys) <= 4 else f"{shown} and {len(keys) - 4} more"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
