"""Shadow, canary, live, and back: one pure function decides what a deployment does next.

    shadow   the incumbent answers everybody, the learner answers silently
    canary   the learner may answer a share of the requests, in steps, each baked for a number of requests
    live     it may answer all requests whose value reaches the threshold, up to the share that a person allows,
             which the share follows down and up

`decide(stage, evidence, config)` reads nothing but its arguments, so it can run after every request or once an hour.
Within a stage, `takeover.Threshold` says which requests. Where one checkpoint is live while a newer one is tried,
each has a stage of its own. Next: `online.py` for where newer checkpoints come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from foretaste.deploy.analysis import Evidence, Finding, Verdict, analyse
from foretaste.deploy.stage_config import StageConfig
from foretaste.deploy.takeover import Judged, Threshold, promising, worth_waiting

WORTHWHILE = 0.02
"""Share of the requests that a newer checkpoint must promise to serve beyond the live one to be tried in its place."""
StageName = Literal["shadow", "canary", "live"]


@dataclass(frozen=True, slots=True)
class Stage:
    """Where one checkpoint stands."""

    name: StageName
    checkpoint: str
    """Content hash of the weights that answer in this stage."""
    share: float = 0.0
    """Share of the requests that the learner may answer; 0 in shadow."""
    since: float = 0.0
    """Requests that the deployment had seen when this stage, or step, began."""
    step: int = 0
    """Index into `StageConfig.canary_shares`."""
    failures: int = 0
    """Breaches in a row; a stage that goes live clears them."""
    last_good: str | None = None
    """The last checkpoint that was live without a breach."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What happens next."""

    kind: Literal["promote", "hold", "inconclusive", "rollback"]
    """`hold`: go on as it is. `inconclusive`: enough requests, no verdict: pause here and tell a person."""
    reason: str
    stage: Stage
    """The stage to be in from now on; the old one unless promoted or rolled back."""
    findings: tuple[Finding, ...] = ()


def shadow(checkpoint: str, *, since: float = 0.0, last_good: str | None = None, failures: int = 0) -> Stage:
    """Return the stage that every checkpoint begins in."""
    return Stage("shadow", checkpoint, since=since, last_good=last_good, failures=failures)


def decide(stage: Stage, evidence: Evidence, config: StageConfig) -> Decision:
    """Return what the evidence of a stage calls for.

    A breach while serving (served error above alpha, harm above its budget) rolls back at once, however few requests
    there are; promotion needs the stage's requests and every check a success; in between it holds, or pauses as
    inconclusive once the requests are there and the verdict is not.
    """
    if evidence.checkpoint != stage.checkpoint:
        reason = f"the evidence is about {evidence.checkpoint[:12]}, the stage about {stage.checkpoint[:12]}"
        return Decision("inconclusive", reason, stage)
    serving = stage.name != "shadow"
    findings = tuple(analyse(evidence, config, serving=serving))
    failed = _reasons(findings, Verdict.FAILURE)
    if failed and serving:
        return Decision("rollback", failed, _back(stage, evidence, config), findings)
    needed = config.bake_requests if serving else config.shadow_requests
    if stage.name == "live":
        return Decision("hold", _reasons(findings, None), replace(stage, share=config.share_ceiling), findings)
    if evidence.requests < needed:
        return Decision("hold", f"{evidence.requests} of {needed} requests of this stage", stage, findings)
    open_ = _reasons(findings, Verdict.INCONCLUSIVE) or failed
    if open_:
        return Decision("inconclusive", open_, stage, findings)
    return _forward(stage, evidence, config, findings)


def _forward(stage: Stage, evidence: Evidence, config: StageConfig, findings: tuple[Finding, ...]) -> Decision:
    """Promote by one step, as far as a person allows."""
    step = stage.step + 1 if stage.name == "canary" else 0
    live = stage.name == "canary" and step >= len(config.canary_shares)
    share = min(1.0 if live else config.canary_shares[step], config.share_ceiling)
    if share == 0 or (share <= stage.share and not live):
        reason = f"the share is at its ceiling of {config.share_ceiling:.0%}, which only a person raises"
        return Decision("inconclusive", reason, stage, findings)
    since = stage.since + evidence.requests
    if live:
        after = Stage("live", stage.checkpoint, share, since, last_good=stage.checkpoint)
    else:
        after = replace(stage, name="canary", share=share, since=since, step=step)
    return Decision("promote", _reasons(findings, None), after, findings)


def _back(stage: Stage, evidence: Evidence, config: StageConfig) -> Stage:
    """Return where a breach leads: the last good checkpoint in the first canary step, or shadow."""
    since, failures = stage.since + evidence.requests, stage.failures + 1
    good = stage.last_good if stage.last_good != stage.checkpoint else None
    if good is None or failures >= config.failures_to_shadow:
        return shadow(stage.checkpoint, since=since, failures=failures)
    share = min(config.canary_shares[0], config.share_ceiling, stage.share)
    return Stage("canary", good, share, since, failures=failures)


def _reasons(findings: tuple[Finding, ...], verdict: Verdict | None) -> str:
    """Join the reasons of one verdict; None: of all."""
    return "; ".join(f"{one.check}: {one.reason}" for one in findings if verdict in (None, one.verdict))


def gives_way(
    judged: Sequence[Judged],
    threshold: Threshold | None,
    *,
    looks: int,
    alpha: float,
    held_back: str = "",
    live: Threshold | None = None,
) -> str:
    """Return why newer weights may take the place of a checkpoint in shadow, or "" while it is worth waiting for.

    The one rule of taking up new weights: a server and a simulation both follow it. Without it, training that
    publishes faster than a calibration lasts would start each calibration anew for ever. `judged` are the
    checkpoint's own checks, `held_back` says what keeps it from being promoted whatever its threshold, `live` is the
    threshold of a live checkpoint that it would replace.
    """
    if not judged:
        return "nothing is known of it yet"
    if held_back:
        return held_back
    if threshold is not None and threshold.tau is not None:
        if live is not None and threshold.served_share <= live.served_share + WORTHWHILE:
            return f"it would serve {threshold.served_share:.0%}, hardly more than the live one"
        return ""
    if looks and threshold is not None and not worth_waiting(threshold, looks):
        return f"no threshold after {looks} looks, and none is near"
    if not promising([one.value for one in judged], [one.correct is not False for one in judged], alpha=alpha):
        return "its surest answers are plainly worse than promised"
    return ""
