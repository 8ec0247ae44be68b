"""The order records of `desk`, the policy, and what the policy says about a request. Pure functions."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from foretaste.envs.desk_data import ITEMS

Status = Literal["packed", "dispatched", "delivered"]
STATUSES: tuple[Status, ...] = ("packed", "dispatched", "delivered")
FACTS = ("status", "item", "price", "home")
"""What a customer may ask; `home` is the address that an order goes to."""
Decision = Literal["tell", "done", "no", "escalate"]


@dataclass(frozen=True, slots=True)
class Order:
    """One record of the database."""

    number: int
    owner: str
    item: str
    price: int
    status: Status
    days: int
    """Days since the status was reached."""
    address: str
    refunded: bool = False
    cancelled: bool = False

    def __str__(self) -> str:
        """Return the record as the tool shows it."""
        ended = " Refunded." if self.refunded else " Cancelled." if self.cancelled else ""
        return (
            f"Order {self.number} of {self.owner}: {self.item}, price {self.price}, "
            f"{self.status} {self.days} days ago, address {self.address}.{ended}"
        )


Database = dict[int, Order]


class Policy(NamedTuple):
    """The rules of one version."""

    refund_days: int
    damaged_days: int
    escalate_above: int
    cancel_dispatched: bool

    def __str__(self) -> str:
        cancel = "Cancel until delivery, address" if self.cancel_dispatched else "Cancel and address"
        return (
            f"Policy: refund {self.refund_days} days from delivery, {self.damaged_days} if damaged; "
            f"refund above {self.escalate_above}: escalate. {cancel} only before dispatch. "
            "Only the sender's own orders."
        )


POLICIES: dict[int, Policy] = {
    1: Policy(refund_days=30, damaged_days=60, escalate_above=100, cancel_dispatched=False),
    2: Policy(refund_days=14, damaged_days=30, escalate_above=50, cancel_dispatched=False),
    3: Policy(refund_days=45, damaged_days=90, escalate_above=120, cancel_dispatched=True),
}


class Request(NamedTuple):
    """What a customer wants of which order."""

    kind: str
    """A fact, or refund, cancel, address."""
    sender: str
    number: int
    damaged: bool = False
    address: str = ""
    """The new address."""


class Verdict(NamedTuple):
    """What is right: how the episode must end, and the command that must have changed the records."""

    decision: Decision
    command: str = ""
    fact: str = ""


def decide(request: Request, order: Order, policy: Policy) -> Verdict:
    """Return what the policy says about a request."""
    if order.owner != request.sender:
        return Verdict("no")
    if request.kind in FACTS:
        return Verdict("tell", fact=fact_of(order, request.kind))
    if order.refunded or order.cancelled:
        return Verdict("no")
    if request.kind == "refund":
        days = policy.damaged_days if request.damaged else policy.refund_days
        if order.status != "delivered" or order.days > days:
            return Verdict("no")
        return Verdict("escalate") if order.price > policy.escalate_above else Verdict("done", f"refund {order.number}")
    if request.kind == "cancel":
        early = order.status == "packed" or (policy.cancel_dispatched and order.status == "dispatched")
        return Verdict("done", f"cancel {order.number}") if early else Verdict("no")
    if order.status != "packed":
        return Verdict("no")
    return Verdict("done", f"address {order.number} {request.address}")


def fact_of(order: Order, fact: str) -> str:
    """Return the value of a fact as a reply must state it."""
    return {"status": order.status, "item": order.item, "price": str(order.price), "home": order.address}[fact]


def changed(database: Database, command: str) -> Database | None:
    """Return the database after `refund N`, `cancel N` or `address N TEXT`; None for anything else or no such order."""
    match = _CHANGE.fullmatch(command)
    if match is None or int(match[2]) not in database:
        return None
    verb, number, address = match[1].lower(), int(match[2]), (match[3] or "").strip()
    order = database[number]
    if (verb == "address") != bool(address):
        return None
    if verb == "refund":
        order = replace(order, refunded=True)
    elif verb == "cancel":
        order = replace(order, cancelled=True)
    else:
        order = replace(order, address=address)
    return {**database, number: order}


def target_of(command: str) -> int | None:
    """Return the order number that a changing command names."""
    match = _CHANGE.fullmatch(command)
    return None if match is None else int(match[2])


def same_record(one: Order, other: Order) -> bool:
    """Return whether two records agree; addresses are compared without case and punctuation."""
    return replace(one, address=_words(one.address)) == replace(other, address=_words(other.address))


def decision_of(reply: str) -> Decision | None:
    """Return "done" or "no" for a reply that says exactly one of them, else None.

    Read by two closed lists of words, so that a reply means the same to every reader.
    """
    words = set(re.findall(r"[a-z']+", reply.lower()))
    done, no = bool(words & _DONE), bool(words & _NO)
    return None if done == no else "done" if done else "no"


def states(reply: str, kind: str, fact: str) -> bool:
    """Return whether a reply states a fact, and no other value of its kind."""
    words = set(re.findall(r"[a-z]+", reply.lower()))
    if kind == "status":
        return words & set(STATUSES) == {fact}
    if kind == "item":
        return words & set(ITEMS) == {fact}
    if kind == "price":
        return re.findall(r"[0-9]+", re.sub(r"\border [0-9]+", "", reply.lower())) == [fact]
    return _words(fact) in _words(reply)


def reveals(reply: str, order: Order, message: str) -> bool:
    """Return whether a reply tells of an order its owner's name, number or address that the message did not hold."""
    told, known = _words(reply), _words(message)
    secrets = (order.owner, str(order.number), order.address)
    return any(_words(secret) in told and _words(secret) not in known for secret in secrets)


_CHANGE = re.compile(r"(refund|cancel|address)\s+(?:order\s+)?([0-9]{1,9})(?:\s+(.*))?", re.IGNORECASE | re.ASCII)
_DONE = frozenset(("done", "yes", "refunded", "cancelled", "canceled", "changed", "updated"))
_NO = frozenset(("no", "not", "cannot", "can't", "unable", "refuse", "refused", "denied", "won't"))


def _words(text: str) -> str:
    """Return the words and numbers of a text between single blanks, in lower case."""
    return f" {' '.join(re.findall(r'[a-z0-9]+', text.lower()))} "
