"""One contract for synthesizers of images: masks say what changed, the source is kept, every draw is seeded."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.base import clone

from genad.core.training import Training
from genad.errors import InputError
from genad.synthesis.base import create_synthesizer, list_synthesizers, synthesizers

NAMES = list_synthesizers(kind="image")
SIZES = [(8, 8), (9, 31), (32, 20)]


def scene(n: int, channels: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Make smooth random surfaces with some grain, float32 in 0..1."""
    rng = np.random.default_rng(seed)
    waves = rng.uniform(1, 3, (n, channels, 2, 1, 1)) * np.stack(
        np.meshgrid(np.linspace(0, 1, height), np.linspace(0, 1, width), indexing="ij")
    )
    smooth = 0.5 + 0.25 * np.sin(2 * np.pi * (waves.sum(2) + rng.random((n, channels, 1, 1))))
    return np.clip(smooth + 0.05 * rng.standard_normal(smooth.shape), 0, 1).astype(np.float32)


_FITTED: dict[tuple, object] = {}


def fitted(name: str, channels: int = 1, height: int = 16, width: int = 16):
    """Return a synthesizer fitted on few images; the learned ones for a few updates, and only once."""
    key = (name, channels, height, width)
    if key not in _FITTED:
        learned = synthesizers()[name].card.learned
        params = {"training": Training(updates=6), "resolution": 8, "steps": 3} if learned else {}
        normal, bad = scene(6, channels, height, width), scene(6, channels, height, width, 1)
        masks = np.zeros((6, height, width), bool)
        masks[:, 2:6, 3:6] = True
        bad[:, :, 2:6, 3:6] = 0.0
        _FITTED[key] = create_synthesizer(name, **params).fit(normal, *([bad, masks] if learned else []))
    return _FITTED[key]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("name", NAMES)
def test_the_mask_is_what_changed(name, height, width, channels):
    x = torch.from_numpy(scene(5, channels, height, width))
    before = x.clone()
    images, masks = fitted(name, channels, height, width).apply(x, generator(3))
    assert images.shape == x.shape
    assert masks.shape == (5, 1, height, width)
    assert images.dtype == masks.dtype == torch.float32
    assert torch.equal(x, before)
    assert float(images.min()) >= 0.0
    assert float(images.max()) <= 1.0
    assert set(masks.unique().tolist()) <= {0.0, 1.0}
    assert bool(masks.flatten(1).any(1).all())
    moved = (images - x).abs().amax(1, keepdim=True)
    assert float(moved[masks == 0].sum()) == 0.0
    assert float((moved[masks == 1] > 0.5 / 255).float().mean()) > 0.9


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64"])
@pytest.mark.parametrize("name", NAMES)
def test_samples_have_the_type_and_range_of_the_images(name, dtype):
    top = {"uint8": 255, "uint16": 65535}.get(dtype, 1)
    X = scene(4, 1, 16, 16) * top
    X = (np.rint(X) if top > 1 else X).astype(dtype)
    before = X.copy()
    made = fitted(name).synthesize(X, 6, random_state=1)
    assert made.samples.dtype == X.dtype
    assert made.samples.shape == (6, 1, 16, 16)
    assert made.masks.shape == (6, 16, 16)
    assert made.masks.dtype == bool
    assert made.labels.tolist() == [1] * 6
    assert sorted(np.bincount(made.sources, minlength=4).tolist()) == [1, 1, 2, 2]
    assert len(made.meta) == 6
    assert all(row["method"] == name for row in made.meta)
    np.testing.assert_array_equal(X, before)
    changed = (made.samples != X[made.sources]).any(1)
    assert not changed[~made.masks].any()
    assert changed[made.masks].mean() > 0.9
    assert made.masks.any((1, 2)).all()
    assert made.samples.min() >= 0
    assert made.samples.max() <= top


