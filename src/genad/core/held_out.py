"""What a detector keeps away from the gradient: the split, the bounds, the threshold and the p-values."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from genad.core.calibration import Conformal, ConformalMartingale, FittedThreshold, Threshold
from genad.core.inference import Answer, BlockRunner, Floats
from genad.core.label_weights import LabelCounts, fit_to_labels
from genad.core.pixels import PixelCalibration
from genad.core.splits import Labels, split_rows
from genad.core.traits import map_traits
from genad.data.adapters import Adapter
from genad.data.kinds import KINDS, Kind
from genad.data.samples import Samples, Subset
from genad.errors import CalibrationWarning

# Held-out samples, and numbers in them, whose residuals give the bounds of explanations.
_BOUND_SAMPLES, _BOUND_NUMBERS = 2000, 2**25
# Held-out samples whose traits are kept.
_TRAITS_OF = 1000
# Pixels of held-out images that set the threshold of masks too.
_PIXELS = 2**24


class HeldOut(BlockRunner):
    """Splits off a part of the training samples and calibrates on it; a part of every detector."""

    adapter_: Adapter
    threshold: Threshold | None
    holdout: float
    seed_: int
    #: How often pixels of normal images exceed a value of the map; None for other kinds of data.
    pixels_: PixelCalibration | None = None
    #: Scores of the held-out normal units, ascending.
    calibration_scores_: Floats
    #: Raw scores and traits of some held-out normal units, (m, 1 + k).
    calibration_traits_: Floats
    #: Raw scores and traits of some units labelled anomalous, for a threshold that learns from them; None without.
    anomaly_traits_: Floats | None = None

    def absorb(self, net: Any, samples: Samples) -> None:
        """Take in the held-out samples too, if the model can score a sample as if unseen (``Batch.known``)."""

    def monitor(self, alpha: float = 0.01) -> ConformalMartingale:
        """Return a watch over scores in service, which says when they no longer resemble the held-out normal ones.

        Parameters
        ----------
        alpha : float
            Probability of ever raising a false alarm while nothing has changed, in (0, 1).

        Returns
        -------
        ConformalMartingale
            Feed it scores of :meth:`anomaly_score`, in the order they arrive.

        Examples
        --------
        >>> import numpy as np
        >>> import genad
        >>> rng = np.random.default_rng(0)
        >>> detector = genad.create("ppca").fit(rng.normal(size=(1000, 3)))
        >>> watch = detector.monitor()
        >>> bool(watch.run(detector.anomaly_score(rng.normal(size=(300, 3)))).any())
        False
        >>> bool(watch.run(detector.anomaly_score(rng.normal(0.0, 2.0, size=(100, 3)))).any())
        True
        """
        check_is_fitted(self, "calibration_scores_")
        return ConformalMartingale(alpha).initialize(self.calibration_scores_)

    def _split(self, samples: Samples, labels: Labels) -> tuple[Samples, Samples]:
        train, held = split_rows(labels.normal, self.holdout, self.seed_)
        if len(held) == 0:
            held = train
            self._warn_shared(len(train))
        return self._rows(samples, train), self._rows(samples, held)

    def _rows(self, samples: Samples, rows: NDArray[np.intp]) -> Samples:
        return Subset(samples, torch.from_numpy(rows).to(self._device))

    def _warn_shared(self, n: int) -> None:
        warnings.warn(
            f"calibration: only {n} normal samples, too few to keep some apart; the threshold is set on the samples "
            "trained on, so its promise does not hold. Give more data, or call calibrate() with fresh normals.",
            CalibrationWarning,
            stacklevel=4,
        )

    def _calibrate(self, held: Samples, samples: Samples, labels: Labels) -> None:
        with self._scoring():
            self.absorb(self.net_, held)
        numbers, image = int(np.prod(held.shape)), self.adapter_.kind is Kind.IMAGE
        few = self._spread(held, min(_BOUND_SAMPLES, (_PIXELS if image else _BOUND_NUMBERS) // numbers))
        # One pass gives bounds, traits and masks, and the scores of images, which take long.
        answer = self._run(few, "map", "restored", known=True)
        self.bounds_ = self._residual_bounds(few, answer)
        self.pixels_ = self._pixel_curve(answer) if image else None
        self._keep_traits(answer)
        # Rows of tables often come twice, and then all must tie to the last digit; asking for more may round otherwise.
        scores = answer.scores if image and few is held else self._run(held, known=True).scores
        # Units in which nothing was observed have no score; if that is all of them, none is above another.
        known = ~np.isnan(scores)
        scores = scores[known] if known.any() else np.zeros(len(scores))
        every = self._fill(self._run(samples), scores) if self._learns_from(labels) else None
        self._keep_anomalies(samples, labels, every)
        self._set_calibration(scores, labels, None if every is None else every.scores)

    def _recalibrate(self, samples: Samples, labels: Labels) -> None:
        """Set threshold, p-values and what later labels are measured by from units that were not in the fit."""
        whole = self._answer(samples, *(("map",) if self.adapter_.kind is Kind.SERIES else ()))
        image = self.adapter_.kind is Kind.IMAGE
        some = self._mapped(samples, np.flatnonzero(labels.normal), whole, most=_PIXELS if image else _TRAITS_OF)
        # The rule first: it may refuse the labels, and then nothing has changed.
        self._set_calibration(whole.scores[labels.normal], labels, whole.scores)
        self._keep_traits(some)
        self._keep_anomalies(samples, labels, whole)
        if image:
            self.pixels_ = self._pixel_curve(some)

    def _mapped(self, samples: Samples, rows: NDArray[np.intp], whole: Answer, most: int = _TRAITS_OF) -> Answer:
        """Return scores and maps of at most ``most`` of the units in ``rows``, ``whole`` being the answer of all."""
        kind = self.adapter_.kind
        if kind in (Kind.SERIES, Kind.LOG):
            # Steps are judged in windows, so all at once; sessions have no traits, and some cost a call to judge.
            return Answer(whole.scores[rows], None if whole.maps is None else whole.maps[rows])
        room = (_PIXELS if kind is Kind.IMAGE else _BOUND_NUMBERS) // int(np.prod(samples.shape))
        return self._answer(self._spread(self._rows(samples, rows), min(most, room)), "map")

    def _learns_from(self, labels: Labels) -> bool:
        """Return whether the threshold is fitted to labelled anomalies."""
        return labels.any_anomaly and bool(getattr(self.threshold, "needs_labels", False))

    def _keep_anomalies(self, samples: Samples, labels: Labels, whole: Answer | None) -> None:
        """Keep scores and traits of labelled anomalies, ``whole`` being the answer of all units."""
        self.anomaly_traits_ = None
        if whole is not None and self._learns_from(labels):
            some = self._mapped(samples, np.flatnonzero(labels.anomalous), whole)
            self.anomaly_traits_ = self._some_described(some)

    def _spread(self, samples: Samples, n: int) -> Samples:
        """Return at most ``n`` of the samples, at least one, evenly spread."""
        if len(samples) <= max(1, n):
            return samples
        return Subset(samples, torch.linspace(0, len(samples) - 1, max(1, n), device=self._device).long())

    @staticmethod
    def _pixel_curve(answer: Answer) -> PixelCalibration:
        assert answer.maps is not None  # noqa: S101 - asked for
        return PixelCalibration.fit(answer.maps.sum(axis=1))

    def _traits(self, answer: Answer) -> Floats:
        """Return the traits of all units, none of them where a unit's map has no fixed shape."""
        if answer.maps is None or self.adapter_.kind is Kind.LOG:
            return np.empty((len(answer.scores), 0))
        return map_traits(self.adapter_.collapse(answer.maps))

    def _keep_traits(self, answer: Answer) -> None:
        """Keep scores and traits of some held-out units, for labels that may come later."""
        self.calibration_traits_ = self._some_described(answer)

    def _described(self, answer: Answer) -> Floats:
        """Return scores and traits of all units, (n, 1 + k)."""
        return np.column_stack([answer.scores, self._traits(answer)])

    def _some_described(self, answer: Answer) -> Floats:
        """Return scores and traits of at most 1,000 units that have a score, evenly spread."""
        found = self._described(answer)[~np.isnan(answer.scores)]
        places = np.linspace(0, len(found) - 1, min(len(found), _TRAITS_OF)).astype(np.intp)
        return found[places]

    def _residual_bounds(self, held: Samples, answer: Answer) -> Floats:
        """Return the 99 % quantile of |observed - restored| along the channel axis of held-out samples."""
        batch = held.batch(torch.arange(len(held), device=self._device))
        residual = np.abs(batch.x.cpu().numpy() - answer.restored)
        if batch.mask is not None:
            residual[~batch.mask.cpu().numpy()] = np.nan
        axis = 1 + KINDS[self.adapter_.kind].channel_axis
        flat = np.moveaxis(residual, axis, 0).reshape(residual.shape[axis], -1)
        known = ~np.isnan(flat).all(axis=1)
        bounds = np.full(len(flat), np.nan)
        bounds[known] = np.nanquantile(flat[known], 0.99, axis=1, method="higher")
        return bounds

    def _set_calibration(self, held: Floats, labels: Labels, every: Floats | None) -> None:
        rule, unit = self.threshold or Conformal(), KINDS[self.adapter_.kind].unit
        if every is not None and self._learns_from(labels):
            fitted = fit_to_labels(rule, held, every[labels.anomalous], LabelCounts.of(labels), unit)
        else:
            fitted = rule.fit(held, unit=unit)
        self._adopt(np.sort(held), fitted)

    def _adopt(self, scores: Floats, threshold: FittedThreshold) -> None:
        """Judge by these scores of normal units, ascending, and by this threshold from now on."""
        self.calibration_scores_ = scores
        self.threshold_: FittedThreshold = threshold
        self.offset_ = -threshold.value
