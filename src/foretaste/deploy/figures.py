"""The figures of the admin's page and of `foretaste deploy status`, from the store: shares, success, calibration.

Blocks on the database: never called in the event loop.
"""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from foretaste.deploy import audit, evidence, store
from foretaste.deploy.database import reading
from foretaste.deploy.reading import messages_text
from foretaste.deploy.routing import VALUE_NOT_FINITE
from foretaste.deploy.tables import answers, requests
from foretaste.statistics import exact_interval, reliability_bins

if TYPE_CHECKING:
    from foretaste.deploy.deployment import Deployment
    from foretaste.deploy.promotion import Seen

POINTS = 48
"""Of the curves over time."""
NEWEST = 5000
"""Requests that the figures are about."""
TEXT = 2000


def figures(deployment: Deployment, seen: dict[str, Seen], tokens_today: int) -> dict[str, Any]:
    """Return everything that the admin's page shows."""
    with reading(deployment.engine) as connection:
        found = of_store(connection, deployment.config.takeover.correct_from)
        found["episodes"] = [_episode(one) for one in evidence.recent(connection, newest=20, text_limit=TEXT)]
        found["audit"] = [one._asdict() for one in list(audit.entries(connection, newest=12))[::-1]]
    return found | {
        "name": deployment.config.name,
        "state": dataclasses.asdict(deployment.state) | {"killed": deployment.killed},
        "decisions": {name: dataclasses.asdict(one) for name, one in seen.items()},
        "coverage": deployment.metrics.shadow_coverage,
        "tokens_today": tokens_today,
        "alpha": deployment.config.stages.alpha,
        "store_healthy": deployment.writer.healthy,
        "store_dropped": deployment.writer.dropped,
        "learning": deployment.learning,
        "volunteers": deployment.volunteers.summary(),
        "learner_ready": deployment.learner is not None and deployment.learner.checkpoint is not None,
    }


def of_store(connection: Connection, correct_from: float) -> dict[str, Any]:
    """Return the figures that need the store alone, over its newest requests."""
    last = store.requests_seen(connection)
    new = requests.c.number > last - NEWEST
    count = sa.func.count()
    routes_query = sa.select(requests.c.route, count).where(new).group_by(requests.c.route)
    routes = {row[0]: int(row[1]) for row in connection.execute(routes_query)}
    reasons_query = sa.select(requests.c.reason, count).where(new, requests.c.reason != "").group_by(requests.c.reason)
    reasons = {row[0]: int(row[1]) for row in connection.execute(reasons_query)}
    judged_query = (
        sa.select(requests.c.number, answers.c.value, answers.c.answer_value, answers.c.score, answers.c.served)
        .join(requests, requests.c.id == answers.c.request)
        .where(new, answers.c.role == "learner", answers.c.score.is_not(None))
        .order_by(requests.c.number)
    )
    rows = connection.execute(judged_query)
    judged = [(row.number, row.value, row.score >= correct_from, row.served) for row in rows]
    tokens_query = (
        sa.select(sa.func.sum(answers.c.completion_tokens))
        .join(requests, requests.c.id == answers.c.request)
        .where(new, answers.c.role == "learner", answers.c.served)
    )
    total = sum(routes.values())
    valued = [(value, right) for _, value, right, _ in judged if value is not None]
    return {
        "requests": last,
        "window": total,
        "routes": routes,
        "reasons": reasons,
        "served_share": routes.get("learner", 0) / total if total else None,
        "values_not_finite": reasons.get(VALUE_NOT_FINITE, 0),
        "incumbent_tokens_saved": int(connection.scalar(tokens_query) or 0),
        "served": _proportion([right for _, _, right, served in judged if served]),
        "silent": _proportion([right for _, _, right, served in judged if not served]),
        "calibration": [
            one._asdict()
            for one in reliability_bins([value for value, _ in valued], [right for _, right in valued])
            if one.n
        ],
        "curve": _curve(connection, last, judged),
    }


def _curve(
    connection: Connection, last: int, judged: list[tuple[int, float | None, bool, bool]]
) -> list[dict[str, Any]]:
    """Return share taken over and success of the learner along the requests, in equal pieces."""
    first = max(0, last - NEWEST)
    size = max(1, -(-(last - first) // POINTS))
    place = (requests.c.number - 1 - first) // size
    query = (
        sa.select(place.label("place"), requests.c.route, sa.func.count().label("n"))
        .where(requests.c.number > first)
        # By its name: PostgreSQL takes two equal expressions with values in them for different ones.
        .group_by("place", requests.c.route)
    )
    pieces: dict[int, dict[str, int]] = {}
    for row in connection.execute(query):
        pieces.setdefault(int(row.place), {})[row.route] = int(row.n)
    points: list[dict[str, Any]] = []
    for index in sorted(pieces):
        inside = [right for number, _, right, _ in judged if (number - 1 - first) // size == index]
        total = sum(pieces[index].values())
        points.append(
            {
                "request": min(last, first + (index + 1) * size),
                "served_share": pieces[index].get("learner", 0) / total,
                "success": _proportion(inside),
            }
        )
    return points


def _proportion(right: list[bool]) -> dict[str, float | int] | None:
    """Return a proportion with its exact interval; None if nothing was judged."""
    if not right:
        return None
    found = exact_interval(sum(right), len(right))
    return {"mean": found.mean, "low": found.low, "high": found.high, "n": found.n}


def _episode(found: dict[str, Any]) -> dict[str, Any]:
    """Return a request for the page: the last message, and of each answer its text and the values along it."""
    messages = messages_text(found.pop("body"))
    content = messages[-1].get("content") if messages else ""
    for answer in found["answers"]:
        trace = json.loads(answer.pop("trace") or "{}")
        answer["values"] = trace.get("values", [])
    return found | {"question": (content if isinstance(content, str) else "[parts]")[:TEXT]}
