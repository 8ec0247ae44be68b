"""The parts of a report, each a plain value that the template lays out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from foretaste.records import Interval
from foretaste.report import words
from foretaste.report.charts import Marks, Series, line_chart, reliability_chart, stacked_bar
from foretaste.report.gather import RunData

LABELS = {"before": "Before training", "after": "After training", "curve": "During training"}

DIAGNOSTICS: tuple[tuple[str, str, str], ...] = (
    ("value/explained_variance", "Explained variance of V", "1: perfect, 0: no better than a constant."),
    ("value/loss", "Value loss", "What the critic minimises."),
    ("policy/entropy", "Entropy", "Nats per token; near 0 the policy no longer explores."),
    ("policy/clip_fraction", "Clipped share", "Tokens whose ratio left the clip range."),
    ("policy/ratio_max", "Largest ratio", "New over old probability; far from 1 means stale or mismatched samples."),
    ("policy/ratio_p999", "Ratio, 99.9th percentile", "The tail without its single largest token."),
    ("policy/kl", "KL within a step", "How far a step moves the policy from the one that sampled its episodes."),
    ("policy/gradient_norm", "Policy gradient norm", "Before clipping."),
    ("value/gradient_norm", "Critic gradient norm", "Before clipping."),
    ("policy/sampler_difference_max", "Sampler and trainer, largest", "Difference of their log-probabilities; near 0."),
    ("policy/sampler_difference_p999", "Sampler and trainer, 99.9%", "The same without the most extreme tokens."),
    ("train/reward", "Mean reward", "Of training episodes."),
    ("train/truncated", "Truncated", "Episodes cut by a limit."),
    ("train/cut_actions", "Actions cut", "Answers that the token limit cut before they ended."),
    ("train/errors", "Errors", "Episodes left out because the environment or grader failed."),
)
"""(metric, title, how to read it)"""

AUC: tuple[tuple[str, str], ...] = (("value/auc_25", "25%"), ("value/auc_50", "50%"), ("value/auc_75", "75%"))

SECONDS: tuple[tuple[str, str], ...] = (
    ("time/sample_seconds", "sampling"),
    ("time/env_seconds", "environment"),
    ("time/train_seconds", "training"),
    ("time/held_out_seconds", "held-out items"),
)


def state(data: RunData) -> str | None:
    """Say how an unfinished run ended; None for a finished one."""
    if data.info.status == "finished":
        return None
    step = f"after step {data.steps[-1]}" if data.steps else "before its first step"
    reason = next((str(s[key]) for s in reversed(data.statuses) for key in ("error", "reason") if s.get(key)), "")
    ended = {"started": "has not finished, or was killed,", "interrupted": "was interrupted", "failed": "failed"}
    text = f"This run {ended.get(data.info.status, f'has the status {data.info.status},')} {step}"
    return f"{text}{f': {reason}' if reason else ''}. The figures are those recorded until then."


def tiles(data: RunData, gain: Interval | None) -> list[tuple[str, str, str]]:
    """Return the key figures: (name, figure, remark)."""
    before, after, summary = data.before, data.after, data.summary
    sampled = words.number(summary.get("sampled_tokens"))
    episodes = words.number(summary.get("episodes"))
    calibration = next((c for c in reversed(data.calibrations) if c.get("label") == "after"), {})
    ece = words.number(summary.get("value_calibration_error"))
    area = words.number(summary.get("value_auc"))

    def point(held_out: Any) -> tuple[str, str]:
        interval = held_out.interval if held_out else None
        if interval is None:
            return words.NOT_MEASURED, ""
        failed = f", {held_out.errors} with errors left out" if held_out.errors else ""
        return words.rate(interval.mean), f"{words.bounds(interval)}, {interval.n} items{failed}"

    return [
        ("Success before", *point(before)),
        ("Success after", *point(after)),
        (
            "Gain",
            words.signed(gain.mean) if gain else words.NOT_MEASURED,
            f"{words.bounds(gain, sign=True)}, score interval" if gain else "",
        ),
        ("Training episodes", words.count(episodes if episodes is not None else data.total("train/episodes")), ""),
        ("Sampled tokens", words.count(sampled if sampled is not None else data.total("train/sampled_tokens")), ""),
        ("Wall time", words.duration(summary.get("wall_seconds")), ""),
        (
            "Calibration error of V",
            words.rate(ece if ece is not None else calibration.get("ece"), 3),
            "expected, on held-out episodes after training" + _floor(calibration.get("ece_floor")),
        ),
        (
            "AUC of V halfway",
            words.rate(area if area is not None else (calibration.get("auc") or {}).get("50")),
            "does V rank success above failure; .5 is chance",
        ),
    ]


def _floor(value: Any) -> str:
    """Say what a perfect V would show; nothing where that was not measured."""
    return "" if value is None else f"; a perfect V would show {words.rate(value, 3)} on these items"


def learning(data: RunData) -> dict[str, Any]:
    """Return the learning curve, drawn wide and narrow, with its figures."""
    points = data.metrics.get("train/success", [])
    lines = [Series("training episodes", points, 0)] if points else []
    intervals = [(point, point.interval) for point in data.held_out if point.interval is not None]
    around = [(p.step, i.low, i.mean, i.high) for p, i in intervals if p.label in ("before", "after")]
    between = [(p.step, i.low, i.mean, i.high) for p, i in intervals if p.label not in ("before", "after")]
    marks = [Marks("held-out, during", between, 3, shift=-5), Marks("held-out, before and after", around, 1)]
    rows = [
        (point.step, LABELS.get(point.label, point.label), words.rate(i.mean), words.bounds(i), i.n)
        for point, i in intervals
    ]
    described = "Success by training step. " + "; ".join(f"{when}: {mean} {span}" for _, when, mean, span, _ in rows)
    charts = [
        line_chart(lines, marks=marks, description=described, y_range=(0.0, 1.0), width=w, height=h, kind=kind)
        for w, h, kind in ((820, 300, "wide"), (360, 260, "narrow"))
    ]
    return {"charts": [chart for chart in charts if chart], "rows": rows, "training": points, "during": between}


def calibrations(data: RunData) -> list[dict[str, Any]]:
    """Return reliability diagrams by label and part of the episode, with the figures beside them."""
    latest = {str(c.get("label", "")): c for c in data.calibrations}
    result: list[dict[str, Any]] = []
    for label in sorted(latest, key=lambda name: ("after", "before").index(name) if name in ("after", "before") else 2):
        payload = latest[label]
        parts: dict[str, list[dict[str, Any]]] = {}
        for part in payload.get("bins") or ():
            parts.setdefault(str(part.get("turn_part", "whole episode")), []).append(part)
        title = LABELS.get(label, label or "Calibration")
        area = payload.get("auc") or {}
        result.append(
            {
                "title": title,
                "charts": [
                    (name, reliability_chart(bins, description=_reliability_text(title, name, bins)))
                    for name, bins in parts.items()
                ],
                "figures": [
                    ("Expected calibration error", words.rate(payload.get("ece"), 3)),
                    ("The same of a perfect V on these items", words.rate(payload.get("ece_floor"), 3)),
                    *(
                        (f"AUC at {at}% of the episode's own length", words.rate(area.get(at)))
                        for at in ("25", "50", "75")
                    ),
                ],
            }
        )
    return result


def diagnostics(data: RunData) -> list[dict[str, Any]]:
    """Return a small chart for each diagnostic, and for every metric that the list does not know."""
    known = {name for name, _, _ in DIAGNOSTICS} | {name for name, _ in SECONDS}
    known |= {"train/success", "train/episodes", "train/sampled_tokens"} | {name for name, _ in AUC}
    rows = [*DIAGNOSTICS, *((name, name, "") for name in sorted(data.metrics) if name not in known)]
    result = [_auc_item(data)]
    for name, title, how in rows:
        points = data.metrics.get(name, [])
        described = f"{title} by training step"
        if points:
            described += f": from {words.figure(points[0][1])} to {words.figure(points[-1][1])}"
        result.append(
            {
                "name": name,
                "title": title,
                "how": how,
                "legend": [],
                "last": words.figure(points[-1][1] if points else None),
                "chart": line_chart([Series(title, points, 0)], description=described, height=170) if points else None,
                "not_finite": name in data.not_finite,
            }
        )
    return result


def sources(data: RunData) -> dict[str, Any]:
    """Return each source's share of the items and its success over the steps, and its held-out success."""
    drawn: dict[str, list[tuple[int, float | None, float | None]]] = {}
    episodes: dict[str, float] = {}
    for step, payload in data.curriculum:
        rows = zip(*(payload[key] for key in ("sources", "episodes", "share", "success")), strict=True)
        for name, count, share, success in rows:
            drawn.setdefault(name, []).append((step, words.number(share), words.number(success)))
            episodes[name] = episodes.get(name, 0) + count
    charts = []
    for name, points in drawn.items():
        titles = ("share of the items", "success in training")
        lines = [
            Series(title, [(point[0], value) for point in points if (value := point[tone + 1]) is not None], tone)
            for tone, title in enumerate(titles)
        ]
        lines = [line for line in lines if line.points]
        told = (f"{one.name} {words.rate(one.points[0][1])} to {words.rate(one.points[-1][1])}" for one in lines)
        chart = line_chart(lines, description=f"{name}: {'; '.join(told)}", y_range=(0.0, 1.0), height=150)
        charts.append({"name": name, "episodes": words.count(episodes[name]), "chart": chart})
    before, after = (point.by_source if point else {} for point in (data.before, data.after))
    held_out = [
        (name, *(words.rate(known.get("success")) for known in (before.get(name, {}), row)), words.count(row.get("n")))
        for name, row in after.items()
    ]
    return {"charts": charts, "held_out": held_out}


