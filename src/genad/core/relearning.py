"""Detectors of series whose model itself learns from labels, and not only the head that corrects its scores."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from genad.core.calibration import FittedThreshold
from genad.core.feedback import check_query, read_feedback
from genad.core.inference import Floats
from genad.core.loop import TrainingLoop
from genad.core.runtime import isolated_rng
from genad.core.splits import Labels
from genad.core.windows import SeriesDetector, as_windows
from genad.data.samples import ArraySamples, Samples, WindowSamples, iterate
from genad.errors import InputError

# Examples kept of each sort at most, and numbers in them.
_KEPT, _NUMBERS = 4096, 2**20
# Examples run through a model at a time.
_ROWS = 1024
# Updates of a model that learns from labels, at most.
_UPDATES = 200


class LabelMemory(nn.Module):
    """What a model needs to learn from labels later: examples of normal steps, and those that labels were given for.

    An example is what the model reads of one step.

    Parameters
    ----------
    shape : tuple of int
        Shape of an example.

    Attributes
    ----------
    replay, held : Tensor of shape (n, *shape)
        Examples of training steps, and of steps kept away from training.
    known : Tensor of shape (n, *shape)
        Examples of anomalies labelled in the fit.
    told, labels, wrong : Tensor of shape (n, *shape), (n,) and (n,)
        Examples labelled since, their labels, and whether the detector had taken them for something else.
    initial, original : Tensor of shape (p,)
        Parameters of the model before training, and before the first label; the latter empty without one.
    """

    replay: Tensor
    held: Tensor
    known: Tensor
    told: Tensor
    labels: Tensor
    wrong: Tensor
    initial: Tensor
    original: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        for name in ("replay", "held", "known", "told"):
            self.register_buffer(name, torch.zeros(0, *shape))
        for name in ("labels", "wrong"):
            self.register_buffer(name, torch.zeros(0, dtype=torch.long))
        for name in ("initial", "original"):
            self.register_buffer(name, torch.zeros(0))

    @property
    def anomalies(self) -> Tensor:
        """Examples labelled anomalous, in the fit or since."""
        return torch.cat([self.known, self.told[self.labels == 1]])

    @property
    def normals(self) -> Tensor:
        """Examples labelled normal since the fit."""
        return self.told[self.labels == 0]

    def forget(self) -> None:
        """Drop the labels given since the fit."""
        self.told, self.labels, self.wrong = self.told[:0], self.labels[:0], self.wrong[:0]


def some(examples: Tensor, most: int = _KEPT) -> Tensor:
    """Return the examples, or an evenly spaced part of them that is small enough to keep.

    Examples
    --------
    >>> some(torch.arange(10.0), 4).tolist()
    [0.0, 3.0, 6.0, 9.0]
    """
    most = max(1, min(most, _NUMBERS // max(1, examples[:1].numel())))
    if len(examples) <= most:
        return examples
    return examples[torch.linspace(0, len(examples) - 1, most, device=examples.device).long()]


def drawn(examples: Tensor, count: int) -> Tensor:
    """Return ``count`` examples drawn with replacement, none of none."""
    if not len(examples):
        return examples
    return examples[torch.randint(len(examples), (count,), device=examples.device)]


@dataclass(eq=False, repr=False)
class RelearningDetector(SeriesDetector):
    """A detector of series whose :meth:`feedback` trains its model with the labels.

    It sees normal steps of the fit beside all labelled ones, and starts from the same weights each time. The held-out
    steps are scored again, so that p-values and the threshold stay valid.

    A method fills in :meth:`examples` and :meth:`score_examples`. Its network has the parts ``model``, which labels
    move, and ``memory``, a :class:`LabelMemory`; its loss reads anomalies and normals from there.
    """

    stackable: ClassVar[bool] = False
    #: Whether learning from labels starts where the fit began, and not from the fitted weights.
    anew: ClassVar[bool] = False
    #: Whether other detectors score with the very weights of this one.
    shares_net_ = False

    # ------------------------------------------------------------------ hooks

    def examples(self, net: Any, samples: Samples) -> Tensor:
        """Return what the model reads of the last step of each window, (n, *shape)."""
        raise NotImplementedError

    def score_examples(self, net: Any, examples: Tensor) -> Tensor:
        """Return the score of each example, (n,)."""
        raise NotImplementedError

    def worth(self, net: Any, samples: Samples, scores: Floats) -> Floats:  # noqa: ARG002 - methods look at them
        """Return how much a label of each step would teach; without another word, the nearer to the threshold."""
        return -np.abs(scores - self.threshold_.value)

    # ------------------------------------------------------------------ labels

    def feedback(self, X: Any, y: Any, *, keep: bool = True) -> Self:
        """Learn from labels of a few steps: the model is trained with them, and the threshold moves.

        Parameters
        ----------
        X : array, dataframe, Series or path
            Steps; they need not have been seen before.
        y : array of int
            1 anomaly, 0 normal, -1 unlabelled; one a step, at least one of them labelled.
        keep : bool
            Keep the labels of earlier calls too.

        Returns
        -------
        Self

        Raises
        ------
        InputError
            When the labels do not fit the steps, none is 0 or 1, or no labelled step lies in a window.
        """
        check_is_fitted(self, "calibration_scores_")
        loaded = self._ingest(X, reset=False)
        labels = loaded.from_user(read_feedback(y, self._units(loaded.samples)))
        windows, steps = windows_at(loaded.samples, np.flatnonzero(labels >= 0))
        net: Any = self.net_
        if self.shares_net_:
            # Training is in place, so it needs weights of its own; examples are only ever replaced.
            self.net_ = copy.deepcopy(net, {id(held): held for held in net.memory.buffers()})
            self.shares_net_, net = False, self.net_
        memory: LabelMemory = net.memory
        with self._scoring():
            told = self.examples(net, windows)
            flags = self.threshold_.flag(self._scores_of(told))
        if self.before_ is None:
            self.before_ = self.calibration_scores_, self.threshold_
            memory.original = _flat(net.model)
        if not keep:
            memory.forget()
        given = torch.from_numpy(labels[steps]).to(self._device)
        wrong = torch.from_numpy(flags).to(self._device).long() != given
        memory.told = torch.cat([memory.told, told.clone()])
        memory.labels = torch.cat([memory.labels, given])
        memory.wrong = torch.cat([memory.wrong, wrong.long()])
        self._relearn(net)
        self._judge_anew(memory)
        return self

    def forget(self) -> Self:
        """Undo :meth:`feedback`: model, p-values and threshold are again what they were before the first label.

        Returns
        -------
        Self
        """
        if self.before_ is not None:
            net: Any = self.net_
            self._put_back(net, net.memory.original)
            net.memory.forget()
            net.memory.original = net.memory.original[:0]
        return super().forget()

    def query(self, X: Any, n: int = 10) -> NDArray[np.intp]:
        """Return the positions of the steps whose labels would teach the most.

        Parameters
        ----------
        X : array, dataframe, Series or path
            Steps to choose from.
        n : int
            How many, at least 1 and at most the steps of ``X``.

        Returns
        -------
        int array of shape (n,)
            Positions in ``X``, the most useful first; at least a quarter of a window apart while there are such.

        Raises
        ------
        InputError
            When ``n`` is out of range.
        """
        check_is_fitted(self, "calibration_scores_")
        loaded = self._ingest(X, reset=False)
        check_query(n, self._units(loaded.samples))
        scores = self._answer(loaded.samples).scores
        with self._scoring():
            worth = self.worth(self.net_, loaded.samples, scores)
        chosen = spread_out(worth, int(n), max(1, int(self.sample_shape_[0]) // 4))
        rows = getattr(loaded.source, "order", None)
        return chosen if rows is None else np.asarray(rows)[chosen]

    def calibrate(self, X: Any, y: Any = None) -> Self:
        """Set the threshold and the p-values from other data, without touching the model.

        What labels taught (:meth:`feedback`) stays, and :meth:`forget` comes back to this calibration without labels.

        Parameters
        ----------
        X : array, dataframe, Series or path
            Normal data the model was not trained on.
        y : array of int, optional
            As in :meth:`fit`: steps labelled 1 are not calibrated on.

        Returns
        -------
        Self
        """
        check_is_fitted(self, "net_")
        net: Any = self.net_
        memory: LabelMemory = net.memory
        taught = _flat(net.model) if self.before_ is not None else None
        try:
            if taught is not None:
                self._put_back(net, memory.original)
            super().calibrate(X, y)
        finally:
            if taught is not None:
                self._put_back(net, taught)
        loaded = self._ingest(X, reset=False)
        normal = np.flatnonzero(self._labels(y, loaded).normal)
        self._keep_held(windows_at(loaded.samples, normal)[0])
        if taught is not None:
            self.before_ = self.calibration_scores_, self.threshold_
            self._judge_anew(memory)
        return self

    # ------------------------------------------------------------------ inside

    def _split(self, samples: Samples, labels: Labels) -> tuple[Samples, Samples]:
        # Known anomalies take no part in training as normal, or in calibration; the loss has another use for them.
        anomalous = np.flatnonzero(labels.anomalous)
        self._known = windows_at(samples, anomalous)[0] if len(anomalous) else None
        return super()._split(samples, labels)

    def _remember(self, net: Any, examples: Tensor) -> None:
        """Keep examples of training steps, and of the anomalies that the fit was told of."""
        net.memory.replay = some(examples).clone()
        net.memory.initial = _flat(net.model)
        known = getattr(self, "_known", None)
        if known is not None:
            net.memory.known = some(self.examples(net, known)).clone()
        self._known = None

    def _calibrate(self, held: Samples, samples: Samples, labels: Labels) -> None:
        super()._calibrate(held, samples, labels)
        self._keep_held(held)

    def _keep_held(self, held: Samples) -> None:
        with torch.no_grad():
            net: Any = self.net_
            net.memory.held = some(self.examples(net, held)).clone()

    def _judge_anew(self, memory: LabelMemory) -> None:
        """Set calibration and threshold by what the taught model says of held-out, labelled and known steps."""
        held, mine = self._scores_of(memory.held), self._scores_of(memory.told)
        known = self._scores_of(memory.known) if len(memory.known) else None
        self._move_threshold(held, mine, memory.labels.cpu().numpy(), known)

    def _relearn(self, net: Any) -> None:
        self._put_back(net, net.memory.initial if self.anew else net.memory.original)
        replay = ArraySamples(net.memory.replay)
        training = self._training_for(replay.shape)
        updates = min(_UPDATES, training.total_updates(len(replay)))
        net.requires_grad_(requires_grad=True)
        with isolated_rng(self.seed_, self._device):
            TrainingLoop(
                net,
                self.phases(net),
                replace(training, updates=updates, checkpoint=None, patience=0),
                seed=self.seed_,
                device=self._device,
                after_step=self.after_step,
                title=f"{self.name} labels",
            ).run(replay)

    @staticmethod
    @torch.no_grad()
    def _put_back(net: Any, values: Tensor) -> None:
        parameters = list(net.model.parameters())
        for parameter, part in zip(parameters, values.split([p.numel() for p in parameters]), strict=True):
            parameter.copy_(part.view_as(parameter))

    def _scores_of(self, examples: Tensor) -> Floats:
        net: Any = self.net_
        with self._scoring():
            parts = [self.score_examples(net, part) for _, part in _parts(examples)]
        return torch.cat(parts).double().cpu().numpy()

    def feedback_state(self) -> dict[str, Any] | None:
        """Return what labels replaced, as plain values; None without any. The model keeps the rest."""
        if self.before_ is None:
            return None
        scores, threshold = self.before_
        return {"scores": scores.tolist(), "threshold": threshold.to_dict()}

    def set_feedback_state(self, state: dict[str, Any] | None) -> None:
        """Put back what :meth:`feedback_state` returned."""
        self.head_ = self.before_ = None
        if state is not None:
            self.before_ = np.asarray(state["scores"], np.float64), FittedThreshold.from_dict(state["threshold"])


def _flat(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def _parts(examples: Tensor) -> Any:
    return ((where, batch.x) for where, batch in iterate(ArraySamples(examples), _ROWS))


def windows_at(samples: Samples, steps: NDArray[np.intp]) -> tuple[WindowSamples, NDArray[np.intp]]:
    """Return the windows that end at steps, and the steps; those before the end of the first window take that one.

    Raises
    ------
    InputError
        When no window holds any of the steps.
    """
    windows = as_windows(samples)
    starts = windows.starts.cpu().numpy()
    place = np.searchsorted(starts, steps - windows.length + 1)
    inside = place < len(starts)
    inside[inside] = starts[place[inside]] <= steps[inside]
    if len(steps) and not inside.any():
        raise InputError(
            f"y: every labelled step lies in a stretch shorter than a window of {windows.length} steps; label others."
        )
    first = torch.from_numpy(starts[place[inside]]).to(windows.x.device)
    return WindowSamples(windows.x, first, windows.length, windows.mask), steps[inside]


def spread_out(worth: Floats, n: int, gap: int) -> NDArray[np.intp]:
    """Return the positions of the ``n`` highest values that keep a gap, and of the next highest when there are none.

    Examples
    --------
    >>> spread_out(np.array([5.0, 4.0, 3.0, 2.0, 1.0]), 3, 2).tolist()
    [0, 2, 4]
    >>> spread_out(np.array([5.0, 4.0, 3.0]), 3, 5).tolist()
    [0, 1, 2]
    """
    left, free = np.array(worth, np.float64), np.ones(len(worth), bool)
    chosen: list[int] = []
    while len(chosen) < n:
        if not free.any():
            free = np.ones(len(worth), bool)
            free[chosen] = False
        best = int(np.argmax(np.where(free, left, -np.inf)))
        if not free[best]:
            best = int(np.flatnonzero(free)[0])
        chosen.append(best)
        free[max(0, best - gap + 1) : best + gap] = False
    return np.array(chosen, np.intp)
