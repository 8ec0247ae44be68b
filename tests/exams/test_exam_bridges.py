"""The same items in Inspect and lm-evaluation-harness: real logs of both, item by item against our own sitting.

`logs/` holds what two real runs wrote on the paper `bridge.toml`, against a scripted OpenAI-compatible
server (`scripted` below says what it answered):

    inspect eval foretaste/exam -T paper=bridge.toml --model openai-api/stub/small           (inspect-ai 0.3.285)
    foretaste exam export bridge.toml --format lm-eval --output bridge-task
    lm_eval --model local-chat-completions --model_args model=small,base_url=.../v1/chat/completions \
        --tasks foretaste_bridge --include_path bridge-task --apply_chat_template --log_samples   (lm-eval 0.4.13)
"""

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pytest

from foretaste.commands.exam_more import comparison_lines
from foretaste.envs.registry import make
from foretaste.envs.reworded import Reworded
from foretaste.errors import ConfigError
from foretaste.exams.bridges import export, grade, rendered
from foretaste.exams.comparing import compare, scores_of
from foretaste.exams.exam import SitConfig, sit
from foretaste.exams.logs import Log, Scored, read_log
from foretaste.exams.paper import load_paper
from foretaste.exams.planning import make_plan
from foretaste.exams.statistics import paired_clustered_difference
from foretaste.ledger import Ledger
from foretaste.records import Action, Conversation

LOGS = Path(__file__).parent / "logs"
INSPECT, LM_EVAL = LOGS / "inspect-0.3.285.eval", LOGS / "lm-eval-0.4.13.jsonl"


def scripted() -> dict[str, str]:
    """Item text -> reply: right, hedged, wrong or tagged, by the text's hash."""
    replies: dict[str, str] = {}
    for item in make_plan(load_paper(LOGS / "bridge.toml")).items:
        env = Reworded(make(item.env, level=item.level), item.env)
        text, _ = env.reset(seed=item.seed, options={"level": item.level, "register": item.register})
        gold: Any = env.unwrapped.oracle()  # pyright: ignore[reportAttributeAccessIssue]
        kind = int(hashlib.sha256(text.encode()).hexdigest(), 16) % 5
        replies[text] = [gold, gold, f"{gold} or banana", "banana", f"<answer>{gold}</answer>"][kind]
    return replies


class Scripted:
    name = "scripted"

    def __init__(self) -> None:
        self.replies = scripted()

    def act(self, conversations: list[Conversation]) -> list[Action]:
        return [Action(self.replies[conversation.messages[-1].content]) for conversation in conversations]


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float | None]:
    folder = tmp_path_factory.mktemp("runs")
    with Ledger.open(folder) as ledger:
        paper = load_paper(LOGS / "bridge.toml")
        sitting = sit(paper, SitConfig(), ledger, runs_folder=folder, policy=Scripted())
        return {scored.item: scored.score for scored in scores_of(ledger, sitting.run)}


@pytest.mark.parametrize("file", [INSPECT, LM_EVAL], ids=["inspect", "lm-eval"])
def test_the_same_replies_earn_the_same_in_other_harnesses_item_by_item(
    ours: dict[str, float | None], file: Path
) -> None:
    theirs = {scored.item: scored.score for scored in read_log(file).scores}
    assert theirs == ours
    assert len(theirs) == 42
    assert 0 < sum(score or 0.0 for score in theirs.values()) < 42


def test_logs_of_two_harnesses_are_compared_with_each_other() -> None:
    found = compare(read_log(INSPECT), read_log(LM_EVAL))
    assert (found.paired, found.difference.mean, found.difference.clusters) == (True, 0.0, 18)
    assert (found.better, found.exit_code, found.left_out) == (None, 2, 0)


def test_exported_items_are_graded_as_the_exam_grades_them(tmp_path: Path, ours: dict[str, float | None]) -> None:
    replies = scripted()
    done = export(make_plan(load_paper(LOGS / "bridge.toml")).items, "bridge", "jsonl", tmp_path / "items.jsonl")
    rows = [json.loads(line) for line in done.path.read_text().splitlines()]
    assert done.items == len(rows) == 42
    for row in rows:
        text = row["messages"][-1]["content"]
        assert row["prompt"].endswith(f"Request:\n{text}\n\nReply:\n")
        assert grade(row, replies[text]).score == ours[f"{row['id']}#1"]
    assert "PYTHONHASHSEED" in (grade({**rows[0], "text_hash": "0"}, "x").error or "")


