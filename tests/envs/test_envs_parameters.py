"""Arguments in an id reach the constructor with their types, or say what is accepted."""

from typing import Literal

import pytest

from foretaste.config import EnvConfig
from foretaste.envs.base import TextEnv
from foretaste.envs.parameters import arguments_of, split_id
from foretaste.envs.registry import make
from foretaste.errors import ConfigError
from foretaste.rl.rollout import EnvPool


class Tuned(TextEnv):
    """Takes one argument of each kind."""

    name = "tuned"

    def __init__(
        self,
        level: int | None = None,
        *,
        count: int = 1,
        rate: float | None = None,
        mode: Literal["at once", "late"] = "late",
        loud: bool = False,
        word: str = "",
        rows: list[int] | None = None,
    ) -> None:
        super().__init__(level)
        self.got = (count, rate, mode, loud, word)


def test_arguments_arrive_with_the_types_of_the_constructor():
    name, given = split_id("x?count=3&rate=2&mode=at+once&loud=true&word=a%26b")
    assert name == "x"
    assert Tuned(**arguments_of(Tuned, given, name)).got == (3, 2.0, "at once", True, "a&b")


def test_a_built_in_environment_takes_arguments_and_keeps_its_presets():
    env = make("lock?horizon=12&visibility=silent&table=3", level=2)
    assert env.chain.horizon == 12
    assert env.chain.visibility == "silent"
    assert env.chain.critical == 8  # the preset of level 2
    assert env.table_seed == 3
    assert env.spec.kwargs["horizon"] == 12
    assert EnvPool(EnvConfig("lock?horizon=12&critical=4", examples=0)).instance().unwrapped.max_turns() == 12


@pytest.mark.parametrize(
    ("id", "message"),
    [
        ("lock?horizn=12", "Did you mean 'horizon'"),
        ("lock?horizon=long", "horizon = 'long'.*whole number"),
        ("lock?visibility=soon", "Unknown value of lock.visibility.*at once, late, silent"),
        ("lock?end_on_ruin=maybe", "true or false"),
        ("lock?level=3", "set env.level"),
        ("lock?horizon", "lock.argument=value"),
        ("lock?horizon=1&horizon=2", "twice"),
        ("lock?horizon=0", "horizon is 0"),
        ("lokc?horizon=2", "Did you mean 'lock'"),
        ("guess?size=2", "Unknown argument of env 'guess'"),
    ],
)
def test_wrong_arguments_say_what_is_accepted(id, message):
    with pytest.raises(ConfigError, match=message):
        make(id)


def test_an_argument_that_is_no_text_or_number_is_refused():
    with pytest.raises(ConfigError, match="which an id cannot carry"):
        arguments_of(Tuned, {"rows": "1"}, "tuned")


def test_a_dataset_with_a_question_mark_in_its_name_is_found(tmp_path):
    file = tmp_path / "why?x=1.jsonl"
    file.write_text("{}")
    assert split_id(f"dataset:{file}") == (f"dataset:{file}", {})
