"""Registers keep what carries the answer: checked on generated prompts, and on the closed lists themselves."""

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretaste.errors import ConfigError
from foretaste.registers import REGISTERS, families, protected_spans, rewrite, trainable
from foretaste.wordings import CONTROL_SENTENCES, DISTRACTORS, FRAMES, LAST_DISTRACTOR, MISSPELLINGS, PLAIN_WORDS

SURFACE = ("typos", "contractions", "lower_case", "shouting", "emoji_dense")
FRAMED = tuple(name for name in REGISTERS if name not in SURFACE)
PROSE = "Please find the route that you should take with the cart, because there is snow. We do not know where it is."

words = st.sampled_from(
    ["the", "please", "Find", "which", "Which", "you", "do", "not", "it", "is", "Alice", "maze", "not,"]
)
numbers = st.sampled_from(["17", "-3.5", "2x", "$1,200.00", "3/4", "#9"])
quoted = st.sampled_from(
    ['"the value is here"', "'which one'", "`find the`", "“about you”", '{"the": "value"}', "[the, with]"]
)
chunks = st.one_of(words, words, words, numbers, quoted, st.sampled_from(["\n", "every other.", "which is it?"]))
prompts = st.lists(chunks, min_size=1, max_size=30).map(" ".join)
register_names = st.sampled_from(sorted(REGISTERS))


def in_order(parts: list[str], text: str) -> bool:
    """True if `parts` occur in `text` one after another."""
    position = 0
    for part in parts:
        position = text.find(part, position)
        if position < 0:
            return False
        position += len(part)
    return True


@given(prompts, register_names, st.integers(0, 2**32))
def test_numbers_and_quoted_text_survive_exactly(text: str, register: str, seed: int) -> None:
    rewritten = rewrite(text, register, random.Random(seed))
    assert in_order(re.findall(r"\S*\d\S*", text), rewritten)
    assert in_order(re.findall(r"\"[^\"]*\"|`[^`]*`|“[^”]*”|\{[^}]*\}|\[[^\]]*\]", text), rewritten)


@given(prompts, register_names, st.integers(0, 2**32), st.data())
def test_protected_strings_survive_wherever_they_occur(
    text: str, register: str, seed: int, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, len(text) - 1))
    phrase = text[start : data.draw(st.integers(start + 1, len(text)))]
    rewritten = rewrite(text, register, random.Random(seed), protected=[phrase, ""])
    assert rewritten.count(phrase) >= text.count(phrase)
    assert in_order([phrase] * text.count(phrase), rewritten)


@given(prompts, st.sampled_from(FRAMED), st.integers(0, 2**32))
def test_frames_keep_the_payload_byte_identical(text: str, register: str, seed: int) -> None:
    rewritten = rewrite(text, register, random.Random(seed))
    assert text in rewritten
    assert len(rewritten) - len(text) < 250


@given(st.one_of(prompts, st.text(max_size=60)).map("\N{SECTION SIGN} ".__add__), register_names, st.integers(0, 2**32))
def test_any_text_is_untouched_and_its_end_marked_when_letters_matter(text: str, register: str, seed: int) -> None:
    _, found, after = rewrite(text, register, random.Random(seed), letters_matter=True).partition(text)
    assert found == text
    assert not after or after.startswith("\n(The task ends here.)\n")


@given(prompts, register_names, st.integers(0, 2**32))
def test_same_rng_gives_the_same_text(text: str, register: str, seed: int) -> None:
    assert rewrite(text, register, random.Random(seed)) == rewrite(text, register, random.Random(seed))


@given(prompts, st.integers(0, 2**32))
@settings(max_examples=40)
def test_distinct_registers_differ(text: str, seed: int) -> None:
    rewritten = {name: rewrite(text, name, random.Random(seed)) for name in REGISTERS}
    assert rewritten["plain"] == text
    assert len(set(rewritten.values())) == len(REGISTERS)


@given(prompts, st.sampled_from(SURFACE), st.integers(0, 2**32))
def test_edits_change_only_words_of_the_closed_list(text: str, register: str, seed: int) -> None:
    rewritten = rewrite(text, register, random.Random(seed)).split("\n", 1)[1]
    assert rewritten.count("Alice") == text.count("Alice")
    assert rewritten.count("maze") == text.count("maze")
    assert rewritten.count("\n") == text.count("\n")


