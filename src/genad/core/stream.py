"""Detectors of streams: learn a prefix once, then score each row before learning from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from genad.core.calibration import (
    Adaptive,
    FittedThreshold,
    OnlineFDR,
    RunningConformal,
    StreamRule,
    stream_from_dict,
)
from genad.core.detector import Detector
from genad.core.inference import Floats
from genad.core.ingest import validated
from genad.core.splits import MAX_HELD_OUT, Labels
from genad.data.samples import Batch, Samples, iterate
from genad.errors import InputError

# Rows handed to the method at a time; the order of rows is kept, so this only bounds memory.
_ROWS = 4096


@dataclass(frozen=True)
class StreamDetections:
    """What a stretch of a stream was judged to be, row by row, in the order of arrival.

    Attributes
    ----------
    scores : float64 array of shape (n,)
        Score of each row before the detector learnt from it.
    is_anomaly : bool array of shape (n,)
        Flags, each decided from the past alone.
    thresholds : float64 array of shape (n,), or None
        Score above which the row was flagged; None when an online FDR procedure decided.
    p_values : float64 array of shape (n,), or None
        Conformal p-value of the row among the scores remembered; None for tail thresholds.
    """

    scores: Floats
    is_anomaly: NDArray[np.bool_]
    thresholds: Floats | None = None
    p_values: Floats | None = None

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(eq=False, repr=False)
class StreamDetector(Detector):
    """A detector of rows that arrive one after the other, from a source that may drift.

    The first rows, the prefix, are taken as normal: :meth:`fit` (or the first :meth:`partial_fit`)
    trains on them. From then on :meth:`score_update` and :meth:`detect_stream` score each row and
    learn from it afterwards, strictly in order. :meth:`anomaly_score`, :meth:`predict` and
    :meth:`detect` look at the present state and never change it.

    The part kept to calibrate on is the end of the prefix, not a random part, and it is scored the
    way a stream is: score first, learn afterwards.

    A method fills in :meth:`stream`, besides the hooks of every detector.

    Parameters
    ----------
    prefix : int
        Rows that :meth:`partial_fit` gathers before it fits, at least 2. A fifth of them calibrates
        (``holdout``), and a level ``alpha`` needs ``1 / alpha - 1`` calibration rows.

    Attributes
    ----------
    stream_rule_ : StreamRule or None
        The moving threshold of :meth:`detect_stream`, None before its first call.
    stream_scores_ : float64 array
        Scores of the calibration rows in the order of arrival, on which a moving threshold starts
        while there are no labels.
    """

    prefix: int = field(default=512, kw_only=True)

    stackable: ClassVar[bool] = False

    def stream(self, net: Any, batch: Batch) -> torch.Tensor:
        """Score each row of ``batch``, (B,), learning from a row once it is scored, in order."""
        raise NotImplementedError

    # ------------------------------------------------------------------ streaming

    def partial_fit(self, X: Any, y: Any = None) -> Self:  # noqa: ARG002 - scikit-learn's signature
        """Learn from the next rows of a stream.

        Rows are gathered until there are ``prefix`` of them, then the detector is fitted on all
        of them; later calls update it. Use :meth:`score_update` where the scores are wanted too.

        Parameters
        ----------
        X : array, dataframe, Table or path
            Rows in the order of arrival.
        y : ignored
            Present by convention.

        Returns
        -------
        Self

        Raises
        ------
        InputError
            When the rows cannot be used, or differ in kind from the rows before.
        """
        if self.__sklearn_is_fitted__():
            self._streamed(self._ingest(X, reset=False).samples)
            return self
        self._check_parameters()
        parts: list[Any] = [*getattr(self, "_gathered", []), X]
        validated(self, X, reset=len(parts) == 1)
        if sum(_length(part) for part in parts) < self.prefix:
            self._gathered = parts
            return self
        return self.fit(_joined(parts))

    def score_update(self, X: Any) -> Floats:
        """Score the next rows of a stream, each before the detector learns from it.

        Parameters
        ----------
        X : array, dataframe, Table or path
            Rows in the order of arrival. One call with many rows gives the same scores as many
            calls with one row each, and costs less.

        Returns
        -------
        float64 array of shape (n,)
            Higher is more anomalous; corrected by what labels taught (:meth:`feedback`), for which
            rows are looked at one by one.

        Raises
        ------
        NotFittedError
            Before :meth:`fit`, or before :meth:`partial_fit` has seen the whole prefix.
        """
        check_is_fitted(self, "net_")
        return self._streamed_corrected(self._ingest(X, reset=False).samples)

    def detect_stream(self, X: Any, *, fdr: OnlineFDR | None = None) -> StreamDetections:
        """Score, flag and learn from the next rows of a stream.

        The threshold moves with the scores: ``threshold=Adaptive(...)`` of the detector says how;
        with any other rule it is the running conformal test at that rule's alpha. It starts on
        the calibration scores, goes on from call to call, and is saved with the detector. Labels
        (:meth:`feedback`, :meth:`forget`) change the scale of the scores, so it starts anew then, on
        the calibration scores as they are corrected, at the level that labels moved it to.

        Parameters
        ----------
        X : array, dataframe, Table or path
            Rows in the order of arrival.
        fdr : OnlineFDR, optional
            Decides by the running p-values at a false discovery rate instead: a
            :class:`~genad.core.calibration.LORD`, ``SAFFRON`` or ``ADDIS``, which keeps its own
            wealth. Pass the same object to every call.

        Returns
        -------
        StreamDetections

        Raises
        ------
        InputError
            When ``fdr`` is asked for and the moving threshold has no p-values.
        """
        check_is_fitted(self, "net_")
        if fdr is not None and not isinstance(fdr, OnlineFDR):
            raise InputError(
                f"fdr: {fdr!r} was given; use an online procedure such as LORD(alpha=0.05), which "
                "remembers its wealth from call to call."
            )
        rule = self._moving_rule()
        conformal = rule if isinstance(rule, RunningConformal) else None
        if fdr is not None and conformal is None:
            raise InputError(
                f"fdr: the moving threshold is {type(rule).__name__}, which has no p-values; "
                "use threshold=Adaptive(method='conformal')."
            )
        scores = self._streamed_corrected(self._ingest(X, reset=False).samples)
        flags = np.zeros(len(scores), bool)
        thresholds, p_values = np.empty(len(scores)), np.empty(len(scores))
        for i, score in enumerate(scores.tolist()):
            thresholds[i] = rule.threshold
            if conformal is not None:
                p_values[i] = conformal.p_value(score)
            if fdr is None:
                flags[i] = rule.update(score)
            else:
                flags[i] = fdr.update(float(p_values[i]))
                rule.learn(score, bool(flags[i]))
        return StreamDetections(
            scores,
            flags,
            thresholds=thresholds if fdr is None else None,
            p_values=None if conformal is None else p_values,
        )

    # ------------------------------------------------------------------ inside

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if not isinstance(self.prefix, int | np.integer) or self.prefix < 2:
            raise InputError(f"prefix: {self.prefix!r} was given; use a whole number of rows, at least 2.")

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn what is normal from the prefix of a stream, rows in the order of arrival.

        Parameters
        ----------
        X : array, dataframe, Table or path
            Mostly normal rows. NaN marks a missing value.
        y : array of int, optional
            1 anomaly, 0 normal, -1 unlabelled; rows labelled 1 are kept out.

        Returns
        -------
        Self

        Raises
        ------
        InputError
            When the data or a parameter cannot be used.
        """
        super().fit(X, y)
        # Only now: rows gathered for a fit that fails are not lost.
        self._gathered = []
        return self

    def _split(self, samples: Samples, labels: Labels) -> tuple[Samples, Samples]:
        rows = np.flatnonzero(labels.normal)
        count = min(int(len(rows) * self.holdout), MAX_HELD_OUT)
        train, held = rows[: len(rows) - count], rows[len(rows) - count :]
        if count == 0:
            held = train
            self._warn_shared(len(train))
        return self._rows(samples, train), self._rows(samples, held)

    def _calibrate(self, held: Samples, samples: Samples, labels: Labels) -> None:
        answer = self._run(held, "map", "restored")
        self.bounds_ = self._residual_bounds(held, answer)
        answer.scores = self._streamed(held)
        self._keep_traits(answer)
        every = self._fill(self._run(samples), answer.scores) if self._learns_from(labels) else None
        self._keep_anomalies(samples, labels, every)
        self._set_calibration(answer.scores, labels, None if every is None else every.scores)

    def _set_calibration(self, held: Floats, labels: Labels, every: Floats | None) -> None:
        super()._set_calibration(held, labels, every)
        self.stream_scores_ = np.array(held, np.float64)

    def _adopt(self, scores: Floats, threshold: FittedThreshold) -> None:
        super()._adopt(scores, threshold)
        # What the moving threshold has seen may be on another scale.
        self.stream_rule_: StreamRule | None = None

    def _moving_rule(self) -> StreamRule:
        if self.stream_rule_ is None:
            rule = self.threshold
            if not isinstance(rule, Adaptive):
                # Labels may have moved the level.
                told = {} if self.head_ is None else self.threshold_.parameters
                rule = Adaptive(alpha=float(told.get("alpha", getattr(rule, "alpha", 0.01))))
            # The head's calibration rows are in the order of arrival too.
            past = self.stream_scores_ if self.head_ is None else self.head_.calibration()
            self.stream_rule_ = rule.stream(past)
        return self.stream_rule_

    def _streamed(self, samples: Samples) -> Floats:
        parts = []
        for _, batch in iterate(samples, _ROWS):
            with self._scoring():
                parts.append(self.stream(self.net_, batch).double().cpu().numpy())
        return np.concatenate(parts)

    def _streamed_corrected(self, samples: Samples) -> Floats:
        """Return :meth:`_streamed` corrected by what was learnt from labels."""
        head = self.head_
        if head is None:
            return self._streamed(samples)
        corrected = np.empty(len(samples))
        for i in range(len(samples)):
            # The traits of a row are those it has before anything is learnt from it.
            row = self._rows(samples, np.array([i]))
            answer = self._run(row, "map")
            corrected[i] = head.judge(self._streamed(row), self._traits(answer))[0]
        return corrected

    def fitted_state(self) -> dict[str, Any]:
        """Return what a fitted detector knows, its moving threshold included."""
        rule = self.stream_rule_
        return {
            **super().fitted_state(),
            "stream_scores": self.stream_scores_,
            "stream_rule": None if rule is None else rule.to_dict(),
        }

    def set_fitted_state(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`fitted_state` returned."""
        super().set_fitted_state(state)
        self.stream_scores_ = np.asarray(state["stream_scores"], np.float64)
        rule = state["stream_rule"]
        self.stream_rule_ = None if rule is None else stream_from_dict(rule)


def _length(X: Any) -> int:
    return len(X) if hasattr(X, "__len__") else np.asarray(X).shape[0]


def _joined(parts: Sequence[Any]) -> Any:
    """Put the gathered rows into one collection of their kind."""
    if len(parts) == 1:
        return parts[0]
    framed = [hasattr(part, "columns") for part in parts]
    if not any(framed):
        widths = {np.shape(part)[1] if np.ndim(part) == 2 else -1 for part in parts}
        if len(widths) > 1 or -1 in widths:
            shapes = ", ".join(str(np.shape(part)) for part in parts)
            raise InputError(
                f"X: arrays of shapes {shapes} were given in turn; each must be (rows, features) "
                "with one number of features."
            )
        return np.concatenate([np.asarray(part) for part in parts])
    if not all(framed) or len({type(part) for part in parts}) > 1:
        kinds = ", ".join(sorted({type(part).__name__ for part in parts}))
        raise InputError(f"X: {kinds} were given in turn; give all rows as one kind.")
    import narwhals as nw

    frames: list[Any] = [nw.from_native(part) for part in parts]
    try:
        return nw.concat(frames, how="vertical").to_native()
    except (TypeError, ValueError, nw.exceptions.NarwhalsError) as error:
        raise InputError(
            f"X: the dataframes given in turn do not fit together ({error}); give all the same "
            "columns in the same order."
        ) from error
