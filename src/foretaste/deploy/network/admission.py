"""The first look at a request: its key, its rate, and whether it has been here before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from foretaste.deploy.http import Refusal, Scope
from foretaste.deploy.keys import Key
from foretaste.deploy.network import headers
from foretaste.deploy.network.connections import connection_of

if TYPE_CHECKING:
    from foretaste.deploy.deployment import Deployment


def admit(deployment: Deployment, scope: Scope, scopes: tuple[str, ...]) -> Key:
    """Return the key of a request, before anything of its body is read.

    Raises: Refusal as the gatekeeper's.
    """
    key = deployment.gatekeeper.admit(scope["headers"], scopes)
    connection = connection_of(scope)
    if connection is not None:
        connection.registry.proven(connection)
    return key


def refuse_loops(deployment: Deployment, scope: Scope) -> None:
    """Refuse a request that comes back from the incumbent.

    Raises: Refusal 508; its key is no matter, since the incumbent would send its own.
    """
    hops = headers.hops(scope["headers"])
    if not hops or deployment.upstream is None:
        return
    if deployment.upstream.hop in hops or sum("foretaste-" in hop for hop in hops) >= headers.MOST_HOPS:
        message = "The incumbent sends its requests back here: incumbent.url leads, perhaps through others, to itself."
        raise Refusal(508, "loop", message)
