"""An order as the customer means it (the problem object), its JSON, and whether a reply states it."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, replace
from typing import Any, Literal

from foretaste.envs.extract.words import Words
from foretaste.envs.grading import without_thoughts

Field = Literal["item", "colour", "quantity"]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of an order; None is a field that the customer did not say."""

    item: str
    colour: str | None
    quantity: int | None


@dataclass(frozen=True, slots=True)
class Correction:
    """A line as first said, put right later in the message."""

    index: int
    """Which line."""
    field: Field
    said: Line
    """The line with the mistake, as it stands in the order sentence."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a message says. The lines are the final ones, after any correction."""

    name: str | None
    lines: tuple[Line, ...]
    date: tuple[int, int] | None = None
    """(month, day)."""
    dated: bool = False
    """Whether the JSON has a date, which may be null."""
    listed: bool = False
    """Whether the JSON holds a list of lines."""
    correction: Correction | None = None
    chatter: Literal["none", "idle", "tempting"] = "none"
    """A sentence beside the point: idle ones hold no name, item, colour or number; tempting ones do."""


def draw_order(level: int, words: Words, random: random.Random) -> Order:
    """Return a random order of a level; see `Extract` for what each level holds."""
    count = 1 if level in (1, 2, 4) else random.choice((2, 2, 3))
    items = random.sample(words.items, count)
    most = 12 if level <= 2 else 20
    lines = [Line(item, random.choice(words.colours), random.randint(1, most)) for item in items]
    order = Order(random.choice(words.names), tuple(lines), listed=level in (3, 5))
    if level == 2:
        missing, chatter = random.choice(((True, False), (False, True), (True, True)))
        order = _forget(order, random) if missing else order
        return replace(order, chatter="idle" if chatter else "none")
    if level >= 4:
        date = (random.randint(1, 12), random.randint(1, 28))
        order = replace(order, dated=True, date=date if level == 4 or random.random() < 0.7 else None)
    if level == 5:
        order = _forget(order, random) if random.random() < 0.5 else order
        order = replace(order, chatter="tempting" if random.random() < 0.5 else "none")
    return replace(order, correction=_misspeak(order, words, random)) if level >= 4 else order


def to_json(order: Order) -> str:
    """Return the one right answer: compact JSON on one line."""
    lines = [{"item": line.item, "colour": line.colour, "quantity": line.quantity} for line in order.lines]
    answer: dict[str, Any] = {"name": order.name}
    answer |= {"items": lines} if order.listed else lines[0]
    if order.dated:
        answer["date"] = None if order.date is None else f"{order.date[0]:02}-{order.date[1]:02}"
    return json.dumps(answer, ensure_ascii=False, separators=(",", ":"))


def states(reply: str, gold: str) -> bool:
    """Return whether the whole reply is JSON equal to the gold: same keys, values and types (3 is not 3.0 or "3").

    Blanks and the order of keys are free; anything beside the JSON, or a key given twice, fails.
    """
    try:
        return _typed(json.loads(without_thoughts(reply), object_pairs_hook=_no_key_twice)) == _typed(json.loads(gold))
    except (ValueError, RecursionError):
        return False


def _forget(order: Order, random: random.Random) -> Order:
    """Leave one field of the order unsaid."""
    field = random.choice(("name", "colour", "quantity"))
    if field == "name":
        return replace(order, name=None)
    index = random.randrange(len(order.lines))
    line = order.lines[index]
    line = replace(line, colour=None) if field == "colour" else replace(line, quantity=None)
    return replace(order, lines=(*order.lines[:index], line, *order.lines[index + 1 :]))


def _misspeak(order: Order, words: Words, random: random.Random) -> Correction:
    """Choose a line and what is first said wrong in it."""
    index = random.randrange(len(order.lines))
    line = order.lines[index]
    fields: list[Field] = ["item"]
    if line.colour is not None:
        fields.append("colour")
    if line.quantity is not None:
        fields += ("quantity", "quantity")
    field = random.choice(fields)
    if field == "item":
        taken = {other.item for other in order.lines}
        items = [item for item in words.items if item not in taken]
        return Correction(index, field, replace(line, item=random.choice(items)))
    if field == "colour":
        colours = [colour for colour in words.colours if colour != line.colour]
        return Correction(index, field, replace(line, colour=random.choice(colours)))
    quantities = [quantity for quantity in range(1, 21) if quantity != line.quantity]
    return Correction(index, field, replace(line, quantity=random.choice(quantities)))


def _typed(value: Any) -> Any:
    """Return the value with its types made part of equality (Python holds 1 == 1.0 == True)."""
    if isinstance(value, dict):
        return {key: _typed(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_typed(inner) for inner in value]
    return type(value), value


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("a key is given twice")
    return dict(pairs)
