"""Detectors of series: windows in, one score a time step out."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from sklearn.base import clone
from torch import Tensor, nn

from genad.core.detector import Detector
from genad.core.inference import Answer, Floats, Inference, Want
from genad.core.registry import Card, Family, register
from genad.core.splits import MAX_HELD_OUT, Labels
from genad.core.training import Phase, TrainingReport
from genad.data.kinds import Kind
from genad.data.samples import Batch, Samples, Subset, WindowSamples
from genad.errors import DataWarning, InputError


@dataclass(eq=False, repr=False)
class SeriesDetector(Detector):
    """A detector whose samples are windows of a series and whose units are its time steps.

    The part kept to calibrate on is the end of the series, so that no held-out step shares a window with a step that
    was trained on. Overlapping windows are folded back into one score a step.

    Parameters
    ----------
    window : int, optional
        Steps in a window; the method's own default, or a quarter of a shorter series, when absent.
    """

    window: int | None = field(default=None, kw_only=True)

    reads_as: ClassVar[Kind | None] = Kind.SERIES
    #: Steps in a window of a series long enough for it, when the user does not say.
    default_window: ClassVar[int] = 32
    #: How the windows that hold a step are folded: their mean, or the window that ends at the step.
    fold: ClassVar[Literal["mean", "last"]] = "mean"

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if self.window is not None and (not isinstance(self.window, int | np.integer) or self.window < 2):
            raise InputError(f"window: {self.window!r} was given; use a whole number of steps, at least 2.")

    def _units(self, samples: Samples) -> int:
        return len(as_windows(samples).x)

    def _split(self, samples: Samples, labels: Labels) -> tuple[Samples, Samples]:
        windows = as_windows(samples)
        n, length = len(windows.x), windows.length
        starts = windows.starts.cpu().numpy()
        count = min(int(n * self.holdout), MAX_HELD_OUT)
        anomalies = np.concatenate([[0], np.cumsum(labels.anomalous)])
        clean = anomalies[starts + length] == anomalies[starts]
        train = clean & (starts + length <= n - count)
        held = clean & (starts >= n - count)
        if not train.any():
            train = clean
        if not train.any():
            raise InputError(
                f"y: every window of {length} steps holds a labelled anomaly; use a shorter window or more normal data."
            )
        if not held.any():
            self._warn_shared(n)
            held = train

        def part(chosen: np.ndarray[Any, Any]) -> WindowSamples:
            return replace(windows, starts=torch.from_numpy(starts[chosen]).to(windows.x.device))

        return part(train), part(held)

    def _residual_bounds(self, held: Samples, answer: Answer) -> np.ndarray[Any, np.dtype[np.float64]]:
        windows = as_windows(held)
        known = ~np.isnan(answer.scores)
        assert answer.restored is not None  # noqa: S101 - asked for by the caller
        residual = np.abs(windows.x.cpu().numpy()[known] - answer.restored[known])
        return np.quantile(residual, 0.99, axis=0, method="higher").astype(np.float64)

    def _calibrate(self, held: Samples, samples: Samples, labels: Labels) -> None:
        # A fold needs whole stretches, so bounds and scores come from the same pass over all held-out windows. They are
        # scored before they are taken in: once in, a window cannot be judged as if unseen, since its neighbours hold
        # nearly all of its steps.
        answer = self._run(held, "map", "restored")
        self.bounds_ = self._residual_bounds(held, answer)
        self._keep_traits(answer)
        with self._scoring():
            self.absorb(self.net_, held)
        scores = answer.scores[~np.isnan(answer.scores)]
        every = self._fill(self._run(samples, "map"), scores) if self._learns_from(labels) else None
        self._keep_anomalies(samples, labels, every)
        self._set_calibration(scores, labels, None if every is None else every.scores)

    def _answer(self, samples: Samples, *want: Want) -> Answer:
        return self._fill(self._run(samples, *want), self._plain_scores())

    @staticmethod
    def _fill(answer: Answer, normal: Floats) -> Answer:
        """Give the steps that were not judged the typical score of a normal step.

        Those of stretches too short for a window are told of; those in which nothing was observed are known already.
        """
        missing = np.isnan(answer.scores)
        short = missing if answer.blank is None else missing & ~answer.blank
        if short.any():
            warnings.warn(
                f"{int(short.sum())} time steps lie in stretches between gaps that are shorter than a window; they "
                "cannot be judged and get the typical score of a normal step.",
                DataWarning,
                stacklevel=4,
            )
        if missing.any():
            answer.scores[missing] = np.median(normal)
        return answer

    def _run(self, samples: Samples, *want: Want, known: bool = False) -> Answer:
        """Fold windows into steps, by how much of each was observed.

        A step that no window holds, or in which nothing was observed, gets NaN.
        """
        windows = as_windows(samples)
        n, channels = windows.x.shape
        steps = torch.arange(windows.length)
        starts = windows.starts.cpu()
        totals = {"score": torch.zeros(n, dtype=torch.float64), "count": torch.zeros(n)}
        for name in want:
            totals[name] = torch.zeros(n, channels)
        covered = torch.zeros(n, dtype=torch.bool)
        last_only = self.fold == "last"
        seen = _seen_share(windows)
        for where, out in self._blocks(samples, frozenset(want), known=known):
            first = starts[where]
            place = (first[:, None] + steps).flatten()
            size = len(first)
            score = out.score[:size].detach().cpu().double()
            if score.ndim == 1:
                score = score[:, None].expand(size, windows.length)
            weight = (
                torch.ones(size, windows.length) if seen is None else seen[where][:, None].repeat(1, windows.length)
            )
            if last_only:
                # The first window of a stretch answers for its steps before the last, which no window ends at.
                weight[:, :-1] = 0.0
                opens = torch.ones(size, dtype=torch.bool)
                opens[1:] = first[1:] != first[:-1] + 1
                opens[0] = not bool(covered[first[0] + windows.length - 2])
                weight[opens] = 1.0 if seen is None else seen[where][opens][:, None]
            covered[place] = True
            totals["count"].index_add_(0, place, weight.flatten())
            totals["score"].index_add_(0, place, (score * weight).flatten())
            for name, values in (("map", out.map), ("restored", out.restored)):
                if name in want and values is not None:
                    part = values[:size].detach().cpu() * weight[..., None]
                    totals[name].index_add_(0, place, part.flatten(0, 1))
        count = totals["count"]
        uncovered = count == 0
        scores = (totals["score"] / count).numpy()
        answer = Answer(scores)
        if windows.mask is not None:
            answer.blank = ~windows.mask.any(1).cpu().numpy()
            scores[answer.blank] = np.nan
        if "map" in want:
            answer.maps = torch.nan_to_num(totals["map"] / count[:, None]).numpy()
        if "restored" in want:
            restored = totals["restored"] / count[:, None]
            restored[uncovered] = windows.x.cpu()[uncovered]
            answer.restored = restored.numpy()
        return answer


def _seen_share(windows: WindowSamples) -> Tensor | None:
    """Return what each window counts in a fold: the square of its observed share, 1 when nothing is missing."""
    if windows.mask is None:
        return None
    seen = torch.nn.functional.pad(windows.mask.cpu().sum(1).cumsum(0), (1, 0))
    starts = windows.starts.cpu()
    share = (seen[starts + windows.length] - seen[starts]) / math.prod(windows.shape)
    # Never 0, so that what lies deep in a gap is still restored.
    return share.square().clamp(1e-3, 1.0).float()


def inner_detector(outer: Detector, detector: Detector | None) -> Detector:
    """Return a copy of a wrapped detector that runs with the seed, device and verbosity of its wrapper."""
    inner: Detector = clone(detector)
    inner.seed_, inner.device_, inner.verbose = outer.seed_, outer.device_, outer.verbose
    if hasattr(outer, "adapter_"):  # networks may want to know the range of the data
        inner.adapter_ = outer.adapter_
    inner._prepare()  # noqa: SLF001 - a wrapper speaks for its detector
    return inner


def check_inner(argument: str, detector: Any) -> None:
    """Refuse what a wrapper cannot wrap.

    Raises
    ------
    InputError
        When it is not a detector of dense samples, or its own parameters are wrong.
    """
    if not isinstance(detector, Detector) or detector.reads_as is not None:
        raise InputError(
            f"{argument}: {detector!r} was given; use a detector of dense samples, for instance Autoencoder()."
        )
    detector._check_parameters()  # noqa: SLF001 - a wrapper speaks for its detector


def _check_takes_windows(detector: Any) -> None:
    """Refuse a detector, or one inside it, that takes rows of tables alone."""
    inside = [*getattr(detector, "detectors", ()), getattr(detector, "detector", None)]
    for inner in inside:
        if isinstance(inner, Detector):
            _check_takes_windows(inner)
    if Kind.WINDOW not in detector.card.kinds:
        accepted = " or ".join(kind.value for kind in detector.card.kinds)
        raise InputError(
            f"detector: {detector.name} takes {accepted} data, not windows of a series; "
            'use one of genad.list_detectors(kind="window").'
        )


def as_windows(samples: Samples) -> WindowSamples:
    """Return the windows that samples of a series are, subsets resolved."""
    if isinstance(samples, Subset):
        inner = as_windows(samples.samples)
        return replace(inner, starts=inner.starts[samples.indices])
    assert isinstance(samples, WindowSamples)  # noqa: S101 - series adapters make nothing else
    return samples


@register(
    Card(
        title="Windows of a series, scored by any dense detector",
        authors="genad",
        venue="",
        year=2026,
        family=Family.WRAPPER,
        kinds=(Kind.SERIES,),
        summary="Turns a detector of dense samples into a detector of series.",
    )
)
@dataclass(eq=False, repr=False)
class Windowed(SeriesDetector):
    """Run a detector of dense samples over the windows of a series.

    Parameters
    ----------
    detector : Detector
        Sees samples of shape (window, channels). Without a ``backbone`` of its own it gets ``"mlp"``, which on a CPU
        trains far faster than ``"tcn"`` or ``"gru"``. Its own ``training``, ``backbone`` and hyper-parameters
        hold; ``threshold``, ``holdout``, ``random_state`` and ``device`` are the wrapper's.
    spread : {"window", "step"}
        Give every step the mean score of the windows that hold it, or the mean of its own part of the map.

    Examples
    --------
    >>> import numpy as np
    >>> from genad import Autoencoder, Training, Windowed
    >>> t = np.arange(600)
    >>> series = np.c_[np.sin(t / 5), np.cos(t / 5)]
    >>> detector = Windowed(Autoencoder(training=Training(updates=50)), window=16).fit(series)
    >>> detector.anomaly_score(series).shape
    (600,)
    """

    detector: Detector | None = None
    spread: Literal["window", "step"] = field(default="window", kw_only=True)

    takes_backbone = False

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_inner("detector", self.detector)
        _check_takes_windows(self.detector)
        if self.spread not in ("window", "step"):
            raise InputError(f"spread: {self.spread!r} was given; use 'window' or 'step'.")

    def _prepare(self) -> None:
        detector: Detector = clone(self.detector)
        if detector.backbone is None and detector.takes_backbone:
            detector.backbone = "mlp"
        self.detector_ = inner_detector(self, detector)

    @property
    def grad_at_score(self) -> bool:  # type: ignore[override]
        """As the wrapped detector's."""
        return self.detector_.grad_at_score

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """Build the wrapped detector's network."""
        return self.detector_.build(shape)

    def phases(self, net: nn.Module) -> Sequence[Phase]:
        """Return the wrapped detector's phases."""
        return self.detector_.phases(net)

    def optimise(self, net: nn.Module, samples: Samples) -> TrainingReport:
        """Train as the wrapped detector does."""
        return self.detector_.optimise(net, samples)

    def absorb(self, net: Any, samples: Samples) -> None:
        """Take in the held-out windows, where the wrapped detector can."""
        self.detector_.absorb(net, samples)

    def fill_missing(self, net: Any, batch: Batch) -> Batch:
        """Guess missing values as the wrapped detector does."""
        return self.detector_.fill_missing(net, batch)

    def infer(self, net: Any, batch: Batch, want: frozenset[Want]) -> Inference:
        """Score windows, or steps by their part of the map."""
        if self.spread == "window":
            return self.detector_.infer(net, batch, want)
        out = self.detector_.infer(net, batch, want | {"map"})
        assert out.map is not None  # noqa: S101 - asked for
        return Inference(out.map.flatten(2).mean(2), out.map, out.restored)
