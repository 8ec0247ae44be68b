"""Scores of other harnesses, read from their logs: Inspect `.eval` and `.json`, lm-evaluation-harness JSONL.

Only what a paired comparison needs is read: which item, which cluster, which score. Neither harness
has to be installed.
"""

from __future__ import annotations

import json
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from foretaste.errors import ConfigError, unknown

_ZSTANDARD = 93
"""Its number among the zip format's compression methods."""
_VALUES = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0, "yes": 1.0, "no": 0.0, "true": 1.0, "false": 0.0}
"""Inspect's letters (correct, partial, incorrect, no answer) and the words its `value_to_float` takes."""


class Scored(NamedTuple):
    """One score of one item."""

    item: str
    """Equal in two logs for the same item (and the same repetition of it)."""
    cluster: str
    """Scores of one cluster are right or wrong together."""
    score: float | None
    """None: the item failed with an error."""
    stratum: str = ""
    """Task or family, for comparisons on different items."""


class Log(NamedTuple):
    """All scores of one sitting or evaluation."""

    name: str
    scores: list[Scored]


def read_log(path: Path, *, metric: str | None = None, cluster: str | None = None) -> Log:
    """Read an Inspect log (`.eval`, `.json`) or lm-evaluation-harness samples (`.jsonl`, or a folder of them).

    Args:
        metric: scorer (Inspect) or metric (lm-evaluation-harness); needed where a log has several.
        cluster: field of an item's metadata (Inspect) or document (lm-evaluation-harness) that names
            its cluster, e.g. a passage that several questions share. "cluster" is looked for by itself.

    Raises: ConfigError for a file that is none of these, or an ambiguous or unknown metric.
    """
    if path.is_dir():
        files = sorted(path.rglob("samples_*.jsonl"))
        if not files:
            raise ConfigError(f"The folder {path} holds no samples_*.jsonl of lm-evaluation-harness (--log_samples)")
        logs = [_lm_eval(file, metric, cluster) for file in files]
        return Log(str(path), [score for log in logs for score in log.scores])
    if not path.is_file():
        raise ConfigError(f"There is no sitting and no file {str(path)!r}. Sittings: foretaste runs --kind exam")
    readers: dict[str, Callable[[Path, str | None, str | None], Log]] = {
        ".eval": _inspect_archive,
        ".json": _inspect_json,
        ".jsonl": _lm_eval,
    }
    reader = readers.get(path.suffix)
    if reader is None:
        raise ConfigError(f"{path} is no log that can be read; accepted: .eval or .json (Inspect), .jsonl (lm-eval)")
    try:
        log = reader(path, metric, cluster)
    except (ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile, NotImplementedError) as error:
        raise ConfigError(f"{path} cannot be read as such a log: {type(error).__name__}: {error}") from error
    if not log.scores:
        raise ConfigError(f"{path} holds no scored item")
    return log


# Inspect ------------------------------------------------------------------------------------------


def _inspect_archive(path: Path, metric: str | None, cluster: str | None) -> Log:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        header_name = "header.json" if "header.json" in names else "_journal/start.json"
        header = json.loads(_member(archive, header_name))
        samples = [json.loads(_member(archive, name)) for name in sorted(names) if name.startswith("samples/")]
    return _inspect(path, header, samples, metric, cluster)


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


def _inspect_json(path: Path, metric: str | None, cluster: str | None) -> Log:
    log = json.loads(path.read_text(encoding="utf-8"))
    return _inspect(path, log, log.get("samples") or [], metric, cluster)


def _inspect(path: Path, header: dict[str, Any], samples: list[Any], metric: str | None, cluster: str | None) -> Log:
    task = str((header.get("eval") or {}).get("task", path.stem))
    scorers = sorted({name for sample in samples for name in sample.get("scores") or {}})
    scorer = _chosen(scorers, metric, path)
    found = []
    for sample in samples:
        given = (sample.get("scores") or {}).get(scorer)
        given = None if sample.get("error") is not None else given
        metadata = sample.get("metadata") or {}
        item = f"{sample['id']}#{sample.get('epoch', 1)}"
        group = str(metadata.get(cluster or "cluster", sample["id"]))
        stratum = str(metadata.get("stratum", task))
        found.append(Scored(item, group, None if given is None else _as_float(given["value"]), stratum))
    return Log(f"{task} ({(header.get('eval') or {}).get('model', path.name)})", found)


def _as_float(value: Any) -> float | None:
    if isinstance(value, bool | int | float):
        return None if value != value else float(value)  # NaN: Inspect's mark for "could not be scored"
    if isinstance(value, str):
        if value in _VALUES or value.lower() in _VALUES:
            return _VALUES.get(value, _VALUES.get(value.lower()))
        return float(value)
    raise ValueError(f"a score of type {type(value).__name__} is no number; choose a scorer that gives one")


# lm-evaluation-harness ----------------------------------------------------------------------------


def _lm_eval(path: Path, metric: str | None, cluster: str | None) -> Log:
    rows = list(_lines(path))
    metrics = sorted({name for row in rows for name in row.get("metrics") or []})
    chosen = _chosen(metrics, metric, path)
    filters = list(dict.fromkeys(str(row.get("filter", "none")) for row in rows))
    task = path.stem.removeprefix("samples_").partition("_20")[0]
    found = []
    for row in rows:
        if str(row.get("filter", "none")) != filters[0]:
            continue  # each filter scores the same replies again; the first is the task's main one
        doc = row.get("doc") or {}
        item = str(doc.get("id", row.get("doc_hash") or row["doc_id"]))
        group = str(doc.get(cluster or "cluster", item))
        score = row.get(chosen)
        failed = score is None or score != score
        found.append(Scored(f"{item}#1", group, None if failed else float(score or 0.0), str(doc.get("stratum", task))))
    return Log(task, found)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.strip():
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError(f"line {number} is no JSON object")
            yield row


def _chosen(there: list[str], wanted: str | None, path: Path) -> str:
    if wanted is not None:
        if wanted not in there:
            raise ConfigError(unknown(f"metric in {path}:", wanted, there))
        return wanted
    if len(there) != 1:
        raise ConfigError(f"{path} has the metrics {', '.join(there) or 'none'}; choose one: --metric NAME")
    return there[0]
