"""What a sweep may try of a setting, read from the command line, and a recipe with some of its settings replaced."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from foretaste.checks import check, value_at
from foretaste.config import TrainConfig, from_dict, to_dict
from foretaste.errors import ConfigError


@dataclass(frozen=True)
class Span:
    """A setting's values: those listed, or all between two numbers."""

    path: str
    """Dotted path in the recipe, e.g. algorithm.learning_rate."""
    values: tuple[Any, ...] = ()
    low: float | None = None
    high: float | None = None
    whole: bool = False
    """Only whole numbers."""

    @property
    def logarithmic(self) -> bool:
        """Ranges over a factor of ten or more are drawn on a logarithmic scale."""
        return self.low is not None and self.high is not None and self.low > 0 and self.high / self.low >= 10

    def draw(self, generator: np.random.Generator) -> Any:
        """Return a random value."""
        if self.values:
            return self.values[int(generator.integers(len(self.values)))]
        assert self.low is not None
        assert self.high is not None
        share = generator.random()
        value = (
            math.exp(math.log(self.low) + share * math.log(self.high / self.low))
            if self.logarithmic
            else self.low + share * (self.high - self.low)
        )
        return round(value) if self.whole else float(f"{value:.3g}")


def parse_span(text: str, base: TrainConfig) -> Span:
    """Read "algorithm.learning_rate=1e-5,3e-5" or "algorithm.learning_rate=1e-5..1e-3".

    Raises: ConfigError for a setting that the recipe does not have, or values of another type.
    """
    path, equals, given = (part.strip() for part in text.partition("="))
    if not equals or not given:
        raise ConfigError(f"{text!r} cannot be tried; accepted: setting=value,value,... or setting=low..high")
    try:
        now = value_at(base, path)
    except AttributeError:
        now = dataclasses.MISSING
    if now is dataclasses.MISSING or dataclasses.is_dataclass(now):
        raise ConfigError(f"No setting {path!r} in a recipe. All, with their values: foretaste train --help")
    if ".." in given:
        ends = given.split("..")
        try:
            low, high = (float(end) for end in ends)
        except ValueError:
            low = high = math.nan
        if not low < high:
            raise ConfigError(f"{path}: {given!r} is no range; accepted: low..high, two numbers, the smaller first")
        return Span(path, low=low, high=high, whole=isinstance(now, int))
    values = tuple(_typed(part.strip(), now) for part in given.split(","))
    for value in values:
        with_settings(base, {path: value})  # says what is wrong with a value of another type
    return Span(path, values)


def with_settings(base: TrainConfig, settings: Mapping[str, Any]) -> TrainConfig:
    """Return the recipe with some settings replaced, checked."""
    values = to_dict(base)
    for path, value in settings.items():
        *parents, last = path.split(".")
        inner = values
        for parent in parents:
            inner = inner[parent]
        inner[last] = value
    return check(from_dict(TrainConfig, values, where="sweep"))


def _typed(text: str, like: Any) -> Any:
    """Return text as the type that a setting has now."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if text.lower() == "none":
        return None
    if not isinstance(like, str):
        for kind in (int, float):
            try:
                return kind(text)
            except ValueError:
                continue
    return text
