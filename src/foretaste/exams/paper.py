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
from foretaste.envs.parameters import split_id
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
    sha256: str = ""
    """Of the file behind a `dataset:` family; filled in when the paper is read, and kept as it is where it is named."""


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
        values = {key: value for key, value in _plain(self).items() if key not in ("name", "description")}
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

    values = _plain(paper)
    families = values.pop("families")
    blocks = [lines(values), *(["", "[[families]]", *lines(family)] for family in families)]
    return "\n".join(line for block in blocks for line in block) + "\n"


def _plain(paper: Paper) -> dict[str, Any]:
    """Return the paper as plain values; families without a file have no word of one, as before files were hashed."""
    values = to_dict(paper)
    for family in values["families"]:
        if not family["sha256"]:
            del family["sha256"]
    return values


def dataset_file(env: str) -> Path | None:
    """Return the file behind a `dataset:` environment, None for any other."""
    name = split_id(env)[0]
    return Path(name.removeprefix("dataset:")) if name.startswith("dataset:") else None


def check_files(paper: Paper) -> None:
    """Refuse a paper whose files are no longer those that it names.

    Raises: ConfigError naming the file and both hashes.
    """
    for family in paper.families:
        file = dataset_file(family.env)
        if file is None or not family.sha256:
            continue
        now = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else "no file"
        if now != family.sha256:
            raise ConfigError(
                f"{file} has changed since paper {paper.name!r} was made of it (SHA-256 {family.sha256[:12]}..., now "
                f"{now[:12]}...): the two are different exams. Put the old file back, or make a new paper of the new "
                f"one: foretaste exam new {file}"
            )


def resolve(paper: Paper) -> Paper:
    """Return the paper with every pattern replaced by the environments it matches, in sorted order, and files hashed.

    Raises: ConfigError for a pattern that matches nothing, a register that neither the environment
    nor the general list has, or a file that has changed since the paper was made.
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
    found = replace(paper, families=tuple(_hashed(family) for family in families))
    check_files(found)
    return found


def _hashed(family: Family) -> Family:
    file = dataset_file(family.env)
    if family.sha256 or file is None or not file.is_file():
        return family
    return replace(family, sha256=hashlib.sha256(file.read_bytes()).hexdigest())


def expand(
    paper: Paper,
    *,
    secret: str = "",
    look: int = 0,
    render: Callable[[str, int, int], str] | None = None,
    seen: Collection[str] = frozenset(),
    asked_before: Collection[str] = frozenset(),
) -> Expansion:
    """Return the items of one look at a paper.

    Args:
        secret: of a sealed paper; public papers take none.
        look: number of the look; families with `release = "fresh"` ask other items at every look.
        render: (env, level, seed) -> what makes an item the one it is. With it, items in `seen` and those
            that repeat within the paper are passed over for the next.
        seen: item hashes (`seal.item_hash`) of what was trained on.
        asked_before: those of earlier looks. A family with a file of its own items passes them over.

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
        listed = dataset_file(family.env) is not None
        old = asked_before if listed and family.release == "fresh" else ()
        split = "sealed" if paper.sealed else "practice"
        for level in family.levels:
            found = index = 0
            met: set[str | None] = set()
            size = registry.make(family.env, level=level).unwrapped.count(split, level) if listed else 0
            tries = max(family.items, size) * (_TRIES_PER_ITEM if render else 1)
            while found < family.items and index < tries and not (listed and render and len(met) == size > 0):
                seed = item_seed(secret, family.env, level, index, look=fresh, split=split)
                mark = item_hash(render(family.env, level, seed)) if render else None
                met.add(mark)
                if mark is None or (mark not in asked and mark not in old):
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
