"""One deployment in a simulated world, decided by a server's own code; and many of them.

    look         `takeover.look_due`, `promise/calibration.py`
    stage        `analysis.py`, `stages.py`, `promotion.changes_of`
    checks       `promise/watch.py`, `promise/checks.py`
    feedback     `promise/volunteers.py`

What is drawn in place of a store and a model: `worlds.py`. Next: `table.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from typing import NamedTuple

import numpy as np

from foretaste.deploy import promotion, stages
from foretaste.deploy.analysis import Evidence, Finding, Verdict
from foretaste.deploy.promise.calibration import recalibrated, standing
from foretaste.deploy.promise.checks import RIGHT, UNKNOWN, ServedChecks
from foretaste.deploy.promise.volunteers import (
    Exposure,
    Volunteers,
    Vote,
    complaint_warning,
    not_counted,
    records_of,
)
from foretaste.deploy.promise.watch import check_share
from foretaste.deploy.simulation.worlds import KEYS, Traffic, World, draw
from foretaste.deploy.stage_config import StageConfig
from foretaste.deploy.state import State
from foretaste.deploy.takeover import Judged, Threshold, look_due

BLOCK = 25
"""Requests between two looks."""
NEWEST = 5_000
_KEPT = Finding("old tasks", Verdict.SUCCESS, "there are none")


class Outcome(NamedTuple):
    """What came of one deployment."""

    broken: bool
    """A threshold was given whose true error was above alpha in the world that it was chosen in."""
    overall: bool
    """Of all that was served, more than alpha was to be expected wrong."""
    false_rollback: bool
    """It was stepped back while the true error of what it served was at most alpha."""
    served: int
    requests: int
    first_served: int | None
    """Requests that came before the first that the learner answered; None: it never answered one."""
    noticed: int | None
    """Served answers from the change until the step back; None: no change, or not noticed, or nothing was served."""
    changed: bool
    """It was serving when the change came, so that there was something to notice."""
    checked: float | None
    """Share of the live stage's served answers that were checked, up to the change; None: never live."""
    named: int
    """Keys whose votes were no longer counted at the end."""