def spending(data: RunData) -> list[dict[str, Any]]:
    """Return where seconds and sampled tokens went: a bar and its rows each."""
    whole = {part: words.number(amount) for part, amount in (data.summary.get("seconds") or {}).items()}
    # A finished run knows all its parts; of an unfinished one only the steps' own timers are known.
    seconds = list(whole.items()) or [(title, data.total(name)) for name, title in SECONDS]
    wall = words.number(data.summary.get("wall_seconds"))
    if wall is not None and any(amount is not None for _, amount in seconds):
        # What no timer covered: preparing the environment, writing records.
        seconds.append(("other", max(0.0, wall - sum(amount or 0.0 for _, amount in seconds))))
    held_out = [point.sampled_tokens for point in data.held_out if point.sampled_tokens is not None]
    tokens = [
        ("training episodes", data.total("train/sampled_tokens")),
        ("held-out items", sum(held_out) if held_out else None),
    ]
    before_training = words.number(data.pretraining.get("train/sampled_tokens"))
    if before_training is not None:
        tokens.append(("value pretraining", before_training))
    return [_bar("Seconds", seconds, words.duration), _bar("Sampled tokens", tokens, words.count)]


def warnings(data: RunData) -> list[tuple[str, str, str]]:
    """Return what went wrong or needs a look: (when, text, knob)."""
    rows = [
        (f"step {step}" if step is not None else "", str(payload.get("text", payload)), str(payload.get("knob") or ""))
        for step, payload in data.warnings
    ]
    for name in data.not_finite:
        rows.append(("", f"{name} was not a finite number at some step", ""))
    failed: dict[str, int] = {}
    for episode in data.episodes:
        if episode.get("error"):
            failed[str(episode["error"])] = failed.get(str(episode["error"]), 0) + 1
    rows += [("", f"Recorded episodes that failed ({times}): {text}", "") for text, times in failed.items()]
    errors = data.total("train/errors")
    if errors:
        rows.append(("", f"Training episodes that ended in an error, left out of the loss: {words.count(errors)}", ""))
    return rows


