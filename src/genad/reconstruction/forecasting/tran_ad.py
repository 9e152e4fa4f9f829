"""TranAD: a transformer with two decoders that looks again where its first guess was wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from genad.core.inference import Inference, Want
from genad.core.parameters import check_choice, check_number, check_whole
from genad.core.registry import Card, Family, register
from genad.core.training import Phase, Training
from genad.core.windows import SeriesDetector
from genad.data.kinds import Kind
from genad.data.samples import Batch
from genad.errors import InputError
from genad.nn.transformer import DecoderLayer, encoder_stack, positions

# Outputs stay within this many standard deviations, as the authors' sigmoid keeps them within the range seen.
_BOUND = 4.0
# Focus scores are handed on up to this, in squared standard deviations: more says nothing more about where to look.
_FOCUS = 4.0


class Decoder(nn.Module):
    """One transformer layer over the window, causal, that looks at the encoded window."""

    def __init__(self, channels: int, width: int, heads: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.layer = DecoderLayer(width, heads, inner, dropout)
        self.output = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, channels))

    def forward(self, tokens: Tensor, memory: Tensor) -> Tensor:
        """Return the window (B, T, C) that tokens (B, T, width) and the encoded ones are taken to show."""
        out: Tensor = self.output(self.layer.decode(tokens, memory))
        return _BOUND * torch.tanh(out / _BOUND)


class TranADNet(nn.Module):
    """One encoder, which also reads a focus score for each value, and two decoders.

    Parameters
    ----------
    shape : tuple of int
        Steps T and channels C of a window.
    width, heads, inner : int
        Values of a token, heads, and width of the feed-forward parts.
    dropout : float
        Share of values dropped in training.
    """

    place: Tensor
    rounds: Tensor

    def __init__(self, shape: tuple[int, ...], width: int, heads: int, inner: int, dropout: float) -> None:
        super().__init__()
        steps, channels = shape
        self.encoder = nn.ModuleDict(
            {
                "both": nn.Linear(2 * channels, width),
                "window": nn.Linear(channels, width),
                "layers": encoder_stack(width, heads, 1, inner, dropout),
            }
        )
        self.first = Decoder(channels, width, heads, inner, dropout)
        self.second = Decoder(channels, width, heads, inner, dropout)
        self.register_buffer("place", positions(steps, width))
        self.register_buffer("rounds", torch.zeros(()))

    def forward(self, x: Tensor, observed: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Run both phases on windows (B, T, C).

        Returns
        -------
        tuple of Tensor of shape (B, T, C)
            The guesses O1 and O2 of both decoders without focus, and that of the second with the focus on what the
            first one missed.
        """
        tokens = self.encoder["window"](x) + self.place
        memory = self._encode(x, torch.zeros_like(x))
        one, two = self.first(tokens, memory), self.second(tokens, memory)
        focus = (one - x).square()
        if observed is not None:
            focus = focus * observed
        again = self.second(tokens, self._encode(x, _FOCUS * torch.tanh(focus / _FOCUS)))
        return one, two, again

    def _encode(self, x: Tensor, focus: Tensor) -> Tensor:
        result: Tensor = self.encoder["layers"](self.encoder["both"](torch.cat([x, focus], 2)) + self.place)
        return result


