"""`dataset:FILE.jsonl`: clear faults with line numbers, items in one split for good, graders by name."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretaste.envs import make, seeds
from foretaste.envs.dataset import read_items, split_of_prompt
from foretaste.envs.seeds import SPLITS
from foretaste.errors import ConfigError, EnvError


def write(folder, *lines):
    file = folder / "data.jsonl"
    file.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), encoding="utf-8")
    return file


def sums(count, **more):
    return [{"prompt": f"{a} + {a + 1} = ?", "answer": 2 * a + 1, "grader": "number", **more} for a in range(count)]


def test_oracle_solves_every_split_and_items_never_cross(tmp_path):
    second = [{**line, "prompt": "2nd " + line["prompt"], "level": 2} for line in sums(200)]
    env = make(f"dataset:{write(tmp_path, *sums(200), *second)}")
    assert env.levels == range(1, 3)
    seen = {split: set() for split in SPLITS}
    for split in SPLITS:
        for level in (1, 2):
            for seed, _ in zip(seeds(split), range(60), strict=False):
                prompt, info = env.reset(seed=seed, options={"level": level})
                assert prompt.startswith("2nd") == (level == 2)
                assert info["privileged"] == env.item.answer
                seen[split].add(prompt)
                _, reward, terminated, truncated, info = env.step(env.oracle())
                assert (reward, terminated, truncated, info["success"]) == (1.0, True, False, 1.0)
    for split in SPLITS:
        assert seen[split]
        for other in SPLITS:
            assert split == other or not seen[split] & seen[other]
    examples = env.worked_examples(3, 1)
    assert len({observation for ((observation, _),) in examples}) == 3
    assert {observation for ((observation, _),) in examples} <= {i.prompt for i in env.items if i.split == "example"}


@given(st.text(min_size=1))
def test_the_split_depends_on_the_prompt_alone(prompt):
    assert split_of_prompt(prompt) == split_of_prompt(prompt)
    assert split_of_prompt(prompt) in SPLITS


def test_shares_of_the_splits():
    places = [split_of_prompt(f"question {n}") for n in range(4000)]
    shares = {split: places.count(split) / 4000 for split in SPLITS}
    assert shares == pytest.approx({"train": 0.7, "practice": 0.15, "sealed": 0.1, "example": 0.05}, abs=0.03)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 is not JSON"),
        ("[1]", "line 2 is list"),
        ('"x"', "line 2 is str"),
        ({"answer": "1"}, 'line 2: "prompt" is None'),
        ({"prompt": " ", "answer": "1"}, "not blank"),
        ({"prompt": "q"}, 'line 2: "answer" is None'),
        ({"prompt": "q", "answer": True}, '"answer" is True'),
        ({"prompt": "q", "answer": "1", "anwser": "2"}, "Unknown field 'anwser'. Did you mean 'answer'"),
        ({"prompt": "q", "answer": "1", "level": 0}, '"level" is 0'),
        ({"prompt": "q", "answer": "1", "level": "1"}, "\"level\" is '1'"),
        ({"prompt": "q", "answer": "1", "split": "test"}, "Unknown split 'test'"),
        ({"prompt": "q", "answer": "1", "grader": "numbr"}, "Unknown grader 'numbr'. Did you mean 'number'"),
        ({"prompt": "q", "answer": "one", "grader": "number"}, "not a number"),
        ({"prompt": "q", "answer": "(", "grader": "regex"}, "grader matches raised"),
        ({"prompt": "q", "answer": "a+", "grader": "regex", "example": "b"}, "does not accept 'b'"),
        ({"prompt": "q", "answer": "1", "example": 1}, '"example" is 1'),
        ({"prompt": "q", "answer": "1", "level": 3}, "has no items of level 2"),
        ({"prompt": "first", "answer": "2", "split": "practice"}, "keep it in one"),
    ],
)
def test_faults_are_named_with_their_line(tmp_path, line, message):
    file = write(tmp_path, {"prompt": "first", "answer": "1", "split": "train"}, line)
    with pytest.raises(EnvError) as raised:
        read_items(file)
    assert message in str(raised.value)
    assert str(file) in str(raised.value)


def test_missing_empty_and_binary_files(tmp_path):
    with pytest.raises(EnvError, match=r"No dataset at 'nowhere\.jsonl'"):
        make("dataset:nowhere.jsonl")
    with pytest.raises(EnvError, match="holds no items"):
        make(f"dataset:{write(tmp_path, '', '  ')}")
    (tmp_path / "b.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(EnvError, match="not UTF-8"):
        make(f"dataset:{tmp_path / 'b.jsonl'}")


def test_unusual_characters_in_a_prompt_are_kept(tmp_path):
    prompts = ["a\u2028b", "\ud800", "é中🙂"]
    items = read_items(write(tmp_path, *[{"prompt": prompt, "answer": "1"} for prompt in prompts]))
    assert [item.prompt for item in items] == prompts


def test_a_split_without_items_says_so(tmp_path):
    env = make(f"dataset:{write(tmp_path, *sums(3, split='train'))}")
    with pytest.raises(EnvError, match=r"no sealed items at level 1; items by split: \{'train': 3"):
        env.reset(seed=next(seeds("sealed")))
    assert env.worked_examples(2, 1) == []
    with pytest.raises(ConfigError, match="has no level 2; it has 1 to 1"):
        env.reset(options={"level": 2})


def test_graders_of_all_kinds(tmp_path, monkeypatch):
    (tmp_path / "my_graders.py").write_text(
        "def half(reply, answer):\n    return 0.5 if answer in reply else 0.0\n"
        "def broken(reply, answer):\n    raise KeyError('x')\n"
        "def strange(reply, answer):\n    return 7\n"
        "value = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    def step(grader, answer, reply, **more):
        line = {"prompt": "q", "answer": answer, "grader": grader, "split": "train", **more}
        env = make(f"dataset:{write(tmp_path, line)}")
        env.reset(seed=0)
        return env.step(reply)

    assert step("exact", "Paris", " Paris\n")[1] == 1.0
    assert step("exact", "Paris", "Paris or Rome")[1] == 0.0
    assert step("number", 1200, "1,200.0")[1] == 1.0
    assert step("regex", r"\d{3}", "123")[1] == 1.0
    assert step("regex", r"\d{3}", "1234")[1] == 0.0
    assert step("my_graders:half", "a", "banana")[1] == 0.5
    for name, problem in (("broken", "KeyError"), ("strange", "returned 7.0")):
        _, reward, terminated, _, info = step(f"my_graders:{name}", "a", "b")
        assert (reward, terminated) == (0.0, True)
        assert problem in info["error"]
        assert "success" not in info
    with pytest.raises(EnvError, match="No module 'no_such_graders' for grader of"):
        step("no_such_graders:x", "a", "b")
    with pytest.raises(EnvError, match="Did you mean 'half'"):
        step("my_graders:halv", "a", "b")
    with pytest.raises(EnvError, match="not callable"):
        step("my_graders:value", "a", "b")
