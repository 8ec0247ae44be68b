"""`think`: does V choose better than a vote or the likelihood, at what cost in tokens?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from foretaste.config import TrainConfig, from_dict
from foretaste.lab.cells import Cell, lock_base
from foretaste.lab.jobs import Context, train_arm
from foretaste.lab.methods import method
from foretaste.lab.results import Results
from foretaste.lab.study import Arm, Expectation, Plan, Study

CELL = Cell(5, "late", 10)
WORK = "foretaste.lab.think:train_and_think"


def train_and_think(arguments: dict[str, Any], context: Context) -> dict[str, Any]:
    """Train, then try held-out items with every method; return accuracy and tokens of each."""
    from foretaste.ledger import Ledger
    from foretaste.models.checkpoint import load
    from foretaste.rl.think import METHODS, Budget, think

    trained = train_arm({"config": arguments["config"]}, context)
    config = from_dict(TrainConfig, arguments["config"])
    with Ledger.open(context.folder) as ledger:
        path = ledger.records(trained["run"], "checkpoint")[-1].payload["path"]
    model, options, seed = load(path), arguments["options"], config.held_out.seed
    result: dict[str, Any] = {name: trained[name] for name in ("success_after", "sampled_tokens", "train_seconds")}
    for number, name in enumerate(METHODS):
        context.report(number / len(METHODS), f"think: {name}")
        budget = Budget(n=options["n"])
        found = think(model, config.env, config.sampling, method=name, items=options["items"], budget=budget, seed=seed)
        interval = found.interval
        result[f"solved:{name}"] = interval.mean if interval else None
        result[f"tokens:{name}"] = found.tokens_per_item
    result["best_over_baselines"] = ahead(result, "best", "vote", "likelihood")
    result["beam_over_baselines"] = ahead(result, "beam", "vote", "likelihood")
    result["restart_over_one"] = ahead(result, "restart", "one")
    result["restart_token_share"] = result["tokens:restart"] / max(1.0, result["tokens:best"])
    return result


def ahead(result: dict[str, Any], ours: str, *others: str) -> float | None:
    """Return a method's accuracy less that of the best of others; None if one of them could not be judged."""
    solved = [result[f"solved:{name}"] for name in (ours, *others)]
    return None if None in solved else solved[0] - max(solved[1:])


def _arm(cell: Cell, n: int, items: int) -> Arm:
    def config(seed: int) -> TrainConfig:
        made = method("value", lock_base(cell, seed))
        return replace(made, held_out=replace(made.held_out, items=32, every=0))

    return Arm(config, WORK, {"n": n, "items": items})


def rows(results: Results) -> list[dict[str, Any]]:
    """Return one row a method and arm: mean solved and tokens over seeds."""
    found = []
    for arm in results.arms:
        done = [result for seed in results.seeds if (result := results.result(arm, seed))]
        for key in done[0] if done else ():
            kind, _, name = key.partition(":")
            if kind == "solved":
                solved = [result[key] for result in done if result[key] is not None]
                tokens = [result[f"tokens:{name}"] for result in done]
                found.append(
                    {
                        "arm": arm,
                        "method": name,
                        "seeds": len(done),
                        "solved": sum(solved) / len(solved) if solved else None,
                        "tokens_per_item": sum(tokens) / len(tokens),
                    }
                )
    return found


def _plan(sizes: dict[str, tuple[int, int]], seeds: tuple[int, ...], budget: int, minutes: float) -> Plan:
    arms: dict[str, Callable[[int], TrainConfig] | TrainConfig | Arm] = {
        name: _arm(CELL, n, items) for name, (n, items) in sizes.items()
    }
    return Plan(arms, seeds=seeds, token_budget=budget, minutes=minutes, max_steps=2000)


STUDY = Study(
    name="think",
    claim="Of the same attempts, V's pick succeeds more often than a vote's or the likeliest, by at least 0.05",
    source="a value function chooses at inference too; best-of-n and majority vote are the usual ways",
    expectations=(
        Expectation("best_over_baselines", "n=8", None, size=0.05),
        Expectation("beam_over_baselines", "n=8", None, size=0.05, required=False),
        Expectation("restart_token_share", "n=8", None, size=0.8, direction="at_most", required=False),
    ),
    quick=_plan({"n=8": (8, 40)}, (1, 2, 3, 4), 4_000, 3),
    full=_plan({"n=4": (4, 100), "n=8": (8, 100)}, (6, 7, 8, 9, 10), 5_000, 5),
    rows=rows,
    notes=(
        "On an interactive task the last answer says little, so a vote is a weak baseline there.",
        "The budget stops training half-way on purpose: a policy that always or never succeeds leaves nothing to pick.",
    ),
)
