"""`extract`: solvable, held out by words and sentences, strict about its JSON, the same order in every register."""

import json
import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretaste.envs import make, seed_for, seeds
from foretaste.envs.extract.env import Extract
from foretaste.envs.extract.frames import PLAIN, Voice
from foretaste.envs.extract.order import states
from foretaste.envs.extract.voices import REGISTERS, misspell, voice_of
from foretaste.envs.extract.words import BANKS, NUMBERS, PAYLOAD_WORDS

SPLITS = ("train", "practice", "sealed")


def items_of(split, count):
    return [seed for seed, _ in zip(seeds(split), range(count), strict=False)]


def words_in(text):
    return re.findall(r"[A-Za-z]+|[0-9]+", text)


@pytest.mark.parametrize("register", REGISTERS)
@pytest.mark.parametrize("level", Extract.levels)
def test_oracle_solves_every_level_and_register(level, register):
    env = make("extract", level=level)
    for split in SPLITS:
        for seed in items_of(split, 50):
            message, info = env.reset(seed=seed, options={"register": register})
            assert "{" not in message
            assert env.oracle() == info["privileged"]
            assert "\n" not in env.oracle()
            _, reward, terminated, truncated, info = env.step(env.oracle())
            assert (reward, terminated, truncated, info["success"]) == (1.0, True, False, 1.0)


@pytest.mark.parametrize("register", REGISTERS)
def test_what_is_said_is_in_the_message_and_the_same_in_every_register(register):
    env = make("extract", level=1)
    for seed in items_of("practice", 60):
        message, _ = env.reset(seed=seed, options={"register": register})
        gold = json.loads(env.oracle())
        said = words_in(message)
        assert gold["name"] in said
        assert gold["colour"] in said
        assert (gold["item"] if gold["quantity"] == 1 else f"{gold['item']}s") in said
        assert str(gold["quantity"]) in said or NUMBERS[gold["quantity"] - 1] in said
        others = (PAYLOAD_WORDS | {str(n) for n in range(1, 100)}) & {word.lower() for word in said}
        assert len(others) == 4, f"besides the order, {message!r} says {others}"
        env.reset(seed=seed)
        assert json.loads(env.oracle()) == gold


def test_banks_share_no_name_no_item_and_no_sentence():
    def sentences(split):
        voices = [voice_of(register, split) for register in REGISTERS]
        return {frame.lower() for voice in voices for field in voice for frame in field}

    for first, second in (("train", "practice"), ("train", "sealed"), ("practice", "sealed")):
        assert not set(BANKS[first].names) & set(BANKS[second].names)
        assert not set(BANKS[first].items) & set(BANKS[second].items)
        assert not sentences(first) & sentences(second)
    assert BANKS["example"] is BANKS["train"]


def test_banks_are_as_large_as_promised_and_free_of_repeats():
    for split, names, frames in (("train", 60, 60), ("practice", 32, 25), ("sealed", 32, 25)):
        bank, voice = BANKS[split], PLAIN[split]
        assert len(bank.names) >= names
        assert len(bank.items) >= names
        assert len(bank.colours) >= 15
        assert sum(map(len, (voice.greetings, voice.names, voice.orders, voice.joint, voice.closings))) >= frames
        for words in (*bank, *voice):
            assert len(set(words)) == len(words)
        assert not {word.lower() for word in bank.names} & ({*bank.items} | {*bank.colours})
        assert not [item for item in bank.items if item.endswith(("s", "x", "z", "ch", "sh", "f", "fe", "y"))]


def test_no_frame_holds_a_word_that_could_be_an_answer():
    for split in SPLITS:
        for register in REGISTERS:
            for field in voice_of(register, split):
                for frame in field:
                    said = {word.lower() for word in words_in(re.sub(r"\{\w+\}", "", frame))}
                    assert not said & PAYLOAD_WORDS, frame
                    assert not re.search(r"\d", frame)


def test_every_frame_has_its_slots():
    needs = {"names": {"name"}, "orders": {"order"}, "joint": {"name", "order"}, "dates": {"date"},
             "wrong_quantity": {"quantity", "items"}, "wrong_colour": {"colour", "items"},
             "wrong_item": {"wrong", "items"}, "greetings": set(), "closings": set(), "idle": set()}  # fmt: skip
    for split in SPLITS:
        for register in REGISTERS:
            voice: Voice = voice_of(register, split)
            for field, slots in needs.items():
                for frame in getattr(voice, field):
                    assert set(re.findall(r"\{(\w+)\}", frame)) == slots, (register, split, frame)


