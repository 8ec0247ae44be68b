"""`maze`: walk to a key, open the locked door, reach the goal; one word a turn, up to 96 turns at least.

The plan of a maze is drawn in `maze_grid.py`; this file is the game played on it.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

from foretaste.envs.base import TextEnv, demonstrate
from foretaste.envs.maze_grid import DIRECTIONS, Cell, Size, draw_plan, shortest_solution, step_from
from foretaste.envs.seeds import seed_for

LEVELS = {
    1: Size(3, 2, 4, 6, 20),
    2: Size(4, 3, 6, 9, 24),
    3: Size(5, 5, 9, 15, 36),
    4: Size(8, 6, 15, 26, 56),
    5: Size(12, 9, 28, 48, 96),
    6: Size(26, 24, 80, 96, 160),
}

_ACTIONS = {"n": "north", "s": "south", "e": "east", "w": "west", "take": "take", "open": "open"}
_ACTIONS |= {name: name for name in DIRECTIONS}
_FILLER = frozenset(["go", "move", "walk", "step", "i", "the", "a", "key", "door", "to", "action", "now", "please"])
_WORD = re.compile(r"[a-z]+")
_LONGEST_ACTION = 80


class Maze(TextEnv):
    """Fetch the key, open the door, reach the goal, on a grid with walls.

    Two rooms are separated by a wall with one locked door; the key lies in the first, the goal in
    the second. Each observation gives the position, the open directions, those that lead back to
    cells already visited ("been"), and how far things are, as the crow flies. Walls farther away are
    not shown, so the straight way may be blocked. Actions: north, south, east, west, take, open.

    Success and reward: 1 on reaching the goal. Levels set the length of the shortest solution:

    | level | cells | shortest solution, turns | limit, turns |
    |---|---|---|---|
    | 1 | 3 x 2 | 4 to 6 | 20 |
    | 2 | 4 x 3 | 6 to 9 | 24 |
    | 3 | 5 x 5 | 9 to 15 | 36 |
    | 4 | 8 x 6 | 15 to 26 | 56 |
    | 5 | 12 x 9 | 28 to 48 | 96 |
    | 6 | 26 x 24 | 80 to 96 | 160 |

    A level-6 conversation has about 33 tokens a turn with nano: give it a `max_context` of 6144 or more.

    Difficulty: one reward at the end of a long walk, three errands in order, and detours round walls
    that must be remembered. Training, practice and sealed mazes are never the same maze.
    `privileged`: the next step of a shortest path and how many turns it takes.
    """

    name: ClassVar[str] = "maze"
    instructions: ClassVar[str] = (
        "Go to the key and take it, go to the door and open it, then go to the goal. "
        "Reply with one action: north, south, east, west, take or open."
    )
    levels: ClassVar[range] = range(1, 7)

    def begin(self) -> tuple[str, dict[str, Any]]:
        """Draw a maze of the level."""
        self.plan = draw_plan(LEVELS[self.level], self.split, self.random)
        self.cell: Cell = self.plan.start
        self.visited = {self.cell}
        self.has_key = False
        self.door_open = False
        return self._observation(), self._info()

    def act(self, action: str) -> tuple[str, float, bool, dict[str, Any]]:
        """Do one action; one that is not understood or not possible costs the turn."""
        note = self._do(understand(action))
        if self.cell == self.plan.goal:
            return "You reached the goal.", 1.0, True, {"success": 1.0, "privileged": "done"}
        info = self._info()
        if self.turn + 1 >= self.max_turns():
            info["success"] = 0.0
        return f"{note} {self._observation()}".strip(), 0.0, False, info

    def oracle(self) -> str:
        """Return the next action of a shortest solution (breadth-first search)."""
        near, direction = self.plan.door
        if self.door_open and self._in_goal_room():
            return self.plan.towards(self.cell, self.plan.goal)
        if not self.has_key:
            return "take" if self.cell == self.plan.key else self.plan.towards(self.cell, self.plan.key)
        if self.cell != near:
            return self.plan.towards(self.cell, near)
        return direction if self.door_open else "open"

    def identity(self) -> str:
        """Return the plan; the first observation shows the start of it alone."""
        return self.plan.text()

    def remaining(self) -> int:
        """Return the turns that a shortest solution still takes."""
        near, _ = self.plan.door
        if self._in_goal_room():
            return self.plan.distance(self.cell, self.plan.goal)
        rest = 1 + self.plan.distance(self.plan.goal, self.plan.behind) + (not self.door_open)
        if self.has_key:
            return self.plan.distance(self.cell, near) + rest
        return self.plan.distance(self.cell, self.plan.key) + 1 + self.plan.distance(self.plan.key, near) + rest

    def shortest(self) -> int:
        """Return the turns of a shortest solution from the start."""
        return shortest_solution(self.plan)

    def max_turns(self) -> int:
        """Return the limit of the level; see the table above."""
        return LEVELS[self.level].turns

    def worked_examples(self, count: int, level: int) -> list[list[tuple[str, str]]]:
        """Return whole solutions of level 1, whatever the level: the rules are the same and the prompt stays short."""
        return [demonstrate(self, seed_for("example", index), level=1) for index in range(count)]

    def _do(self, action: str | None) -> str:
        """Change the state; return what was wrong, or ""."""
        near, direction = self.plan.door
        if action is None:
            return "Unknown action."
        if action == "take":
            if self.has_key or self.cell != self.plan.key:
                return "No key here."
            self.has_key = True
            return ""
        if action == "open":
            if self.cell != near or self.door_open:
                return "No door here."
            if not self.has_key:
                return "Locked."
            self.door_open = True
            return ""
        if action not in self._ways():
            return "Locked." if (self.cell, action) == (near, direction) else "Wall."
        self.cell = step_from(self.cell, action)
        self.visited.add(self.cell)
        return ""

    def _ways(self) -> list[str]:
        """Return the directions in which one can walk now; an open door leads both ways."""
        ways = self.plan.open_directions(self.cell)
        if self.door_open:
            near, behind = self.plan.door[0], self.plan.behind
            through = {near: behind, behind: near}.get(self.cell)
            ways = [name for name in DIRECTIONS if name in ways or step_from(self.cell, name) == through]
        return ways

    def _in_goal_room(self) -> bool:
        """Return whether the door has been passed; the rooms are connected by nothing else."""
        near, direction = self.plan.door
        if direction == "east":
            return self.cell[0] > near[0]
        return self.cell[0] < near[0]

    def _observation(self) -> str:
        ways = self._ways()
        been = [name for name in ways if step_from(self.cell, name) in self.visited]
        lines = [f"At {self.cell[0]},{self.cell[1]}. Open {' '.join(ways) or 'nowhere'}."]
        if been:
            lines.append(f"Been {' '.join(been)}.")
        if not self.has_key:
            lines.append(f"Key {self._bearing(self.plan.key)}.")
        elif not self.door_open:
            near, direction = self.plan.door
            lines.append(f"Door {direction if self.cell == near else self._bearing(near)}.")
        else:
            lines.append(f"Goal {self._bearing(self.plan.goal)}.")
        return " ".join(lines)

    def _bearing(self, target: Cell) -> str:
        """Return "2 east 1 south", or "here"."""
        dx, dy = target[0] - self.cell[0], target[1] - self.cell[1]
        parts = [f"{abs(dx)} {'east' if dx > 0 else 'west'}"] if dx else []
        parts += [f"{abs(dy)} {'south' if dy > 0 else 'north'}"] if dy else []
        return " ".join(parts) or "here"

    def _info(self) -> dict[str, Any]:
        return {"privileged": f"{self.oracle()}, {self.remaining()} left"}


def understand(action: str) -> str | None:
    """Return the one action that a text names, in any case and punctuation; None if it names none or several."""
    if len(action) > _LONGEST_ACTION:
        return None
    words = _WORD.findall(action.lower())
    named = [_ACTIONS[word] for word in words if word in _ACTIONS]
    rest = [word for word in words if word not in _ACTIONS and word not in _FILLER]
    return named[0] if len(named) == 1 and not rest else None
