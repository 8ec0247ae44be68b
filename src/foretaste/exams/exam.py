"""One sitting, from paper and policy to verdict: `sit`. The exam never trains anyone.

    items drawn -> look spent -> commitment shown -> plan written -> each answer written -> results, verdict

Everything is in the ledger as it happens, so that an interrupted sitting goes on where it stopped
(`resume`) and the page (`report/exam_page.py`) is made from the ledger alone.
Next: `planning.py` for what is asked, `driving.py` for how, `results.py` for what is measured.
"""

from __future__ import annotations

import platform
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from foretaste.config import from_dict, to_dict
from foretaste.errors import ConfigError, ModelError, RunError
from foretaste.exams.answers import Answer, Attempt, answer_of
from foretaste.exams.driving import play
from foretaste.exams.endpoint import Endpoint
from foretaste.exams.looks import looks, next_look, spend_look
from foretaste.exams.paper import Paper, check_files, load_paper, paper_from_dict, to_toml
from foretaste.exams.planning import (
    Plan,
    asked_at_looks,
    attempts_of,
    check_plan,
    make_plan,
    seen_in_training,
    shortfall_lines,
    task_of,
)
from foretaste.exams.policies import Seat, check_spec, take_seat
from foretaste.exams.releasing import check_scarce, release_scarce
from foretaste.exams.results import results
from foretaste.exams.seal import commitment, item_hash, secret_in
from foretaste.exams.settings import SitConfig
from foretaste.exams.verdict import Judge, Verdict
from foretaste.exams.wording import Pools, Renderer, planned_hashes
from foretaste.ledger import Ledger
from foretaste.locks import only_one
from foretaste.progress import Progress, Silent
from foretaste.records import Episode, Policy

MOST_UNANSWERED = 1 / 3
"""Share of a sitting's requests that an endpoint may leave unanswered; beyond it there is no verdict yet. Below it PASS
must hold with each of them taken for wrong."""


@dataclass(frozen=True, slots=True)
class Sitting:
    """A finished sitting."""

    run: str
    verdict: Verdict
    results: dict[str, Any]
    usage: dict[str, Any]


def sit(
    paper: Paper | str | None,
    config: SitConfig,
    ledger: Ledger,
    *,
    runs_folder: str | Path = "runs",
    policy: Policy | None = None,
    resume: str | None = None,
    progress: Progress | None = None,
) -> Sitting:
    """Let a policy sit a paper, and return the verdict with everything measured.

    `policy` is an object that sits instead of the one that `config.policy` names. `resume` goes on
    with an unfinished sitting, with its own paper and settings, and spends no look.

    Raises: ConfigError or ModelError before anything is spent if paper or policy cannot be used;
    RunError if no look is left; ModelError if the endpoint cannot go on (resume later).
    """
    progress = progress or Silent()
    folder = Path(runs_folder)
    if resume is not None:
        run, paper, config = _resumed(ledger, resume, policy)
    else:
        if paper is None:
            raise ConfigError("Name a paper. Ready-made ones: foretaste exam papers")
        paper = load_paper(paper) if isinstance(paper, str) else paper
        if policy is None:
            check_spec(config.policy)
        run = ""
    seat = Seat(policy, policy.name) if policy is not None else take_seat(config.policy, config)
    try:
        exam = _Exam(run, paper, config, seat, ledger, folder, progress)
        if not run:
            exam.draw()  # a paper that cannot be drawn is refused before anything is written down
            progress.note(_unfinished(ledger, paper, seat.name))
            values = {"paper": to_dict(paper), "sitting": to_dict(config), "policy": seat.name}
            exam.run = run = ledger.start_run("exam", paper.name, values)
        with only_one(folder / run / "sitting.lock", f"The sitting {run}"):
            if resume is not None:
                _refuse_finished(ledger, run)  # it may have ended while this process was getting ready
            return _held(exam, ledger, run, seat)
    finally:
        seat.close()


