"""The floor plan of `maze`: two rooms with walls, one locked door between them, and shortest paths.

Cells are (x, y), x growing east and y growing south. A plan is drawn so that the shortest way from
the start over the key and the door to the goal has a length that the level asks for.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from foretaste.envs.partition import belongs
from foretaste.envs.seeds import Split
from foretaste.errors import EnvError

Cell = tuple[int, int]
DIRECTIONS: dict[str, Cell] = {"north": (0, -1), "south": (0, 1), "east": (1, 0), "west": (-1, 0)}

_OPPOSITE = {"north": "south", "south": "north", "east": "west", "west": "east"}
_WALLED_SHARE = 0.5
_FLOORS = 500
_PLACES = 8


class Size(NamedTuple):
    """What a level asks for."""

    width: int
    height: int
    shortest: int
    """Fewest turns that a solution may take, taking the key and opening the door included."""
    longest: int
    turns: int
    """Turns that the task allows."""


Passages = dict[Cell, dict[str, Cell]]
"""Where each cell leads: direction -> neighbouring cell, the door left out."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One maze: passages, and where things are."""

    width: int
    height: int
    passages: Passages
    start: Cell
    key: Cell
    door: tuple[Cell, str]
    """The cell in front of the door and the direction in which the door lies."""
    goal: Cell
    _distances: dict[Cell, dict[Cell, int]] = field(default_factory=dict, compare=False, repr=False)

    @property
    def behind(self) -> Cell:
        """The cell on the other side of the door."""
        return step_from(*self.door)

    def open_directions(self, cell: Cell) -> list[str]:
        """Return the directions without a wall or the door, in the order north, south, east, west."""
        return [name for name in DIRECTIONS if name in self.passages[cell]]

    def distance(self, cell: Cell, target: Cell) -> int:
        """Return the moves between two cells of one room."""
        if target not in self._distances:
            self._distances[target] = distances(target, self.passages)
        return self._distances[target][cell]

    def towards(self, cell: Cell, target: Cell) -> str:
        """Return the first direction of a shortest path to another cell of the same room."""
        ways = self.passages[cell]
        return min(self.open_directions(cell), key=lambda name: self.distance(ways[name], target))

    def text(self) -> str:
        """Return everything that makes this maze what it is; equal mazes have equal text."""
        passages = [(cell, sorted(ways)) for cell, ways in sorted(self.passages.items())]
        return repr((self.width, self.height, passages, self.start, self.key, self.door, self.goal))


def step_from(cell: Cell, direction: str) -> Cell:
    """Return the neighbouring cell in a direction, whether it exists or not."""
    dx, dy = DIRECTIONS[direction]
    return cell[0] + dx, cell[1] + dy


def distances(source: Cell, passages: Passages) -> dict[Cell, int]:
    """Return the moves from `source` to every cell that can be reached (breadth-first search)."""
    found = {source: 0}
    queue = deque([source])
    while queue:
        cell = queue.popleft()
        for following in passages[cell].values():
            if following not in found:
                found[following] = found[cell] + 1
                queue.append(following)
    return found


def shortest_solution(plan: Plan) -> int:
    """Return the turns of a shortest solution: moves, one to take the key, one to open, one through the door."""
    near, _ = plan.door
    to_door = plan.distance(plan.start, plan.key) + plan.distance(plan.key, near)
    return to_door + 3 + plan.distance(plan.goal, plan.behind)


def draw_plan(size: Size, split: Split, rng: random.Random) -> Plan:
    """Draw a maze of the split whose shortest solution lies in the size's range.

    Raises: EnvError if none is found, which means that the size asks for the impossible.
    """
    for _ in range(_FLOORS):
        floor = _draw_floor(size, rng)
        for _ in range(_PLACES):
            plan = _furnish(floor, size, rng)
            if plan is not None and belongs(plan.text(), split):
                return plan
    raise EnvError(
        f"No maze of {size.width} by {size.height} cells with a shortest path of {size.shortest} to {size.longest} "
        f"turns on {_FLOORS} floors; ask for a larger grid or a wider range"
    )


class _Floor(NamedTuple):
    passages: Passages
    door: tuple[Cell, str]
    start_room: list[Cell]
    goal_room: list[Cell]


def _draw_floor(size: Size, rng: random.Random) -> _Floor:
    """Draw two rooms side by side and the place of the door; the goal lies west as often as east."""
    first, last = max(1, size.width // 3), max(1, size.width - 1 - size.width // 3)
    border = rng.randint(first, last)  # the first column of the east room
    west = [(x, y) for x in range(border) for y in range(size.height)]
    east = [(x, y) for x in range(border, size.width) for y in range(size.height)]
    passages = {**_carve(west, rng), **_carve(east, rng)}
    row = rng.randrange(size.height)
    if rng.random() < 0.5:
        return _Floor(passages, ((border - 1, row), "east"), west, east)
    return _Floor(passages, ((border, row), "west"), east, west)


def _furnish(floor: _Floor, size: Size, rng: random.Random) -> Plan | None:
    """Place key, start and goal; None if nothing fits the key's place."""
    near, direction = floor.door
    key = rng.choice(floor.start_room)
    from_key = distances(key, floor.passages)
    from_door = distances(step_from(near, direction), floor.passages)
    to_door = from_key[near] + 3
    nearest, farthest = size.shortest - to_door, size.longest - to_door  # what start and goal may add
    reach = max(from_door[cell] for cell in floor.goal_room)
    starts = [cell for cell in floor.start_room if cell != key and nearest - reach <= from_key[cell] <= farthest]
    if not starts:
        return None
    start = rng.choice(starts)
    goals = [cell for cell in floor.goal_room if nearest <= from_key[start] + from_door[cell] <= farthest]
    if not goals:
        return None
    return Plan(size.width, size.height, floor.passages, start, key, floor.door, rng.choice(goals))


def _carve(cells: list[Cell], rng: random.Random) -> Passages:
    """Return the passages of one room: a random spanning tree, plus half of the other edges."""
    passages: Passages = {cell: {} for cell in cells}
    start = rng.choice(cells)
    seen, stack = {start}, [start]
    while stack:
        cell = stack[-1]
        ahead = [(name, step_from(cell, name)) for name in DIRECTIONS]
        ahead = [(name, following) for name, following in ahead if following in passages and following not in seen]
        if not ahead:
            stack.pop()
            continue
        name, following = rng.choice(ahead)
        seen.add(following)
        stack.append(following)
        _join(passages, cell, name)
    for cell in cells:
        for name in ("east", "south"):
            free = step_from(cell, name) in passages and name not in passages[cell]
            if free and rng.random() >= _WALLED_SHARE:
                _join(passages, cell, name)
    return passages


def _join(passages: Passages, cell: Cell, direction: str) -> None:
    following = step_from(cell, direction)
    passages[cell][direction] = following
    passages[following][_OPPOSITE[direction]] = cell
