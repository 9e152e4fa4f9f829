"""Conditional flows over the sensors of a series: each value given its sensor's past and what other sensors do."""

from __future__ import annotations

import math

import torch
import zuko
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from genad.errors import InputError

_HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)


class ConditionalMAF(nn.Module):
    """Masked autoregressive flow given a condition: each feature is shifted and scaled by those before it.

    A block maps ``x_i`` to ``(x_i - m_i) / s_i``, where a masked network gives ``m_i`` and ``s_i`` from the features
    before i and the condition; every other block turns the order of the features round. With a single feature nothing
    is before it: the density is then a Gaussian given the condition, and further blocks add nothing.

    Parameters
    ----------
    features : int
        Features of a value, D.
    context : int
        Length of the condition.
    hidden : int
        Width of the one hidden layer of a block.
    blocks : int
        Blocks, at least 1.
    least : float
        Smallest scale ``s`` of a block, in (0, 1); the largest is its inverse.

    Raises
    ------
    InputError
        If a size is below 1, or ``least`` is out of its range.

    References
    ----------
    Papamakarios, Pavlakou and Murray (2017), Masked autoregressive flow for density estimation, NeurIPS.

    Examples
    --------
    >>> flow = ConditionalMAF(features=2, context=4, hidden=8)
    >>> z, log_det = flow(torch.zeros(5, 2), torch.zeros(5, 4))
    >>> z.shape, log_det.shape
    (torch.Size([5, 2]), torch.Size([5]))
    """

    def __init__(self, features: int, context: int, hidden: int, blocks: int = 1, least: float = 0.1) -> None:
        super().__init__()
        for name, value in (("features", features), ("context", context), ("hidden", hidden), ("blocks", blocks)):
            if value < 1:
                raise InputError(f"{name}: found {value}; accepted is a whole number of at least 1.")
        if not 0 < least < 1:
            raise InputError(f"least: found {least}; accepted is a number in (0, 1).")
        self.features = features
        self.limit = -math.log(least)
        before = torch.ones(features, features, dtype=torch.bool).tril(-1)
        given = torch.ones(features, context, dtype=torch.bool)
        self.blocks = nn.ModuleList(
            zuko.nn.MaskedMLP(
                torch.cat([before if k % 2 == 0 else before.flip(0, 1), given], 1).repeat(2, 1),
                hidden_features=(hidden,),
                activation=nn.Tanh,
            )
            for k in range(blocks)
        )

    def _read(self, block: nn.Module, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        mean, raw = block(torch.cat([x, context], -1)).chunk(2, -1)
        return mean, self.limit * torch.tanh(raw / self.limit)

    def forward(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``(..., D)``, given ``(..., context)``, to the latent ``(..., D)`` and the log-determinant ``(...)``."""
        log_det = x.new_zeros(x.shape[:-1])
        for block in self.blocks:
            mean, log_scale = self._read(block, x, context)
            x = (x - mean) * torch.exp(-log_scale)
            log_det = log_det - log_scale.sum(-1)
        return x, log_det

    def inverse(self, z: Tensor, context: Tensor) -> Tensor:
        """Map latents ``(..., D)`` back, one pass a feature and block."""
        for block in reversed(self.blocks):
            x = torch.zeros_like(z)
            for _ in range(self.features):
                mean, log_scale = self._read(block, x, context)
                x = mean + z * torch.exp(log_scale)
            z = x
        return z


class SensorFlow(nn.Module):
    """Density of every value of a window given what came before it and what goes on in related sensors.

    One LSTM, shared by all sensors, sums up the values of each sensor so far. A graph convolution puts the states of
    the sensors that a sensor hangs on, the present step included, beside its own state one step before; that is the
    condition of the flow that gives the density of the value. A subclass says what the graph is.

    Parameters
    ----------
    sensors : int
        Channels of the series, K.
    hidden : int
        Width of all layers, H.
    least : float
        Smallest standard deviation of a value, in (0, 1).
    own_means : bool, default=False
        Learn a mean of the latent Gaussian for each sensor, where it is otherwise 0 for all.

    Attributes
    ----------
    base : Tensor of shape (K,)
        Mean of each sensor's latent Gaussian, of standard deviation 1.
    """

    base: Tensor

    def __init__(self, sensors: int, hidden: int, least: float, *, own_means: bool = False) -> None:
        super().__init__()
        self.recurrent = nn.LSTM(1, hidden, batch_first=True)
        self.from_others = nn.Linear(hidden, hidden)
        self.from_own = nn.Linear(hidden, hidden, bias=False)
        self.join = nn.Linear(hidden, hidden)
        self.flow = ConditionalMAF(1, hidden, hidden, least=least)
        if own_means:
            self.base = nn.Parameter(torch.zeros(sensors))
        else:
            self.register_buffer("base", torch.zeros(sensors))

    def graph(self, x: Tensor) -> Tensor:
        """Return how much each sensor (row) tells each other (column), (K, K), or (B, K, K) for every window alone."""
        raise NotImplementedError

    def states(self, x: Tensor) -> Tensor:
        """Return what the LSTM makes of each sensor of windows (B, T, K) up to and with each step, (B, K, T, H)."""
        batch, steps, sensors = x.shape
        found, _ = self.recurrent(x.transpose(1, 2).reshape(batch * sensors, steps, 1))
        return torch.unflatten(found, 0, (batch, sensors))

    def condition(self, x: Tensor, graph: Tensor) -> Tensor:
        """Return the conditions (B, K, T, H) of the values of windows (B, T, K)."""
        states = self.states(x)
        others = (graph.mT @ states.flatten(2)).view_as(states)
        own = F.pad(states[:, :, :-1], (0, 0, 1, 0))
        joined: Tensor = self.join(F.relu(self.from_others(others) + self.from_own(own)))
        return joined

    def nll(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return the negative log-density of every value of windows (B, T, K), in nats."""
        z, log_det = self.flow(x.transpose(1, 2).unsqueeze(-1), condition)
        far = z.squeeze(-1) - self.base[:, None]
        return (0.5 * far * far - log_det).transpose(1, 2) + _HALF_LOG_TWO_PI

    def expected(self, condition: Tensor) -> Tensor:
        """Return what the mean of the latent Gaussian is mapped back to: the likeliest windows, (B, T, K)."""
        centre = self.base[:, None, None].expand(*condition.shape[:-1], 1)
        return self.flow.inverse(centre, condition).squeeze(-1).transpose(1, 2)

    @property
    def lowest(self) -> float:
        """Lowest negative log-density that a value can have."""
        return _HALF_LOG_TWO_PI - self.flow.limit
