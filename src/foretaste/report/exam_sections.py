"""The parts of an exam's page, each a plain value that the template lays out."""

from __future__ import annotations

from typing import Any

from foretaste.records import Interval
from foretaste.report import words
from foretaste.report.charts import Series, line_chart, reliability_chart, stacked_bar
from foretaste.report.exam_gather import ExamData

FAILURES: tuple[tuple[str, str], ...] = (
    ("right", "the whole task done"),
    ("wrong", "a readable answer that is not right"),
    ("unparseable", "no answer of the task's form could be read"),
    ("truncated", "cut by the token, turn or context limit"),
    ("refused", "the reply begins as a refusal does"),
    ("error", "environment, grader or endpoint failed; in no score"),
)
"""(mark, what it means), in the order of the bar's tones."""


def headline(data: ExamData) -> tuple[str, str]:
    """Return the verdict in one line, and what it rests on."""
    verdict = data.verdict
    if data.tampered:
        return (
            f"NOT TO BE TRUSTED: {data.policy} on {data.info.name}",
            f"The ledger was changed after it was written, so no figure of this page proves anything. {data.tampered}",
        )
    if not verdict:
        return f"{data.policy} on {data.info.name}: no verdict yet", "The sitting has not finished."
    outcome = verdict["outcome"]
    if outcome == "INCONCLUSIVE":
        more = verdict["more_needed"]
        none = "no item could be judged" if verdict["mean"] is None else "no number of further items would do"
        outcome += f" ({none})" if more is None else f" (needs {more} more items)"
    if verdict.get("comparison"):
        outcome = "NO VERDICT (the items of an earlier sitting, for comparison only)"
    alpha = verdict["alpha"]
    says = (
        f"{_metric(verdict['metric'])} {words.rate(verdict['mean'])} on {verdict['n']} base items, "
        f"threshold {words.rate(verdict['threshold'])}. It lies in "
        f"{words.bounds(Interval(0.0, verdict['low'], verdict['high'], 0))}; each bound is wrong with a chance of "
        f"{words.figure(alpha)} at most, whenever one looks."
    )
    if verdict["errors"]:
        certain = verdict["outcome"] != "INCONCLUSIVE"
        how = "the verdict holds whatever they would have been" if certain else "a verdict must hold whatever they are"
        says += f" {verdict['errors']} items failed in some wording; {how}."
    return f"{outcome}: {data.policy} on {data.info.name}", says


def state(data: ExamData) -> str | None:
    """Say how an unfinished sitting ended; None for a finished one."""
    if data.info.status == "finished":
        return None
    reason = next((str(s["error"]) for s in reversed(data.statuses) if s.get("error")), "")
    text = f"This sitting is not finished ({data.info.status}){f': {reason}' if reason else ''}"
    return f"{text}. Go on with: foretaste exam --resume {data.info.id}"


def tiles(data: ExamData) -> list[tuple[str, str, str]]:
    """Return the key figures: (name, figure, remark)."""
    found, usage = data.results, data.usage
    accuracy, gap, brain = (found.get(name) or {} for name in ("accuracy", "gap", "split_brain"))
    failures = found.get("failures") or {}
    total = sum(failures.values())
    missed = total - failures.get("right", 0) - failures.get("error", 0)
    allowed = data.paper.get("looks") or 0
    sealed = bool(data.paper.get("sealed", True))
    looks = f"{len(data.looks)} of {allowed}" if allowed else str(len(data.looks))
    return [
        ("Success", words.rate(accuracy.get("mean")), f"{_bounds(accuracy)}, {found.get('answers', 0)} answers"),
        ("Public - sealed", words.signed(gap.get("mean")), _bounds(gap, sign=True) if gap else _why_no_gap(data)),
        ("Right in every wording", words.rate(brain.get("all_right")), f"of {brain.get('items', 0)} base items"),
        ("Worst wording", words.rate(brain.get("worst")), str(brain.get("worst_register", ""))),
        ("Missed", words.count(missed) if total else words.NOT_MEASURED, f"of {total} answers"),
        ("Errors", words.count(failures.get("error")) if total else words.NOT_MEASURED, "left out of every score"),
        ("Looks spent", looks if sealed else "none", "at this paper" if sealed else "the paper is public"),
        (
            "Tokens",
            words.count(usage.get("prompt_tokens", 0) + usage.get("completion_tokens", 0)) if usage else "0",
            f"{words.count(usage.get('completion_tokens', 0))} sampled"
            + (f"; cost {data.cost:.4f}" if data.cost is not None else ""),
        ),
    ]


