"""Papers go to TOML and back, expand deterministically, and refuse what cannot be asked."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reasoning_gym.factory import DATASETS

from foretaste.config import to_dict
from foretaste.envs.registry import identity_of, make
from foretaste.envs.reworded import Reworded
from foretaste.errors import ConfigError
from foretaste.exams.paper import (
    Family,
    Item,
    Paper,
    expand,
    load_paper,
    paper_from_dict,
    ready_made,
    resolve,
    to_toml,
)
from foretaste.exams.planning import make_plan
from foretaste.exams.seal import item_hash

SECRET = "ab" * 32
PAPER = Paper("p", (Family("maze", (1, 2), ("plain", "casual"), 3), Family("lock", items=2, release="ladder")))

names = st.text("abc_-9", min_size=1).filter(lambda name: name.strip("-_") != "")
families = st.builds(
    Family,
    st.sampled_from(["maze", "lock", "dataset:my file.jsonl"]),
    st.lists(st.integers(1, 9), min_size=1, unique=True).map(tuple),
    st.lists(st.sampled_from(["plain", "typos", "chinese"]), min_size=1, unique=True).map(tuple),
    st.integers(1, 999),
    st.sampled_from(["fresh", "ladder", "thresholdout"]),
)
papers = st.builds(
    Paper,
    names,
    st.lists(families, min_size=1, max_size=3).map(tuple),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.sampled_from(["accuracy", "worst_register", "all_registers"]),
    st.floats(0, 1),
    st.floats(0.001, 0.999),
    st.booleans(),
    st.integers(0, 99),
)


@given(papers)
def test_toml_round_trip(tmp_path_factory: pytest.TempPathFactory, paper: Paper) -> None:
    file = tmp_path_factory.getbasetemp() / "round-trip.toml"
    file.write_text(to_toml(paper), encoding="utf-8")
    assert load_paper(file) == paper
    assert paper_from_dict(to_dict(paper)) == paper


def test_expansion_crosses_items_and_registers_in_clusters() -> None:
    items = expand(PAPER, secret=SECRET).items
    assert len(items) == 3 * 2 * 2 + 2
    by_cluster: dict[str, list[Item]] = {}
    for item in items:
        by_cluster.setdefault(item.cluster, []).append(item)
    assert len(by_cluster) == 8
    assert [item.register for item in by_cluster["maze:2:1"]] == ["plain", "casual"]
    assert all(len({item.seed for item in cluster}) == 1 for cluster in by_cluster.values())
    assert len({item.seed for item in items}) == 8
    assert expand(PAPER, secret=SECRET).items == items


def test_another_look_asks_fresh_items_but_keeps_those_behind_the_ladder() -> None:
    first, second = (expand(PAPER, secret=SECRET, look=look).items for look in (1, 2))
    shared = {item.env for item, again in zip(first, second, strict=True) if item.seed == again.seed}
    assert shared == {"lock"}
    assert not {i.seed for i in first if i.env == "maze"} & {i.seed for i in second if i.env == "maze"}
    assert expand(PAPER, secret="cd" * 32, look=1).items[0].seed != first[0].seed


def test_public_papers_never_change_and_take_no_secret() -> None:
    public = Paper("p", (Family("maze"),), sealed=False)
    assert expand(public, look=1) == expand(public, look=2)
    with pytest.raises(ConfigError, match="takes no secret"):
        expand(public, secret=SECRET)
    with pytest.raises(ConfigError, match="needs a secret"):
        expand(PAPER)


def test_items_trained_on_or_repeated_are_passed_over() -> None:
    paper = Paper("p", (Family("maze", items=6),))
    all_texts = [f"text {i % 10}" for i in range(1000)]
    seeds: list[int] = []

    def render(env: str, level: int, seed: int) -> str:
        seeds.append(seed)
        return all_texts[len(seeds) - 1]

    seen = {item_hash("text 0"), item_hash("text 3")}
    items = expand(paper, secret=SECRET, render=render, seen=seen).items
    expected = ["text 1", "text 2", "text 4", "text 5", "text 6", "text 7"]
    assert [item.hash for item in items] == [item_hash(text) for text in expected]
    assert [item.cluster for item in items] == [f"maze:1:{text[-1]}" for text in expected]


def test_an_exhausted_family_is_stated_not_padded() -> None:
    found = expand(Paper("p", (Family("maze", items=6),)), secret=SECRET, render=lambda env, level, seed: f"{seed % 2}")
    assert len(found.items) == 2
    assert (found.shortfalls, found.different) == ({"maze:1": 4}, {"maze:1": 2})


@pytest.mark.parametrize(
    ("name", "level", "met"), [("guess", 1, 10), ("guess", 4, None), ("lock", 1, None), ("maze", 1, None)]
)
def test_items_that_begin_with_the_same_text_are_told_apart(name: str, level: int, met: int | None) -> None:
    plan = make_plan(Paper("p", (Family(name, (level,), items=40),)), secret=SECRET, public=False)
    assert len(plan.items) == (met or 40)
    assert plan.different == ({} if met is None else {f"{name}:{level}": met})
    env = make(name, level=level)
    texts = {env.reset(seed=item.seed, options={"level": level})[0] for item in plan.items}
    assert len(texts) < len(plan.items)


def test_an_identity_is_the_items_own_in_every_register_and_at_every_reset() -> None:
    for name in ("guess", "lock", "maze", "repair"):
        env = Reworded(make(name), name)
        found = []
        for register in ("plain", "casual", "plain"):
            env.reset(seed=5, options={"level": 2, "register": register})
            found.append(identity_of(env))
        assert found[0] is not None
        assert len(set(found)) == 1
        env.reset(seed=6, options={"level": 2})
        assert identity_of(env) != found[0]


def test_ready_made_papers_load_and_standard_holds_every_reasoning_family() -> None:
    assert {"quick", "standard", "repair", "desk", "practice"} <= set(ready_made())
    papers = {name: load_paper(name) for name in ready_made()}
    assert all(paper.name == name and paper.description for name, paper in papers.items())
    envs = {family.env for family in papers["standard"].families}
    assert {f"reasoning/{name}" for name in DATASETS} <= envs
    assert len(DATASETS) >= 105
    assert {"extract", "maze", "lock", "guess", "route", "repair", "desk"} <= envs
    assert not papers["practice"].sealed
    assert load_paper("standard").content_hash == papers["standard"].content_hash != papers["quick"].content_hash


def test_own_registers_of_an_environment_are_accepted() -> None:
    assert resolve(Paper("p", (Family("extract", registers=("plain", "distractor")),)))
    with pytest.raises(ConfigError, match="Did you mean 'casual'"):
        resolve(Paper("p", (Family("maze", registers=("casul",)),)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name = "p"', "families"),
        ('name = "p"\nfamilies = []', "no \\[\\[families\\]\\]"),
        ('name = "p"\n[[families]]\nenv = "maze"\nitms = 3', "Did you mean 'items'"),
        ('name = "p"\n[[families]]\nenv = "maze"\nitems = 0', "items = 0 must be at least 1"),
        ('name = "p"\n[[families]]\nenv = "maze"\nlevels = []', "levels = \\[\\] must name"),
        ('name = "p"\n[[families]]\nenv = "maze"\nregisters = ["plain", "plain"]', "each once"),
        ('name = "p"\nalpha = 1.5\n[[families]]\nenv = "maze"', "alpha = 1.5"),
        ('name = "p"\nlooks = -1\n[[families]]\nenv = "maze"', "looks = -1"),
        ('name = "p"\nmetric = "acuracy"\n[[families]]\nenv = "maze"', "accepted: 'accuracy'"),
        ('name = "a b"\n[[families]]\nenv = "maze"', "letters, digits"),
        ('name = "p"\n[[families]]\nenv = "reasonning/*"', "Unknown environments"),
        ('name = "p"\n[[families]]\nitems = 3', "env"),
        ("name = ", "not valid TOML"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "paper.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_paper(file)


def test_unknown_paper_suggests_one() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'quick'"):
        load_paper("quik")
