"""Papers: which items an exam asks, in which wordings, and what counts as passing. TOML in and out.

A paper names families; `expand` turns it into items, deterministically from the secret and the look.
All registers of a base item share its seed and its cluster. Ready-made papers lie in `papers/`.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal, NamedTuple

from foretaste.config import from_dict, load_recipe, to_dict
from foretaste.envs import registry
from foretaste.errors import ConfigError, EnvError, unknown
from foretaste.exams.seal import item_hash, item_seed
from foretaste.registers import REGISTERS

_TRIES_PER_ITEM = 20
"""Seeds tried for each item before a family counts as exhausted."""


@dataclass(frozen=True, slots=True)
class Family:
    """Items of one environment, or of all environments that match a pattern."""

    env: str = ""
    """Environment id, needed; `*` matches, e.g. `reasoning/*` (every family of the installed reasoning-gym)."""
    levels: tuple[int, ...] = (1,)
    registers: tuple[str, ...] = ("plain",)
    """Every base item is asked in each of these."""
    items: int = 20
    """Base items per environment and level."""
    release: Literal["fresh", "ladder", "thresholdout"] = "fresh"
    """`fresh`: other items at every look. `ladder`, `thresholdout`: the same items at every look, for
    scarce families, and the score is released through that mechanism (`scarce.py`)."""


@dataclass(frozen=True, slots=True)
class Paper:
    """What one sitting asks. The same paper, secret and look always give the same items."""

    name: str = ""
    families: tuple[Family, ...] = ()
    """At least one; `[[families]]` in TOML."""
    description: str = ""
    metric: Literal["accuracy", "worst_register", "all_registers"] = "accuracy"
    """What is held against the threshold: mean success over all wordings, over the worst wording, or
    the share of base items right in every wording."""
    threshold: float = 0.5
    alpha: float = 0.05
    """Chance of a wrong verdict over all looks together."""
    sealed: bool = True
    """False: public items that anybody may practise on; looks are free."""
    looks: int = 20
    """Sittings allowed; 0 sets no limit, and each later look then gets a smaller share of alpha."""

    def __post_init__(self) -> None:
        where = f"paper {self.name!r}"
        if not self.name or not self.name.replace("-", "").replace("_", "").isalnum():
            raise ConfigError(f"A paper's name is letters, digits, '-' and '_', not {self.name!r}")
        if not self.families:
            raise ConfigError(f"{where} has no [[families]]; it needs at least one with an env")
        if not 0 < self.alpha < 1 or not 0 <= self.threshold <= 1:
            raise ConfigError(
                f"{where}: alpha = {self.alpha} must lie in (0, 1) and threshold = {self.threshold} in [0, 1]"
            )
        if self.looks < 0:
            raise ConfigError(f"{where}: looks = {self.looks} must be at least 1, or 0 for no limit")
        for family in self.families:
            _check_family(family, f"{where}, family {family.env!r}")

    @property
    def content_hash(self) -> str:
        """SHA-256 of everything but the name and description; equal questions have equal hashes."""
        values = {key: value for key, value in to_dict(self).items() if key not in ("name", "description")}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


class Item(NamedTuple):
    """One question in one wording."""

    env: str
    level: int
    register: str
    seed: int
    cluster: str
    """The base item, "env:level:index": all its registers stand or fall together."""
    hash: str | None = None
    """SHA-256 of the base item's identity, mostly its plain text, where it was rendered."""


class Expansion(NamedTuple):
    """A paper's items, and where fewer distinct ones were found than asked for."""

    items: list[Item]
    shortfalls: dict[str, int]
    """ "env:level" -> base items missing, because the family ran out of items not seen before."""
    different: dict[str, int]
    """ "env:level" of these -> different items that were met at all, those not asked included."""


def ready_made() -> list[str]:
    """Return the names of the papers that come with the package."""
    folder = resources.files("foretaste.exams") / "papers"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load_paper(name: str | Path) -> Paper:
    """Read a ready-made paper by name, or a TOML file, and fill in the environments its patterns match.

    Raises: ConfigError for an unknown paper, setting, environment or register, naming what is accepted.
    """
    text = str(name)
    if text in ready_made():
        with resources.as_file(resources.files("foretaste.exams") / "papers" / f"{text}.toml") as file:
            return resolve(load_recipe(file, Paper))
    if not Path(text).is_file():
        raise ConfigError(f"{unknown('paper', text, ready_made())}; or the path of a TOML file")
    return resolve(load_recipe(Path(text), Paper))