@pytest.mark.parametrize("register", SURFACE)
def test_edits_do_change_ordinary_prose(register: str) -> None:
    for seed in range(5):
        assert PROSE not in rewrite(PROSE, register, random.Random(seed))


def test_edits_by_example() -> None:
    rng = random.Random(0)
    assert rewrite("We do not know. It is so.", "contractions", rng).endswith("We don't know. It's so.")
    assert rewrite("Please tell Alice that yes is 4th.", "shouting", rng).endswith("PLEASE TELL Alice THAT yes IS 4th.")
    assert rewrite("Which of These", "lower_case", rng).endswith("which of these")


@pytest.mark.parametrize(
    "text",
    [
        "Answer with the value that you find.",
        "Your output should be v3.5 of the number",
        "```\nfor the in with:\n    pass\n```",
        "the, with, such and from",
        "which\nthat\n",
        "see /the/with which/that",
    ],
)
@pytest.mark.parametrize("register", SURFACE)
def test_answer_formats_code_and_lists_of_words_are_protected(text: str, register: str) -> None:
    protected = text if "see" not in text else text[4:]
    for seed in range(8):
        assert protected in rewrite(text, register, random.Random(seed))


def test_spans_are_merged_and_overlapping_occurrences_found() -> None:
    assert protected_spans("xx abab ab", ["aba", "bab", ""]) == [(3, 7)]
    assert protected_spans("xx aaa b", ["aa"]) == [(3, 6)]


def test_distractors_share_no_word_with_the_payload() -> None:
    payload = "A cello, the kettle and bread; fog over the roof and moss; a waltz in the orchestra."
    for seed in range(50):
        added = rewrite(payload, "distractor_before", random.Random(seed)).removesuffix(payload)
        assert not re.search(r"cello|kettle|bread|fog|roof|moss|waltz|orchestra", added, re.IGNORECASE)
    everything = " ".join(DISTRACTORS)
    assert rewrite(everything, "distractor_after", random.Random(0)) == f"{everything}\n{LAST_DISTRACTOR}"


def test_closed_lists_name_no_quantity_colour_direction_or_date() -> None:
    banned = re.compile(
        r"\d|\b(one|two|three|four|five|six|seven|eight|nine|ten|first|second|last|left|right|north|south|east|west"
        r"|red|blue|green|yellow|black|white|monday|january|today|yesterday|tomorrow|true|false|yes|no|not)\b",
        re.IGNORECASE,
    )
    for sentence in (*DISTRACTORS, LAST_DISTRACTOR):
        assert not banned.search(sentence), sentence
    for frames in FRAMES.values():
        for frame in frames:
            assert not re.search(r"\d", frame.before + frame.after)


def test_misspellings_are_no_other_listed_word() -> None:
    number_words = {"one", "two", "three", "ten", "form", "not", "no", "than", "then"}
    assert not set(MISSPELLINGS.values()) & (PLAIN_WORDS | number_words)
    assert len(set(MISSPELLINGS.values())) == len(MISSPELLINGS)


@pytest.mark.parametrize(("control", "family"), [("control_short", "tone"), ("control_long", "distractor")])
def test_controls_match_the_length_of_what_they_control(control: str, family: str) -> None:
    def mean_added(names: tuple[str, ...]) -> float:
        texts = [rewrite(PROSE, name, random.Random(seed)) for name in names for seed in range(200)]
        return sum(len(text) - len(PROSE) for text in texts) / len(texts)

    assert mean_added((control,)) == pytest.approx(mean_added(families()[family]), rel=0.2)
    assert len(CONTROL_SENTENCES) > 4


def test_families_are_held_out_whole_and_many_enough() -> None:
    assert len(REGISTERS) >= 12
    assert len(families()) >= 5
    for names in families().values():
        assert len({REGISTERS[name].held_out for name in names}) == 1
    held_out = {register.family for register in REGISTERS.values() if register.held_out}
    assert held_out
    assert not {REGISTERS[name].family for name in trainable()} & held_out
    assert "plain" in trainable()


def test_unknown_register_is_named() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'casual'"):
        rewrite("x", "casul", random.Random(0))


def test_long_prompts_take_linear_time() -> None:
    text = "the with of " * 20_000
    assert len(rewrite(text, "typos", random.Random(0))) > 200_000
