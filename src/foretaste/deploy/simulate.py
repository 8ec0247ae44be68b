"""A deployment from end to end in a simulated world: a real model learns, is calibrated, promoted and rolled back.

    traffic.py   requests, the incumbent, and a change midway
    Slot         one checkpoint in its stage: what it answered and how that was judged
    Simulation   a live slot (if any) and one on trial; each block of requests is answered, judged, learned from

Nothing here is scripted but the world: thresholds, stages, gate and alarms are those of a real deployment.
`simulation_page.py` draws the result.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from foretaste.config import SamplingConfig
from foretaste.deploy.analysis import Evidence, Finding, Verdict
from foretaste.deploy.old_tasks import OldTask, answers, old_tasks_gate, pairs_of
from foretaste.deploy.online import Experience, OnlineTrainer
from foretaste.deploy.promise.statement import FALL_PART, trial_delta
from foretaste.deploy.simulation_result import PARTS, PARTS_AFTER, Event, Row, SimulationConfig, SimulationResult
from foretaste.deploy.stage_config import StageConfig
from foretaste.deploy.stages import Decision, Stage, decide, gives_way, shadow
from foretaste.deploy.takeover import (
    Judged,
    Threshold,
    calibrate,
    confidence_of,
    look_due,
    renewed,
)
from foretaste.deploy.traffic import Request, World
from foretaste.deploy.training.response import Response
from foretaste.models import checkpoint as checkpoints
from foretaste.models.actor_critic import ActorCritic, TokenSequence
from foretaste.models.sampler import Sampler
from foretaste.records import Action, Checkpoint, Conversation
from foretaste.rl.tasks import keyed_seed


@dataclass(slots=True)
class Slot:
    """One checkpoint in its stage."""

    checkpoint: Checkpoint
    stage: Stage
    sampler: Sampler
    threshold: Threshold | None = None
    judged: list[Judged] = field(default_factory=list)
    looks: int = 0
    trial: int = 0
    """Its part of delta (`promise/calibration.py`); 0: it has had no look."""
    looked: int = 0
    """Judged answers there were at the last look."""
    gate: Finding | None = None
    requests: int = 0
    answered: int = 0
    served: int = 0
    outcomes: list[bool] = field(default_factory=list)

    def evidence(self) -> Evidence:
        """Return what is known of its stage."""
        return Evidence(
            self.checkpoint.id,
            requests=self.requests,
            learner_answers=self.answered,
            served=self.served,
            served_judged=len(self.outcomes),
            served_correct=sum(self.outcomes),
            served_outcomes=tuple(self.outcomes),
            threshold=self.threshold,
            old_tasks=self.gate,
            trial=max(1, self.trial),
        )

    def enter(self, stage: Stage) -> None:
        """Begin another stage or step: its evidence begins anew."""
        self.stage = stage
        self.requests = self.answered = self.served = 0
        self.outcomes = []

    def recalibrate(self, config: StageConfig, trials: int) -> int:
        """Choose the threshold anew if enough answers have come in since; return how many trials there were by now.

        As in a server (`promise/calibration.py`): `trials` is the number of those before.
        """
        if not look_due(len(self.judged), len(self.judged) - self.looked):
            return trials
        self.trial = self.trial or trials + 1
        self.looks, self.looked = self.looks + 1, len(self.judged)
        before, part = self.threshold, trial_delta(config.delta, self.trial)
        found = calibrate(
            self.judged,
            self.checkpoint.id,
            alpha=config.alpha,
            delta=part,
            look=self.looks,
            standing=before.tau if before else None,
            fall_delta=FALL_PART * part,
        )
        self.threshold = renewed(before, found)
        return max(trials, self.trial)


def simulate(
    config: SimulationConfig | None = None, tell: Callable[[Event], None] = lambda event: None
) -> SimulationResult:
    """Run a deployment; return what happened, block by block. It follows from the config's seed alone.

    `tell` is called with each event as it happens.
    """
    return Simulation(config or SimulationConfig(), tell).run()


class Simulation:
    """The world, the trainer, a live slot and a slot on trial."""

    def __init__(self, config: SimulationConfig, tell: Callable[[Event], None] = lambda event: None) -> None:
        self.config, self.tell = config, tell
        after = PARTS_AFTER if config.change == "register" else PARTS
        moved = {"billing": "account"} if config.change == "policy" else {}
        change_at = config.requests // 2 if config.change != "none" else config.requests
        self.world = World(
            PARTS, after, moved, change_at=change_at, incumbent_accuracy=config.incumbent_accuracy, seed=config.seed
        )
        kept = tuple(part for part in PARTS if part.env == "route")
        self.old = [task for task, _ in self.world.old_tasks(config.old_items, "gate", kept)]
        model = ActorCritic.load(config.model, seed=config.seed)
        shown = self.world.old_tasks(config.old_items, "shown", kept)
        self.trainer = OnlineTrainer(
            model,
            replace(config.online, seed=config.seed),
            config.folder,
            trusted=False,
            old_tasks=[_demonstration(model, task, answer) for task, answer in shown],
        )
        self.trials = 0
        self.live: Slot | None = None
        self.old_live: list[bool] = []
        self.trial = self._slot(self.trainer.accepted)
        self.rows: list[Row] = []
        self.events: list[Event] = []
        self.old_success: list[tuple[int, str, float]] = []
        self.seen = 0

    def run(self) -> SimulationResult:
        """Answer, judge, learn and decide, block by block."""
        started = time.perf_counter()
        while self.seen < self.config.requests:
            requests = [self.world.request(self.seen + index) for index in range(self.config.block)]
            self._block(requests)
            self.seen += len(requests)
            self._decide()
        seconds = time.perf_counter() - started
        return SimulationResult(self.config, tuple(self.rows), tuple(self.events), tuple(self.old_success), seconds)

    # A block of requests ------------------------------------------------------------------------

    def _block(self, requests: Sequence[Request]) -> None:
        """Answer a block, judge a share of it, and learn."""
        on_trial = self._answers(self.trial, requests)
        by_live = self._answers(self.live, requests) if self.live else []
        served = wrong = calls = incumbent_wrong = 0
        experiences: list[Experience] = []
        for index, request in enumerate(requests):
            mine = on_trial[index]
            audited = request.audit < self.config.judged_share
            slot, action = self.trial, mine
            if self.live and request.draw >= self.trial.stage.share:
                slot, action = self.live, by_live[index]
            may = request.draw < slot.stage.share and slot.threshold is not None
            shown = may and slot.threshold is not None and slot.threshold.serves(confidence_of(action))
            right = request.right(action.text)
            if shown:
                slot.served += 1
                served, wrong = served + 1, wrong + (not right)
                if audited or slot.stage.name == "canary":  # in a canary every served answer is looked at
                    slot.outcomes.append(right)
            else:
                calls += 1
                incumbent_wrong += not request.right(request.incumbent)
            if audited:
                calls += shown and not request.right(mine.text)  # a correction has to be asked for
                experiences.append(self._judge(request, mine))
                if self.live:
                    value = confidence_of(by_live[index])
                    self.live.judged.append(Judged(self.live.checkpoint.id, value, request.right(by_live[index].text)))
        before = self.trainer.stopped
        report = self.trainer.step(experiences)
        for alarm in report.alarms if not before and report.response is not Response.NOTICED else ():
            done = "learning has stopped" if report.stopped else "the best kept weights are taken up again"
            self._tell("alarm", f"{done}: {alarm.name}: {alarm.reason}; {alarm.evidence}")
        known = sum(request.right(action.text) for request, action in zip(requests, on_trial, strict=True))
        shown_stage = self.live.stage if self.live else self.trial.stage
        answered = len(on_trial) + len(by_live)
        total = self.seen + len(requests)
        self.rows.append(
            Row(total, shown_stage.name, served, wrong, len(requests) - served, calls, answered, known, incumbent_wrong)
        )

    def _judge(self, request: Request, action: Action) -> Experience:
        """Return what is learned from a judged answer; the incumbent's answer corrects a wrong one."""
        right = request.right(action.text)
        self.trial.judged.append(Judged(self.trial.checkpoint.id, confidence_of(action), right))
        template = self.trainer.model.template
        return Experience(
            f"{self.config.seed}-{request.number}",
            self.trial.checkpoint.id,
            tuple(template.start(request.messages)),
            action,
            score=float(right),
            correction=None if right else tuple(template.action(request.incumbent)),
        )

    def _answers(self, slot: Slot, requests: Sequence[Request]) -> list[Action]:
        seeds = [keyed_seed(self.config.seed, "answer", slot.checkpoint.id, request.number) for request in requests]
        conversations = [
            Conversation(str(request.number), list(request.messages), sample_seed=seed)
            for request, seed in zip(requests, seeds, strict=True)
        ]
        slot.requests += len(requests)
        slot.answered += len(requests)
        return slot.sampler.act(conversations)

    # Decisions ----------------------------------------------------------------------------------

    def _decide(self) -> None:
        """Calibrate where it is due, then let the stages decide."""
        if self.live:
            self.trials = self.live.recalibrate(self.config.stage, self.trials)
            decision = decide(self.live.stage, self.live.evidence(), self.config.stage)
            if decision.kind == "rollback":
                self._tell("rollback", f"live {decision.reason}")
                self.live = None
                self.trainer.forget()
                self._try_newest()  # answers from before the breach say nothing about now
                return
        self.trials = self.trial.recalibrate(self.config.stage, self.trials)
        if self.trial.stage.name == "shadow" and not self._worth_a_canary():
            return
        decision = decide(self.trial.stage, self.trial.evidence(), self.config.stage)
        if decision.kind == "promote":
            self._promote(decision)
        elif decision.kind == "rollback":
            self._tell("rollback", f"canary {decision.reason}")
            self._try_newest()

    def _worth_a_canary(self) -> bool:
        """Return whether the checkpoint in shadow should be judged; put the newest weights there if it gives way."""
        trial, alpha = self.trial, self.config.stage.alpha
        best = self.live.threshold if self.live else None
        ready = trial.threshold is not None and trial.threshold.tau is not None

        def reason(held_back: str = "") -> str:
            return gives_way(
                trial.judged, trial.threshold, looks=trial.looks, alpha=alpha, held_back=held_back, live=best
            )

        if ready and trial.gate is None and not reason():
            self._hold_against_old_tasks()
        gate = trial.gate
        if reason("" if gate is None or gate.verdict is Verdict.SUCCESS else gate.reason):
            self._try_newest()
            return False
        return ready

    def _hold_against_old_tasks(self) -> None:
        known = answers(self.trial.sampler, self.old)
        self.trial.gate = old_tasks_gate(pairs_of(self.old, self.old_live, known) if self.old_live else [])
        self.old_success.append((self.seen, self.trial.checkpoint.id, sum(known) / len(known)))
        self._tell("gate", f"old tasks: {self.trial.gate.verdict}: {self.trial.gate.reason}")

    def _promote(self, decision: Decision) -> None:
        self.trial.enter(decision.stage)
        self._tell(
            decision.stage.name, f"{self.trial.checkpoint.id[:8]} at {decision.stage.share:.0%}: {decision.reason}"
        )
        if decision.stage.name == "live":
            self.live = self.trial
            self.old_live = answers(self.live.sampler, self.old)
            self.trainer.accept(self.live.checkpoint)
            self._try_newest()

    def _try_newest(self) -> None:
        self.trial = self._slot(self.trainer.publish())

    def _slot(self, checkpoint: Checkpoint) -> Slot:
        model = checkpoints.load(checkpoint.path)
        sampling = SamplingConfig(
            temperature=self.config.online.temperature,
            max_new_tokens=self.config.max_new_tokens,
            concurrent=self.config.block,
            max_context=512,
        )
        good = self.live.checkpoint.id if self.live else None
        return Slot(
            checkpoint,
            shadow(checkpoint.id, since=float(getattr(self, "seen", 0)), last_good=good),
            Sampler(model, sampling),
        )

    def _tell(self, kind: str, text: str) -> None:
        self.events.append(Event(self.seen, kind, text))
        self.tell(self.events[-1])


def _demonstration(model: ActorCritic, task: OldTask, answer: str) -> TokenSequence:
    prompt, said = model.template.start(task.messages), model.template.action(answer)
    return TokenSequence([*prompt, *said], [False] * len(prompt) + [True] * len(said))
