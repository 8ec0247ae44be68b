"""`foretaste exam compare` on logs of Inspect and lm-evaluation-harness: only the same questions are compared."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from foretaste.cli import main

STAMP = "2026-11-30T22-45-03.545862"
Compare = Callable[..., tuple[int, str]]


@pytest.fixture
def compare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Compare:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str]:
        code = main(["exam", "compare", *arguments])
        told = capsys.readouterr()
        return code, told.out + told.err

    return run


def inspect(
    file: str, scores: list[Any], *, task: str = "quiz", scorer: str = "match", ask: str = "Question", **more: Any
) -> str:
    samples = [
        {"id": i + 1, "epoch": 1, "input": f"{ask} {i}", "target": "x", "metadata": {"passage": f"p{i // 5}"}}
        | ({} if value is None else {"scores": {scorer: {"value": value}}})
        for i, value in enumerate(scores)
    ]
    for place in more.pop("failed", ()):
        samples[place]["error"] = {"message": "boom"}
    if more.pop("turned", False):  # numbered anew in another order
        samples = [{**sample, "id": place + 1} for place, sample in enumerate(reversed(samples))]
    log = {"version": 2, "status": "success", "eval": {"task": task, "model": "m"}, "samples": samples} | more
    Path(file).write_text(json.dumps(log))
    return file


def row(i: int, metric: str, value: Any, *, filter: str | None = "none", ask: str = "What is", **doc: Any) -> Any:
    question = f"{ask} {i}+{i}?"
    found: dict[str, Any] = {"doc_id": i, "doc": {"question": question, "passage": f"p{i // 5}", **doc}}
    found |= {"target": str(2 * i), "resps": [["x"]], "doc_hash": f"h{question}", metric: value}
    return found | ({} if filter is None else {"filter": filter, "metrics": [metric]})


def samples(folder: str, rows: list[Any], *, task: str = "t", stamp: str = STAMP, results: Any = None) -> str:
    file = Path(folder) / f"samples_{task}_{stamp}.jsonl"
    file.parent.mkdir(exist_ok=True)
    file.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8")
    if results is not None:
        (file.parent / f"results_{stamp}.json").write_text(json.dumps(results))
    return str(file)


GOOD, BAD = ["C"] * 38 + ["I"] * 2, ["C" if i % 2 else "I" for i in range(40)]


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"task": "capitals", "ask": "Capital"}, "task 'quiz' and 'capitals'"),
        ({"task": "capitals"}, "task 'quiz' and 'capitals'"),
        ({"ask": "Capital"}, "40 items have the same id in both and other questions"),
        ({"scorer": "includes"}, "scorer 'match' and 'includes'"),
    ],
)
def test_other_questions_tasks_or_scorers_are_refused_unless_asked_for(
    compare: Compare, other: dict[str, Any], named: str
) -> None:
    a, b = inspect("a.json", BAD), inspect("b.json", GOOD, **other)
    code, told = compare(a, b)
    assert code == 3
    assert named in told
    assert "--despite-differences" in told
    code, told = compare(a, b, "--despite-differences")
    assert code == 0
    assert f"note: compared all the same: {named}" in told


def test_another_scale_is_refused(compare: Compare) -> None:
    code, told = compare(inspect("a.json", BAD), inspect("b.json", [7.5, 2.0] * 20))
    assert code == 3
    assert "scale (scores up to 1 in one, up to 7.5 in the other)" in told


def test_a_question_is_known_by_its_text_not_by_its_place(compare: Compare) -> None:
    code, told = compare(inspect("a.json", GOOD), inspect("b.json", GOOD, turned=True))
    assert (code, "A alone ahead on 0, B on 0" in told) == (2, True)
    code, told = compare(inspect("a.json", GOOD), inspect("b.json", GOOD[:10]))
    assert "paired on 10 scores" in told
    assert "left out: 30 scores" in told


def test_a_sample_that_failed_and_was_scored_counts(compare: Compare) -> None:
    code, told = compare(inspect("a.json", ["I"] * 40), inspect("b.json", BAD, failed=range(20, 40)))
    assert (code, "B  0.500" in told, "paired on 40" in told) == (0, True, True)


def test_scores_of_several_values_are_named_as_inspect_names_them(compare: Compare) -> None:
    def both(share: float) -> list[Any]:
        return [{"acc": "C" if i < 40 * share else "I", "style": 0.25} for i in range(40)]

    a, b = inspect("a.json", both(0.3), scorer="judge"), inspect("b.json", both(0.9), scorer="judge")
    for name in ("judge.acc", "acc"):
        code, told = compare(a, b, "--metric", name)
        assert (code, "scored by judge.acc; more is better" in told) == (0, True)
    assert "judge.acc, judge.style; choose one" in compare(a, b)[1]


def test_partial_credit_no_answer_and_unscored_samples(compare: Compare) -> None:
    a = inspect("a.json", ["C", "P", "I", "N", float("nan"), None])
    told = json.loads(compare(a, a, "--json")[1])
    assert (told["mean_a"], told["difference"]["n"], told["left_out"]) == (0.375, 4, 4)


def test_numbers_without_a_direction_make_nothing_better(compare: Compare) -> None:
    a, b = (inspect(f"{n}.json", [v] * 30, scorer="wer") for n, v in (("a", 0.75), ("b", 0.25)))
    code, told = compare(a, b)
    assert (code, told.startswith("NO VERDICT"), "direction not known" in told) == (2, True, True)
    assert compare(a, b, "--lower-is-better")[0] == 0
    assert compare(a, b, "--higher-is-better")[0] == 1
    known = {"results": {"scores": [{"name": "wer", "metrics": {"accuracy": {"value": 0}}}]}}
    assert compare(inspect("a.json", [0.75] * 30, scorer="wer", **known), b)[0] == 1


def test_logs_without_scores_say_why(compare: Compare) -> None:
    code, told = compare(inspect("a.json", [], status="started"), inspect("b.json", GOOD))
    assert code == 3
    assert "holds no scores: it was run with --no-score, or is not finished; its status is started" in told
    Path("results_x.json").write_text(json.dumps({"results": {}, "higher_is_better": {}}))
    assert "Give the samples_*.jsonl" in compare("results_x.json", "b.json")[1]
    Path("z.json.gz").write_bytes(gzip.compress(Path("b.json").read_bytes()))
    assert compare("z.json.gz", "b.json")[0] == 2


def test_the_filter_is_asked_for_and_named(compare: Compare) -> None:
    names = ("strict-match", "flexible-extract")

    def rows(strict: Callable[[int], float]) -> list[Any]:
        return [row(i, "exact_match", strict(i) if f == names[0] else 1.0, filter=f) for f in names for i in range(30)]

    a, b = samples("a", rows(lambda i: float(i % 3 == 0))), samples("b", rows(lambda i: 1.0))
    code, told = compare(a, b, "--metric", "exact_match")
    assert code == 3
    assert "exact_match,strict-match, exact_match,flexible-extract" in told
    code, told = compare(a, b, "--metric", "exact_match,flexible-extract")
    assert (code, "filter flexible-extract" in told, "A  1.000" in told) == (2, True, True)
    code, told = compare(a, b, "--metric", "exact_match,strict-match")
    assert (code, "filter strict-match" in told) == (0, True)
    code, told = compare(a, b, "--metric", "exact_match,strict-match", "--cluster", "psasage")
    assert (code, "'psasage'. Did you mean 'passage'? All: passage, question" in told) == (3, True)
    code, told = compare(a, b, "--metric", "exact_match,strict-match", "--cluster", "passage")
    assert (code, "clustered by the field passage" in told, "6 clusters" in told) == (2, True, True)


def test_less_is_better_where_the_summary_says_so(compare: Compare) -> None:
    said = {"results": {"t": {}}, "higher_is_better": {"t": {"wer": False}}}
    a, b = (
        samples(n, [row(i, "wer", float(i < 30 * share)) for i in range(30)], results=said)
        for n, share in (("a", 0.6), ("b", 0.0))
    )
    code, told = compare(a, b)
    assert (code, told.startswith("B is better"), "less is better" in told) == (0, True, True)
    assert "A alone ahead on 0, B on 18" in told
    for folder in ("a", "b"):
        (Path(folder) / f"results_{STAMP}.json").unlink()
    assert compare(a, b)[0] == 2
    other = samples("c", [row(i, "acc", 1.0) for i in range(30)])
    assert "metric 'wer' and 'acc'" in compare(a, other)[1]


def test_rows_of_older_versions(compare: Compare) -> None:
    a, b = (samples(n, [row(i, "exact_match", v, filter=None) for i in range(30)]) for n, v in (("a", 0.0), ("b", 1.0)))
    assert compare(a, b, "--metric", "exact_match")[0] == 0
    twice = [row(i, "exact_match", value, filter=None) for value in (0.0, 1.0) for i in range(30)]
    c = samples("c", twice)
    assert "exact_match,1, exact_match,2" in compare(c, c)[1]
    filters = {"configs": {"t": {"filter_list": [{"name": "strict"}, {"name": "loose"}]}}}
    c = samples("c", twice, results=filters)
    assert "A  1.000" in compare(c, c, "--metric", "exact_match,loose")[1]
    Path("list.jsonl").write_text(json.dumps([row(i, "exact_match", 1.0, filter=None) for i in range(30)]))
    assert compare("list.jsonl", "list.jsonl")[0] == 2


def test_values_that_are_no_single_number_are_no_metric(compare: Compare) -> None:
    rows = [row(i, "acc", 1.0 if i else float("nan")) for i in range(30)]
    rows = [{**r, "metrics": ["acc", "perplexity"], "perplexity": [-3.0, 4]} for r in rows]
    a = samples("a", rows)
    assert "paired on 29 scores" in compare(a, a)[1]
    assert "All: acc" in compare(a, a, "--metric", "perplexity")[1]


def test_documents_that_share_an_id_are_told_apart(compare: Compare) -> None:
    a, b = (samples(n, [row(i, "exact_match", v, id=i % 15) for i in range(30)]) for n, v in (("a", 0.0), ("b", 1.0)))
    code, told = compare(a, b)
    assert (code, "30 scores of 30 items" in told) == (0, True)


def test_two_runs_in_one_folder_are_named_and_the_newest_is_read(compare: Compare) -> None:
    old = samples("a", [row(i, "acc", 0.0) for i in range(30)], stamp="2026-11-30T22-51-27.305487")
    new = samples("a", [row(i, "acc", 1.0) for i in range(30)], stamp="2026-11-30T22-57-18.305857")
    told = compare("a", "a")[1]
    assert f"the newest is read, {new}, and not {old}" in told
    assert "A  1.000" in told
    samples("a/other", [row(i, "acc", 1.0) for i in range(30)])
    assert "of several models" in compare("a", "a")[1]


def test_a_folder_of_tasks_is_compared_task_by_task(compare: Compare) -> None:
    for n, v in (("a", 0.0), ("b", 1.0)):
        samples(n, [row(i, "exact_match", v) for i in range(30)], task="gen")
        choices = [row(i, "acc", v, ask="Pick") for i in range(30)]
        samples(n, [{**r, "metrics": ["acc", "acc_norm"], "acc_norm": v} for r in choices], task="mc")
    code, told = compare("a", "b", "--metric", "acc")
    lines = [line.split()[:3] for line in told.splitlines() if line.endswith("B is better")]
    assert code == 0
    assert lines == [["gen", "exact_match,none", "30"], ["mc", "acc,none", "30"]]
    assert "acc_norm,none" in compare("a", "b")[1]
    for n, v in (("c", 0.0), ("d", 1.0)):
        for task in ("group_x", "group_y"):
            samples(n, [row(i, "acc", v) for i in range(20)], task=task)
    samples("d", [row(1, "acc", 1.0)], task="alone")
    code, told = compare("c", "d")
    assert (code, "paired on 40 scores" in told, "only one has: alone" in told) == (0, True, True)


def test_years_are_part_of_a_task_and_other_years_are_refused(compare: Compare) -> None:
    a = samples("a", [row(i, "exact_match", 0.0, ask="2024") for i in range(30)], task="aime_2024")
    b = samples("b", [row(i, "exact_match", 1.0, ask="2025") for i in range(30)], task="aime_2025")
    code, told = compare(a, b)
    assert (code, "task 'aime_2024' and 'aime_2025'" in told) == (3, True)
    for plain, file in (("a.jsonl", a), ("b.jsonl", b)):  # files that do not name their task
        Path(plain).write_text(Path(file).read_text())
    assert "share no question" in compare("a.jsonl", "b.jsonl")[1]


def test_lines_end_at_line_feeds_alone(compare: Compare) -> None:
    rows = [{**row(i, "exact_match", 1.0), "resps": [["a\u2028b"]]} for i in range(30)]
    a = samples("a", rows)
    assert compare(a, a)[0] == 2
    text = Path(a).read_text(encoding="utf-8")
    Path(a).write_text(text + "{broken\n", encoding="utf-8")
    assert f"{a} line 31 is not JSON" in compare(a, a)[1]
