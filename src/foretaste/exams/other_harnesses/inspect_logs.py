"""Scores out of Inspect's logs, `.eval` (a zip archive) and `.json`. Inspect need not be installed.

An item is known by what was asked: Inspect numbers samples 1, 2, ... where a dataset has no ids, so that two tasks
share ids without sharing a question. The scorer's own values are read, epoch by epoch, before Inspect reduces them.
"""

from __future__ import annotations

import gzip
import json
import sys
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from foretaste.errors import ConfigError
from foretaste.exams.other_harnesses.scores import OURS, Log, Scored, Wanted, chosen, clusters_of, text_hash

_ZSTANDARD = 93
"""Its number among the zip format's compression methods."""
_LETTERS = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}
"""Correct, partial, incorrect, no answer."""
_WORDS = {"yes": 1.0, "no": 0.0, "true": 1.0, "false": 0.0}
"""Those that Inspect's `value_to_float` takes, in any case."""
_OUR_FIELDS = {"env", "level", "register", "seed", "cluster", "stratum"}
"""Metadata of items that are an exam's own (`exams/inspect_task.py`)."""


class InspectLog(NamedTuple):
    """A log as it lies on disk."""

    path: Path
    header: dict[str, Any]
    samples: list[dict[str, Any]]

    @property
    def task(self) -> str:
        """The task's name without the package it comes from."""
        return str((self.header.get("eval") or {}).get("task", self.path.stem)).rpartition("/")[2]

    @property
    def model(self) -> str:
        """Who answered."""
        return str((self.header.get("eval") or {}).get("model", self.path.name))

    @property
    def created(self) -> str:
        """When it began, as the log says it."""
        return str((self.header.get("eval") or {}).get("created", ""))


