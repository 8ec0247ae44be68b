"""Files of questions as tables, editors and other programs write them: read as they are meant, or refused with the
command that makes JSON lines of them; a process reads each once."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from foretaste.envs import dataset, make
from foretaste.envs.check import check_env
from foretaste.envs.dataset import read_items
from foretaste.errors import EnvError

LINES = [{"prompt": f"P{count}", "answer": "x"} for count in range(40)]


def write(folder: Path, *lines: dict[str, Any], name: str = "q.jsonl", encoding: str = "utf-8") -> Path:
    file = folder / name
    file.write_text("\n".join(map(json.dumps, lines)), encoding=encoding)
    return file


def reward(file: Path, reply: str) -> float:
    env = make(f"dataset:{file}")
    env.reset(seed=0)
    return float(env.step(reply)[1])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_byte_order_marks_are_no_part_of_the_text(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "q.jsonl"
    file.write_text('{"prompt": "é中", "answer": "x"}\r\n', encoding=encoding)
    assert [item.prompt for item in read_items(file)] == ["é中"]
    if encoding == "utf-8-sig":  # files that were put one after another
        file.write_bytes(file.read_bytes() + file.read_bytes())
        assert len(read_items(file)) == 2


@pytest.mark.parametrize(
    ("given", "reply", "right"),
    [
        (5.0, "5", 1.0),
        (5.0, "5.0", 1.0),
        (5, "5.0", 1.0),
        (0.5, "1/2", 1.0),
        (1e20, "100000000000000000000", 1.0),
        (1200, "1,200", 1.0),
        (5.0, "5 or 6", 0.0),
        ("5.0", "5", 0.0),  # text stays text
        ("5.0", "5.0", 1.0),
        ("007", "7", 0.0),
    ],
)
@pytest.mark.parametrize("named", [{}, {"grader": "exact"}, {"grader": None}])
def test_a_number_as_answer_is_a_number(tmp_path: Path, given: Any, reply: str, right: float, named: Any) -> None:
    assert reward(write(tmp_path, {"prompt": "q", "answer": given, "split": "train", **named}), reply) == right


def test_a_whole_number_is_shown_as_people_write_it(tmp_path: Path) -> None:
    [item] = read_items(write(tmp_path, {"prompt": "q", "answer": 5.0}))
    assert item.answer == "5"
    with pytest.raises(EnvError, match='"answer" is inf'):
        read_items(write(tmp_path, {"prompt": "q", "answer": float("inf")}))


@pytest.mark.parametrize("empty", [None, float("nan")])
def test_empty_cells_are_left_out(tmp_path: Path, empty: Any) -> None:
    cells = dict.fromkeys(("level", "split", "grader", "example"), empty)
    assert read_items(write(tmp_path, {**LINES[0], **cells})) == read_items(write(tmp_path, LINES[0]))
    with pytest.raises(EnvError, match='"answer" is'):
        read_items(write(tmp_path, {"prompt": "q", "answer": empty}))
    assert read_items(write(tmp_path, {**LINES[0], "level": 1.0}))[0].level == 1  # a column with an empty cell
    with pytest.raises(EnvError, match=r'"level" is 1\.5'):
        read_items(write(tmp_path, {**LINES[0], "level": 1.5}))


@pytest.mark.parametrize(
    ("one", "other", "refused"),
    [
        ({"answer": "x"}, {"answer": "y"}, True),
        ({"answer": "x"}, {"answer": " x "}, False),
        ({"answer": 5}, {"answer": 5.0}, False),
        ({"answer": 5}, {"answer": 6}, True),
        ({"answer": "5.0", "grader": "number"}, {"answer": "5", "grader": "number"}, False),
        ({"answer": "x"}, {"answer": "y", "level": 2}, False),
        ({"answer": "a+", "grader": "regex"}, {"answer": "b+", "grader": "regex"}, True),
    ],
)
def test_one_prompt_has_one_answer(tmp_path: Path, one: Any, other: Any, refused: bool) -> None:
    file = write(tmp_path, *LINES, {"prompt": "q", **one}, {"prompt": "q", **other})
    if not refused:
        assert len(read_items(file)) == 42
        return
    assert any(
        "lines 41 and 42 give the prompt 'q' different answers" in fault for fault in check_env(f"dataset:{file}")
    )
    with pytest.raises(EnvError, match="no reply is right on both"):
        read_items(file)


def test_a_file_is_read_once_and_again_when_it_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, reads = write(tmp_path, *LINES), []
    monkeypatch.setattr(dataset, "read_items", lambda path: reads.append(path) or read_items(path))
    monkeypatch.chdir(tmp_path)
    envs = [make("dataset:q.jsonl"), *(make(f"dataset:{file}") for _ in range(5))]
    assert len(reads) == 1
    assert len({id(env.items) for env in envs}) == 1
    file.write_text(json.dumps({"prompt": "P0", "answer": "y"}))
    assert [item.answer for item in make(f"dataset:{file}").items] == ["y"]
    os.utime(file, ns=(0, 0))
    assert len(envs[0].items) == 40  # who plays already goes on with what it has read
    make(f"dataset:{file}")
    assert len(reads) == 3
    file.unlink()
    with pytest.raises(EnvError, match="No dataset"):
        make(f"dataset:{file}")


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("q.csv", b"prompt,answer\nhi,yo\n", "pandas.read_csv("),
        ("q.tsv", b"prompt\tanswer\nhi\tyo\n", "sep='\\t'"),
        ("q.csv", "prompt,answer\nh\xe9,yo\n".encode("latin-1"), "not UTF-8"),
        ("q.parquet", b"PAR1\x15\x04\xff\xfe", "pandas.read_parquet("),
        ("q.jsonl", b"PAR1\x15\x04\xff\xfe", "a Parquet table"),
        ("q.xlsx", b"PK\x03\x04\xff\xfe", "pandas.read_excel("),
        ("q.xls", b"\xd0\xcf\x11\xe0\xa1", "pandas.read_excel("),
        ("q.feather", b"ARROW1\x00\x00", "pandas.read_feather("),
        ("q.json", b'[{"prompt": "q", "answer": "x"}]', "pandas.read_json("),
        ("q.jsonl", b'[\n  {"prompt": "q", "answer": "x"}\n]', "q-lines.jsonl"),
        ("q.jsonl.gz", gzip.compress(b"{}", mtime=0), "gunzip -k"),
        ("q.zip", b"PK\x03\x04\xff\xfe", "unzip"),
        ("q.txt", b"prompt,answer\nhi,yo\n", "line 1 is not JSON"),
    ],
)
def test_other_formats_are_refused_with_the_way_to_json_lines(
    tmp_path: Path, name: str, data: bytes, said: str
) -> None:
    file = tmp_path / name
    file.write_bytes(data)
    with pytest.raises(EnvError) as raised:
        make(f"dataset:{file}")
    assert said in str(raised.value)
    assert "A data set is JSON lines" in str(raised.value)
    assert str(file) in str(raised.value)


def test_json_lines_under_any_name_are_read(tmp_path: Path) -> None:
    for name in ("q.json", "q.csv", "q"):
        assert len(read_items(write(tmp_path, *LINES, name=name))) == 40


def test_half_a_character_in_any_item_is_told(tmp_path: Path) -> None:
    file = write(tmp_path, *LINES, {"prompt": "cut \ud83d", "answer": "x"})
    assert any("half of a surrogate pair" in fault for fault in check_env(f"dataset:{file}"))
    assert not any("surrogate" in fault for fault in check_env(f"dataset:{write(tmp_path, *LINES)}"))
