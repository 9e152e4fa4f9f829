"""The noise schedule of diffusion models, and the closed forms that go with it: every step is per sample."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from genad.errors import InputError


class NoiseSchedule(nn.Module):
    """Variance-preserving noise schedule over discrete steps 0 to ``steps - 1``.

    A sample at step ``t`` is ``x_t = sqrt(abar_t) x + sqrt(1 - abar_t) noise``, with
    ``abar_t`` the product of ``1 - beta`` up to and including ``t``. Step -1 stands for the clean
    sample, ``abar = 1``.

    Every method takes the steps as a vector, one a sample, and may go from any step to any other, so
    that a chain can skip steps and each sample of a batch can be in another place of its own chain. No
    method draws noise: what is random is handed in.

    Parameters
    ----------
    steps : int
        Number of steps, at least 1.
    kind : {"linear", "quadratic", "cosine"}, default="linear"
        Linear in beta or in its square root, or a squared cosine in ``abar``.
    beta_start, beta_end : float or None, default=None
        First and last beta, in (0, 1), unless the kind is cosine. None gives 1e-4 and 0.02 for 1000
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
        kind: Literal["linear", "quadratic", "cosine"] = "linear",
        beta_start: float | None = None,
        beta_end: float | None = None,
    ) -> None:
        super().__init__()
        if steps < 1:
            msg = f"steps: found {steps}; accepted is a whole number of at least 1."
            raise InputError(msg)
        self.steps = steps
        if kind in ("linear", "quadratic"):
            scale = 1000.0 / steps
            start = min(1e-4 * scale, 0.999) if beta_start is None else beta_start
            end = min(0.02 * scale, 0.999) if beta_end is None else beta_end
            for name, value in (("beta_start", start), ("beta_end", end)):
                if not 0 < value < 1:
                    msg = f"{name}: found {value}; accepted is a number between 0 and 1."
                    raise InputError(msg)
            power = 1 if kind == "linear" else 2
            beta = torch.linspace(start ** (1 / power), end ** (1 / power), steps, dtype=torch.float64) ** power
        elif kind == "cosine":
            offset = 0.008
            grid = torch.arange(steps + 1, dtype=torch.float64) / steps
            curve = torch.cos((grid + offset) / (1 + offset) * math.pi / 2).square()
            beta = (1 - curve[1:] / curve[:-1]).clamp_max(0.999)
        else:
            msg = f"kind: found {kind!r}; accepted are 'linear', 'quadratic' and 'cosine'."
            raise InputError(msg)
        self.register_buffer("beta", beta.float())
        self.register_buffer("abar", torch.cumprod(1 - beta, 0).float())

    def alpha_bar(self, t: Tensor, like: Tensor) -> Tensor:
        """Return ``abar`` at each sample's step ``(B,)``, shaped to broadcast over ``like``; 1 at step -1."""
        abar = torch.where(t < 0, torch.ones_like(self.abar[:1]), self.abar[t.clamp_min(0)])
        return abar.view(-1, *(1,) * (like.ndim - 1))

    @staticmethod
    def timetable(start: Tensor, count: int) -> Tensor:
        """Divide the way from ``start`` to the clean sample into ``count`` strides of nearly equal length.

        Parameters
        ----------
        start : torch.Tensor
            First step of each sample ``(B,)``.
        count : int
            Number of strides, at least 1. Where it exceeds the number of steps, some are visited twice.

        Returns
        -------
        torch.Tensor
            Steps ``(count + 1, B)``, falling from ``start`` to -1; only the last is -1.

        Examples
        --------
        >>> NoiseSchedule.timetable(torch.tensor([249, 79]), 5).T
        tensor([[249, 199, 149,  99,  49,  -1],
                [ 79,  63,  47,  31,  15,  -1]])
        """
        if count < 1:
            raise InputError(f"count: found {count}; accepted is a whole number of at least 1.")
        left = torch.arange(count, -1, -1, device=start.device)[:, None]
        return -torch.div(-left * (start + 1), count, rounding_mode="floor") - 1

    def q(self, x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Noise clean samples.

        Parameters
        ----------
        x : torch.Tensor
            Clean samples ``(B, ...)``.
        t : torch.Tensor
            Step of each sample ``(B,)``, whole numbers from -1 to ``steps - 1``.
        noise : torch.Tensor
            Noise of the shape of ``x``, of mean 0 and variance 1.

        Returns
        -------
        torch.Tensor
            ``x_t``, of the shape of ``x``.
        """
        abar = self.alpha_bar(t, x)
        return abar.sqrt() * x + (1 - abar).sqrt() * noise

    def renoise(self, x_t: Tensor, t: Tensor, to: Tensor, noise: Tensor) -> Tensor:
        """Noise samples at step ``t`` further, up to step ``to``, at or above ``t``.

        Parameters
        ----------
        x_t : torch.Tensor
            Samples ``(B, ...)`` at step ``t``.
        t, to : torch.Tensor
            Steps ``(B,)``.
        noise : torch.Tensor
            Fresh noise of the shape of ``x_t``.

        Returns
        -------
        torch.Tensor
            Samples at step ``to``.
        """
        kept = self.alpha_bar(to, x_t) / self.alpha_bar(t, x_t)
        return kept.sqrt() * x_t + (1 - kept).clamp_min(0.0).sqrt() * noise

    def x0(self, x_t: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """Estimate the clean sample from a noisy one and its (predicted) noise: inverse of `q`."""
        abar = self.alpha_bar(t, x_t)
        return (x_t - (1 - abar).sqrt() * eps) / abar.sqrt()

    def eps(self, x_t: Tensor, t: Tensor, x0: Tensor) -> Tensor:
        """Return the noise that leads from ``x0`` to ``x_t``, for steps from 0 on."""
        abar = self.alpha_bar(t, x_t)
        return (x_t - abar.sqrt() * x0) / (1 - abar).sqrt()

    def ddim(
        self, x_t: Tensor, t: Tensor, to: Tensor, eps: Tensor, eta: float = 0.0, noise: Tensor | None = None
    ) -> Tensor:
        """Move from step ``t`` to step ``to``: with ``eta`` 0 deterministically and in either direction.

        Parameters
        ----------
        x_t : torch.Tensor
            Samples ``(B, ...)`` at step ``t``.
        t, to : torch.Tensor
            Steps ``(B,)``; -1 in ``to`` stands for the clean sample.
        eps : torch.Tensor
            Predicted noise of the shape of ``x_t``.
        eta : float, default=0.0
            How much of the noise is drawn afresh, in [0, 1]; at 1 this is `ddpm` with the small variance.
        noise : torch.Tensor or None
            What is drawn afresh, of the shape of ``x_t``; needed where ``eta`` is above 0.

        Returns
        -------
        torch.Tensor
            Samples at step ``to``.

        Raises
        ------
        InputError
            If ``eta`` is above 0 and there is no noise.
        """
        clean = self.x0(x_t, t, eps)
        if not eta:
            return self.q(clean, to, eps)
        if noise is None:
            raise InputError(f"noise: None was given with eta={eta}; hand in noise of the shape of x_t.")
        abar, after = self.alpha_bar(t, x_t), self.alpha_bar(to, x_t)
        fresh = eta**2 * self._small_variance(abar, after)
        return after.sqrt() * clean + (1 - after - fresh).clamp_min(0.0).sqrt() * eps + fresh.sqrt() * noise

    def ddpm(
        self,
        x_t: Tensor,
        t: Tensor,
        to: Tensor,
        x0: Tensor,
        noise: Tensor,
        variance: Literal["large", "small"] = "large",
    ) -> Tensor:
        """Take an ancestral step down from ``t`` to ``to``, given an estimate of the clean sample.

        Parameters
        ----------
        x_t : torch.Tensor
            Samples ``(B, ...)`` at step ``t``.
        t, to : torch.Tensor
            Steps ``(B,)``, ``to`` at or below ``t``. The step to -1 returns ``x0`` and uses no noise.
        x0 : torch.Tensor
            Estimated clean samples.
        noise : torch.Tensor
            Noise of the shape of ``x_t``, of the kind the samples were noised with.
        variance : {"large", "small"}, default="large"
            Variance of the step: that of the forward step, or that of the posterior given ``x0``.

        Returns
        -------
        torch.Tensor
            Samples at step ``to``.
        """
        mean, small = self.posterior(x_t, t, x0, to)
        if variance == "large":
            forward = (1 - self.alpha_bar(t, x_t) / self.alpha_bar(to, x_t)).clamp_min(0.0)
            small = torch.where(small > 0, forward, small)
        return mean + small.sqrt() * noise

    @staticmethod
    def _small_variance(abar: Tensor, after: Tensor) -> Tensor:
        """Return the posterior variance of a step from ``abar`` to ``after``."""
        return ((1 - abar / after) * (1 - after) / (1 - abar)).clamp_min(0.0)

    def posterior(self, x_t: Tensor, t: Tensor, x0: Tensor, to: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return mean and variance of the sample at an earlier step given those at step ``t`` and at the start.

        Parameters
        ----------
        x_t : torch.Tensor
            Samples ``(B, ...)`` at step ``t``.
        t : torch.Tensor
            Step of each sample ``(B,)``, from 0 on.
        x0 : torch.Tensor
            Clean samples, true or estimated.
        to : torch.Tensor or None
            The earlier step ``(B,)``; None for ``t - 1``.

        Returns
        -------
        mean : torch.Tensor
            Of the shape of ``x_t``.
        variance : torch.Tensor
            ``(B, 1, ...)``; 0 where ``to`` is -1, where the mean is ``x0``.
        """
        to = t - 1 if to is None else to
        abar, after = self.alpha_bar(t, x_t), self.alpha_bar(to, x_t)
        kept = abar / after
        mean = (after.sqrt() * (1 - kept) * x0 + kept.sqrt() * (1 - after) * x_t) / (1 - abar)
        clean = (to < 0).view(-1, *(1,) * (x_t.ndim - 1))
        return torch.where(clean, x0, mean), self._small_variance(abar, after)
