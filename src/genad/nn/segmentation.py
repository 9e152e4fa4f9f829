"""Predicting masks: the frame in which images are judged, the one segmenter, its losses, and what a map says in all."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from genad.nn.conv import HALF_FROM, UNet
from genad.nn.working_size import WorkingSize

# Beyond the range of values seen in training, a pixel is anomalous by itself: by 63 % at this share of the range.
_BEYOND = 0.1
_WIDEST = 64


class PixelFrame(WorkingSize):
    """The frame that images are judged in: their working size, and how standardised values become pixel values.

    Parameters
    ----------
    shape : tuple of int
        Shape (C, H, W) of an image.
    resolution : int
        Longest side, in pixels, of the working size; smaller images keep their own.
    scale, shift : Tensor of shape (C,)
        ``z * scale + shift`` is a standardised value within 0 to 1.

    Examples
    --------
    >>> frame = PixelFrame((1, 128, 96), 64, torch.tensor([0.2]), torch.tensor([0.5]))
    >>> frame.size, frame.down(torch.zeros(2, 1, 128, 96)).shape
    ((64, 48), torch.Size([2, 1, 64, 48]))
    >>> frame.pixels(torch.tensor([[[1.0]]]))
    tensor([[[0.7000]]])
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, shape: tuple[int, ...], resolution: int, scale: Tensor, shift: Tensor) -> None:
        super().__init__(shape, resolution)
        self.register_buffer("scale", scale.float().view(-1, 1, 1))
        self.register_buffer("shift", shift.float().view(-1, 1, 1))

    def pixels(self, z: Tensor) -> Tensor:
        """Turn standardised values into pixel values, of which those seen in training lie within 0 to 1."""
        return z * self.scale + self.shift

    def standardised(self, pixels: Tensor) -> Tensor:
        """Turn pixel values back into standardised ones."""
        return (pixels - self.shift) / self.scale

    def beyond(self, pixels: Tensor) -> Tensor:
        """Return how surely each pixel is out of the range of the training data, (B, 1, H, W) in 0 to 1."""
        excess = ((pixels - 0.5).abs() - 0.5).clamp_min(0.0).amax(1, keepdim=True)
        return -torch.expm1(-excess / _BEYOND)


def segmenter_widths(size: tuple[int, ...]) -> tuple[int, ...]:
    """Choose the widths of a segmenter: doubling from 16, or from 8 where images are large, down to about 4 px.

    Examples
    --------
    >>> segmenter_widths((8, 8)), segmenter_widths((32, 32)), segmenter_widths((64, 64)), segmenter_widths((1, 1))
    ((16, 32), (16, 32, 64), (8, 16, 32, 64), (16,))
    """
    longest = max(size)
    inside = longest // 2 if longest >= HALF_FROM else longest
    depth = max(1, min(4, inside.bit_length() - 2))
    base = 8 if longest >= 2 * HALF_FROM else 16
    return tuple(min(_WIDEST, base << level) for level in range(depth))


class Segmenter(nn.Module):
    """A U-Net that says of each pixel whether it is anomalous: (B, channels, *size) -> logits (B, 1, *size).

    One logit stands for the two softmax outputs of the literature, of which it is the difference.

    Parameters
    ----------
    channels : int
        Input channels: those of an image, or of several images stacked.
    size : tuple of int
        Rows and columns, any.
    widths : tuple of int, optional
        Channels by level, the finest first; :func:`segmenter_widths` when absent. From 24 px up the finest level is
        at half resolution, and the input joins the last layer, so that fine detail is not lost.
    prior : float
        Probability the network starts from, in (0, 1): small, as few pixels are anomalous.

    References
    ----------
    Ronneberger, Fischer and Brox (2015), U-Net: convolutional networks for biomedical image segmentation, MICCAI.

    Examples
    --------
    >>> Segmenter(2, (9, 7))(torch.zeros(3, 2, 9, 7)).shape
    torch.Size([3, 1, 9, 7])
    """

    def __init__(
        self, channels: int, size: tuple[int, ...], widths: tuple[int, ...] | None = None, prior: float = 0.05
    ) -> None:
        super().__init__()
        widths = widths or segmenter_widths(size)
        self.unet = UNet(channels, size, widths, out_channels=1, half=max(size) >= HALF_FROM)
        with torch.no_grad():
            self.unet.head.bias.fill_(math.log(prior / (1 - prior)))  # type: ignore[operator]

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.unet(x)
        return logits


