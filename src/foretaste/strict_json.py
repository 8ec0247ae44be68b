"""JSON that every reader takes: numbers that are not finite become null, since RFC 8259 has no token for them.

Python writes `NaN` and `Infinity`, which no browser and few other languages read. Null stands for "not measured".
"""

from __future__ import annotations

import json
import math
from typing import Any


def to_json(values: Any, **options: Any) -> str:
    """Return `values` as JSON without `NaN` or `Infinity`; `options` are those of `json.dumps`."""
    try:
        return json.dumps(values, allow_nan=False, **options)
    except ValueError:  # only now: a copy of everything would cost more than the writing
        return json.dumps(finite(values), allow_nan=False, **options)


def finite(values: Any) -> Any:
    """Return a copy of plain values in which None stands for each number that is not finite."""
    if isinstance(values, dict):
        return {name: finite(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [finite(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values
