"""Kernels are compiled by what CC names, or it is said why not; only our own are loaded, with sound arrays."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from foretaste.config import ModelConfig, SamplingConfig
from foretaste.errors import ModelError
from foretaste.models import kernel_arguments, kernel_building, kernels
from foretaste.models.actor_critic import ActorCritic
from foretaste.models.kernel_building import build
from foretaste.models.paths import paths_of

FLOAT = torch.float32


@pytest.fixture(autouse=True)
def anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A cache folder of the test's own, and no optimiser."""
    monkeypatch.setattr(kernel_building, "_FLAGS", ["-O0", "-std=gnu11", "-shared", "-fPIC", "-march=native"])
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("FORETASTE_CACHE", str(tmp_path / "cache"))
    kernels.library.cache_clear()
    yield
    monkeypatch.undo()
    kernels.library.cache_clear()


def script(folder: Path, name: str, text: str) -> str:
    file = folder / name
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return str(file)


def test_a_compiler_may_have_arguments_and_wrappers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = tmp_path / "seen"
    wrapper = script(tmp_path, "my wrapper", f'echo "$@" >> {seen}\nexec "$@"')
    monkeypatch.setenv("CC", f"'{wrapper}' cc -g0")
    built = build(FLOAT, tmp_path / "cache")
    assert built.library is not None, built.reason
    assert all(line.startswith("cc -g0 ") for line in seen.read_text().splitlines())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            'case "$*" in *--version*) echo v1;; *) echo first >&2; echo "fatal error: no room" >&2; exit 1;; esac',
            "no room",
        ),
        ('case "$*" in *--version*) echo v1;; *) exit 3;; esac', "exit code 3"),
    ],
)
def test_a_compiler_that_fails_is_quoted(
    text: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", script(tmp_path, "broken", text))
    model = ActorCritic.load(ModelConfig("nano-xs"))
    assert expected in kernels.why_not(FLOAT)
    [line] = paths_of(model, SamplingConfig()).lines()
    assert line.startswith("sampling and training by the plain path, not the quick one: the C compiler (")
    assert expected in line
    assert paths_of(model, SamplingConfig()).to_json()["training"]["path"] == "plain"


@pytest.mark.parametrize(
    ("given", "expected"), [("no-such-compiler -O2", "'no-such-compiler' was not found"), ("'", "quot")]
)
def test_a_compiler_that_is_not_there_is_named(
    given: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", given)
    assert expected in build(FLOAT, tmp_path).reason
    monkeypatch.setenv(kernel_building.SWITCH, "off")
    assert build(FLOAT, tmp_path).reason == "FORETASTE_KERNELS is off"


def test_libraries_are_our_own_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        assert build(FLOAT, tmp_path / "cache").library is not None
    finally:
        os.umask(before)
    folder = tmp_path / "cache" / "kernels"
    [file] = folder.iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == stat.S_IMODE((tmp_path / "cache").stat().st_mode) == 0o700
    assert stat.S_IMODE(file.stat().st_mode) == 0o700


def test_a_library_that_others_could_have_written_is_compiled_anew(tmp_path: Path) -> None:
    assert build(FLOAT, tmp_path).library is not None
    [file] = (tmp_path / "kernels").iterdir()
    made = file.stat().st_ino
    build(FLOAT, tmp_path)
    assert file.stat().st_ino == made  # ours: taken as it is
    file.chmod(0o777)
    build(FLOAT, tmp_path)
    assert file.stat().st_ino != made
    assert stat.S_IMODE(file.stat().st_mode) == 0o700


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_files_of_another_user_are_not_loaded(tmp_path: Path) -> None:
    assert build(FLOAT, tmp_path).library is not None
    [file] = (tmp_path / "kernels").iterdir()
    os.chown(file, 65534, 65534)
    build(FLOAT, tmp_path)
    assert file.stat().st_uid == 0
    os.chown(tmp_path / "kernels", 65534, 65534)
    made = file.stat().st_ino
    assert build(FLOAT, tmp_path).library is not None  # in a folder of this process
    assert file.stat().st_ino == made


def test_another_version_of_the_compiler_makes_another_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for version in ("1", "2"):
        text = f'case "$*" in *--version*) echo v{version};; *) exec cc "$@";; esac'
        monkeypatch.setenv("CC", script(tmp_path, "cc", text))
        kernel_building._version.cache_clear()
        assert build(FLOAT, tmp_path).library is not None
    assert len(list((tmp_path / "kernels").iterdir())) == 2


@pytest.mark.parametrize(
    ("x", "weight", "expected"),
    [
        (torch.ones(8, 4), torch.ones(8, dtype=torch.float64), "'w': float64.*Accepted: float32 on cpu"),
        (torch.ones(4, 8).t(), torch.ones(8), "'x': float32, shape .8, 4., strides .1, 8..*all contiguous"),
        (torch.ones(8, 4), torch.ones(7), r"'w'.*at least 8 numbers \(H\)"),
        (torch.ones(8, 4), torch.ones(8, device="meta"), "on meta.*Accepted: float32 on cpu"),
        (torch.ones(8, 4, dtype=torch.float64), torch.ones(8), "float32 and bfloat16, not in float64"),
    ],
)
def test_what_c_would_misread_is_refused(x: torch.Tensor, weight: torch.Tensor, expected: str) -> None:
    with pytest.raises(ModelError, match=f"kernel 'rms_norm' cannot be called.*{expected}"):
        kernels.call("rms_norm", x, x, weight, 1e-5, torch.empty_like(x), torch.empty(x.shape[1]), *x.shape)


def test_the_sizes_that_are_checked_are_those_of_the_sources() -> None:
    declared = kernel_arguments.declared()
    assert set(kernel_arguments.SIZES) | set(kernel_arguments.ROWS_APART) <= set(declared)
    for name, sizes in kernel_arguments.SIZES.items():
        assert set(sizes) <= {one.name for one in declared[name] if one.pointer}