@pytest.mark.parametrize("name", NAMES)
def test_images_with_a_range_of_their_own(name):
    pixels = (1000 + 3000 * scene(3, 1, 16, 16)).astype(np.uint16)
    made = fitted(name).synthesize(SimpleNamespace(pixels=pixels, low=1000.0, high=4000.0), 5)
    assert made.samples.dtype == np.uint16
    assert made.samples.min() >= 1000
    assert made.samples.max() <= 4000
    assert not (made.samples != pixels[made.sources]).any(1)[~made.masks].any()
    assert (made.low, made.high) == ((1000.0,), (4000.0,))


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_decides_everything_and_nothing_else_does(name):
    synthesizer, X = fitted(name), scene(4, 1, 16, 16)
    torch.manual_seed(11)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = synthesizer.synthesize(X, 5, random_state=7)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002
    torch.manual_seed(99)
    again = synthesizer.synthesize(X, 5, random_state=7)
    other = synthesizer.synthesize(X, 5, random_state=8)
    np.testing.assert_array_equal(first.samples, again.samples)
    np.testing.assert_array_equal(first.masks, again.masks)
    assert first.meta == again.meta
    assert not np.array_equal(first.masks, other.masks)


@pytest.mark.parametrize("name", NAMES)
def test_successive_batches_of_one_generator_differ(name):
    source, x = generator(5), torch.from_numpy(scene(3, 1, 16, 16))
    first, second = (fitted(name).apply(x, source)[1] for _ in range(2))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("name", NAMES)
def test_one_image_and_tiny_images_are_enough(name):
    for size in ((16, 16), (2, 3), (1, 1)):
        images, masks = fitted(name).apply(torch.full((1, 1, *size), 0.4), generator())
        assert masks.any()
        assert not torch.equal(images, torch.full((1, 1, *size), 0.4))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_constant_images_get_a_visible_change(name, level):
    x = torch.full((6, 1, 16, 16), level)
    images, masks = fitted(name).apply(x, generator(2))
    assert bool(masks.flatten(1).any(1).all())
    assert bool(((images - x).abs()[masks > 0] > 0).float().mean() > 0.9)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_can_be_read_set_and_cloned(name):
    synthesizer = create_synthesizer(name)
    params = synthesizer.get_params()
    assert clone(synthesizer).get_params() == params
    assert type(synthesizer)(**params).get_params() == params
    assert copy.deepcopy(fitted(name)).synthesize(scene(2, 1, 16, 16), 1).labels.tolist() == [1]


@pytest.mark.parametrize("name", NAMES)
def test_cards_and_docstrings_say_where_and_when(name):
    cls = synthesizers()[name]
    for text in (cls.card.title, cls.card.authors, cls.card.venue, cls.card.summary, cls.card.row):
        assert text
    for part in ("When to use", "When it fails", "References", "Examples", "Parameters"):
        assert part in cls.__doc__


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("X", "n", "message"),
    [
        (np.zeros((4, 16, 16)), 1, r"X: an array of shape \(4, 16, 16\)"),
        (np.zeros((0, 1, 16, 16)), 1, "X: an array of shape"),
        (np.full((2, 1, 16, 16), 3.0), 1, "X: floats from 3 to 3"),
        (np.full((2, 1, 16, 16), np.nan), 1, "X: there are missing"),
        (np.zeros((2, 1, 16, 16), np.int32), 1, "X: pixels of type int32"),
        (np.zeros((2, 1, 16, 16)), 0, "n: 0 was given"),
        (np.zeros((2, 1, 16, 16)), 2.5, "n: 2.5 was given"),
    ],
)
def test_unusable_input_is_refused(name, X, n, message):
    with pytest.raises(InputError, match=message):
        fitted(name).synthesize(X, n)


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_that_is_no_batch_of_images_is_refused(name):
    with pytest.raises(InputError, match="x: a tensor of shape"):
        fitted(name).apply(torch.zeros(3, 8, 8), generator())
    with pytest.raises(InputError, match="x: a tensor of shape"):
        fitted(name).apply(torch.zeros(3, 1, 8, 8, dtype=torch.uint8), generator())
