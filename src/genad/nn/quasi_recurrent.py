"""Quasi-recurrent layers: gates by convolution, and a recurrence that is element-wise only."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


class QRNNLayer(nn.Module):
    """Quasi-recurrent layer: what enters, is forgotten and is shown comes from a causal convolution.

    With ``i``, ``f`` and ``o`` from a convolution over the last ``taps`` steps, the state is the running mean
    ``c_t = f_t c_{t-1} + (1 - f_t) i_t`` from ``c_0 = 0``, and the output ``h_t = o_t c_t``. No product of matrices
    waits for the step before, so that all of them are done for the whole window at once.

    Parameters
    ----------
    inputs : int
        Values a step.
    width : int
        Values of the state.
    taps : int, default=2
        Steps the gates see: the present one and those before it.
    reverse : bool, default=False
        Run from the last step to the first; the output stays in the order of time.

    References
    ----------
    Bradbury, Merity, Xiong and Socher (2017), Quasi-recurrent neural networks, ICLR.

    Examples
    --------
    >>> layer = QRNNLayer(3, 8)
    >>> layer(torch.zeros(5, 10, 3)).shape
    torch.Size([5, 10, 8])
    """

    def __init__(self, inputs: int, width: int, taps: int = 2, *, reverse: bool = False) -> None:
        super().__init__()
        self.taps, self.reverse, self.width = taps, reverse, width
        self.gates = nn.Conv1d(inputs, 3 * width, taps)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, inputs) to (B, T, width)."""
        if self.reverse:
            x = x.flip(1)
        found = self.gates(F.pad(x.transpose(1, 2), (self.taps - 1, 0)))
        enter, forget, show = found.chunk(3, dim=1)
        forget = torch.sigmoid(forget)
        fresh = (1.0 - forget) * torch.tanh(enter)
        c = torch.zeros_like(fresh[..., 0])
        states = []
        for keep, new in zip(forget.unbind(2), fresh.unbind(2), strict=True):
            c = torch.addcmul(new, keep, c)
            states.append(c)
        h = torch.sigmoid(show).transpose(1, 2) * torch.stack(states, 1)
        return h.flip(1) if self.reverse else h