def paper_from_dict(values: dict[str, Any]) -> Paper:
    """Return a paper from plain values, as the ledger keeps it."""
    return from_dict(Paper, values, where="paper")


def to_toml(paper: Paper) -> str:
    """Return the paper as TOML that `load_paper` reads back to an equal paper; the text that is committed to."""

    def lines(values: dict[str, Any]) -> list[str]:
        # JSON's strings, numbers, booleans and lists of them are TOML's, but for DEL in strings.
        return [
            f"{key} = {json.dumps(value, ensure_ascii=False).replace(chr(127), chr(92) + 'u007f')}"
            for key, value in values.items()
        ]

    values = to_dict(paper)
    families = values.pop("families")
    blocks = [lines(values), *(["", "[[families]]", *lines(family)] for family in families)]
    return "\n".join(line for block in blocks for line in block) + "\n"


def resolve(paper: Paper) -> Paper:
    """Return the paper with every pattern replaced by the environments it matches, in sorted order.

    Raises: ConfigError for a pattern that matches nothing, or a register that neither the environment
    nor the general list has.
    """
    families: list[Family] = []
    for family in paper.families:
        if "*" in family.env:
            known = _all_environments()
            matches = fnmatch.filter(known, family.env)
            if not matches:
                raise ConfigError(
                    unknown(f"environments in paper {paper.name!r}:", family.env, known, see="foretaste envs")
                )
            families += [replace(family, env=env) for env in matches]
        else:
            families.append(family)
    for family in families:
        _check_registers(family, paper.name)
    return replace(paper, families=tuple(families))


def expand(
    paper: Paper,
    *,
    secret: str = "",
    look: int = 0,
    render: Callable[[str, int, int], str] | None = None,
    seen: Collection[str] = frozenset(),
) -> Expansion:
    """Return the items of one look at a paper.

    Args:
        secret: of a sealed paper; public papers take none.
        look: number of the look; families with `release = "fresh"` ask other items at every look.
        render: (env, level, seed) -> what makes an item the one it is. With it, items in `seen` and those
            that repeat within the paper are passed over for the next.
        seen: item hashes (`seal.item_hash`) of what was trained on.

    Raises: ConfigError for a sealed paper without a secret, or a public one with one.
    """
    if paper.sealed != bool(secret):
        kind = "sealed: it needs a secret" if paper.sealed else "public: it takes no secret"
        raise ConfigError(f"Paper {paper.name!r} is {kind}")
    items: list[Item] = []
    shortfalls: dict[str, int] = {}
    different: dict[str, int] = {}
    asked: set[str] = set(seen)
    for family in paper.families:
        fresh = look if paper.sealed and family.release == "fresh" else 0
        for level in family.levels:
            found = index = 0
            met: set[str | None] = set()
            while found < family.items and index < family.items * (_TRIES_PER_ITEM if render else 1):
                split = "sealed" if paper.sealed else "practice"
                seed = item_seed(secret, family.env, level, index, look=fresh, split=split)
                mark = item_hash(render(family.env, level, seed)) if render else None
                met.add(mark)
                if mark is None or mark not in asked:
                    cluster = f"{family.env}:{level}:{index}"
                    items += [Item(family.env, level, name, seed, cluster, mark) for name in family.registers]
                    found += 1
                    asked.update([mark] if mark else [])
                index += 1
            if found < family.items:
                shortfalls[f"{family.env}:{level}"] = family.items - found
                different[f"{family.env}:{level}"] = len(met)
    return Expansion(items, shortfalls, different)


@cache
def _all_environments() -> tuple[str, ...]:
    return (*registry.names(), *registry.families())


def _check_family(family: Family, where: str) -> None:
    if not family.env:
        raise ConfigError(f"{where} needs an env; see: foretaste envs")
    if family.items < 1:
        raise ConfigError(f"{where}: items = {family.items} must be at least 1")
    for name, values in (("levels", family.levels), ("registers", family.registers)):
        if not values or len(set(values)) != len(values):
            raise ConfigError(f"{where}: {name} = {list(values)} must name at least one, each once")


def _check_registers(family: Family, paper: str) -> None:
    """Refuse registers that neither the general list nor the environment itself knows."""
    strange = [name for name in family.registers if name not in REGISTERS]
    if not strange:
        return
    try:
        own = tuple(getattr(registry.make(family.env).unwrapped, "registers", ()))
    except EnvError as error:
        raise ConfigError(f"Paper {paper!r}: {error}") from error
    for name in strange:
        if name not in own:
            raise ConfigError(unknown(f"register of {family.env} in paper {paper!r}:", name, {*REGISTERS, *own}))
