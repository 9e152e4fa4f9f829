"""Sparsely connected recurrent cells: an ensemble of members in one batched network."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from genad.errors import InputError


class SparseSkipRNN(nn.Module):
    """Recurrent cells with randomly removed connections, all ensemble members at once.

    Member ``k`` has a recurrent link to the previous step and a skip link to ``lag[k]`` steps ago.
    At every step a fixed random mask keeps one of them or both, and the new state is the mean of
    the kept branches:

        s_t = (w1_t * f(x_t, s_{t-1}) + w2_t * f'(x_t, s_{t-lag})) / (w1_t + w2_t)

    with ``(w1, w2)`` one of (1, 0), (0, 1) and (1, 1). ``f`` and ``f'`` are cells of the same kind
    with weights of their own; for an LSTM the state is the pair of hidden and cell state. Masks and
    lags are drawn once: redrawing them would be dropout. Before step ``lag`` the skip link reads
    the initial state.

    Parameters
    ----------
    members : int
        Number of ensemble members K.
    input_size : int
        Values per step.
    hidden_size : int
        Width H of a member's hidden state.
    length : int
        Greatest number of steps (a mask is drawn per step).
    cell : {"lstm", "rnn"}, default="lstm"
        LSTM, or a plain tanh cell.
    max_lag : int, default=10
        Lags are drawn from 1 to ``max_lag``, per member.
    generator : torch.Generator or None, default=None
        Source of masks, lags and first weights.

    Attributes
    ----------
    mask : torch.Tensor
        ``(K, length, 2)``, 0 or 1: kept recurrent link, kept skip link.
    lag : torch.Tensor
        ``(K,)``, whole numbers.

    Raises
    ------
    InputError
        If an argument is out of range.

    References
    ----------
    Kieu, Yang, Guo and Jensen (2019), Outlier detection for time series with recurrent autoencoder
    ensembles, IJCAI.

    Examples
    --------
    >>> net = SparseSkipRNN(members=4, input_size=2, hidden_size=8, length=20)
    >>> hidden, state = net(torch.zeros(3, 20, 2))
    >>> hidden.shape, state.shape
    (torch.Size([4, 3, 20, 8]), torch.Size([4, 3, 16]))
    """

    mask: Tensor
    lag: Tensor

    def __init__(
        self,
        members: int,
        input_size: int,
        hidden_size: int,
        length: int,
        cell: Literal["lstm", "rnn"] = "lstm",
        max_lag: int = 10,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        sizes = {
            "members": members,
            "input_size": input_size,
            "hidden_size": hidden_size,
            "length": length,
            "max_lag": max_lag,
        }
        for name, value in sizes.items():
            if value < 1:
                msg = f"{name}: found {value}; accepted is a whole number of at least 1."
                raise InputError(msg)
        if cell not in {"lstm", "rnn"}:
            msg = f"cell: found {cell!r}; accepted are 'lstm' and 'rnn'."
            raise InputError(msg)
        self.members, self.hidden_size, self.length = members, hidden_size, length
        self.lstm = cell == "lstm"
        gates = (4 if self.lstm else 1) * hidden_size

        def weight(*shape: int) -> nn.Parameter:
            bound = hidden_size**-0.5
            return nn.Parameter(torch.empty(shape).uniform_(-bound, bound, generator=generator))

        # axis 1: the recurrent branch, then the skip branch; LSTM gates: input, forget, output, new
        self.weight_input = weight(members, input_size, 2 * gates)
        self.weight_hidden = weight(members, 2, hidden_size, gates)
        self.bias = weight(members, 2 * gates)
        kept = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        choice = torch.randint(3, (members, length), generator=generator)
        self.register_buffer("mask", kept[choice])
        lag = torch.randint(1, max_lag + 1, (members,), generator=generator)
        self.register_buffer("lag", lag)

    @property
    def state_size(self) -> int:
        """Length of a member's state: hidden state, and cell state of an LSTM."""
        return (2 if self.lstm else 1) * self.hidden_size

    def start(self, batch: int, state: Tensor | None = None) -> Tensor:
        """Return the history before the first step.

        Parameters
        ----------
        batch : int
            Number of series.
        state : torch.Tensor or None, default=None
            Initial state ``(K, B, state_size)``; None for zeros.

        Returns
        -------
        torch.Tensor
            The states of the last ``max(lag)`` steps, the most recent first,
            ``(max(lag), K, B, state_size)``.
        """
        if state is None:
            state = self.bias.new_zeros(self.members, batch, self.state_size)
        return state.unsqueeze(0).expand(int(self.lag.max()), -1, -1, -1)

    def step(self, x: Tensor, t: int, history: Tensor) -> tuple[Tensor, Tensor]:
        """Advance one step, for decoders that read their own output.

        Parameters
        ----------
        x : torch.Tensor
            Input ``(K, B, input_size)``.
        t : int
            Number of the step, 0 to ``length - 1``.
        history : torch.Tensor
            From `start` or the previous step.

        Returns
        -------
        hidden : torch.Tensor
            Hidden states ``(K, B, H)``.
        history : torch.Tensor
            The new history; its first entry is the new state.
        """
        gates = torch.baddbmm(self.bias.unsqueeze(1), x, self.weight_input)
        gates = torch.unflatten(gates, -1, (2, -1)).transpose(1, 2)
        branch, choice = self._links()
        history = self._advance(gates, branch[:, t], choice, history)
        return history[0][..., : self.hidden_size], history

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Run whole series through all members.

        Parameters
        ----------
        x : torch.Tensor
            Series ``(B, T, input_size)``, the same for all members, or one batch for each
            ``(K, B, T, input_size)``; ``T`` at most ``length``.
        state : torch.Tensor or None, default=None
            Initial state ``(K, B, state_size)``; None for zeros.

        Returns
        -------
        hidden : torch.Tensor
            Hidden states ``(K, B, T, H)``.
        state : torch.Tensor
            Last state ``(K, B, state_size)``.

        Raises
        ------
        InputError
            If the series are longer than ``length`` or have the wrong width.
        """
        width = self.weight_input.shape[1]
        if x.ndim not in {3, 4} or x.shape[-1] != width or not 1 <= x.shape[-2] <= self.length:
            msg = (
                f"x: found shape {tuple(x.shape)}; accepted is (B, T, {width}) or "
                f"({self.members}, B, T, {width}) with T from 1 to {self.length}."
            )
            raise InputError(msg)
        batch, steps = x.shape[-3], x.shape[-2]
        flat = x.reshape(-1, batch * steps, width).expand(self.members, -1, -1)
        gates = torch.baddbmm(self.bias.unsqueeze(1), flat, self.weight_input)
        gates = gates.view(self.members, batch, steps, 2, -1).permute(2, 0, 3, 1, 4)
        branch, choice = self._links()
        history = self.start(batch, state)
        hidden = []
        for t, part in enumerate(gates.unbind(0)):
            history = self._advance(part, branch[:, t], choice, history)
            hidden.append(history[0][..., : self.hidden_size])
        return torch.stack(hidden, dim=2), history[0]

    def _links(self) -> tuple[Tensor, Tensor]:
        """Share of each branch ``(K, length, 2, 1, 1)`` and choice of the lag ``(L, K, 1, 1)``."""
        branch = self.mask / self.mask.sum(-1, keepdim=True)
        back = torch.arange(1, int(self.lag.max()) + 1, device=self.lag.device)
        choice = (back.unsqueeze(1) == self.lag).to(branch.dtype)
        return branch[..., None, None], choice[..., None, None]

    def _advance(self, gates: Tensor, branch: Tensor, choice: Tensor, history: Tensor) -> Tensor:
        """One step from the input's part of the gates ``(K, 2, B, gates)``."""
        # a sum over one-hot lags: its gradient is cheaper than that of an indexed read
        before = torch.stack([history[0], (choice * history).sum(0)], dim=1)  # (K, 2, B, state)
        total = gates + before[..., : self.hidden_size] @ self.weight_hidden
        if self.lstm:
            gate = torch.sigmoid(total[..., : 3 * self.hidden_size])
            enter, forget, leave = gate.chunk(3, dim=-1)
            new = torch.tanh(total[..., 3 * self.hidden_size :])
            cell = forget * before[..., self.hidden_size :] + enter * new
            after = torch.cat([leave * torch.tanh(cell), cell], dim=-1)
        else:
            after = torch.tanh(total)
        state = (branch * after).sum(1)
        return torch.cat([state.unsqueeze(0), history[:-1]])
