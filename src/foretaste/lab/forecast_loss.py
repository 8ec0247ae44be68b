"""`forecast`: small decoders forecast the imitation loss of a run with ten times the compute, which is then made.

Each seed has weights, demonstrations and held-out demonstrations of its own. A grid of decoder sizes N and amounts of
demonstrations D is trained in one pass each and L(N, D) fitted to it (`scaling_loss.py`); the last arm is the larger
run, which no fit ever sees. The same runs can be fitted by hand: `foretaste lab fit RUN`, with the id of the study's
run.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy as np

from foretaste.config import AlgorithmConfig, EnvConfig, ModelConfig, TrainConfig, from_dict
from foretaste.envs.seeds import seed_for
from foretaste.lab.charts import Picture, Series
from foretaste.lab.jobs import Context
from foretaste.lab.results import Results
from foretaste.lab.scaling import Fit, Forecast
from foretaste.lab.scaling_loss import LossPoint, fit_loss
from foretaste.lab.sequences import Bounds, exactly
from foretaste.lab.study import Arm, Expectation, Plan, Study
from foretaste.models.nano import Shape

WORK = "foretaste.lab.forecast_loss:copy_once"
MADE = "ten times larger"
LAW, AS_BEFORE = "L(N, D)", "no change"
BATCH = 4
"""Demonstrations of one optimiser step."""
VOCABULARY = 1024
"""Of nano's tokenizer."""
RATE = 6e-3
"""Peak learning rate of the smallest decoder; wider ones take less, as 1 / sqrt(width)."""
REFITS = 40
"""Bootstrap refits behind an interval; each costs about a quarter of a second."""


class Size(NamedTuple):
    """One run: which decoder, and how many demonstrations it copies once."""

    shape: Shape
    demonstrations: int

    @property
    def name(self) -> str:
        """Short, for arms and tables."""
        return f"width {self.shape.width}, layers {self.shape.layers}, {self.demonstrations:,} demonstrations"


def copy_once(arguments: dict[str, Any], context: Context) -> dict[str, Any]:
    """Copy fresh demonstrations, each once; return parameters N, tokens D and the loss on held-out demonstrations.

    N: all weights of the decoder, the tied embedding counted once. D: tokens copied, the environment's included. Loss:
    mean negative log-likelihood of a token. The run enters the ledger with a record of kind `supervised`.
    """
    import torch

    from foretaste.ledger import Ledger
    from foretaste.models import nano
    from foretaste.models.actor_critic import ActorCritic, TokenSequence
    from foretaste.models.conversation import ChatTemplate
    from foretaste.rl.imitate import demonstration
    from foretaste.rl.rollout import EnvPool
    from foretaste.rl.update import Updater

    config, options = from_dict(TrainConfig, arguments["config"]), arguments["options"]
    shape, words, pool = Shape(*options["shape"]), nano.tokenizer(), EnvPool(config.env)
    template, env = ChatTemplate(words), pool.instance()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)  # the critic, which learns nothing here, is drawn as well
        model = ActorCritic(config.model, nano.decoder(config.seed, shape), words, template)
    updater = Updater(model, config.algorithm, temperature=1.0)

    def drawn(purpose: str, first: int, count: int) -> list[TokenSequence]:
        """Return demonstrations of fresh items, every token but the first one to be learned."""
        seeds = [seed_for("train", first + i, secret=f"{purpose} {config.seed}") for i in range(count)]
        played = [demonstration(env, pool.prompt, template, seed, config.env.level, "plain") for seed in seeds]
        return [TokenSequence(one.tokens, [False] + [True] * (len(one.tokens) - 1)) for one in played]

    steps = math.ceil(options["demonstrations"] / BATCH)
    tokens = 0
    for step in range(steps):
        batch = drawn("copied", step * BATCH, min(BATCH, options["demonstrations"] - step * BATCH))
        tokens += sum(sum(sequence.action_mask) for sequence in batch)
        updater.imitate(batch, learning_rate=options["rate"] * schedule(step, steps))
        if step % 40 == 0:
            context.report(step / steps, f"{tokens:,} tokens copied")
    held_out = drawn("held out", 0, options["held_out"])
    with torch.no_grad():
        chunks = [held_out[i : i + 16] for i in range(0, len(held_out), 16)]
        logprobs_N = torch.cat([model.evaluate(chunk, values=False).logprobs_N for chunk in chunks])
    measured = {
        "parameters": sum(weight.numel() for weight in model.policy_parameters()),
        "tokens": tokens,
        "loss": -float(logprobs_N.double().mean()),
    }
    with Ledger.open(context.folder) as ledger:
        run = ledger.start_run("supervised", f"forecast {config.env.id}", arguments["config"] | {"options": options})
        ledger.append(run, "supervised", measured)
        ledger.append(run, "status", {"status": "finished"})
    return {"run": run, **measured}


