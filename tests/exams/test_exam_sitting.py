"""Whole sittings with scripted policies: what is asked, kept, resumed, counted and said."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from foretaste.config import CurriculumConfig, EnvConfig, ImitateConfig, TrainConfig, to_dict
from foretaste.envs.registry import make
from foretaste.envs.reworded import Reworded
from foretaste.errors import ConfigError, RunError
from foretaste.exams.answers import Answer, Mark
from foretaste.exams.bridges import items_of
from foretaste.exams.comparing import scores_of
from foretaste.exams.exam import SitConfig, sit
from foretaste.exams.looks import looks
from foretaste.exams.paper import Family, Paper
from foretaste.exams.planning import Plan, make_plan, seen_in_training, shortfall_lines
from foretaste.exams.revealing import reveal
from foretaste.exams.scarce import Thresholdout, sigma_for
from foretaste.exams.seal import item_hash
from foretaste.exams.sequential import Outcome
from foretaste.exams.wording import Planned
from foretaste.ledger import Ledger
from foretaste.records import Action, Conversation
from foretaste.report.exam_gather import gather_exam
from foretaste.report.exam_sections import headline
from foretaste.rl.tasks import demonstration_tasks

ROUTE = Family("route", items=6, registers=("plain", "casual", "email"))
PAPER = Paper("small", (ROUTE,), looks=3)
ORACLE = SitConfig(policy="oracle")


class Scripted:
    """Answers by a function of the conversation; raises after `budget` answers."""

    name = "scripted"

    def __init__(self, answer: Any, budget: int = 10**9) -> None:
        self.answer, self.budget, self.asked = answer, budget, 0

    def act(self, conversations: list[Conversation]) -> list[Action]:
        actions = []
        for conversation in conversations:
            self.asked += 1
            if self.asked > self.budget:
                raise KeyboardInterrupt
            answer = self.answer(conversation)
            actions.append(answer if isinstance(answer, Action) else Action(answer))
        return actions


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(tmp_path) as opened:
        yield opened


def hold(ledger: Ledger, tmp_path: Path, paper: Paper = PAPER, config: SitConfig = ORACLE, **more: Any) -> Any:
    return sit(paper, config, ledger, runs_folder=tmp_path, **more)


def answers_of(ledger: Ledger, run: str) -> list[Answer]:
    return [Answer.from_json(record.payload) for record in ledger.records(run, "answer")]


def gold_of(conversation: Conversation) -> str:
    """Which queue a message means, found by asking the environment's own items."""
    queues = conversation.messages[-1].content.split("\n")
    line = next(line for line in queues if line.startswith("Queues: "))
    return line.removeprefix("Queues: ").split(", ")[0]


def test_the_oracle_passes_in_every_wording_and_the_look_and_plan_come_first(ledger: Ledger, tmp_path: Path) -> None:
    paper = replace(PAPER, families=(replace(ROUTE, items=24),))
    sitting = hold(ledger, tmp_path, paper)
    assert sitting.verdict.outcome is Outcome.PASS
    assert sitting.results["failures"]["right"] == 72
    assert (sitting.results["base_items"], sitting.results["accuracy"]["mean"]) == (24, 1.0)
    assert sitting.results["gap"]["mean"] == 0.0
    kinds = [record.kind for record in ledger.records(sitting.run)]
    assert kinds.index("look") < kinds.index("plan") < kinds.index("answer")
    assert kinds[-3:] == ["sitting", "verdict", "status"]
    floor = sitting.results["by_family"][0]["floor"]
    assert 0.25 <= floor <= 0.7  # four queues, the commonest of 24 items


