"""A language model that acts and a value function that foresees: `ActorCritic`.

`load` finds the weights (`sources.py`, `nano.py`, or a checkpoint folder), `evaluate` is the forward pass of
training: log-probabilities, entropies and values of the sampled tokens, and of no other position.
Sampling is in `sampler.py`, saving in `checkpoint.py`, the optimiser's float32 weights in `precision.py`.

Shape letters: B sequences, P shared prefix tokens, S suffix tokens, H hidden size, N action tokens of the call.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from foretaste.config import ModelConfig
from foretaste.errors import ModelError
from foretaste.models import fast_training, loading, memory, nano, trunk
from foretaste.models.conversation import ChatTemplate
from foretaste.models.critic import Critic, decoder_of
from foretaste.models.pretrained import probe
from foretaste.models.seeding import seeded
from foretaste.models.trunk import Packed, pack
from foretaste.models.value_head import ValueHead
from foretaste.records import Message

CHUNK = 256
"""Action tokens whose full-vocabulary logits exist at the same time."""


class TokenSequence(NamedTuple):
    """One training sequence; `action_mask` is True on tokens that the policy sampled."""

    tokens: Sequence[int]
    action_mask: Sequence[bool]


class Evaluation(NamedTuple):
    """Results over the action tokens of all sequences of a call, in order; float32, with gradient.

    What was not asked for (`policy=False`, `values=False`) has length 0.
    """

    logprobs_N: Tensor
    entropy_N: Tensor
    values_N: Tensor
    """Read at the position before each token, in units of return."""
    value_logits: Tensor
    """N, or N x bins with hl_gauss: what `value_loss` takes."""


class CriticInput(NamedTuple):
    """Some sequences as the critic reads them: the policy's part of the pass is done and needs no repeating."""

    packed: Packed
    entering: list[Tensor]


