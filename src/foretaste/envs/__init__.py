"""Text environments: `make("extract")` returns a `gymnasium.Env` whose observations and actions are str.

The contract is `base.TextEnv`; `registry` finds environments by name, `check` tests any of them,
`seeds` keeps train, practice and sealed items apart. Importing this package loads no environment.
"""

from foretaste.envs.base import AnyText, TextEnv, choose_register, demonstrate
from foretaste.envs.registry import (
    instructions_of,
    make,
    max_turns_of,
    names,
    register_env,
    worked_examples_of,
)
from foretaste.envs.seeds import Split, seed_for, seeds, split_of

__all__ = [
    "AnyText",
    "Split",
    "TextEnv",
    "choose_register",
    "demonstrate",
    "instructions_of",
    "make",
    "max_turns_of",
    "names",
    "register_env",
    "seed_for",
    "seeds",
    "split_of",
    "worked_examples_of",
]
