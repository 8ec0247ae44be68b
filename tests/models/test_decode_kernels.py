"""Attention over a tree of contexts, against PyTorch's own, and the cache that holds the tree."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foretaste.models import decode_kernels
from foretaste.models.fast_cache import Cache

HEADS, KEY_HEADS = 6, 2


def attended(cache: Cache, fed: list[tuple[int, torch.Tensor]], size: int) -> torch.Tensor:
    """Feed tokens (row, qkv without rotation) one pass each; return the attention of each."""
    out = []
    for row, qkv in fed:
        slot = cache.own[row]
        cache.append([row], [1], qkv)
        places = torch.tensor([row]), torch.tensor([slot])
        cos, sin = torch.ones(1, size // 2, dtype=qkv.dtype), torch.zeros(1, size // 2, dtype=qkv.dtype)
        keys, values = cache.keys[0], cache.values[0]
        decode_kernels.remember(qkv[None], cos, sin, *places, keys, values, HEADS)
        out.append(decode_kernels.attend(qkv[None], torch.tensor([0]), places, cache.tree(), keys, values, HEADS)[0])
    return torch.stack(out)


def expected(context: list[torch.Tensor]) -> torch.Tensor:
    """Attention of the last token of a context over all of it, in float64."""
    whole = torch.stack(context).double()
    queries, keys, values = whole[-1, :HEADS], whole[:, HEADS : HEADS + KEY_HEADS], whole[:, HEADS + KEY_HEADS :]
    group = HEADS // KEY_HEADS
    keys, values = (x.repeat_interleave(group, dim=1) for x in (keys, values))
    weights = (torch.einsum("hd,thd->ht", queries, keys) * queries.shape[-1] ** -0.5).softmax(-1)
    return torch.einsum("ht,thd->hd", weights, values)


def poisoned(layers: int, size: int, like: torch.Tensor) -> Cache:
    """A cache with room, in which every slot that was not written is NaN."""
    cache = Cache(layers, KEY_HEADS, size)
    rows = [cache.open(None, 0) for _ in range(8)]
    cache.append(rows, [200] * 8, like)
    cache.keys.fill_(torch.nan)
    cache.values.fill_(torch.nan)
    cache.clear()
    return cache


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), size=st.sampled_from([8, 16, 64, 80]), length=st.integers(1, 150))
def test_attention_sees_its_row_and_what_the_row_inherits(
    dtype: torch.dtype, seed: int, size: int, length: int
) -> None:
    generator = torch.Generator().manual_seed(seed)

    def token() -> torch.Tensor:
        return torch.randn(HEADS + 2 * KEY_HEADS, size, generator=generator).to(dtype)

    cache = poisoned(1, size, token())
    trunk, shared = [token() for _ in range(length)], int(torch.randint(1, length + 1, (1,), generator=generator))
    root = cache.open(None, 0)
    first = attended(cache, [(root, one) for one in trunk], size)
    branch = cache.open(root, shared)
    own = [token() for _ in range(3)]
    second = attended(cache, [(branch, one) for one in own], size)
    leaf = cache.open(branch, shared + 2)
    last = attended(cache, [(leaf, trunk[0])], size)
    bound = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(first[-1].double(), expected(trunk), atol=bound, rtol=bound)
    torch.testing.assert_close(second[1].double(), expected([*trunk[:shared], *own[:2]]), atol=bound, rtol=bound)
    context = [*trunk[:shared], *own[:2], trunk[0]]
    torch.testing.assert_close(last[0].double(), expected(context), atol=bound, rtol=bound)


def test_growing_the_cache_keeps_what_it_holds() -> None:
    cache = Cache(2, KEY_HEADS, 8)
    token = torch.ones(HEADS + 2 * KEY_HEADS, 8)
    rows = [cache.open(None, 0) for _ in range(3)]
    attended(cache, [(rows[1], token), (rows[1], 2 * token)], 8)
    before = cache.keys[0, rows[1], :, 0, :, :2].clone(), cache.values[0, rows[1], :, :2].clone()
    more = [cache.open(None, 0) for _ in range(20)]
    cache.append([*rows, *more], [300] * 23, token)
    assert cache.keys.shape[1] >= 23
    assert cache.values.shape[3] >= 302
    assert torch.equal(cache.keys[0, rows[1], :, 0, :, :2], before[0])
    assert torch.equal(cache.values[0, rows[1], :, :2], before[1])


def test_a_row_is_kept_until_nothing_goes_on_from_it() -> None:
    cache = Cache(1, 1, 8)
    root = cache.open(None, 0)
    cache.append([root], [10], torch.zeros(1))
    child = cache.open(root, 6)
    cache.append([child], [5], torch.zeros(1))
    assert cache.position(child) == 11
    sibling = cache.open(child, 4)  # shorter than what the child inherits: it goes on from the root itself
    grandchild = cache.open(child, 8)
    parents, inherited = (x.tolist() for x in cache.tree())
    assert [parents[row] for row in (root, child, sibling, grandchild)] == [-1, root, root, child]
    assert [inherited[row] for row in (root, child, sibling, grandchild)] == [0, 6, 4, 8]
    cache.close(root)
    cache.close(sibling)
    assert cache.open(None, 0) == sibling
    cache.close(child)
    cache.close(grandchild)
    assert sorted(cache.open(None, 0) for _ in range(3)) == sorted((root, child, grandchild))
