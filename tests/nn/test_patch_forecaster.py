"""Forecasts from patches: where these lie, and what does not change the forecast."""

from __future__ import annotations

import torch

from genad.nn.patch_forecaster import PatchForecaster


def forecaster(context=96, horizon=24, **sizes):
    torch.manual_seed(0)
    wanted = {"patch": 16, "stride": 8, "width": 8, "heads": 2, "layers": 1, "inner": 16} | sizes
    return PatchForecaster(context, horizon, **wanted).eval()


def test_patches_are_strides_apart_and_reach_the_last_step():
    net = forecaster()
    patches = net.patches(torch.arange(96.0).unsqueeze(0))[0]
    assert patches.shape == (12, 16)
    assert patches[:, 0].tolist() == list(range(0, 96, 8))
    # The last one holds the last eight steps, and the last value again.
    assert patches[-1].tolist() == [*range(88, 96), *[95] * 8]


def test_channels_are_forecast_alone_and_by_the_same_weights():
    net, x = forecaster(), torch.randn(4, 96, 3)
    quantiles = net(x)
    assert quantiles.shape == (3, 4, 24, 3)
    torch.testing.assert_close(net(x[..., [2, 0]]), quantiles[..., [2, 0]])
    assert (quantiles.diff(dim=0) > 0).all()


def test_forecasts_move_and_stretch_with_the_context():
    net, x = forecaster(), torch.randn(4, 96, 3)
    torch.testing.assert_close(net(1e3 * x + 7e3), 1e3 * net(x) + 7e3, atol=1e-1, rtol=1e-4)


def test_missing_values_do_not_reach_the_forecast():
    net, x = forecaster(), torch.randn(4, 96, 3)
    seen = torch.rand(4, 96, 3) > 0.3
    torch.testing.assert_close(net(torch.where(seen, x, 99.0), seen), net(torch.where(seen, x, 0.0), seen))