def open_log(path: Path) -> InspectLog:
    """Return a log's header and samples.

    Raises: ConfigError for a file that is lm-evaluation-harness's summary; ValueError, KeyError or
    zipfile.BadZipFile for one that is no log.
    """
    if path.suffix == ".eval":
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            header_name = "header.json" if "header.json" in names else "_journal/start.json"
            header = json.loads(_member(archive, header_name))
            samples = [json.loads(_member(archive, name)) for name in sorted(names) if name.startswith("samples/")]
        return InspectLog(path, header, samples)
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    log = json.loads(text.decode("utf-8-sig"))
    if isinstance(log, dict) and "results" in log and "eval" not in log:
        raise ConfigError(
            f"{path} is a summary of lm-evaluation-harness, which holds no single items. Give the samples_*.jsonl "
            "beside it, or their folder (lm_eval --log_samples writes them)"
        )
    if not isinstance(log, dict) or "eval" not in log:
        raise ValueError('it has no "eval", which every log of Inspect has')
    return InspectLog(path, log, log.get("samples") or [])


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    """Return a file of the archive; Inspect compresses with Zstandard, which Python's zipfile reads from 3.14 on."""
    info = archive.getinfo(name)
    if info.compress_type != _ZSTANDARD or sys.version_info >= (3, 14):
        return archive.read(info)
    import zstandard

    file = archive.fp
    assert file is not None
    file.seek(info.header_offset)
    header = file.read(30)  # the local header: its name and extra field may differ in length from the directory's
    file.seek(int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little"), 1)
    unpacked = zstandard.ZstdDecompressor().decompressobj().decompress(file.read(info.compress_size))
    if len(unpacked) != info.file_size or zlib.crc32(unpacked) != info.CRC:
        raise zipfile.BadZipFile(f"{name} is damaged")
    return unpacked


def metrics_of(log: InspectLog) -> list[str]:
    """Return what a sample is scored by: `scorer`, or `scorer.key` for each key of a scorer of several values."""
    found: dict[str, None] = {}
    for sample in log.samples:
        for scorer, score in (sample.get("scores") or {}).items():
            found.update(dict.fromkeys(f"{scorer}.{key}" for key in _parts(score["value"])) or {scorer: None})
    for scorer in [name for name in found if any(other.startswith(f"{name}.") for other in found)]:
        found.pop(scorer)  # a single value that stands for "could not be scored", beside samples with several
    return sorted(found)


def _parts(value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return {str(key): part for key, part in value.items()}
    return {str(place): part for place, part in enumerate(value)} if isinstance(value, list) else {}


def scores_of(log: InspectLog, wanted: Wanted) -> Log:
    """Return the scores of a log under one scorer.

    Raises: ConfigError for a log without scores, an unknown scorer or cluster, or scores that are no numbers.
    """
    there = metrics_of(log)
    if not there:
        status = str(log.header.get("status", ""))
        said = f"; its status is {status}" if status not in ("", "success") else ""
        raise ConfigError(
            f"{log.path} holds no scores: it was run with --no-score, or is not finished{said}. "
            "Score it with: inspect score LOG, or finish it with: inspect eval-retry LOG"
        )
    metric = chosen(there, wanted.metric, log.path, what="scorer")
    raw = [_value(sample, metric) for sample in log.samples]
    metadata = [sample.get("metadata") or {} for sample in log.samples]
    ids = [f"{sample['id']}#{sample.get('epoch', 1)}" for sample in log.samples]
    ours = bool(metadata) and all(set(fields) >= _OUR_FIELDS for fields in metadata)
    bases = [str(sample["id"]) for sample in log.samples]  # epochs of a sample stand or fall together
    clusters, field, notes = clusters_of(list(zip(bases, metadata, strict=True)), wanted.cluster, log.path)
    found = []
    for name, fields, sample, value, cluster in zip(ids, metadata, log.samples, raw, clusters, strict=True):
        text = "" if ours else _asked(sample)
        score = None if value is None else _as_float(value, metric, log.path)
        found.append(Scored(name, cluster, score, str(fields.get("stratum", log.task)), text))
    return Log(
        f"{log.task} ({log.model})",
        found,
        task="" if ours else log.task,
        metric=metric,
        grader=OURS if ours else "inspect",
        higher_is_better=True if ours else _direction(log, metric, raw),
        cluster_field=field,
        notes=(*notes, *_remarks(log)),
    )


def _value(sample: Mapping[str, Any], metric: str) -> Any:
    """Return a sample's value: one that failed and was scored all the same (score_on_error) has one too."""
    scores = sample.get("scores") or {}
    if metric in scores:
        return scores[metric]["value"]
    scorer = next((name for name in scores if metric.startswith(f"{name}.")), None)
    return None if scorer is None else _parts(scores[scorer]["value"]).get(metric[len(scorer) + 1 :])


def _asked(sample: Mapping[str, Any]) -> str:
    """Return a hash of input, choices and target; "" for a sample that tells none of them."""
    if sample.get("input") is None:
        return ""
    attachments = sample.get("attachments") or {}

    def resolved(value: Any) -> Any:
        if isinstance(value, str) and value.startswith("attachment://"):
            return attachments.get(value.removeprefix("attachment://"), value)
        if isinstance(value, list):
            return [resolved(part) for part in value]
        if isinstance(value, Mapping):  # messages have ids that are drawn anew in every run
            kept = {key: resolved(part) for key, part in value.items() if key not in ("id", "source", "metadata")}
            return {key: part for key, part in kept.items() if part is not None}
        return value

    return text_hash(resolved(sample["input"]), resolved(sample.get("choices")), resolved(sample.get("target")))


def _as_float(value: Any, metric: str, path: Path) -> float | None:
    if isinstance(value, bool | int | float):
        return None if value != value else float(value)  # NaN: Inspect's mark for "could not be scored"
    if isinstance(value, str):
        if value in _LETTERS or value.lower() in _WORDS:
            return _LETTERS.get(value, _WORDS.get(value.lower()))
        try:
            return float(value)
        except ValueError:
            pass
    raise ConfigError(f"{path}: the scorer {metric} gives {value!r}, which is no number; choose one that gives numbers")


def _direction(log: InspectLog, metric: str, raw: list[Any]) -> bool | None:
    """Return True where more is better: letters and truth values, or what Inspect takes the accuracy of; else None."""
    if all(isinstance(value, str | bool) or value is None or value != value for value in raw):
        return True
    for told in (log.header.get("results") or {}).get("scores") or ():
        if told.get("name") in (metric, metric.rpartition(".")[2]) and "accuracy" in (told.get("metrics") or {}):
            return True
    return None


def _remarks(log: InspectLog) -> list[str]:
    remarks = []
    status = str(log.header.get("status", "success"))
    if status != "success":
        remarks.append(f"{log.path} is not finished (status {status}): the samples that it holds are read")
    settings = (log.header.get("eval") or {}).get("config") or {}
    reducers = [str(name) for name in settings.get("epochs_reducer") or ()]
    if (settings.get("epochs") or 1) > 1 and reducers not in ([], ["mean"]):
        remarks.append(f"{log.path}: Inspect reduces epochs by {', '.join(reducers)}; here every epoch counts alike")
    return remarks