def test_every_bad_reply_has_its_mark_and_earns_nothing(ledger: Ledger, tmp_path: Path) -> None:
    replies = {
        "blank": (Action("  "), Mark.UNPARSEABLE),
        "prose": (Action("I think it is billing"), Mark.UNPARSEABLE),
        "refusal": (Action("I'm sorry, I cannot help with that."), Mark.REFUSED),
        "cut": (Action("billing and", cut=True), Mark.TRUNCATED),
        "hedge": (Action("billing or delivery"), Mark.UNPARSEABLE),
    }
    paper = replace(PAPER, families=(replace(ROUTE, registers=("plain",), items=2),), looks=0)
    for reply, mark in replies.values():
        sitting = hold(ledger, tmp_path, paper, SitConfig(public=False), policy=Scripted(lambda _, r=reply: r))
        assert sitting.results["failures"][mark] == 2, reply
    wrong = Scripted(
        lambda c: next(q for q in ("billing", "delivery", "returns") if q not in c.messages[-1].content[40:])
    )
    failures = hold(ledger, tmp_path, paper, SitConfig(public=False), policy=wrong).results["failures"]
    assert failures["wrong"] + failures["right"] == 2


def test_an_interrupted_sitting_goes_on_where_it_stopped_and_spends_no_second_look(
    ledger: Ledger, tmp_path: Path
) -> None:
    config = SitConfig(concurrent=2)
    broken = Scripted(gold_of, budget=9)
    with pytest.raises(KeyboardInterrupt) as caught:
        hold(ledger, tmp_path, config=config, policy=broken)
    (run,) = caught.value.__notes__
    kept = answers_of(ledger, run)
    assert len(kept) == 8  # two at a time; the batch that was cut off is lost, nothing else
    assert ledger.run(run).status == "interrupted"
    again = Scripted(gold_of)
    sitting = sit(None, SitConfig(), ledger, runs_folder=tmp_path, resume=run, policy=again)
    assert (sitting.run, again.asked) == (run, 24 - 8)
    assert len({answer.key for answer in answers_of(ledger, run)}) == 24
    assert len(looks(ledger, "small")) == 1
    whole = hold(ledger, tmp_path, replace(PAPER, name="other"), config, policy=Scripted(gold_of))
    assert whole.results["answers"] == sitting.results["answers"] == 18
    with pytest.raises(ConfigError, match="is finished"):
        sit(None, SitConfig(), ledger, runs_folder=tmp_path, resume=run, policy=again)


def test_looks_run_out_failed_sittings_included_and_each_look_has_fresh_items(ledger: Ledger, tmp_path: Path) -> None:
    texts: list[set[str]] = []
    for budget in (3, 100, 100):
        seen: set[str] = set()

        def note(conversation: Conversation, seen: set[str] = seen) -> str:
            seen.add(conversation.messages[-1].content)
            return "billing"

        texts.append(seen)
        with contextlib.suppress(KeyboardInterrupt):
            hold(ledger, tmp_path, config=SitConfig(public=False), policy=Scripted(note, budget))
    assert len(texts[1] & texts[2]) < len(texts[1]) / 4  # two short messages may be alike by chance
    with pytest.raises(RunError, match="allows 3 looks and 3 are spent"):
        hold(ledger, tmp_path)
    assert [look.number for _, look in looks(ledger, "small")] == [1, 2, 3]


def test_a_policy_that_cannot_sit_costs_no_look(ledger: Ledger, tmp_path: Path) -> None:
    for spec in ("", "no-such-model", "openai:model", "no_module:Thing"):
        with pytest.raises(Exception, match=r"policy|model|endpoint|module"):
            hold(ledger, tmp_path, config=SitConfig(policy=spec))
    assert looks(ledger) == []


def test_early_stopping_asks_less_and_says_the_same(ledger: Ledger, tmp_path: Path) -> None:
    paper = Paper("long", (replace(ROUTE, items=60),), looks=1)
    sitting = hold(ledger, tmp_path, paper, SitConfig(policy="oracle", stop_early=True, concurrent=4))
    assert sitting.verdict.outcome is Outcome.PASS
    assert sitting.results["stopped_early"]
    assert sitting.verdict.n < 20
    assert sitting.results["answers"] < 60


