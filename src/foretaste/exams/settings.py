"""Every setting of a sitting: plain dataclasses, so that the command line reads them without importing a model."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from foretaste.errors import ConfigError


@dataclass(frozen=True, slots=True)
class SeatConfig:
    """Who answers, and how; keep all but the first the same for policies that are compared."""

    policy: str = ""
    """Who sits: `oracle`, a model's name or folder, `openai:MODEL@URL`, or module:Class of your own."""
    samples: int = 1
    """Attempts at each item in plain words; more than one tells chance from wording, and gives pass@k."""
    temperature: float | None = None
    """None: 0 (the likeliest answer) with one sample, 1 with several."""
    max_new_tokens: int = 256
    """Tokens of one reply; a longer one is cut and counts as truncated."""
    max_context: int = 4096
    """Tokens of one episode, for models run here."""
    examples: int = 2
    """Worked examples in the prompt, by the environment's oracle."""
    concurrent: int = 16
    """Episodes at the same time."""
    timeout_seconds: float = 120.0
    """For one whole reply of an endpoint."""
    attempts: int = 6
    """Tries of one request to an endpoint."""
    pause_seconds: float = 1.0
    """First pause before an endpoint is asked again; doubles."""
    patience_seconds: float = 1800.0
    """Time without any answer before an endpoint's rate limit ends the sitting, which can be resumed."""
    extra_body: str = ""
    """JSON object added to every request to an endpoint, e.g. '{"reasoning_effort": "low"}'."""
    omit: tuple[str, ...] = ()
    """Parameters left out of requests to an endpoint, e.g. temperature. What it refuses by name is left out anyway."""
    system_in_user: bool = False
    """Send instructions in the user's message: the endpoint's model has no system role."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 ... for models run here."""

    def __post_init__(self) -> None:
        for name in ("samples", "max_new_tokens", "max_context", "concurrent", "attempts"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)} cannot be used; accepted: 1 or more")
        if self.examples < 0:
            raise ConfigError(f"examples = {self.examples} cannot be used; accepted: 0 or more")
        body_of(self.extra_body)
        for name in ("timeout_seconds", "pause_seconds", "patience_seconds"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} = {getattr(self, name)} cannot be used; accepted: more than 0")
        if self.temperature is not None and not 0 <= self.temperature <= 10:
            raise ConfigError(f"temperature = {self.temperature} cannot be used; accepted: 0 to 10")
        if self.samples > 1 and self.temperature == 0:
            raise ConfigError(
                f"samples = {self.samples} at temperature 0 would all be the same; leave temperature out, or raise it"
            )

    @property
    def sampling_temperature(self) -> float:
        """The temperature that is used."""
        if self.temperature is not None:
            return self.temperature
        return 0.0 if self.samples == 1 else 1.0


def body_of(extra_body: str) -> dict[str, Any]:
    """Return what `extra_body` adds to a request. Raises: ConfigError for text that is no JSON object."""
    if not extra_body.strip():
        return {}
    try:
        found = json.loads(extra_body)
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"extra_body = {extra_body!r} is not JSON ({error}); accepted: an object, e.g. {{}}"
        ) from None
    if not isinstance(found, dict):
        raise ConfigError(
            f"extra_body = {extra_body!r} is no JSON object; accepted: e.g. " + '{"reasoning_effort": "low"}'
        )
    return found


@dataclass(frozen=True, slots=True)
class SitConfig(SeatConfig):
    """One sitting: who answers, how, and what is asked of them."""

    public: bool = True
    """As many public items are asked in plain words, for the gap between public and sealed."""
    stop_early: bool = False
    """Stop asking as soon as the verdict is certain; no effect with items_of, which gives none."""
    items_of: str | None = None
    """Ask the items of this earlier sitting, to compare two policies item by item; gives no PASS or FAIL."""
    price_in: float | None = None
    """Price of a million prompt tokens."""
    price_out: float | None = None
    """Price of a million sampled tokens."""
