"""What of the process an environment may not keep changed: its state before a call is put back after it.

An environment may work in another folder, switch gradients off or draw from global random streams. What training and
its files rely on is as before once the call is over; global random streams are put back when all episodes are played,
and go on at the next ones where the environments left them. Libraries are asked only where they are loaded.
Next: `guarded.py`.
"""

from __future__ import annotations

import contextlib
import gc
import locale
import logging
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

_SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGALRM", "SIGCHLD", "SIGPIPE", "SIGUSR1", "SIGUSR2")
    if hasattr(signal, name)
)


class _Kept(NamedTuple):
    """One thing of the process, and how it is put back."""

    read: Callable[[], Any]
    write: Callable[[Any], object]
    same: Callable[[Any, Any], bool] = lambda before, now: before == now


_handler: Callable[[int], Any] = getattr(sys.modules.get("_signal"), "getsignal", signal.getsignal)
"""Python's own function below `signal.getsignal`, where there is one: it makes no enums, which take the time."""


def _is(before: object, now: object) -> bool:
    return before is now


def _folder() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # the folder has been removed
        return None


def _go_to(folder: str | None) -> None:
    if folder is not None:
        os.chdir(folder)


def _environ() -> dict[Any, Any]:
    """Return the environment's variables, as they are stored where that can be read: decoding them takes far longer."""
    stored = getattr(os.environ, "_data", None)
    return dict(os.environ if stored is None else stored)


def _set_environ(values: dict[Any, Any]) -> None:
    text = {_decoded(name): _decoded(value) for name, value in values.items()}
    for name in os.environ.keys() - text.keys():
        del os.environ[name]
    os.environ.update(text)


def _decoded(stored: Any) -> str:
    return os.fsdecode(stored)


def _set_filters(filters: list[Any]) -> None:
    warnings.filters[:] = filters  # pyright: ignore[reportIndexIssue]
    changed = getattr(warnings, "_filters_mutated", None) or getattr(warnings, "_filters_mutated_lock_held", None)
    if callable(changed):
        changed()


def _handlers() -> tuple[Any, ...]:
    return tuple(_handler(number) for number in _SIGNALS)


def _set_handlers(handlers: tuple[Any, ...]) -> None:
    if threading.current_thread() is threading.main_thread():
        for number, handler in zip(_SIGNALS, handlers, strict=True):
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)


_ALWAYS = (
    _Kept(_folder, _go_to),
    _Kept(_environ, _set_environ),
    _Kept(lambda: sys.stdout, lambda stream: setattr(sys, "stdout", stream), _is),
    _Kept(lambda: sys.stderr, lambda stream: setattr(sys, "stderr", stream), _is),
    _Kept(lambda: sys.stdin, lambda stream: setattr(sys, "stdin", stream), _is),
    _Kept(sys.getrecursionlimit, sys.setrecursionlimit),
    _Kept(lambda: list(warnings.filters), _set_filters),
    _Kept(_handlers, _set_handlers),
    _Kept(lambda: locale.setlocale(locale.LC_ALL), lambda name: locale.setlocale(locale.LC_ALL, name)),
    _Kept(lambda: logging.root.manager.disable, logging.disable),
    _Kept(gc.isenabled, lambda on: gc.enable() if on else gc.disable()),
)


def _torch_kept(torch: Any) -> tuple[_Kept, ...]:
    return (
        _Kept(torch.is_grad_enabled, torch.set_grad_enabled),
        _Kept(torch.get_default_dtype, torch.set_default_dtype),
        _Kept(
            torch.get_default_device, lambda device: torch.set_default_device(None if device.type == "cpu" else device)
        ),
        _Kept(torch.get_num_threads, torch.set_num_threads),
        _Kept(torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
        _Kept(
            lambda: (
                torch.are_deterministic_algorithms_enabled(),
                torch.is_deterministic_algorithms_warn_only_enabled(),
            ),
            lambda said: torch.use_deterministic_algorithms(said[0], warn_only=said[1]),
        ),
        _Kept(lambda: torch.is_autocast_enabled("cpu"), lambda on: torch.set_autocast_enabled("cpu", on)),
    )


def _numpy_kept(numpy: Any) -> tuple[_Kept, ...]:
    return (_Kept(numpy.geterr, lambda said: numpy.seterr(**said)),)


_LIBRARIES: dict[str, Callable[[Any], tuple[_Kept, ...]]] = {"torch": _torch_kept, "numpy": _numpy_kept}


def _streams() -> dict[str, _Kept]:
    """Global random streams of what is loaded, by library."""
    found = {"random": _Kept(random.getstate, random.setstate)}
    if numpy := sys.modules.get("numpy"):
        found["numpy"] = _Kept(
            lambda: numpy.random.get_state(legacy=True),
            numpy.random.set_state,
            lambda before, now: before[2:] == now[2:] and bool((before[1] == now[1]).all()),
        )
    if torch := sys.modules.get("torch"):
        found["torch"] = _Kept(
            lambda: torch.random.default_generator.get_state(),
            lambda state: torch.random.default_generator.set_state(state),
            lambda before, now: before.numpy().tobytes() == now.numpy().tobytes(),
        )
    return found


_theirs: dict[str, Any] = {}
"""States of the global random streams that environments have drawn from: each goes on where they left it."""
_current = threading.local()


class Before:
    """The process as it was when this was made."""

    def __init__(self) -> None:
        self._noted: dict[str, list[tuple[_Kept, Any]]] = {"": [(kept, kept.read()) for kept in _ALWAYS]}
        self._note_libraries()

    def put_back(self) -> None:
        """Undo what was changed since. What cannot be undone (a folder that is gone) stays."""
        for things in self._noted.values():
            for kept, value in things:
                with contextlib.suppress(Exception):
                    if not kept.same(value, kept.read()):
                        kept.write(value)

    def _note_libraries(self) -> None:
        for name, of in _LIBRARIES.items():
            if module := sys.modules.get(name):
                with contextlib.suppress(AttributeError):  # it is being imported just now
                    self._noted[name] = [(kept, kept.read()) for kept in of(module)]


@contextlib.contextmanager
def kept_process() -> Iterator[None]:
    """Note the process once for all calls into environments inside, which makes each of them cheaper."""
    if getattr(_current, "before", None) is not None:
        yield
        return
    streams = [(name, kept, kept.read()) for name, kept in _streams().items()]
    for name, kept, _ in streams:
        if name in _theirs:
            kept.write(_theirs[name])
    _current.before = Before()
    try:
        yield
    finally:
        _current.before = None
        for name, kept, value in streams:
            now = kept.read()
            if not kept.same(value, now):
                _theirs[name] = now
                kept.write(value)


def before_call() -> Before:
    """Return the process as it was when `kept_process` began; as it is now, outside of one."""
    return getattr(_current, "before", None) or Before()
