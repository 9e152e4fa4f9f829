"""Noise schedules of diffusion models, and the closed forms that go with them."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from genad.errors import InputError


class NoiseSchedule(nn.Module):
    """Variance-preserving noise schedule over discrete steps 0 to ``steps - 1``.

    A sample at step ``t`` is ``x_t = sqrt(abar_t) x + sqrt(1 - abar_t) noise``, with
    ``abar_t`` the product of ``1 - beta`` up to and including ``t``.

    Parameters
    ----------
    steps : int
        Number of steps, at least 1.
    kind : {"linear", "cosine"}, default="linear"
        Linear in beta, or a squared cosine in ``abar``.
    beta_start, beta_end : float or None, default=None
        First and last beta of the linear schedule, in (0, 1). None gives 1e-4 and 0.02 for 1000
        steps, times ``1000 / steps`` for fewer or more (at most 0.999), so that the last step is
        nearly pure noise whatever the number of steps.

    Attributes
    ----------
    beta, abar : torch.Tensor
        Buffers ``(steps,)``, float32.

    Raises
    ------
    InputError
        If an argument is out of range.

    References
    ----------
    Ho, Jain and Abbeel (2020), Denoising diffusion probabilistic models, NeurIPS.
    Nichol and Dhariwal (2021), Improved denoising diffusion probabilistic models, ICML.
    Song, Meng and Ermon (2021), Denoising diffusion implicit models, ICLR.

    Examples
    --------
    >>> schedule = NoiseSchedule(100)
    >>> x, noise, t = torch.ones(2, 3), torch.zeros(2, 3), torch.tensor([0, 99])
    >>> x_t = schedule.q(x, t, noise)
    >>> bool(torch.allclose(schedule.x0(x_t, t, noise), x))
    True
    """

    beta: Tensor
    abar: Tensor

    def __init__(
        self,
        steps: int,
        kind: Literal["linear", "cosine"] = "linear",
        beta_start: float | None = None,
        beta_end: float | None = None,
    ) -> None:
        super().__init__()
        if steps < 1:
            msg = f"steps: found {steps}; accepted is a whole number of at least 1."
            raise InputError(msg)
        self.steps = steps
        if kind == "linear":
            scale = 1000.0 / steps
            start = min(1e-4 * scale, 0.999) if beta_start is None else beta_start
            end = min(0.02 * scale, 0.999) if beta_end is None else beta_end
            for name, value in (("beta_start", start), ("beta_end", end)):
                if not 0 < value < 1:
                    msg = f"{name}: found {value}; accepted is a number between 0 and 1."
                    raise InputError(msg)
            beta = torch.linspace(start, end, steps, dtype=torch.float64)
        elif kind == "cosine":
            offset = 0.008
            grid = torch.arange(steps + 1, dtype=torch.float64) / steps
            curve = torch.cos((grid + offset) / (1 + offset) * math.pi / 2).square()
            beta = (1 - curve[1:] / curve[:-1]).clamp_max(0.999)
        else:
            msg = f"kind: found {kind!r}; accepted are 'linear' and 'cosine'."
            raise InputError(msg)
        self.register_buffer("beta", beta.float())
        self.register_buffer("abar", torch.cumprod(1 - beta, 0).float())

    def _at(self, values: Tensor, t: Tensor, like: Tensor) -> Tensor:
        """Pick one value per sample, shaped to broadcast over the sample's axes."""
        return values[t].view(-1, *(1,) * (like.ndim - 1))

    def q(self, x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Noise clean samples.

        Parameters
        ----------
        x : torch.Tensor
            Clean samples ``(B, ...)``.
        t : torch.Tensor
            Step of each sample ``(B,)``, whole numbers from 0 to ``steps - 1``.
        noise : torch.Tensor
            Standard normal noise of the shape of ``x``.

        Returns
        -------
        torch.Tensor
            ``x_t``, of the shape of ``x``.
        """
        abar = self._at(self.abar, t, x)
        return abar.sqrt() * x + (1 - abar).sqrt() * noise

    def x0(self, x_t: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """Estimate the clean sample from a noisy one and its (predicted) noise: inverse of `q`."""
        abar = self._at(self.abar, t, x_t)
        return (x_t - (1 - abar).sqrt() * eps) / abar.sqrt()

    def eps(self, x_t: Tensor, t: Tensor, x0: Tensor) -> Tensor:
        """Return the noise that leads from ``x0`` to ``x_t``."""
        abar = self._at(self.abar, t, x_t)
        return (x_t - abar.sqrt() * x0) / (1 - abar).sqrt()

    def ddim(self, x_t: Tensor, t: Tensor, to: Tensor, eps: Tensor) -> Tensor:
        """Move deterministically from step ``t`` to step ``to``, in either direction.

        Parameters
        ----------
        x_t : torch.Tensor
            Samples ``(B, ...)`` at step ``t``.
        t, to : torch.Tensor
            Steps ``(B,)``; -1 in ``to`` stands for the clean sample.
        eps : torch.Tensor
            Predicted noise of the shape of ``x_t``.

        Returns
        -------
        torch.Tensor
            Samples at step ``to``.
        """
        clean = self.x0(x_t, t, eps)
        noised = self.q(clean, to.clamp_min(0), eps)
        return torch.where((to < 0).view(-1, *(1,) * (x_t.ndim - 1)), clean, noised)

    def posterior(self, x_t: Tensor, t: Tensor, x0: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and variance of ``x_{t-1}`` given ``x_t`` and ``x_0``.

        Parameters
        ----------
        x_t : torch.Tensor
            Samples ``(B, ...)`` at step ``t``.
        t : torch.Tensor
            Step of each sample ``(B,)``.
        x0 : torch.Tensor
            Clean samples, true or estimated.

        Returns
        -------
        mean : torch.Tensor
            Of the shape of ``x_t``.
        variance : torch.Tensor
            ``(B, 1, ...)``; 0 at step 0, where the mean is ``x0``.
        """
        abar, beta = self._at(self.abar, t, x_t), self._at(self.beta, t, x_t)
        first = (t == 0).view(-1, *(1,) * (x_t.ndim - 1))
        before = self._at(self.abar, (t - 1).clamp_min(0), x_t)
        before = torch.where(first, torch.ones_like(before), before)
        mean = (before.sqrt() * beta * x0 + (1 - beta).sqrt() * (1 - before) * x_t) / (1 - abar)
        variance = beta * (1 - before) / (1 - abar)
        return torch.where(first, x0, mean), variance
