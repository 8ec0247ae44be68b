"""`repair`: mend a small program line by line, seeing after every edit which checks pass.

The language and its evaluator are in `repair_program.py`, the drawing of items in `repair_items.py`.
"""

from __future__ import annotations

from typing import Any, ClassVar

from foretaste.envs.base import TextEnv, demonstrate
from foretaste.envs.repair_items import Shape, draw_item, passes
from foretaste.envs.repair_program import Line, parse_edit, run
from foretaste.envs.seeds import seed_for

_ALL = ("+", "-", "*", "min", "max")
LEVELS = {
    1: Shape(shared=1, outputs=1, bugs=1, turns=4),
    2: Shape(shared=1, outputs=2, bugs=2, turns=6),
    3: Shape(shared=2, outputs=3, bugs=3, turns=10),
    4: Shape(shared=3, outputs=4, bugs=4, turns=14, operators=_ALL),
    5: Shape(shared=3, outputs=5, bugs=6, turns=20, operators=_ALL),
}


class Repair(TextEnv):
    """Mend a program of single assignments until all its checks pass; one line is replaced a turn.

    Each observation shows the numbered program, which checks pass, and of the first failing check
    the input, the result and what is wanted. Each output has two checks with different inputs, and
    no correct output is constant, so a constant never passes both. Any program that passes counts.
    Success and reward: 1 when all checks pass.

    | level | lines | bugs | checks | limit, turns |
    |---|---|---|---|---|
    | 1 | 2 | 1 | 2 | 4 |
    | 2 | 3 | 2 | 4 | 6 |
    | 3 | 5 | 3 | 6 | 10 |
    | 4 | 7 | 4 | 8 | 14 |
    | 5 | 8 | 6 | 10 | 20 |

    Difficulty: from level 2 on two bugs compensate each other in one output (see `repair_items.py`),
    so the mend that the failing check asks for breaks a passing one, and a policy that mends only
    what it is shown swaps two bugs back and forth. Training, practice and sealed programs are never
    the same program. `info["checks"]`: the pass vector. `privileged`: the right text of wrong lines.
    """

    name: ClassVar[str] = "repair"
    instructions: ClassVar[str] = (
        "Mend the program so that all checks pass. Each check runs it with an input a. "
        "Reply with one line to replace, for example 2: x = p + 3. Operators: + - * min max."
    )
    levels: ClassVar[range] = range(1, 6)

    def begin(self) -> tuple[str, dict[str, Any]]:
        """Draw a broken program of the level."""
        self.correct, self.broken, self.checks = draw_item(LEVELS[self.level], self.split, self.random)
        self.program: list[Line] = list(self.broken)
        return self._observation(), self._info()

    def act(self, action: str) -> tuple[str, float, bool, dict[str, Any]]:
        """Replace one line; a reply that is no edit changes nothing and costs the turn."""
        edit = parse_edit(action)
        note = ""
        if edit is None:
            note = "Not an edit.\n"
        elif not 1 <= edit[0] <= len(self.program):
            note = f"No line {edit[0]}.\n"
        else:
            self.program[edit[0] - 1] = edit[1]
        info = self._info()
        if all(info["checks"]):
            return "All checks pass.", 1.0, True, {**info, "success": 1.0}
        if self.turn + 1 >= self.max_turns():
            info["success"] = 0.0
        return f"{note}{self._observation()}", 0.0, False, info

    def oracle(self) -> str:
        """Return the first line that differs from the correct program, corrected."""
        for number, (line, wanted) in enumerate(zip(self.program, self.correct, strict=True), start=1):
            if line != wanted:
                return f"{number}: {wanted}"
        return f"1: {self.correct[0]}"

    def identity(self) -> str:
        """Return the broken program, what mends it, and the checks."""
        return repr((*(tuple(map(str, lines)) for lines in (self.broken, self.correct)), self.checks))

    def max_turns(self) -> int:
        """Return the limit of the level; see the table above."""
        return LEVELS[self.level].turns

    def worked_examples(self, count: int, level: int) -> list[list[tuple[str, str]]]:
        """Return whole repairs, of level 2 at most: the prompt stays short."""
        return [demonstrate(self, seed_for("example", index), level=min(level, 2)) for index in range(count)]

    def _observation(self) -> str:
        lines = [f"{number}: {line}" for number, line in enumerate(self.program, start=1)]
        passing = passes(self.program, self.checks)
        shown: list[str] = []
        for index, (check, passed) in enumerate(zip(self.checks, passing, strict=True)):
            if index % 2 == 0:
                shown.append(check.output)
            shown.append("pass" if passed else "fail")
        failing = self.checks[passing.index(False)]
        got = run(self.program, failing.value).get(failing.output)
        detail = (
            f"a = {failing.value}: {failing.output} is {'nothing' if got is None else got}, want {failing.expected}"
        )
        return "\n".join([*lines, " ".join(shown), detail])

    def _info(self) -> dict[str, Any]:
        pairs = enumerate(zip(self.program, self.correct, strict=True), start=1)
        wrong = [f"{number}: {wanted}" for number, (line, wanted) in pairs if line != wanted]
        return {"checks": passes(self.program, self.checks), "privileged": f"wrong {', '.join(wrong) or 'none'}"}
