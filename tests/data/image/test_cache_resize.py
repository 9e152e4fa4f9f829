"""Room for pixels on disk behaves like memory and vanishes; resizing keeps means and types."""

from __future__ import annotations

import errno
import gc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genad.data.image import cache
from genad.data.image.cache import allocate, gather
from genad.data.image.resize import resized, working_size
from genad.errors import GenadError, InputError


def test_the_file_behind_a_large_array_is_gone_with_it(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    pixels = allocate((4, 1000), np.uint16, memory=100)
    assert isinstance(pixels, np.memmap)
    pixels[:] = np.arange(1000)
    view = pixels[1:3]
    del pixels
    gc.collect()
    assert (view == np.arange(1000)).all()
    del view
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_said(monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache.os, "posix_fallocate", full, raising=False)
    with pytest.raises(GenadError, match=r"0\.0 GB of pixels fit neither .*No space left.*TMPDIR"):
        allocate((10, 10), np.uint8, memory=1)


@pytest.mark.parametrize("memory", [10**6, 10])
def test_gather(memory, monkeypatch):
    monkeypatch.setattr(cache, "_CHUNK", 40)
    pixels = np.arange(60).reshape(20, 3)
    rows = np.array([5, 1, 19, 0, 7, 8])
    np.testing.assert_array_equal(gather(pixels, rows, memory), pixels[rows])
    assert np.shares_memory(gather(pixels, np.arange(4, 9), memory), pixels)


@pytest.mark.parametrize(
    ("sizes", "size", "expected"),
    [
        ([[20, 30]] * 3, None, (20, 30)),
        ([[1000, 500]] * 3, None, (256, 128)),
        ([[100, 100], [100, 100], [600, 700]], None, (100, 100)),
        ([[100, 120], [200, 240], [300, 360]], None, (200, 240)),
        ([[10_000, 3]], None, (256, 1)),
        ([[20, 30]], 8, (8, 8)),
        ([[20, 30]], (8, 9), (8, 9)),
    ],
)
def test_working_size(sizes, size, expected):
    assert working_size(np.array(sizes), size) == expected


@pytest.mark.parametrize("size", [0, -1, 1.5, (1,), (0, 4), "64", True, (2, 3, 4)])
def test_sizes_refused(size):
    with pytest.raises(InputError, match=r"size: .* was given; use a whole number of pixels"):
        working_size(np.array([[4, 4]]), size)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 3, 5])
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 12), st.integers(1, 12))
@settings(max_examples=20, deadline=None)
def test_resizing_stays_in_range(dtype, channels, h, w, height, width):
    pixels = (np.random.default_rng(h * 13 + w).random((h, w, channels)) * 200).astype(dtype)
    found = resized(pixels, (height, width))
    assert found.shape == (height, width, channels)
    assert found.dtype == dtype
    slack = 0 if dtype != np.float32 else 1e-3
    assert pixels.min() - slack <= found.min()
    assert found.max() <= pixels.max() + slack


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_shrinking_is_the_mean_over_the_area(dtype):
    pixels = (np.random.default_rng(0).random((12, 18, 3)) * 250).astype(dtype)
    blocks = pixels.astype(np.float64).reshape(4, 3, 6, 3, 3).mean((1, 3))
    np.testing.assert_allclose(resized(pixels, (4, 6)), blocks, atol=1e-3 if dtype == np.float32 else 1.01)


def test_growing_is_bilinear():
    ramp = np.arange(4, dtype=np.float32)[None, :, None]
    found = resized(ramp, (1, 8))[0, :, 0]
    np.testing.assert_allclose(found, [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3], atol=1e-6)
