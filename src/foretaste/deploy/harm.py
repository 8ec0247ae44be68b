"""What an answer does to others, before it is given: patterns and a rule of the user's own, from 0 to 1.

A rule that fails counts as harm 1: what cannot be examined is not served. Next: `shadow.py`, which runs it.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable
from typing import Any

from foretaste.deploy.judging import load_function
from foretaste.deploy.settings import HarmConfig
from foretaste.errors import ConfigError

logger = logging.getLogger(__name__)

HarmRule = Callable[[list[dict[str, Any]], str], float]


def harm_rule(config: HarmConfig) -> HarmRule | None:
    """Return the rule that the settings describe, or None if they describe none.

    Raises: ConfigError for a pattern that is none, or a function that cannot be found.
    """
    patterns: list[re.Pattern[str]] = []
    for pattern in config.patterns:
        try:
            patterns.append(re.compile(pattern))
        except re.error as error:
            raise ConfigError(f"harm.patterns: {pattern!r} is no regular expression: {error}") from error
    own = load_function(config.rule, "harm.rule") if config.rule else None
    if not patterns and own is None:
        return None

    def rule(messages: list[dict[str, Any]], text: str) -> float:
        if any(pattern.search(text) for pattern in patterns):
            return 1.0
        if own is None:
            return 0.0
        try:
            found = float(own(messages, text))
            if math.isnan(found):
                raise ValueError("harm is no number")
            return min(1.0, max(0.0, found))
        except Exception as error:  # the user's own code
            logger.warning("The harm rule failed: %s", type(error).__name__)
            return 1.0

    return rule
