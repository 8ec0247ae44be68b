"""Attention of training, by one kernel and by products, against PyTorch's own; kernels for narrower vectors."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest
import torch
from test_fast_training import test_every_shape_is_decoded_quickly_too as decodes
from torch import Tensor

from foretaste.models import kernels
from foretaste.models.fast_attention import Block, Prefix, attend, attend_backward

pytestmark = pytest.mark.skipif(
    not kernels.available(torch.float32, torch.device("cpu")), reason="there is no C compiler"
)
HEADS, KEY_HEADS = 4, 2
WAYS = [(torch.float32, False), (torch.bfloat16, False), (torch.bfloat16, True)]
"""Numbers, and whether there is a matrix unit: with one, attention of bfloat16 is made of products."""
SHAPES = [(1, 5, 0, 8), (3, 33, 0, 16), (2, 70, 9, 16), (5, 31, 40, 24), (3, 64, 32, 7), (4, 1, 65, 16)]
"""Sequences, tokens of each, tokens of the prefix, features of a head: less than a tile of 32, and more."""


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def plain(queries: Tensor, keys: Tensor, values: Tensor, far: Tensor, sequences: int) -> Tensor:
    """heads D columns, by PyTorch: each sequence behind the prefix, under a mask."""

    def apart(x: Tensor) -> Tensor:
        return x.unflatten(2, (sequences, -1)).permute(2, 0, 3, 1)

    prefix = far.transpose(1, 2).expand(sequences, -1, -1, -1)
    q, k, v = (apart(x) for x in (queries, keys, values))
    k, v = (torch.cat(pair, dim=2) for pair in zip(prefix.chunk(2, dim=1), (k, v), strict=True))
    width, before = q.shape[2], far.shape[2]
    seen = torch.arange(before + width) <= before + torch.arange(width)[:, None]
    found = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=seen, enable_gqa=True)
    return found.permute(1, 3, 0, 2).flatten(2)


@pytest.mark.parametrize(("sequences", "width", "before", "size"), SHAPES)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("dtype", "unit"), WAYS)
def test_output_and_gradients_are_those_of_pytorch(
    sequences: int,
    width: int,
    before: int,
    size: int,
    threads: int,
    dtype: torch.dtype,
    unit: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kernels, "matrix_unit", lambda: unit)
    columns, end = sequences * width, sequences * width + 3  # the block's columns are a part of wider arrays
    qkv = drawn(HEADS + 2 * KEY_HEADS, size, end, seed=1).to(dtype)
    far = drawn(2 * KEY_HEADS, size, before, seed=2).to(dtype)
    sizes = [HEADS, KEY_HEADS, KEY_HEADS]
    into = torch.full_like(qkv, 7.0)
    out = torch.full((HEADS, size, end), 7.0, dtype=dtype)
    gradient = drawn(HEADS, size, end, seed=3).to(dtype)[:, :, :columns]
    block = Block(*qkv[:, :, :columns].split(sizes), sequences)
    prefix = Prefix(*far.chunk(2)) if before else None
    used = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        lse = attend(block, prefix, out[:, :, :columns])
        target = Block(*into[:, :, :columns].split(sizes), sequences)
        prefix_gradient = attend_backward(block, prefix, out[:, :, :columns], lse, gradient, target)
    finally:
        torch.set_num_threads(used)
    wanted_inputs = [x.float().clone().requires_grad_() for x in (*block[:3], far)]
    wanted = plain(*wanted_inputs, sequences)
    wanted.backward(gradient.float())
    pairs = [(out[:, :, :columns], wanted.detach(), 2e-6, 1e-5)]
    gradients = zip((*target[:3], prefix_gradient), wanted_inputs, strict=True)
    pairs += [(found, source.grad, 1e-5, 1e-4) for found, source in gradients if found is not None]
    for found, expected, absolute, relative in pairs:
        if dtype == torch.float32:
            torch.testing.assert_close(found, expected, atol=absolute, rtol=relative)
        else:
            assert (found.float() - expected).norm() < 0.01 * expected.norm() + 1e-6
    assert (prefix_gradient is None) == (before == 0)
    assert (out[:, :, columns:] == 7.0).all()
    assert (into[:, :, columns:] == 7.0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(32, 32), (64, 96), (33, 70), (5, 31)])
def test_a_transpose_moves_every_number(shape: tuple[int, int], dtype: torch.dtype) -> None:
    x = (torch.arange(shape[0] * shape[1]) % 251).reshape(shape).to(dtype)
    assert torch.equal(kernels.transpose(x), x.t())


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the flags are those of x86 processors")
@pytest.mark.parametrize("without", ["-mno-avx512f", "-mno-avx"])
def test_processors_with_narrower_vectors_compute_the_same(
    without: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = tmp_path / "cc"
    compiler.write_text(f'#!/bin/sh\nexec cc "$@" {without}\n')
    compiler.chmod(0o755)
    kernels.library.cache_clear()
    monkeypatch.setenv("CC", str(compiler))
    monkeypatch.setattr(kernels, "cache_folder", lambda: tmp_path)
    try:
        for dtype, unit in WAYS:
            test_output_and_gradients_are_those_of_pytorch(2, 70, 9, 16, 1, dtype, unit, monkeypatch)
        test_a_transpose_moves_every_number((33, 70), torch.float32)
        test_a_transpose_moves_every_number((64, 96), torch.bfloat16)
        decodes("Llama")
    finally:
        kernels.library.cache_clear()
    assert len(list((tmp_path / "kernels").glob("*.so"))) == 2  # of both types, by this compiler