def _held(exam: _Exam, ledger: Ledger, run: str, seat: Seat) -> Sitting:
    """Hold the exam; write down how it began, and how it ended if it did so early."""
    status = {"status": "started", "provenance": seat.provenance, "checkpoint": seat.checkpoint}
    ledger.append(run, "status", {**status, "versions": _versions(), "host": platform.platform()})
    try:
        return exam.hold()
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt)
        reason = "stopped by Ctrl-C" if interrupted else f"{type(error).__name__}: {error}"
        ledger.append(run, "status", {"status": "interrupted" if interrupted else "failed", "error": reason})
        if isinstance(error, RunError) or not isinstance(error, Exception | KeyboardInterrupt):
            raise
        error.add_note(run)  # for whoever tells how to go on
        raise


class _Exam:
    """The state of one sitting."""

    def __init__(
        self, run: str, paper: Paper, config: SitConfig, seat: Seat, ledger: Ledger, folder: Path, progress: Progress
    ) -> None:
        self.run, self.paper, self.config, self.seat = run, paper, config, seat
        self.ledger, self.folder, self.progress = ledger, folder, progress
        self.answers: dict[tuple[int, int, bool], Answer] = {}
        self.unanswered: dict[tuple[int, int, bool], Answer] = {}
        """Given up by the endpoint, and worth asking again."""
        self.seen: frozenset[str] = frozenset()
        self.asked_before: frozenset[str] = frozenset()
        self.drawn: tuple[int, Plan] | None = None
        self.alpha = paper.alpha
        self.judged = 0

    def draw(self, spent: int | None = None) -> None:
        """Draw the items of the next look, or of look `spent`: what is wrong with the paper shows before it is spent.

        Raises: RunError if no look or no item is left; ConfigError or EnvError for a paper that cannot be drawn.
        """
        number = next_look(self.ledger, self.paper) if spent is None else spent
        self.progress.phase("drawing items", None)
        self.asked_before = asked_at_looks(self.ledger, self.paper)
        self.seen = seen_in_training(self.ledger, self.folder, self.paper)
        self.drawn = number, self._drawn(number)

    def hold(self) -> Sitting:
        """Hold the exam from wherever it stands."""
        plan = self._plan()
        attempts = attempts_of(plan, self.paper, self.config.samples)
        for record in self.ledger.records(self.run, "answer"):
            answer = Answer.from_json(record.payload)
            if answer.retry:
                self.answers.pop(answer.key, None)
            else:
                self.answers[answer.key] = answer
        missing = [attempt for attempt in attempts if attempt.key not in self.answers]
        if len(missing) < len(attempts):
            self.progress.note(f"{len(attempts) - len(missing)} of {len(attempts)} items were answered before")
        registers = {a.asked.register for a in attempts if not (a.public or a.scarce)}
        self.judge = Judge(self.paper.metric, self.paper.threshold, self.alpha, len(registers))
        self.clusters = _clusters(attempts)
        self._advance()
        usage = self._ask(missing, plan)
        return self._finish(plan, usage)

    def _plan(self) -> Plan:
        """Draw what will be asked, spend the look, show the commitment and write it all down; or read it back."""
        spent = [look for name, look in looks(self.ledger, self.paper.name) if look.run == self.run]
        if spent and spent[0].alpha <= 0:
            raise RunError(f"Sitting {self.run} took a look that was over the paper's budget; it cannot go on")
        begun = self.ledger.records(self.run, "plan")
        if begun:
            check_files(self.paper)
            self.alpha = spent[0].alpha if spent else self.paper.alpha
            self.seen = seen_in_training(self.ledger, self.folder, self.paper)
            return Plan.from_json(begun[-1].payload)
        if self.drawn is None:  # it ended before its plan was written
            self.draw(spent[0].number if spent else None)
        assert self.drawn is not None
        number, plan = self.drawn
        look = spent[0] if spent else spend_look(self.ledger, self.run, self.paper, self.seat.name)
        if look and look.number != number:  # somebody else looked meanwhile
            plan, number = self._drawn(look.number), look.number
        self.alpha = look.alpha if look else self.paper.alpha
        shown = commitment(self._secret(), to_toml(self.paper)) if look and self.config.items_of is None else None
        if look:
            allowed = f" of {look.allowed}" if look.allowed else ""
            self.progress.note(f"Look {number}{allowed} at the sealed paper {self.paper.name!r}")
            if shown:
                self.progress.note(f"Commitment to its items: {shown}")
        for line in shortfall_lines(plan):
            self.progress.note(line)
        told = {"commitment": shown, "look": number, "alpha": self.alpha, "items_of": self.config.items_of}
        files = {family.env: family.sha256 for family in self.paper.families if family.sha256}
        told |= {"content_hash": self.paper.content_hash, "files": files}
        self.ledger.append(self.run, "plan", {**plan.to_json(), **told})
        return plan

    def _secret(self) -> str:
        return secret_in(secrets_folder(self.folder), self.paper.name) if self.paper.sealed else ""

    def _drawn(self, look: int) -> Plan:
        """Return the items of a look, or those of the sitting that `items_of` names.

        Raises: RunError if there are none, or scarce ones are not those of earlier looks.
        """
        plan = self._items_of() or make_plan(
            self.paper,
            secret=self._secret(),
            look=look,
            seen=self.seen,
            asked_before=self.asked_before,
            public=self.config.public,
        )
        check_plan(plan, self.paper)
        check_scarce(self.ledger, self.paper, plan)
        return plan

    def _items_of(self) -> Plan | None:
        if self.config.items_of is None:
            return None
        other = self.ledger.run(self.config.items_of)
        plans = self.ledger.records(other.id, "plan")
        if other.kind != "exam" or not plans:
            raise ConfigError(f"{other.id} is no sitting with items; see the sittings: foretaste runs --kind exam")
        if plans[-1].payload["content_hash"] != self.paper.content_hash:
            files = plans[-1].payload.get("files") or {}
            for family in self.paper.families:
                if files.get(family.env, family.sha256) != family.sha256:
                    raise ConfigError(
                        f"The file of {family.env} has changed since {other.id} asked its items; put the old file back "
                        "to compare on them, or leave --items-of out"
                    )
            raise ConfigError(f"{other.id} sat another paper than {self.paper.name!r}; name the paper that it sat")
        plan = Plan.from_json(plans[-1].payload)
        render = Renderer()  # the plan may be of a version that named items by their texts alone
        bases = {item.cluster: item for item in plan.items}.values()
        marks = [{item.hash, item_hash(render(item.env, item.level, item.seed))} for item in bases]
        shown = sum(not self.seen.isdisjoint(names) for names in marks)
        if shown:
            raise ConfigError(
                f"{shown} items of {other.id} were trained on since; a comparison on them would mean nothing. "
                "Leave --items-of out, for fresh items"
            )
        return plan

    def _ask(self, missing: list[Attempt], plan: Plan) -> dict[str, Any]:
        """Play what is missing; write each answer, and at the end what was used."""
        self.waiting = {task_of(attempt).sample_seed: attempt for attempt in missing}
        hashes = planned_hashes([*plan.items, *plan.public])
        pools = Pools(self.config.examples, hashes)
        total = len(missing)
        render = Renderer()
        self.progress.phase(f"{self.paper.name}: {self.seat.name}", total)
        started = time.perf_counter()
        sampled = [0, 0]
        endpoint = self.seat.policy if isinstance(self.seat.policy, Endpoint) else None

        def write(episode: Episode, failure: str | None) -> None:
            attempt = self.waiting[episode.sample_seed]
            shown = attempt.asked.hash in self.seen
            shown = shown or (bool(episode.turns) and item_hash(episode.turns[0].observation) in self.seen)
            answer = answer_of(
                attempt,
                episode,
                failure=failure,
                **_told_by(endpoint, episode),
                values=self.seat.values,
                trained_on=shown,
            )
            answer = replace(answer, expected=None if attempt.scarce else render.reference(attempt.asked))
            self.ledger.append(self.run, "answer", answer.to_json())
            sampled[0] += answer.prompt_tokens
            sampled[1] += answer.sampled_tokens
            if endpoint is not None and str(episode.sample_seed) in endpoint.unanswered:
                self.unanswered[answer.key] = answer
            else:
                self.answers[answer.key] = answer
                self._advance()
            self.progress.advance()

        def ask(attempts: list[Attempt]) -> None:
            play(
                self.seat.policy,
                (task_of(attempt) for attempt in self._until_certain(attempts)),
                pools,
                write,
                concurrent=self.config.concurrent,
                checkpoint=self.seat.checkpoint,
            )

        try:
            ask(missing)
            self._ask_again(missing, ask)
        finally:
            pools.close()
            render.close()
            used: dict[str, Any] = {"prompt_tokens": sampled[0], "completion_tokens": sampled[1]}
            if endpoint is not None:
                used = {**asdict(endpoint.usage), "sent_otherwise": endpoint.told}
                for line in endpoint.told:
                    self.progress.note(f"The endpoint did not take what was sent: {line}")
            used["seconds"] = time.perf_counter() - started
            self.ledger.append(self.run, "usage", used)
        return self._usage()

    def _ask_again(self, missing: list[Attempt], ask: Callable[[list[Attempt]], None]) -> None:
        """Ask once more where the endpoint did not answer, as long as that brings answers; then take what is left.

        Raises: ModelError if so much stays unanswered that a verdict would rest on what was easy to reach.
        """
        before = None
        while self.unanswered and len(self.unanswered) != before:
            before = len(self.unanswered)
            self.progress.note(f"The endpoint gave up {before} requests; they are asked again")
            waiting = [attempt for attempt in missing if attempt.key in self.unanswered]
            self.unanswered = {}
            ask(waiting)
        if len(self.unanswered) > MOST_UNANSWERED * len(missing):
            first = next(iter(self.unanswered.values()))
            raise ModelError(
                f"{self.seat.name} gave up {len(self.unanswered)} of {len(missing)} requests, asked at least twice; "
                f"the first: {first.error}"
            )
        self.answers |= self.unanswered
        self._advance()

    def _until_certain(self, missing: list[Attempt]) -> Iterator[Attempt]:
        """Yield attempts until the verdict is certain, if that ends the sitting; of the twin then no more either.

        Scarce families are asked to the end: their mechanism compares the same items at every look. A sitting on the
        items of another has no verdict to stop at.
        """
        stops = self.config.stop_early and self.config.items_of is None
        for attempt in missing:
            if attempt.scarce or not (stops and self.judge.certain):
                yield attempt

    def _advance(self) -> None:
        """Hand the judge every next base item whose wordings are all answered, in the plan's order."""
        while self.judged < len(self.clusters):
            keys = self.clusters[self.judged]
            if any(key not in self.answers for key in keys):
                return
            answers = [self.answers[key] for key in keys]
            self.judge.add({answer.register: answer.score for answer in answers})
            self.judged += 1

    def _usage(self) -> dict[str, Any]:
        """Return what all attempts of this sitting used, and its cost where prices are known."""
        used, answered = (self.ledger.records(self.run, kind) for kind in ("usage", "answer"))
        total: Counter[str] = Counter()
        for record in used:
            total.update({name: value for name, value in record.payload.items() if isinstance(value, int | float)})
        usage: dict[str, Any] = dict(total)
        # Each answer carries its own count, so that a killed sitting lacks none; older ones have the totals alone.
        for name, of in (("prompt_tokens", "prompt_tokens"), ("completion_tokens", "sampled_tokens")):
            counted = sum(record.payload.get(of, 0) for record in answered)
            usage[name] = max(total[name], counted)
        if told := {line for record in used for line in record.payload.get("sent_otherwise", ())}:
            usage["sent_otherwise"] = sorted(told)
        if self.config.price_in is not None or self.config.price_out is not None:
            prices = (self.config.price_in or 0.0, self.config.price_out or 0.0)
            usage["cost"] = (usage["prompt_tokens"] * prices[0] + usage["completion_tokens"] * prices[1]) / 1e6
        return usage

    def _finish(self, plan: Plan, usage: dict[str, Any]) -> Sitting:
        answers = list(self.answers.values())
        found = results(self.paper, answers, floors=_floors(plan))
        found["scarce"] = release_scarce(self.ledger, self.run, self.paper, answers, self.folder)
        found["replaced"], found["shortfalls"] = plan.replaced, plan.shortfalls
        found["stopped_early"] = self.judged < len(self.clusters)
        found["planned_items"] = len(self.clusters)
        verdict = self.judge.verdict()
        if self.config.items_of is not None:
            verdict = verdict.as_comparison()
        rows = [("sitting", found), ("verdict", verdict.to_json()), ("status", {"status": "finished"})]
        self.ledger.append_many(self.run, [(kind, payload, None) for kind, payload in rows])
        return Sitting(self.run, verdict, found, usage)


