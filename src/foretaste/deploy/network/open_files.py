"""How many files and connections the process may have open."""

from __future__ import annotations

import logging

logger = logging.getLogger(__name__)


def allow_open_files(wanted: int) -> None:
    """Raise this process's own limit as far as the system lets it; warn if that is less than `wanted`."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= wanted or soft == resource.RLIM_INFINITY:
        return
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    except (OSError, ValueError):
        most = soft
    if most < wanted:
        logger.warning("Only %d files may be open; server.max_connections may need up to %d (ulimit -n)", most, wanted)
