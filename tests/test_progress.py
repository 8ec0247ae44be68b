"""The live display and its plain form, driven by hand."""

import io

import pytest
from rich.console import Console

from foretaste.progress import RichProgress, Silent, duration, sparkline


class Clock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def play(progress: RichProgress, clock: Clock) -> None:
    with progress:
        progress.phase("held-out before", 64)
        progress.advance(64)
        progress.phase("train", 4)
        for step in (1, 2):
            clock.now += 10
            values = {"train/success": 0.25 * step, "train/sampled_tokens": 600.0, "time/sample_seconds": 3.0}
            progress.metrics(step, values)
            progress.advance()
        progress.note("knob: [env.level]")
        progress.phase("held-out after", 64)


def test_without_a_terminal_each_phase_and_step_is_one_line() -> None:
    output, clock = io.StringIO(), Clock()
    play(RichProgress(steps=4, console=Console(file=output, width=60), clock=clock), clock)
    assert output.getvalue().splitlines() == [
        "held-out before (64)",
        "train (4)",
        "step 1/4  success 0.250  200 tokens/s",
        "step 2/4  success 0.500  200 tokens/s  20 s left",
        "knob: [env.level]",
        "held-out after (64)",
    ]


def test_on_a_terminal_the_display_shows_phase_sparkline_and_time_left() -> None:
    output, clock = io.StringIO(), Clock()
    console = Console(file=output, width=100, force_terminal=True, color_system=None)
    progress = RichProgress(steps=4, console=console, clock=clock)
    play(progress, clock)
    shown = output.getvalue()
    assert "held-out after" in shown
    assert sparkline([0.25, 0.5]) in shown
    assert "20 s left" in shown
    assert "knob: [env.level]" in shown


def test_a_failing_run_gives_the_terminal_back() -> None:
    output = io.StringIO()
    progress = RichProgress(console=Console(file=output, force_terminal=True))

    def run() -> None:
        with progress:
            progress.phase("train", 1)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        run()
    assert "\x1b[?25l" in output.getvalue(), "the display hides the cursor"
    assert "\x1b[?25h" in output.getvalue(), "and shows it again"


def test_time_left_needs_two_steps_and_never_goes_below_zero() -> None:
    clock = Clock()
    progress = RichProgress(steps=1, console=Console(file=io.StringIO()), clock=clock)
    assert progress.seconds_left() is None
    progress.metrics(1, {})
    assert progress.seconds_left() is None
    clock.now = 5.0
    progress.metrics(2, {})
    assert progress.seconds_left() == 0.0


def test_silence_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    silent = Silent()
    silent.phase("train", 3)
    silent.advance()
    silent.metrics(1, {"train/success": 1.0})
    silent.note("note")
    assert capsys.readouterr() == ("", "")


def test_a_sparkline_has_the_height_of_its_values() -> None:
    assert sparkline([0.0, 0.5, 1.0, 2.0, -1.0]) == "▁▅██▁"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")]
)
def test_durations_read_as_a_person_says_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_live_display_draws_what_the_terminals_encoding_has() -> None:
    class Terminal(io.TextIOWrapper):
        def isatty(self) -> bool:
            return True

    for encoding, marks in (("cp1252", "_.-:=+*#"), ("utf-8", "▁▂▃▄▅▆▇█")):
        raw = io.BytesIO()
        console = Console(file=Terminal(raw, encoding=encoding), force_terminal=True, width=80)
        with RichProgress(steps=2, console=console) as progress:
            progress.phase("train", 2)
            progress.metrics(1, {"train/success": 0.0})
            progress.metrics(2, {"train/success": 1.0})
            console.print(progress._render())
        console.file.flush()
        assert f"success {marks[0]}{marks[-1]} 1.00" in raw.getvalue().decode(encoding)
