"""POST /v1/feedback: what somebody says about an answer that they received. Acknowledged once it is on disk.

Who received it is known by the key's name: who has a new key of the same name may speak of older answers.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

from foretaste.deploy import http
from foretaste.deploy.http import Receive, Refusal, Scope, Send
from foretaste.deploy.keys import Key
from foretaste.deploy.network.admission import admit
from foretaste.deploy.network.encodings import read_decoded
from foretaste.deploy.records import Accepted, Feedback
from foretaste.deploy.store import FeedbackRefused, write_feedback
from foretaste.errors import DeployError, unknown
from foretaste.strict_json import to_json

if TYPE_CHECKING:
    from foretaste.deploy.deployment import Deployment

KINDS = ("score", "thumbs", "correction", "verifier")
SECONDS = 15.0
"""After which a feedback that is not on disk yet is not acknowledged."""
LONGEST_CORRECTION = 100_000


async def feedback(deployment: Deployment, scope: Scope, receive: Receive, send: Send) -> None:
    """Store one feedback.

    Raises: Refusal for a body that is none, an id that nobody of the key's name got (404), the same again (409), or a
    store that fails (503: it was not stored, or is not known to be; send it again).
    """
    server = deployment.config.server
    key = admit(deployment, scope, ("user",))
    body = await read_decoded(scope, receive, most=server.max_body_bytes, seconds=server.body_timeout_seconds)
    given = parse(http.parse_object(body), key)
    if given.kind == "correction":
        _refuse_unused(deployment, key)
    compare, correct_from = deployment.compare, deployment.config.takeover.correct_from
    future = deployment.writer.submit(
        lambda connection: write_feedback(connection, given, compare, correct_from=correct_from),
        size=len(given.text or ""),
    )
    try:
        async with asyncio.timeout(SECONDS):
            accepted: Accepted = await asyncio.wrap_future(future)
    except FeedbackRefused as refused:
        raise deployment.gatekeeper.refusal(Refusal(refused.status, refused.code, str(refused)), key) from refused
    except (DeployError, TimeoutError) as error:
        message = "The feedback could not be stored now; send it again later."
        raise Refusal(503, "store_failing", message, headers=[(b"retry-after", b"5")]) from error
    deployment.metrics.feedback.labels(given.kind).inc()
    # Not whose answer was judged: whether the learner or the incumbent served is the answer's own to say.
    answer = {"object": "feedback", "response_id": accepted.request, "kind": given.kind}
    await http.respond(send, 200, http.JSON, to_json(answer).encode())


def _refuse_unused(deployment: Deployment, key: Key) -> None:
    """Refuse a correction that nothing here would use: no comparator judges by it, and nobody learns from it.

    Raises: Refusal 422.
    """
    config = deployment.config
    if deployment.compare is not None or (config.training.enabled and config.learner.checkpoint is not None):
        return
    message = (
        "This deployment uses no corrections: it compares no answers and does not learn. Give `score`, `thumbs` or "
        "`verifier` instead; or set takeover.comparator or training.enabled in deploy.toml."
    )
    raise deployment.gatekeeper.refusal(Refusal(422, "correction_unused", message), key)


def parse(body: dict[str, Any], key: Key) -> Feedback:
    """Return the feedback in a request's body.

    Raises: Refusal 400 that says what is accepted.
    """
    for name in body:
        if name not in ("response_id", *KINDS):
            raise Refusal(400, "unknown_field", unknown("field", name[:64], ("response_id", *KINDS)))
    response = body.get("response_id")
    if not isinstance(response, str) or not 0 < len(response) <= 128:
        raise Refusal(400, "no_response_id", "`response_id` must be the `id` of a response you received.")
    kinds = [kind for kind in KINDS if body.get(kind) is not None]
    if len(kinds) != 1:
        raise Refusal(400, "one_kind", f"Give exactly one of {', '.join(KINDS)}; this has {len(kinds)}.")
    kind, value = kinds[0], body[kinds[0]]
    if kind == "correction":
        if not isinstance(value, str) or not value.strip() or len(value) > LONGEST_CORRECTION:
            message = (
                f"`correction` must be the right answer: text of 1 to {LONGEST_CORRECTION} letters, not all blank."
            )
            raise Refusal(400, "bad_correction", message)
        return Feedback(response, key.id, kind, None, value)
    return Feedback(response, key.id, kind, _score(kind, value))


def _score(kind: str, value: Any) -> float:
    if kind == "thumbs":
        if value not in ("up", "down"):
            raise Refusal(400, "bad_thumbs", '`thumbs` must be "up" or "down".')
        return float(value == "up")
    if kind == "verifier" and isinstance(value, bool):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not (math.isfinite(value) and 0 <= value <= 1):
        accepted = "true, false or a number from 0 to 1" if kind == "verifier" else "a number from 0 to 1"
        raise Refusal(400, f"bad_{kind}", f"`{kind}` must be {accepted}.")
    return float(value)
