"""What learning on the job is doing, told in one row of the store: whoever looks (a person, the server) reads it there.

The training process writes the row (`training_process.py`), the server adds what only it can see (a process that hangs
or died). Next: `watch.py` in the server, `offline.py` for `foretaste deploy status`.
"""

from __future__ import annotations

import json
import time
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from foretaste.deploy.state import State
from foretaste.deploy.tables import meta
from foretaste.strict_json import to_json

ROW = "learning"
"""Name of the row in `deploy_meta`."""
STATES = ("off", "starting", "waiting", "learning", "cooling_down", "not_permitted", "stopped", "failed")
"""What learning can be doing; the place is the figure at /metrics."""
SILENT_SECONDS = 120.0
"""After which a training process that has written nothing is said to be silent."""
SHOWN = {
    "loss": "policy/loss",
    "kl": "online/accepted_kl",
    "entropy": "policy/entropy",
    "score": "online/score",
    "masked": "online/masked_share",
    "imitation_loss": "policy/imitation_loss",
}
"""Figures of the last step, as they are named where people look."""


def read(connection: Connection) -> dict[str, Any]:
    """Return what was last written; nothing before the first time."""
    text = connection.scalar(sa.select(meta.c.value).where(meta.c.name == ROW))
    try:
        found = json.loads(text) if text else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def write(connection: Connection, values: dict[str, Any]) -> None:
    """Replace the row, inside the caller's write transaction."""
    text = to_json({**values, "at": time.time()})
    if connection.execute(meta.update().where(meta.c.name == ROW).values(value=text)).rowcount == 0:
        connection.execute(meta.insert().values(name=ROW, value=text))


def state_of(told: dict[str, Any], state: State, *, enabled: bool, trouble: str = "") -> str:
    """Return one of `STATES`; `trouble` is what the server sees of the process."""
    if not enabled:
        return "off"
    if state.killed or not state.may_learn:
        return "stopped" if not state.killed and told.get("phase") == "stopped" else "not_permitted"
    if trouble:
        return "failed"
    phase = told.get("phase", "starting")
    return phase if phase in STATES and phase != "stopped" else "starting"  # permitted again: a process will say so


def summary(told: dict[str, Any], state: State, *, enabled: bool, trouble: str = "") -> dict[str, Any]:
    """Return everything people are shown: the state, a sentence, and the figures; None: not measured."""
    name = state_of(told, state, enabled=enabled, trouble=trouble)
    alarm = told.get("alarm")
    figures = told.get("metrics") or {}
    return {
        "state": name,
        "words": _words(name, told, trouble),
        "step": told.get("step"),
        "at": told.get("at"),
        "alarm": alarm,
        "alarm_words": alarm_words(alarm) if alarm else "",
        "metrics": {short: figures.get(long) for short, long in SHOWN.items()},
        "soft_answers": told.get("soft_answers", 0),
        "left_out": told.get("left_out", {}),
        "suspects": told.get("suspects", {}),
        "held_back": told.get("held_back"),
        "best": told.get("best"),
        "accepted": told.get("accepted"),
    }


def alarm_words(alarm: dict[str, Any]) -> str:
    """Return an alarm in a sentence: what was seen, what was done, and which setting to look at."""
    done = {
        "noticed": "learning continues",
        "softened": "the best kept weights were taken up again, with lower rates",
        "stopped": "it stopped learning; a person resumes it with: foretaste deploy learn --resume",
    }.get(str(alarm.get("response")), "")
    evidence = f" ({alarm['evidence']})" if alarm.get("evidence") else ""
    return f"{alarm.get('name')}: {alarm.get('reason')}{evidence}; {done}. Settings to look at: {alarm.get('knob')}"


def lines(found: dict[str, Any], *, now: float, running: bool) -> list[str]:
    """Return the lines of `foretaste deploy status`."""
    said = [f"learning     {found['state'].replace('_', ' ')}: {found['words']}"]
    silent = now - found["at"] if found["at"] else None
    if running and found["state"] in ("waiting", "learning", "cooling_down") and (silent or 0) > SILENT_SECONDS:
        said[0] += f"; nothing was heard of its process for {silent:.0f} seconds"
    if found["alarm"]:
        when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(found["alarm"].get("at", 0)))
        said.append(f"last alarm   {when}, {found['alarm_words']}")
    if checked := found["held_back"]:
        said.append(
            f"held back    {checked['right']} of {checked['n']} checks right, the best kept checkpoint "
            f"{checked['best_right']}"
        )
    if found["left_out"]:
        counts = ", ".join(f"{reason} {count}" for reason, count in sorted(found["left_out"].items()))
        said.append(f"left out     feedback that was not learned from: {counts}")
    said += [f"set aside    key {key}: {reason}" for key, reason in sorted(found["suspects"].items())]
    return said


def _words(name: str, told: dict[str, Any], trouble: str) -> str:
    step = told.get("step")
    figures = told.get("metrics") or {}
    named = [(short, figures.get(SHOWN[short])) for short in ("loss", "kl", "entropy", "score")]
    measured = ", ".join(f"{short} {value:.3g}" for short, value in named if value is not None)
    at = "no step yet" if not step else f"step {step}" + (f", {measured}" if measured else "")
    if name == "off":
        return "training.enabled is false"
    if name == "failed":
        said = str(told.get("reason") or "") if told.get("phase") == "failed" else ""
        return "; ".join(one for one in (trouble, said) if one) or "the process failed; see the server's log"
    if name == "stopped":
        return f"an alarm stopped it after {at}. Resume it with: foretaste deploy learn --resume"
    if name == "not_permitted":
        return "the kill switch is on, or may_learn is false. Permit it with: foretaste deploy learn --resume"
    if name == "waiting":
        return f"{at}; it waits for {told.get('missing', 'more')} more judgements"
    return at
