"""The benchmarks: every part can be imported, equal work is asked of all sides, and the table claims nothing."""

from __future__ import annotations

import importlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

ROOT = Path(__file__).parents[1]
PARTS = (
    "__main__",
    "agreement",
    "gradients",
    "growth",
    "limits",
    "machine",
    "parts",
    "peers",
    "protocol",
    "rows",
    "side_generate",
    "side_vllm_engine",
    "vllm_engine",
)
PEER_PARTS = ("side_ours", "side_trl", "side_vllm", "sides", "table", "workloads")
SET_BY_SIDES = (
    "HF_HUB_OFFLINE",
    "TRL_EXPERIMENTAL_SILENCE",
    "VLLM_CPU_KVCACHE_SPACE",
    "VLLM_ENABLE_V1_MULTIPROCESSING",
    "VLLM_NO_USAGE_STATS",
)


def part(name: str) -> Any:
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    return importlib.import_module(f"benchmarks.{name}")


@pytest.mark.parametrize("name", [*PARTS, *PEER_PARTS])
def test_every_part_can_be_imported_without_its_peer(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in (
        "HF_HUB_OFFLINE",
        "VLLM_ENABLE_V1_MULTIPROCESSING",
        "VLLM_CPU_KVCACHE_SPACE",
        "VLLM_NO_USAGE_STATS",
    ):
        monkeypatch.setenv(variable, "1")  # so that what the module sets by default goes away with this test
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    assert part(name).__doc__


def test_a_ratio_is_the_median_of_pairs_and_counts_in_our_favour_only_if_we_are_better() -> None:
    compare = part("table").compare
    more = compare("a", "p", "tokens/s", [30, 10, 90], [10, 10, 10], reach=3, more_is_better=True)
    assert (more.ours, more.peer, more.ratio, more.reached, more.pairs) == (30, 10, 3.0, True, 3)
    less = compare("a", "p", "s", [4.0, 4.0], [8.0, 12.0], reach=3, more_is_better=False)
    assert (less.ratio, less.reached) == (2.5, False)
    assert compare("a", "p", "s", [8.0], [4.0], reach=1, more_is_better=False).ratio == 0.5


def test_a_peer_that_is_missing_is_not_measured() -> None:
    table = part("table")
    row = table.compare("a", "p", "s", [4.0], [], reach=3, more_is_better=False, note="p: no wheel")
    assert (row.peer, row.ratio, row.reached) == (None, None, None)
    empty = table.bound("b", "s", [], below=0.3)
    assert (empty.ours, empty.reached) == (None, None)
    assert table.bound("b", "s", [0.2], below=0.3).reached
    out = io.StringIO()
    table.show(Console(file=out, width=200), [row, empty], "title")
    lines = [line for line in out.getvalue().splitlines() if line.startswith("│")]
    assert lines[0].count("not measured") == 3
    assert lines[1].count("not measured") == 2
    assert "a beside p: p: no wheel" in out.getvalue()
    assert "0.00" not in out.getvalue()


def test_a_run_of_some_rows_keeps_the_others_and_those_of_other_machines(tmp_path: Path) -> None:
    table, file = part("table"), tmp_path / "results.json"

    def about(processor: str, **versions: str) -> dict[str, Any]:
        return {"model": "m", "machine": {"processor": processor, "threads": 2}, "versions": versions}

    first = table.bound("a", "s", [0.2], below=0.3)
    table.write(file, [first, table.bound("b", "s", [1.0], below=0.3)], about("one", trl="1", vllm="1"))
    other = table.bound("b", "s", [7.0], below=0.3)
    assert table.write(file, [other], about("another")) == [other]
    newer = table.bound("b", "s", [0.1], below=0.3)
    assert table.write(file, [newer], about("one", trl="2")) == [first, newer]
    machines = json.loads(file.read_text())["machines"]
    assert {name: [row["ours"] for row in kept["rows"]] for name, kept in machines.items()} == {
        "one": [0.2, 0.1],
        "another": [7.0],
    }
    assert machines["one"]["versions"] == {"trl": "2", "vllm": "1"}
    assert machines["one"]["threads"] == 2


@pytest.mark.parametrize("name", ["short", "shared", "multi-turn", "uneven"])
def test_a_workload_is_what_its_name_says(name: str) -> None:
    workloads = part("workloads")
    talks = workloads.talks(name, 1, quick=False)
    assert talks == workloads.talks(name, 1, quick=False) != workloads.talks(name, 2, quick=False)
    lengths = [turn.new_tokens for talk in talks for turn in talk.turns]
    assert len(talks) == (192 if name == "uneven" else 64)
    assert workloads.new_tokens(talks) == sum(lengths)
    prompts = {tuple(talk.prompt) for talk in talks}
    if name == "shared":
        assert len(prompts) == 8
        assert {len(prompt) for prompt in prompts} == {256}
    if name == "multi-turn":
        assert {len(talk.turns) for talk in talks} == {8}
        assert all(bool(turn.observation) == (i < 7) for talk in talks for i, turn in enumerate(talk.turns))
    if name == "uneven":
        assert max(lengths) <= 256
        assert 22 < sum(lengths) / len(lengths) < 42


def test_the_limit_is_traffic_for_few_rows_and_arithmetic_for_many_tokens() -> None:
    limits, workloads = part("limits"), part("workloads")
    size = limits.Size(layers=1000, head=500, cached=10, attended=20)
    talk = workloads.Talk([1] * 4, [workloads.Turn(2, [])])
    traffic = 2 * 2 * 1500 + 2 * 10 * (4 + 5)
    assert limits.sampling_seconds([talk], size, 1e6, 1.0) == pytest.approx(traffic / 1e9)
    flops = 2 * 6 * 1000 + 2 * 2 * 500 + 2 * 20 * sum(range(6))
    assert limits.sampling_seconds([talk], size, 1.0, 1e6) == pytest.approx(flops / 1e9)
    again = 2 * 2 * 1000 + 2 * 2 * 500 + 2 * 20 * (4 + 5)
    assert limits.sampling_seconds([talk, talk], size, 1.0, 1e6) == pytest.approx((flops + again) / 1e9)


def test_an_unknown_row_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        part("__main__").main(["shrot"])
    assert "unknown rows: shrot; accepted: short, shared" in capsys.readouterr().err
