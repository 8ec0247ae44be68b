"""Who sits an exam: a name becomes a policy in its seat, with what must be known of it afterwards.

oracle              the environments' own scripted solvers: what is solvable
openai:MODEL@URL    any OpenAI-compatible endpoint
module:Class        your own `Policy`: a class without arguments, or an object
anything else       a model: a foretaste checkpoint, a Hugging Face folder or name, smollm2-135m, nano
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from foretaste.errors import ConfigError
from foretaste.exams.endpoint import Endpoint, parse_endpoint
from foretaste.exams.settings import SeatConfig, body_of
from foretaste.records import Policy
from foretaste.rl.rollout import Oracle

_OBJECT = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(slots=True)
class Seat:
    """A policy, and what a reader of its result must know."""

    policy: Policy
    name: str
    checkpoint: str | None = None
    """Content id of its weights, where it has any here."""
    values: bool = False
    """True if it has a trained value function."""
    provenance: dict[str, Any] = field(default_factory=dict)

    def close(self) -> None:
        """Close connections, if there are any."""
        if isinstance(self.policy, Endpoint):
            self.policy.close()


def take_seat(spec: str, config: SeatConfig) -> Seat:
    """Return the policy that `spec` names, ready to answer.

    Raises: ConfigError or ModelError for a name that is none, before anything was spent.
    """
    if spec == "oracle":
        return Seat(Oracle(), "oracle", provenance={"solver": "scripted, of each environment"})
    if spec.startswith("openai:"):
        return _endpoint(spec, config)
    if _OBJECT.fullmatch(spec) and not Path(spec).exists():
        return _own(spec)
    return _model(spec, config)


def check_spec(spec: str) -> None:
    """Refuse a policy's name that cannot be one, without loading anything."""
    if not spec:
        raise ConfigError(
            "Name who sits the exam: --policy oracle, smollm2-135m, nano, a checkpoint folder, openai:MODEL@URL ..."
        )
    if spec.startswith("openai:"):
        parse_endpoint(spec)


def _endpoint(spec: str, config: SeatConfig) -> Seat:
    endpoint = Endpoint.parse(
        spec,
        temperature=config.sampling_temperature,
        max_new_tokens=config.max_new_tokens,
        concurrent=config.concurrent,
        timeout_seconds=config.timeout_seconds,
        attempts=config.attempts,
        pause_seconds=config.pause_seconds,
        patience_seconds=config.patience_seconds,
        extra_body=body_of(config.extra_body),
        omit=config.omit,
        system_in_user=config.system_in_user,
    )
    return Seat(endpoint, endpoint.name, provenance={"model": endpoint.config.model, "url": endpoint.config.url})


def _own(spec: str) -> Seat:
    from foretaste.envs.registry import load_object

    found = load_object(spec, f"policy {spec!r}")
    policy = found() if isinstance(found, type) else found
    if not callable(getattr(policy, "act", None)):
        raise ConfigError(f"{spec!r} is no policy: it needs a method act(conversations) -> list of Action")
    return Seat(policy, str(getattr(policy, "name", spec)), provenance={"class": spec})


def _model(spec: str, config: SeatConfig) -> Seat:
    from foretaste.config import ModelConfig, SamplingConfig
    from foretaste.models import checkpoint, sources
    from foretaste.models.actor_critic import ActorCritic
    from foretaste.models.loading import CARD_FILE
    from foretaste.models.sampler import Sampler

    folder = Path(spec).expanduser()
    trained = (folder / CARD_FILE).is_file()
    if trained:
        model = checkpoint.load(folder, device=config.device)
    else:
        model = ActorCritic.load(ModelConfig(name=spec, device=config.device, critic_layers=1))
    sampling = SamplingConfig(
        temperature=config.sampling_temperature,
        max_new_tokens=config.max_new_tokens,
        concurrent=config.concurrent,
        max_context=config.max_context,
    )
    where = None if spec == "nano" else Path(sources.resolve(spec))
    identity = checkpoint.content_id(where) if where is not None and where.is_dir() else None
    return Seat(
        Sampler(model, sampling),
        spec,
        checkpoint=identity,
        values=trained and model.critic_restored,
        provenance={
            "model": model.source,
            "weights": identity or "random (nano)" if spec == "nano" else identity or spec,
            "architecture": type(model.language_model).__name__,
            "dtype": str(next(model.policy.parameters()).dtype).removeprefix("torch."),
            "device": str(model.device),
            "template": _template(model.tokenizer),
        },
    )


def _template(tokenizer: Any) -> str:
    """Return what names the chat template: the first digits of its SHA-256."""
    import hashlib

    text = getattr(tokenizer, "chat_template", None)
    return f"chat template {hashlib.sha256(str(text).encode()).hexdigest()[:12]}" if text else "no chat template"
