"""`foretaste deploy plan`: what a deployment promises, in figures, before anything is served."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from foretaste.commands.arguments import parse

EXAMPLES = """\
  foretaste deploy plan --requests-per-day 2000                   with the settings of deploy.toml, if there is one
  foretaste deploy plan --alpha 0.02 --check-share 0.2
  foretaste deploy plan --learner-error 0.2                       how much can be served at all
  foretaste deploy plan --second-judge person --second-share 0.3
  foretaste deploy plan --feedback-seconds 86400                  the judge takes up to a day"""


@dataclass(frozen=True)
class PlanArguments:
    """Say what a deployment would promise, how long it takes, and what it would not notice.

    Reads deploy.toml where there is one; flags replace its settings. Nothing is started or changed. It takes seconds.
    """

    config: str = "deploy.toml"
    """The deployment's settings; without the file the defaults hold."""
    requests_per_day: float = 1000.0
    """Requests that arrive in a day."""
    error: float = 0.02
    """Share of wrong answers among those that the learner serves, as you hope."""
    learner_error: float | None = None
    """Share of wrong answers among all of the learner's: says how much must be left to the incumbent."""
    feedback_seconds: float | None = None
    """How long the judge may take for an answer."""
    alpha: float | None = None
    """In place of stages.alpha."""
    delta: float | None = None
    """In place of stages.delta."""
    check_share: float | None = None
    """In place of takeover.check_share."""
    comparator: str | None = None
    """In place of takeover.comparator; none: the incumbent judges nothing."""
    judge: Literal["auto", "comparator", "verifier", "person"] | None = None
    """In place of takeover.judge."""
    second_judge: Literal["none", "verifier", "person"] | None = None
    """In place of takeover.second_judge."""
    second_share: float | None = None
    """In place of takeover.second_share."""
    maturity_seconds: float | None = None
    """In place of takeover.maturity_seconds."""
    seed: int = 0
    """Of the simulated changes."""


TAKEOVER = ("check_share", "comparator", "judge", "second_judge", "second_share", "maturity_seconds")


def run(arguments: list[str]) -> None:
    """Print the plan."""
    given = parse(PlanArguments, arguments, command="deploy plan", examples=EXAMPLES)
    from dataclasses import replace

    from foretaste.deploy import settings
    from foretaste.deploy.promise import plan
    from foretaste.deploy.promise.statement import promise_of

    path = Path(given.config)
    named = given.config != "deploy.toml"
    config = settings.load(path) if named or path.is_file() else settings.DeployConfig()
    config = replace(
        config,
        stages=replace(config.stages, **_given(given, ("alpha", "delta"))),
        takeover=replace(config.takeover, **_given(given, TAKEOVER)),
    )
    if given.judge != "verifier" and given.second_judge != "verifier":
        settings.check(config)
    made = plan.make(
        promise_of(config),
        config.stages,
        requests_per_day=given.requests_per_day,
        error=given.error,
        feedback_seconds=given.feedback_seconds,
        learner_error=given.learner_error,
        seed=given.seed,
    )
    print(plan.as_text(made))


def _given(given: PlanArguments, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(given, name) for name in names if getattr(given, name) is not None}
