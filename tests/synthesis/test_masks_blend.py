"""Regions, foregrounds and blending: known answers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.sparse import coo_array
from scipy.sparse.linalg import spsolve

from genad.synthesis.blend import alpha, compositional, gaussian_blur, poisson
from genad.synthesis.masks import foreground, perlin_mask, sample_at, separability, shows_object, turned_boxes


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def smooth_images(n: int, channels: int, size: int, seed: int = 0) -> torch.Tensor:
    return gaussian_blur(torch.rand(n, channels, size, size, generator=generator(seed)), torch.full((n,), 1.5))


def test_perlin_masks_cover_a_plausible_share_and_bound_their_cells():
    masks, cells = perlin_mask(200, 32, 48, generator(), smallest_cell=4.0)
    share = masks.float().mean((1, 2, 3))
    assert 0.01 < share.mean() < 0.2
    assert cells[:, 0].max() == 8
    assert cells[:, 1].max() == 8
    assert cells.min() == 1
    assert perlin_mask(3, 32, 32, generator(), threshold=-0.9)[0].float().mean() > 0.9


def test_turned_boxes_have_the_area_and_frame_they_should():
    centre, half = torch.tensor([[16.0, 20.0]]), torch.tensor([[3.0, 8.0]])
    upright, along = turned_boxes(32, 40, centre, half, torch.zeros(1))
    assert int(upright.sum()) == 6 * 16
    assert upright[0, 0, 13:19, 12:28].all()
    assert along[0, :, 16, 20].tolist() == [0.5, 0.5]
    turned, _ = turned_boxes(32, 40, centre, half, torch.tensor([math.pi / 2]))
    assert turned[0, 0, 8:24, 17:23].all()
    assert int(turned.sum()) == 6 * 16


def test_reading_at_pixel_centres_gives_the_pixels():
    x = torch.rand(1, 2, 5, 7, generator=generator())
    rows = (torch.arange(5) + 0.5).view(1, 5, 1).expand(1, 5, 7)
    columns = (torch.arange(7) + 0.5).view(1, 1, 7).expand(1, 5, 7)
    torch.testing.assert_close(sample_at(x, rows, columns), x)
    torch.testing.assert_close(sample_at(x, rows, columns + 2)[..., :5], x[..., 2:])
    assert float(sample_at(x, rows, columns + 100, padding="zeros").abs().sum()) == 0.0


def test_otsu_parts_two_greys_and_not_one():
    x = torch.full((2, 1, 16, 16), 0.2)
    x[0, :, 4:12, 4:12] = 0.8
    threshold, parted = separability(x)
    assert 0.2 < threshold[0] < 0.8
    assert parted.tolist() == pytest.approx([1.0, 0.0], abs=1e-3)
    gaussian = 0.5 + 0.1 * torch.randn(1, 1, 64, 64, generator=generator())
    assert separability(gaussian)[1] < 0.7


@pytest.mark.parametrize("bright", [True, False])
def test_the_border_decides_which_side_is_background(bright):
    disc = (torch.arange(24)[:, None] - 12).square() + (torch.arange(24)[None] - 12).square() < 60
    x = torch.where(disc, 0.8 if bright else 0.1, 0.1 if bright else 0.8)[None, None]
    assert torch.equal(foreground(x)[0, 0], disc)


def test_holes_belong_to_the_object():
    away = np.hypot(*(np.mgrid[:24, :24] - 12))
    ring = torch.from_numpy(np.where((away < 9) & (away > 4), 0.8, 0.0))[None, None]
    assert torch.equal(foreground(ring)[0, 0], torch.from_numpy(away < 9))


@pytest.mark.parametrize(("kind", "objects"), [("brain_mri/normal", True), ("magnetic_tile/train/good", False)])
def test_slices_show_objects_and_tiles_do_not(data_dir, kind, objects):
    image = pytest.importorskip("PIL.Image")
    files = sorted((data_dir / "image" / kind).iterdir())[:60]
    x = np.stack([np.asarray(image.open(p).convert("L").resize((48, 48)), np.float32) / 255 for p in files])
    assert (shows_object(torch.from_numpy(x)[:, None]) == objects).float().mean() > 0.75


def test_textures_and_constant_images_are_all_foreground():
    assert foreground(torch.rand(2, 1, 16, 16, generator=generator())).all()
    assert foreground(torch.zeros(1, 3, 8, 8)).all()
    assert foreground(torch.zeros(1, 3, 8, 8), objects=True).all()


def test_opacity_and_layers_follow_their_formulas():
    x, source = torch.full((2, 1, 2, 2), 0.2), torch.full((2, 1, 2, 2), 1.0)
    mask = torch.tensor([[[[1.0, 0.0], [1.0, 0.0]]]]).expand(2, 1, 2, 2)
    blended = alpha(x, source, mask, torch.tensor([1.0, 0.25]))
    assert blended[:, 0, 0].flatten().tolist() == pytest.approx([1.0, 0.2, 0.4, 0.2])
    assert compositional(x, source, 0.5 * mask)[0, 0, 0].tolist() == pytest.approx([0.6, 0.2])


def test_the_blur_keeps_the_mean_and_has_the_width_asked_for():
    x = torch.zeros(2, 1, 41, 41)
    x[:, :, 20, 20] = 1.0
    blurred = gaussian_blur(x, torch.tensor([1.0, 2.5]))
    rows = (torch.arange(41) - 20.0).square()
    width = (blurred[:, 0].sum(2) * rows).sum(1).sqrt()
    torch.testing.assert_close(blurred.sum((1, 2, 3)), torch.ones(2))
    torch.testing.assert_close(width, torch.tensor([1.0, 2.5]), atol=0.05, rtol=0.02)


def sparse_solution(x: np.ndarray, source: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Solve the Poisson equation pixel by pixel with a sparse direct solver."""
    index = -np.ones(inside.shape, int)
    index[inside] = np.arange(inside.sum())
    rows, columns, values, right = [], [], [], np.zeros(inside.sum())
    for i, j in zip(*np.nonzero(inside), strict=True):
        k = index[i, j]
        rows.append(k), columns.append(k), values.append(4.0)
        for a, b in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
            right[k] += source[i, j] - source[a, b]
            if inside[a, b]:
                rows.append(k), columns.append(index[a, b]), values.append(-1.0)
            else:
                right[k] += x[a, b]
    result = x.copy()
    result[inside] = spsolve(coo_array((values, (rows, columns))).tocsr(), right)
    return result