@given(st.sampled_from([frame for split in SPLITS for field in PLAIN[split] for frame in field]), st.integers())
def test_misspelling_keeps_slots_and_makes_no_payload_word(frame, seed):
    slots = re.compile(r"\{\w+\}[^ ]*")
    slipped = misspell(frame, random.Random(seed))
    assert slots.findall(slipped) == slots.findall(frame)
    assert len(slipped.split(" ")) == len(frame.split(" "))
    assert not {word.lower() for word in words_in(slots.sub("", slipped))} & PAYLOAD_WORDS


def test_first_levels_are_short_and_items_hardly_repeat():
    env = make("extract")
    messages = [env.reset(seed=seed)[0] for seed in items_of("train", 2000)]
    lengths = [len(message.split()) for message in messages]
    assert 5 <= sum(lengths) / len(lengths) <= 20
    assert len(set(messages)) > 1990


@pytest.mark.parametrize("split", SPLITS)
def test_messages_use_the_words_and_sentences_of_their_own_split(split):
    env = make("extract", level=1)
    voice = PLAIN[split]
    starts = {frame.split("{")[0] for frame in (*voice.greetings, *voice.names, *voice.orders, *voice.joint)}
    for seed in items_of(split, 100):
        message, _ = env.reset(seed=seed)
        gold = json.loads(env.oracle())
        assert gold["name"] in BANKS[split].names
        assert gold["item"] in BANKS[split].items
        assert message.startswith((*(start for start in starts if start), gold["name"]))


def test_levels_hold_what_they_say():
    def golds(level):
        env = make("extract", level=level)
        return [json.loads(env.reset(seed=seed)[1]["privileged"]) for seed in items_of("train", 200)]

    assert all(set(gold) == {"name", "item", "colour", "quantity"} and None not in gold.values() for gold in golds(1))
    second = golds(2)
    assert 80 < sum(None in gold.values() for gold in second) < 180
    assert all(gold["item"] for gold in second)
    assert {len(gold["items"]) for gold in golds(3)} == {2, 3}
    assert all(re.fullmatch(r"\d\d-\d\d", gold["date"]) for gold in golds(4))
    fifth = golds(5)
    assert {gold["date"] is None for gold in fifth} == {True, False}
    assert all(set(gold) == {"name", "items", "date"} for gold in fifth)


def test_corrected_word_is_said_after_the_wrong_one():
    env = make("extract", level=4)
    seen = 0
    for seed in items_of("train", 300):
        message, _ = env.reset(seed=seed)
        gold = json.loads(env.oracle())
        said = [word.lower() for word in words_in(message)]
        colours = [word for word in said if word in BANKS["train"].colours]
        if len(colours) > 1:
            seen += 1
            assert colours[-1] == gold["colour"] != colours[0]
    assert seen > 30


GOLD = '{"name":"Ana","item":"lamp","colour":"red","quantity":3}'


@pytest.mark.parametrize(
    "reply", [GOLD, f" {GOLD}\n", '{"quantity": 3, "item": "lamp", "name": "Ana", "colour": "red"}']
)
def test_equal_json_is_right(reply):
    assert states(reply, GOLD)


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "Sure! " + GOLD,
        GOLD + " or " + GOLD,
        GOLD + "\n" + GOLD,
        f"[{GOLD}]",
        f"```json\n{GOLD}\n```",
        GOLD.replace("3", "3.0"),
        GOLD.replace("3", '"3"'),
        GOLD.replace("3", "true"),
        GOLD.replace("3", "null"),
        GOLD.replace("lamp", "lamps"),
        GOLD.replace("Ana", "ana"),
        GOLD.replace("}", ',"note":""}'),
        GOLD.replace(',"quantity":3', ""),
        GOLD.replace("}", ',"quantity":3}'),
        '{"quantity":2,' + GOLD[1:],
        "[" * 100_000,
        GOLD.replace("3", "9" * 5000),
        GOLD.replace("3", "NaN"),
    ],
)
def test_anything_else_is_wrong(reply):
    assert not states(reply, GOLD)


def test_true_is_not_one():
    assert not states('{"quantity":true}', '{"quantity":1}')
    assert not states('{"quantity":1.0}', '{"quantity":1}')
    assert states('{"items":[{"quantity":1}]}', '{"items":[{"quantity":1}]}')
    assert not states('{"items":[{"quantity":1.0}]}', '{"items":[{"quantity":1}]}')


@given(st.text(max_size=60))
def test_any_text_is_judged_without_an_exception(reply):
    env = make("extract")
    env.reset(seed=seed_for("train", 0))
    _, reward, terminated, _, info = env.step(reply)
    assert (reward, terminated, info["success"]) == (0.0, True, 0.0)


def test_worked_examples_are_plain_and_solved_and_not_in_training():
    env = make("extract", level=1)
    examples = env.worked_examples(2, 1)
    assert len(examples) == 2
    training = {env.reset(seed=seed)[0] for seed in items_of("train", 500)}
    for ((message, answer),) in examples:
        assert json.loads(answer)["name"] in message
        assert message not in training
