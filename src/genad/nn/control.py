"""Feedback control of a weight in a loss, so that a term of it settles where it is wanted."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PIController(nn.Module):
    """Proportional and integral control of a weight: it grows while the term it weighs is larger than wanted.

    With the error ``e = target - value`` the weight is ``lowest + P + I``, where ``P = kp / (1 + exp(e))`` and I loses
    ``ki e`` a step. I stands still while the weight is at its lowest, or it would run away from what it cannot reach.

    Parameters
    ----------
    target : float
        Value that the term is to settle at.
    kp, ki : float, default=1e-2, 1e-4
        Gains of both parts.
    lowest : float, default=1.0
        Smallest weight.

    Attributes
    ----------
    weight : Tensor
        The weight as of the last step; ``lowest`` before the first.

    References
    ----------
    Shao et al. (2020), ControlVAE: controllable variational autoencoder, ICML.

    Examples
    --------
    >>> control = PIController(10.0, ki=0.1)
    >>> [round(float(control.step(torch.tensor(value))), 2) for value in (12.0, 12.0, 12.0, 4.0, 4.0)]
    [1.21, 1.41, 1.61, 1.0, 1.0]
    """

    weight: Tensor
    integral: Tensor

    def __init__(self, target: float, kp: float = 1e-2, ki: float = 1e-4, lowest: float = 1.0) -> None:
        super().__init__()
        self.target, self.kp, self.ki, self.lowest = target, kp, ki, lowest
        self.register_buffer("weight", torch.tensor(float(lowest)))
        self.register_buffer("integral", torch.zeros(()))

    @torch.no_grad()
    def step(self, value: Tensor) -> Tensor:
        """Look at the value of the term and return the weight from now on."""
        error = self.target - value
        integral = (self.integral - self.ki * error).clamp_min(0.0)
        weight = self.lowest + self.kp * torch.sigmoid(-error) + integral
        self.integral.copy_(integral)
        self.weight.copy_(weight)
        return self.weight.clone()
