"""The simulated deployment: a script goes up, is caught when the world changes and comes back; a real one runs."""

from dataclasses import replace

import pytest

from foretaste.cli import main
from foretaste.deploy.old_tasks import OldTask
from foretaste.deploy.online import OnlineReport
from foretaste.deploy.simulate import Simulation, simulate
from foretaste.deploy.simulation_page import figures, write_page
from foretaste.deploy.simulation_result import PARTS, SimulationConfig, cost_saved, served_error
from foretaste.deploy.traffic import Part, World
from foretaste.errors import ConfigError
from foretaste.records import Action

CHANGE, LEARNED, REQUESTS = 1600, 1920, 3200
CONFIG = SimulationConfig(requests=REQUESTS, change="policy", old_items=90)


class Scripted(Simulation):
    """A learner that routes rightly from request 300 on, believes so after the change too, and learns it later."""

    def _answers(self, slot, requests):
        slot.requests += len(requests)
        slot.answered += len(requests)
        return [self.answer(request) for request in requests]

    def answer(self, request):
        if request.part.env != "route":
            return Action("no idea", (1, 2), (-0.1, -0.1), (0.05, 0.05))
        out_of_date = CHANGE <= request.number < LEARNED and request.answer == "account" and request.draw < 0.5
        text = "billing" if out_of_date or request.number < 300 else request.answer
        return Action(text, (1, 2), (-0.1, -0.1), (0.5, 0.95))


@pytest.fixture(scope="module")
def scripted(tmp_path_factory):
    simulation = Scripted(replace(CONFIG, folder=str(tmp_path_factory.mktemp("deployment"))))
    simulation.trainer.step = lambda experiences: OnlineReport(0, {}, 0, (), False)
    return simulation.run()


def test_a_learner_takes_over_what_it_can_do_and_no_more(scripted) -> None:
    early, settled = scripted.window(0, 300), scripted.window(CHANGE - 320, CHANGE)
    assert sum(row.served for row in early) == 0
    kinds = [event.kind for event in scripted.events if event.request <= CHANGE]
    assert kinds == ["gate", "canary", "canary", "live"]
    share = sum(row.served for row in settled) / (len(settled) * CONFIG.block)
    assert 0.65 < share < 0.85  # the part that is routed is three quarters
    assert served_error(settled).mean == 0
    assert cost_saved(settled, CONFIG) > 0.5
    for row in scripted.rows:
        assert row.served + row.deferred == CONFIG.block
        assert 0 <= row.wrong <= row.served
        assert row.incumbent_calls >= row.deferred
    assert sum(row.incumbent_wrong for row in scripted.rows) / sum(row.deferred for row in scripted.rows) == (
        pytest.approx(0.05, abs=0.02)
    )


def test_a_changed_world_is_noticed_and_the_learner_comes_back(scripted) -> None:
    after = [event for event in scripted.events if event.request > CHANGE]
    assert after[0].kind == "rollback"
    assert after[0].request - CHANGE < 400
    assert "wrong" in after[0].text
    back = next(event.request for event in after if event.kind == "live")
    assert back > LEARNED
    assert sum(row.served for row in scripted.window(after[0].request, LEARNED)) == 0
    assert served_error(scripted.rows).low <= CONFIG.stage.alpha
    assert sum(row.served for row in scripted.window(REQUESTS - 320, REQUESTS)) > 150


def test_the_page_needs_no_other_file_and_shows_every_figure(scripted, tmp_path) -> None:
    text = write_page(scripted, tmp_path / "deep" / "page.html").read_text(encoding="utf-8")
    assert text.count("<svg") == 2
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "stepped back" in text
    named = dict(figures(scripted))
    assert named["requests from the change until it stepped back"].isdigit()
    assert int(named["requests from the change until it was live again"]) > LEARNED - CHANGE
    for name in named:
        assert name.replace("'", "&#x27;") in text


def test_a_real_learner_repeats_itself_bit_by_bit(tmp_path) -> None:
    config = SimulationConfig(requests=32, block=16, old_items=4, folder=str(tmp_path / "one"))
    first, second = simulate(config), simulate(replace(config, folder=str(tmp_path / "two")))
    assert first.rows == second.rows
    assert [row.requests for row in first.rows] == [16, 32]
    assert all(row.stage == "shadow" and row.served == 0 for row in first.rows)
    assert cost_saved(first.rows, config) == pytest.approx(-config.learner_cost)
    assert dict(figures(first))["wrong among served"] == "none was served"


