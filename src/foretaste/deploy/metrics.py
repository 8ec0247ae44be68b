"""What /metrics says, in Prometheus' format. No label ever holds text that a client sent, but for the names of
a request's settings: few, and of a setting's shape (`network/request_settings.py`).

One registry a server, so that several can run in one process. Definitions: docs/deploy.md.
"""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from foretaste.deploy.promise.volunteers import Volunteers
from foretaste.deploy.training.status import STATES as LEARNING

BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """The server's own counters; gauges are set when somebody looks."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"foretaste_{name}", text, labels, registry=self.registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"foretaste_{name}", text, labels, registry=self.registry)

        self.requests = counter("requests", "Chats by who answered and the status", "route", "status")
        self.unsupported = counter("unsupported", "Chats with a setting that the learner cannot honour", "setting")
        self.passed_on = counter("passed_on", "Requests to other paths, passed through", "path", "status")
        self.client_gone = counter("client_gone", "Requests whose client left before its answer was whole")
        self.kept_back = counter("kept_back", "Chats that the learner did not answer, by reason", "reason")
        self.refused = counter("refused", "Requests that were refused, by reason", "reason")
        self.shadow_offered = counter("shadow_offered", "Chats that the learner should have answered silently")
        self.shadow_answered = counter("shadow_answered", "Silent answers that came")
        self.shadow_shed = counter("shadow_shed", "Silent answers that were left out, by reason", "reason")
        self.feedback = counter("feedback", "Feedback that was stored, by kind", "kind")
        self.learner_tokens = counter("learner_tokens", "Tokens that the learner generated")
        self.seconds = Histogram(
            "foretaste_request_seconds",
            "Seconds from a request's arrival to the end of its answer",
            ["route"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.stage = gauge("stage", "0 shadow, 1 canary, 2 live")
        self.share = gauge("share", "Share of requests drawn for the learner")
        self.threshold = gauge("threshold", "The learner answers where V is at least this; NaN: nowhere")
        self.killed = gauge("killed", "1 while the kill switch is on")
        self.coverage = gauge("shadow_coverage", "Silent answers that came, as a share of those that should have")
        self.kill_switch_works = gauge("kill_switch_works", "1 while the kill switch is watched for")
        self.records_intact = gauge("records_intact", "1 while the store is what the audit log says")
        self.store_waiting = gauge("store_waiting", "Records that wait to be written, or are being written")
        self.store_waiting_bytes = gauge("store_waiting_bytes", "Bytes of prompts and answers that they hold")
        self.store_dropped = gauge("store_dropped", "Records that were left out")
        self.store_healthy = gauge("store_healthy", "1 while the store can be written")
        self.learner_ready = gauge("learner_ready", "1 while the learner's weights are loaded")
        self.learner_out = gauge("learner_out", "1 while users do not wait for the learner, after a missed deadline")
        self.connections = gauge("connections", "Connections that are open")
        self.connections_refused = gauge("connections_refused", "Connections that found no place")
        self.connections_evicted = gauge("connections_evicted", "Connections without a key that made place")
        self.learner_restarts = gauge("learner_restarts", "Times that the learner's process was started again")
        self.training_state = gauge("training_state", f"Learning on the job: {_numbered(LEARNING)}")
        self.training_step = gauge("training_step", "Steps of learning of the present process; NaN: none")
        self.training_figure = gauge("training_figure", "Figures of the last step; NaN: not measured", "name")
        self.training_soft = gauge("training_soft_answers", "Soft answers to alarms that stand")
        self.training_restarts = gauge("training_restarts", "Times that the training's process was started again")
        self.training_alarms = counter("training_alarms", "Alarms of learning on the job", "name", "response")
        self.training_alarm_time = gauge("training_last_alarm_time", "Seconds since 1970 of the last alarm; NaN: none")
        self.training_left_out = gauge("training_left_out", "Feedback that was not learned from, by reason", "reason")
        self.training_held_back = gauge("training_held_back_right", "Share of held-back checks right", "version")
        self.keys_not_counted = gauge("keys_not_counted", "Keys whose feedback contradicts the stated judges too often")
        self.complaints = gauge("complaint_share", "Share of answers that users complained about; NaN: none", "route")
        self.complaints_warned = gauge("complaints_warned", "1 while more complaints than chance are about the learner")
        self._offered = self._answered = 0
        self._by_route: dict[tuple[str, int], Counter] = {}
        self._seconds: dict[str, Histogram] = {}

    def chat(self, route: str, status: int, seconds: float) -> None:
        """Count one chat."""
        pair = (route, status)
        if pair not in self._by_route:  # finding a labelled child costs more than counting
            self._by_route[pair] = self.requests.labels(route, str(status))
            self._seconds[route] = self.seconds.labels(route)
        self._by_route[pair].inc()
        self._seconds[route].observe(seconds)

    def shadow(self, *, answered: bool) -> None:
        """Count a chat offered to the learner, or its silent answer."""
        if answered:
            self._answered += 1
            self.shadow_answered.inc()
        else:
            self._offered += 1
            self.shadow_offered.inc()

    @property
    def shadow_coverage(self) -> float | None:
        """Share of the offered chats that were answered; None before the first."""
        return self._answered / self._offered if self._offered else None

    def learning(self, found: dict[str, Any]) -> None:
        """Take over what learning on the job says of itself (`training/status.py`)."""
        if not found:
            return
        self.training_state.set(LEARNING.index(found["state"]))
        self.training_step.set(_figure(found["step"]))
        for name, value in found["metrics"].items():
            self.training_figure.labels(name).set(_figure(value))
        self.training_soft.set(found["soft_answers"])
        self.training_restarts.set(found["restarts"])
        self.training_alarm_time.set(_figure((found["alarm"] or {}).get("at")))
        for reason, count in found["left_out"].items():
            self.training_left_out.labels(reason).set(count)
        if (checked := found["held_back"]) and checked["n"]:
            self.training_held_back.labels("newest").set(checked["right"] / checked["n"])
            self.training_held_back.labels("best").set(checked["best_right"] / checked["n"])

    def volunteered(self, found: Volunteers) -> None:
        """Take over what users say that nobody asked (`promise/volunteers.py`)."""
        self.keys_not_counted.set(len(found.ignored))
        self.complaints.labels("learner").set(_figure(found.about_learner))
        self.complaints.labels("incumbent").set(_figure(found.about_incumbent))
        self.complaints_warned.set(bool(found.warning))

    def page(self) -> bytes:
        """Return the text that Prometheus reads."""
        return generate_latest(self.registry)


def _figure(value: float | None) -> float:
    """Return a figure, NaN for one that was not measured: Prometheus has a place for it."""
    return float("nan") if value is None else float(value)


def _numbered(names: tuple[str, ...]) -> str:
    return ", ".join(f"{place} {name}" for place, name in enumerate(names))