class ActorCritic(nn.Module):
    """The policy (a Hugging Face causal LM) and its critic, with tokenizer and chat template."""

    def __init__(self, config: ModelConfig, policy: Any, tokenizer: Any, template: ChatTemplate) -> None:
        """Grow a fresh critic on `policy`. Most callers want `load`."""
        super().__init__()
        self.config = config
        self.tokenizer = tokenizer
        self.template = _with_ends(template, policy)
        self.source = config.name
        self.critic_restored = False
        """True if the critic came from the loaded checkpoint, False if it is fresh."""
        self.critic_taught = False
        """True if the critic came from another checkpoint than the policy (`critic_from`)."""
        self.critic_ranking: list[list[float]] = []
        """How well the critic ranked unfinished episodes when last measured: rows of `rl.adapt.pairs_of`."""
        head = ValueHead(policy.get_output_embeddings().weight.shape[1], config.value_head, config.value_range)
        self.critic = Critic(decoder_of(policy), config.critic_layers, head)
        self.policy = loading.with_lora(policy, config.lora_rank) if config.lora_rank else policy

    @classmethod
    def load(cls, config: ModelConfig, *, seed: int = 0) -> ActorCritic:
        """Load the policy that `config.name` names, and its critic if the folder holds one of the same shape.

        With `config.critic_from` the critic comes from there. `seed` draws nano's weights and the value head's.

        Raises: ModelError, saying which part cannot be used.
        """
        memory.keep_pages()
        device = loading.device(config.device)
        with seeded(seed):
            policy, tokenizer, folder = loading.policy(config, seed)
            torch.manual_seed(seed)  # only now: fetching and converting a model for the first time draws numbers too
            model = cls(config, policy.to(device), tokenizer, ChatTemplate(tokenizer))
        if config.name not in nano.SHAPES:
            model._check_template()
            probe.check(model)
        card = loading.saved_card(folder) if folder is not None else None
        if folder is not None and card is not None:
            model.source = card["model"]
            model._restore_critic(folder)
        if config.critic_from is not None:
            model.critic_ranking = loading.take_critic(model.critic, config)
            model.critic_restored = model.critic_taught = True
        return model.eval()

    @property
    def language_model(self) -> Any:
        """The causal LM itself, LoRA layers inside it if there are any."""
        return self.policy.get_base_model() if hasattr(self.policy, "peft_config") else self.policy

    @property
    def decoder(self) -> Any:
        """The causal LM without its output layer."""
        return decoder_of(self.language_model)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def check_tokens(self, tokens: Sequence[int]) -> None:
        """Refuse tokens that the model has no embedding for.

        Raises: ModelError that names them, and how to give them one.
        """
        rows = self.language_model.get_input_embeddings().weight.shape[0]
        if not tokens or max(tokens) < rows:
            return
        names = ", ".join(repr(self.template.piece(token)) for token in sorted({x for x in tokens if x >= rows})[:5])
        raise ModelError(
            f"The tokenizer of {self.source!r} has tokens that the model has no embedding for: {names} "
            f"(its embedding has {rows:,} rows, the tokenizer {len(self.tokenizer):,} tokens). Next: `model."
            "resize_token_embeddings(len(tokenizer))` and save both, or use a tokenizer without these tokens"
        )

    def _check_template(self) -> None:
        prompt = self.template.start([Message("user", "hi")])
        self.check_tokens([*prompt, *self.template.action("hi"), *self.template.follow("go on", ended=False)])

    def policy_parameters(self) -> list[nn.Parameter]:
        """Return the trainable weights of the policy (the adapter's alone with LoRA)."""
        return [parameter for parameter in self.policy.parameters() if parameter.requires_grad]

    def critic_parameters(self) -> list[nn.Parameter]:
        """Return the weights of the critic; none is shared with the policy."""
        return list(self.critic.parameters())

    def set_value_bias(self, mean_return: float) -> None:
        """Make the value function start near the mean return instead of near the middle of its range."""
        self.critic.head.set_bias(mean_return)

    def start_values(self, mean_return: float) -> None:
        """Set the value bias of a new critic; one that has learned, here or before it was saved, stays as it is.

        Only while the head gives hidden states next to no weight is the bias alone the value.
        """
        if self.critic.head.untouched:
            self.set_value_bias(mean_return)

    def value_loss(self, value_logits: Tensor, targets_N: Tensor, weights_N: Tensor) -> Tensor:
        """Return the weighted mean of the head's loss: cross-entropy, squared error, or HL-Gauss."""
        return self.critic.head.loss(value_logits, targets_N, weights_N)

    def evaluate(
        self,
        sequences: Sequence[TokenSequence],
        *,
        temperature: float = 1.0,
        policy: bool = True,
        values: bool = True,
    ) -> Evaluation:
        """Return log-probabilities, entropies and values of every action token.

        The prefix that all sequences share is computed once, with gradient. The gradient of the values
        reaches the critic only. With `policy=False` the policy runs without gradient, only as deep as the
        critic needs it. The caller bounds memory by the number of sequences of a call.

        Raises: ModelError for an action token at position 0 (nothing comes before it).
        """
        packed = self._pack(sequences)
        empty = torch.zeros(0, device=self.device)
        if packed.rows_N.numel() == 0:
            return Evaluation(empty, empty, empty, empty)
        path = self._path(packed)
        hidden_NH, entering = path.run_policy(self, packed, policy=policy, values=values)
        logprobs, entropy = (
            (empty, empty) if hidden_NH is None else self._score(hidden_NH, packed.targets_N, temperature)
        )
        predicted, value_logits = self.criticise(CriticInput(packed, entering)) if values else (empty, empty)
        return Evaluation(logprobs, entropy, predicted, value_logits)

    @torch.no_grad()
    def critic_input(self, sequences: Sequence[TokenSequence]) -> CriticInput:
        """Return what the critic reads of these sequences; it stays valid while the policy does not change.

        Every sequence must hold an action token.
        """
        packed = self._pack(sequences)
        return CriticInput(packed, self._path(packed).run_policy(self, packed, policy=False, values=True)[1])

    def criticise(self, given: CriticInput) -> tuple[Tensor, Tensor]:
        """Return the values of every action token, in units of return, and the head's logits, with gradient."""
        value_logits = self.critic.head(self._path(given.packed).run_critic(self, given.packed, given.entering))
        return self.critic.head.value(value_logits), value_logits

    def _pack(self, sequences: Sequence[TokenSequence]) -> Packed:
        for sequence in sequences:
            self.check_tokens(sequence.tokens)
        return pack(sequences, self.device)

    def _path(self, packed: Packed) -> Any:
        return fast_training if fast_training.supports(self, packed.mask_BT.shape[1]) else trunk

    def logits(self, hidden_NH: Tensor) -> Tensor:
        """Return next-token logits of final hidden states, in the model's own precision."""
        model = self.language_model
        logits = model.get_output_embeddings()(hidden_NH)
        config = self.decoder.config
        cap = getattr(config, "final_logit_softcapping", None)
        if cap:
            logits = torch.tanh(logits / cap) * cap
        scaling = getattr(config, "logits_scaling", None)
        scale = getattr(config, "logit_scale", None)
        return logits / scaling if scaling else logits * scale if scale else logits

    def _score(self, hidden_NH: Tensor, targets_N: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        """Log-probabilities and entropies in chunks; each chunk's logits are recomputed for its gradient."""
        if fast_training.supports(self) and fast_training.scores(self):
            return fast_training.score(self, hidden_NH, targets_N, temperature)
        parts = [
            checkpoint(self._score_chunk, hidden, targets, temperature, use_reentrant=False, preserve_rng_state=False)
            for hidden, targets in zip(hidden_NH.split(CHUNK), targets_N.split(CHUNK), strict=True)
        ]
        logprobs, entropies = zip(*parts, strict=True)  # pyright: ignore[reportArgumentType]
        return torch.cat(logprobs), torch.cat(entropies)

    def _score_chunk(self, hidden_NH: Tensor, targets_N: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        log_NV = torch.log_softmax(self.logits(hidden_NH).float() / temperature, dim=-1)
        logprobs_N = log_NV.gather(-1, targets_N[:, None]).squeeze(-1)
        return logprobs_N, -(log_NV.exp() * log_NV).sum(-1)

    def _restore_critic(self, folder: Path) -> None:
        """Load the critic saved in a checkpoint folder if its shape is the configured one."""
        saved = loading.saved_config(folder)
        if saved is None:
            return
        if loading.critic_differences(saved, self.config):
            return
        loading.load_critic(self.critic, folder)
        self.critic_restored = True

    def extra_repr(self) -> str:
        """Show the settings when printed."""
        return str(dataclasses.asdict(self.config))


def _with_ends(template: ChatTemplate, policy: Any) -> ChatTemplate:
    """Return the template with the end tokens of the model's generation settings, and give them the template's.

    Whoever serves a checkpoint reads these settings, and must stop where the policy has learned to.
    """
    settings = getattr(policy, "generation_config", None)
    if settings is None:
        return template
    declared = settings.eos_token_id
    ends = [] if declared is None else list(declared) if isinstance(declared, list | tuple) else [declared]
    template = template.ending_also_at(ends)
    if not template.end_ids <= set(ends):
        settings.eos_token_id = sorted(template.end_ids)
    return template
