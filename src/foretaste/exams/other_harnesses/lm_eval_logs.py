"""Scores out of lm-evaluation-harness's samples (`--log_samples`), which need not be installed.

Versions differ: 0.4.2 wrote one JSON list, later ones a line a row; `doc_hash` came with 0.4.3, `filter` and `metrics`
with 0.4.8. A row of an older version tells neither, so its metrics are what is no other field, and its filters are
numbered in the order in which they scored the same documents.
"""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from foretaste.errors import ConfigError, unknown
from foretaste.exams.other_harnesses.scores import OURS, Log, Scored, Wanted, clusters_of, text_hash

_FIELDS = {"doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics"} | {
    "doc_hash",
    "prompt_hash",
    "target_hash",
}
"""What every row holds beside its metrics."""
_STAMP = re.compile(r"_\d{4}-\d\d-\d\d(?:T[\d.:-]+)?$")
"""When the run was, at the end of a file's name."""
_HIGHER = frozenset(
    ("acc", "acc_norm", "acc_mutual_info", "acc_bytes", "exact_match", "em", "f1", "likelihood", "bleu", "chrf", "mcc")
)
_LOWER = frozenset(("perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte", "brier_score", "ter"))
"""Both from lm_eval/api/metrics.py of 0.4.13 (`higher_is_better`), for files without their results_*.json."""
_OUR_FIELDS = {"id", "env", "level", "register", "seed", "cluster", "stratum", "text_hash"}
"""What a document has that `foretaste exam export` wrote."""


class Samples(NamedTuple):
    """One file: a task's rows, each with the name of its filter."""

    path: Path
    task: str
    """"" for a file that is not named samples_TASK_..."""
    stamp: str
    rows: list[dict[str, Any]]


def task_and_stamp(path: Path) -> tuple[str, str]:
    """Return what a file's name says of its task and of when it was run; "" where it does not."""
    stem = path.name.removesuffix(".gz").rpartition(".")[0]
    found = _STAMP.search(stem)
    stamp = found.group()[1:] if found else ""
    return (_STAMP.sub("", stem).removeprefix("samples_") if stem.startswith("samples_") else ""), stamp


