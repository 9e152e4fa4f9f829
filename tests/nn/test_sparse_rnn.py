from __future__ import annotations

import pytest
import torch
from torch import nn

from genad.errors import InputError
from genad.nn import SparseSkipRNN


def _net(cell: str = "lstm", members: int = 3, length: int = 12, seed: int = 0) -> SparseSkipRNN:
    generator = torch.Generator().manual_seed(seed)
    return SparseSkipRNN(members, 2, 4, length, cell=cell, max_lag=4, generator=generator)


def _series(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(9))


def _torch_order(gates: torch.Tensor, lstm: bool = True) -> torch.Tensor:
    """Last axis from input, forget, output, new to torch's input, forget, new, output."""
    if not lstm:
        return gates
    enter, forget, leave, new = gates.chunk(4, dim=-1)
    return torch.cat([enter, forget, new, leave], dim=-1)


def _reference(net: SparseSkipRNN, k: int, x: torch.Tensor) -> torch.Tensor:
    """The published formula with torch's own cells: one member, one step at a time."""
    kind = nn.LSTMCell if net.lstm else nn.RNNCell
    cells = [kind(2, 4), kind(2, 4)]
    rows = cells[0].weight_ih.shape[0]
    with torch.no_grad():
        for j, cell in enumerate(cells):
            part = slice(j * rows, (j + 1) * rows)
            cell.weight_ih.copy_(_torch_order(net.weight_input[k, :, part], net.lstm).T)
            cell.weight_hh.copy_(_torch_order(net.weight_hidden[k, j], net.lstm).T)
            cell.bias_ih.copy_(_torch_order(net.bias[k, part], net.lstm))
            cell.bias_hh.zero_()
    zero = torch.zeros(x.shape[0], 4)
    states = {}
    start = (zero, zero) if net.lstm else zero
    lag = int(net.lag[k])
    for t in range(x.shape[1]):
        after = [
            cells[0](x[:, t], states.get(t - 1, start)),
            cells[1](x[:, t], states.get(t - lag, start)),
        ]
        w1, w2 = net.mask[k, t].tolist()
        if net.lstm:
            states[t] = tuple((w1 * a + w2 * b) / (w1 + w2) for a, b in zip(*after, strict=True))
        else:
            states[t] = (w1 * after[0] + w2 * after[1]) / (w1 + w2)
    hidden = [states[t][0] if net.lstm else states[t] for t in range(x.shape[1])]
    return torch.stack(hidden, dim=1)


@pytest.mark.parametrize("cell", ["lstm", "rnn"])
def test_every_member_follows_the_formula(cell):
    net, x = _net(cell), _series(5, 12, 2)
    hidden, state = net(x)
    assert hidden.shape == (3, 5, 12, 4)
    for k in range(3):
        torch.testing.assert_close(hidden[k], _reference(net, k, x))
    torch.testing.assert_close(state[..., :4], hidden[:, :, -1])


def test_only_the_recurrent_link_is_a_plain_lstm():
    net, x = _net(members=1), _series(5, 12, 2)
    net.mask[:] = torch.tensor([1.0, 0.0])
    plain = nn.LSTM(2, 4, batch_first=True)
    with torch.no_grad():
        plain.weight_ih_l0.copy_(_torch_order(net.weight_input[0, :, :16]).T)
        plain.weight_hh_l0.copy_(_torch_order(net.weight_hidden[0, 0]).T)
        plain.bias_ih_l0.copy_(_torch_order(net.bias[0, :16]))
        plain.bias_hh_l0.zero_()
    expected, (h, c) = plain(x)
    hidden, state = net(x)
    torch.testing.assert_close(hidden[0], expected)
    torch.testing.assert_close(state[0], torch.cat([h, c], dim=-1)[0])


def test_masks_keep_at_least_one_link_use_all_three_kinds_and_stay_fixed():
    net = SparseSkipRNN(10, 1, 2, 100, generator=torch.Generator().manual_seed(0))
    kinds = {tuple(row) for row in net.mask.view(-1, 2).tolist()}
    assert kinds == {(1.0, 0.0), (0.0, 1.0), (1.0, 1.0)}
    assert set(net.lag.tolist()) <= set(range(1, 11))
    assert len(set(net.lag.tolist())) > 1
    assert (net.mask[0] != net.mask[1]).any()
    before = net.mask.clone()
    first, second = (net(torch.ones(1, 100, 1))[0] for _ in range(2))
    torch.testing.assert_close(first, second, atol=0, rtol=0)
    assert (net.mask == before).all()
    assert {"mask", "lag"} <= set(net.state_dict())


def test_same_generator_seed_gives_the_same_network():
    for name, value in _net(seed=3).state_dict().items():
        assert torch.equal(value, _net(seed=3).state_dict()[name])
    assert not torch.equal(_net(seed=3).weight_hidden, _net(seed=4).weight_hidden)


def test_members_do_not_mix():
    net = _net()
    x = _series(3, 5, 12, 2).requires_grad_()
    hidden, _ = net(x)
    hidden[1].sum().backward()
    for k in (0, 2):
        assert (x.grad[k] == 0).all()
        assert all((p.grad[k] == 0).all() for p in net.parameters())
    assert (x.grad[1] != 0).any()


def test_rows_and_times_do_not_leak():
    net = _net()
    x = _series(5, 12, 2).requires_grad_()
    net(x)[0][:, 2, 6].sum().backward()
    assert (x.grad[[0, 1, 3, 4]] == 0).all()
    assert (x.grad[2, 7:] == 0).all()
    assert (x.grad[2, 6] != 0).any()


def test_one_series_for_all_equals_a_copy_for_each():
    net, x = _net(), _series(5, 12, 2)
    torch.testing.assert_close(net(x)[0], net(x.expand(3, -1, -1, -1))[0])


@pytest.mark.parametrize("cell", ["lstm", "rnn"])
def test_steps_equal_the_whole_run_and_start_from_a_given_state(cell):
    net, x = _net(cell), _series(5, 12, 2)
    state = _series(3, 5, net.state_size)
    whole, last = net(x, state)
    history = net.start(5, state)
    for t in range(12):
        hidden, history = net.step(x[:, t].expand(3, -1, -1), t, history)
        torch.testing.assert_close(hidden, whole[:, :, t])
    torch.testing.assert_close(history[0], last)
    assert (whole - net(x)[0]).abs().max() > 1e-3


def test_gradients_reach_every_parameter():
    net = _net()
    net(_series(5, 12, 2))[0].square().sum().backward()
    assert all((p.grad.flatten(1).abs().sum(1) > 0).all() for p in net.parameters())


@pytest.mark.parametrize("name", ["members", "input_size", "hidden_size", "length", "max_lag"])
def test_sizes_below_one_are_refused(name):
    sizes = {"members": 2, "input_size": 2, "hidden_size": 2, "length": 2, name: 0}
    with pytest.raises(InputError, match=f"{name}: found 0"):
        SparseSkipRNN(**sizes)


def test_unknown_cell_and_wrong_series_are_refused():
    with pytest.raises(InputError, match="cell: found 'gru'"):
        SparseSkipRNN(1, 1, 1, 1, cell="gru")
    for shape in [(5, 13, 2), (5, 12, 3), (12, 2), (5, 0, 2)]:
        with pytest.raises(InputError, match=r"x: found shape .* T from 1 to 12"):
            _net()(torch.zeros(shape))
