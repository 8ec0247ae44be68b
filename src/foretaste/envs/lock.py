"""`lock`: a tunable chain of choices, for studying how credit travels back to an early mistake.

Everything that makes credit hard is a separate knob: how long the episode is, how likely a random
policy is to succeed, and when a mistake can be seen. What is to be learned (which word answers
which cue) is drawn afresh for every `table`, so a method tuned on some tables is scored on others.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, NamedTuple, get_args

from foretaste.envs.base import TextEnv
from foretaste.envs.seeds import seed_for
from foretaste.errors import ConfigError, unknown

Visibility = Literal["at once", "late", "silent"]
"""When a fatal mistake shows: on the next turn, `delay` turns after it, or only as the outcome.

A late mistake that close to the end shows only as the outcome too."""

RESPONSES = ("red", "blue", "green", "gold", "white", "black", "pink", "grey")
CUES = (
    "apple", "arrow", "badge", "bell", "bird", "boat", "book", "bridge", "brush", "candle", "card", "chair", "clock",
    "cloud", "coin", "crown", "cup", "drum", "engine", "feather", "fern", "fish", "flag", "flute", "fork", "fox",
    "glove", "goat", "hammer", "hat", "horn", "house", "island", "jar", "kite", "ladder", "lamp", "leaf", "lion",
    "map", "mask", "mill", "moon", "needle", "nest", "oak", "oar", "paper", "pearl", "pipe", "plum", "ring", "river",
    "rope", "rose", "sail", "shell", "ship", "snow", "spoon", "star", "stone", "table", "tower", "train", "tree",
    "wheel", "whale", "window", "wolf",
)  # fmt: skip
TERSE_CUES = tuple("abcdefghijklmnopqrstuvwxyz0123456789")
EXAMPLE_CUES = ("desk", "pond", "sock", "vase")
"""Only in worked examples, so that these show the form of a reply and nothing of any table."""
_EXAMPLE_TURNS = 3


class Chain(NamedTuple):
    """The settings of a lock."""

    horizon: int
    choices: int
    critical: int
    accepted: int
    visibility: Visibility


LEVELS = {
    1: Chain(horizon=10, choices=4, critical=4, accepted=3, visibility="late"),
    2: Chain(horizon=20, choices=4, critical=8, accepted=3, visibility="late"),
    3: Chain(horizon=40, choices=4, critical=12, accepted=3, visibility="late"),
    4: Chain(horizon=80, choices=4, critical=20, accepted=3, visibility="late"),
}


class Table(NamedTuple):
    """The rules: which words each critical cue accepts; idle cues accept anything."""

    accepted: dict[str, frozenset[str]]
    idle: tuple[str, ...]


class Lock(TextEnv):
    """Answer a cue word every turn; one wrong answer to a critical cue ruins the episode.

    Each of `horizon` turns shows a cue. For critical cues the rule table lists which of the
    `choices` words are accepted (`accepted` of them); any other text is a fatal mistake. Idle cues
    accept anything. An episode shows exactly `critical` critical cues, at random turns; cues look
    alike, so which ones matter must be learned as well. Reward and success: 1 after the last turn
    if no mistake was made, else 0.

    A uniformly random choice policy succeeds with probability (accepted / choices) ** critical,
    see `random_success`. Level presets (all with mistakes that show 3 turns later):

    | level | horizon | critical | accepted of choices | starting success |
    |---|---|---|---|---|
    | 1 | 10 | 4 | 3 of 4 | .316 |
    | 2 | 20 | 8 | 3 of 4 | .100 |
    | 3 | 40 | 12 | 3 of 4 | .032 |
    | 4 | 80 | 20 | 3 of 4 | .0032 |

    An argument that is given replaces the preset's value at every level. If `choices` is given and
    `accepted` is not, one word is accepted, so Lock(horizon=80, choices=2, critical=5) starts at 1/32.

    By default a ruined episode still runs to the horizon. Ending it early would itself tell of the
    mistake, even a silent one, and would make failures shorter than successes, so that a method
    that counts tokens gains from failing. With `end_on_ruin=True` the episode ends on the turn on
    which the mistake shows; a silent one still shows only at the horizon.

    With `terse=True` an observation is the cue alone, a letter or a digit, with "!" behind it once a mistake shows:
    about a third of the tokens, for studies of many runs by tiny decoders that learn the form from demonstrations.

    `privileged`: whether the episode is ruined already, and how many critical cues are left.
    Same table, other seeds: other orders of the same cues. Splits do not change the table.
    """

    name: ClassVar[str] = "lock"
    instructions: ClassVar[str] = (
        "Each turn shows a cue. Answer it with one of the words named on the first turn. "
        "A wrong answer to some of the cues jams the lock for good. Open it by keeping it free to the last turn."
    )
    levels: ClassVar[range] = range(1, 5)

    def __init__(
        self,
        level: int | None = None,
        *,
        horizon: int | None = None,
        choices: int | None = None,
        critical: int | None = None,
        accepted: int | None = None,
        visibility: Visibility | None = None,
        delay: int = 3,
        table: int = 0,
        tables: int = 1,
        cues: int = 8,
        end_on_ruin: bool = False,
        terse: bool = False,
    ) -> None:
        """Choose a preset, replace any of its values, and draw the rule table.

        Args:
            horizon: turns of an episode.
            choices: words to choose from, 2 to 8.
            critical: turns of an episode on which a mistake is fatal.
            accepted: words that a critical cue accepts.
            visibility: when a mistake shows, see `Visibility`.
            delay: turns after which a `late` mistake shows.
            table: seed of the rule table.
            tables: with more than one, each episode draws one of so many, with seeds from `table` on: no rule can be
                learned, only what holds for all of them.
            cues: critical cues in the table, and as many idle ones.
            end_on_ruin: end the episode when a mistake shows.
            terse: show cues of one character, and nothing else.

        Raises: ConfigError for values that make no lock.
        """
        super().__init__(level)
        if choices is not None and accepted is None:
            accepted = 1
        given: dict[str, Any] = {"horizon": horizon, "choices": choices, "critical": critical}
        given |= {"accepted": accepted, "visibility": visibility}
        self.replaced = {name: value for name, value in given.items() if value is not None}
        self.delay = delay
        self.table_seed, self.tables = table, tables
        self.cues = cues
        self.end_on_ruin = end_on_ruin
        self.terse = terse
        self._check(self.chain)

    @property
    def chain(self) -> Chain:
        """The settings in force at the current level."""
        return LEVELS[self.level]._replace(**self.replaced)

    @property
    def _vocabulary(self) -> Sequence[str]:
        return TERSE_CUES if self.terse else CUES

    def begin(self) -> tuple[str, dict[str, Any]]:
        """Lay out the cues of an episode."""
        chain = self.chain
        self._check(chain)
        seed = self.table_seed + (self.random.randrange(self.tables) if self.tables > 1 else 0)
        self.table = draw_table(seed, chain.choices, chain.accepted, self.cues, self._vocabulary)
        matters = set(self.random.sample(range(chain.horizon), chain.critical))
        rows = sorted(self.table.accepted)
        self.sequence = [
            self.random.choice(rows if turn in matters else self.table.idle) for turn in range(chain.horizon)
        ]
        self.ruined_at: int | None = None
        self._uniform = random.Random(f"lock-uniform:{self.seed}")
        return self._opening(self._observation(0)), self._info(0)

    def act(self, action: str) -> tuple[str, float, bool, dict[str, Any]]:
        """Take an answer; case and surrounding punctuation do not matter."""
        chain, turn = self.chain, self.turn
        accepted = self.table.accepted.get(self.sequence[turn])
        if (
            accepted is not None
            and self.ruined_at is None
            and action.strip(" \t\r\n.,!?:;\"'`*").lower() not in accepted
        ):
            self.ruined_at = turn
        following = turn + 1
        if following == chain.horizon:
            opened = self.ruined_at is None
            words = "The lock opens." if opened else "The lock stays shut."
            return words, float(opened), True, {**self._info(following), "success": float(opened)}
        if self.end_on_ruin and self._shows(following):
            return "The lock is jammed for good.", 0.0, True, {**self._info(following), "success": 0.0}
        return self._observation(following), 0.0, False, self._info(following)

    def oracle(self) -> str:
        """Return an accepted word, another one every turn where several are accepted."""
        words = RESPONSES[: self.chain.choices]
        accepted = self.table.accepted.get(self.sequence[self.turn], frozenset(words))
        allowed = [word for word in words if word in accepted]
        return allowed[self.turn % len(allowed)]

    def uniform_action(self) -> str:
        """Return a uniformly random choice word: imitating this gives a policy that knows the form and no rule."""
        return self._uniform.choice(RESPONSES[: self.chain.choices])

    def identity(self) -> str:
        """Return the cues in their order, and the rules."""
        rules = [(cue, sorted(words)) for cue, words in self.table.accepted.items()]
        return repr(("lock", self.chain, self.delay, self.end_on_ruin, rules, self.sequence))

    def max_turns(self) -> int:
        """Return the horizon."""
        return self.chain.horizon

    def worked_examples(self, count: int, level: int) -> list[list[tuple[str, str]]]:
        """Return short exchanges with cues that occur in no table: they show the form and give no rule away."""
        chain = LEVELS[level]._replace(**self.replaced)
        words = RESPONSES[: chain.choices]
        played = []
        for index in range(count):
            draw = random.Random(seed_for("example", index))
            cues = draw.sample(EXAMPLE_CUES, min(_EXAMPLE_TURNS, chain.horizon))
            shown = [self._line(turn, cue, jammed=False) for turn, cue in enumerate(cues)]
            shown[0] = self._opening(shown[0], chain)
            played.append([(observation, draw.choice(words)) for observation in shown])
        return played

    def _shows(self, turn: int) -> bool:
        """Return whether the observation of a turn (counted from 0) shows that the episode is ruined."""
        visibility = self.chain.visibility
        if self.ruined_at is None or visibility == "silent":
            return False
        return turn - self.ruined_at >= (1 if visibility == "at once" else self.delay)

    def _observation(self, turn: int) -> str:
        return self._line(turn, self.sequence[turn], jammed=self._shows(turn))

    def _line(self, turn: int, cue: str, *, jammed: bool) -> str:
        if self.terse:
            return f"{cue}!" if jammed else cue
        return f"Turn {turn + 1}. {'Jammed. ' if jammed else ''}Cue {cue}."

    def _opening(self, shown: str, chain: Chain | None = None) -> str:
        chain = chain or self.chain
        words = " ".join(RESPONSES[: chain.choices])
        return shown if self.terse else f"Words: {words}. Turns: {chain.horizon}. {shown}"

    def _info(self, turn: int) -> dict[str, Any]:
        left = sum(cue in self.table.accepted for cue in self.sequence[turn:])
        return {"privileged": f"{'sound' if self.ruined_at is None else 'ruined'}, {left} critical left"}

    def _check(self, chain: Chain) -> None:
        """Raise ConfigError for settings that make no lock."""
        most = len(self._vocabulary) // 2
        faults = [
            (not 1 <= chain.horizon <= 1000, f"horizon is {chain.horizon}; it must be 1 to 1000"),
            (not 2 <= chain.choices <= len(RESPONSES), f"choices is {chain.choices}; it must be 2 to {len(RESPONSES)}"),
            (
                not 0 <= chain.critical <= chain.horizon,
                f"critical is {chain.critical}; it must be 0 to the horizon, {chain.horizon}",
            ),
            (
                not 1 <= chain.accepted <= chain.choices,
                f"accepted is {chain.accepted}; it must be 1 to choices, {chain.choices}",
            ),
            (not 1 <= self.cues <= most, f"cues is {self.cues}; it must be 1 to {most}"),
            (self.tables < 1, f"tables is {self.tables}; it must be at least 1"),
            (self.delay < 1, f"delay is {self.delay}; it must be at least 1"),
        ]
        for wrong, message in faults:
            if wrong:
                raise ConfigError(f"This lock cannot be built: {message}")
        if chain.visibility not in get_args(Visibility):
            raise ConfigError(unknown("visibility", str(chain.visibility), get_args(Visibility)))


def random_success(choices: int, critical: int, accepted: int = 1) -> float:
    """Return the success probability of a uniformly random choice policy: (accepted / choices) ** critical.

    Exact, since the critical cues of an episode are answered independently and idle cues do not matter.
    """
    return (accepted / choices) ** critical


def draw_table(seed: int, choices: int, accepted: int, cues: int, vocabulary: Sequence[str] = CUES) -> Table:
    """Return the rule table of a seed: `cues` critical cues with their accepted words, and `cues` idle ones.

    Every word is accepted by as many cues as any other, or one more: no word is a better answer than the others to a
    policy that ignores the cue, which would otherwise be a trap that every method falls into.
    """
    draw = random.Random(f"lock-table:{seed}:{choices}:{accepted}:{cues}")
    chosen = draw.sample(vocabulary, 2 * cues)
    words = draw.sample(RESPONSES[:choices], choices)
    table = {
        cue: frozenset(words[(place * accepted + offset) % choices] for offset in range(accepted))
        for place, cue in enumerate(chosen[:cues])
    }
    return Table(table, tuple(chosen[cues:]))