def _told_by(endpoint: Endpoint | None, episode: Episode) -> dict[str, Any]:
    """Return what an endpoint knows of an episode beyond its text: whether it declined, and the tokens it counted."""
    if endpoint is None:
        return {}
    key = str(episode.sample_seed)
    tokens = endpoint.spent[key, "prompt_tokens"], endpoint.spent[key, "completion_tokens"]
    return {"refused": key in endpoint.refused, "tokens": tokens}


def secrets_folder(runs_folder: Path) -> Path:
    """Return where the secrets of sealed papers are kept."""
    return runs_folder / "secrets"


def _clusters(attempts: list[Attempt]) -> list[list[tuple[int, int, bool]]]:
    """Return the keys that decide each base item: first samples of its wordings, sealed, not scarce."""
    found: dict[str, list[tuple[int, int, bool]]] = {}
    for attempt in attempts:
        if not attempt.public and not attempt.scarce and attempt.sample == 0:
            found.setdefault(attempt.asked.cluster, []).append(attempt.key)
    return list(found.values())


def _floors(plan: Plan) -> dict[str, Counter[str]]:
    """Count the reference answers of families with enough base items; the commonest one's share is the floor."""
    from foretaste.envs.registry import make, max_turns_of

    bases = {(item.env, item.level, item.cluster): item.seed for item in plan.items}
    sizes = Counter((env, level) for env, level, _ in bases)
    floors: dict[str, Counter[str]] = {}
    for (env, level), size in sizes.items():
        made = make(env, level=level) if size >= 20 else None
        if made is None or max_turns_of(made) != 1 or not hasattr(made.unwrapped, "oracle"):
            continue
        counter = floors.setdefault(f"{env}:{level}", Counter())
        for (name, at, _), seed in bases.items():
            if (name, at) == (env, level):
                try:
                    made.reset(seed=seed, options={"level": level})
                    counter[str(made.unwrapped.oracle())] += 1
                except Exception:
                    floors.pop(f"{env}:{level}", None)  # no reference answers: no floor
                    break
    return floors


