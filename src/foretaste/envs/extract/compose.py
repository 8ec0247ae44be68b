"""Render an order as a customer's message: first the payload, then frames of a register around it.

The payload (order phrase, date, corrected words) is drawn before any frame and does not depend on
the register, so that all registers of an item say the same order in the same words.
"""

from __future__ import annotations

import random
from typing import NamedTuple

from foretaste.envs.extract.frames import Voice
from foretaste.envs.extract.order import Line, Order
from foretaste.envs.extract.voices import EMOJI, misspell, voice_of
from foretaste.envs.extract.words import MONTHS, NUMBERS, Words
from foretaste.envs.seeds import Split

_COMMON = ("{quantity} {colour} {items}", "{quantity} {items} in {colour}")
"""Ways to say a line that every bank has; the only ones where an order has several lines or one piece."""
_RARE: dict[Split, tuple[str, ...]] = {
    "train": ("{quantity} {items} ({colour})", "{colour} {items}, {quantity} of them"),
    "practice": ("{quantity} {items}, all {colour}", "{items} in {colour}, {quantity} in total"),
    "sealed": ("{quantity} of the {colour} {items}", "{items} ({colour}), {quantity} pieces"),
}
_DATES: dict[Split, tuple[str, ...]] = {
    "train": ("{day} {month}", "{month} {day}"),
    "practice": ("the {ordinal} of {month}", "{month} {ordinal}"),
    "sealed": ("{day} {short}", "{short} {ordinal}"),
}


class Payload(NamedTuple):
    """The words that carry the answer, and those that tempt to a wrong one."""

    order: str
    date: str
    correction: dict[str, str]
    """Slots of the correction sentence."""
    other_name: str
    other_order: str


def render(order: Order, words: Words, split: Split, register: str, random: random.Random) -> str:
    """Return the message that says `order` in a register, with the frames of a split's bank."""
    bank: Split = "train" if split == "example" else split
    payload = _payload(order, words, bank, random)
    voice = voice_of(register, bank)
    sentences = _sentences(order, voice, register, random)
    effects = _Effects(register, bank, random.getrandbits(32))
    slots = {"name": order.name, "order": payload.order, "date": payload.date, **payload.correction}
    tempting = {"name": payload.other_name, "order": payload.other_order}
    said = [effects.frame(frame).format(**(tempting if frame in voice.tempting else slots)) for frame in sentences]
    return effects.join(said)


def _payload(order: Order, words: Words, bank: Split, random: random.Random) -> Payload:
    said = list(order.lines)
    correction: dict[str, str] = {}
    if order.correction is not None:
        final, wrong = order.lines[order.correction.index], order.correction.said
        said[order.correction.index] = wrong
        correction = {
            "items": _noun(final),
            "wrong": _noun(wrong),
            "colour": final.colour or "",
            "quantity": _quantity(final.quantity, random),
        }
    phrases = [_phrase(line, bank if len(said) == 1 else None, random) for line in said]
    phrase = phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"
    others = [name for name in words.names if name != order.name]
    used = {line.item for line in (*order.lines, *said)}
    other = Line(
        random.choice([item for item in words.items if item not in used]),
        random.choice(words.colours),
        random.randint(2, 20),
    )
    return Payload(phrase, _date(order, bank, random), correction, random.choice(others), _phrase(other, None, random))


def _phrase(line: Line, bank: Split | None, random: random.Random) -> str:
    """Return "3 red lamps" or one of its variants; rare ones only where a bank is given."""
    patterns = _COMMON * 2 + (_RARE[bank] if bank and line.quantity != 1 else ())
    pattern = random.choice(patterns)
    quantity = _quantity(line.quantity, random)
    if line.quantity is None:
        pattern = "some {colour} {items}"
    elif line.colour is None:
        pattern = "{quantity} {items}"
    return pattern.format(quantity=quantity, colour=line.colour, items=_noun(line))


def _noun(line: Line) -> str:
    return line.item if line.quantity == 1 else f"{line.item}s"


def _quantity(quantity: int | None, random: random.Random) -> str:
    """Return the number in digits, four times in ten in words; draws once whatever the number is."""
    in_words = random.random() < 0.4
    if quantity is None:
        return "some"
    return NUMBERS[quantity - 1] if in_words else str(quantity)


def _date(order: Order, bank: Split, random: random.Random) -> str:
    pattern = random.choice(_DATES[bank])
    if order.date is None:
        return ""
    month, day = order.date
    ending = "th" if day in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
    name = MONTHS[month - 1]
    return pattern.format(day=day, ordinal=f"{day}{ending}", month=name, short=name[:3])


def _sentences(order: Order, voice: Voice, register: str, random: random.Random) -> list[str]:
    """Return the frames of the message in order, slots not yet filled."""
    core = [random.choice(voice.orders)]
    if order.name is not None:
        name = random.choice(voice.names)
        core = random.choice(([name, *core], [*core, name], [random.choice(voice.joint)]))
    if order.correction is not None:
        field = order.correction.field
        frames = {"quantity": voice.wrong_quantity, "colour": voice.wrong_colour, "item": voice.wrong_item}[field]
        core.append(random.choice(frames))
    if order.date is not None:
        core.append(random.choice(voice.dates))
    aside = {"none": (), "idle": voice.idle, "tempting": voice.tempting}[order.chatter]
    if aside:
        core.insert(random.choice((0, len(core))), random.choice(aside))
    if register == "distractor":
        idle = [frame for frame in voice.idle if frame not in core]
        core.insert(random.choice((0, len(core))), random.choice(idle))
    opening = [random.choice(voice.greetings)] if random.random() < 0.7 else []
    closing = [random.choice(voice.closings)] if random.random() < 0.6 else []
    return [*opening, *core, *closing]


class _Effects:
    """What a register does to frames besides choosing them; draws from a stream of its own."""

    def __init__(self, register: str, bank: Split, seed: int) -> None:
        self.register = register
        self.bank: Split = bank
        self.random = random.Random(seed)

    def frame(self, frame: str) -> str:
        return misspell(frame, self.random) if self.register == "typos" else frame

    def join(self, sentences: list[str]) -> str:
        if self.register != "emoji":
            return ("" if self.register == "chinese" else " ").join(sentences)
        faces = [self.random.choice(EMOJI[self.bank]) for _ in sentences]
        keep = self.random.randrange(len(sentences))
        said = [
            f"{sentence} {face}" if index == keep or self.random.random() < 0.4 else sentence
            for index, (sentence, face) in enumerate(zip(sentences, faces, strict=True))
        ]
        return " ".join(said)
