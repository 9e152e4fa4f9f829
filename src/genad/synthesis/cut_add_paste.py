"""CutAddPaste: a stretch cut from elsewhere in the series, a trend added to some of its channels, and pasted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from genad.core.parameters import check_number, check_whole
from genad.data.kinds import Kind
from genad.errors import InputError
from genad.synthesis.noise import uniform, whole
from genad.synthesis.registry import SynthesisCard, register_synthesizer
from genad.synthesis.spans import Event, Floats, Places, SeriesSynthesizer, Whole


@register_synthesizer(
    SynthesisCard(
        title="CutAddPaste: Time Series Anomaly Detection by Exploiting Abnormal Knowledge",
        authors="R. Wang, C. Liu, X. Mou, K. Gao, X. Guo, P. Liu, T. Wo, X. Liu",
        venue="KDD",
        year=2024,
        kinds=(Kind.SERIES,),
        row="2.1-A17",
        summary="A stretch of another time, with a slope on some channels, pasted over a window.",
    )
)
@dataclass(eq=False, repr=False)
class CutAddPaste(SeriesSynthesizer):
    """Cut a stretch from another window, add a linear trend to some of its channels, and paste it.

    The place of the cut and that of the paste are drawn apart, so the pasted values are usual ones at an unusual
    time, between neighbours that they do not continue, and with a slope of their own.

    Parameters
    ----------
    window : int
        Steps of a window, at least 2.
    cut : int
        Fewest steps of a stretch; its length is uniform up to the window, but at least this.
    trend : float
        Largest slope, in standard deviations a step, at least 0. Each channel gets a slope or not by the toss of a
        coin, at least one does; slopes have either sign.
    ratio : float
        Share of the steps that windows with a paste take up when no number of events is asked for, in (0, 0.5].

    Attributes
    ----------
    bank_ : Tensor of shape (steps, C)
        The normal series that stretches are cut from, standardised.
    starts_ : Tensor of int64
        Where windows of it start.

    Notes
    -----
    When to use: to train a classifier of windows against made-up anomalies (:meth:`apply` makes a batch of them, and
    the label of each such window is 1; :class:`~genad.CutAddPasteDetector` is the paper's), or to test detectors of
    context. The classifier's checkpoint has to be chosen by made-up anomalies too; the published code chooses it by the
    labels of the test set.

    When it fails: in a stationary series without a rhythm a pasted stretch is as good as any, and only its seams and
    its slope give it away; in a periodic one a paste that happens to be in phase is normal. The slope that helps
    differs between data by factors of 100 in the paper (0.01 to 1).

    Stretches are cut from copies: the published code adds the trend to the window it cuts from as well, and cuts from
    windows that already hold pastes.

    References
    ----------
    Wang, Liu, Mou, Gao, Guo, Liu, Wo and Liu, "CutAddPaste: Time series anomaly detection by exploiting abnormal
    knowledge", KDD 2024.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.sin(np.arange(2000) / 10)
    >>> made = CutAddPaste(trend=0.1).synthesize(X, 4, random_state=1)
    >>> len(made.meta), all(12 <= event["stop"] - event["start"] <= 64 for event in made.meta)
    (4, True)
    """

    window: int = 64
    cut: int = 12
    trend: float = 0.01
    ratio: float = 0.1

    def check_parameters(self) -> None:
        """Refuse windows of one step, cuts longer than the window, and negative slopes."""
        check_whole(self, "window", low=2)
        check_whole(self, "cut")
        check_number(self, "trend", "[0, inf)")
        check_number(self, "ratio", "(0, 0.5]")
        if self.cut > self.window:
            raise InputError(f"cut: {self.cut} was given; use at most window={self.window}.")

    def length(self) -> int:
        """Return the steps of a window."""
        return self.window

    def count(self, steps: int) -> int:
        """Return the windows that make up ``ratio`` of the steps."""
        return round(steps * self.ratio / self.window)

    def learn(self, z: Floats, segments: Whole) -> None:
        """Keep the normal series to cut from."""
        starts = [np.arange(a, b - self.window + 1) for a, b in segments.tolist() if b - a >= self.window]
        if not starts:
            longest = int((segments[:, 1] - segments[:, 0]).max())
            raise InputError(
                f"normal: the longest unbroken stretch has {longest} steps, but a window has {self.window}; give more "
                "steps, or a shorter window."
            )
        self.bank_ = torch.from_numpy(z.copy())
        self.starts_ = torch.from_numpy(np.concatenate(starts))

    @torch.no_grad()
    def apply(self, windows: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Make an anomalous version of every window of a batch, inside a training loop.

        Parameters
        ----------
        windows : Tensor of shape (B, T, C)
            Standardised normal windows; never written to. Stretches come from the series of the fit, or from the other
            windows of the batch before one.
        generator : torch.Generator
            The only source of randomness.

        Returns
        -------
        tuple of (Tensor, Tensor)
            Windows with a paste, and bool masks (B, T), True where pasted.

        Raises
        ------
        InputError
            When ``windows`` is no batch of windows, or has other channels than the series of the fit.
        """
        if windows.ndim != 3 or not windows.is_floating_point() or not len(windows):
            raise InputError(
                f"windows: a tensor of shape {tuple(windows.shape)} and type {windows.dtype} was given; use floats "
                "(windows, steps, channels)."
            )
        self.check_parameters()
        pasted, region, _ = self._paste(windows, *self._donors(windows, generator), generator)
        return pasted, region

    def _donors(self, windows: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the windows to cut from, and the first step of each."""
        batch, length, channels = windows.shape
        bank = getattr(self, "bank_", None)
        if bank is None:
            shift = int(whole((), 1, max(2, batch), generator))
            return windows.roll(shift, 0), torch.zeros(batch, dtype=torch.long)
        if bank.shape[1] != channels:
            raise InputError(
                f"windows: {channels} channels were given to a CutAddPaste fitted on a series of {bank.shape[1]}; fit "
                "it on a series like these."
            )
        if length > self.window:
            raise InputError(f"windows: they have {length} steps; use at most window={self.window}.")
        starts = self.starts_[whole((batch,), 0, len(self.starts_), generator)]
        return bank[starts[:, None] + torch.arange(length)].to(windows), starts

    def _paste(
        self, windows: Tensor, donors: Tensor, starts: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Cut, add and paste; return windows, masks and what was drawn."""
        batch, length, channels = windows.shape
        extent = (uniform((batch,), 0, 1, generator) * length).floor().long().clamp(min(self.cut, length), length)
        origin, target = ((uniform((batch,), 0, 1, generator) * (length - extent + 1)).floor().long() for _ in range(2))
        steps = torch.arange(length)
        since = steps - target[:, None]
        region = (since >= 0) & (since < extent[:, None])
        where = (origin[:, None] + since).clamp(0, length - 1)
        piece = donors.gather(1, where[..., None].expand_as(windows).to(windows.device))
        sloped = uniform((batch, channels), 0, 1, generator) < 0.5
        sloped[torch.arange(batch), whole((batch,), 0, channels, generator)] = True
        slope = uniform((batch, channels), -self.trend, self.trend, generator) * sloped
        added = piece + (slope[:, None] * since[..., None]).to(piece)
        pasted = torch.where(region[..., None].to(windows.device), added, windows)
        return pasted, region.to(windows.device), {
            "first": target, "extent": extent, "source": starts + origin, "slope": slope,
        }  # fmt: skip

    def draft(self, z: Floats, places: Places, rng: np.random.Generator) -> list[Event]:
        """Paste into a window at each place."""
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        windows = torch.from_numpy(z[places.starts[:, None] + np.arange(places.length)])
        pasted, _, drawn = self._paste(windows, *self._donors(windows, generator), generator)
        every = np.arange(z.shape[1])
        events = []
        for i, start in enumerate(places.starts.tolist()):
            first, extent, source = (int(drawn[key][i]) for key in ("first", "extent", "source"))
            values = pasted[i, first : first + extent].numpy()
            meta = {"source": source, "slope": [round(value, 6) for value in drawn["slope"][i].tolist()]}
            events.append(Event(start + first, start + first + extent, values, every, meta))
        return events
