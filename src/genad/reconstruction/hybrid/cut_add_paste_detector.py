"""CutAddPaste as a detector: a classifier of windows that learns from pasted ones what an anomaly may look like."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.nn.utils import parameters_to_vector

from genad.core.inference import Inference, Want
from genad.core.parameters import check_number, check_whole
from genad.core.registry import Card, Family, register
from genad.core.training import Training, TrainingReport
from genad.core.windows import as_windows
from genad.data.kinds import Kind
from genad.data.samples import Batch, Samples, everything
from genad.errors import InputError
from genad.reconstruction.gan.nearest import nearest_kept
from genad.reconstruction.strided import StridedDetector
from genad.synthesis.cut_add_paste import CutAddPaste

# Channels of the three blocks of convolutions, and the steps that a filter looks at.
_WIDTHS, _KERNEL = (32, 64, 64), 8
# Fewest steps of a stretch that is pasted, and their share of a shorter window.
_CUT, _CUT_SHARE = 10, 1 / 3
# Values beyond so many standard deviations say nothing more, and would overflow.
_LARGEST = 1e6
# Normal windows kept to restore from, and those that settle the statistics of the normalisation.
_BANK, _SETTLING = 500, 1000
# Share of the training steps whose windows choose the weights, how many of them, and the updates between two looks.
_SHARE, _EXAMINED, _EVERY = 0.15, 256, 20


class PasteClassifier(nn.Module):
    """Three blocks of convolution, normalisation, ReLU and pooling, and a head with a logit for either class.

    Parameters
    ----------
    shape : tuple of int
        Steps T and channels C of a window.
    dropout : float
        Share of the values that are dropped behind the first block, in training.

    Attributes
    ----------
    bank : Tensor of shape (m, T * C)
        Normal windows.
    steps, least : Tensor
        Updates so far, and the lowest loss on windows kept apart, in nats.
    best : Tensor
        The weights that had it, end to end; none when training is over.
    """

    bank: Tensor
    steps: Tensor
    least: Tensor
    best: Tensor

    def __init__(self, shape: tuple[int, ...], dropout: float) -> None:
        super().__init__()
        steps, width = shape
        self.blocks = nn.ModuleList()
        for after in _WIDTHS:
            # The normalisation has a shift of its own.
            conv = nn.Conv1d(width, after, _KERNEL, padding=_KERNEL // 2, bias=False)
            pool = nn.MaxPool1d(2, padding=1)
            self.blocks.append(nn.Sequential(conv, nn.BatchNorm1d(after), nn.ReLU(), pool))
            steps, width = (steps + 1) // 2 + 1, after
        self.drop = nn.Dropout(dropout)
        hidden = steps * width // 2
        self.head = nn.Sequential(
            nn.Linear(steps * width, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, 2)
        )
        self.register_buffer("bank", torch.zeros(1, shape[0] * shape[1]))
        # Buffers, so that an interrupted training goes on with them.
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.register_buffer("least", torch.full((), torch.inf))
        self.register_buffer("best", torch.zeros(0))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, 2) of windows (B, T, C): normal, and anomalous."""
        hidden = x.clamp(-_LARGEST, _LARGEST).transpose(1, 2)
        for level, block in enumerate(self.blocks):
            hidden = block(hidden)
            if level == 0:
                hidden = self.drop(hidden)
        logits: Tensor = self.head(hidden.flatten(1))
        return logits

    def settle(self, x: Tensor) -> None:
        """Set the statistics of the normalisation to those of windows (B, T, C), B at least 2.

        Training leaves behind an average over weights that were still on the move.
        """
        norms = [part for part in self.modules() if isinstance(part, nn.BatchNorm1d)]
        for norm in norms:
            usual, norm.momentum = norm.momentum, 1.0
            norm.train()
        self(x)
        for norm in norms:
            norm.momentum = usual
            norm.eval()


