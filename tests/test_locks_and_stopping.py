"""A lock that dies with its process, and signals that end a process at a moment when nothing is half done."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from foretaste.errors import RunError, Terminated
from foretaste.locks import is_held, only_one
from foretaste.stopping import later, terminable

HOLDING = """
import sys, time
from pathlib import Path
from foretaste.locks import only_one
with only_one(Path(sys.argv[1]), "Run r"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_who_comes_second_is_told_who_holds_the_lock_until_that_process_is_killed(tmp_path: Path) -> None:
    file = tmp_path / "run" / "running.lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLDING, str(file)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    assert is_held(file)
    with (
        pytest.raises(RunError, match=f"Run r is going on in another process \\(process {holder.pid}\\)"),
        only_one(file, "Run r"),
    ):
        raise AssertionError("two at once")
    holder.kill()
    holder.communicate()
    assert not is_held(file)
    with only_one(file, "Run r"):
        assert is_held(file)
    assert not is_held(file)


def test_a_thread_is_kept_out_as_another_process_is(tmp_path: Path) -> None:
    said: list[str] = []

    def second() -> None:
        try:
            with only_one(tmp_path / "lock", "Run r"):
                said.append("two at once")
        except RunError as error:
            said.append(str(error))

    with only_one(tmp_path / "lock", "Run r"):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert len(said) == 1
    assert f"(process {os.getpid()})" in said[0]


def test_a_lock_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(RunError, match=r"Cannot lock .* Name a folder you can write to"),
        only_one(tmp_path / "file" / "lock", "Run r"),
    ):
        pass


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_end_is_an_interruption_with_its_own_exit_code(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Terminated) as ended, terminable():
        signal.raise_signal(number)
    assert ended.value.exit_code == 128 + number
    assert signal.getsignal(number) is before


def test_what_is_half_done_is_finished_first_and_a_second_signal_does_not_wait() -> None:
    done: list[int] = []

    def work(signals: int) -> None:
        with terminable():
            with later():
                with later():
                    for _ in range(signals):
                        signal.raise_signal(signal.SIGTERM)
                    done.append(1)
                done.append(2)
            done.append(3)

    with pytest.raises(Terminated):
        work(1)
    assert done == [1, 2]
    with pytest.raises(Terminated):
        work(2)
    assert done == [1, 2]
    work(0)  # nothing is left over from before
    assert done == [1, 2, 1, 2, 3]


def test_a_programs_own_handler_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        with terminable():
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM]


def test_an_error_inside_is_not_replaced_by_a_signal_that_waits() -> None:
    def work() -> None:
        with terminable(), later():
            signal.raise_signal(signal.SIGTERM)
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        work()
