"""What each kernel may be given, checked before C sees a pointer: type of numbers, place, contiguity, length.

C reads memory as it is told: a float64 array is rubbish to it, and a short one ends the process. Names and types come
from the C sources themselves; how many numbers an array must have is below, in terms of the sizes that are passed too.
"""

from __future__ import annotations

import ctypes
import functools
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from foretaste.errors import ModelError
from foretaste.models.kernel_building import SOURCES

SIZES = {
    "rms_norm": {"x": "H * M", "w": "H", "y": "H * M", "r": "M"},
    "rms_norm_backward": {"x": "H * M", "w": "H", "r": "M", "dy": "H * M", "residual": "H * M", "dx": "H * M"},
    "swiglu": {"gate_up": "2 * count", "y": "count"},
    "swiglu_backward": {"gate_up": "2 * count", "dy": "count", "y": "count"},
    "rotate": {"x": "2 * heads * half * M", "cos_": "half * M", "sin_": "half * M"},
    "softmax": {"prefix": "heads * P * B * S", "own": "heads * B * S * S", "lse": "heads * B * S"},
    "softmax_backward": {"prefix": "heads * P * B * S", "own": "heads * B * S * S", "down": "heads * B * S * S"},
    "join": {"far": "heads * D * B * S", "near": "heads * B * D * S", "inverse": "heads * B * S"},
    "part": {"out": "heads * group * B * D * S"},
    "row_dot": {"delta": "heads * columns"},
    "score": {"logits": "N * V", "targets": "N", "logprobs": "N", "entropies": "N", "lse": "N"},
    "score_backward": {"logits": "N * V", "targets": "N", "lse": "N", "dlogprobs": "N", "dentropies": "N"},
    "transpose": {"x": "rows * columns", "out": "rows * columns"},
    "adamw": {"weight": "n", "low": "n", "first": "n", "second": "n", "g": "n", "sum": "n"},
    "squares": {"x": "n"},
    "rms_norm_rows": {"x": "rows * H", "w": "H", "y": "rows * H"},
    "swiglu_rows": {"gate_up": "2 * rows * I", "y": "rows * I"},
    "draw": {"logits": "rows * V", "uniforms": "rows", "tokens": "rows", "logprobs": "rows"},
    "remember": {
        "qkv": "N * (heads + 2 * K) * D",
        "cos_": "N * D // 2",
        "sin_": "N * D // 2",
        "rows": "N",
        "slots": "N",
    },
    "attend": {"tokens": "M", "out": "M * heads * D"},
    "run_head": {"x": "M * H", "norm": "H", "w": "V * H", "bias": "V", "logits": "M * V"},
}
"""How many numbers each array has at least, by kernel and parameter."""
ROWS_APART = {
    "join": ("out",),
    "part": ("x",),
    "row_dot": ("dy", "y"),
    "attend_training": ("out",),
    "attend_training_backward": ("dout", "dq", "dk", "dv"),
}
"""Arrays whose rows may be apart: their stride is passed, and only neighbours within a row must be neighbours."""
_DECLARED = re.compile(r"^(?:void|int64_t) (\w+)\(([^)]*)\) \{", re.MULTILINE)
_NUMBERS = {"float": torch.float32, "double": torch.float64, "int64_t": torch.int64, "int16_t": torch.int16}


class Parameter(NamedTuple):
    """A parameter of a kernel as it is declared in C."""

    name: str
    kind: str
    """T (the type it is compiled for), float, int64_t ..., or the name of a structure."""
    pointer: bool


@functools.cache
def declared() -> dict[str, tuple[Parameter, ...]]:
    """Return the parameters of every kernel."""
    found = {}
    for source in SOURCES:
        for name, inside in _DECLARED.findall(source.read_text(encoding="utf-8")):
            words = [one.replace("const ", "").replace("restrict ", "").split() for one in inside.split(",")]
            if words != [["void"]]:
                found[name] = tuple(Parameter(last.lstrip("*"), kind, last.startswith("*")) for kind, last in words)
    return found


def prepare(function: Any, name: str, dtype: torch.dtype) -> Callable[..., Any]:
    """Return a function that checks its arguments and calls a kernel compiled for `dtype`."""
    parameters = declared()[name]
    function.argtypes = [
        ctypes.c_void_p if one.pointer else ctypes.c_float if one.kind == "float" else ctypes.c_int64
        for one in parameters
    ]
    sound = _checker(name, dtype, parameters)

    def call(*arguments: Any) -> Any:
        if len(arguments) != len(parameters) or not sound(*arguments):
            raise ModelError(_fault(name, dtype, parameters, arguments))
        return function(*map(_plain, arguments))

    return call


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.data_ptr()
    return ctypes.byref(value) if isinstance(value, ctypes.Structure) else value


def _checker(name: str, dtype: torch.dtype, parameters: Sequence[Parameter]) -> Callable[..., bool]:
    """Return one function that is true of sound arguments: written out, since it runs before every kernel."""
    terms = []
    for one in parameters:
        if not one.pointer or one.kind not in (*_NUMBERS, "T"):
            continue
        apart = one.name in ROWS_APART.get(name, ())
        near = f"{one.name}.stride(-1) == 1" if apart else f"{one.name}.is_contiguous()"
        size = SIZES.get(name, {}).get(one.name)
        long = f" and {one.name}.numel() >= {size}" if size else ""
        wanted = "dtype" if one.kind == "T" else one.kind
        terms.append(f"({one.name} is None or {one.name}.dtype is {wanted} and {one.name}.is_cpu and {near}{long})")
    source = f"lambda {', '.join(one.name for one in parameters)}: {' and '.join(terms) or 'True'}"
    return eval(source, {"dtype": dtype, **_NUMBERS})  # built from the tables above alone


def _fault(name: str, dtype: torch.dtype, parameters: Sequence[Parameter], arguments: Sequence[Any]) -> str:
    """Say which argument is wrong, what it is, and what it must be."""
    start = f"The kernel {name!r} cannot be called"
    if len(arguments) != len(parameters):
        return f"{start}: it takes {len(parameters)} arguments and was given {len(arguments)}"
    given = {one.name: value for one, value in zip(parameters, arguments, strict=True)}
    numbers = {key: value for key, value in given.items() if isinstance(value, int)}
    for one in parameters:
        value = given[one.name]
        if not one.pointer or value is None or not isinstance(value, Tensor) or one.kind not in (*_NUMBERS, "T"):
            continue
        wanted = dtype if one.kind == "T" else _NUMBERS[one.kind]
        needed = SIZES.get(name, {}).get(one.name, "0")
        least = int(eval(needed, {}, numbers))  # an expression of the table above
        apart = one.name in ROWS_APART.get(name, ())
        laid = value.stride(-1) == 1 if apart else value.is_contiguous()
        if value.dtype is wanted and value.is_cpu and laid and value.numel() >= least:
            continue
        return (
            f"{start} with {one.name!r}: {str(value.dtype)[6:]}, shape {tuple(value.shape)}, strides {value.stride()} "
            f"on {value.device}. Accepted: {str(wanted)[6:]} on cpu, {'rows' if apart else 'all'} contiguous, "
            f"at least {least} numbers ({needed}). Next: pass `.to({wanted!s}).contiguous()` of the right size"
        )
    return f"{start}: an array is missing or is no tensor"