def test_the_world_changes_when_it_should_and_its_old_tasks_do_not() -> None:
    world = World(PARTS, (Part("route"),), {"billing": "account"}, change_at=40, incumbent_accuracy=0.8, seed=3)
    before, after = [world.request(n) for n in range(40)], [world.request(n) for n in range(40, 240)]
    assert before == [world.request(n) for n in range(40)]
    assert {request.part.env for request in before} == {"route", "reasoning/chain_sum"}
    assert "billing" in {request.answer for request in before}
    assert "billing" not in {request.answer for request in after}
    right = sum(request.right(request.incumbent) for request in after) / len(after)
    assert right == pytest.approx(0.8, abs=0.09)
    old = world.old_tasks(20, "gate", (Part("route"),))
    assert {answer for _, answer in old} <= {"delivery", "returns", "account"}
    assert all(isinstance(task, OldTask) and task.right(f" {answer.upper()}. ") for task, answer in old)
    assert (
        not {task.messages for task, _ in old}
        & {task.messages for task, _ in world.old_tasks(20, "shown", (Part("route"),))}
        or len(old) == 20
    )
    with pytest.raises(ConfigError, match="share above 0"):
        World((), (), {}, change_at=0, incumbent_accuracy=1, seed=0)


def test_the_command_ends_with_figures_and_a_page(tmp_path, capsys) -> None:
    assert main(["deploy", "simulate", "--requests", "64", "--folder", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "wrong among the incumbent's:" in out
    assert out.strip().endswith(str(tmp_path / "page.html"))
    assert (tmp_path / "page.html").is_file()
    assert main(["deploy", "simulate", "--requests", "5"]) == 2
    assert "accepted: 64 or more" in capsys.readouterr().err


def test_many_deployments_in_worlds_that_break_promises_go_on_where_they_stopped(tmp_path, capsys, monkeypatch) -> None:
    from foretaste.deploy.simulation import run, worlds

    short = [replace(world, requests=1500, checkpoints=min(world.checkpoints, 3)) for world in worlds.cases("still")]
    monkeypatch.setattr(worlds, "WORLDS", tuple(short))
    ran: list[int] = []
    real = run.one
    monkeypatch.setattr(
        run, "one", lambda seed, world, config, share: (ran.append(seed), real(seed, world, config, share))[1]
    )

    def command(runs: int, folder: str) -> str:
        ran.clear()
        arguments = ["deploy", "simulate", "--world", "still", "--runs", str(runs), "--folder", str(tmp_path / folder)]
        assert main(arguments) == 0
        return capsys.readouterr().out.replace(folder, "")

    command(2, "stopped")
    files = sorted((tmp_path / "stopped" / "outcomes").iterdir())
    assert len(files) == len(short)
    files[0].write_text(files[0].read_text()[:-5])  # the last line was being written when it was ended
    out = command(4, "stopped")
    assert len(ran) == 2 * len(short) + 1
    assert out == command(4, "fresh")
    assert len(ran) == 4 * len(short)
    assert out.count("promised:") == len(short)
    assert "served:                100%" in out  # a person let it out
    page = (tmp_path / "fresh" / "worlds.html").read_text(encoding="utf-8")
    assert page.count("<tr") == 1 + len(short)
    assert "4 simulated deployments of each case" in page
    assert main(["deploy", "simulate", "--world", "still", "--runs", "0"]) == 2
    assert "accepted: 1 or more" in capsys.readouterr().err


def test_the_plan_says_what_is_promised_before_anything_is_served(tmp_path, capsys, monkeypatch) -> None:
    from foretaste.deploy.promise import plan as plans

    real = plans.notice  # 200 simulated changes take seconds, and the words are the same after eight
    monkeypatch.setattr(plans, "notice", lambda *given, runs, **more: real(*given, runs=8, **more))
    monkeypatch.chdir(tmp_path)

    def plan(*more: str, code: int = 0) -> str:
        assert main(["deploy", "plan", *more]) == code
        found = capsys.readouterr()
        return " ".join((found.out + found.err).split())

    agreement = plan("--requests-per-day", "2000")
    assert "At most 0.05 of the answers that the learner serves differ from what the judge calls right" in agreement
    assert "no promise of truth" in agreement
    assert "half of the time" in agreement
    truth = plan("--second-judge", "person", "--second-share", "0.3", "--feedback-seconds", "86400")
    assert "are wrong, judged by comparator and person" in truth
    assert "no promise of truth" not in truth
    assert "counts as wrong" in truth  # people take a day, a check counts at once
    assert "Nothing is promised, and nothing is served" in plan("--comparator", "none")
    assert "takeover.check_share = 2" in plan("--check-share", "2", code=2)
    assert "No deployment at" in plan("--config", "elsewhere.toml", code=2)