def heat(data: ExamData) -> dict[str, Any]:
    """Return environments x wordings: right of judged answers in every cell."""
    cells = {(c["env"], c["register"]): c for c in data.results.get("cells") or ()}
    registers = list(dict.fromkeys(register for _, register in cells))
    registers.sort(key=lambda name: name != "plain")
    known = {row["register"]: row for row in data.results.get("by_register") or ()}
    envs = sorted({env for env, _ in cells}, key=lambda env: (env.startswith("reasoning/"), env))
    rows = []
    for env in envs:
        shown = []
        for register in registers:
            cell = cells.get((env, register))
            if cell is None:
                shown.append(None)
            elif not cell["n"]:
                shown.append({"share": None, "text": "error", "title": f"{env}, {register}: all failed"})
            else:
                share = cell["right"] / cell["n"]
                title = f"{env}, {register}: {cell['right']} of {cell['n']} right"
                shown.append({"share": round(share, 3), "text": words.rate(share), "title": title})
        rows.append((env, shown))
    means = [
        {"share": round(known[r]["mean"], 3), "text": words.rate(known[r]["mean"]), "title": f"{r}, all families"}
        if r in known
        else None
        for r in registers
    ]
    held_out = [r for r in registers if known.get(r, {}).get("held_out")]
    return {"registers": registers, "rows": rows, "means": means, "held_out": held_out}


def wordings(data: ExamData) -> dict[str, Any] | None:
    """Return what each wording costs, net of what chance alone does; None where one wording was asked."""
    brain = data.results.get("split_brain")
    if not brain:
        return None
    families = {row["register"]: row for row in data.results.get("by_register") or ()}
    rows = []
    for row in brain["rows"]:
        family = families.get(row["register"], {})
        net = row["net"]
        rows.append(
            (
                row["register"],
                f"{family.get('family', '')}{', held out' if family.get('held_out') else ''}",
                words.rate(row["plain"]),
                words.rate(row["mean"]),
                words.rate(row["lost"]),
                words.rate(row["flip_rate"]),
                f"{words.signed(net['mean'])} {_bounds(net, sign=True)}" if net else words.NOT_MEASURED,
                row["n"],
            )
        )
    return {"rows": rows, "none_right": words.rate(brain["none_right"]), "samples": brain["samples"]}


def families(data: ExamData) -> list[tuple[Any, ...]]:
    """Return success by family and level, with its interval and the floor of a guesser."""
    return [
        (row["env"], row["level"], words.rate(row.get("mean")), _bounds(row), words.rate(row["floor"]), row.get("n"))
        for row in data.results.get("by_family") or ()
    ]


def failures(data: ExamData) -> dict[str, Any]:
    """Return the failure budget: a bar, its parts, and the parts of every family."""
    counts = data.results.get("failures") or {}
    total = sum(counts.values())
    parts = [(name, float(counts.get(name, 0)), tone) for tone, (name, _) in enumerate(FAILURES)]
    described = "Answers by outcome: " + ", ".join(f"{name} {counts.get(name, 0)}" for name, _ in FAILURES)
    return {
        "chart": stacked_bar([part for part in parts if part[1]], description=described),
        "rows": [
            (tone, name, counts.get(name, 0), f"{counts.get(name, 0) / total:.0%}" if total else "", how)
            for tone, (name, how) in enumerate(FAILURES)
        ],
        "names": [name for name, _ in FAILURES],
        "by_family": [
            (row["env"], [row[name] for name, _ in FAILURES]) for row in data.results.get("failures_by_family") or ()
        ],
        "remarks": _remarks(data),
        "errors": list((data.results.get("errors") or {}).items()),
        "without_reference": data.results.get("without_reference") or [],
    }


def _remarks(data: ExamData) -> list[str]:
    """Return what must be known to read the failures: what stricter or laxer reading would change, how it was asked."""
    found = []
    if bare := data.results.get("right_without_markup"):
        found.append(
            f"{words.count(bare)} unparseable answers would be right without the bold type, fence or words around them."
        )
    if languages := data.results.get("refusals_read_in"):
        found.append(f"Refusals are known by how they begin, in {languages}; in other languages they count as wrong.")
    return [*found, *(f"The endpoint did not take what was sent: {line}." for line in data.sent_otherwise)]


