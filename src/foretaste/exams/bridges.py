"""The same items in other harnesses: files for lm-evaluation-harness, Inspect or anything else, with our grader.

Rendered items of a sealed paper are as good as a look at it, so writing them out spends one, unless
they are those of a sitting that has taken place. Items of several turns need their environment and
cannot be written as text; `inspect_task.py` runs them inside Inspect.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from foretaste.config import to_dict
from foretaste.envs.grading import Grade
from foretaste.envs.registry import max_turns_of
from foretaste.errors import ConfigError
from foretaste.exams.comparing import item_id
from foretaste.exams.looks import next_look, spend_look
from foretaste.exams.paper import Item, Paper, load_paper, paper_from_dict, ready_made, to_toml
from foretaste.exams.planning import Plan, asked_at_looks, check_plan, make_plan, seen_in_training
from foretaste.exams.seal import commitment, item_hash, secret_in
from foretaste.exams.wording import Pools, planned_hashes
from foretaste.ledger import Ledger
from foretaste.records import Message
from foretaste.rl.tasks import Task

Format = Literal["jsonl", "lm-eval", "inspect"]

LM_EVAL_TASK = """\
task: {task}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {items}
test_split: test
output_type: generate_until
doc_to_text: "{{{{prompt}}}}"
doc_to_target: ""
process_results: !function foretaste_grader.process_results
generation_kwargs:
  until: []
  do_sample: false
  max_gen_toks: 256
metric_list:
  - metric: score
    aggregation: mean
    higher_is_better: true
metadata:
  version: 1
"""
LM_EVAL_GRADER = '''\
"""The exam's own grader for lm-evaluation-harness; foretaste must be installed beside it."""

from foretaste.exams.bridges import grade


def process_results(doc, results):
    found = grade(doc, results[0])
    return {"score": float("nan") if found.error else found.score}
