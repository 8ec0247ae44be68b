"""Learning beside TRL: equal budgets and items are enforced, finished runs are kept, and the table claims nothing."""

from __future__ import annotations

import dataclasses
import importlib
import io
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

ROOT = Path(__file__).parents[1]


def part(name: str) -> Any:
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    return importlib.import_module(f"benchmarks.{name}")


def plan(**changed: Any) -> Any:
    return part("learning_plan").Plan(**{"tokens": 100, "items": 4, "warm": "abc"} | changed)


def result(arm: str = "auto", **changed: Any) -> Any:
    given = {
        "seed": 0,
        "rate": 1e-4,
        "plan": dataclasses.asdict(plan()),
        "before": [0.0, 1.0, 0.0, 0.0],
        "after": [1.0, 1.0, 0.0, 1.0],
        "tokens": 110,
        "last_tokens": 30,
        "episodes": 8,
        "seconds": 90.0,
        "peak_bytes": 2_000_000_000,
    }
    return part("learning_plan").Result(arm, **given | changed)


# Fairness -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"tokens": 99}, "budget was not used up"),
        ({"tokens": 130}, "went on after"),
        ({"plan": dataclasses.asdict(plan(items=5))}, "another plan"),
        ({"plan": dataclasses.asdict(plan(warm="other"))}, "another plan"),
        ({"after": [1.0]}, "4 and 1 of 4 items"),
        ({"before": [1.0, 1.0, 0.0, 0.0]}, "did not start from the same success"),
    ],
)
def test_results_that_are_not_alike_are_refused(changed: dict[str, Any], message: str) -> None:
    module = part("learning_plan")
    module.check_fair([result(), result("trl")], plan())
    with pytest.raises(module.Unfair, match=message):
        module.check_fair([result(), result("trl", **changed)], plan())


def test_another_seed_may_start_elsewhere() -> None:
    part("learning_plan").check_fair([result(), result(seed=1, before=[1.0, 1.0, 0.0, 0.0])], plan())


def test_each_arm_gets_its_own_best_setting_but_only_if_all_tried_the_same() -> None:
    module = part("learning_plan")
    good, bad = [1.0] * 4, [0.0] * 4

    def tried(arm: str, rate: float, updates: int, after: list[float]) -> Any:
        return result(arm, rate=rate, updates=updates, after=after, seed=module.RATE_SEED)

    tries = [tried("auto", 1e-5, 1, good), tried("auto", 1e-4, 1, bad)]
    tries += [tried("trl", 1e-5, 1, bad), tried("trl", 1e-4, 1, good)]
    assert module.best_settings(tries) == {"auto": (1e-5, 1), "trl": (1e-4, 1)}
    equal = [dataclasses.replace(one, after=good) for one in tries]
    assert module.best_settings(equal) == {"auto": (1e-5, 1), "trl": (1e-5, 1)}
    with pytest.raises(module.Unfair, match="different learning rates"):
        module.best_settings(tries[:-1])
    more = [*tries, tried("trl", 1e-4, 4, good)]
    with pytest.raises(module.Unfair, match="rates or updates"):
        module.best_settings(more)  # one arm alone had more updates to choose from
    assert module.best_settings([*more, tried("auto", 1e-4, 4, good)])["auto"] == (1e-5, 1)
    scored = [dataclasses.replace(one, seed=0) for one in tries]
    with pytest.raises(module.Unfair, match="seed 100 alone"):
        module.best_settings(scored)
    with pytest.raises(module.Unfair, match="one budget"):
        module.best_settings([dataclasses.replace(tries[0], plan=dataclasses.asdict(plan(tokens=99))), *tries[1:]])


def test_every_arm_can_take_more_steps_on_a_round_and_trl_by_its_own_settings() -> None:
    module, side, trl = part("learning_plan"), part("side_learning"), part("side_learning_trl")
    for arm in module.ARMS[:-1]:
        plain, more = (
            side.config({"arm": arm, "seed": 1, "rate": 2e-4, "model": "nano", "tokens": 1000, "updates": updates})
            for updates in (1, 4)
        )
        assert plain != more
        if arm in ("grpo", "leave-one-out"):
            assert more.algorithm.passes == 4 * plain.algorithm.passes
        if arm == "success-replay":
            assert more.replay.success_passes == 4 * plain.replay.success_passes
    base = {"num_iterations": 1, "per_device_train_batch_size": module.GROUP}
    steps = {updates: trl.steps_of(base | module.knobs("trl", updates)) for updates in (1, 4, 8)}
    assert steps == {1: 4, 4: 16, 8: 32}
    assert module.knobs("auto", 8) == module.knobs("auto", 4)  # it has no more
    keys = {module.Plan(tokens=1, items=1, warm="a").key("trl", 0, 1e-4, updates) for updates in (1, 4, 8)}
    assert len(keys) == 3  # a kept result is of one setting


