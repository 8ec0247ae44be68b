"""foretaste: train language-model agents that know early whether they are going wrong.

    import foretaste
    checkpoint = foretaste.train(foretaste.TrainConfig(env=foretaste.EnvConfig("maze")))

Names are imported when they are first used, so that `import foretaste` itself costs nothing.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

# Read by OpenMP when torch is imported. A thread that waits awake for the others of a parallel loop holds a core that
# they may need, if other programs hold the rest. So it waits awake for some microseconds, as the next loop of an
# unhindered run takes to begin, and asleep after that.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # GNU's runtime, which PyTorch's builds for Linux bring: turns
    os.environ.setdefault("KMP_BLOCKTIME", "1")  # LLVM's and Intel's: milliseconds

if TYPE_CHECKING:
    from foretaste.api import train as train
    from foretaste.config import AlgorithmConfig as AlgorithmConfig
    from foretaste.config import EnvConfig as EnvConfig
    from foretaste.config import HeldOutConfig as HeldOutConfig
    from foretaste.config import ImitateConfig as ImitateConfig
    from foretaste.config import ModelConfig as ModelConfig
    from foretaste.config import SamplingConfig as SamplingConfig
    from foretaste.config import TrainConfig as TrainConfig
    from foretaste.config import load_recipe as load_recipe
    from foretaste.config import to_toml as to_toml
    from foretaste.envs.base import TextEnv as TextEnv
    from foretaste.envs.check import check_env as check_env
    from foretaste.envs.registry import make as make
    from foretaste.envs.registry import register_env as register_env
    from foretaste.errors import ForetasteError as ForetasteError
    from foretaste.ledger import Ledger as Ledger
    from foretaste.models.checkpoint import load as load
    from foretaste.progress import RichProgress as RichProgress
    from foretaste.records import Checkpoint as Checkpoint
    from foretaste.records import Episode as Episode

_HOMES = {
    "train": "foretaste.api",
    "AlgorithmConfig": "foretaste.config",
    "EnvConfig": "foretaste.config",
    "HeldOutConfig": "foretaste.config",
    "ImitateConfig": "foretaste.config",
    "ModelConfig": "foretaste.config",
    "SamplingConfig": "foretaste.config",
    "TrainConfig": "foretaste.config",
    "load_recipe": "foretaste.config",
    "to_toml": "foretaste.config",
    "TextEnv": "foretaste.envs.base",
    "check_env": "foretaste.envs.check",
    "make": "foretaste.envs.registry",
    "register_env": "foretaste.envs.registry",
    "ForetasteError": "foretaste.errors",
    "Ledger": "foretaste.ledger",
    "load": "foretaste.models.checkpoint",
    "RichProgress": "foretaste.progress",
    "Checkpoint": "foretaste.records",
    "Episode": "foretaste.records",
}
"""Each public name, and the module that defines it; the imports above say the same to type checkers."""

__all__ = sorted(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'foretaste' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