def test_items_of_several_turns_are_left_out_and_said_so(tmp_path: Path) -> None:
    items = make_plan(load_paper("practice")).items
    mixed = [next(i for i in items if i.env == "maze"), next(i for i in items if i.env == "extract")]
    rows, left_out = rendered(mixed)
    assert [row["env"] for row in rows] == ["extract"]
    assert "several turns" in left_out["maze"]
    with pytest.raises(ConfigError, match="can be written as text"):
        export(mixed[:1], "practice", "inspect", tmp_path / "x.jsonl")
    export(mixed, "practice", "inspect", tmp_path / "x.jsonl")
    sample = json.loads((tmp_path / "x.jsonl").read_text())
    assert sample["input"][0]["role"] == "system"
    assert sample["metadata"]["env"] == "extract"


def test_logs_that_cannot_be_read_say_why(tmp_path: Path) -> None:
    lines = [
        {
            "doc_id": 0,
            "doc_hash": "a",
            "metrics": ["em", "f1"],
            "em": 1.0,
            "f1": 0.5,
            "filter": "none",
            "doc": {"p": 1},
        },
        {
            "doc_id": 1,
            "doc_hash": "b",
            "metrics": ["em", "f1"],
            "em": 0.0,
            "f1": 0.7,
            "filter": "none",
            "doc": {"p": 1},
        },
    ]
    file = tmp_path / "samples_task_2026-01-01.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(ConfigError, match="em, f1; choose one"):
        read_log(file)
    with pytest.raises(ConfigError, match="Did you mean 'f1'"):
        read_log(file, metric="f2")
    log = read_log(file, metric="em", cluster="p")
    assert [(s.item, s.cluster, s.score) for s in log.scores] == [("a#1", "1", 1.0), ("b#1", "1", 0.0)]
    assert log.name == "task"
    assert read_log(tmp_path, metric="em").scores
    (tmp_path / "broken.eval").write_bytes(b"no zip")
    (tmp_path / "broken.json").write_text("[]")
    for name in ("broken.eval", "broken.json", "missing.eval"):
        with pytest.raises(ConfigError):
            read_log(tmp_path / name)


def test_the_better_one_is_never_the_one_with_the_lower_mean() -> None:
    # B gains one wording of ten on five items of six, and loses all ten on the sixth.
    a, b = [], []
    for item in range(600):
        lost = item % 6 == 5
        for wording in range(10):
            a.append(Scored(f"{item}-{wording}", str(item), float(lost), "s"))
            b.append(Scored(f"{item}-{wording}", str(item), float(not lost and wording == 0), "s"))
    found = compare(Log("a", a), Log("b", b))
    assert found.difference.mean == pytest.approx(-5 / 60)
    assert (found.a_only, found.b_only) == (100, 500)
    assert (found.better, found.exit_code) == ("A", 1)
    large = [[score._replace(score=100 * (score.score or 0.0)) for score in side] for side in (a, b)]
    unbounded = compare(Log("a", large[0]), Log("b", large[1]))
    assert (unbounded.better, unbounded.exit_code, unbounded.more_needed) == (None, 2, None)
    assert comparison_lines(unbounded)[0] == "UNDECIDED (no number of further items can be named)"


def test_comparison_is_paired_clustered_and_knows_the_better() -> None:
    rng = random.Random(1)
    a, b = [], []
    for cluster in range(60):
        hard = rng.random()
        for part in range(3):
            item, group = f"{cluster}-{part}", str(cluster)
            a.append(Scored(item, group, float(rng.random() > hard), "s"))
            b.append(Scored(item, group, float(rng.random() > hard * 0.4), "s"))
    a.append(Scored("alone", "alone", 1.0, "s"))
    b[0] = b[0]._replace(score=None)
    found = compare(Log("a", a), Log("b", b))
    pairs = list(zip(a[1:180], b[1:], strict=True))
    expected = paired_clustered_difference(
        [x.score or 0.0 for x, _ in pairs], [y.score or 0.0 for _, y in pairs], [x.cluster for x, _ in pairs]
    )
    assert found.difference == expected
    assert (found.better, found.exit_code, found.left_out) == ("B", 0, 3)
    assert compare(Log("b", b), Log("a", a)).exit_code == 1
    other = [score._replace(item=f"other {score.item}") for score in b]
    unpaired = compare(Log("a", a), Log("b", other))
    assert not unpaired.paired
    assert unpaired.difference.standard_error > expected.standard_error
    with pytest.raises(ConfigError, match="share no item and no family"):
        compare(Log("a", a), Log("b", [score._replace(stratum="t") for score in other]))
