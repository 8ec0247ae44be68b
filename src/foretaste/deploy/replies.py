"""The learner's answers in the shapes of OpenAI's API: one completion, or a stream of events."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from foretaste.deploy.records import LearnerAnswer


def model_name(checkpoint: str) -> str:
    """Return the model's name in answers: weights are named by their content, so a name never means two of them."""
    return checkpoint if checkpoint in ("person", "scripted") else f"foretaste-{checkpoint[:12]}"


def completion(identity: str, created: int, answer: LearnerAnswer) -> dict[str, Any]:
    """Return a chat completion."""
    message = {"role": "assistant", "content": answer.text, "refusal": None}
    return {
        "id": identity,
        "object": "chat.completion",
        "created": created,
        "model": model_name(answer.checkpoint),
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": _reason(answer)}],
        "usage": _usage(answer),
    }


def events(identity: str, created: int, answer: LearnerAnswer, *, usage: bool) -> Iterator[bytes]:
    """Yield the answer as server-sent events: the role, the text word by word, the end, the usage if it is wanted."""

    def chunk(choices: list[dict[str, Any]], **more: Any) -> bytes:
        head = {"id": identity, "object": "chat.completion.chunk", "created": created}
        values = {**head, "model": model_name(answer.checkpoint), "choices": choices, **more}
        return b"data: " + json.dumps(values).encode() + b"\n\n"

    def choice(delta: dict[str, Any], reason: str | None = None) -> list[dict[str, Any]]:
        return [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}]

    yield chunk(choice({"role": "assistant", "content": ""}))
    for piece in re.findall(r"\s*\S+|\s+$", answer.text):
        yield chunk(choice({"content": piece}))
    yield chunk(choice({}, _reason(answer)))
    if usage:
        yield chunk([], usage=_usage(answer))
    yield b"data: [DONE]\n\n"


def _reason(answer: LearnerAnswer) -> str:
    return "length" if answer.cut else "stop"


def _usage(answer: LearnerAnswer) -> dict[str, int]:
    prompt, made = answer.prompt_tokens, answer.completion_tokens
    return {"prompt_tokens": prompt, "completion_tokens": made, "total_tokens": prompt + made}
