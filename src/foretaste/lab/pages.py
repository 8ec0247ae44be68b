"""The page of a verdict, in Markdown and in HTML, with its picture; all made from the `Verdict` alone."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from foretaste.lab.charts import Dot, Picture, Series, dot_map, line_chart
from foretaste.lab.curves import Measured, to_threshold
from foretaste.lab.tables import html_document, html_table, interval_text, markdown_table
from foretaste.lab.verdict import Decision, Judged, Verdict, false_refutation

SHARED_ITEMS = (
    "All runs are examined on the same held-out items (the same item seeds), so the interval is over training and not "
    "over items"
)

TUNED = "How each arm was tuned"

AT = " @ "
"""Between the method and the place in the name of an arm of a map."""


def page(verdict: Verdict) -> str:
    """Return a verdict's page in Markdown."""
    name = stem(verdict.study, verdict.mode)
    lines = [f"# {verdict.study}: {verdict.decision}", "", verdict.claim + ".", "", f"Source: {verdict.source}.", ""]
    if verdict.decision is Decision.EXPLORATORY:
        lines += [f"Exploratory; registered in time it would be **{verdict.would_be}**.", ""]
    lines += [markdown_table([_judged_row(one) for one in verdict.judged]), ""]
    if _drawn(verdict):
        title = verdict.picture["title"] if verdict.picture else "held-out success against sampled tokens"
        lines += [f"![{title}]({name}.svg)", ""]
    lines += [markdown_table(verdict.rows), ""] if verdict.rows else []
    lines += [f"- {fact}" for fact in facts(verdict)]
    lines += ["", "Notes:", "", *[f"- {note}" for note in verdict.notes]] if verdict.notes else []
    if verdict.tuning:
        lines += ["", f"## {TUNED}", "", tuning_text(verdict.tuning), "", markdown_table(tuning_rows(verdict.tuning))]
    for one in verdict.before:
        lines += ["", f"## {before_title(one)}", "", f"{one['claim']}.", "", markdown_table(before_judged(one)), ""]
        lines += [markdown_table(one["rows"]), ""] if one["rows"] else []
        lines += [f"- {note}" for note in before_facts(one, verdict)]
    return "\n".join(lines) + "\n"


def html_page(verdict: Verdict) -> str:
    """Return a verdict's page in HTML, self-contained."""
    colour = verdict.decision.value
    body = [
        f'<h1>{html.escape(verdict.study)}: <span class="{colour}">{verdict.decision}</span></h1>',
        f"<p>{html.escape(verdict.claim)}.</p><p>Source: {html.escape(verdict.source)}.</p>",
        html_table([_judged_row(one) for one in verdict.judged]),
        chart(verdict) if _drawn(verdict) else "",
        html_table(verdict.rows),
        _html_list((*facts(verdict), *verdict.notes)),
    ]
    if verdict.tuning:
        body += [f"<h2>{TUNED}</h2><p>{html.escape(tuning_text(verdict.tuning))}</p>"]
        body += [html_table(tuning_rows(verdict.tuning))]
    for one in verdict.before:
        body += [f"<h2>{html.escape(before_title(one))}</h2><p>{html.escape(one['claim'])}.</p>"]
        body += [html_table(before_judged(one)), html_table(one["rows"]), _html_list(before_facts(one, verdict))]
    return html_document(verdict.study, "\n".join(body))


