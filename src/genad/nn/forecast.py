"""Recurrent forecasts of the next steps of a window, each laid at the step it is about."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


class RecurrentForecaster(nn.Module):
    """An LSTM whose every state forecasts the next ``horizon`` steps.

    Before its first step the network reads zeros, the mean of standardised values, so that every step of a window has
    a forecast; the first ones are made from little and miss by more.

    Parameters
    ----------
    channels : int
        Values read at each step.
    hidden : int
        Width of the recurrent layers.
    layers : int
        Recurrent layers.
    horizon : int
        Steps forecast by each state.
    outputs : int, optional
        Values forecast of each step; as many as are read when absent.
    dropout : float
        Share of values dropped between recurrent layers, and before the output, in training.

    Examples
    --------
    >>> forecast = RecurrentForecaster(3, 8, 1, horizon=4)(torch.zeros(2, 10, 3))
    >>> forecast.shape
    torch.Size([2, 10, 4, 3])
    """

    def __init__(
        self, channels: int, hidden: int, layers: int, horizon: int, outputs: int | None = None, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.horizon, self.outputs = horizon, outputs or channels
        between = dropout if layers > 1 else 0.0
        self.recurrent = nn.LSTM(channels, hidden, num_layers=layers, batch_first=True, dropout=between)
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(hidden, horizon * self.outputs)

    def forward(self, x: Tensor, horizon: int | None = None) -> Tensor:
        """Forecast every step of windows from the steps before it.

        Parameters
        ----------
        x : Tensor of shape (B, T, channels)
            Windows.
        horizon : int, optional
            Only the forecasts made up to so many steps ahead; all when absent.

        Returns
        -------
        Tensor of shape (B, T, horizon, outputs)
            At ``[b, t, j]`` what was expected of step t after step ``t - 1 - j``, which is after the last step read
            before it for the ``j`` = 0 that looks one step ahead. Where no step lies so far back, it is what was
            expected before the first step.
        """
        ahead = self.horizon if horizon is None else min(horizon, self.horizon)
        before = F.pad(x[:, :-1], (0, 0, 1, 0))
        states = self.drop(self.recurrent(before)[0])
        size = ahead * self.outputs
        flat = F.linear(states, self.head.weight[:size], self.head.bias[:size])
        if ahead == 1:
            return flat.unsqueeze(2)
        steps = torch.arange(x.shape[1], device=x.device)[:, None]
        back = torch.arange(ahead, device=x.device)
        made_at = (steps - back).clamp_min(0)
        return flat.unflatten(2, (ahead, self.outputs))[:, made_at, torch.minimum(back, steps)]
