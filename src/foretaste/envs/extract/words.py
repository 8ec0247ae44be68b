"""The words of orders, in three banks that share no name and no item: train (and worked examples), practice, sealed.

Items form their plural with a plain "s", so that singular and plural are one rule. No name is also
a colour, an item or a month. Colours are a small closed class: most are shared, held-out banks add some.
"""

from __future__ import annotations

from typing import NamedTuple

from foretaste.envs.seeds import Split


class Words(NamedTuple):
    """One bank of vocabulary."""

    names: tuple[str, ...]
    items: tuple[str, ...]
    """Singular nouns."""
    colours: tuple[str, ...]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_COLOURS = _words(
    "red blue green yellow black white grey pink purple orange brown beige silver gold navy teal maroon cream"
)

TRAIN = Words(
    names=_words(
        """Ana Ben Carla David Elena Frank Grace Hassan Ivan Julia Karim Laura Marco Nina Oscar Priya Quentin Rachel
        Samuel Tanya Umar Vera Walter Xenia Yusuf Zoe Adam Beatrice Chen Diana Emil Fatima Greta Hugo Ingrid Jamal
        Katrin Liam Mona Noah Olga Pedro Rosa Sven Tara Ulrich Victor Wendy Yara Zara Anton Bianca Carlos Dora Erik
        Farid Gina Henry Isla Jonas Kofi Leila Mikko Nadia Omar Paula"""
    ),
    items=_words(
        """lamp cup chair pillow towel notebook pen mug plate bowl blanket candle basket vase clock mirror jacket
        sweater hat cap shirt sock belt wallet backpack umbrella bottle spoon fork pan kettle apron napkin curtain
        rug cushion stool table crate drawer folder binder envelope marker pencil eraser stapler ruler tent rope
        helmet glove kite balloon ribbon button zipper magnet charger cable speaker keyboard jar bucket broom
        sponge"""
    ),
    colours=_COLOURS,
)
PRACTICE = Words(
    names=_words(
        """Abigail Bruno Celine Dmitri Esther Felix Giulia Harold Irina Joaquin Kenji Lucia Mehmet Naomi Otto Petra
        Rafael Simone Thabo Ursula Viktor Wanda Yuki Zachary Alma Boris Clara Deepak Edith Florian Gwen Hiroshi"""
    ),
    items=_words(
        """bicycle sofa guitar hammer ladder poster sticker teapot saucer coaster doormat hanger wristband lantern
        anchor whistle puzzle planter hoodie sandal bracelet necklace handbag suitcase jug funnel grater skillet
        bookend notepad crayon tripod"""
    ),
    colours=(*_COLOURS, "indigo", "coral", "khaki"),
)
SEALED = Words(
    names=_words(
        """Agnes Bertil Camila Desmond Eva Fernando Gloria Helmut Ilse Javier Kwame Lorenzo Miriam Nikolai Odette
        Pascal Ramona Stefan Tobias Uma Valeria Wilhelm Yolanda Zainab Arturo Blanca Cedric Delia Ewan Fiona Gustav
        Heidi"""
    ),
    items=_words(
        """bed drum violin chisel drill banner badge pitcher goblet placemat carpet hook flask lighter telescope
        trumpet doll flowerpot vest boot earring locket purse trunk ladle colander peeler wok pamphlet planner
        paperclip projector"""
    ),
    colours=(*_COLOURS, "lilac", "amber", "crimson"),
)

BANKS: dict[Split, Words] = {"train": TRAIN, "example": TRAIN, "practice": PRACTICE, "sealed": SEALED}

NUMBERS = _words(
    """one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
    eighteen nineteen twenty"""
)
"""NUMBERS[n - 1] is n in words."""

MONTHS = _words("January February March April May June July August September October November December")

PAYLOAD_WORDS: frozenset[str] = frozenset(
    word.lower()
    for bank in BANKS.values()
    for word in (*bank.names, *bank.items, *(f"{item}s" for item in bank.items), *bank.colours, *NUMBERS)
)
"""Every word that can carry an answer (dates aside), in lower case; no frame may hold one."""
