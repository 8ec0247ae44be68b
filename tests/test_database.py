"""What the ledger and a deployment's store share."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from foretaste.deploy.database import open_engine, writing


def test_a_thread_that_writes_without_pause_does_not_keep_others_out(tmp_path: Path) -> None:
    engine = open_engine(tmp_path, wait_seconds=0.5)
    stop, holds = threading.Event(), threading.Event()

    def write_without_pause() -> None:
        while not stop.is_set():
            with writing(engine):
                holds.set()
                time.sleep(0.15)  # a disk that takes its time

    busy = threading.Thread(target=write_without_pause)
    busy.start()
    try:
        for _ in range(3):
            holds.clear()
            assert holds.wait(10)
            with writing(engine) as connection:
                assert connection.in_transaction()
    finally:
        stop.set()
        busy.join()
        engine.dispose()