def calibration(data: ExamData) -> dict[str, Any] | None:
    """Return how well V at the turns' starts foretold the outcome; None without a trained value function."""
    turns = data.results.get("calibration") or []
    if not turns:
        return None
    bins = data.results.get("reliability") or []
    told = "; ".join(
        f"V {words.rate(b['mean_value'])} came true {words.rate(b['mean_outcome'])}" for b in bins if b["n"]
    )
    lines = [
        Series("Brier score", [(t["turn"] + 1, t["brier"]) for t in turns if t["brier"] is not None], 0),
        Series("AUC", [(t["turn"] + 1, t["auc"]) for t in turns if t["auc"] is not None], 1),
    ]
    lines = [line for line in lines if line.points]
    chart = line_chart(
        lines, description="Brier score and AUC of V by turn", y_range=(0.0, 1.0), x_label="turn", height=230
    )
    return {
        "reliability": reliability_chart(bins, description=f"V at the start of episodes. {told}"),
        "by_turn": chart if len(turns) > 1 else None,
        "rows": [
            (
                turn["turn"] + 1,
                turn["n"],
                words.rate(turn["mean_value"]),
                words.rate(turn["mean_success"]),
                words.rate(turn["brier"], 3),
                words.rate(turn["calibration_error"], 3),
                words.rate(turn["auc"]),
            )
            for turn in turns[:40]
        ],
    }


def repeated(data: ExamData) -> dict[str, Any] | None:
    """Return pass@k and pass^k; None where each item was asked once."""
    found = data.results.get("repeated")
    if not found:
        return None
    rows = [(row["k"], words.rate(row["pass_at_k"]), words.rate(row["pass_hat_k"])) for row in found["rows"]]
    return {"rows": rows, "items": found["items"], "samples": found["samples"]}


def provenance(data: ExamData) -> list[tuple[str, str]]:
    """Return what is needed to check and repeat the sitting."""
    settings = data.info.config.get("sitting") or {}
    started = next((s for s in reversed(data.statuses) if s.get("status") == "started"), {})
    known = started.get("provenance") or {}
    temperature = settings.get("temperature")
    samples = settings.get("samples", 1)
    if temperature is None:
        temperature = 0 if samples == 1 else 1
    rows = [
        ("Sitting", data.info.id),
        ("Begun", data.info.created),
        ("Policy", data.policy),
        *((name.capitalize(), str(value)) for name, value in known.items()),
        ("Decoding", f"temperature {temperature}, at most {settings.get('max_new_tokens')} tokens a reply"),
        ("Worked examples", str(settings.get("examples"))),
        ("Samples of plain", str(samples)),
        ("Paper", f"{data.info.name}, content hash {str(data.plan.get('content_hash', ''))[:16]}"),
        ("Commitment", str(data.plan.get("commitment") or "none: the items are public or those of another sitting")),
        ("Items of", str(data.plan.get("items_of") or "this sitting alone")),
        ("Passed over", f"{data.plan.get('replaced', 0)} items that training had shown or that repeat"),
        ("Asked though trained on", f"{data.results.get('trained_on', 0)} wordings"),
        ("Versions", ", ".join(f"{name} {v}" for name, v in (started.get("versions") or {}).items())),
        ("Machine", str(started.get("host", ""))),
        ("Seconds", words.duration(data.usage.get("seconds"))),
        ("This page again", f"foretaste report {data.info.id}"),
        ("All answers as a file", f"foretaste exam answers {data.info.id} --csv answers.csv"),
        *((f"SHA-256 of {env}", str(value)) for env, value in (data.plan.get("files") or {}).items()),
    ]
    short, different = (data.plan.get(name) or {} for name in ("shortfalls", "different"))
    if short:
        of = {name: f" (the family has {different[name]} different ones)" for name in short if name in different}
        missing = [f"{name}: {count} missing{of.get(name, '')}" for name, count in short.items()]
        rows.append(("Too few items", ", ".join(missing)))
    return [(name, value) for name, value in rows if value]


def scarce(data: ExamData) -> list[tuple[str, str, str]]:
    """Return what was released of scarce families."""
    rows = []
    for row in data.results.get("scarce") or ():
        told = "nothing more is told" if row["score"] is None else words.rate(row["score"])
        news = "" if row["score"] is None else "new" if row["news"] else "nothing beyond what was told before"
        rows.append((f"{row['env']}, level {row['level']} ({row['mechanism']})", told, news))
    return rows


def _metric(name: str) -> str:
    return {"accuracy": "Success", "worst_register": "Success in the worst wording"}.get(name, "Right in every wording")


def _bounds(values: dict[str, Any], *, sign: bool = False) -> str:
    if not values or values.get("low") is None or values.get("high") is None:
        return words.NOT_MEASURED
    return words.bounds(Interval(0.0, values["low"], values["high"], 0), sign=sign)


def _why_no_gap(data: ExamData) -> str:
    if not data.paper.get("sealed", True):
        return "the paper is public"
    return "no public items were asked"
