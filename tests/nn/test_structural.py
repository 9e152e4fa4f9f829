from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, prewitt
from scipy.ndimage import median_filter as scipy_median

from genad.nn.structural import contrast, gaussian_blur, gradient_magnitude, median_filter, msgms_map, ssim_map


@pytest.fixture
def images():
    return torch.rand(2, 1, 1, 20, 24, generator=torch.Generator().manual_seed(0))


def test_blur_agrees_with_scipy_away_from_the_borders(images):
    ours = gaussian_blur(images[0, 0, 0].double(), 1.2).numpy()
    theirs = gaussian_filter(images[0, 0, 0].double().numpy(), 1.2, truncate=3.5)
    assert ours[5:-5, 5:-5] == pytest.approx(theirs[5:-5, 5:-5], abs=2e-3)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (3, 2), (16, 16)])
@pytest.mark.parametrize("sigma", [0.3, 2.0, 50.0])
def test_blur_keeps_a_constant_of_any_size(size, sigma):
    assert torch.allclose(gaussian_blur(torch.full((2, *size), 3.0), sigma), torch.tensor(3.0))


def test_blur_by_axis_leaves_the_other_axis_alone():
    x = torch.rand(1, 9, 4)
    x[:, :, 1] = 5.0
    down = gaussian_blur(x, (2.0, 0.0))
    assert torch.allclose(down[0, :, 1], torch.tensor(5.0))
    assert (down[0, :, 0] < 1).all()
    assert gaussian_blur(x, 0.0) is x


def test_ssim_is_one_for_equal_images_and_falls_with_noise(images):
    a, b = images
    assert ssim_map(a, a).min() == pytest.approx(1.0, abs=1e-4)
    values = [float(ssim_map(a, a + s * b).mean()) for s in (0.0, 0.1, 0.5)]
    assert values[0] > values[1] > values[2]


def test_ssim_of_constants_is_the_luminance_term():
    a, b = torch.full((1, 1, 12, 12), 0.2), torch.full((1, 1, 12, 12), 0.6)
    expected = (2 * 0.12 + 1e-4) / (0.04 + 0.36 + 1e-4)
    assert ssim_map(a, b).mean() == pytest.approx(expected, abs=1e-3)


def test_gradient_is_prewitts_over_three(images):
    x = images[0].double()
    array = x[0, 0].numpy()
    expected = np.hypot(prewitt(array, 0, mode="nearest"), prewitt(array, 1, mode="nearest")) / 3
    assert gradient_magnitude(x)[0, 0].numpy() == pytest.approx(expected, abs=1e-4)


def test_median_agrees_with_scipy(images):
    ours = median_filter(images[0])[0, 0].numpy()
    assert ours == pytest.approx(scipy_median(images[0, 0, 0].numpy(), 3, mode="nearest"))


def test_gradient_distance_at_one_level_is_the_formula(images):
    a, b = images
    left, right = gradient_magnitude(a), gradient_magnitude(b)
    expected = 1 - (2 * left * right + 0.0026) / (left**2 + right**2 + 0.0026)
    assert torch.allclose(msgms_map(a, b, levels=1), expected)


def test_gradient_distance_is_symmetric_within_zero_and_one_and_zero_for_equal_images(images):
    a, b = images
    assert torch.allclose(msgms_map(a, b), msgms_map(b, a))
    assert msgms_map(a, b).min() >= -1e-6
    assert msgms_map(a, b).max() <= 1
    assert msgms_map(a, a).abs().max() < 1e-5


def test_coarse_levels_see_what_noise_hides_from_the_finest():
    step = torch.zeros(1, 1, 32, 32)
    step[..., 16:] = 1.0
    flat = torch.full_like(step, 0.5)
    noise = 0.5 * torch.rand(2, 1, 1, 32, 32, generator=torch.Generator().manual_seed(0))

    def ratio(levels):
        distance = msgms_map(step + noise[0], flat + noise[1], levels)[0, 0, 4:-4]
        return float(distance[:, 14:18].mean() / distance[:, 4:10].mean())

    assert ratio(4) > 1.2 * ratio(1)


def test_differences_of_brightness_alone_are_invisible_to_gradients(images):
    assert msgms_map(images[0], images[0] + 0.3).abs().max() < 1e-4


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (5, 3), (7, 7)])
def test_small_sizes_and_gradients_in_flat_regions_are_finite(size):
    a = torch.zeros(1, 2, *size, requires_grad=True)
    (msgms_map(a, torch.ones_like(a), median=True).sum() + ssim_map(a, torch.ones_like(a)).sum()).backward()
    assert a.grad.isfinite().all()


def test_contrast_is_root_of_one_plus_the_variance_of_what_was_observed():
    x = torch.tensor([[0.0, 4.0, 100.0], [2.0, 2.0, 2.0]])
    mask = torch.tensor([[True, True, False], [True, True, True]])
    assert contrast(x, mask).tolist() == pytest.approx([5**0.5, 1.0])
    assert contrast(x)[0] == pytest.approx((1 + x[0].var(correction=0).item()) ** 0.5)
