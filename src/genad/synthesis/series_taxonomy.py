"""The taxonomy of anomalies in series: points, global and contextual; patterns of shape, season and trend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from genad.core.parameters import check_choice, check_number, check_whole
from genad.data.kinds import Kind
from genad.synthesis.registry import SynthesisCard, register_synthesizer
from genad.synthesis.spans import Event, Floats, Places, SeriesSynthesizer, Whole

# Odd harmonics of the square wave that replaces a shape.
_HARMONICS = 5
# Smallest local deviation, in deviations of the whole channel: on a flat stretch a point still has to move.
_LEAST_LOCAL = 0.1
# Frequency of a channel without a rhythm, in cycles a step.
_FREQUENCY = 0.04


@register_synthesizer(
    SynthesisCard(
        title="Revisiting Time Series Outlier Detection: Definitions and Benchmarks",
        authors="K.-H. Lai, D. Zha, J. Xu, Y. Zhao, G. Wang, X. Hu",
        venue="NeurIPS Datasets and Benchmarks",
        year=2021,
        kinds=(Kind.SERIES,),
        row="2.1-A16",
        summary="Global and contextual points, and patterns of unusual shape, season or trend, in a real series.",
    )
)
@dataclass(eq=False, repr=False)
class SeriesTaxonomy(SeriesSynthesizer):
    """Put anomalies of a behaviour-driven taxonomy into a normal series.

    Points: *global* ones leave the range of the series, *contextual* ones are usual values in the wrong place.
    Patterns: a *shapelet* replaces a stretch by a square wave of the channel's own rhythm, a *seasonal* one runs
    through the stretch at another speed, a *trend* adds a slope. Three more are no part of the taxonomy but common in
    sensors: *flatline* repeats one value, *level* shifts a stretch, *noise* roughens it. After an event the series
    goes on as if nothing had happened.

    Parameters
    ----------
    kind : str
        One of "global", "contextual", "shapelet", "seasonal", "trend", "flatline", "level" and "noise"; or "mixed",
        which makes the first five equally often.
    ratio : float
        Share of the steps that are made anomalous when no number of events is asked for, in (0, 0.5].
    radius : int
        Half the steps of a pattern, and the steps to either side of a point that its local deviation is measured over.
    factor : float, optional
        Strength: local standard deviations for points (3.5 global, 2.5 contextual), standard deviations a step for a
        trend (0.5), speed for a season (3), standard deviations for a level (2) and noise (1); these when absent.
    channels : float
        Share of the channels an event touches, at least one; in (0, 1].
    rule : {"additive", "paper"}
        How a point moves: by ``factor`` local deviations to either side, or to ``value * factor * deviation`` as in
        the paper, which does nothing where a series crosses zero.

    Attributes
    ----------
    range_ : float64 array of shape (2, C)
        Smallest and largest standardised value.
    frequency_ : float64 array of shape (C,)
        The strongest frequency of each channel, in cycles a step.

    Notes
    -----
    When to use: to compare detectors of series without labels by what kind of anomaly each sees; quick, about 25 ms
    for 20,000 steps of 10 channels.

    When it fails: a seasonal anomaly needs a rhythm, and on noise it is more noise; a shapelet on a series that is a
    square wave itself is normal; contextual points in white noise are no anomalies.

    The paper regenerates seasons from a formula, which a real series does not have: here the stretch is read at
    ``factor`` times the speed, and back from where the unbroken stretch ends. The published code leaves the level
    after a trend shifted for good without a label, and keeps multiplying one shared frequency; neither is done here.

    References
    ----------
    Lai, Zha, Xu, Zhao, Wang and Hu, "Revisiting time series outlier detection: Definitions and benchmarks",
    NeurIPS 2021, datasets and benchmarks.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.sin(np.arange(1000) / 10)
    >>> made = SeriesTaxonomy("trend", radius=10).synthesize(X, 3)
    >>> [event["stop"] - event["start"] for event in made.meta]
    [20, 20, 20]
    >>> bool((made.samples[made.labels == 0] == X[made.labels == 0]).all())
    True
    """

    kind: str = "mixed"
    ratio: float = 0.05
    radius: int = 5
    factor: float | None = None
    channels: float = 1.0
    rule: str = "additive"

    KINDS: ClassVar[tuple[str, ...]] = ("global", "contextual", "shapelet", "seasonal", "trend")
    EXTRAS: ClassVar[tuple[str, ...]] = ("flatline", "level", "noise")
    FACTORS: ClassVar[dict[str, float]] = {
        "global": 3.5, "contextual": 2.5, "trend": 0.5, "seasonal": 3.0, "level": 2.0, "noise": 1.0,
    }  # fmt: skip

    def check_parameters(self) -> None:
        """Refuse unknown kinds, and numbers out of range."""
        check_choice(self, "kind", ("mixed", *self.KINDS, *self.EXTRAS))
        check_choice(self, "rule", ("additive", "paper"))
        check_number(self, "ratio", "(0, 0.5]")
        check_number(self, "channels", "(0, 1]")
        check_whole(self, "radius")
        if self.factor is not None:
            check_number(self, "factor", "(0, inf)")

    def length(self) -> int:
        """Return one step for points, two radii for patterns."""
        return 1 if self.kind in ("global", "contextual") else 2 * self.radius

    def gap(self) -> int:
        """Keep a radius between events."""
        return self.radius

    def count(self, steps: int) -> int:
        """Return the events that make up ``ratio`` of the steps."""
        return round(steps * self.ratio / self.length())

    def learn(self, z: Floats, segments: Whole) -> None:
        """Find the range and the strongest rhythm of each channel, on its longest unbroken stretch."""
        self.range_: Floats = np.stack([z.min(0), z.max(0)])
        start, stop = segments[(segments[:, 1] - segments[:, 0]).argmax()]
        part = z[start:stop] - z[start:stop].mean(0)
        power = np.abs(np.fft.rfft(part, axis=0)) ** 2
        # Slower than four cycles in the stretch is a drift, faster than one in four steps is noise.
        power[:4], power[len(part) // 4 + 1 :] = 0.0, 0.0
        best = power.argmax(0)
        self.frequency_: Floats = np.where(power.max(0) > 1e-9, best / max(1, len(part)), _FREQUENCY)

    def draft(self, z: Floats, places: Places, rng: np.random.Generator) -> list[Event]:
        """Draw an event of its kind at each place."""
        kinds = self.KINDS if self.kind == "mixed" else (self.kind,)
        order = rng.permutation(len(places.starts)) % len(kinds)
        width = z.shape[1]
        count = max(1, round(self.channels * width))
        events = []
        for i, start in enumerate(places.starts.tolist()):
            kind = kinds[order[i]]
            touched = np.sort(rng.permutation(width)[:count])
            factor = float(self.factor or self.FACTORS.get(kind, 0.0))
            if kind in ("global", "contextual"):
                at = start + (places.length - 1) // 2
                near = z[max(int(places.first[i]), at - self.radius) : min(int(places.last[i]), at + self.radius + 1)]
                values = self._point(kind, z[at : at + 1], near.std(0), factor, rng)
                event = Event(at, at + 1, values, touched)
            else:
                stop, first, last = start + places.length, int(places.first[i]), int(places.last[i])
                values = self._pattern(kind, z[first:last], start - first, stop - first, factor, rng)
                event = Event(start, stop, values, touched)
            event.meta = {"kind": kind} | ({"factor": factor} if factor else {})
            events.append(event)
        return events

    def _point(self, kind: str, x: Floats, local: Floats, factor: float, rng: np.random.Generator) -> Floats:
        """Return a point outside the range of the series, or one inside it that is out of place."""
        low, high = self.range_
        local = np.maximum(local, _LEAST_LOCAL)
        if self.rule == "paper":
            # In the series' own units; the standardised zero is its mean.
            zero = self.centre_ / self.scale_
            value = (x + zero) * factor * (local * self.scale_) - zero
            inside = (value >= low) & (value <= high)
            if kind == "global":
                return np.where(inside, np.where(x + zero >= 0, high, low), value)
            bound = np.where(x + zero >= 0, high, low) + zero
            return np.where(inside, value, bound * np.minimum(0.95, np.abs(0.5 * rng.standard_normal(x.shape))) - zero)
        up = rng.random(x.shape) < 0.5
        value = x + np.where(up, factor, -factor) * local
        inside = (value >= low) & (value <= high)
        if kind == "global":
            return np.where(inside, np.where(up, high + local, low - local), value)
        # Out of range on this side: to the other side, and where both are out, to the farther end of the range.
        other = 2 * x - value
        fits = (other >= low) & (other <= high)
        farther = np.where(high - x > x - low, high, low)
        return np.where(inside, value, np.where(fits, other, farther))

    def _pattern(self, kind: str, z: Floats, start: int, stop: int, factor: float, rng: np.random.Generator) -> Floats:
        """Return ``z[start:stop]`` of an unbroken stretch as the kind of anomaly has it."""
        x, steps = z[start:stop], np.arange(stop - start)[:, None]
        if kind == "shapelet":
            odd = 2 * np.arange(_HARMONICS) + 1
            phase = 2 * np.pi * self.frequency_ * (start + steps)
            wave = (np.sin(phase[..., None] * odd) / odd).sum(-1)
            # A standardised sine has an amplitude of the root of two.
            return np.sqrt(2.0) * wave
        if kind == "seasonal":
            at = start + factor * steps[:, 0]
            last = len(z) - 1
            at = last - np.abs(at % (2 * last) - last)  # beyond the end the series is read backwards
            below = np.floor(at).astype(int)
            above = np.minimum(below + 1, last)
            return z[below] + (at - below)[:, None] * (z[above] - z[below])
        side = np.where(rng.random(z.shape[1]) < 0.5, 1.0, -1.0)
        if kind == "trend":
            return x + side * factor * steps
        if kind == "level":
            return x + side * factor
        if kind == "flatline":
            return np.repeat(x[:1], len(x), 0)
        return x + factor * rng.standard_normal(x.shape)
