"""After a sitting: show the secret, and prove that the items followed from it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from foretaste.errors import ConfigError, LedgerError
from foretaste.exams.paper import check_files, paper_from_dict, to_toml
from foretaste.exams.planning import Plan
from foretaste.exams.seal import item_seed, retire_secret, secrets_known, verify_commitment
from foretaste.ledger import Ledger


class Revealed(NamedTuple):
    """A secret and what it proves."""

    secret: str
    commitment: str
    look: int
    items: int
    matching: int
    """Items whose seed is the keyed hash of (secret, family, level, look, number)."""
    paper_file: Path
    """The exact text that was committed to."""
    changed: str
    """Why a file that the paper names is no longer the one that was committed to; "" if none has changed."""


def reveal(ledger: Ledger, sitting: str, runs_folder: Path) -> Revealed:
    """Return the secret behind a sitting's commitment, retire it, and write down that it is known.

    Raises: ConfigError for a sitting without a commitment; LedgerError if no secret here belongs to it.
    """
    info = ledger.run(sitting)
    plans = ledger.records(info.id, "plan")
    shown = plans[-1].payload.get("commitment") if plans else None
    if plans and plans[-1].payload.get("items_of"):
        raise ConfigError(f"{info.id} asked the items of {plans[-1].payload['items_of']}; reveal that sitting")
    if info.kind != "exam" or not shown:
        raise ConfigError(f"{info.id} has no commitment: only sittings of sealed papers have one")
    told = plans[-1].payload
    paper = paper_from_dict(info.config["paper"])
    text = to_toml(paper)
    for secret in secrets_known(runs_folder / "secrets", paper.name):
        try:
            verify_commitment(shown, secret, text)
        except LedgerError:
            continue
        break
    else:
        raise LedgerError(f"No secret in {runs_folder / 'secrets'} belongs to the commitment {shown[:16]}...")
    plan = Plan.from_json(told)
    fresh = {f.env: f.release == "fresh" for f in paper.families}
    matching = 0
    for item in plan.items:
        look = told["look"] if fresh[item.env] else 0
        number = int(item.cluster.rpartition(":")[2])
        matching += item.seed == item_seed(secret, item.env, item.level, number, look=look)
    folder = runs_folder / info.id
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "paper.toml"
    file.write_text(text, encoding="utf-8")
    try:
        check_files(paper)
        changed = ""
    except ConfigError as error:
        changed = str(error)
    retire_secret(runs_folder / "secrets", paper.name, secret)
    ledger.append(info.id, "reveal", {"secret": secret, "commitment": shown, "matching": matching})
    return Revealed(secret, shown, told["look"], len(plan.items), matching, file, changed)
