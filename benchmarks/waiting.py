"""How training fares beside other work, by how long its threads wait awake: `python -m benchmarks.waiting`.

Every parallel loop of PyTorch ends with threads that wait for the slowest. A thread that waits awake holds a core that
the slowest needs, if other programs hold the rest. Each setting is measured in a process of its own, in turns, alone
and beside `--busy` processes that compute without end; what is printed is the median of the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

SETTINGS: dict[str, dict[str, str]] = {
    "awake (the runtime's default)": {"GOMP_SPINCOUNT": "300000"},
    "foretaste's": {},
    "asleep at once": {"OMP_WAIT_POLICY": "PASSIVE"},
}
"""Environment of each process."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--busy", type=int, default=8, help="other processes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--spin", nargs="*", default=[], metavar="COUNT", help="values of GOMP_SPINCOUNT to add")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(learn(given.model, given.seconds)))
        return
    settings = SETTINGS | {f"GOMP_SPINCOUNT = {count}": {"GOMP_SPINCOUNT": count} for count in given.spin}
    times: dict[tuple[str, int], list[float]] = {}
    for _ in range(given.rounds):
        for busy in (0, given.busy):
            others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
            try:
                for name, environment in settings.items():
                    times.setdefault((name, busy), []).append(_child(given, environment))
            finally:
                for other in others:
                    other.kill()
                    other.wait()
    print(f"ms a pass, forward and backward, {given.model}, {given.threads} threads\n")
    print(f"| threads that wait | alone | beside {given.busy} busy processes | ratio |\n|---|---|---|---|")
    for name in settings:
        alone, beside = (statistics.median(times[name, busy]) for busy in (0, given.busy))
        print(f"| {name} | {alone:.1f} | {beside:.1f} | {beside / alone:.1f} |")


def _child(given: argparse.Namespace, environment: dict[str, str]) -> float:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}
    command = [sys.executable, "-m", "benchmarks.waiting", "--child", "--model", given.model]
    done = subprocess.run(
        [*command, "--seconds", str(given.seconds)],
        env={**kept, "OMP_NUM_THREADS": str(given.threads), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(json.loads(done.stdout.splitlines()[-1])["ms"])


def learn(name: str, seconds: float) -> dict[str, Any]:
    """Take passes of 64 sequences of 32 tokens for some seconds; return the mean milliseconds of one."""
    from benchmarks.growth import training_pass
    from foretaste.config import ModelConfig
    from foretaste.models.actor_critic import ActorCritic

    one = training_pass(ActorCritic.load(ModelConfig(name)), 64, 32)
    one()
    begun, passes = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        one()
        passes += 1
    return {"ms": 1000 * (time.perf_counter() - begun) / passes}


if __name__ == "__main__":
    main()
