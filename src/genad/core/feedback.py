"""Learning from a few labels after a fit, and the choice of what to label next; a part of every detector."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from genad.core.calibration import Conformal, FittedThreshold, FixedValue, Threshold
from genad.core.calibration.fitted import percent, plural
from genad.core.feedback_head import FeedbackHead
from genad.core.held_out import HeldOut
from genad.core.inference import Answer, Floats, Want
from genad.core.label_weights import LabelCounts, fit_to_labels
from genad.core.splits import Labels
from genad.data.adapters import Loaded
from genad.data.kinds import KINDS
from genad.data.samples import Samples
from genad.errors import InputError

# The levels that labels may move a conformal threshold to, as multiples of the one asked for, the nearest first.
_MOVES = (1.0, 0.5, 2.0, 0.25, 4.0)


class Feedback(HeldOut):
    """Takes labels for units that were judged, and proposes units to label."""

    #: What was learnt from labels; None before the first.
    head_: FeedbackHead | None = None
    #: Calibration scores and threshold as they are without labels.
    before_: tuple[Floats, FittedThreshold] | None = None

    def _ingest(self, X: Any, *, reset: bool, y: Any = None) -> Loaded:
        raise NotImplementedError

    def _units(self, samples: Samples) -> int:
        raise NotImplementedError

    def feedback(self, X: Any, y: Any, *, keep: bool = True) -> Self:
        """Learn from labels of a few units: scores of their like move at once, and so does the threshold.

        The model stays as it is. A light head over what it computes (the score, and where on the map it comes from)
        corrects the scores, which from then on are rarities in nats: -log of the share of normal units that score
        higher, plus the correction. The held-out normal units are corrected in the same way, so p-values and the
        promise of the threshold stay valid as long as those who label did not look at these units. At most 1,000 of
        them are kept for that, of large images fewer (111 of 224 x 224 pixels in colour), of log sessions all; so no
        p-value below 1 / 1,001 is left, and a rate of false alarms below 0.1 % can no longer be promised, however many
        units there were. :meth:`forget` brings them back, and ``len(calibration_scores_)`` says how many there are.

        A conformal threshold moves within a quarter and four times its level to where it errs least on the labels,
        and its promise states the new level. :class:`~genad.BestF` goes on with the anomalies labelled in the fit and
        those labelled now. :class:`~genad.FixedValue` keeps to what is as rare as the value given.

        Parameters
        ----------
        X : array, dataframe, Table, Series, Images or path
            Units, of the kind the detector was fitted on; they need not have been seen before.
        y : array of int
            1 anomaly, 0 normal, -1 unlabelled; one a unit, at least one of them labelled.
        keep : bool
            Keep the labels of earlier calls too.

        Returns
        -------
        Self

        Raises
        ------
        InputError
            When the labels do not fit the units, or none is 0 or 1.

        Examples
        --------
        >>> import numpy as np
        >>> import genad
        >>> rng = np.random.default_rng(0)
        >>> detector = genad.create("ppca").fit(rng.normal(size=(1000, 4)))
        >>> harmless = np.array([[6.0, 0.0, 0.0, 0.0]] * 4)
        >>> detector.predict(harmless[:1]).tolist()
        [-1]
        >>> detector.feedback(harmless, [0, 0, 0, 0]).predict([[5.5, 0.1, 0.0, 0.0], [0.0, 0.0, 6.0, 0.0]]).tolist()
        [1, -1]
        """
        check_is_fitted(self, "calibration_scores_")
        loaded = self._ingest(X, reset=False)
        # Labels first: what is wrong with them shows at once, not after long scoring.
        labels = loaded.from_user(read_feedback(y, self._units(loaded.samples)))
        known = np.flatnonzero(labels >= 0)
        told, given = self._described(self._answer(loaded.samples, "map"))[known], labels[known]
        if keep and self.head_ is not None:
            told = np.concatenate([self.head_.told, told])
            given = np.concatenate([self.head_.labels, given])
        if self.before_ is None:
            self.before_ = self.calibration_scores_, self.threshold_
        self._learn(told, given)
        return self

    def forget(self) -> Self:
        """Undo :meth:`feedback`: scores, p-values and threshold are again those of the last fit or ``calibrate``.

        Returns
        -------
        Self
        """
        check_is_fitted(self, "calibration_scores_")
        if self.before_ is not None:
            scores, threshold = self.before_
            self.head_ = self.before_ = None
            self._adopt(scores, threshold)
        return self

    def query(self, X: Any, n: int = 10) -> NDArray[np.intp]:
        """Return the positions of the units whose labels would teach the most.

        A unit is worth a label when it is near the threshold or beyond it, when no label yet speaks of its like, and
        when no unit chosen before it is like it.

        Parameters
        ----------
        X : array, dataframe, Table, Series, Images or path
            Units to choose from.
        n : int
            How many, at least 1 and at most the units of ``X``.

        Returns
        -------
        int array of shape (n,)
            Positions in ``X``, the most useful first.

        Raises
        ------
        InputError
            When ``n`` is out of range.

        Examples
        --------
        >>> import numpy as np
        >>> import genad
        >>> rng = np.random.default_rng(0)
        >>> detector = genad.create("ppca").fit(rng.normal(size=(1000, 2)))
        >>> X = np.r_[rng.normal(size=(50, 2)), [[7.0, 0.0], [7.1, 0.0], [0.0, -7.0]]]
        >>> sorted(detector.query(X, 2).tolist())
        [51, 52]
        """
        check_is_fitted(self, "calibration_scores_")
        loaded = self._ingest(X, reset=False)
        check_query(n, self._units(loaded.samples))
        answer = self._answer(loaded.samples, "map")
        traits = self._traits(answer)
        head = self.head_
        if head is None:
            reference, normal = self._reference(traits.shape[1])
            head = FeedbackHead(reference, normal, np.empty((0, 1 + traits.shape[1])), np.empty(0, np.int64))
        chosen = head.propose(answer.scores, traits, int(n))
        rows = getattr(loaded.source, "order", None)
        return chosen if rows is None else np.asarray(rows)[chosen]

    def _corrected(self, samples: Samples, *want: Want) -> Answer:
        """Return :meth:`_answer` with the scores corrected by what was learnt from labels."""
        head = self.head_
        if head is None:
            return self._answer(samples, *want)
        answer = self._answer(samples, *{*want, "map"})
        answer.scores = head.judge(answer.scores, self._traits(answer))
        if "map" not in want:
            answer.maps = None
        return answer

    def _reference(self, width: int) -> tuple[Floats, Floats]:
        """Return raw scores and traits of held-out normal units."""
        if width:
            return self.calibration_traits_[:, 0], self.calibration_traits_[:, 1:]
        scores = self._plain_scores()
        return scores, np.empty((len(scores), 0))

    def _plain_scores(self) -> Floats:
        if self.head_ is not None and self.before_ is not None:
            return self.before_[0]
        return self.calibration_scores_

    def _learn(self, told: Floats, labels: NDArray[np.int64]) -> None:
        """Make the head of these labelled units, and correct the calibration by it."""
        head = FeedbackHead(*self._reference(told.shape[1] - 1), told, labels)
        self.head_ = head
        anomalies = self.anomaly_traits_
        known = None if anomalies is None else head.judge(anomalies[:, 0], anomalies[:, 1:])
        self._move_threshold(head.calibration(), head.judge_labelled(), labels, known)

    def _recalibrate(self, samples: Samples, labels: Labels) -> None:
        super()._recalibrate(samples, labels)
        if self.head_ is not None:
            # What labels taught goes on, on the scale of the new units.
            self.before_ = self.calibration_scores_, self.threshold_
            self._learn(self.head_.told, self.head_.labels)

    def feedback_state(self) -> dict[str, Any] | None:
        """Return what was learnt from labels and what it replaced, as plain values; None without any."""
        if self.head_ is None or self.before_ is None:
            return None
        scores, threshold = self.before_
        return {"head": self.head_.state(), "scores": scores.tolist(), "threshold": threshold.to_dict()}

    def set_feedback_state(self, state: dict[str, Any] | None) -> None:
        """Put back what :meth:`feedback_state` returned."""
        self.head_ = self.before_ = None
        if state is not None:
            self.head_ = FeedbackHead.from_state(state["head"])
            self.before_ = np.asarray(state["scores"], np.float64), FittedThreshold.from_dict(state["threshold"])

    def _move_threshold(
        self, held: Floats, mine: Floats, labels: NDArray[np.int64], known: Floats | None = None
    ) -> None:
        """Set the threshold anew.

        Parameters
        ----------
        held : float64 array of shape (m,)
            Scores, as they are now, of held-out normal units.
        mine, labels : arrays of shape (l,)
            Scores of the units labelled since, and their labels.
        known : float64 array of shape (a,), optional
            Scores of anomalies that were labelled before, in the fit or in ``calibrate``.
        """
        rule, unit = self.threshold or Conformal(), KINDS[self.adapter_.kind].unit
        known = np.empty(0) if known is None else known
        if getattr(rule, "needs_labels", False):
            anomalies = int((labels == 1).sum()) + len(known)
            fitted = (
                self._fit_to_labels(rule, held, mine, labels, known) if anomalies else Conformal().fit(held, unit=unit)
            )
        elif isinstance(rule, Conformal):
            fitted = _nearest_level(rule, held, mine, labels, unit)
        elif isinstance(rule, FixedValue) and self.head_ is not None:
            fitted = _as_rare(rule, self.head_, unit)
        else:
            fitted = rule.fit(held, unit=unit)
        self._adopt(np.sort(held), fitted)

    def _fit_to_labels(
        self, rule: Threshold, held: Floats, mine: Floats, labels: NDArray[np.int64], known: Floats
    ) -> FittedThreshold:
        # Only some of the units are kept for labels to come; those kept stand for as many as there were.
        assert self.before_ is not None  # noqa: S101 - set with the first label
        scores, fitted = self.before_
        counts, unit = LabelCounts.behind(fitted, len(scores)), KINDS[self.adapter_.kind].unit
        found = fit_to_labels(rule, held, known, counts, unit, (mine, labels))
        return replace(found, n=len(scores) + counts.anomalies + len(mine))


def _as_rare(rule: FixedValue, head: FeedbackHead, unit: str) -> FittedThreshold:
    """Return the threshold on corrected scores that stands where the value lies among the held-out units."""
    fitted, n = rule.fit(head.reference, unit=unit), len(head.reference)
    level = head.level(rule.value)
    promise = (
        f"Flags every {unit} that scores above {level:.3g} nats: as rare as {rule.value:g}, the value given, is among "
        f"{n} held-out {plural(unit, n)} before labels corrected the scores; no false-alarm rate is promised."
    )
    return replace(fitted, value=level, promise=promise)


def _nearest_level(
    rule: Conformal, held: Floats, scores: Floats, labels: NDArray[np.int64], unit: str
) -> FittedThreshold:
    """Return the conformal threshold that errs least on the labels, of levels near the one asked for."""

    def errors(fitted: FittedThreshold) -> float:
        flags = fitted.flag(scores)
        missed, false = ~flags[labels == 1], flags[labels == 0]
        return float((missed.mean() if missed.size else 0.0) + (false.mean() if false.size else 0.0))

    levels = [rule.alpha * move for move in _MOVES]
    # A level that the held-out units cannot promise is no choice, save the one the user asked for.
    levels = [levels[0], *(level for level in levels[1:] if 1.0 / (len(held) + 1) <= level < 0.5)]
    found = [Conformal(level).fit(held, unit=unit) for level in levels]
    best = min(found, key=errors)
    if best is found[0]:
        return best
    told = f"{len(labels)} {plural('label', len(labels))}"
    return replace(best, promise=f"{best.promise} {told} moved it from {percent(rule.alpha)}.")


def read_feedback(y: Any, n: int) -> NDArray[np.int64]:
    """Read the labels of ``feedback``.

    Raises
    ------
    InputError
        When there are none or not ``n``, or none is 0 or 1.
    """
    if y is None:
        raise InputError("y: no labels were given; give one a unit of X: 1 anomaly, 0 normal, -1 unlabelled.")
    labels = np.asarray(y).ravel()
    if len(labels) != n:
        given = "1 label was" if len(labels) == 1 else f"{len(labels)} labels were"
        raise InputError(f"y: {given} given for {n} {plural('unit', n)} of X; give one a unit.")
    if labels.dtype.kind not in "biuf" or not np.isin(labels, (-1, 0, 1)).all():
        raise InputError("y: found values other than 1 (anomaly), 0 (normal) and -1 (unlabelled); use only these.")
    if not (labels >= 0).any():
        raise InputError("y: no unit is labelled; label at least one with 1 (anomaly) or 0 (normal).")
    return labels.astype(np.int64)


def check_query(n: Any, units: int) -> None:
    """Refuse a number of proposals that is none.

    Raises
    ------
    InputError
        When ``n`` is not a whole number from 1 to ``units``.
    """
    if not isinstance(n, int | np.integer) or isinstance(n, bool) or not 1 <= n <= units:
        raise InputError(f"n: {n!r} was given; use a whole number from 1 to the {units} units of X.")
