"""From a file to lines of JSON text: encodings that editors write, and refusals of files that are no JSON lines.

Every refusal shows the command that makes JSON lines of such a file. Next: `items.py`.
"""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from foretaste.errors import EnvError

SHAPE = '{"prompt": "...", "answer": "..."}'
"""What a line looks like, for messages."""

_ENCODINGS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_BYTE_ORDER_MARK = "\ufeff"
_ARRAY = re.compile(r"\s*\[\s*(\{|$)")

_READERS = {
    ".csv": ("a table of comma-separated values", "read_csv({path!r})"),
    ".tsv": ("a table of tab-separated values", "read_csv({path!r}, sep='\\t')"),
    ".parquet": ("a Parquet table", "read_parquet({path!r})"),
    ".pq": ("a Parquet table", "read_parquet({path!r})"),
    ".feather": ("a Feather table", "read_feather({path!r})"),
    ".arrow": ("an Arrow table", "read_feather({path!r})"),
    ".orc": ("an ORC table", "read_orc({path!r})"),
    ".xlsx": ("an Excel workbook", "read_excel({path!r})"),
    ".xls": ("an Excel workbook", "read_excel({path!r})"),
    ".ods": ("a spreadsheet", "read_excel({path!r})"),
    ".json": ("one JSON array", "read_json({path!r}, dtype=False)"),
}
"""Ending -> what such a file is, and how pandas reads it."""
_BEGINNINGS = (
    (b"PAR1", ".parquet"),
    (b"PK\x03\x04", ".xlsx"),
    (b"\xd0\xcf\x11\xe0", ".xls"),
    (b"ARROW1", ".arrow"),
    (b"FEA1", ".feather"),
    (b"\x1f\x8b", ".gz"),
    (b"BZh", ".bz2"),
    (b"\xfd7zXZ\x00", ".xz"),
    (b"\x28\xb5\x2f\xfd", ".zst"),
)
"""First bytes -> the ending that such files have."""
_UNPACKED_BY = {".gz": "gunzip -k", ".bz2": "bunzip2 -k", ".xz": "unxz -k", ".zst": "unzstd", ".zip": "unzip"}
_BINARY = frozenset(_READERS) - {".csv", ".tsv", ".json"}


def read_lines(path: Path) -> list[str]:
    """Return the lines of a file of JSON lines: UTF-8, or UTF-16 and UTF-32 with a byte order mark.

    Raises: EnvError if there is no such file, it is not text, or it is a table or an array.
    """
    if not path.is_file():
        raise EnvError(f"No dataset at {str(path)!r}; name a file of JSON lines, e.g. dataset:orders.jsonl")
    data = path.read_bytes()
    ending = path.suffix.lower()
    kind = next((kind for begins, kind in _BEGINNINGS if data.startswith(begins)), None)
    if kind is not None:
        raise _refusal(path, ending if ending in _BINARY or ending in _UNPACKED_BY else kind)
    try:
        text = data.decode(next((name for mark, name in _ENCODINGS if data.startswith(mark)), "utf-8"))
    except UnicodeDecodeError as error:
        if ending in _BINARY:
            raise _refusal(path, ending) from error
        raise EnvError(
            f"{path} is not UTF-8 text, nor UTF-16 with a byte order mark: {error}. A data set is JSON lines, one "
            f"object a line: {SHAPE}. Save it as UTF-8"
        ) from error
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    lines = [line.removeprefix(_BYTE_ORDER_MARK) for line in lines]  # also where files were put one after another
    first = next((line for line in lines if line.strip()), "")
    if _ARRAY.match(first):
        raise _refusal(path, ".json")
    if first and ending in _READERS and ending != ".json" and not first.lstrip().startswith("{"):
        raise _refusal(path, ending)
    return lines


def _refusal(path: Path, ending: str) -> EnvError:
    wanted = f"A data set is JSON lines: one JSON object a line, {SHAPE}"
    if ending in _UNPACKED_BY:
        return EnvError(f"{path} is compressed. {wanted}. Next: {_UNPACKED_BY[ending]} {path}")
    what, reader = _READERS[ending]
    made = path.with_suffix(".jsonl")
    made = made if made != path else path.with_name(f"{path.stem}-lines.jsonl")
    call = reader.format(path=str(path))
    return EnvError(
        f"{path} is {what}. {wanted}, with the columns prompt and answer. Next, with pandas: pandas.{call}"
        f".to_json({str(made)!r}, orient='records', lines=True, force_ascii=False), then name dataset:{made}"
    )