def schedule(step: int, steps: int) -> float:
    """Return the factor on the learning rate: a linear rise over a twentieth of the steps, then half a cosine to 0.1.

    The fall must end with the run, whatever its length: a law fitted to losses in mid-schedule is bent (2203.15556).
    """
    rise = max(1.0, steps / 20)
    return min(1.0, (step + 1) / rise) * (0.55 + 0.45 * math.cos(math.pi * step / steps))


# What is forecast -----------------------------------------------------------------------------------


class Checked(NamedTuple):
    """A seed's forecast beside the run that was then made."""

    fitted: tuple[LossPoint, ...]
    fit: Fit
    forecast: Forecast
    made: LossPoint

    @property
    def largest(self) -> LossPoint:
        """The fitted run with the most compute; that its loss stays is what "no change" forecasts."""
        return max(self.fitted, key=lambda point: point.parameters * point.tokens)

    @property
    def error(self) -> float:
        """|forecast - made| / made."""
        return abs(self.forecast.value - self.made.loss) / self.made.loss

    @property
    def inside(self) -> bool:
        """Whether the made loss lies in the forecast's interval."""
        return self.forecast.covers(self.made.loss)


@functools.lru_cache(maxsize=64)
def _fit(fitted: tuple[LossPoint, ...]) -> Fit:
    return fit_loss(fitted, refits=REFITS)


def checked(fitted: tuple[LossPoint, ...], made: LossPoint) -> Checked:
    """Fit the law to the small runs, and hold its forecast against the made one."""
    fit = _fit(fitted)
    return Checked(fitted, fit, fit.at(made.parameters, made.tokens, new_run=True), made)


def forecasts(results: Results) -> dict[int, Checked]:
    """Return the forecast of every seed whose runs all have a result."""
    found = {}
    for seed in results.seeds:
        points = {arm: result for arm in results.arms if (result := results.result(arm, seed))}
        if len(points) == len(results.arms):
            laid = {a: LossPoint(r["parameters"], r["tokens"], r["loss"]) for a, r in points.items()}
            found[seed] = checked(tuple(point for arm, point in laid.items() if arm != MADE), laid[MADE])
    return found


def effects(results: Results, expectation: Expectation) -> dict[int, Bounds]:
    """Return each seed's error of the law, of it less that of "no change", or whether the loss lay in the interval."""
    found = {}
    for seed, one in forecasts(results).items():
        value = float(one.inside) if expectation.metric == "inside" else one.error
        if expectation.baseline is not None:
            value -= abs(one.largest.loss - one.made.loss) / one.made.loss
        found[seed] = exactly(value)
    return found


def rows(results: Results) -> list[dict[str, Any]]:
    """Return one row a seed: what was forecast, and what came."""
    return [
        {
            "seed": seed,
            "compute, times the largest fitted": made_times(one),
            "loss there": one.largest.loss,
            "forecast": one.forecast.value,
            "low": one.forecast.low,
            "high": one.forecast.high,
            "made": one.made.loss,
            "error": one.error,
            "inside": "yes" if one.inside else "no",
            **{name: one.fit.interval(name).value for name in ("E", "a", "b")},
        }
        for seed, one in forecasts(results).items()
    ]


def made_times(one: Checked) -> float:
    """Return the compute of the made run over that of the largest fitted one, as the ratio of N D."""
    return one.made.parameters * one.made.tokens / (one.largest.parameters * one.largest.tokens)


