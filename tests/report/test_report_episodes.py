"""Which episodes a page holds, and how they are packed."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest
from jinja2.utils import htmlsafe_json_dumps

from foretaste.report import episodes


@pytest.fixture
def many(fabricate: SimpleNamespace) -> list[dict[str, Any]]:
    rng = random.Random(1)
    made = []
    for index in range(300):
        label = ("before", "train", "after")[index % 3]
        made.append({"step": index, **fabricate.episode_payload(rng, label, skill=0.5)})
    return made


def test_some_of_each_kind_are_chosen(many: list[dict[str, Any]]) -> None:
    chosen = episodes.choose(many)
    assert len(chosen) == episodes.MAX_EPISODES
    assert [e["id"] for e in chosen] == sorted(e["id"] for e in chosen)
    for moment in ("before", "during", "after"):
        for outcome in ("success", "failure"):
            assert sum(e["moment"] == moment and e["outcome"] == outcome for e in chosen) >= 5


def test_the_best_the_worst_and_the_most_mistaken_are_always_there(many: list[dict[str, Any]]) -> None:
    many[200]["turns"][-1]["reward"] = 9.0
    many[230]["turns"][-1]["reward"] = -9.0
    for turn in many[260]["turns"]:
        turn["action"]["values"] = [1.0 - (many[260]["success"] or 0.0)] * len(turn["action"]["values"])
    assert {200, 230, 260} <= {e["id"] for e in episodes.choose(many)}


def test_errors_are_shown_too(many: list[dict[str, Any]]) -> None:
    many[250] |= {"end": "error", "success": None, "error": "ValueError: no"}
    chosen = {e["id"]: e for e in episodes.choose(many)}
    assert chosen[250]["outcome"] == "error"


def test_the_page_stays_small(many: list[dict[str, Any]]) -> None:
    many = many[:40]
    for episode in many:
        episode["turns"] = list(episode["turns"]) * 200
        episode["tokens_text"] = episode["tokens_text"] * 200
        episode["turns"][0] = {**episode["turns"][0], "observation": "<" * 100_000}
    chosen = episodes.choose(many)
    assert len(chosen) >= 5
    assert len(htmlsafe_json_dumps(chosen)) < 600_000
    assert all(0 < e["left_out"] < 600 for e in chosen)
    assert chosen[0]["turns"][0]["more"] == 100_000 - episodes.MAX_OBSERVATION


def test_packing_keeps_what_the_viewer_shows(fabricate: SimpleNamespace) -> None:
    payload = {"step": 4, **fabricate.episode_payload(random.Random(3), "train", skill=1.0)}
    packed = episodes.pack(payload, 0)
    assert packed["seed"] == str(payload["seed"])  # text: a script's numbers would round it
    assert (packed["moment"], packed["outcome"], packed["step"]) == ("during", "success", 4)
    for turn, source in zip(packed["turns"], payload["turns"], strict=True):
        assert "".join(turn["k"]) == source["action"]["text"]
        assert turn["v"] == [round(value, 3) for value in source["action"]["values"]]
        assert turn["p"] == [round(logprob, 3) for logprob in source["action"]["logprobs"]]


def test_text_that_does_not_match_its_tokens_is_not_shaded(fabricate: SimpleNamespace) -> None:
    payload = fabricate.episode_payload(random.Random(3), "after", skill=1.0)
    payload["tokens_text"][1] = payload["tokens_text"][1][:-1]
    first, second, *_ = episodes.pack(payload, 0)["turns"]
    assert len(first["v"]) == len(first["k"]) > 1
    assert (second["k"], second["v"]) == ([payload["turns"][1]["action"]["text"]], [])


def test_a_policy_without_values_is_shown_without_them(fabricate: SimpleNamespace) -> None:
    payload = fabricate.episode_payload(random.Random(3), "after", skill=1.0)
    for turn in payload["turns"]:
        turn["action"] |= {"values": [], "logprobs": [], "tokens": []}
    del payload["tokens_text"]
    packed = episodes.pack(payload, 0)
    assert packed["mistake"] is None
    assert packed["turns"][0]["k"] == [payload["turns"][0]["action"]["text"]]


@pytest.mark.parametrize(
    ("values", "ends"), [([0.1, 0.9], (0, 1)), ([-0.02, 1.03], (0, 1)), ([-3.0, 8.0], (-3, 8)), ([], (0, 1))]
)
def test_the_colour_scale(values: list[float], ends: tuple[float, float]) -> None:
    assert episodes.value_range([{"turns": [{"v": [*values, None]}]}]) == ends