def _resumed(ledger: Ledger, wanted: str, policy: Policy | None) -> tuple[str, Paper, SitConfig]:
    if wanted == "latest":
        sittings = ledger.runs("exam")
        if not sittings:
            raise ConfigError("There is no sitting to go on with. Start one: foretaste exam quick --policy oracle")
        info = sittings[-1]
    else:
        info = ledger.run(wanted)
    if info.kind != "exam":
        raise ConfigError(f"{info.id} is a {info.kind} run, not a sitting. See: foretaste runs --kind exam")
    _refuse_finished(ledger, info.id)
    config = from_dict(SitConfig, info.config["sitting"], where=info.id)
    if policy is None:
        check_spec(config.policy)
    return info.id, paper_from_dict(info.config["paper"]), config


def _refuse_finished(ledger: Ledger, run: str) -> None:
    if ledger.run(run).status == "finished":
        raise ConfigError(f"The sitting {run} is finished. Its page: foretaste report {run}")


def _unfinished(ledger: Ledger, paper: Paper, policy: str) -> str:
    same = [i for i in ledger.runs("exam") if i.name == paper.name and i.config.get("policy") == policy]
    if same and same[-1].status != "finished" and ledger.records(same[-1].id, "plan"):
        return (
            f"An earlier sitting is unfinished; going on with it spends no look: foretaste exam --resume {same[-1].id}"
        )
    return f"{policy} sits {paper.name}"


def _versions() -> dict[str, str]:
    """Return the versions that decide what the items are and how they are answered."""
    return {name: version(name) for name in ("foretaste", "reasoning-gym", "gymnasium", "transformers", "torch")}
