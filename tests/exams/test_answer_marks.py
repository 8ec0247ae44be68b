"""What mark a reply gets: markup is told from a wrong answer, thoughts are no part of it, refusals are known."""

import pytest

from foretaste.envs.grading import exact, same_number
from foretaste.exams.answers import Attempt, Mark, answer_of
from foretaste.exams.paper import Item
from foretaste.records import Action, Episode, EpisodeEnd, Turn

SUM = "reasoning/chain_sum"


def answered(text: str, gold: str = "-12", *, right: bool = False, **told: object) -> tuple[Mark, bool]:
    turn = Turn("What is 3 - 15?", Action(text), privileged=gold)
    episode = Episode(SUM, 1, "sealed", 1, "plain", (turn,), EpisodeEnd.TERMINATED, float(right))
    answer = answer_of(Attempt(0, Item(SUM, 1, "plain", 1, "c")), episode, **told)  # type: ignore[arg-type]
    return answer.mark, answer.right_without_markup


@pytest.mark.parametrize(
    "text",
    [
        "**-12**",
        "```\n-12\n```",
        "The answer is: -12",
        "the final answer is **-12**.",
        "$\\boxed{-12}$",
        "= -12",
        "`-12`",
    ],
)
def test_markup_around_the_right_answer_is_unparseable_and_counted(text: str) -> None:
    assert answered(text) == (Mark.UNPARSEABLE, True)


@pytest.mark.parametrize(
    ("text", "mark"),
    [
        ("13", Mark.WRONG),
        ("**13**", Mark.UNPARSEABLE),
        ("about twelve", Mark.UNPARSEABLE),
        ("<think>-12</think>13", Mark.WRONG),
        ("<think>-12", Mark.UNPARSEABLE),
        ("抱歉，我无法回答这个问题。", Mark.REFUSED),
        ("Lo siento, no puedo.", Mark.REFUSED),
        ("<think>hm</think>I'm sorry, I cannot.", Mark.REFUSED),
    ],
)
def test_other_replies(text: str, mark: Mark) -> None:
    assert answered(text) == (mark, False)


def test_what_the_endpoint_kept_back_is_refused_unless_it_is_right() -> None:
    assert answered("", refused=True)[0] is Mark.REFUSED
    assert answered("-12", right=True, refused=True)[0] is Mark.RIGHT
    assert answered("", refused=True, failure="HTTP 500")[0] is Mark.ERROR


def test_a_typographic_minus_is_a_minus_where_a_number_is_wanted() -> None:
    assert same_number("\N{MINUS SIGN}12", "-12") == 1.0
    assert same_number("<think>\n13?\n</think>\n<answer>\N{MINUS SIGN}12</answer>", "-12") == 1.0
    assert exact("<think>b</think>a", "a") == 1.0
    assert exact("a</think>", "a") == 0.0


def test_tokens_that_an_endpoint_counted_go_with_the_answer() -> None:
    turn = Turn("q", Action("1"))
    episode = Episode(SUM, 1, "sealed", 1, "plain", (turn,), EpisodeEnd.TERMINATED, 0.0)
    answer = answer_of(Attempt(0, Item(SUM, 1, "plain", 1, "c")), episode, tokens=(70, 5))
    assert (answer.prompt_tokens, answer.sampled_tokens) == (70, 5)
