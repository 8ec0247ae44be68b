"""A public paper as what to practise: its families, levels and wordings become sources of training items.

The items themselves are drawn from the training split, so none of the paper's own is ever shown.
"""

from __future__ import annotations

from foretaste.envs.registry import make
from foretaste.envs.reworded import native
from foretaste.errors import ConfigError
from foretaste.exams.paper import load_paper
from foretaste.registers import trainable


def sources_of(name: str) -> tuple[str, ...]:
    """Return a paper's families as `curriculum.sources`: `ENV@LEVEL/REGISTER`, in the paper's order.

    Wordings of held-out families are left out, unless the environment renders them itself.

    Raises: ConfigError for a sealed paper, one that there is not, or one without any wording to train on.
    """
    paper = load_paper(name)
    if paper.sealed:
        raise ConfigError(
            f"Paper {name!r} is sealed: what is practised on it measures nothing afterwards. Accepted: a public paper "
            "(sealed = false), for example `practice`; or name environments in curriculum.sources"
        )
    found = {
        f"{family.env}@{level}/{register}": None
        for family in paper.families
        for level in family.levels
        for register in family.registers
        if register in trainable() or register in native(make(family.env))
    }
    if not found:
        raise ConfigError(
            f"Paper {name!r} asks in wordings of held-out families alone, which nobody trains on. Accepted among "
            f"others: {', '.join(trainable())}"
        )
    return tuple(found)