def _html_list(lines: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{html.escape(line)}</li>" for line in lines) + "</ul>"


def tuning_text(tuning: Mapping[str, Any]) -> str:
    """Return how the arms of a verdict were tuned, and what each could spend on it."""
    spent = {f"{runs} runs and {tokens:,} sampled tokens" for runs, tokens in tuning["spent"].values()}
    return (
        f"Before anything was scored every arm had {' or '.join(sorted(spent))} to find its settings, on seeds "
        f"{', '.join(map(str, tuning['seeds']))}, which no study scores. The best of the first seed went on to "
        f"the next; of those that reached the last, the highest mean {tuning['metric']} is chosen. The sweep took "
        f"{tuning['core_minutes']:.1f} core-minutes."
    )


def tuning_rows(tuning: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one row a setting that was tried."""
    return [
        {
            "arm": name,
            "settings": ", ".join(f"{path.rpartition('.')[2]} {value:g}" for path, value in point["settings"].items()),
            f"mean {tuning['metric']}": point["figure"],
            "runs": point["runs"],
            "chosen": "**yes**" if point["winner"] else "",
        }
        for name, points in tuning["grids"].items()
        for point in points
    ]


def before_title(before: Mapping[str, Any]) -> str:
    """Return a heading for an earlier verdict of the study."""
    return f"The run before: {before['decision']}, registered {before['registered'][:10]}"


def before_judged(before: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one row an expectation of an earlier verdict."""
    return [_judged_row(Judged(**one)) for one in before["judged"]]


def before_facts(before: Mapping[str, Any], now: Verdict) -> list[str]:
    """Return how an earlier verdict was made, and its notes."""
    tuned = ["Its arms were not tuned at equal budgets."] if now.tuning and not before["tuning"] else []
    made = (
        f"Mode {before['mode']}; seeds {', '.join(map(str, before['seeds']))}; {before['core_minutes']:.1f} "
        f"core-minutes; expectation {before['registration']}; code {before['code']}"
    )
    return [made, *tuned, *before["notes"]]


def facts(verdict: Verdict) -> list[str]:
    """Return how the verdict was made, a line each."""
    jobs = f"{verdict.failed} jobs failed, {verdict.unfinished} were not run"
    needed = sum(1 for one in verdict.judged if one.required)
    together = (
        f"The claim needs all {needed} expectations that are not secondary, and one that is refuted refutes it: the "
        f"chance that a true claim is refuted is at most {false_refutation(verdict.judged):.3g}, as far as the "
        "intervals cover"
    )
    return [
        f"Mode {verdict.mode}; seeds {', '.join(map(str, verdict.seeds))}; {_budgets(verdict)}",
        f"{verdict.core_minutes:.1f} core-minutes, {verdict.minutes:.1f} minutes with {verdict.workers} workers; "
        f"{jobs}",
        f"Expectation {verdict.registration} registered {verdict.registered}; code {verdict.code}",
        f"Repeat: {verdict.command}",
        *([] if verdict.own_items else [SHARED_ITEMS]),
        *([together] if needed > 1 else []),
    ]


def _budgets(verdict: Verdict) -> str:
    """Return the sampled tokens of a seed in words: those of most arms, then of those that have their own."""
    if verdict.token_budget <= 1:
        return "no tokens are sampled for learning"
    own: dict[int, list[str]] = {}
    for arm, tokens in verdict.own_budgets.items():
        own.setdefault(tokens, []).append(arm)
    parts = [f"{tokens:,} for {', '.join(_together(arms, verdict))}" for tokens, arms in own.items()]
    if not own:
        return f"{verdict.token_budget:,} sampled tokens for every arm and seed"
    if set(verdict.curves) <= set(verdict.own_budgets):
        return f"sampled tokens a seed: {'; '.join(parts)}"
    return f"{verdict.token_budget:,} sampled tokens for a seed of every other arm; {'; '.join(parts)}"


def _together(arms: Sequence[str], verdict: Verdict) -> list[str]:
    """Return the arms, those that are all there is in a place by the place's name."""
    named: dict[str, None] = {}
    for arm in arms:
        place = arm.partition(AT)[2]
        there = [other for other in verdict.curves if place and other.partition(AT)[2] == place]
        named[f"all in {place}" if len(there) > 1 and set(there) <= set(arms) else arm] = None
    return list(named)


def chart(verdict: Verdict) -> str:
    """Return as SVG the study's own picture, a map where each arm is a method in a place, or the learning curves."""
    if verdict.picture is not None:
        return Picture.from_json(verdict.picture).draw()
    if all(AT in arm for arm in verdict.curves):
        return _map(verdict)
    several = len(verdict.seeds) > 2
    series = [
        Series(arm, [[(x, y) for x, y in line] for line in lines], middle=several)
        for arm, lines in verdict.curves.items()
        if lines
    ]
    what = "thin: a seed, thick: the median of seeds" if several else "one line a seed"
    title = f"{verdict.study} ({verdict.mode}): {what}"
    return line_chart(series, title=title, x="sampled tokens", y="held-out success", y_range=(0.0, 1.0))


def _drawn(verdict: Verdict) -> bool:
    return verdict.picture is not None or any(verdict.curves.values())


def _map(verdict: Verdict) -> str:
    """Return tokens to half success of every method, place and seed as SVG; the arms are named "method @ place"."""
    places: dict[str, dict[str, list[Dot]]] = {}
    for arm, curves in verdict.curves.items():
        name, _, place = arm.partition(AT)
        reached = [to_threshold([Measured(int(x), 0, y, 0) for x, y in curve], 0.5) for curve in curves]
        places.setdefault(place, {})[name] = [Dot(bounds.low, not bounds.known) for bounds in reached]
    title = f"{verdict.study} ({verdict.mode}): sampled tokens to half success"
    return dot_map(places, title=title, x="sampled tokens; a dot a seed, the stroke their median, an arrow: never")


def _judged_row(judged: Judged) -> dict[str, Any]:
    return {
        "expected": judged.expectation + ("" if judged.required else " (secondary)"),
        "estimate and interval": interval_text(judged),
        "level": judged.level,
        "seeds": judged.seeds,
        "censored": judged.censored,
        "verdict": str(judged.decision),
    }


def stem(study: str, mode: str) -> str:
    """Return how the files of a verdict are called, without their endings."""
    return study if mode == "full" else f"{study}-{mode}"
