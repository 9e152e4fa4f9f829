"""EncDec-AD: a window read forwards and written backwards by LSTMs, and a Gaussian on the errors of its steps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from genad.core.inference import Inference, Want
from genad.core.parameters import check_flag, check_number, check_whole
from genad.core.registry import Card, Family, register
from genad.core.training import Training
from genad.data.kinds import Kind
from genad.data.samples import Batch, Samples
from genad.reconstruction.forecasting.errors import ErrorGaussian, some_windows
from genad.reconstruction.strided import StridedDetector


class EncDecNet(ErrorGaussian):
    """An LSTM that reads a window, one that writes it backwards from the state the first ends in, and a Gaussian.

    Parameters
    ----------
    channels : int
        Channels C of a window.
    hidden : int
        Width of both LSTMs.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__(channels)
        self.encoder = nn.LSTM(channels, hidden, batch_first=True)
        self.decoder = nn.LSTM(channels, hidden, batch_first=True)
        self.output = nn.Linear(hidden, channels)

    def forced(self, x: Tensor) -> Tensor:
        """Reconstruct windows (B, T, C); the decoder reads the true step after the one it writes."""
        _, state = self.encoder(x)
        # The last step is written from the state alone, each step before it with the true one after it at hand.
        hidden, _ = self.decoder(x[:, 1:].flip(1), state)
        backwards = torch.cat([state[0][-1].unsqueeze(1), hidden], 1)
        written: Tensor = self.output(backwards).flip(1)
        return written

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct windows (B, T, C); the decoder reads what it wrote itself."""
        _, state = self.encoder(x)
        step = self.output(state[0][-1]).unsqueeze(1)
        steps = [step]
        for _ in range(x.shape[1] - 1):
            hidden, state = self.decoder(step, state)
            step = self.output(hidden)
            steps.append(step)
        return torch.cat(steps[::-1], 1)


@register(
    Card(
        title="LSTM-based encoder-decoder for multi-sensor anomaly detection",
        authors="Malhotra, Ramakrishnan, Anand, Vig, Agarwal, Shroff",
        venue="ICML Anomaly Detection Workshop",
        year=2016,
        family=Family.RECURRENT,
        kinds=(Kind.SERIES,),
        summary="Reads a window forwards and writes it backwards; the errors of a step are judged by a Gaussian.",
        tags=("recurrent", "reconstruction", "gaussian"),
    ),
    name="enc_dec_ad",
)
@dataclass(eq=False, repr=False)
class EncDecAD(StridedDetector):
    """Reconstruct windows through the last state of an LSTM, and score the errors of a step by a Gaussian.

    One LSTM reads the window. A second one starts from the state in which the first ended and writes the window from
    its last step to its first: the last step from that state alone, every other from the step after it, as it wrote
    that itself, so that nothing of the window reaches the reconstruction but through the state. In the paper the
    decoder reads the true step in training (``forcing=True``), which is twice as fast. The vector e of errors of a
    step, one a channel, is judged by a Gaussian of the errors on training windows:

        a = (e - mu)' Sigma^-1 (e - mu) / channels

    which is 1 on average over the training windows; the scores of a step by different windows are averaged. The map
    shares the score of a step out among its channels by their part of the squared errors after whitening.

    The paper chooses its threshold by the best F-beta with beta below 1 on a part with known anomalies:
    ``threshold=BestF(beta=0.1)`` and labels in ``fit``. It stops training by the error on a second normal part:
    ``Training(patience=...)``.

    **When to use.** Machines whose course cannot be forecast, because people operate them, but whose windows are
    alike nevertheless. :class:`~genad.LSTMAD` is the forecasting sibling.

    **When it fails.** The state is a handful of numbers for a whole window, so long or irregular windows have large
    errors throughout. A decoder that was only ever fed the truth drifts on its own output: on one recording each of
    UCR, SKAB, SMD and ASD, 400 updates with ``forcing`` left a mean square error on the training part of 0.023, 0.690,
    0.590 and 0.397, without it 0.015, 0.666, 0.487 and 0.265, which is why it is off. On two recordings of each of
    seven sets AUROC / AP / VUS-PR are 0.740 / 0.490 / 0.499 on average, those of PCA of windows 0.803 / 0.611 / 0.606;
    in AUROC it is furthest behind on SKAB (0.606, 0.945) and SMAP and MSL (0.363, 0.609).

    Parameters
    ----------
    hidden : int
        Width of the LSTMs, the c of the paper, at least 1.
    shrinkage : float
        Share of the covariance that is replaced by a multiple of the identity with the same trace, in (0, 1].
    forcing : bool
        Whether the decoder reads the true steps in training, as in the paper, instead of its own output.

    Examples
    --------
    >>> import numpy as np
    >>> from genad import Training
    >>> t = np.arange(900)
    >>> series = np.c_[np.sin(t / 5), np.cos(t / 5)]
    >>> detector = EncDecAD(training=Training(updates=120)).fit(series[:700])
    >>> series[800:805] *= -1
    >>> scores = detector.anomaly_score(series)
    >>> bool(scores[800:805].mean() > np.quantile(scores[:700], 0.99))
    True

    References
    ----------
    Malhotra, Ramakrishnan, Anand, Vig, Agarwal and Shroff (2016), LSTM-based encoder-decoder for multi-sensor anomaly
    detection, arXiv 1607.00148.
    """

    hidden: int = 32
    shrinkage: float = field(default=0.5, kw_only=True)
    forcing: bool = field(default=False, kw_only=True)

    default_window: ClassVar[int] = 32
    stackable = False
    defaults = Training(updates=400, batch_size=64, lr=5e-3, clip=5.0)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_whole(self, "hidden")
        check_number(self, "shrinkage", "(0, 1]")
        check_flag(self, "forcing")

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """Make both LSTMs."""
        return EncDecNet(shape[1], self.hidden)

    def loss(self, net: Any, batch: Batch) -> Tensor:
        """Return the mean squared error of the reconstruction."""
        written = net.forced(batch.x) if self.forcing else net(batch.x)
        return batch.sample_mean((batch.x - written).square()).mean()

    def finish(self, net: Any, samples: Samples) -> None:
        """Fit the Gaussian to the errors of the steps of training windows."""
        batch = some_windows(samples, self._device)
        errors = batch.x - net(batch.x)
        seen = slice(None) if batch.mask is None else batch.mask.all(2)
        chosen = errors[seen].reshape(-1, errors.shape[2])
        net.settle(chosen if len(chosen) else errors.flatten(0, 1), self.shrinkage)

    def infer(self, net: Any, batch: Batch, want: frozenset[Want]) -> Inference:
        """Score the steps of windows by the Gaussian; missing values have the mean error."""
        written = net(batch.x)
        errors = batch.x - written
        if batch.mask is not None:
            errors = torch.where(batch.mask, errors, net.mean)
        share = net.deviation(errors).square()
        return Inference.of(batch, want, share.sum(2), share, written)
