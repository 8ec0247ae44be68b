"""Save and load an actor-critic: a Hugging Face folder that other tools read, the critic beside it.

    config.json, model.safetensors, tokenizer ...    the policy, LoRA merged in
    critic.safetensors                               the critic
    foretaste.json                                   settings, content id, parents, run, step

A folder appears whole or not at all. Optimiser state is not in it; the trainer keeps that itself.
"""

from __future__ import annotations

import copy
import dataclasses
import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from foretaste.config import to_dict
from foretaste.errors import ModelError
from foretaste.models.actor_critic import ActorCritic
from foretaste.models.loading import CARD_FILE, CRITIC_FILE, saved_card, saved_config
from foretaste.models.pretrained.older_readers import write_old_names
from foretaste.records import RECORD_VERSION, Checkpoint


def save(
    model: ActorCritic,
    folder: str | Path,
    *,
    parents: Sequence[str] = (),
    run: str | None = None,
    step: int = 0,
) -> Checkpoint:
    """Write a checkpoint folder, replacing one of the same name.

    Raises: ModelError if the disk is full or the folder cannot be written; an older folder then stays.
    """
    folder = Path(folder).absolute()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
            made = Path(scratch) / "new"
            _write(model, made)
            identity = content_id(made)
            saved = Checkpoint(identity, str(folder), model.source, tuple(parents), run, step)
            settings = {
                "version": RECORD_VERSION,
                **dataclasses.asdict(saved),
                "dtype": str(next(model.policy.parameters()).dtype).removeprefix("torch."),
                "ranking": model.critic_ranking,
                "config": to_dict(dataclasses.replace(model.config, critic_from=None)),
            }
            del settings["path"]
            (made / CARD_FILE).write_text(json.dumps(settings, indent=2), encoding="utf-8")
            if folder.exists():
                os.rename(folder, Path(scratch) / "old")
            os.rename(made, folder)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        reason = "the disk is full" if full else str(error)
        raise ModelError(f"The checkpoint {folder} cannot be written: {reason}. Free some space and resume") from error
    return saved


def load(path: str | Path, *, device: str = "auto") -> ActorCritic:
    """Load policy and critic of a checkpoint folder, with the settings it was saved with.

    Raises: ModelError if `path` is no foretaste checkpoint, or a weight in it is not finite.
    """
    folder = Path(path)
    settings = saved_config(folder) if folder.is_dir() else None
    if settings is None:
        raise ModelError(
            f"{str(path)!r} is no foretaste checkpoint: it has no {CARD_FILE}. Accepted: a folder written by "
            "`foretaste train`. Other models load by name: ModelConfig(name=...)"
        )
    check_finite(folder)
    return ActorCritic.load(dataclasses.replace(settings, name=str(folder), device=device))


def check_finite(folder: str | Path) -> None:
    """Refuse a folder of weights with a NaN or an infinity: its answers and values would be rubbish without an error.

    Raises: ModelError that names the file, the tensor and the first such place; ModelError for an unreadable file.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    for file in sorted(Path(folder).glob("*.safetensors")):
        try:
            with safe_open(file, "pt") as tensors:
                for name in sorted(tensors.keys()):
                    tensor = tensors.get_tensor(name)
                    # One pass and no copy of the tensor's size: a sum is finite only if every part is. Finite weights
                    # whose sum overflows are looked at one by one.
                    if not tensor.is_floating_point() or torch.isfinite(tensor.sum(dtype=torch.float32)):
                        continue
                    bad = int((~torch.isfinite(tensor)).sum())
                    if bad:
                        raise ModelError(
                            f"{file}: tensor {name!r} holds {bad} of {tensor.numel()} numbers that are not finite "
                            "(NaN or infinity). Accepted: finite weights. Take an earlier checkpoint"
                        )
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{file} cannot be read ({error}); restore it or take an earlier checkpoint") from error


def read(path: str | Path) -> Checkpoint:
    """Return the record of a checkpoint folder without loading its weights."""
    folder = Path(path)
    card = saved_card(folder)
    if card is None:
        raise ModelError(f"{str(path)!r} is no foretaste checkpoint: it has no {CARD_FILE}")
    return Checkpoint(
        card["id"], str(folder.absolute()), card["model"], tuple(card["parents"]), card["run"], card["step"]
    )


def content_id(folder: str | Path) -> str:
    """Return the SHA-256 of all weights in a folder: names, types, shapes and bytes, in the order of their names.

    Equal weights have equal ids, however they are spread over files.
    """
    import torch
    from safetensors import safe_open

    found: list[tuple[str, str, Path]] = []
    for file in sorted(Path(folder).glob("*.safetensors")):
        part = "critic" if file.name == CRITIC_FILE else "policy"
        with safe_open(file, "pt") as tensors:
            found += [(part, name, file) for name in tensors.keys()]  # noqa: SIM118 (no mapping)
    digest = hashlib.sha256()
    for part, name, file in sorted(found):
        with safe_open(file, "pt") as tensors:
            tensor = tensors.get_tensor(name).contiguous()
        digest.update(f"{part}/{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _write(model: ActorCritic, folder: Path) -> None:
    from safetensors.torch import save_file

    policy: Any = model.policy
    if hasattr(policy, "peft_config"):
        policy = copy.deepcopy(policy).merge_and_unload()
    policy.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    write_old_names(folder, type(policy.config))
    state = {name: value.detach().cpu().contiguous() for name, value in model.critic.state_dict().items()}
    save_file(state, folder / CRITIC_FILE, metadata={"format": "pt"})
