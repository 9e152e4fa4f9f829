"""The bridge from collections of images to samples: units, depth, size and memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from genad.data.image import Images
from genad.data.image import adapter as module
from genad.data.image.adapter import ImageAdapter, ImageSamples


def colour(n=5, seed=0, dtype=np.uint8):
    rng = np.random.default_rng(seed)
    top = 255 if dtype == np.uint8 else 65535
    return rng.integers(0, top + 1, (n, 6, 4, 3)).astype(dtype)


def test_channels_are_standardised_by_the_data_learnt_from():
    images = Images.from_arrays(colour(40))
    samples = ImageAdapter().fit(images).samples
    x = samples.stretch(0, 40).x
    assert x.dtype == torch.float32
    torch.testing.assert_close(x.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(samples.batch(torch.tensor([3, 1])).x, x[[3, 1]])


def test_pixels_stay_as_they_were_decoded():
    samples = ImageAdapter().fit(Images.from_arrays(colour())).samples
    assert isinstance(samples, ImageSamples)
    assert samples.pixels.dtype == torch.uint8
    assert samples.to(torch.device("cpu")).pixels.data_ptr() == samples.pixels.data_ptr()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_there_and_back_gives_the_same_pixels(dtype):
    arrays = colour(dtype=dtype)
    adapter = ImageAdapter()
    loaded = adapter.fit(Images.from_arrays(arrays))
    values = loaded.samples.stretch(0, 5).x.numpy()
    for restored, before in zip(adapter.native(values, loaded), arrays, strict=True):
        assert restored.dtype == dtype
        np.testing.assert_allclose(restored.astype(float), before.astype(float), atol=1 if dtype == np.uint16 else 0)


def test_another_depth_reads_the_same_brightness():
    eight = colour()
    adapter = ImageAdapter()
    first = adapter.fit(Images.from_arrays(eight)).samples.stretch(0, 5).x
    deep = Images.from_arrays(eight.astype(np.uint16) * 257)
    torch.testing.assert_close(adapter.transform(deep).samples.stretch(0, 5).x, first, atol=1e-3, rtol=0)


def test_an_image_of_floats_is_read_alike_whatever_its_company():
    rng = np.random.default_rng(0)
    adapter = ImageAdapter()
    adapter.fit(Images.from_arrays([rng.normal(size=(6, 6)) for _ in range(20)]))
    one = rng.normal(size=(6, 6))
    alone = adapter.transform(Images.from_arrays([one])).samples.stretch(0, 1).x
    beside = adapter.transform(Images.from_arrays([one, 50 * one])).samples.stretch(0, 1).x
    torch.testing.assert_close(alone, beside)


def test_the_state_makes_the_same_adapter():
    adapter = ImageAdapter()
    images = Images.from_arrays(colour())
    adapter.fit(images)
    again = ImageAdapter.from_state(adapter.state())
    assert again == adapter
    torch.testing.assert_close(
        again.transform(images).samples.stretch(0, 5).x, adapter.fit(images).samples.stretch(0, 5).x
    )


def test_large_answers_live_in_a_file_and_are_the_same(monkeypatch):
    maps = np.random.default_rng(0).random((5, 3, 6, 4)).astype(np.float32)
    adapter = ImageAdapter()
    adapter.fit(Images.from_arrays(colour()))
    small, units = adapter.collapse(maps), adapter.columns(maps)
    monkeypatch.setattr(module, "_ROOM", 10)
    large = adapter.collapse(maps)
    assert isinstance(large, np.memmap)
    np.testing.assert_array_equal(large, small)
    np.testing.assert_array_equal(adapter.columns(maps), units)
    np.testing.assert_allclose(small, maps.sum(1), rtol=1e-6)
