"""Which architectures can be trained, told from their settings alone: before any weights are read.

`probe.py` asks the loaded model the rest.
"""

from __future__ import annotations

from typing import Any

from foretaste.errors import ModelError

ATTENTION = frozenset({"full_attention", "sliding_attention", "chunked_attention", "minimax_m3_sparse"})
"""Kinds of layers (`layer_types`) whose past is keys and values, token by token, so that it can be shared and cut."""
_NEXT = (
    "Accepted: causal language models of attention layers, such as Llama, Qwen2, Qwen3, Gemma, Mistral, GPT-2, OLMo."
)


def check(config: Any, name: str) -> None:
    """Refuse a configuration of transformers that cannot be trained.

    Raises: ModelError that names the cause and the next step.
    """
    text = config.get_text_config(decoder=True)
    _check_numbers(config, text, name)
    kinds = {
        str(kind) for kind in (getattr(text, "layer_types", None) or getattr(text, "layers_block_type", None) or [])
    }
    other = sorted({"recurrent" if kind == "linear_attention" else kind for kind in kinds - ATTENTION})
    if other or _recurrent(config):
        raise ModelError(
            f"Model {name!r} ({config.model_type}) has layers that are no plain attention "
            f"({', '.join(other) or 'recurrent'}). "
            "They keep a running state in place of keys and values, which cannot be shared between conversations or "
            f"taken back to an earlier token. {_NEXT}"
        )
    if getattr(text, "num_kv_shared_layers", None):
        raise ModelError(
            f"Model {name!r} ({config.model_type}) has {text.num_kv_shared_layers} layers that read keys and values "
            f"of earlier layers, so a critic of its last layers cannot be grown. {_NEXT}"
        )


def _check_numbers(config: Any, text: Any, name: str) -> None:
    """Refuse quantised weights: they cannot be learned, and rounded ones are another policy than is saved."""
    found = [
        settings
        for one in (config, text)
        for key in ("quantization_config", "compression_config")
        if (settings := getattr(one, key, None))
    ]
    if not found:
        return
    settings = found[0] if isinstance(found[0], dict) else found[0].to_dict()
    method = settings.get("quant_method") or next(
        (key for key in settings if str(key).startswith("load_in_")), "unnamed"
    )
    raise ModelError(
        f"Model {name!r} is quantised (quantization_config in config.json: {method}); such weights cannot be trained. "
        "Accepted: weights of float32, bfloat16 or float16. Next: name the model's original, or save it again after "
        "`model.dequantize()` of transformers"
    )


def _recurrent(config: Any) -> bool:
    """True if transformers says of the model's class that its state is more than keys and values."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    try:
        kind: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    except KeyError:  # a class of the model's own folder, or no language model
        return False
    return bool(getattr(kind, "_is_stateful", False))