def focal_loss(p: Tensor, target: Tensor, gamma: float = 2.0, alpha: float | None = None, eps: float = 1e-5) -> Tensor:
    """Return the focal loss of each pixel: cross-entropy that counts little where the answer is right already.

    With ``q`` the probability given to the truth, the loss is ``-w (1 - q)^gamma log q``.

    Parameters
    ----------
    p : Tensor
        Probability of an anomaly, 0 to 1.
    target : Tensor
        1 where there is one, else 0; of the shape of ``p``.
    gamma : float
        How fast easy pixels lose weight; 0 gives the cross-entropy.
    alpha : float, optional
        Weight ``w`` of anomalous pixels, those of normal ones being ``1 - alpha``; None weighs all by 1.
    eps : float
        The target stays this far from 0 and 1, and ``q`` this far from 0, which keeps the loss finite.

    Returns
    -------
    Tensor
        Of the shape of ``p``.

    References
    ----------
    Lin, Goyal, Girshick, He and Dollar (2017), Focal loss for dense object detection, ICCV.

    Examples
    --------
    >>> focal_loss(torch.tensor([0.5, 0.9]), torch.tensor([1.0, 1.0])).round(decimals=3)
    tensor([0.1730, 0.0010])
    """
    truth = target.clamp(eps, 1 - eps)
    q = truth * p + (1 - truth) * (1 - p) + eps
    loss = -((1 - q).clamp_min(0.0) ** gamma) * q.log()
    return loss if alpha is None else loss * torch.where(target > 0.5, alpha, 1 - alpha)


def dice_loss(p: Tensor, target: Tensor) -> Tensor:
    """Return one minus the soft Dice overlap of each image, (B,).

    One pixel is added above and below, so that an image without an anomaly has loss 0 when nothing is predicted.

    References
    ----------
    Milletari, Navab and Ahmadi (2016), V-Net, 3DV.

    Examples
    --------
    >>> dice_loss(torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    tensor([0., 0.])
    """
    p, target = p.flatten(1), target.flatten(1)
    return 1 - (2 * (p * target).sum(1) + 1) / (p.sum(1) + target.sum(1) + 1)


def map_window(size: tuple[int, ...]) -> int:
    """Return the side of the smoothing window that is 21 px at 256 px: odd, at least 1.

    Examples
    --------
    >>> map_window((256, 256)), map_window((64, 64)), map_window((8, 8))
    (21, 5, 1)
    """
    return 2 * round((21 / 256 * max(size) - 1) / 2) + 1


def smooth(maps: Tensor, window: int) -> Tensor:
    """Average maps (B, 1, H, W) over a square window of odd side; at the border over what lies inside."""
    if window == 1:
        return maps
    return F.avg_pool2d(maps, window, stride=1, padding=window // 2, count_include_pad=False)


def top_mean(maps: Tensor, share: float, at_least: int = 1) -> Tensor:
    """Return the mean of the largest values of each map, (B,).

    Parameters
    ----------
    maps : Tensor of shape (B, ...)
    share : float
        Share of the values that counts, in [0, 1].
    at_least : int
        Values that count whatever the share; as many as there are, when fewer.

    Examples
    --------
    >>> top_mean(torch.arange(8.0).view(1, 8), 0.25)
    tensor([6.5000])
    """
    values = maps.flatten(1)
    count = min(values.shape[1], max(at_least, round(share * values.shape[1])))
    return values.topk(count, dim=1).values.mean(1)


def fill_in(x: Tensor, keep: Tensor) -> Tensor:
    """Fill what is not to be kept from what is: colours spread inwards from the nearest kept pixels.

    Each level of a pyramid holds the weighted mean of the kept pixels; from the coarsest level down, a pixel takes
    from the coarser one the share that its own weight leaves open (pull and push).

    Parameters
    ----------
    x : Tensor of shape (B, C, H, W)
    keep : Tensor of shape (B, C, H, W) or (B, 1, H, W)
        Weight of each pixel, 0 to 1.

    Returns
    -------
    Tensor
        Of the shape of ``x``: equal to it where ``keep`` is 1.

    References
    ----------
    Gortler, Grzeszczuk, Szeliski and Cohen (1996), The lumigraph, SIGGRAPH.

    Examples
    --------
    >>> x, keep = torch.full((1, 1, 4, 4), 2.0), torch.ones(1, 1, 4, 4)
    >>> x[..., 1, 1], keep[..., 1, 1] = 9.0, 0.0
    >>> fill_in(x, keep)[0, 0, 1]
    tensor([2., 2., 2., 2.])
    """
    if max(x.shape[2:]) == 1:
        return x
    mass = F.avg_pool2d(keep, 2, ceil_mode=True)
    mean = F.avg_pool2d(x * keep, 2, ceil_mode=True) / mass.clamp_min(1e-6)
    # Four pixels kept by a quarter each settle the coarser one: certainty grows with the level.
    coarse = fill_in(mean, (4 * mass).clamp_max(1.0))
    spread = F.interpolate(coarse, x.shape[2:], mode="bilinear", align_corners=False)
    return keep * x + (1 - keep) * spread
