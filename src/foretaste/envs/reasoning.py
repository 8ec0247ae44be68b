"""`reasoning/<family>`: every family of reasoning-gym as a strict single-turn environment.

Stricter than the library's own scores: exactly one answer is read from a reply (`grading.one_answer`),
only a full score counts, and a grader that is caught paying for hedging is not trusted with anything
but the reference answer. Each item has a seed of its own, far from every other: the library draws
item i from seed + i, so neighbouring seeds would share items.
"""

from __future__ import annotations

import contextlib
import io
import json
import warnings
from functools import cache
from typing import Any, ClassVar

import reasoning_gym.composite
from reasoning_gym import factory

from foretaste.envs.base import TextEnv
from foretaste.envs.grading import Grade, grade, number, one_answer
from foretaste.envs.reasoning_shapes import SHAPES
from foretaste.errors import ConfigError, EnvError, unknown

_FULL_SCORE = 1.0 - 1e-9
"""Some graders add up shares of a word each, so that a full score is 0.9999999999999999."""

LONGEST_ANSWER = 20_000
"""Characters; a longer answer is wrong unread."""

WITHOUT_REFERENCE = frozenset({"boxnet", "rush_hour"})
"""Families that come with no solution at all: graded, but without oracle and worked examples."""

NOT_REPRODUCIBLE = frozenset(
    {"isomorphic_strings", "knight_swap", "polynomial_multiplication", "ransom_note", "word_ladder"}
)
"""Families whose items depend on Python's string hashing, which differs between processes unless
PYTHONHASHSEED is set; within one process a seed gives the same item. Store their text, not only the seed."""

_ONE_ITEM_PER_SEED = frozenset({"acre", "gsm_symbolic", "list_functions", "word_ladder"})
"""Families that refuse an index beyond their size and so are built anew for each item."""

_COMPOSITE_PARTS = ("chain_sum", "count_bits", "gcd", "letter_counting", "spell_backward")
"""What `composite` mixes here; the library leaves the choice to its user."""


class Reasoning(TextEnv):
    """One question of a reasoning-gym family, one reply. Use `make_family`: each family is a subclass.

    Levels are those steps of the family's own curriculum that the library accepts, easiest first;
    families without a curriculum have one level. Success and reward are 1 or 0. If the grader
    raises, `info["error"]` says so and `success` is absent.
    """

    instructions: ClassVar[str] = (
        "Solve the task. Reply with the answer and nothing else, "
        "or think first and end your reply with <answer>the answer</answer>."
    )
    family: ClassVar[str]

    def begin(self) -> tuple[str, dict[str, Any]]:
        """Generate the item of this seed, or take the one that `keep_item` was given for it."""
        self.dataset, self.item = _generate(self.family, self.level, self.random.getrandbits(61))
        self.item = _KEPT.get((self.family, self.level, self.seed), self.item)
        self.gold = _reference(self.item)
        return str(self.item["question"]).strip(), self._info()

    def act(self, action: str) -> tuple[str, float, bool, dict[str, Any]]:
        """Judge the reply; the episode ends."""
        judged = judge(self.family, self.dataset, self.item, action)
        if judged.error is not None:
            return "", 0.0, True, {**self._info(), "error": judged.error}
        return "", judged.score, True, {**self._info(), "success": judged.score}

    def oracle(self) -> str:
        """Return the reference answer. Raises: EnvError in the families that have none."""
        if self.gold is None:
            raise EnvError(f"{self.name} comes without solutions, so it has no oracle and no worked examples")
        return self.gold

    def worked_examples(self, count: int, level: int) -> list[list[tuple[str, str]]]:
        """Return `count` solved questions, none in the families without solutions."""
        return [] if self.family in WITHOUT_REFERENCE else super().worked_examples(count, level)

    def _info(self) -> dict[str, Any]:
        return {} if self.gold is None else {"privileged": self.gold}


_KEPT: dict[tuple[str, int, int], dict[str, Any]] = {}


def keep_item(family: str, level: int, seed: int, item: dict[str, Any]) -> None:
    """Let a seed of a `NOT_REPRODUCIBLE` family give this item in the whole process, as another process drew it."""
    _KEPT[family, level, seed] = item


def families() -> list[str]:
    """Return all families of the installed reasoning-gym."""
    return sorted(factory.DATASETS)


def make_family(family: str, *, level: int | None = None) -> Reasoning:
    """Return the environment of a family. Raises: ConfigError for an unknown family or level."""
    if family not in factory.DATASETS:
        raise ConfigError(unknown("reasoning family", family, families(), see="foretaste envs"))
    return _class_of(family)(level=level)


