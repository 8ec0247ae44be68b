"""Reads what an exam's page shows out of the ledger: figures as the sitting wrote them, answers, looks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from foretaste.errors import LedgerError
from foretaste.ledger import Ledger, RunInfo
from foretaste.report.words import number


@dataclass(frozen=True, slots=True)
class ExamData:
    """Everything a page shows of one sitting; empty where the sitting has not come that far."""

    info: RunInfo
    paper: dict[str, Any]
    plan: dict[str, Any]
    answers: tuple[dict[str, Any], ...]
    """The latest answer to every attempt, scarce families left out."""
    results: dict[str, Any]
    verdict: dict[str, Any]
    usage: dict[str, float]
    sent_otherwise: tuple[str, ...]
    cost: float | None
    looks: tuple[dict[str, Any], ...]
    """Every look at this paper: number, policy, run, created."""
    statuses: tuple[dict[str, Any], ...]
    tampered: str = ""
    """What is wrong with the ledger's hash chain; "" if it is intact."""

    @property
    def policy(self) -> str:
        """The name of who sat."""
        return str(self.info.config.get("policy", "?"))

    @property
    def main(self) -> list[dict[str, Any]]:
        """Answers that count: not of the public twin, first samples."""
        return [a for a in self.answers if not a["public"] and a["sample"] == 0]


def gather_exam(ledger: Ledger, run_id: str) -> ExamData:
    """Return the data of a sitting. Raises: LedgerError for an unknown run."""
    info = ledger.run(run_id)
    records = ledger.records(info.id)
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        by_kind.setdefault(record.kind, []).append(record.payload)
    answers: dict[tuple[int, int, bool], dict[str, Any]] = {}
    for payload in by_kind.get("answer", []):
        if not payload.get("scarce"):
            answers[payload["item"], payload["sample"], payload["public"]] = payload
    usage: dict[str, float] = {}
    for payload in by_kind.get("usage", []):
        for name, value in payload.items():
            usage[name] = usage.get(name, 0.0) + (number(value) or 0.0)
    # Each answer carries its own count: a killed sitting never wrote down what it used in all.
    for name, of in (("prompt_tokens", "prompt_tokens"), ("completion_tokens", "sampled_tokens")):
        counted = sum(number(payload.get(of)) or 0.0 for payload in by_kind.get("answer", []))
        if counted:
            usage[name] = max(usage.get(name, 0.0), counted)
    settings = info.config.get("sitting") or {}
    prices = number(settings.get("price_in")), number(settings.get("price_out"))
    cost = None
    if usage and any(price is not None for price in prices):
        read, sampled = usage.get("prompt_tokens", 0.0), usage.get("completion_tokens", 0.0)
        cost = (read * (prices[0] or 0.0) + sampled * (prices[1] or 0.0)) / 1e6
    latest = {kind: payloads[-1] for kind, payloads in by_kind.items()}
    try:
        ledger.verify()
        tampered = ""
    except LedgerError as error:
        tampered = str(error)
    return ExamData(
        info=info,
        paper=info.config.get("paper") or {},
        plan=latest.get("plan", {}),
        answers=tuple(answers.values()),
        results=latest.get("sitting", {}),
        verdict=latest.get("verdict", {}),
        usage=usage,
        sent_otherwise=_sent_otherwise(by_kind),
        cost=cost,
        looks=tuple(_looks(ledger, info.name)),
        statuses=tuple(by_kind.get("status", ())),
        tampered=tampered,
    )


def _sent_otherwise(by_kind: dict[str, list[dict[str, Any]]]) -> tuple[str, ...]:
    """Return how requests were sent otherwise than asked for, over all times that the sitting was begun."""
    told = (line for payload in by_kind.get("usage", []) for line in payload.get("sent_otherwise", ()))
    return tuple(dict.fromkeys(told))


def _looks(ledger: Ledger, paper: str) -> list[dict[str, Any]]:
    found = []
    for info in ledger.runs("exam"):
        if info.name == paper:
            found += [(record.seq, info, record) for record in ledger.records(info.id, "look")]
    return [
        {"number": place, "run": info.id, "policy": record.payload["policy"], "status": info.status}
        | {"created": record.created[:16].replace("T", " ")}
        for place, (_, info, record) in enumerate(sorted(found, key=lambda row: row[0]), 1)
    ]