class Deployment:
    """A deployment of one simulated learner; `run` lets all its requests arrive."""

    def __init__(self, world: World, config: StageConfig, *, check_share: float, seed: int) -> None:
        self.world, self.config, self.average = world, config, check_share
        self.traffic: Traffic = draw(world, seed)
        n = world.requests
        self.served, self.sampled, self.live = (np.zeros(n, dtype=np.bool_) for _ in range(3))
        self.shares = np.ones(n)
        self.state = State(checkpoint="0", stage="shadow")
        if world.let_out:
            given = Threshold(0.0, 1.0, 1.0, 150, 0, "a person let it out", observed=0.02)
            self.state = State(
                checkpoint="0", stage="live", share=1.0, tau=0.0, threshold=asdict(given), looks=1, trial=1, trials=1
            )
        self.check_share = check_share
        self.volunteers = Volunteers({}, "")
        self.broken = self.false_rollback = False
        self.noticed: int | None = None
        self.changed = False

    def run(self) -> Outcome:
        """Let all requests arrive, looking after every block."""
        world, n = self.world, self.world.requests
        each = n // world.checkpoints
        for start in range(0, n, BLOCK):
            end = min(n, start + BLOCK)
            if world.checkpoints > 1 and start and start // each > (start - BLOCK) // each:
                fresh = promotion.fresh_checkpoint(str(start // each), "", start)
                self.state = replace(self.state, **fresh)
            if world.later_error is not None and start == world.change_at:
                self.changed = self.state.tau is not None and self.state.stage != "shadow"
            self._arrive(start, end)
            self._look(end)
        served = self.served
        quiet = self.live & served & (np.arange(n) < (world.change_at if world.later_error is not None else n))
        return Outcome(
            broken=self.broken,
            overall=bool(served.any() and self.traffic.chance[served].mean() > self.config.alpha + 1e-9),
            false_rollback=self.false_rollback,
            served=int(served.sum()),
            requests=n,
            first_served=int(served.argmax()) if served.any() else None,
            noticed=self.noticed,
            changed=self.changed,
            checked=float(self.sampled[quiet].mean()) if quiet.any() else None,
            named=len(self.volunteers.ignored),
        )

    def _arrive(self, start: int, end: int) -> None:
        """Answer a block as the server's routing does."""
        state, traffic, block = self.state, self.traffic, slice(start, end)
        drawn = traffic.share_draw[block] < (state.share if state.stage != "shadow" else 0.0)
        if state.tau is not None:
            self.served[block] = drawn & (traffic.value[block] >= state.tau)
        live = state.stage == "live"
        self.live[block] = live
        self.shares[block] = np.where(drawn & live, self.check_share, 1.0)
        self.sampled[block] = traffic.check_draw[block] < self.shares[block]

    def _look(self, now: int) -> None:
        """Calibrate where it is due, decide, and set the share of checks: `Supervisor.look` without its threads."""
        self._calibrate(now)
        checks = self._checks(now)
        self._listen(now)
        threshold = standing(self.state)
        evidence = Evidence(
            self.state.checkpoint or "",
            requests=now - self.state.since,
            learner_answers=now - self.state.since,
            served=int(self.served[self.state.since : now].sum()),
            threshold=threshold,
            old_tasks=_KEPT,
            trial=max(1, self.state.trial),
            complaints=self.volunteers.warning,
            **(checks.evidence(self.state.since) if self.state.stage != "shadow" else {}),
        )
        decided = stages.decide(promotion.stage_of(self.state), evidence, self.config)
        if decided.kind == "rollback":
            self._note_rollback(now)
        if decided.kind in ("promote", "rollback"):
            self.state = replace(self.state, **promotion.changes_of(self.state, decided, now))
        if self.state.stage == "live" and threshold is not None and decided.kind != "rollback":
            self.check_share = check_share(
                checks.wrong[checks.live].tolist(),
                average=self.average,
                served=int((self.served & self.live)[self.state.watched_from : now].sum()),
                alpha=self.config.alpha,
                usual=threshold.observed,
                also=bool(self.volunteers.warning),
            )
        else:
            self.check_share = self.average

    def _calibrate(self, now: int) -> None:
        state, traffic = self.state, self.traffic
        began = max(state.fresh_from, state.since if state.looks == 0 and state.stage == "shadow" else 0)
        began = max(began, self._own_from(now))
        last = now - self.world.maturity
        if self.world.judge == "none" or last <= began:
            return
        kept = began + np.flatnonzero(self.sampled[began:last])
        if not look_due(len(kept), int((kept >= state.looked).sum())):
            return
        words = np.where(traffic.known_at[kept] < now, traffic.first[kept], UNKNOWN)[-NEWEST:].tolist()
        kept = kept[-NEWEST:]
        asked = traffic.asked[kept].tolist() if self.world.second_share else [False] * len(kept)
        seconds = (traffic.second[kept] == RIGHT).tolist()
        answers = [
            Judged(state.checkpoint or "", value, None if word == UNKNOWN else word == RIGHT, two if a else None, a)
            for value, word, two, a in zip(traffic.value[kept].tolist(), words, seconds, asked, strict=True)
        ]
        self.state = recalibrated(state, answers, last=last, alpha=self.config.alpha, delta=self.config.delta)
        before = None if state.tau is None else state.tau
        if self.state.tau is not None and self.state.tau != before:
            # A threshold chosen from answers before and after a change promises nothing about either world alone.
            mixed = self.world.later_error is not None and kept[0] < self.world.change_at < now
            self.broken |= not mixed and self._true_error(self.state.tau, now) > self.config.alpha + 1e-9

    def _own_from(self, now: int) -> int:
        """Return the first request that the present checkpoint answered."""
        each = self.world.requests // self.world.checkpoints
        return min(now - 1, (now - 1) // each * each)

    def _checks(self, now: int) -> ServedChecks:
        state, traffic = self.state, self.traffic
        began = max(state.watched_from, state.fresh_from)
        place = began + np.flatnonzero((self.served & self.sampled)[began:now])
        known = traffic.known_at[place] < now
        asked = traffic.asked[place] & (self.world.second_share > 0)
        return ServedChecks(
            number=place + 1,
            live=self.live[place],
            share=self.shares[place],
            mature=place < now - self.world.maturity,
            first=np.where(known, traffic.first[place], UNKNOWN).astype(np.int8),
            second=np.where(asked, traffic.second[place], UNKNOWN).astype(np.int8),
            asked=asked,
        )

    def _listen(self, now: int) -> None:
        """Hear what users volunteer about what they were given."""
        if not any((*self.world.praise, *self.world.report)) or now % (8 * BLOCK):
            return
        traffic, served = self.traffic, self.served[:now]
        judged = np.flatnonzero(served & self.sampled[:now] & (traffic.known_at[:now] < now))[-1000:]
        votes = [
            Vote(
                str(traffic.key[i]),
                None if not traffic.vote[i] else bool(traffic.vote[i] > 0),
                bool(traffic.first[i] == RIGHT),
            )
            for i in judged.tolist()
        ]
        ignored = not_counted(records_of(votes))
        if self.state.stage == "shadow":
            self.volunteers = Volunteers(ignored, "")
            return
        began = max(self.state.watched_from, self.state.fresh_from)
        key, by_learner = traffic.key[began:now], served[began:]
        columns = (
            by_learner,
            ~by_learner,
            by_learner & (traffic.vote[began:now] < 0),
            ~by_learner & (traffic.vote_other[began:now] < 0),
        )
        counts = np.stack([np.bincount(key[column], minlength=KEYS) for column in columns], axis=1)
        exposures = {str(place): Exposure(*row) for place, row in enumerate(counts.tolist())}
        self.volunteers = Volunteers(ignored, complaint_warning(exposures, ignored))

    def _true_error(self, tau: float, now: int) -> float:
        """Return the true error of what a threshold serves, in the world of the request `now`."""
        change = self.world.change_at if self.world.later_error is not None else self.world.requests
        times = slice(0, change) if now <= change else slice(change, None)
        inside = self.traffic.value[times] >= tau
        return float(self.traffic.chance[times][inside].mean()) if inside.any() else 0.0

    def _note_rollback(self, now: int) -> None:
        world, tau = self.world, self.state.tau
        after = world.later_error is not None and now > world.change_at
        if tau is None or self._true_error(tau, now) <= self.config.alpha + 1e-9:
            self.false_rollback = True
        elif after and self.noticed is None:
            self.noticed = int(self.served[world.change_at : now].sum())


def one(seed: int, world: World, config: StageConfig, share: float) -> Outcome:
    """Run one deployment."""
    return Deployment(world, config, check_share=share, seed=seed).run()


def many(
    world: World,
    *,
    runs: int,
    seed: int,
    config: StageConfig,
    check_share: float,
    processes: int = 1,
    done: Sequence[Outcome] = (),
    keep: Callable[[Outcome], None] = lambda _: None,
) -> Sequence[Outcome]:
    """Run `runs` deployments of one world; the outcomes follow from the seed, whatever the number of processes.

    `done` are the outcomes of the first deployments, from an earlier call; `keep` is called with each further one.
    """
    seeds = np.random.SeedSequence(seed).generate_state(runs).tolist()[len(done) :]
    work = partial(one, world=world, config=config, share=check_share)
    found = list(done[:runs])
    if processes == 1:
        for outcome in map(work, seeds):
            found.append(outcome)
            keep(outcome)
        return found
    with ProcessPoolExecutor(processes) as pool:
        for outcome in pool.map(work, seeds, chunksize=4):
            found.append(outcome)
            keep(outcome)
    return found
