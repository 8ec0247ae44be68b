"""Own questions as an exam, what sittings leave behind, and records that somebody has changed."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from foretaste.cli import main
from foretaste.envs import reasoning
from foretaste.exams.bridges import items_of, sitting_with
from foretaste.exams.comparing import item_id
from foretaste.exams.exam import SitConfig, sit
from foretaste.exams.looks import looks
from foretaste.exams.paper import Family, Paper
from foretaste.exams.planning import Plan, make_plan
from foretaste.ledger import Ledger
from foretaste.locks import only_one
from foretaste.records import Action, Conversation

Told = Callable[..., tuple[int, str]]


class Knows:
    """Adds the two numbers of a question, but not those that sum to an odd number."""

    name = "knows"

    def act(self, conversations: list[Conversation]) -> list[Action]:
        sums = [sum(map(int, c.messages[-1].content.removesuffix("=").split("+"))) for c in conversations]
        return [Action(str(total if total % 2 == 0 else total + 1)) for total in sums]


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Told:
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": f"{i} + {i // 2} =", "answer": i + i // 2, "grader": "number"} for i in range(20)]
    Path("mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def run(*arguments: str) -> tuple[int, str]:
        code = main(["exam", *arguments])
        out = capsys.readouterr()
        return code, out.out + out.err

    return run


KNOWS = ("--policy", f"{__name__}:Knows")


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


def sitting_of(place: int = -1) -> str:
    with Ledger.open("runs") as ledger:
        return ledger.runs("exam")[place].id


def change_answers() -> None:
    text = Path("mine.jsonl").read_text()
    Path("mine.jsonl").write_text(text.replace('"answer": 0', '"answer": 1', 1))


@pytest.mark.usefixtures("importable")
def test_own_questions_are_an_exam_in_two_commands_and_none_is_asked_twice(told: Told) -> None:
    code, text = told("new", "mine.jsonl", "--items", "15")
    assert code == 0
    assert "20 questions, 15 at a sitting" in text
    assert told("mine.toml", *KNOWS)[0] in (0, 1, 2)
    code, text = told("mine.toml", *KNOWS)
    assert "20 different items, 15 of them trained on or asked already: 5 of 20 are asked" in text.replace(
        "15 are", "20 are"
    )
    with Ledger.open("runs") as ledger:
        asked = [
            t["observation"]
            for i in ledger.runs("exam")
            for r in ledger.records(i.id, "answer")
            for t in r.payload["turns"]
        ]
    assert len(asked) == len(set(asked)) == 20
    code, text = told("mine.toml", *KNOWS)
    assert code == 3
    assert "20 different items, 20 of them trained on or asked already" in text
    assert "No look was spent. Add questions to mine.jsonl" in text
    assert told("new", "mine.jsonl")[0] == 3  # the paper there is kept
    with Ledger.open("runs") as ledger:
        assert len(looks(ledger)) == 2


@pytest.mark.usefixtures("importable")
def test_a_public_exam_of_own_questions_asks_the_same_ones_again(told: Told) -> None:
    assert told("new", "mine.jsonl", "--public")[0] == 0
    for _ in range(2):
        assert "20 items" in told("mine.toml", *KNOWS)[1]
    assert "paired on 20 scores of 20 items" in told("compare", sitting_of(0), sitting_of(1))[1]


@pytest.mark.usefixtures("importable")
def test_right_answers_stand_beside_wrong_ones_on_page_terminal_and_file(told: Told) -> None:
    told("new", "mine.jsonl")
    told("mine.toml", *KNOWS)
    run = sitting_of()
    wrong = next(
        line for line in told("answers", run)[1].splitlines() if "3 + 1" not in line and line.startswith("wrong")
    )
    assert len(wrong.split()) > 6
    assert "20 answers: all.csv, all.jsonl" in told("answers", "latest", "--csv", "all.csv", "--jsonl", "all.jsonl")[1]
    table = list(csv.DictReader(Path("all.csv").read_text().splitlines()))
    lines = [json.loads(line) for line in Path("all.jsonl").read_text().splitlines()]
    one = next(row for row in table if row["question"] == "2 + 1 =")
    assert (one["reply"], one["right_answer"], one["mark"], one["score"]) == ("4", "3", "wrong", "0.0")
    assert [row["mark"] for row in lines] == [row["mark"] for row in table]
    page = Path("runs", run, "report.html").read_text()
    assert 'class="text right-answer"' in page
    assert page.count('<td class="said ">') == 20  # a right answer in every row of the table
    listed = json.loads(told("list", "--json")[1])[0]
    right = sum(row["mark"] == "right" for row in table) / 20
    assert (listed["sitting"], listed["items"], listed["score"]) == (run, 20, pytest.approx(right))
    assert "not measured" not in told("list")[1]


@pytest.mark.usefixtures("importable")
def test_a_changed_file_is_noticed_at_sitting_comparison_and_reveal(told: Told) -> None:
    told("new", "mine.jsonl")
    told("mine.toml", *KNOWS)
    first = sitting_of()
    assert told("compare", first, first)[0] == 2
    with Ledger.open("runs") as ledger:
        (kept,) = ledger.records(first, "plan")[0].payload["files"].values()
    assert kept in Path("mine.toml").read_text()
    change_answers()
    code, text = told("mine.toml", *KNOWS, "--items-of", first)
    assert (code, "mine.jsonl has changed since paper 'mine' was made of it" in text) == (3, True)
    loose = "\n".join(line for line in Path("mine.toml").read_text().splitlines() if "sha256" not in line)
    Path("loose.toml").write_text(loose)
    code, text = told("loose.toml", *KNOWS, "--items-of", first)
    assert (code, f"has changed since {first} asked its items" in text) == (3, True)
    code, text = told("reveal", first)
    assert (code, "CHANGED:     mine.jsonl has changed" in text) == (1, True)


def test_sittings_on_two_states_of_a_file_are_not_compared(told: Told) -> None:
    paper = '[[families]]\nenv = "dataset:mine.jsonl?default_split=practice"\n'
    Path("open.toml").write_text(f'name = "open"\nsealed = false\n{paper}items = 20\n')
    told("open.toml", "--policy", "oracle")
    change_answers()
    told("open.toml", "--policy", "oracle")
    code, text = told("compare", sitting_of(0), sitting_of(1))
    assert (code, "other questions or reference answers" in text) == (3, True)


def test_a_paper_that_cannot_be_drawn_is_refused_before_anything_starts(told: Told) -> None:
    for family in ('env = "reasoning/chain_sum"\nlevels = [99]', 'env = "dataset:gone.jsonl"'):
        Path("bad.toml").write_text(f'name = "bad"\n[[families]]\n{family}\n')
        code, text = told("bad.toml", "--policy", "oracle")
        assert code == 3
        assert "kept" not in text
        assert "--resume" not in text
    with Ledger.open("runs") as ledger:
        assert ledger.runs("exam") == []


def test_the_second_that_goes_on_with_a_sitting_is_told_of_the_first(told: Told) -> None:
    with Ledger.open("runs") as ledger:
        with pytest.raises(KeyboardInterrupt):
            sit("practice", SitConfig(policy="oracle"), ledger, policy=Interrupted())
        run = ledger.runs("exam")[0].id
    with only_one(Path("runs") / run / "sitting.lock", "it"):
        code, text = told("--resume", run)
    assert code == 3
    assert f"The sitting {run} is going on in another process" in text
    with Ledger.open("runs") as ledger:
        assert ledger.records(run, "answer") == []


class Interrupted:
    name = "oracle"

    def act(self, conversations: list[Conversation]) -> list[Action]:
        raise KeyboardInterrupt


def test_a_changed_ledger_is_said_on_the_page_by_report_and_by_compare(
    told: Told, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("p.toml").write_text('name = "p"\nsealed = false\n[[families]]\nenv = "route"\nitems = 3\n')
    told("p.toml", "--policy", "oracle")
    run = sitting_of()
    engine = sa.create_engine("sqlite:///runs/ledger.sqlite")
    with engine.begin() as connection:
        for trigger in connection.scalars(sa.text("select name from sqlite_master where type = 'trigger'")).all():
            connection.execute(sa.text(f'drop trigger "{trigger}"'))
        changed = sa.text(
            "update foretaste_records set payload = replace(payload, 'INCONCLUSIVE', 'PASS') where kind = 'verdict'"
        )
        assert connection.execute(changed).rowcount == 1
    engine.dispose()
    assert main(["report", run]) != 0
    assert "was changed after it was written" in capsys.readouterr().err
    page = Path("runs", run, "report.html").read_text()
    assert "NOT TO BE TRUSTED" in page
    assert "was changed after it was written" in page
    for arguments in (("compare", run, run), ("answers", run), ("list",), ("looks",)):
        code, text = told(*arguments)
        assert (code, "was changed after it was written" in text) == (3, True), arguments


def test_items_that_another_process_would_draw_otherwise_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    paper = Paper(
        "p", (Family("reasoning/ransom_note", items=3), Family("reasoning/word_ladder", items=2)), sealed=False
    )
    plan = make_plan(paper)
    assert sorted(item.family for item in plan.kept) == ["ransom_note"] * 3 + ["word_ladder"] * 2
    stored = json.loads(json.dumps(plan.to_json()))
    drawn = reasoning._generate
    monkeypatch.setattr(reasoning, "_generate", lambda family, level, seed: drawn(family, level, seed ^ 1))
    monkeypatch.setattr(reasoning, "_KEPT", {})
    again = Plan.from_json(stored)
    assert again == plan
    assert [item.hash for item in make_plan(paper).items] == [item.hash for item in plan.items]
    monkeypatch.setattr(reasoning, "_KEPT", {})
    assert make_plan(paper).items[0].hash != plan.items[0].hash  # or the test above proves nothing


def test_a_retried_evaluation_finds_its_own_items_and_spends_no_look(tmp_path: Path) -> None:
    paper = tmp_path / "p.toml"
    paper.write_text('name = "p"\nlooks = 3\n[[families]]\nenv = "route"\nitems = 3\n')
    with Ledger.open(tmp_path) as ledger:
        _, first = items_of(str(paper), ledger, tmp_path, reader="inspect")
        items_of(str(paper), ledger, tmp_path, reader="inspect")
        ids = [item_id(i.env, i.level, i.seed, i.register) for i in first.items]
        _, again = items_of(sitting_with(ledger, ids[:2]), ledger, tmp_path, reader="inspect")
        assert again.items == first.items
        assert len(looks(ledger)) == 2
        with pytest.raises(Exception, match="holds no sitting with the items of this log"):
            sitting_with(ledger, [*ids, "route:1:5:plain"])


def test_families_with_few_items_say_which_were_asked_before(tmp_path: Path) -> None:
    families: Any = (Family("lock", items=3),)
    plan = make_plan(Paper("p", families), secret="0" * 64, look=1)
    again = make_plan(Paper("p", families), secret="0" * 64, look=1, asked_before={i.hash or "" for i in plan.items})
    assert (plan.repeated, again.repeated) == (0, 3)
