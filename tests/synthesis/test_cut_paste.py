"""CutPaste: sizes, scars, colours, and that pieces move."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from genad.errors import InputError
from genad.synthesis.augment import CHANGES, colour_jitter, saturate, strong_augment, turn_hue
from genad.synthesis.cut_paste import CutPaste


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_patch_is_a_piece_of_the_image_moved():
    X = np.random.default_rng(0).random((4, 2, 24, 36)).astype(np.float32)
    made = CutPaste(scar=0.0, jitter=0.0).synthesize(X, 12)
    for sample, mask, source, meta in zip(made.samples, made.masks, made.sources, made.meta, strict=True):
        down, right = (int(step) for step in meta["moved"])
        assert (down, right) != (0, 0)
        rows, columns = np.nonzero(mask)
        np.testing.assert_allclose(sample[:, rows, columns], X[source][:, rows - down, columns - right], atol=1e-5)


def test_areas_and_aspects_stay_in_their_ranges_on_oblong_images():
    X = np.random.default_rng(0).random((4, 1, 40, 80)).astype(np.float32)
    made = CutPaste(scar=0.0).synthesize(X, 200)
    sides = np.array([row["sides"] for row in made.meta])
    assert sides.prod(1).min() >= 0.019 * 3200
    assert sides.prod(1).max() <= 0.151 * 3200
    aspect = sides[:, 0] / sides[:, 1]
    assert 0.299 < aspect.min() < 0.45
    assert 2.2 < aspect.max() < 3.34
    # Height and width are not swapped: patches reach every column, which swapped axes would not.
    columns = made.masks.any(1).any(0)
    assert columns.mean() > 0.97


def test_scars_are_thin_turned_and_scaled_to_the_image():
    X = np.random.default_rng(0).random((4, 1, 128, 128)).astype(np.float32)
    meta = CutPaste(scar=1.0).synthesize(X, 100).meta
    sides = np.array([row["sides"] for row in meta])
    assert {row["kind"] for row in meta} == {"scar"}
    assert 5.0 <= sides[:, 0].min() <= sides[:, 0].max() <= 12.5
    assert 1.0 <= sides[:, 1].min() <= sides[:, 1].max() <= 8.0
    degrees = np.array([row["degrees"] for row in meta])
    assert degrees.min() < -30
    assert degrees.max() > 30
    assert np.abs(degrees).max() <= 45


def test_a_scar_is_cut_upright_and_turned():
    # Rows of stripes: the piece keeps its stripes, now at the scar's own angle.
    x = (torch.arange(64) % 8 < 4).float().view(1, 1, 64, 1).expand(1, 1, 64, 64).contiguous()
    scar = CutPaste(scar=1.0, jitter=0.0, scar_width=(60, 60), scar_height=(60, 60), turn=45.0)
    made = scar.synthesize(x.numpy(), 40)
    steep = [i for i, row in enumerate(made.meta) if abs(row["degrees"]) > 30]
    across = np.abs(np.diff(made.samples[steep, 0], axis=2))[:, :, :]
    inside = made.masks[steep][:, :, 1:] & made.masks[steep][:, :, :-1]
    assert across[inside].mean() > 0.05
    assert np.abs(np.diff(x[0, 0].numpy(), axis=1)).max() == 0.0


def test_colours_of_greys_stay_grey_and_alpha_stays():
    x = torch.rand(3, 1, 6, 6, generator=generator()).expand(3, 3, 6, 6)
    region = torch.ones(3, 1, 6, 6, dtype=torch.bool)
    jittered = colour_jitter(x, region, 0.2, generator())
    torch.testing.assert_close(jittered[:, 0], jittered[:, 2], atol=1e-5, rtol=0)
    assert not torch.allclose(jittered, x)
    four = torch.rand(2, 4, 6, 6, generator=generator())
    for changed in (saturate(four, torch.tensor(0.3)), turn_hue(four, torch.tensor(1.0))):
        assert torch.equal(changed[:, 3], four[:, 3])
    whole_circle = turn_hue(four, torch.tensor(2 * np.pi, dtype=torch.float32))
    torch.testing.assert_close(whole_circle, four, atol=1e-5, rtol=0)
    third = turn_hue(torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1), torch.tensor(2 * np.pi / 3, dtype=torch.float32))
    torch.testing.assert_close(third.flatten(), torch.tensor([0.0, 1.0, 0.0]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_every_change_of_a_texture_gives_finite_images(change, channels):
    x = torch.rand(4, channels, 9, 11, generator=generator())
    before = x.clone()
    y = change(x, generator()).clamp(0, 1)
    assert y.shape == x.shape
    assert torch.isfinite(y).all()
    assert torch.equal(x, before)
    assert torch.isfinite(change(torch.zeros(1, channels, 1, 1), generator())).all()


def test_strong_augmentation_applies_as_many_changes_as_asked_for():
    x = torch.rand(20, 3, 8, 8, generator=generator())
    assert torch.equal(strong_augment(x, generator(), 0), x)
    assert not (strong_augment(x, generator(), 3) == x).all((1, 2, 3)).any()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"scar": 1.5}, "scar: 1.5 was given"),
        ({"aspect": 0.0}, "aspect: 0.0 was given"),
        ({"area": (0.2, 0.1)}, r"area: \(0.2, 0.1\) was given"),
        ({"scar_width": (0, 3)}, r"scar_width: \(0, 3\) was given"),
        ({"jitter": -1}, "jitter: -1 was given"),
        ({"turn": 200}, "turn: 200 was given"),
    ],
)
def test_parameters_that_cannot_work_are_refused(params, message):
    with pytest.raises(InputError, match=message):
        CutPaste(**params).apply(torch.rand(1, 1, 8, 8), generator())