def provenance(data: RunData) -> list[tuple[str, str]]:
    """Return what is needed to repeat the run."""
    rows = [("Run", data.info.id), ("Begun", data.info.created), ("Status", data.info.status)]
    started: dict[str, Any] = {}
    for status in data.statuses:
        if status.get("status") == "started":
            started |= {key: value for key, value in status.items() if key not in ("status", "created", "version")}
    rows.append(("Seed", str(data.info.config.get("seed", words.NOT_MEASURED))))
    if data.resumes:
        rows.append(("Resumed from step", ", ".join(map(str, data.resumes))))
    checkpoint = data.checkpoint or {}
    rows.append(("Checkpoint", str(checkpoint.get("id") or data.summary.get("checkpoint") or "not recorded")))
    rows.append(("Folder", str(checkpoint.get("path") or data.summary.get("checkpoint_path") or "not recorded")))
    if checkpoint.get("parents"):
        rows.append(("Made from", ", ".join(map(str, checkpoint["parents"]))))
    for name, value in flat(started):
        if name != "command":
            shown = name.replace("versions.", "version of ").replace("_", " ")
            rows.append((shown[:1].upper() + shown[1:], value))
    rows.append(("Command to repeat", str(started.get("command", "not recorded"))))
    rows.append(("This page again", f"foretaste report {data.info.id}"))
    return rows


def flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested settings as ("algorithm.gamma", "1.0") rows."""
    rows: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, dict) and value:
            rows += flat(value, f"{prefix}{name}.")
        else:
            shown = ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
            rows.append((f"{prefix}{name}", shown))
    return rows


def _auc_item(data: RunData) -> dict[str, Any]:
    lines = [Series(at, data.metrics[name], tone) for tone, (name, at) in enumerate(AUC) if name in data.metrics]
    told = [f"{line.name}: {words.figure(line.points[-1][1])}" for line in lines]
    return {
        "name": "value/auc",
        "title": "AUC of V at 25, 50, 75% of each episode's own length",
        "how": "Does V rank success above failure; .5 is chance.",
        "last": ", ".join(words.rate(line.points[-1][1]) for line in lines),
        "legend": [(line.tone, line.name) for line in lines],
        "chart": line_chart(lines, description=f"AUC of V, last {'; '.join(told)}", height=170) if lines else None,
        "not_finite": False,
    }


def _bar(title: str, parts: Sequence[tuple[str, float | None]], write: Any) -> dict[str, Any]:
    amounts = [(name, amount, tone) for tone, (name, amount) in enumerate(parts) if amount is not None]
    total = sum(amount for _, amount, _ in amounts)
    described = f"{title}: " + ", ".join(f"{name} {write(amount)}" for name, amount, _ in amounts)
    return {
        "title": title,
        "total": write(total) if amounts else words.NOT_MEASURED,
        "chart": stacked_bar(amounts, description=described),
        "rows": [
            (tone, name, write(amount), f"{amount / total:.0%}" if amount is not None and total else "")
            for tone, (name, amount) in enumerate(parts)
        ],
    }


def _reliability_text(title: str, part: str, bins: Sequence[dict[str, Any]]) -> str:
    told = [
        f"V {words.rate(b['mean_value'])} came true {words.rate(b.get('mean_outcome'))}"
        for b in bins
        if b.get("n") and b.get("mean_value") is not None
    ]
    return f"{title}, {part} of the episode. " + ("; ".join(told) or words.NOT_MEASURED)
