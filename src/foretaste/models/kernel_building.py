"""Compile the C kernels, or say why not; load only a library that nobody else could have written.

A library in the cache folder is code that this process will run. It is loaded if it and its folder belong to this
user (or to root) and no other user may write to them; otherwise it is compiled anew into a folder of our own.
`kernels.py` calls what is built here.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import torch

SOURCES = sorted(Path(__file__).parent.glob("kernels*.[ch]"))
SWITCH = "FORETASTE_KERNELS"
"""Environment variable; "off" takes the plain path everywhere."""
TYPES = {torch.float32: [], torch.bfloat16: ["-DBF16"]}
TIMEOUT_SECONDS = 300
_FLAGS = [
    "-O3",
    "-march=native",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fassociative-math",
    "-fno-signed-zeros",
    "-freciprocal-math",
    "-fno-thread-jumps",
    "-std=gnu11",
    "-shared",
    "-fPIC",
]


class Built(NamedTuple):
    """Compiled kernels, or the reason why there are none."""

    library: ctypes.CDLL | None
    reason: str = ""


def build(dtype: torch.dtype, cache: Path) -> Built:
    """Return the kernels for a type of numbers, from `cache` if they are there, else compiled (seconds)."""
    if dtype not in TYPES:
        return Built(None, f"the compiled kernels compute in float32 and bfloat16, not in {str(dtype)[6:]}")
    if os.environ.get(SWITCH) == "off":
        return Built(None, f"{SWITCH} is off")
    try:
        compiler = _compiler()
        file = _private(cache) / f"{_key(compiler, _flags(dtype))}.so"
        if not _trusted(file):
            _compile(compiler, _flags(dtype), file)
        return Built(ctypes.CDLL(str(file)))
    except subprocess.CalledProcessError as error:
        return Built(None, f"the C compiler ({shlex.join(map(str, error.cmd[:2]))} ...) failed: {_last_line(error)}")
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return Built(None, str(error).splitlines()[0])


def _compiler() -> list[str]:
    """Return the command of the C compiler: `CC` may hold arguments, or a wrapper such as ccache."""
    given = os.environ.get("CC", "").strip() or "cc"
    command = shlex.split(given)
    found = shutil.which(command[0])
    if found is None:
        raise OSError(f"there is no C compiler: {command[0]!r} was not found (CC = {given!r})")
    return [found, *command[1:]]


def _flags(dtype: torch.dtype) -> list[str]:
    wide = ["-mprefer-vector-width=512"] if platform.machine() == "x86_64" else []
    return [*_FLAGS, *wide, *TYPES[dtype], *(["-fopenmp"] if _share_openmp() else [])]


@functools.cache
def _version(compiler: tuple[str, ...]) -> str:
    """Return what the compiler says of itself: another version makes other code."""
    done = subprocess.run([*compiler, "--version"], capture_output=True, text=True, check=False, timeout=60)
    return done.stdout + done.stderr


def _key(compiler: list[str], flags: list[str]) -> str:
    parts = [file.read_bytes() for file in SOURCES], flags, compiler, _version(tuple(compiler)), _processor()
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _private(cache: Path) -> Path:
    """Return a folder for libraries that no other user can write to: in the cache, or else one of this process."""
    folder = cache / "kernels"
    try:
        cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.mkdir(exist_ok=True, mode=0o700)
        if _owner(folder) == _user() and not folder.is_symlink():
            folder.chmod(0o700)
        if _safe(folder, stat.S_ISDIR) and os.access(folder, os.W_OK | os.X_OK):
            return folder
    except OSError:
        pass
    return _own_folder()


@functools.cache
def _own_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="foretaste-kernels-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _trusted(file: Path) -> bool:
    return file.exists() and _safe(file, stat.S_ISREG)


def _safe(path: Path, kind: object) -> bool:
    """True if it is of this kind, no link, ours or root's, and no other user may write to it."""
    found = path.lstat()
    return bool(kind(found.st_mode)) and found.st_uid in (_user(), 0) and not found.st_mode & 0o022  # type: ignore[operator]


def _owner(path: Path) -> int:
    return path.lstat().st_uid


def _user() -> int:
    return os.getuid() if hasattr(os, "getuid") else 0


def _compile(compiler: list[str], flags: list[str], file: Path) -> None:
    """Compile into a temporary folder and move the result, so that two processes may do it at once."""
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        made, library = Path(folder) / "kernels.o", Path(folder) / "kernels.so"
        whole = "".join(f'#include "{source}"\n' for source in SOURCES if source.suffix == ".c")
        steps = [flag for flag in flags if flag != "-shared"]
        command = [*compiler, *steps, "-x", "c", "-c", "-", "-o", str(made)]
        options = {"check": True, "capture_output": True, "text": True, "timeout": TIMEOUT_SECONDS}
        subprocess.run(command, input=whole, **options)
        # Linked without its own OpenMP: the symbols of PyTorch's are taken, so that both share one set of threads.
        subprocess.run([*compiler, "-shared", str(made), "-o", str(library), "-lm"], **options)
        library.chmod(0o700)  # whatever the umask of this process
        os.replace(library, file)


def _last_line(error: subprocess.CalledProcessError) -> str:
    """Return the compiler's last line, or its exit code if it said nothing."""
    lines = [line.strip() for line in (error.stderr or error.stdout or "").splitlines() if line.strip()]
    return lines[-1] if lines else f"exit code {error.returncode}, and no word of why"


def _share_openmp() -> bool:
    """Make the OpenMP runtime that PyTorch brought visible to the kernels; False if there is none to be found."""
    for found in (Path(torch.__file__).parent / "lib").glob("libgomp*"):
        ctypes.CDLL(str(found), mode=ctypes.RTLD_GLOBAL)
        return True
    return False


def _processor() -> str:
    """Name the processor: what is compiled for one may not run on another that shares the home folder."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return "".join(line for line in lines[:40] if line.startswith(("model name", "flags", "Features", "CPU part")))