@register(
    Card(
        title="CutAddPaste: Time Series Anomaly Detection by Exploiting Abnormal Knowledge",
        authors="R. Wang, C. Liu, X. Mou, K. Gao, X. Guo, P. Liu, T. Wo, X. Liu",
        venue="KDD",
        year=2024,
        family=Family.AUTOENCODER,
        kinds=(Kind.SERIES,),
        summary="A classifier that tells windows from those with a sloped stretch of another time pasted over them.",
        tags=("synthesis", "self-supervised", "classifier", "convolution"),
    )
)
@dataclass(eq=False, repr=False)
class CutAddPasteDetector(StridedDetector):
    """Train a classifier to tell normal windows from those with a sloped stretch of another pasted in, and score by it.

    In each update every window gets a counterpart: a stretch is cut from another window at a random place, some of its
    channels get a slope of either sign, and it is pasted at another random place
    (:class:`~genad.synthesis.CutAddPaste`; the normal windows are never written to). A network of three convolutions
    learns by cross-entropy which of the two it sees. It is no one-class model: what an anomaly may look like is told
    to it. A window is scored by the softmax probability of the anomalous class, in (0, 1), a step by the mean over the
    windows scored that hold it.

    The weights are chosen by made-up anomalies alone. Windows of the last 15 % of the training steps, which share no
    step with others, and pasted versions of them are looked at every 20 updates, and the weights with the least
    cross-entropy on them are kept. A series too short to spare them keeps the last weights. The published code chooses
    by the labels of the test set.

    The method restores nothing. For the restored window the nearest of 500 normal windows stands in, and the map is
    the squared difference from it: it shows where a window is unlike normal ones, not what the classifier looked at.

    **When to use.** Series with a rhythm, or with channels that belong together, long enough for hundreds of windows
    that do not overlap; anomalies of shape and order whose values are all usual ones.

    **When it fails.** Nothing tells the classifier about values it never saw: far out of the range of training it says
    anything, and may call a gross fault normal. On the SMD machine 1-6, where 85 % of the normal test steps are beyond
    five deviations in some channel and all of the anomalous ones, its AUROC is 0.144. In a short or noisy series pastes
    cannot be told from normal stretches, and it learns its windows by heart: normal windows it has not met, of the SKAB
    recordings above all, then score near 1, which the scores of held-out steps (``calibration_scores_``) show. A slope
    that is right for one kind of data is wrong for another: the paper has 0.01 to 1. On two recordings of each of seven
    sets, one seed, AUROC / AP / VUS-PR are 0.747 / 0.503 / 0.533 on average, those of PCA of windows 0.803 / 0.611 /
    0.606; in AUROC it is ahead on SMAP and MSL (0.782, 0.609) and NAB (0.616, 0.553), and furthest behind on SMD
    (0.469, 0.861) and SKAB (0.656, 0.945).

    Window, slope and the choice of weights were settled by made-up anomalies of six kinds in held-out normal steps of
    ten recordings, without labels. So was a score that rises with what lies out of range: it helped on four of the ten
    and not on the whole, and was left out. The labelled figures of three settings were seen on the way: 0.749 / 0.495 /
    0.559 with windows of 64 steps, a slope of 0.01, 400 updates and no choice of weights; 0.775 / 0.510 / 0.580 with a
    slope of 0.1; and 0.765 / 0.528 / 0.564 with windows of 32 and a choice of weights as well.

    Parameters
    ----------
    trend : float
        Largest slope, in standard deviations a step, at least 0.
    cut : int, optional
        Fewest steps of a stretch, at least 1 and at most a window; lengths are uniform up to the window, and shorter
        ones raised to this. 10, or a third of a window of less than 30 steps, when absent.
    dropout : float
        Share of the values dropped behind the first convolution in training, in [0, 1).

    Notes
    -----
    The paper has windows of 32 or 64 steps laid every 16, 100 to 300 epochs of a learning rate of 3e-4, and slopes on a
    few of the channels; here it is on each by the toss of a coin, on one at least.

    Examples
    --------
    >>> import numpy as np
    >>> from genad import Training
    >>> rng = np.random.default_rng(0)
    >>> series = np.sin(np.arange(1500) / 4) + 0.05 * rng.normal(size=1500)
    >>> detector = CutAddPasteDetector(training=Training(updates=120)).fit(series[:1200])
    >>> series[1400:1420] = series[1407:1427].copy()
    >>> scores = detector.anomaly_score(series)
    >>> bool(scores[1400:1420].mean() > np.quantile(scores[:1200], 0.99))
    True

    References
    ----------
    Wang, Liu, Mou, Gao, Guo, Liu, Wo and Liu (2024), CutAddPaste: Time series anomaly detection by exploiting abnormal
    knowledge, KDD.
    """

    trend: float = 0.1
    cut: int | None = None
    dropout: float = 0.45

    default_window: ClassVar[int] = 32
    # Windows that share three quarters of their steps, as in the paper's setting for the UCR archive.
    overlap = 4
    # Its normalisation notes statistics of the batches, which torch.vmap cannot do.
    stackable = False
    defaults = Training(epochs=10, min_updates=500, max_updates=700, batch_size=64, lr=1e-3, weight_decay=5e-4)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_number(self, "trend", "[0, inf)")
        check_number(self, "dropout", "[0, 1)")
        if self.cut is not None:
            check_whole(self, "cut")
            if self.window is not None and self.cut > self.window:
                raise InputError(f"cut: {self.cut} was given; use at most window={self.window}.")

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """Make the classifier."""
        return PasteClassifier(shape, float(self.dropout))

    def pasted(self, batch: Batch) -> Tensor:
        """Return an anomalous version of every window of a batch, with a stretch of another one of them.

        What was missing in a window stays so: the holes must not tell one class from the other.
        """
        steps = batch.x.shape[1]
        cut = max(1, min(_CUT, int(_CUT_SHARE * steps))) if self.cut is None else min(int(self.cut), steps)
        maker = CutAddPaste(window=steps, cut=cut, trend=float(self.trend))
        generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
        return batch.keep_observed(maker.apply(batch.x, generator)[0])

    def loss(self, net: Any, batch: Batch) -> Tensor:
        """Return the cross-entropy of telling the windows from as many pasted ones."""
        return _cross_entropy(net(torch.cat([batch.x, self.pasted(batch)])))

    def optimise(self, net: Any, samples: Samples) -> TrainingReport:
        """Train on all windows but the last, by which the best weights are chosen."""
        rest, apart = _apart(samples)
        self._exam: Batch | None = None
        if apart is not None:
            few = everything(apart, net.bank.device, _EXAMINED)
            self._exam = Batch(torch.cat([few.x, self.pasted(few)]))
            net.best = parameters_to_vector(net.parameters()).detach()
        try:
            return super().optimise(net, rest)
        finally:
            self._exam = None

    def after_step(self, net: Any, batch: Batch) -> None:  # noqa: ARG002 - looks at the weights alone
        """Keep the weights, every few updates, if none before told pasted windows kept apart as well."""
        net.steps += 1
        if self._exam is not None and int(net.steps) % _EVERY == 0:
            net.eval()
            loss = self._examined(net)
            if loss < net.least:
                net.least.copy_(loss)
                net.best.copy_(parameters_to_vector(net.parameters()).detach())
            net.train()

    @torch.no_grad()
    def _examined(self, net: Any) -> Tensor:
        assert self._exam is not None  # noqa: S101 - asked for by the caller
        return _cross_entropy(net(self._exam.x))

    def finish(self, net: Any, samples: Samples) -> None:
        """Take the best weights, settle the normalisation, and keep normal windows to restore from."""
        few = everything(samples, net.bank.device, _SETTLING)
        both = torch.cat([few.x, self.pasted(few)])
        net.settle(both)
        if self._exam is not None:
            loss = self._examined(net)
            if net.least < loss:
                sizes = [part.numel() for part in net.parameters()]
                for part, values in zip(net.parameters(), net.best.split(sizes), strict=True):
                    part.copy_(values.view_as(part))
                net.settle(both)
            net.least.copy_(torch.minimum(loss, net.least))
            net.best = net.best[:0].clone()
        net.bank = everything(samples, net.bank.device, _BANK).x.flatten(1).clone()

    def infer(self, net: Any, batch: Batch, want: frozenset[Want]) -> Inference:
        """Score windows by the probability of the anomalous class; the nearest normal window is the restored one."""
        # In double precision near-certain windows still differ.
        score = net(batch.x).double().softmax(1)[:, 1]
        if not want:
            return Inference(score)
        restored = nearest_kept(batch, net.bank)
        return Inference.of(batch, want, score, (batch.x - restored).square(), restored)


def _cross_entropy(logits: Tensor) -> Tensor:
    """Return the mean cross-entropy of logits (2 B, 2), the first half of them those of normal windows."""
    truth = torch.arange(len(logits), device=logits.device) >= len(logits) // 2
    return F.cross_entropy(logits, truth.long())


def _apart(samples: Samples) -> tuple[Samples, Samples | None]:
    """Split off the windows of the last steps, which share no step with others; none of a short series."""
    windows = as_windows(samples)
    starts = windows.starts
    begin, end = int(starts.min()), int(starts.max()) + windows.length
    cut = end - max(int(_SHARE * (end - begin)), windows.length)
    rest, last = starts + windows.length <= cut, starts >= cut
    if int(rest.sum()) < len(starts) / 2:
        return samples, None
    return replace(windows, starts=starts[rest]), replace(windows, starts=starts[last])
