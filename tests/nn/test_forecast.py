from __future__ import annotations

import torch
from torch.nn import functional as F  # noqa: N812

from genad.nn.forecast import RecurrentForecaster


def net_of(horizon=3, outputs=None, layers=2):
    torch.manual_seed(0)
    return RecurrentForecaster(2, 8, layers, horizon, outputs).eval()


def test_forecasts_lie_at_the_step_they_are_about():
    net, x = net_of(), torch.randn(4, 6, 2)
    got = net(x)
    states = net.recurrent(F.pad(x[:, :-1], (0, 0, 1, 0)))[0]
    raw = net.head(states).unflatten(2, (3, 2))
    for t in range(6):
        for j in range(3):
            made, ahead = (t - j, j) if t >= j else (0, t)
            torch.testing.assert_close(got[:, t, j], raw[:, made, ahead])


def test_a_step_never_sees_itself_and_forecasts_look_as_far_back_as_they_say():
    net, x = net_of(), torch.randn(1, 8, 2)
    other = x.clone()
    other[0, 4] += 1.0
    moved = (net(x) - net(other)).abs().amax(-1)[0]
    assert (moved[:5] == 0).all()
    assert moved[5, 0] > 0
    assert moved[5, 1] == 0
    assert (moved[6] > 0).tolist() == [True, True, False]
    assert (moved[7] > 0).all()


def test_fewer_steps_ahead_are_the_first_of_all():
    net, x = net_of(outputs=1), torch.randn(3, 5, 2)
    whole = net(x)
    assert whole.shape == (3, 5, 3, 1)
    torch.testing.assert_close(net(x, 1), whole[:, :, :1])
    torch.testing.assert_close(net(x, 2), whole[:, :, :2])
    assert net(x, 9).shape == whole.shape


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    net = RecurrentForecaster(2, 8, 1, 2, dropout=0.5)
    x = torch.randn(2, 5, 2)
    assert not torch.equal(net(x), net(x))
    net.eval()
    assert torch.equal(net(x), net(x))
