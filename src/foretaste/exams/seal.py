"""The seal: items nobody could have trained on, and a proof afterwards that they were not chosen.

Before a sitting the exam prints `commitment(secret, paper)`; afterwards the secret may be shown, and
anybody checks with `verify_commitment` that the items followed from a secret fixed beforehand. Every
item has a keyed seed of its own, far from all others: generators that draw item i from seed + i share
items between neighbouring seeds. What was trained on is left out, by its identity or exact text.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterable
from pathlib import Path

from foretaste.envs.seeds import Split, seed_for
from foretaste.errors import ConfigError, LedgerError
from foretaste.ledger import Ledger

_SECRET = re.compile(r"[0-9a-f]{64}")


def new_secret() -> str:
    """Return 256 random bits as 64 hexadecimal digits: too many to guess from a commitment."""
    return secrets.token_hex(32)


def secret_in(folder: str | Path, paper: str) -> str:
    """Return the secret of a paper kept in `folder`, making one on first use, readable by its owner alone.

    Raises: ConfigError if the file there holds no secret.
    """
    file = _secret_file(folder, paper)
    file.parent.mkdir(parents=True, exist_ok=True)
    try:  # exclusive creation, so that two sittings starting together agree on one secret
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
            opened.write(new_secret())
    except FileExistsError:
        pass
    secret = file.read_text(encoding="utf-8").strip()
    _check_secret(secret, f"The file {file}")
    return secret


def secrets_known(folder: str | Path, paper: str) -> list[str]:
    """Return the secrets kept for a paper: the one in use, then the retired ones."""
    file = _secret_file(folder, paper)
    found = [file, *sorted(file.parent.glob(f"{file.stem}.*.retired"))]
    return [path.read_text(encoding="utf-8").strip() for path in found if path.is_file()]


def retire_secret(folder: str | Path, paper: str, secret: str) -> None:
    """Put a secret that was shown out of use, so that the next sitting makes a new one."""
    file = _secret_file(folder, paper)
    if file.is_file() and file.read_text(encoding="utf-8").strip() == secret:
        mark = hashlib.sha256(secret.encode()).hexdigest()[:12]
        file.rename(file.with_name(f"{file.stem}.{mark}.retired"))


def _secret_file(folder: str | Path, paper: str) -> Path:
    return Path(folder) / f"{re.sub(r'[^A-Za-z0-9_-]+', '-', paper)}.secret"


def commitment(secret: str, paper: str) -> str:
    """Return SHA-256 over the secret and the paper's text: shown before, it gives neither away.

    Raises: ConfigError unless the secret is 64 hexadecimal digits.
    """
    _check_secret(secret, "The secret of a sealed paper")
    return hashlib.sha256(f"foretaste seal 1\n{secret}\n{paper}".encode()).hexdigest()


def verify_commitment(shown: str, secret: str, paper: str) -> None:
    """Check a revealed secret and paper against the commitment shown before the sitting.

    Raises: LedgerError if they do not belong together.
    """
    if not hmac.compare_digest(commitment(secret, paper), shown.strip().lower()):
        raise LedgerError(
            f"The commitment {shown[:16]}... was made for another secret or another paper: one of them was "
            "changed after the sitting, or they belong to different sittings."
        )


def item_seed(secret: str, env: str, level: int, index: int, *, look: int = 0, split: Split = "sealed") -> int:
    """Return the seed of one item: a keyed hash of (secret, env, level, look, index), with the split in its top bits.

    Another look gives other items. Public papers pass the empty secret and the split "practice".
    """
    key = hashlib.blake2b(f"{env}\n{level}\n{look}".encode(), key=secret.encode()[:64], digest_size=32).hexdigest()
    return seed_for(split, index, secret=key)


def item_hash(text: str) -> str:
    """Return the SHA-256 of what makes an item the one it is, mostly its plain text, hexadecimal."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def trained_on(ledger: Ledger, runs_folder: str | Path, runs: Iterable[str] | None = None) -> frozenset[str]:
    """Return the hashes of every item that training runs have shown to a policy: identities, or texts.

    They are read from each run's stored episodes (`<runs_folder>/<run>/episodes`), which hold all of
    them, and from the episodes in the ledger. Where an environment names what makes an item the one it is, the item is
    drawn again from its recorded seed to ask for it.

    Args:
        runs: ids of runs; None takes all training runs of the ledger.
    """
    from foretaste.exams.wording import Renderer  # these import torch, which nothing else here needs
    from foretaste.rl.replay import read_episodes

    ids = [info.id for info in ledger.runs("train")] if runs is None else list(runs)
    shown: set[tuple[str, int, str, int, str]] = set()
    for run in ids:
        for file in sorted((Path(runs_folder) / run / "episodes").glob("step-*.npz")):
            shown.update(
                (e.env, e.level, e.register, e.seed, e.turns[0].observation) for e in read_episodes(file) if e.turns
            )
        for record in ledger.records(run, "episode"):
            told = record.payload
            if told.get("turns"):
                place = str(told.get("env", "")), int(told.get("level", 1)), str(told.get("register", "plain"))
                shown.add((*place, int(told.get("seed", 0)), told["turns"][0]["observation"]))
    render = Renderer()
    return frozenset(mark for item in shown for mark in render.marks(*item))


def _check_secret(secret: str, what: str) -> None:
    if not _SECRET.fullmatch(secret):
        raise ConfigError(
            f"{what} must be 64 hexadecimal digits, not {len(secret)} characters; "
            "make one: foretaste.exams.seal.new_secret()"
        )