def picture(results: Results) -> Picture:
    """Draw losses against compute 6 N D: the runs of all seeds, and the first seed's forecast on its way."""
    found = list(forecasts(results).values())
    series = [
        Series("fitted", [[_at(point) for one in found for point in one.fitted]], dots=True),
        Series("made", [[_at(one.made) for one in found]], dots=True),
    ]
    if found:
        one = found[0]
        largest = one.largest
        way = np.linspace(0.0, 1.0, 12)
        sizes = [
            (
                largest.parameters ** (1 - share) * one.made.parameters**share,
                largest.tokens ** (1 - share) * one.made.tokens**share,
            )
            for share in way
        ]
        ahead = [(6 * n * d, one.fit.at(n, d, new_run=True)) for n, d in sizes]
        band = [(c, each.low, each.high) for c, each in ahead]
        series.append(Series("forecast of the first seed", [[(c, each.value) for c, each in ahead]], band=band))
    title = "forecast of a tenfold larger run, and what came"
    return Picture(title, "compute 6 N D", "loss on held-out demonstrations", tuple(series), log_x=True)


def _at(point: LossPoint) -> tuple[float, float]:
    return 6 * point.parameters * point.tokens, point.loss


# The grid -------------------------------------------------------------------------------------------

WIDTHS = (16, 24, 32, 48)
LARGE = 96
LAYERS = 2


def shape(width: int) -> Shape:
    """Return the decoder of a width; nothing but the width differs between sizes."""
    return Shape(width, 5 * width // 2, LAYERS, 2, 2)


def weights(size: Shape) -> int:
    """Return the weights of a decoder of this shape, its tied embedding counted once."""
    width, head = size.width, size.width // size.heads
    attention = 2 * width * width + 2 * width * head * size.key_heads
    return VOCABULARY * width + size.layers * (attention + 3 * width * size.inner + 2 * width) + width


def _plan(widths: tuple[int, ...], demonstrations: tuple[int, ...], seeds: tuple[int, ...], minutes: float) -> Plan:
    """Return a grid of sizes, and one run with ten times the compute N D of its largest."""
    most = 10 * weights(shape(widths[-1])) * demonstrations[-1] / weights(shape(LARGE))
    sizes = {Size(shape(w), d).name: Size(shape(w), d) for d in demonstrations for w in widths}
    sizes[MADE] = Size(shape(LARGE), round(most))
    arms = {}
    for name, size in sizes.items():
        options = {"shape": list(size.shape), "demonstrations": size.demonstrations, "held_out": 200}
        arms[name] = Arm(CONFIG, WORK, {**options, "rate": RATE * math.sqrt(widths[0] / size.shape.width)})
    return Plan(arms, seeds=seeds, token_budget=1, minutes=minutes)


CONFIG = TrainConfig(
    env=EnvConfig("extract", examples=0, instructions=False),
    model=ModelConfig("nano-xs", critic_layers=1),
    algorithm=AlgorithmConfig(microbatch_tokens=8192),
)
"""The environment; of the model, only the shape named in an arm's options is used."""

STUDY = Study(
    name="forecast",
    claim=(
        "Fitted to runs of small decoders, L(N, D) forecasts the loss of a run with ten times the compute of the "
        "largest within 10%, and better than to say that it stays as it was"
    ),
    source="is this scaling, or a waste of compute? The law is that of Hoffmann et al. 2203.15556",
    expectations=(
        Expectation("error", LAW, None, size=0.10, direction="at_most"),
        Expectation("error", LAW, AS_BEFORE, size=0.0, direction="at_most"),
        Expectation("inside", LAW, None, size=0.8, center="bounded", bounds=(0.0, 1.0), required=False),
    ),
    quick=_plan(WIDTHS, (96, 192, 384), (1, 2), 3),
    full=_plan(WIDTHS, (384, 768, 1536, 3072), (1, 2, 3, 4, 5), 12),
    effects=effects,
    rows=rows,
    picture=picture,
    notes=(
        "Error: |forecast - made| / made, mean over seeds, each with weights and demonstrations of its own.",
        "Loss is that of whole demonstrations, the environment's words included, on fresh items of the same kind.",
        "Every run copies each of its demonstrations once and ends its own fall of the learning rate; batch and peak "
        "rate were chosen on other seeds, the same for all sizes but for 1 / sqrt(width).",
        "inside: whether the made loss lay in the 95% interval for one new run; so few seeds cannot show a coverage.",
    ),
)