@pytest.mark.parametrize("shape", ["box", "disc", "two"])
def test_poisson_blending_solves_its_equation(shape):
    x, source = smooth_images(1, 1, 24).double(), smooth_images(1, 1, 24, 1).double()
    inside = np.zeros((24, 24), bool)
    if shape == "box":
        inside[4:15, 7:20] = True
    else:
        away = (np.arange(24)[:, None] - 10) ** 2 + (np.arange(24)[None] - 12) ** 2
        inside = (away < 40) & (away > (8 if shape == "two" else -1))
    found = poisson(x, source, torch.from_numpy(inside)[None, None])
    wanted = sparse_solution(x[0, 0].numpy(), source[0, 0].numpy(), inside)
    np.testing.assert_allclose(found[0, 0].numpy(), wanted, atol=2e-4)
    assert np.abs(wanted - x[0, 0].numpy()).max() > 0.02


def test_poisson_blending_is_batched_and_keeps_the_border_of_the_image():
    x, source = smooth_images(3, 3, 20), smooth_images(3, 3, 20, 1)
    region = torch.zeros(3, 1, 20, 20, dtype=torch.bool)
    region[0] = True
    region[1, :, 3:9, 10:18] = True
    together = poisson(x, source, region, "mixed")
    alone = torch.cat([poisson(x[i : i + 1], source[i : i + 1], region[i : i + 1], "mixed") for i in range(3)])
    torch.testing.assert_close(together, alone, atol=1e-3, rtol=0)
    assert torch.equal(together[0, :, 0], x[0, :, 0])
    assert torch.equal(together[2], x[2])
    changed = (together != x).any(1, keepdim=True)
    assert not (changed & ~region).any()


def test_mixing_keeps_the_stronger_gradient():
    x = torch.zeros(1, 1, 20, 20)
    x[..., 10:] = 1.0
    flat = torch.full_like(x, 0.5)
    region = torch.zeros(1, 1, 20, 20, dtype=torch.bool)
    region[..., 4:16, 4:16] = True
    mixed, plain = poisson(x, flat, region, "mixed"), poisson(x, flat, region, "normal")
    # A flat source has nothing to add to an edge, but wipes it out when its gradients replace the edge's.
    torch.testing.assert_close(mixed, x, atol=1e-3, rtol=0)
    assert (plain - x).abs().max() > 0.3
    chosen = poisson(
        torch.cat([x, x]), torch.cat([flat, flat]), torch.cat([region, region]), torch.tensor([True, False])
    )
    torch.testing.assert_close(chosen, torch.cat([mixed, plain]), atol=1e-3, rtol=0)


def test_tiny_images_are_left_alone_by_poisson():
    x = torch.rand(1, 1, 2, 9, generator=generator())
    assert torch.equal(poisson(x, x.flip(3), torch.ones_like(x, dtype=torch.bool)), x)