def test_errors_are_apart_and_a_verdict_must_survive_them(ledger: Ledger, tmp_path: Path) -> None:
    paper = Paper("flaky", (Family("tests_flaky:Flaky", items=40),), looks=0)
    (tmp_path / "tests_flaky.py").write_text(
        "from foretaste.envs.base import TextEnv\n"
        "class Flaky(TextEnv):\n"
        "    name = 'flaky'\n"
        "    def begin(self):\n"
        "        self.bad = self.random.random() < 0.3\n"
        "        return f'say yes {self.random.random()}', {}\n"
        "    def act(self, action):\n"
        "        if self.bad: raise RuntimeError('out of order')\n"
        "        return '', 1.0, True, {'success': float(action == 'yes')}\n"
        "    def oracle(self): return 'yes'\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        always = hold(ledger, tmp_path, paper, SitConfig(public=False, examples=0), policy=Scripted(lambda _: "yes"))
        strict = hold(
            ledger,
            tmp_path,
            replace(paper, name="flaky2", threshold=0.9, alpha=0.3),
            SitConfig(public=False, examples=0),
            policy=Scripted(lambda _: "yes"),
        )
    assert always.results["failures"]["wrong"] == 0
    errors = always.results["failures"]["error"]
    assert 3 <= errors <= 25
    assert always.verdict.errors == errors
    assert always.results["accuracy"]["mean"] == 1.0
    assert "out of order" in next(iter(always.results["errors"]))
    assert strict.verdict.mean == 1.0  # every judged item is right, and still no PASS above .9
    assert strict.verdict.outcome is Outcome.INCONCLUSIVE


def test_items_that_training_has_shown_are_replaced(ledger: Ledger, tmp_path: Path) -> None:
    run = ledger.start_run("train", "route", {"env": {"id": "route"}})
    paper = Paper("open", (replace(ROUTE, registers=("plain",)),), sealed=False)
    first = make_plan(paper)
    env = make("route")
    shown = [env.reset(seed=item.seed, options={"level": 1})[0] for item in first.items[:3]]
    for text in shown:
        ledger.append(run, "episode", {"turns": [{"observation": text}]})
    sitting = hold(ledger, tmp_path, paper)
    assert sitting.results["replaced"] >= 3
    asked = {item_hash(a.turns[0].observation) for a in answers_of(ledger, sitting.run)}
    assert not asked & {item_hash(text) for text in shown}
    assert len(asked) == 6


@pytest.mark.parametrize("unread", [{}, {"setting_of_another_version": 1}])
def test_items_of_a_curriculum_and_of_demonstrations_count_as_trained_on(
    ledger: Ledger, tmp_path: Path, unread: dict[str, Any]
) -> None:
    config = TrainConfig(
        env=EnvConfig("extract"),
        curriculum=CurriculumConfig(sources=("maze@2", "foretaste/guess-v1@2/casual")),
        imitate=ImitateConfig(episodes=6),
    )
    run = ledger.start_run("train", "mixed", {**to_dict(config), **unread})
    env: Any = make("guess")
    opening, _ = env.reset(seed=5, options={"level": 2, "register": "casual"})
    told = {"env": "guess", "level": 2, "seed": 5, "register": "casual", "turns": [{"observation": opening}]}
    ledger.append(run, "episode", told)
    expected = {item_hash(env.identity())}
    demonstrations = [task for task in demonstration_tasks(config) if "guess" in task.env]
    assert len(demonstrations) == 3
    if not unread:  # what was demonstrated follows from the settings alone
        for task in demonstrations:
            env.reset(seed=task.seed, options={"level": 2})
            expected.add(item_hash(env.identity()))
    assert seen_in_training(ledger, tmp_path, Paper("p", (Family("guess"),))) == expected
    assert bool(seen_in_training(ledger, tmp_path, Paper("p", (Family("lock"),)))) == bool(unread)


def test_an_agent_trained_on_some_numbers_is_asked_the_others_and_none_left_costs_no_look(
    ledger: Ledger, tmp_path: Path
) -> None:
    run = ledger.start_run("train", "guess", {"env": {"id": "guess"}})
    env: Any = make("guess")
    first: dict[int, tuple[str, int]] = {}
    for seed in range(200):
        text, _ = env.reset(seed=seed, options={"level": 1})
        first.setdefault(env.hidden, (text, seed))
    paper = Paper("numbers", (Family("guess", items=10),), looks=2)

    def train_on(hidden: int, register: str = "plain") -> None:
        text, seed = first[hidden]
        told = {"env": "guess", "level": 1, "seed": seed, "register": register, "turns": [{"observation": text}]}
        ledger.append(run, "episode", told)

    train_on(3)
    train_on(7, "casual")
    sitting = hold(ledger, tmp_path, paper, SitConfig(policy="oracle", public=False))
    assert sitting.results["base_items"] == 8
    assert sitting.results["shortfalls"] == {"guess:1": 2}
    assert sitting.results["trained_on"] == 0
    (planned,) = ledger.records(sitting.run, "plan")
    assert shortfall_lines(Plan.from_json(planned.payload)) == [
        "guess:1 has 10 different items, 2 of them trained on or asked already: 8 of 10 are asked"
    ]
    for hidden in range(1, 11):
        train_on(hidden)
    with pytest.raises(RunError, match="guess:1 has 10 different items, 10 of them trained on"):
        hold(ledger, tmp_path, paper)
    with pytest.raises(ConfigError, match=r"items of .* were trained on since"):
        hold(ledger, tmp_path, paper, SitConfig(policy="oracle", items_of=sitting.run))
    assert len(looks(ledger, "numbers")) == 1


def test_a_plan_that_names_items_by_their_texts_still_resumes_and_knows_what_was_trained_on(
    ledger: Ledger, tmp_path: Path
) -> None:
    paper = Paper("walk", (Family("maze", items=3),), sealed=False)
    with pytest.raises(KeyboardInterrupt) as caught:
        hold(ledger, tmp_path, paper, policy=Scripted(lambda _: "north", budget=0))
    (begun,) = caught.value.__notes__
    values = ledger.records(begun, "plan")[0].payload
    env: Any = make("maze")
    for row in values["items"]:
        row[5] = item_hash(env.reset(seed=row[3], options={"level": 1})[0])
    del values["different"]
    ledger.append(begun, "plan", values)
    sitting = sit(None, SitConfig(), ledger, runs_folder=tmp_path, resume=begun, policy=Scripted(lambda _: "north"))
    assert sitting.results["failures"]["error"] == 0
    run = ledger.start_run("train", "maze", {"env": {"id": "maze"}})
    seed = values["items"][0][3]
    text, _ = env.reset(seed=seed, options={"level": 1})
    ledger.append(run, "episode", {"env": "maze", "level": 1, "seed": seed, "turns": [{"observation": text}]})
    with pytest.raises(ConfigError, match=r"1 items of .* were trained on since"):
        hold(ledger, tmp_path, paper, SitConfig(policy="oracle", items_of=begun))


def test_items_are_exported_from_a_finished_sitting_alone(ledger: Ledger, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt) as caught:
        hold(ledger, tmp_path, policy=Scripted(gold_of, budget=0))
    (run,) = caught.value.__notes__
    with pytest.raises(ConfigError, match=rf"not finished \(interrupted\).*--resume {run}"):
        items_of(run, ledger, tmp_path, reader="export")
    sit(None, SitConfig(), ledger, runs_folder=tmp_path, resume=run, policy=Scripted(gold_of))
    assert len(items_of(run, ledger, tmp_path, reader="export")[1].items) == 18
    assert len(looks(ledger, "small")) == 1


def test_two_policies_sit_the_same_items(ledger: Ledger, tmp_path: Path) -> None:
    easy = Paper("easy", (replace(ROUTE, items=24, registers=("plain",)),), sealed=False)
    known = hold(ledger, tmp_path, easy)
    again = hold(ledger, tmp_path, easy, SitConfig(policy="oracle", items_of=known.run))
    assert (known.verdict.outcome, again.verdict.outcome) == (Outcome.PASS, Outcome.INCONCLUSIVE)
    first = hold(ledger, tmp_path)
    second = hold(ledger, tmp_path, config=SitConfig(items_of=first.run), policy=Scripted(gold_of))
    ids = [{score.item for score in scores_of(ledger, sitting.run)} for sitting in (first, second)]
    assert ids[0] == ids[1]
    assert len(looks(ledger, "small")) == 2
    loud = hold(ledger, tmp_path, config=SitConfig(policy="oracle", items_of=first.run, stop_early=True))
    assert loud.results["accuracy"]["mean"] == 1.0
    assert (loud.results["stopped_early"], loud.verdict.outcome.exit_code, loud.verdict.more_needed) == (False, 2, None)
    assert loud.verdict.sentence().startswith("NO VERDICT")
    assert "comparison only" in headline(gather_exam(ledger, loud.run))[0]
    with pytest.raises(ConfigError, match="sat another paper"):
        hold(ledger, tmp_path, replace(PAPER, name="x", threshold=0.7), SitConfig(policy="oracle", items_of=first.run))


def test_the_secret_is_revealed_and_proves_the_items(ledger: Ledger, tmp_path: Path) -> None:
    sitting = hold(ledger, tmp_path)
    found = reveal(ledger, sitting.run, tmp_path)
    assert found.matching == found.items == 18
    assert "route" in found.paper_file.read_text()
    later = hold(ledger, tmp_path)
    commitments = [ledger.records(run, "plan")[0].payload["commitment"] for run in (sitting.run, later.run)]
    assert commitments[0] == found.commitment != commitments[1]  # a secret that is known is not used again
    assert reveal(ledger, sitting.run, tmp_path).secret == found.secret


def test_samples_tell_flips_from_wording(ledger: Ledger, tmp_path: Path) -> None:
    paper = Paper("noisy", (Family("route", items=12, registers=("plain", "casual")),), sealed=False)
    coin = {"n": 0}

    def fickle(conversation: Conversation) -> str:
        coin["n"] += 1
        return ("billing", "delivery", "returns", "account")[coin["n"] % 4]

    sitting = hold(ledger, tmp_path, paper, SitConfig(samples=3), policy=Scripted(fickle))
    assert sitting.results["split_brain"]["samples"] == 3
    assert len(answers_of(ledger, sitting.run)) == 12 * (3 + 1)
    assert [row["k"] for row in sitting.results["repeated"]["rows"]] == [1, 2, 3]
    rates = [row["pass_at_k"] for row in sitting.results["repeated"]["rows"]]
    assert rates == sorted(rates)
    with pytest.raises(ConfigError, match="would all be the same"):
        SitConfig(samples=2, temperature=0.0)


def test_scarce_families_are_released_and_their_texts_not_kept(ledger: Ledger, tmp_path: Path) -> None:
    scarce = Family("route", items=8, release="ladder")
    told = Family("route", levels=(2,), items=8, release="thresholdout")
    paper = Paper("scarce", (Family("guess", items=4), scarce, told))
    better = hold(ledger, tmp_path, paper)
    worse = hold(ledger, tmp_path, paper, policy=Scripted(lambda _: "nonsense"))
    ladder, noisy = better.results["scarce"]
    assert (ladder["score"], ladder["news"]) == (1.0, True)
    # Eight items are told little: the noise follows their number, and 30 times its scale is never met (e^-30).
    assert noisy["mechanism"] == "thresholdout"
    assert abs(noisy["score"] - 1.0) <= 30 * sigma_for(8, Thresholdout(secret="any").budget)
    assert worse.results["scarce"][0] == {**ladder, "news": False}  # a worse try hears the old best
    assert {row["env"] for row in better.results["by_family"]} == {"guess"}
    hidden = [a for a in answers_of(ledger, better.run) if a.scarce]
    assert hidden
    assert not any(turn.observation or turn.action for a in hidden for turn in a.turns)


def test_a_wording_of_a_scarce_family_alone_does_not_keep_the_worst_wording_open(
    ledger: Ledger, tmp_path: Path
) -> None:
    scarce = Family("route", (2,), registers=("plain", "terse"), items=2, release="ladder")
    fresh = replace(ROUTE, items=24, registers=("plain", "casual"))
    paper = Paper("apart", (fresh, scarce), metric="worst_register", threshold=0.3, looks=1)
    assert hold(ledger, tmp_path, paper, SitConfig(policy="oracle", public=False)).verdict.outcome is Outcome.PASS


def test_early_stopping_asks_scarce_families_to_the_end_and_a_resumed_end_releases_nothing_twice(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scarce = (Family("route", (2,), items=4, release="ladder"), Family("route", (3,), items=4, release="thresholdout"))
    paper = Paper("early", (replace(ROUTE, items=60, registers=("plain",)), *scarce), looks=2)
    ask = Thresholdout.ask
    monkeypatch.setattr(Thresholdout, "ask", lambda *_: (_ for _ in ()).throw(RuntimeError("no room left on the disk")))
    with pytest.raises(RuntimeError) as caught:
        hold(ledger, tmp_path, paper, SitConfig(policy="oracle", stop_early=True, concurrent=4))
    monkeypatch.setattr(Thresholdout, "ask", ask)
    (run,) = caught.value.__notes__
    sitting = sit(None, SitConfig(), ledger, runs_folder=tmp_path, resume=run)
    assert sitting.results["stopped_early"]
    assert [row["items"] for row in sitting.results["scarce"]] == [4, 4]
    assert sitting.results["scarce"][0] == sitting.results["scarce"][0] | {"score": 1.0, "news": True}
    states = [record.payload["state"] for record in ledger.records(run, "release")]
    assert [state.get("submissions") for state in states] == [1, None]
    assert len([a for a in answers_of(ledger, run) if a.scarce and a.public]) == 8
    assert sitting.results["answers"] < 60
    with pytest.raises(RunError, match="asked 4 items of route at level 2 before and would ask 5 now"):
        hold(ledger, tmp_path, replace(paper, families=(replace(scarce[0], items=5),)))
    assert len(looks(ledger, "early")) == 1


def test_wordings_that_an_environment_lacks_are_put_around_its_text() -> None:
    env = Reworded(make("maze"), "maze")
    plain, _ = env.reset(seed=5, options={"register": "plain", "level": 1})
    for register in ("email", "chinese", "formal"):
        worded, _ = env.reset(seed=5, options={"register": register, "level": 1})
        assert plain in worded
        assert worded != plain
        assert worded == env.reset(seed=5, options={"register": register, "level": 1})[0]
    planned = Reworded(Planned(make("maze"), {(1, 5): item_hash("another item")}), "maze")
    assert "PYTHONHASHSEED" in planned.reset(seed=5, options={"register": "email", "level": 1})[1]["error"]


def test_a_plan_survives_the_ledger_and_its_order_is_the_secrets(tmp_path: Path) -> None:
    secret, other = "ab" * 32, "cd" * 32
    plan = make_plan(PAPER, secret=secret, look=1)
    assert Plan.from_json(plan.to_json()) == plan
    assert make_plan(PAPER, secret=secret, look=1) == plan
    numbers = [[item.cluster for item in make_plan(PAPER, secret=s, look=1).items[::3]] for s in (secret, other)]
    assert numbers[0] != numbers[1]
    assert sorted(numbers[0]) == sorted(numbers[1])
    assert to_dict(PAPER)["families"][0]["env"] == "route"