'''


class Exported(NamedTuple):
    """What was written, and what cannot be."""

    path: Path
    items: int
    left_out: dict[str, str]
    """Environment -> why its items are not in the file."""


def items_of(name: str, ledger: Ledger, runs_folder: Path, *, reader: str) -> tuple[Paper, Plan]:
    """Return a paper and the items to hand out: those of a sitting, of a public paper, or of a new look.

    `reader` says in the ledger who looked. Raises: ConfigError for a name that is neither, or a sitting
    that is not finished; RunError if a sealed paper has no look or no item left.
    """
    if name not in ready_made() and not Path(name).is_file():
        info = ledger.run(name)
        plans = ledger.records(info.id, "plan")
        if info.kind != "exam" or not plans:
            raise ConfigError(f"{info.id} is no sitting with items. See: foretaste runs --kind exam")
        if info.status != "finished":
            raise ConfigError(
                f"The sitting {info.id} is not finished ({info.status}): its items are not handed out before they are "
                f"answered. Go on with it: foretaste exam --resume {info.id}"
            )
        paper = paper_from_dict(info.config["paper"])
        if any(family.release != "fresh" for family in paper.families):
            raise ConfigError(f"Paper {paper.name!r} holds scarce families, whose items are not given away")
        return paper, Plan.from_json(plans[-1].payload)
    paper = load_paper(name)
    if not paper.sealed:
        return paper, make_plan(paper)
    if any(family.release != "fresh" for family in paper.families):
        raise ConfigError(f"Paper {paper.name!r} holds scarce families, whose items are not given away")
    expected, secret = next_look(ledger, paper), secret_in(runs_folder / "secrets", paper.name)
    seen = seen_in_training(ledger, runs_folder, paper)
    before = asked_at_looks(ledger, paper)
    plan = make_plan(paper, secret=secret, look=expected, seen=seen, asked_before=before, public=False)
    check_plan(plan, paper)
    run = ledger.start_run("exam", paper.name, {"paper": to_dict(paper), "sitting": {}, "policy": reader})
    look = spend_look(ledger, run, paper, reader)
    number = look.number if look else 0
    if number != expected:  # somebody else looked meanwhile
        plan = make_plan(paper, secret=secret, look=number, seen=seen, asked_before=before, public=False)
    told = {"commitment": commitment(secret, to_toml(paper)), "look": number, "alpha": look.alpha if look else 0.0}
    ledger.append(run, "plan", {**plan.to_json(), **told, "items_of": None, "content_hash": paper.content_hash})
    ledger.append(run, "status", {"status": "finished", "reason": f"items handed to {reader}"})
    return paper, plan


def sitting_with(ledger: Ledger, ids: Sequence[str]) -> str:
    """Return the latest sitting whose items have these ids (`item_id`), all of them.

    Raises: ConfigError if no sitting in the ledger has them.
    """
    for info in reversed(ledger.runs("exam")):
        for record in ledger.records(info.id, "plan"):
            plan = Plan.from_json(record.payload)
            if ids and set(ids) <= {item_id(item.env, item.level, item.seed, item.register) for item in plan.items}:
                return info.id
    raise ConfigError(
        "The ledger holds no sitting with the items of this log, so it cannot be gone on with. Name the folder that "
        "the log was made with: -T runs_folder=..."
    )


def rendered(items: Sequence[Item], *, examples: int = 2) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Return one JSON-ready row an item, with its messages and a flat prompt; and what was left out, and why."""
    pools = Pools(examples, planned_hashes(list(items)))
    rows: list[dict[str, Any]] = []
    left_out: dict[str, str] = {}
    for item in items:
        task = _task(item)
        player = pools.of(task).player(task, None)
        conversation = player.start("export")
        if conversation is None:
            left_out[item.env] = player.error or "it cannot be started"
            continue
        if max_turns_of(player.env) != 1:
            left_out[item.env] = "it takes several turns; run it inside Inspect: inspect eval foretaste/exam"
            continue
        rows.append(
            {
                "id": item_id(item.env, item.level, item.seed, item.register),
                "cluster": f"{item.env}:{item.level}:{item.seed}",
                "stratum": f"{item.env}:{item.level}",
                "env": item.env,
                "level": item.level,
                "register": item.register,
                "seed": item.seed,
                "text_hash": item_hash(player.observation),
                "messages": [{"role": m.role, "content": m.content} for m in conversation.messages],
                "prompt": flat(conversation.messages),
            }
        )
        pools.of(task).give_back(player)
    return rows, left_out


def flat(messages: Sequence[Message]) -> str:
    """Return a chat as one text, for harnesses that send a single prompt."""
    titles = {"system": "Instructions", "user": "Request", "assistant": "Reply"}
    return "\n\n".join(f"{titles[m.role]}:\n{m.content}" for m in messages) + "\n\nReply:\n"


def grade(row: dict[str, Any], reply: str) -> Grade:
    """Return what a reply to an exported item earns: 1 for a full success, else 0; `error` if it cannot be judged."""
    pools = _grading_pools()
    item = Item(row["env"], int(row["level"]), row["register"], int(row["seed"]), row["cluster"])
    task = _task(item)
    player = pools.of(task).player(task, None)
    if player.start("grade") is None:
        return Grade(0.0, player.error or "the item cannot be started")
    if item_hash(player.observation) != row["text_hash"]:
        return Grade(0.0, "the item renders differently in this process; set PYTHONHASHSEED=0 for export and scoring")
    _, _, _, _, info = player.env.step(reply)
    pools.of(task).give_back(player)
    if info.get("error"):
        return Grade(0.0, str(info["error"]))
    return Grade(float(float(info.get("success") or 0.0) >= 1.0))


_pools: list[Pools] = []


def _grading_pools() -> Pools:
    """Return the environments that grade, kept from reply to reply."""
    if not _pools:
        _pools.append(Pools(examples=0))
    return _pools[0]


def _task(item: Item) -> Task:
    return Task(item.env, item.seed, item.level, item.register, 0)


def export(items: Sequence[Item], name: str, kind: Format, output: Path, *, examples: int = 2) -> Exported:
    """Write items for another harness.

    jsonl: one file of rows, scored by `grade(row, reply)`. inspect: one file as Inspect's `json_dataset`
    reads it. lm-eval: a folder with items, a task and its grader, for `lm_eval --include_path`.

    Raises: ConfigError if nothing can be written as text.
    """
    rows, left_out = rendered(items, examples=examples)
    if not rows:
        raise ConfigError(f"No item of {name} can be written as text: {'; '.join(set(left_out.values()))}")
    if kind == "lm-eval":
        output.mkdir(parents=True, exist_ok=True)
        data = output / "items.jsonl"
        task = "foretaste_" + "".join(c if c.isalnum() else "_" for c in name)
        (output / f"{task}.yaml").write_text(LM_EVAL_TASK.format(task=task, items=json.dumps(str(data.resolve()))))
        (output / "foretaste_grader.py").write_text(LM_EVAL_GRADER)
        _write_lines(data, rows)
        return Exported(output, len(rows), left_out)
    output.parent.mkdir(parents=True, exist_ok=True)
    if kind == "inspect":
        kept = [key for key in rows[0] if key not in ("messages", "prompt", "id")]
        rows = [
            {"id": row["id"], "input": row["messages"], "target": "", "metadata": {key: row[key] for key in kept}}
            for row in rows
        ]
    _write_lines(output, rows)
    return Exported(output, len(rows), left_out)


def _write_lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8", errors="replace")