def open_samples(path: Path) -> Samples:
    """Return the rows of a file. Raises: ConfigError naming the line that is no row."""
    rows = list(_rows(path))
    if not rows:
        raise ConfigError(f"{path} holds no row of lm-evaluation-harness")
    task, stamp = task_and_stamp(path)
    if "filter" not in rows[0]:
        _name_filters(rows, _results_beside(path, stamp), task)
    return Samples(path, task, stamp, rows)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: {error}") from error
    if text.lstrip().startswith("["):
        lines = enumerate(json.loads(text), 1)  # 0.4.2: one list
        where = "row"
    else:  # a line ends at \n alone: replies may hold U+2028 and its like, which splitlines() would cut at
        lines = ((number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip())
        where = "line"
    for number, line in lines:
        try:
            row = json.loads(line) if isinstance(line, str) else line
        except ValueError as error:
            raise ConfigError(f"{path} {where} {number} is not JSON: {error}") from error
        if not isinstance(row, dict) or "doc_id" not in row:
            raise ConfigError(f"{path} {where} {number} is no row of lm-evaluation-harness: it has no doc_id")
        yield row


def _name_filters(rows: list[dict[str, Any]], results: dict[str, Any], task: str) -> None:
    """Name the filters of rows that do not: by the task's settings, else by their order, "none" for a single one."""
    count: Counter[Any] = Counter()
    for row in rows:
        count[row["doc_id"]] += 1
        row["filter"] = count[row["doc_id"]]
    total = max(count.values())
    told = ((results.get("configs") or {}).get(task) or {}).get("filter_list") or []
    names = [str(one.get("name")) for one in told if isinstance(one, dict)]
    if len(names) != total:
        names = ["none"] if total == 1 else [str(number) for number in range(1, total + 1)]
    for row in rows:
        row["filter"] = names[row["filter"] - 1]


def metrics_of(samples: Samples) -> list[tuple[str, str]]:
    """Return (metric, filter) of every score that is one number an item, in the file's order."""
    found: dict[tuple[str, str], None] = {}
    for row in samples.rows:
        for name in row.get("metrics") or [name for name in row if name not in _FIELDS]:
            if isinstance(row.get(name), bool | int | float) or row.get(name) is None:
                found[str(name), str(row["filter"])] = None
    return list(found)


def scores_of(samples: Samples, wanted: Wanted) -> Log:
    """Return the scores of a file under one metric and filter. `metric` is NAME, or NAME,FILTER.

    Raises: ConfigError for one that there is not, or if several are left; for an unknown cluster field.
    """
    metric, filter = _chosen(samples, wanted.metric)
    rows = [row for row in samples.rows if str(row["filter"]) == filter]
    docs = [row["doc"] if isinstance(row.get("doc"), dict) else {} for row in rows]
    ours = all(set(doc) >= _OUR_FIELDS for doc in docs)
    texts = [str(row.get("doc_hash") or text_hash(row.get("doc"))) for row in rows]
    ids = [
        str(doc["id"] if ours else row.get("doc_hash") or row["doc_id"]) for doc, row in zip(docs, rows, strict=True)
    ]
    named: list[tuple[str, Any]] = list(zip(ids, docs, strict=True))
    clusters, field, notes = clusters_of(named, wanted.cluster, samples.path)
    repeated: Counter[str] = Counter()
    found = []
    for name, doc, row, text, cluster in zip(ids, docs, rows, texts, clusters, strict=True):
        repeated[name] += 1
        asked = "" if ours else text_hash(text, str(row.get("target", "")))
        stratum = str(doc.get("stratum", samples.task))
        found.append(Scored(f"{name}#{repeated[name]}", cluster, _as_float(row.get(metric)), stratum, asked))
    return Log(
        samples.task or samples.path.name,
        found,
        task="" if ours else samples.task,
        metric=metric,
        filter=filter,
        grader=OURS if ours else "lm-eval",
        higher_is_better=True if ours else _direction(samples, metric),
        cluster_field=field,
        notes=notes,
    )


def _chosen(samples: Samples, wanted: str | None) -> tuple[str, str]:
    there = metrics_of(samples)
    told = [f"{metric},{filter}" for metric, filter in there]
    if not there:
        raise ConfigError(f"{samples.path} holds no scores (--predict_only), or none that is one number an item")
    if wanted is not None:
        name, _, filter = wanted.partition(",")
        named = [pair for pair in there if pair[0] == name]
        if not named:
            raise ConfigError(unknown(f"metric in {samples.path}:", name, {metric for metric, _ in there}))
        there = [pair for pair in named if filter in ("", pair[1])]
        if not there:
            raise ConfigError(
                unknown(f"filter of {name} in {samples.path}:", filter, [other for _, other in named])
                + f". Write it so: --metric {name},{named[0][1]}"
            )
    if len(there) > 1:
        names = list(dict.fromkeys(metric for metric, _ in there))
        if len(names) > 1 and len({filter for _, filter in there}) == 1:
            raise ConfigError(f"{samples.path} has the metrics {', '.join(names)}; choose one: --metric NAME")
        raise ConfigError(
            f"{samples.path} has {', '.join(told)} (a metric and the filter that took out the answer); choose one, "
            f"for example --metric {there[-1][0]},{there[-1][1]}"
        )
    return there[0]


def _as_float(value: Any) -> float | None:
    return float(value) if isinstance(value, bool | int | float) and value == value else None


def _direction(samples: Samples, metric: str) -> bool | None:
    """Return whether more is better, as the summary beside the file says, else as the harness's own metrics have it."""
    results = _results_beside(samples.path, samples.stamp)
    told = ((results.get("higher_is_better") or {}).get(samples.task) or {}).get(metric)
    if told is None:
        for listed in ((results.get("configs") or {}).get(samples.task) or {}).get("metric_list") or ():
            if isinstance(listed, dict) and listed.get("metric") == metric:
                told = listed.get("higher_is_better")
    if isinstance(told, bool):
        return told
    return True if metric in _HIGHER else False if metric in _LOWER else None


def _results_beside(path: Path, stamp: str) -> dict[str, Any]:
    """Return the summary of the run that wrote a file, {} without one."""
    exact = path.parent / f"results_{stamp}.json"
    others = sorted(path.parent.glob("*results*.json"))
    for file in [exact] if exact.is_file() else others[-1:] if not stamp or len(others) == 1 else []:
        try:
            found = json.loads(file.read_text(encoding="utf-8-sig"))
        except (OSError, ValueError):
            continue
        if isinstance(found, dict):
            return found
    return {}
