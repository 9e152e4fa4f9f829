"""Comparison of images by structure: blur, structural similarity and gradient magnitude similarity."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

# Constants of the structural similarity for values within 0 to 1, and of the gradient magnitude similarity.
_C1, _C2 = 0.01**2, 0.03**2
_GRADIENT = 0.0026
# Below this side, in pixels, a coarser level of the pyramid has no structure left to compare.
_SMALLEST = 4


def _smoother(length: int, sigma: float, like: Tensor) -> Tensor:
    """Matrix (length, length) that smooths a line; the kernel is cut off at the ends and brought back to a sum of 1."""
    place = torch.arange(length, dtype=torch.float64, device=like.device)
    distance = place[:, None] - place
    reach = max(1.0, 3.5 * sigma)
    kernel = torch.where(distance.abs() <= reach, torch.exp(-0.5 * (distance / sigma).square()), 0.0)
    return (kernel / kernel.sum(1, keepdim=True)).to(like.dtype)


def gaussian_blur(x: Tensor, sigma: float | tuple[float, float]) -> Tensor:
    """Smooth the last two axes by a Gaussian that is renormalised at the borders.

    A constant image stays as it is, and every size from 1 x 1 on is taken.

    Parameters
    ----------
    x : torch.Tensor
        ``(..., H, W)``.
    sigma : float or tuple of float
        Standard deviation in pixels, at least 0, the same or by axis; an axis with 0 is left alone.

    Returns
    -------
    torch.Tensor
        The same shape.

    Examples
    --------
    >>> gaussian_blur(torch.ones(1, 5, 5), 2.0).allclose(torch.ones(1, 5, 5))
    True
    """
    down, across = sigma if isinstance(sigma, tuple) else (sigma, sigma)
    if across > 0:
        x = x @ _smoother(x.shape[-1], across, x).T
    if down > 0:
        x = _smoother(x.shape[-2], down, x) @ x
    return x


def ssim_map(a: Tensor, b: Tensor, sigma: float = 1.5) -> Tensor:
    """Return the structural similarity of two images at every pixel, by channel.

    Parameters
    ----------
    a, b : torch.Tensor
        Images ``(B, C, H, W)`` of values within 0 to 1.
    sigma : float, default=1.5
        Standard deviation of the Gaussian window, in pixels.

    Returns
    -------
    torch.Tensor
        ``(B, C, H, W)``, at most 1; exactly 1 where the windows are equal.

    References
    ----------
    Wang et al. (2004), Image quality assessment: from error visibility to structural similarity, IEEE TIP 13.

    Examples
    --------
    >>> a = torch.linspace(0, 1, 64).view(1, 1, 8, 8)
    >>> float(ssim_map(a, a).mean()), bool(ssim_map(a, 1 - a).mean() < 0)
    (1.0, True)
    """
    moments = gaussian_blur(torch.stack([a, b, a * a, b * b, a * b]), sigma)
    mean_a, mean_b, square_a, square_b, product = moments
    variances = (square_a - mean_a.square()).clamp_min(0) + (square_b - mean_b.square()).clamp_min(0)
    covariance = product - mean_a * mean_b
    means = mean_a.square() + mean_b.square()
    return (2 * mean_a * mean_b + _C1) * (2 * covariance + _C2) / ((means + _C1) * (variances + _C2))


def median_filter(x: Tensor) -> Tensor:
    """Return the median of every 3 x 3 neighbourhood of ``(B, C, H, W)``; borders are repeated outwards."""
    patches = F.pad(x, (1, 1, 1, 1), mode="replicate").unfold(-2, 3, 1).unfold(-2, 3, 1)
    return patches.flatten(-2).median(-1).values


def gradient_magnitude(x: Tensor) -> Tensor:
    """Return the length of the Prewitt gradient, a third of the kernel's sum, at every pixel of ``(B, C, H, W)``.

    Examples
    --------
    >>> ramp = torch.arange(5.0).expand(1, 1, 5, 5)
    >>> gradient_magnitude(ramp)[0, 0, 2].round(decimals=3)
    tensor([1., 2., 2., 2., 1.])
    """
    wide = F.pad(x, (1, 1, 1, 1), mode="replicate")
    rows = wide[..., :-2, :] + wide[..., 1:-1, :] + wide[..., 2:, :]
    columns = wide[..., :-2] + wide[..., 1:-1] + wide[..., 2:]
    across = (rows[..., 2:] - rows[..., :-2]) / 3
    down = (columns[..., 2:, :] - columns[..., :-2, :]) / 3
    # The root has no slope at 0, and flat regions are common.
    return torch.sqrt(across.square() + down.square() + 1e-10)


def msgms_map(a: Tensor, b: Tensor, levels: int = 4, *, median: bool = False) -> Tensor:
    """Return the distance of two images by gradient magnitude, mean over the levels of a pyramid, at every pixel.

    At one level the distance is ``1 - (2 g_a g_b + c) / (g_a^2 + g_b^2 + c)`` of the gradient magnitudes. Each level
    halves the images; its map is enlarged again. A pyramid ends early once a side would fall below 4 pixels.

    Parameters
    ----------
    a, b : torch.Tensor
        Images ``(B, C, H, W)`` of values within 0 to 1.
    levels : int, default=4
        Levels of the pyramid, at least 1.
    median : bool, default=False
        Whether a 3 x 3 median precedes the gradients: it removes noise, and lines of one or two pixels with it.

    Returns
    -------
    torch.Tensor
        ``(B, C, H, W)`` within 0 to 1; 0 where the gradients agree.

    References
    ----------
    Xue et al. (2014), Gradient magnitude similarity deviation, IEEE TIP 23.
    Zavrtanik, Kristan and Skocaj (2021), Reconstruction by inpainting for visual anomaly detection, Pattern
    Recognition 112.

    Examples
    --------
    >>> a = torch.zeros(1, 1, 16, 16)
    >>> b = a.clone()
    >>> b[..., 8:] = 1.0
    >>> float(msgms_map(a, a).max()), bool(msgms_map(a, b)[0, 0, 8, 7] > 0.9)
    (0.0, True)
    """
    size = tuple(a.shape[-2:])
    total, count = torch.zeros_like(a), 0
    for level in range(levels):
        if level:
            if min(a.shape[-2:]) < 2 * _SMALLEST:
                break
            a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
        left, right = (median_filter(a), median_filter(b)) if median else (a, b)
        left, right = gradient_magnitude(left), gradient_magnitude(right)
        distance = 1 - (2 * left * right + _GRADIENT) / (left.square() + right.square() + _GRADIENT)
        if level:
            distance = F.interpolate(distance, size=size, mode="bilinear", align_corners=False)
        total, count = total + distance, count + 1
    return total / count


def contrast(x: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return by how much a sample varies within itself, to judge its error by: ``sqrt(1 + variance)``.

    A reconstruction misses more of a sample that has more to it: of two images that are rebuilt equally well, the one
    with more ink has the larger error. Dividing by the contrast makes the error comparable. The 1 is the variance
    of the standardised training data as a whole, so that samples without any contrast are judged by their error alone.

    Parameters
    ----------
    x : torch.Tensor
        Standardised samples ``(B, ...)``.
    mask : torch.Tensor of bool, optional
        True where a value was observed.

    Returns
    -------
    torch.Tensor
        ``(B,)``, at least 1.

    Examples
    --------
    >>> contrast(torch.tensor([[2.0, 2.0], [-1.0, 1.0]])).round(decimals=3)
    tensor([1.0000, 1.4140])
    """
    values = x.flatten(1)
    seen = torch.ones_like(values) if mask is None else mask.flatten(1).to(values.dtype)
    count = seen.sum(1, keepdim=True).clamp_min(1)
    mean = (values * seen).sum(1, keepdim=True) / count
    variance = ((values - mean).square() * seen).sum(1) / count[:, 0]
    return torch.sqrt(1 + variance)