@register(
    Card(
        title="TranAD: Deep transformer networks for anomaly detection in multivariate time series data",
        authors="Tuli, Casale, Jennings",
        venue="VLDB",
        year=2022,
        family=Family.AUTOENCODER,
        kinds=(Kind.SERIES,),
        summary="A transformer whose second decoder is told where the first one erred.",
        tags=("transformer", "self-conditioning", "adversarial", "meta-learning"),
    ),
    name="tranad",
)
@dataclass(eq=False, repr=False)
class TranAD(SeriesDetector):
    """Reconstruct short windows twice, the second time with a focus on what the first one missed.

    One encoder reads the window W beside a focus score for each of its values. Two decoders give O1 and O2 with no
    focus; then the squared error of O1 becomes the focus, and the second decoder gives O2'. Both are trained against
    each other, encoder and first decoder by the first loss, encoder and second decoder by the second:

        w ||O1 - W|| + (1 - w) ||O2' - W||,        w ||O2 - W|| - (1 - w) ||O2' - W||

    so that the second exaggerates what the first gets wrong. ``w`` falls from 1 by the factor ``1 / epsilon`` a round
    of 10 updates. Each loss is taken after a trial step of length ``meta_rate`` along its own gradient (first-order
    meta-learning), which finds weights that adapt quickly. A step is scored by the last place of the window that ends
    at it:

        1/2 ||O1 - W||^2 + 1/2 ||O2' - W||^2

    The paper flags by a tail fit, :class:`~genad.PeaksOverThreshold`: give it as ``threshold``. Its published factors
    on that threshold were tuned by hand for each data set and have no place here.

    With ``objective="code"`` and ``score="code"`` it does what the authors' program does, which differs from their
    paper: no minus sign, no meta-learning, ``w = 1 / n`` in round n, and O2' alone in the score.

    **When to use.** Many channels and short-lived anomalies that break the relation between channels or to the last few
    steps, where training must be quick.

    **When it fails.** The window is short: what lasts longer, or is odd only by its time, is not seen. The last step is
    among those the network reads, so that a wide one learns to copy it; levels beyond 4 standard deviations cannot be
    reconstructed, which is what finds the grossest ones. In a trial on the SKAB recording other/10 its AUROC / AP was
    0.886 / 0.942, that of PCA of windows 0.924 / 0.963. A step of training passes the window through five transformer
    layers, twice for each side: meta-learning doubles the time of a fit, and ``meta_rate=0`` saves it. On two
    recordings of each of seven sets AUROC / AP / VUS-PR are 0.700 / 0.448 / 0.479 on average, those of PCA of windows
    0.803 / 0.611 / 0.606; in AUROC it is furthest behind on UCR (0.557, 1.000) and SKAB (0.639, 0.945).

    Parameters
    ----------
    width : int
        Values of a token, a multiple of ``heads``. (The authors' two per channel fail for many channels.)
    heads : int
        Attention heads, at least 1. (The authors' one per channel fail for a prime number of them.)
    inner : int
        Width of the feed-forward parts, at least 1.
    dropout : float
        Share of values dropped in training, in [0, 1).
    epsilon : float
        Factor by which the first terms lose weight a round, at least 1.
    meta_rate : float
        Length of the trial step, at least 0; 0 leaves meta-learning out.
    objective : {"paper", "code"}
        Losses of the paper, or of the authors' program.
    score : {"paper", "code"}
        Score of the paper, or of the authors' program.

    Examples
    --------
    >>> import numpy as np
    >>> from genad import Training
    >>> t = np.arange(900)
    >>> series = np.c_[np.sin(t / 5), np.cos(t / 5)]
    >>> detector = TranAD(training=Training(updates=60)).fit(series[:700])
    >>> series[800:805] += 4
    >>> scores = detector.anomaly_score(series)
    >>> bool(scores[800:805].min() > np.quantile(scores[:700], 0.99))
    True

    References
    ----------
    Tuli, Casale and Jennings (2022), TranAD: Deep transformer networks for anomaly detection in multivariate time
    series data, VLDB.
    Finn, Abbeel and Levine (2017), Model-agnostic meta-learning for fast adaptation of deep networks, ICML.
    """

    width: int = 32
    heads: int = 4
    inner: int = 16
    dropout: float = 0.1
    epsilon: float = 1.02
    meta_rate: float = 0.01
    objective: Literal["paper", "code"] = "paper"
    score: Literal["paper", "code"] = "paper"

    default_window: ClassVar[int] = 10
    fold: ClassVar[Literal["mean", "last"]] = "last"
    stackable = False
    defaults = Training(updates=120, batch_size=64, lr=5e-3, weight_decay=1e-5, clip=1.0)
    takes_backbone = False

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_whole(self, "width", "heads", "inner")
        check_number(self, "dropout", "[0, 1)")
        check_number(self, "epsilon", "[1, inf)")
        check_number(self, "meta_rate", "[0, inf)")
        check_choice(self, "objective", ("paper", "code"))
        check_choice(self, "score", ("paper", "code"))
        if self.width % self.heads:
            raise InputError(f"width: {self.width} was given; use a multiple of heads={self.heads}.")

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """Make encoder and decoders."""
        return TranADNet(shape, self.width, self.heads, self.inner, self.dropout)

    def phases(self, net: nn.Module) -> Sequence[Phase]:  # noqa: ARG002 - the same for every network
        """Return the two sides of the game, or the one loss of the authors' program."""
        if self.objective == "code":
            return [Phase("loss", self.code_loss)]
        return [
            Phase("first", self.first_loss, modules=("encoder", "first")),
            Phase("second", self.second_loss, modules=("encoder", "second")),
        ]

    def after_step(self, net: Any, batch: Batch) -> None:  # noqa: ARG002 - counts only
        """Count the rounds, by which the weights of the losses change."""
        net.rounds += 0.1

    def weight(self, net: Any) -> Tensor:
        """Return the weight of the terms without focus, in (0, 1]."""
        if self.objective == "code":
            result: Tensor = 1.0 / (1.0 + net.rounds.floor())
            return result
        return torch.exp(-math.log(self.epsilon) * net.rounds.floor())

    def first_loss(self, net: Any, batch: Batch) -> Tensor:
        """Return the loss of encoder and first decoder: both guesses are to be right."""
        return self._after_trial(net, batch, ("encoder", "first"), lambda w, one, _, again: w * one + (1 - w) * again)

    def second_loss(self, net: Any, batch: Batch) -> Tensor:
        """Return the loss of encoder and second decoder: right without focus, wrong with it."""
        return self._after_trial(net, batch, ("encoder", "second"), lambda w, _, two, again: w * two - (1 - w) * again)

    def code_loss(self, net: Any, batch: Batch) -> Tensor:
        """Return the loss of the authors' program, on the last step alone."""
        w = self.weight(net)
        one, _, again = (
            batch.keep_observed(part - batch.x)[:, -1].square().mean() for part in net(batch.x, batch.mask)
        )
        return w * one + (1 - w) * again

    def _after_trial(self, net: Any, batch: Batch, parts: tuple[str, ...], combine: Any) -> Tensor:
        def loss(weights: dict[str, Tensor]) -> Tensor:
            outputs = functional_call(net, weights, (batch.x, batch.mask))
            # The norm of the whole window, as in the paper, in root mean squares.
            norms = (batch.sample_mean((out - batch.x).square()).add(1e-8).sqrt().mean() for out in outputs)
            result: Tensor = combine(self.weight(net), *norms)
            return result

        weights = dict(net.named_parameters())
        if not self.meta_rate:
            return loss(weights)
        moved = {name: p for name, p in weights.items() if name.split(".")[0] in parts}
        gradients = torch.autograd.grad(loss(weights), list(moved.values()), allow_unused=True)
        trial = {
            name: p if g is None else p - self.meta_rate * g
            for (name, p), g in zip(moved.items(), gradients, strict=True)
        }
        return loss({**weights, **trial})

    def infer(self, net: Any, batch: Batch, want: frozenset[Want]) -> Inference:
        """Score every step of the windows; only the last ones are kept. The first guess is the restored window."""
        one, _, again = net(batch.x, batch.mask)
        error = (again - batch.x).square()
        if self.score == "paper":
            error = 0.5 * (one - batch.x).square() + 0.5 * error
        restored = again if self.score == "code" else one
        return Inference.of(batch, want, batch.step_mean(error), error, restored)