def test_the_arms_of_foretaste_have_its_defaults_but_for_what_is_fixed() -> None:
    from foretaste.checks import check
    from foretaste.config import AlgorithmConfig

    side, fixed = part("side_learning"), {"name", "group_size", "learning_rate"}
    for arm in part("learning_plan").ARMS[:-1]:
        settings = side.config({"arm": arm, "seed": 1, "rate": 2e-4, "model": "nano", "tokens": 1000})
        check(settings)
        defaults = dataclasses.asdict(AlgorithmConfig())
        ours = dataclasses.asdict(settings.algorithm)
        assert {name for name, value in ours.items() if value != defaults[name]} <= fixed
        assert (settings.algorithm.learning_rate, settings.token_budget, settings.episodes_per_step) == (2e-4, 1000, 32)


# The task -------------------------------------------------------------------------------------------


def play(*replies: str) -> tuple[int, float]:
    """Return the turns of an episode and its success; the last reply is repeated."""
    from foretaste.envs import make

    env = make(part("learning_task").config_of(3).env.id)
    env.reset(seed=5)
    for turn in range(20):
        _, _, ended, _, info = env.step(replies[min(turn, len(replies) - 1)] or env.unwrapped.oracle())
        if ended:
            return turn + 1, info["success"]
    raise AssertionError("the episode did not end")


def test_an_episode_is_six_calls_and_a_closing_reply(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert play("") == (7, 1.0)
    assert play("pick word mauve") == (7, 0.0)  # mistakes do not end it
    assert play("", "", "red") == (3, 0.0)  # a reply without a call does
    assert play(*[""] * 6, "pick word red") == (7, 1.0)  # once the lock is open, nothing shuts it


def test_the_other_interpreter_meets_the_items_and_the_lock_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    from foretaste.envs import make
    from foretaste.rl.tasks import training_tasks

    monkeypatch.chdir(ROOT)
    task, group = part("learning_task"), part("learning_plan").GROUP
    config = task.config_of(3)
    ours = [one.seed for step in (1, 2) for one in training_tasks(config, step)]
    assert [seed for seed in task.items_of(3, 2) for _ in range(group)] == ours
    env = make(config.env.id)
    seen = [env.reset(seed=ours[0])[0], env.step("pick word red")[0]]
    asked = [{"items": 1}, {"reset": ours[0], "id": 0}, {"reset": ours[8], "id": 1}, {"act": "pick word red", "id": 0}]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.learning_task", "3"],
        input="".join(json.dumps(one) + "\n" for one in asked),
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert answers[0]["items"] == ours[:32:group]
    assert [answers[1]["observation"], answers[3]["observation"]] == seen


def test_a_call_is_rendered_as_the_policy_writes_it() -> None:
    import jinja2

    module = part("learning_plan")
    call = {"function": {"name": module.TOOL, "arguments": {module.ARGUMENT: "red"}}}
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "b"},
    ]
    text = jinja2.Template(module.CHAT_TEMPLATE).render(messages=messages, add_generation_prompt=True)
    turns = ["user\na", f"assistant\n{module.CALL}red", "user\nb"]
    assert text == "".join(f"<|im_start|>{turn}<|im_end|>\n" for turn in turns) + "<|im_start|>assistant\n"


# Runs are kept --------------------------------------------------------------------------------------


class Worker:
    """Answers jobs as the sides do, without a model."""

    def __init__(self, jobs: Any) -> None:
        self.folder, self.done = jobs.folder, []

    def __call__(self, job: dict[str, Any]) -> dict[str, Any]:
        self.done.append((job["work"], job.get("arm"), job.get("seed"), job.get("rate"), job.get("tokens")))
        if job["work"] == "warm":
            return {"id": "abc"}
        if job["work"] == "exam":
            learned = "runs" in Path(job["model"]).parts
            return {"success": [float(learned), 1.0, 0.0, 0.0][: job["items"]], "tokens": 26 * job["items"]}
        made = Path(job["folder"]) / "checkpoint"
        made.mkdir(parents=True)
        ran = {"tokens": job["tokens"] + 5, "last_tokens": 20, "episodes": 8, "seconds": 6.0, "peak_bytes": 10**9}
        return {"model": str(made), **ran}


def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[list[Any], dict[str, Any]]:
    """Run the command with a worker in place of the sides; return what was done, and the file written."""
    done: list[Any] = []

    def run(self: Any, job: dict[str, Any]) -> dict[str, Any]:
        worker = Worker(self)
        try:
            return worker(job)
        finally:
            done.extend(worker.done)

    monkeypatch.setattr(part("learning_jobs").Jobs, "run", run)
    output = tmp_path / "learning.json"
    fixed = ["--items", "4", "--tokens", "100", "--folder", str(tmp_path / "kept"), "--output", str(output)]
    part("learning").main([*fixed, *arguments])
    return done, json.loads(output.read_text())