def judge(family: str, dataset: Any, item: dict[str, Any], reply: str) -> Grade:
    """Return 1.0 if the reply is exactly one right answer, else 0.0; `error` if the grader failed.

    The reference answer is right. Any other text must have the family's shape where one is known,
    earn the full score, and come from a grader that is not `pays_for_hedging`; under one that is,
    only the reference itself counts (up to case and blanks, and numbers by value).
    """
    answer, gold = one_answer(reply), _reference(item)
    if answer is None or len(answer) > LONGEST_ANSWER:
        return Grade(0.0)
    if answer == gold:
        return Grade(1.0)
    shape = SHAPES.get(family)
    if shape is not None and not shape(answer):
        return Grade(0.0)
    judged = grade(lambda text, _: dataset.score_answer(text, item), answer, gold or "")
    if judged.error is not None:
        return Grade(0.0, f"reasoning/{family}: {judged.error}")
    if judged.score < _FULL_SCORE:
        return Grade(0.0)
    trusted = shape is not None or (gold is not None and _same(answer, gold)) or not pays_for_hedging(dataset, item)
    return Grade(float(trusted))


def pays_for_hedging(dataset: Any, item: dict[str, Any]) -> bool:
    """Return whether the grader gives its full score to a reply of several answers, or of none."""
    gold = _reference(item)
    probes = ["banana"]
    if gold is not None:
        probes += [f"{gold} or {gold}", f"{gold} {gold}", f"{gold}\n{gold}", f"{gold} or banana", f"banana or {gold}"]
    return any(
        grade(lambda text, _: dataset.score_answer(text, item), probe, "").score >= _FULL_SCORE for probe in probes
    )


def _same(answer: str, gold: str) -> bool:
    if " ".join(answer.split()).casefold() == " ".join(gold.split()).casefold():
        return True
    value = number(gold)
    return value is not None and number(answer) == value


def _reference(item: dict[str, Any]) -> str | None:
    """Return the reference answer as text; some families keep it beside the item."""
    answer = item["answer"]
    if answer is None:
        beside = item["metadata"]
        answer = beside.get("example_answer") or beside.get("example_correct_answer") or beside.get("possible_answer")
    if isinstance(answer, dict):
        return json.dumps({str(key): value for key, value in answer.items()})
    return None if answer is None else str(answer).strip()


def _generate(family: str, level: int, seed: int) -> tuple[Any, dict[str, Any]]:
    """Return the dataset (its grader) and the item of one seed."""
    if family in _ONE_ITEM_PER_SEED:
        dataset = _dataset(family, level, seed)
        return dataset, dataset[0]
    dataset = _cached_dataset(family, level)
    try:
        return dataset, dataset[seed]
    except ValueError as error:
        if "2**32" not in str(error):
            raise
        return dataset, dataset[seed >> 29]


def _dataset(family: str, level: int, seed: int) -> Any:
    """Build a dataset; what the library prints or leaves open while it reads its files is kept from the user."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore", ResourceWarning)
        return _build(family, level, seed)


def _build(family: str, level: int, seed: int) -> Any:
    kind, config_class = factory.DATASETS[family]
    if family == "composite":
        parts = [reasoning_gym.composite.DatasetSpec(name, 1.0, {}) for name in _COMPOSITE_PARTS]
        return kind(config_class(seed=seed, size=1, datasets=parts))
    steps = _steps(family)
    if not steps:
        return kind(config_class(seed=seed, size=1))
    return kind(_configured(family, steps[level - 1], seed))


@cache
def _cached_dataset(family: str, level: int) -> Any:
    """Build once per process: some families read word lists for a second. Items come from the index."""
    return _dataset(family, level, 0)


@cache
def _steps(family: str) -> tuple[int, ...]:
    """Return the curriculum steps whose configuration the library accepts (it rejects some of its own)."""
    if not factory.has_curriculum(family):
        return ()
    longest = max(len(attribute.levels) for attribute in factory.create_curriculum(family).attributes.values())
    accepted = []
    for step in range(longest):
        try:
            _configured(family, step, 0)
        except (AssertionError, ValueError):
            continue
        accepted.append(step)
    return tuple(accepted)


def _configured(family: str, step: int, seed: int) -> Any:
    curriculum = factory.create_curriculum(family)
    curriculum.set_global_level(step)
    config: Any = curriculum.generate_configuration({"seed": seed, "size": 1})
    if hasattr(config, "validate"):
        config.validate()
    return config


@cache
def _class_of(family: str) -> type[Reasoning]:
    """Return the subclass of a family, with its own name and levels."""
    title = "".join(word.capitalize() for word in family.split("_"))
    levels = range(1, max(len(_steps(family)), 1) + 1)
    return type(title, (Reasoning,), {"name": f"reasoning/{family}", "family": family, "levels": levels})
