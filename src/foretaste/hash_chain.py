"""A chain of hashes: each entry's hash covers the one before, so that any later change shows.

The ledger and a deployment's audit log are such chains; the log's hashes take a key. Next: `ledger.py`,
`deploy/audit.py`.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

GENESIS = "0" * 64
"""The hash before the first entry."""


class Head(NamedTuple):
    """The last entry's place and hash: enough to prove later that nothing before it was changed."""

    seq: int
    hash: str


def link(previous: str, values: Sequence[Any], key: bytes | None = None) -> str:
    """Return the hash of an entry behind `previous`: SHA-256 of both, or HMAC-SHA256 where there is a key."""
    text = (previous + json.dumps(list(values), separators=(",", ":"))).encode()
    return hashlib.sha256(text).hexdigest() if key is None else hmac.new(key, text, hashlib.sha256).hexdigest()
