"""The OpenAPI document of the server: what /openapi.json says, and what the fuzz test holds it to."""

from __future__ import annotations

from typing import Any

_TEXT = {"type": "string"}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "code"],
            "properties": {"message": _TEXT, "type": _TEXT, "code": _TEXT, "param": {"type": ["string", "null"]}},
        }
    },
}
_CHAT = {
    "type": "object",
    "required": ["messages"],
    "properties": {
        "model": _TEXT,
        "stream": {"type": "boolean"},
        "messages": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["role", "content"],
                "properties": {
                    "role": {"enum": ["system", "developer", "user", "assistant", "tool"]},
                    "content": {"anyOf": [_TEXT, {"type": "array", "items": {"type": "object"}}]},
                },
            },
        },
    },
}
_FEEDBACK = {
    "type": "object",
    "required": ["response_id"],
    "additionalProperties": False,
    "minProperties": 2,
    "maxProperties": 2,
    "properties": {
        "response_id": {"type": "string", "minLength": 1, "maxLength": 128},
        "score": {"type": "number", "minimum": 0, "maximum": 1},
        "thumbs": {"enum": ["up", "down"]},
        "correction": {"type": "string", "maxLength": 100000},
        "verifier": {"anyOf": [{"type": "boolean"}, {"type": "number", "minimum": 0, "maximum": 1}]},
    },
}
_ANSWER = {
    "type": "object",
    "required": ["id", "text"],
    "properties": {"id": _TEXT, "text": {"type": "string", "minLength": 1}},
}


_JUDGEMENT = {
    "type": "object",
    "required": ["answer", "verdict"],
    "properties": {
        "answer": {"type": "integer", "minimum": 1, "maximum": 2**63 - 1},
        "verdict": {"enum": ["right", "wrong", "cannot_tell"]},
    },
}


def document() -> dict[str, Any]:
    """Return the whole document."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "foretaste", "version": "1", "description": "A learner at work beside an incumbent."},
        "components": {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        "paths": {
            "/v1/chat/completions": {
                "post": _call("Answer a chat; OpenAI's API", _CHAT, more=(408, 413, 415, 502, 503, 504))
            },
            "/v1/feedback": {
                "post": _call("Say how good an answer was", _FEEDBACK, more=(404, 408, 409, 413, 415, 422, 503))
            },
            "/v1/models": {"get": _call("The models that answer")},
            "/healthz": {"get": _call("Whether requests can be answered", open_to_all=True)},
            "/livez": {"get": _call("Whether the process answers", open_to_all=True)},
            "/readyz": {"get": _call("Whether the incumbent can be reached", open_to_all=True, more=(503,))},
            "/metrics": {"get": _call("Counters and gauges for Prometheus", open_to_all=True, media="text/plain")},
            "/openapi.json": {"get": _call("This document", open_to_all=True)},
            "/admin": {"get": _call("The admin's page; it holds no data", open_to_all=True, media="text/html")},
            "/admin/data": {"get": _call("What the admin's page shows", more=(503,))},
            "/admin/{action}": {
                "parameters": [{"name": "action", "in": "path", "required": True, "schema": _TEXT}],
                "post": _call(
                    "hold, release, promote, rollback, kill, resume_learning or pause_learning",
                    more=(404, 405, 409, 503),
                ),
            },
            "/people": {"get": _call("The page on which people answer", open_to_all=True, media="text/html")},
            "/people/questions": {"get": _call("Questions that wait for a person")},
            "/people/answers": {"post": _call("A person's answer", _ANSWER, more=(404, 408, 413))},
            "/people/checks": {"get": _call("Random checks of the learner that wait for a person", more=(503,))},
            "/people/judgements": {
                "post": _call("A person's word on such a check", _JUDGEMENT, more=(404, 408, 413, 503))
            },
        },
    }


def _call(
    summary: str,
    body: dict[str, Any] | None = None,
    *,
    more: tuple[int, ...] = (),
    open_to_all: bool = False,
    media: str = "application/json",
) -> dict[str, Any]:
    refusals = (*(() if open_to_all else (401, 403, 429)), *((400,) if body else ()), *more)
    error = {"description": "Refused", "content": {"application/json": {"schema": _ERROR}}}
    call: dict[str, Any] = {
        "summary": summary,
        "responses": {"200": {"description": "Done", "content": {media: {}}}, **{str(one): error for one in refusals}},
    }
    if body is not None:
        call["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    if not open_to_all:
        call["security"] = [{"key": []}]
    return call
