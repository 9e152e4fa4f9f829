"""What detectors of series that ask a language model share: stretches as tracks, scores folded back, budgets, gaps."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from genad.core.detector import Detector
from genad.core.inference import Answer, Want
from genad.core.parameters import check_whole
from genad.core.splits import MAX_HELD_OUT, Labels, read_labels
from genad.core.windows import SeriesDetector, as_windows
from genad.data.adapters import Loaded
from genad.data.samples import Samples, WindowSamples
from genad.errors import DataWarning, InputError
from genad.foundation.answers import Status
from genad.foundation.llm import LanguageModel
from genad.representation.prompting import PromptDetector
from genad.representation.verdicts import STATES

Floats = NDArray[np.float64]

# Steps whose score is above this quantile of normal scores do not count as normal neighbours.
_USUAL = 0.99


@dataclass(frozen=True)
class Track:
    """An unbroken stretch of one channel.

    Parameters
    ----------
    values : ndarray of shape (m,)
        Standardised; each stands for ``aggregate`` steps, and missing ones are bridged.
    channel : int
    """

    values: Floats
    channel: int

    def __len__(self) -> int:
        return len(self.values)


@dataclass
class Judged:
    """What came of a track.

    Parameters
    ----------
    scores : ndarray of shape (m,)
        At least 0; NaN where the model gave no usable answer or was not asked.
    status : list of str
        One a value, as in :class:`~genad.foundation.answers.Answer`.
    reasons : list of str
        One a value, "" where nothing was said; data, never executed.
    expected : ndarray of shape (m,) or None
        Standardised values a normal series would have had; None where the method does not tell.
    """

    scores: Floats
    status: list[Status]
    reasons: list[str]
    expected: Floats | None = None

    @classmethod
    def unasked(cls, n: int) -> Judged:
        """Return that nothing is known of ``n`` values yet."""
        return cls(np.full(n, np.nan), ["unasked"] * n, [""] * n)


@dataclass(eq=False, repr=False)
class LanguageSeriesDetector(SeriesDetector, PromptDetector):
    """A detector of series that asks a language model about each channel by itself.

    A method fills in :meth:`study_tracks` and :meth:`judge_tracks`. Windows overlap no more than the method wants, so
    that the cost is that of the tokens alone.

    Parameters
    ----------
    aggregate : int
        Consecutive steps that are averaged into one value; the cost falls by as much, and all of them get its score.
        A window counts steps, so that a longer one may go with it.

    Attributes
    ----------
    status_, reasons_ : list of str
        What became of each step in the last call, and why in words where the method says so; entities stand one after
        the other.
    """

    aggregate: int = field(default=1, kw_only=True)

    needs: ClassVar[tuple[str, ...]] = ("chat",)

    # ------------------------------------------------------------------ hooks

    def study_tracks(self, net: Any, model: LanguageModel, tracks: Sequence[Track]) -> None:
        """Learn from normal tracks, into buffers of the net."""
        raise NotImplementedError

    def judge_tracks(self, net: Any, model: LanguageModel, tracks: Sequence[Track]) -> list[Judged]:
        """Return what the model makes of each track."""
        raise NotImplementedError

    # ------------------------------------------------------------------ the detector

    @property
    def values_in_window(self) -> int:
        """Values in a window of the fitted detector: its steps, over those that are averaged."""
        return max(2, int(self.sample_shape_[0]) // self.aggregate)

    def _check_parameters(self) -> None:
        check_whole(self, "aggregate")
        super()._check_parameters()

    def _ingest(self, X: Any, *, reset: bool, y: Any = None) -> Loaded:
        # A series is numbers, which every detector reads alike; only what is asked of the model is text.
        return Detector._ingest(self, X, reset=reset, y=y)  # noqa: SLF001 - the base of this very object

    def _split(self, samples: Samples, labels: Labels) -> tuple[Samples, Samples]:
        """Hold out the last steps, however few: here a stretch shorter than a window can be judged, too."""
        windows = as_windows(samples)
        n, length = len(windows.x), windows.length
        starts, steps = windows.starts.cpu().numpy(), np.arange(n)
        first_held = n - min(int(n * self.holdout), MAX_HELD_OUT)
        anomalies = np.concatenate([[0], np.cumsum(labels.anomalous)])
        train = (anomalies[starts + length] == anomalies[starts]) & (starts + length <= first_held)
        inside = np.concatenate([steps[a:b] for a, b in stretches(windows)])
        held = inside[labels.normal[inside] & (inside >= first_held)]
        if not train.any() or not len(held):
            return super()._split(samples, labels)
        device = windows.x.device
        first = torch.from_numpy(starts[train]).to(device)
        # Windows of one step stand for the steps themselves.
        return (
            WindowSamples(windows.x, first, length, windows.mask),
            WindowSamples(windows.x, torch.from_numpy(held).to(device), 1, windows.mask),
        )

    def finish(self, net: Any, samples: Samples) -> None:
        """Study the stretches of the training windows."""
        windows = as_windows(samples)
        self.study_tracks(net, self.language_model(), self._tracks(_observed(windows), stretches(windows)))

    def _calibrate(self, held: Samples, samples: Samples, labels: Labels) -> None:
        # Every call costs, so the labelled steps are judged only for a rule that learns from them.
        if not getattr(self.threshold, "needs_labels", False):
            labels = read_labels(None, len(labels.values))
        self.__dict__.pop("calibration_scores_", None)
        super()._calibrate(held, samples, labels)

    def _tracks(self, values: Floats, parts: Sequence[tuple[int, int]]) -> list[Track]:
        channels = range(values.shape[1])
        return [Track(averaged(filled(values[a:b, c]), self.aggregate), c) for a, b in parts for c in channels]

    def _run(self, samples: Samples, *want: Want, known: bool = False) -> Answer:
        """Judge all stretches; a step that no window holds, or that the model did not judge, gets NaN."""
        # What is judged before there are calibration scores is what they are to be made of.
        known = known or not hasattr(self, "calibration_scores_")
        windows = as_windows(samples)
        values, parts = _observed(windows), stretches(windows)
        n, channels = values.shape
        judged = self.judge_tracks(self.net_, self.language_model(), self._tracks(values, parts))
        maps, expected = np.full((n, channels), np.nan), np.full((n, channels), np.nan)
        # What happened to a step is the worst of what happened to its channels.
        worst, reasons = np.full(n, -1), [""] * n
        for k, found in enumerate(judged):
            (a, b), c = parts[k // channels], k % channels
            place = np.arange(b - a) // self.aggregate
            maps[a:b, c] = found.scores[place]
            if found.expected is not None:
                expected[a:b, c] = found.expected[place]
            worst[a:b] = np.maximum(worst[a:b], np.array([STATES.index(state) for state in found.status])[place])
            for step in range(b - a):
                words = found.reasons[place[step]]
                if words:
                    words = words if channels == 1 else f"{self.adapter_.names[c]}: {words}"
                    reasons[a + step] = f"{reasons[a + step]}; {words}" if reasons[a + step] else words
        self.status_ = [STATES[state] if state >= 0 else "" for state in worst]
        self.reasons_ = reasons
        scores = _over_channels(maps, np.isnan(values))
        if known and np.isnan(scores).all():
            raise InputError(
                f"budget: {self.budget!r} was spent, or the model gave no usable answer, before one step to calibrate "
                "on was judged; raise the budget, use a larger aggregate, or another model."
            )
        answer = Answer(scores)
        if "map" in want:
            answer.maps = np.where(np.isnan(values), 0.0, np.nan_to_num(maps)).astype(np.float32)
        if "restored" in want:
            answer.restored = self._restored(windows, values, parts, scores, expected, known=known)
        return answer

    def _restored(
        self,
        windows: WindowSamples,
        values: Floats,
        parts: Sequence[tuple[int, int]],
        scores: Floats,
        expected: Floats,
        *,
        known: bool,
    ) -> NDArray[np.float32]:
        """Return what the method expects, else each step as its usual neighbours before and after it let expect."""
        restored = windows.x.cpu().numpy().astype(np.float64)
        ceiling = np.inf if known else np.quantile(self._plain_scores(), _USUAL)
        for a, b in parts:
            odd = scores[a:b] > ceiling
            for c in range(values.shape[1]):
                restored[a:b, c] = between_neighbours(filled(values[a:b, c]), odd)
        return np.where(np.isnan(expected), restored, expected).astype(np.float32)

    def _answer(self, samples: Samples, *want: Want) -> Answer:
        answer = self._run(samples, *want)
        states = np.array(self.status_)
        unjudged = np.isnan(answer.scores) & (states != "")
        if unjudged.any():
            spent = int((states[unjudged] == "unasked").sum())
            warnings.warn(
                f"{int(unjudged.sum())} time steps were not judged, {spent} of them because the budget was spent or "
                "the calls were cancelled, the others for want of a usable answer; they get the typical score of a "
                "normal step, and status_ says which they are.",
                DataWarning,
                stacklevel=4,
            )
            answer.scores[unjudged] = np.median(self._plain_scores())
        return self._fill(answer, self._plain_scores())


def stretches(windows: WindowSamples) -> list[tuple[int, int]]:
    """Return the half-open intervals of steps that windows cover without a break.

    Examples
    --------
    >>> stretches(WindowSamples(torch.zeros(20, 1), torch.tensor([0, 1, 2, 9, 10]), 4))
    [(0, 6), (9, 14)]
    """
    starts = windows.starts.cpu().numpy()
    breaks = np.flatnonzero(np.diff(starts) != 1)
    first, last = np.concatenate([[0], breaks + 1]), np.concatenate([breaks, [len(starts) - 1]])
    return [(int(starts[i]), int(starts[j]) + windows.length) for i, j in zip(first, last, strict=True)]


def filled(values: Floats) -> Floats:
    """Return values with missing ones on the line between their neighbours; 0 when all are missing.

    Examples
    --------
    >>> filled(np.array([np.nan, 1.0, np.nan, 3.0])).tolist()
    [1.0, 1.0, 2.0, 3.0]
    """
    known = ~np.isnan(values)
    if known.all():
        return values
    if not known.any():
        return np.zeros_like(values)
    steps = np.arange(len(values))
    return np.interp(steps, steps[known], values[known])


def averaged(values: Floats, size: int) -> Floats:
    """Return the means of groups of ``size`` values, the last of which may be smaller.

    Examples
    --------
    >>> averaged(np.arange(5.0), 2).tolist()
    [0.5, 2.5, 4.0]
    """
    starts = np.arange(0, len(values), size)
    return np.asarray(np.add.reduceat(values, starts) / np.diff(np.append(starts, len(values))))


def between_neighbours(values: Floats, odd: NDArray[np.bool_]) -> Floats:
    """Return each value as the line between its nearest neighbours that are not odd gives it, itself left out.

    Examples
    --------
    >>> between_neighbours(np.array([0.0, 1.0, 9.0, 3.0]), np.array([False, False, True, False])).tolist()
    [1.0, 1.0, 2.0, 1.0]
    """
    usual = np.flatnonzero(~odd)
    if len(usual) < 2:
        return values.copy()
    steps = np.arange(len(values))
    before = np.searchsorted(usual, steps, side="left") - 1
    after = np.searchsorted(usual, steps, side="right")
    left = usual[np.where(before >= 0, before, np.minimum(after, len(usual) - 1))]
    right = usual[np.where(after < len(usual), after, np.maximum(before, 0))]
    share = np.where(right > left, (steps - left) / np.maximum(right - left, 1), 0.0)
    return np.asarray(values[left] + share * (values[right] - values[left]))


def smoothed(values: Floats, span: float) -> Floats:
    """Return exponentially weighted means over the past, NaN left out and kept; a span of 1 changes nothing.

    Examples
    --------
    >>> smoothed(np.array([0.0, 4.0, np.nan, 0.0]), 3).round(2).tolist()
    [0.0, 2.67, nan, 0.73]
    """
    if span <= 1:
        return values
    keep = 1.0 - 2.0 / (span + 1.0)
    out, total, weight = np.empty_like(values), 0.0, 0.0
    for i, value in enumerate(values):
        missing = np.isnan(value)
        total = keep * total + (0.0 if missing else value)
        weight = keep * weight + (0.0 if missing else 1.0)
        out[i] = np.nan if missing else total / weight
    return out


def _observed(windows: WindowSamples) -> Floats:
    """Return the standardised series (n, C), NaN where it was missing."""
    values = windows.x.cpu().numpy().astype(np.float64)
    if windows.mask is not None:
        values[~windows.mask.cpu().numpy()] = np.nan
    return values


def _over_channels(maps: Floats, missing: NDArray[np.bool_]) -> Floats:
    """Add up the channels of each step, missing ones counted at the mean of the others; 0 where all are missing."""
    judged = ~np.isnan(maps)
    counted = judged & ~missing
    total = np.where(counted, np.nan_to_num(maps), 0.0).sum(axis=1)
    scores = total / np.maximum(counted.sum(axis=1), 1) * maps.shape[1]
    # A step that was looked at and holds no value tells nothing; one whose values were not judged is unknown.
    unknown = ~counted.any(axis=1) & ~(judged.any(axis=1) & missing.all(axis=1))
    return np.where(unknown, np.nan, scores)