def test_what_is_finished_is_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("--arms", "auto", "trl", "--seeds", "0", "--rates", "1e-4", "--updates", "1")
    done, written = command(tmp_path, monkeypatch, *arguments)
    assert [work for work, *_ in done] == ["warm", "exam", "learn", "exam", "learn", "exam"]
    assert [(one["arm"], one["tokens"]) for one in written["results"]] == [("auto", 105), ("trl", 105)]
    assert not list((tmp_path / "kept" / "runs").iterdir())  # weights are not kept
    assert command(tmp_path, monkeypatch, *arguments) == ([], written)
    both = (*arguments[:3], "--seeds", "0", "1", *arguments[5:])
    done, written = command(tmp_path, monkeypatch, *both)
    assert [(arm, seed) for work, arm, seed, *_ in done if work == "learn"] == [("auto", 1), ("trl", 1)]
    assert len(written["results"]) == 4
    done, _ = command(tmp_path, monkeypatch, *arguments, "--tokens", "200")  # another plan: nothing of the old fits
    assert [tokens for work, *_, tokens in done if work == "learn"] == [200, 200]


def test_two_commands_that_want_the_same_measure_it_once(tmp_path: Path) -> None:
    made: list[int] = []

    def slowly() -> dict[str, Any]:
        made.append(1)
        time.sleep(0.3)
        return {"n": len(made)}

    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(part("learning_jobs")._kept, tmp_path / "a" / "one.json", slowly) for _ in range(2)]
    assert [one.result() for one in both] == [{"n": 1}, {"n": 1}]


def test_every_arm_tries_every_setting_with_half_the_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done, written = command(tmp_path, monkeypatch, "--seeds", "0", "--rates", "1e-4", "3e-5")
    tried = [one for one in done if one[0] == "learn" and one[2] == part("learning_plan").RATE_SEED]
    arms = part("learning_plan").ARMS
    assert [(arm, rate, tokens) for _, arm, _, rate, tokens in tried] == [
        (a, r, 50) for a in arms for r in (1e-4, 3e-5) for _ in (1, 4)
    ]
    assert [one["updates"] for one in written["tries"]] == [1, 4] * 2 * len(arms)
    assert written["learning_rates"] == dict.fromkeys(arms, 3e-5)
    assert written["updates"] == dict.fromkeys(arms, 1)
    assert {one["rate"] for one in written["results"]} == {3e-5}
    assert len(written["tries"]) == 4 * len(arms)


def test_a_side_that_dies_is_named_and_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs_module = part("learning_jobs")
    jobs = jobs_module.Jobs(tmp_path, threads=1, tell=lambda said: None)
    monkeypatch.setattr(jobs_module.peers, "python", lambda peer, log: Path(sys.executable))
    monkeypatch.setattr(jobs_module.peers, "ROOT", tmp_path)  # without benchmarks: the process cannot start
    monkeypatch.setenv("PYTHONPATH", "")
    with pytest.raises(part("peers").PeerMissing, match=r"warm of side_learning stopped: .*No module named"):
        jobs.warm()
    assert not list(tmp_path.rglob("*.json"))


# The table ------------------------------------------------------------------------------------------


def test_the_table_has_exact_intervals_and_no_figure_that_is_not_there() -> None:
    learning = part("learning")
    assert learning.share([1.0] * 10 + [0.0] * 30) == "0.250 [0.127, 0.412]"
    assert learning.share([1.0, None]) == "1.000 [0.025, 1.000]"
    assert learning.share([None]) == "not measured"
    out = io.StringIO()
    runs = [result("trl"), result("trl", seed=1, after=[0.0] * 4), result("auto", after=[None] * 4)]
    learning.show(Console(file=out, width=200), runs, "title")
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.getvalue().splitlines() if "│" in line]
    assert lines[0][:4] == ["trl", "0.0001", "0", "0.250 [0.006, 0.806]"]
    assert lines[0][5:] == ["110", "8", "1.5", "2.00"]
    assert lines[2][:5] == ["trl", "", "mean", "0.250", "0.375"]
    assert lines[3][4] == "not measured"


def test_arms_are_compared_seed_by_seed_with_an_interval() -> None:
    ends = {"auto": (1.0, 0.75, 1.0), "trl": (0.25, 0.25, 0.0), "grpo": (0.5, 0.5)}
    runs = [
        result(arm, seed=seed, after=[1.0] * round(4 * end) + [0.0] * round(4 - 4 * end))
        for arm, of_arm in ends.items()
        for seed, end in enumerate(of_arm)
    ]
    told = part("learning").differences(runs)
    # Differences .75, .5, 1: mean .75, standard error .25 / sqrt(3), times 4.303.
    assert told == [
        "auto less trl: +0.750 [+0.129, +1.371], 3 seeds",
        "auto less grpo: +0.375 [-1.213, +1.963], 2 seeds",
    ]
    assert part("learning").differences(runs[:3]) == []


def test_help_has_examples_and_wrong_arguments_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        part("learning").main(["--help"])
    assert ended.value.code == 0
    assert "--arms auto trl --seeds 0" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        part("learning").main(["--arms", "gpro"])
    assert "invalid choice: 'gpro'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        part("learning").main(["--seeds", "100"])
    assert "learning rates are chosen on" in capsys.readouterr().err


def test_the_side_of_trl_can_be_imported_without_trl() -> None:
    module = part("side_learning_trl")
    environment = module.factory(None)
    public = {name for name in vars(environment) if not name.startswith("_")}
    assert public == {"reset", "pick", "get_reward"}  # the one tool, and what TRL calls itself
