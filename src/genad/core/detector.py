"""The contract of a detector: what users call, and the hooks a method fills in."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils.validation import check_is_fitted
from torch import nn

from genad.core.calibration import Threshold, benjamini_hochberg, conformal_p_values
from genad.core.detections import Detections, Explanation
from genad.core.feedback import Feedback
from genad.core.hooks import Hooks
from genad.core.inference import Floats, Want
from genad.core.ingest import make_adapter, validated
from genad.core.log_detections import LogDetections
from genad.core.loop import TINY, TrainingLoop
from genad.core.pixels import PIXEL_ALPHA, ImageDetections
from genad.core.runtime import isolated_rng, resolve_device, thread_limit
from genad.core.settings import Settings
from genad.core.splits import Labels, read_labels, rows_to_scale
from genad.core.training import Training, TrainingReport
from genad.data.adapters import Adapter, Loaded
from genad.data.kinds import KINDS, Kind
from genad.data.log import Sessions
from genad.data.samples import Samples
from genad.data.table import Table
from genad.nn import Backbone

if TYPE_CHECKING:
    from sklearn.utils import Tags


@dataclass(eq=False, repr=False)
class Detector(Settings, Hooks, Feedback, OutlierMixin, BaseEstimator):
    """Base of every detector: learn what is normal, score what is not.

    A method is a dataclass of its hyper-parameters that fills in a few hooks: :meth:`build` makes the network,
    :meth:`loss` (or :meth:`phases`) says what training minimises, :meth:`score_batch`, :meth:`error_map` and
    :meth:`reconstruct` read the trained network. Everything else is here, once.

    Parameters
    ----------
    backbone : Backbone or str, optional
        Architecture of the networks; chosen by the shape of a sample when absent. Methods whose network is their own
        idea, or that have none, refuse one.
    training : Training, optional
        How to train; its empty fields take the method's own defaults.
    threshold : Threshold, optional
        How flags follow from scores; :class:`~genad.Conformal` with alpha=0.01 when absent.
    holdout : float
        Share of the training data kept away from the gradient to calibrate on, in (0, 0.9]; at most 20,000 units.
    random_state : int, optional
        Seed of everything random in this object; None draws a fresh one at each fit.
    device : str, optional
        Where to compute; CUDA, then MPS, then the CPU when absent.
    verbose : bool
        Show progress.

    Attributes
    ----------
    net_ : torch.nn.Module
        The trained network.
    threshold_ : FittedThreshold
        The calibrated threshold and what it promises.
    calibration_scores_ : float64 array
        Scores of the held-out normal units.
    offset_ : float
        ``decision_function = score_samples - offset_``, as in scikit-learn.
    training_report_ : TrainingReport
        Updates, seconds and losses of the fit.
    n_features_in_ : int
        Number of features seen in fit, for tables.
    """

    backbone: Backbone | str | None = field(default=None, kw_only=True)
    training: Training | None = field(default=None, kw_only=True)
    threshold: Threshold | None = field(default=None, kw_only=True)
    holdout: float = field(default=0.2, kw_only=True)
    random_state: int | None = field(default=0, kw_only=True)
    device: str | None = field(default=None, kw_only=True)
    verbose: bool = field(default=False, kw_only=True)

    # ------------------------------------------------------------------ fit

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn what is normal.

        Parameters
        ----------
        X : array, dataframe, Table, Series or path
            Mostly normal data. Arrays: (rows, features), (windows, steps, channels), (images, channels, rows, columns)
            or (clips, frames, channels, rows, columns). NaN marks a missing value.
        y : array of int, optional
            1 anomaly, 0 normal, -1 unlabelled. Labelled anomalies are kept out of training, and label-driven
            thresholds (:class:`~genad.BestF`) learn from them.

        Returns
        -------
        Self

        Raises
        ------
        InputError
            When the data or a parameter cannot be used.
        TrainingError
            When the loss stops being finite.

        Notes
        -----
        A fit that fails or is interrupted changes nothing: a detector that was fitted answers as before.
        """
        before = dict(vars(self))
        try:
            self._check_parameters()
            self.head_ = self.before_ = None
            self.device_ = str(resolve_device(self.device))
            self.seed_ = self._draw_seed()
            loaded = self._ingest(X, reset=True, y=y)
            samples = loaded.samples
            labels = self._labels(y, loaded)
            train, held = self._split(samples, labels)
            self.sample_shape_ = samples.shape
            self._prepare()
            with isolated_rng(self.seed_, self._device):
                net = self.build(samples.shape).to(self._device)
                self.training_report_ = self.optimise(net, train)
                self.net_ = net.eval()
            self._calibrate(held, samples, labels)
        except BaseException:
            # New scales with the old network would answer nonsense. A fit makes all it learns anew and changes nothing
            # learnt before in place, so the former attributes are the whole of the former state.
            self.__dict__ = before
            raise
        return self

    def optimise(self, net: nn.Module, samples: Samples) -> TrainingReport:
        """Train ``net`` in place on ``samples`` and finish it; detectors made of others override this."""
        size = sum(p.numel() for p in net.parameters())
        phases = self.phases(net)
        report = TrainingReport(device=str(self._device), samples=len(samples))
        with thread_limit(1 if size < TINY else None):
            if phases:
                loop = TrainingLoop(
                    net,
                    phases,
                    self._training_for(samples.shape),
                    seed=self.seed_,
                    device=self._device,
                    after_step=None if type(self).after_step is Detector.after_step else self.after_step,
                    verbose=self.verbose,
                    title=self.name,
                )
                report = loop.run(samples)
            net.eval()
            with self._scoring():
                self.finish(net, samples)
        return report

    def calibrate(self, X: Any, y: Any = None) -> Self:
        """Set the threshold and the p-values from other data, without touching the model.

        What labels taught (:meth:`feedback`) stays, on the scale of these data, and :meth:`forget` comes back to this
        calibration without labels.

        Parameters
        ----------
        X : array, dataframe, Table, Series or path
            Normal data the model was not trained on.
        y : array of int, optional
            As in :meth:`fit`: units labelled 1 are not calibrated on.

        Returns
        -------
        Self
        """
        check_is_fitted(self, "net_")
        loaded = self._ingest(X, reset=False)
        self._recalibrate(loaded.samples, self._labels(y, loaded))
        return self

    # ------------------------------------------------------------------ answers

    def anomaly_score(self, X: Any) -> Floats:
        """Return one float64 a unit; higher is more anomalous, in the method's raw units."""
        check_is_fitted(self, "net_")
        loaded = self._ingest(X, reset=False)
        return loaded.to_user(self._corrected(loaded.samples).scores)

    def score_samples(self, X: Any) -> Floats:
        """Return the negated anomaly score: lower is more abnormal, as in scikit-learn."""
        return -self.anomaly_score(X)

    def decision_function(self, X: Any) -> Floats:
        """Return ``score_samples(X) - offset_``: negative for anomalies, as in scikit-learn."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> NDArray[np.int64]:
        """Return -1 for anomalies and +1 for normal units, as in scikit-learn."""
        scores = self.anomaly_score(X)
        return np.where(self.threshold_.flag(scores), -1, 1)

    def p_value(self, X: Any) -> Floats:
        """Return split-conformal p-values in (0, 1]: small means few held-out normals score as high."""
        scores = self.anomaly_score(X)
        return conformal_p_values(self.calibration_scores_, scores)

    def anomaly_map(self, X: Any) -> NDArray[Any]:
        """Return where the anomaly is, in the shape of the data: one value a cell, higher is more anomalous."""
        check_is_fitted(self, "net_")
        loaded = self._ingest(X, reset=False)
        answer = self._answer(loaded.samples, "map")
        assert answer.maps is not None  # noqa: S101 - asked for above
        return loaded.to_user(self.adapter_.collapse(answer.maps))

    def restore(self, X: Any, mask: Any = None) -> Any:
        """Return the nearest normal sample of each unit, in the kind, shape and units of ``X``.

        Parameters
        ----------
        X : array, dataframe, Table, Series, Images or path
            Data of the kind the detector was fitted on.
        mask : bool array, or list of them for Images, optional
            True where to restore: for images (n, rows, columns), or one (rows, columns) an image in its own size; for
            windows and clips in the shape of ``X``. What lies under it is not looked at, and what lies outside comes
            back as it was. In tables and series set cells to missing (NaN) instead.

        Returns
        -------
        object
            As ``X``; for Images a list of arrays (rows, columns, channels) in their own sizes.
        """
        check_is_fitted(self, "net_")
        loaded = self._ingest(X, reset=False)
        hidden = None if mask is None else self.adapter_.hidden(mask, loaded)
        return self.adapter_.native(self._mended(loaded.samples, hidden), loaded, mask)

    def detect(
        self,
        X: Any,
        *,
        fdr: float | None = None,
        maps: bool = True,
        restore: bool = True,
        pixel_alpha: float = PIXEL_ALPHA,
    ) -> Detections:
        """Score, flag, localise and restore in one pass.

        Parameters
        ----------
        X : array, dataframe, Table, Series or path
            Data of the kind the detector was fitted on.
        fdr : float, optional
            Flag by the Benjamini-Hochberg procedure at this false discovery rate, in (0, 1), and not by the threshold.
        maps, restore : bool
            Leave out what is not needed.
        pixel_alpha : float
            For images: the share of a normal image's pixels that its mask may cover on average, in (0, 0.5].

        Returns
        -------
        Detections
            :class:`~genad.core.pixels.ImageDetections` for images,
            :class:`~genad.core.log_detections.LogDetections` for sessions of a log.
        """
        check_is_fitted(self, "net_")
        if fdr is not None:
            # A wrong rate shows at once, not after long scoring.
            benjamini_hochberg((), fdr)
        loaded = self._ingest(X, reset=False)
        wanted: list[Want] = [*(("map",) if maps else ()), *(("restored",) if restore else ())]
        answer = self._corrected(loaded.samples, *wanted)
        p_values = conformal_p_values(self.calibration_scores_, answer.scores)
        flags = self.threshold_.flag(answer.scores) if fdr is None else benjamini_hochberg(p_values, fdr)
        adapter = self.adapter_
        form, extra = Detections, {}
        if adapter.kind is Kind.IMAGE:
            pixels = None if self.pixels_ is None else self.pixels_.threshold(pixel_alpha)
            form, extra = ImageDetections, {"images": adapter.images(loaded), "pixels": pixels}
        found = form(
            scores=answer.scores,
            p_values=p_values,
            is_anomaly=flags,
            threshold=self.threshold_,
            kind=adapter.kind,
            maps=None if answer.maps is None else adapter.collapse(answer.maps),
            restored=None if answer.restored is None else adapter.native(answer.restored, loaded),
            expected=None if answer.restored is None else adapter.columns(answer.restored),
            observed=adapter.observed(loaded),
            bounds=adapter.half_widths(self.bounds_),
            fdr=fdr,
            names=adapter.names,
            time=getattr(loaded.source, "time", None),
            entity=getattr(loaded.source, "entity", None),
            rows=getattr(loaded.source, "order", None),
            meta=self.describe(),
            **extra,
        )
        sessions = next((held for held in (loaded.source, loaded.original) if isinstance(held, Sessions)), None)
        return found if sessions is None else LogDetections.of(found, sessions, self)

    def explain(self, X: Any, i: int) -> Explanation:
        """Explain unit ``i`` of ``X``: its parts ranked by their share of the score.

        Raises
        ------
        InputError
            When ``i`` is not a position in ``X``.
        """
        return self.detect(X).explain(i)

    def save(self, path: str | Path) -> Path:
        """Write the fitted detector to one file: safetensors and JSON, checksummed, never pickle."""
        from genad.core.persistence import save

        return save(self, Path(path))

    def describe(self) -> dict[str, Any]:
        """Return plain facts of the fitted detector, for reports and listings."""
        report: TrainingReport = self.training_report_
        return {
            "detector": self.name,
            "title": self.card.title,
            "parameters": {k: v for k, v in self.get_params(deep=False).items() if v is not None},
            "kind": self.adapter_.kind.value,
            "unit": KINDS[self.adapter_.kind].unit,
            "device": report.device,
            "updates": report.updates,
            "seconds": report.seconds,
            "stopped": report.stopped,
            "network_parameters": report.parameters,
            "training_samples": report.samples,
            "calibration_units": len(self.calibration_scores_),
        }

    # ------------------------------------------------------------------ inside

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.non_deterministic = self.random_state is None
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "threshold_")

    def _prepare(self) -> None:
        """Make ready, once seed and device are known; wrappers take up what they wrap here."""

    def fitted_state(self) -> dict[str, Any]:
        """Return what a fitted detector knows, as tensors, arrays and plain values, for :mod:`genad.core.persistence`.

        A method keeps everything it learns in the parameters and buffers of its network, so this rarely changes.
        """
        from genad.core.persistence import network_state

        return network_state(self)

    def set_fitted_state(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`fitted_state` returned."""
        from genad.core.persistence import restore_network_state

        restore_network_state(self, state)

    def _ingest(self, X: Any, *, reset: bool, y: Any = None) -> Loaded:
        given, X = X, validated(self, X, reset=reset)
        if reset:
            self.adapter_: Adapter = make_adapter(self, X)
            rows = rows_to_scale(y, len(X))
            loaded = self.adapter_.fit(X) if rows is None else self.adapter_.fit_to(X, rows)
        else:
            loaded = self.adapter_.transform(X)
        if isinstance(X, Table) and hasattr(given, "columns"):
            loaded.original = given  # so that a dataframe is answered with a dataframe
        loaded.samples = loaded.samples.to(self._device)
        return loaded

    def _labels(self, y: Any, loaded: Loaded) -> Labels:
        labels = read_labels(y, self._units(loaded.samples))
        return Labels(loaded.from_user(labels.values))

    def _units(self, samples: Samples) -> int:
        return len(samples)
