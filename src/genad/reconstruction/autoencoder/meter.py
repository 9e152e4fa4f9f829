"""METER: a static autoencoder, a hypernetwork that shifts its weights, and a judge of when to use which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from genad.core.inference import Inference, Want
from genad.core.parameters import check_flag, check_number, check_whole
from genad.core.registry import Card, Family, register
from genad.core.runtime import isolated_rng
from genad.core.stream import StreamDetector
from genad.core.training import Phase, Training
from genad.data.kinds import Kind
from genad.data.samples import Batch, Samples, iterate
from genad.errors import InputError
from genad.nn import FIFOMemory, mlp
from genad.nn.evidential import DirichletHead, evidential_loss, uncertainties
from genad.nn.hypernetwork import WeightShift, run_shifted

# Noise on the rows that the static autoencoder restores, in standard deviations.
_NOISE = 0.001
# Share of the training after which the static part stands still, and up to which all rows teach the judge.
_STATIC, _WARM = 1 / 3, 0.4
# Rows of a stream that are scored at a time: always as many, so that no score depends on how the stream was cut.
_ROWS = 64
# Updates of the dynamic part in a retraining for each of the static part, and the length of a step.
_DYNAMIC, _RATE = 2.5, 0.01
# Weight of what the stream shows, in the limit of uncertainty and in the reach of the judge, after a retraining.
_FORGET = 0.5


class METERNet(nn.Module):
    """The static autoencoder, the hypernetworks, the judge, and what is remembered of the stream.

    Parameters
    ----------
    dim : int
        Features of a row.
    hidden : int
        Width of the autoencoder's hidden layers; its code has ``2 dim``.
    hyper : int
        Width of the hypernetworks' hidden layers.
    window : int
        Rows remembered.

    Attributes
    ----------
    recent, observed : FIFOMemory
        The last rows, and which of their values were there.
    flags : Tensor of shape (k,)
        Whether the rows since the last retraining were uncertain; at most ``window`` of them.
    limit, total, count : Tensor
        Uncertainty from which a row is uncertain; sum and number of uncertainties since the last retraining.
    reach : Tensor
        Largest mean squared error of the static autoencoder on rows it was trained on.
    retrained : Tensor
        Retrainings so far.
    """

    flags: Tensor
    limit: Tensor
    total: Tensor
    count: Tensor
    reach: Tensor
    retrained: Tensor

    def __init__(self, dim: int, hidden: int, hyper: int, window: int) -> None:
        super().__init__()
        encode = mlp([dim, hidden, hidden, 2 * dim], "leaky_relu")
        decode = mlp([2 * dim, hidden, hidden, dim], "leaky_relu")
        self.static = nn.ModuleList([encode, decode])
        self.shift = nn.ModuleList([WeightShift(dim, part, (hyper, hyper)) for part in (encode, decode)])
        self.judge = nn.Sequential(nn.Linear(dim, 2 * dim), nn.ReLU(), DirichletHead(2 * dim, 2))
        self.recent, self.observed = FIFOMemory(window, dim), FIFOMemory(window, dim)
        self.register_buffer("flags", torch.zeros(0))
        self.register_buffer("limit", torch.zeros((), dtype=torch.float64))
        self.register_buffer("total", torch.zeros((), dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))
        self.register_buffer("reach", torch.tensor(float("inf")))
        self.register_buffer("retrained", torch.zeros((), dtype=torch.long))

    def forward(self, x: Tensor) -> Tensor:
        """Restore rows by the static autoencoder."""
        for part in self.static:
            x = part(x)
        return x

    def dynamic(self, x: Tensor) -> Tensor:
        """Restore rows by the autoencoder whose weights are shifted for each row."""
        out = x
        for part, shift in zip(self.static, self.shift, strict=True):
            assert isinstance(part, nn.Sequential)  # noqa: S101 - made by mlp
            out = run_shifted(part, out, shift(x))
        return out

    def concentrations(self, batch: Batch, static: Tensor) -> Tensor:
        """Return what the judge makes of rows and their static restorations, its evidence fading beyond its reach."""
        alpha: Tensor = self.judge(static)
        error = batch.sample_mean((static - batch.x).square())
        return 1.0 + (alpha - 1.0) * (self.reach / error.clamp_min(1e-12)).clamp_max(1.0)[:, None]

    def remember(self, batch: Batch) -> None:
        """Put rows into the memory."""
        self.recent.push(batch.x)
        self.observed.push(torch.ones_like(batch.x) if batch.mask is None else batch.mask.to(batch.x))

    def remembered(self) -> Batch:
        """Return the rows in memory."""
        return Batch(self.recent.ordered().clone(), self.observed.ordered() > 0)


@register(
    Card(
        title="METER: a dynamic concept adaptation framework for online anomaly detection",
        authors="Zhu, Cai, Deng, Ooi, Zhang",
        venue="PVLDB",
        year=2023,
        family=Family.AUTOENCODER,
        kinds=(Kind.TABLE,),
        row="1.1.1-17",
        summary="An autoencoder whose weights a hypernetwork shifts for rows of a new concept, retrained under drift.",
        tags=("stream", "hypernetwork", "evidential", "drift", "online"),
    )
)
@dataclass(eq=False, repr=False)
class METER(StreamDetector):
    """Restore familiar rows by a fixed autoencoder, unfamiliar ones by weights made for them, and retrain under drift.

    A static autoencoder learns the central concept of the prefix and is frozen. Two hypernetworks then read a row and
    return a shift of all weights of encoder and decoder; the shifted autoencoder is the dynamic one. A judge, with the
    static restoration before it, gives evidence for "the static one will do" and "it will not": the concentrations of
    a Dirichlet distribution. It learns from pseudo-labels, the rows with the ``pseudo`` largest static errors. A row
    goes to the dynamic autoencoder when the judge finds it is one of those, or does not know, that is when the
    distributional uncertainty ``H[E p] - E[H p]`` exceeds ``switch``. The score is the mean absolute difference
    between the row and what was restored, in standard deviations.

    In a stream, a row is uncertain when its distributional uncertainty exceeds any of the prefix. When more than
    ``drifting`` of the last ``recent`` rows were, all parts are trained on from where they are, on these rows; the
    limit then moves half of the way to the mean uncertainty of the rows since the last retraining.

    Four things differ from the authors' program: static weights are not touched by the second stage; hypernetworks
    are trained by row and not by the mean of a batch; the score is a mean over features and not their sum, so that
    missing ones do not count; and evidence is divided by how many times the static error exceeds any of the prefix,
    because the evidence for "the static one will do" otherwise grows for rows far from all it was trained on.

    **When to use.** Streams whose normal rows change from one regime to others that resemble it.

    **When it fails.** Nothing keeps anomalies out of a retraining, so a burst of more than ``drifting`` of them becomes
    normal. One retraining on ``recent`` rows does not make good what a whole prefix taught, and a small drift within
    the reach of the prefix starts none. In a trial on three ADBench tables, one-class, one seed, AUROC was 0.874 on
    cardio, 0.956 on ionosphere and 0.914 on thyroid; the residual of principal components has 0.826, 0.958 and 0.865,
    the static autoencoder alone 0.862, 0.956 and 0.915. In one simulated stream of 8 features that jumps to another
    regime, AUROC after the jump was 0.86 with retraining and 0.70 without, where before it was 1; MemStream, which such
    a jump locks out, had 0.54. A retraining takes about half a second, a row without one 20 microseconds. On 14 ADBench
    tables, three seeds, the mean AUROC / AP is 0.914 / 0.731, where ``ppca`` has 0.919 / 0.759. In one seed its AUROC
    is furthest behind on mammography (0.77 against 0.88), wine (0.88, 0.98) and cardio (0.87, 0.94).

    Parameters
    ----------
    hidden : int
        Width of the autoencoder's hidden layers, at least 1.
    hyper : int
        Width of the hypernetworks' hidden layers, at least 1.
    evidence : float
        Weight of the judge's loss, at least 0.
    pseudo : float
        Share of rows whose static error counts as large, in (0, 1).
    spare : float
        Share of rows that are left out of the second stage for the judge's data uncertainty, in [0, 1).
    switch : float
        Distributional uncertainty above which a row goes to the dynamic autoencoder, in nats, at least 0.
    recent : int
        Rows looked at for drift and trained on under drift, at least 2.
    drifting : int
        Uncertain rows among them that are no drift yet, below ``recent``.
    retrain : int
        Updates of the static part in a retraining, at least 1; the others get 2.5 times as many.
    update : bool
        Whether the stream is learnt from at all.

    Examples
    --------
    >>> import numpy as np
    >>> from genad import Training
    >>> rng = np.random.default_rng(0)
    >>> rows = rng.normal(size=(800, 2)) @ rng.normal(size=(2, 5)) + 0.1 * rng.normal(size=(800, 5))
    >>> detector = METER(training=Training(updates=300)).fit(rows[:500])
    >>> rows[700] += [3, -3, 3, -3, 3]
    >>> found = detector.detect_stream(rows[500:])
    >>> int(found.scores.argmax()), bool(found.is_anomaly[200])
    (200, True)

    References
    ----------
    Zhu, Cai, Deng, Ooi and Zhang (2023), METER: a dynamic concept adaptation framework for online anomaly detection,
    PVLDB 17(4).
    Sensoy, Kaplan and Kandemir (2018), Evidential deep learning to quantify classification uncertainty, NeurIPS.
    """

    hidden: int = 10
    hyper: int = 100
    evidence: float = 0.3
    pseudo: float = 0.05
    spare: float = 0.1
    switch: float = 0.1
    recent: int = 50
    drifting: int = 10
    retrain: int = 60
    update: bool = True

    defaults = Training(epochs=30, min_updates=900, max_updates=1500, batch_size=128, lr=1e-2)
    takes_backbone = False

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_whole(self, "hidden", "hyper", "retrain")
        check_whole(self, "recent", low=2)
        check_whole(self, "drifting", low=0)
        if self.drifting >= self.recent:
            raise InputError(f"drifting: {self.drifting!r} was given; use fewer than recent={self.recent} rows.")
        check_number(self, "evidence", "[0, inf)")
        check_number(self, "pseudo", "(0, 1)")
        check_number(self, "spare", "[0, 1)")
        check_number(self, "switch", "[0, inf)")
        check_flag(self, "update")

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """Make all parts and the empty memory."""
        return METERNet(shape[0], self.hidden, self.hyper, self.recent)

    def phases(self, net: nn.Module) -> Sequence[Phase]:  # noqa: ARG002 - the same for every network
        """Train the static part, then freeze it and train the others, with the most doubtful rows left out at last."""
        others = ("shift", "judge")
        return [
            Phase("static", self.static_loss, modules=("static",), stop=_STATIC),
            Phase("warm", self.dynamic_loss, modules=others, start=_STATIC, stop=_WARM),
            Phase("dynamic", self.spared_loss, modules=others, start=_WARM),
        ]

    def static_loss(self, net: Any, batch: Batch) -> Tensor:
        """Return the mean squared error of the static autoencoder on slightly noisy rows."""
        noisy = batch.keep_observed(batch.x + _NOISE * torch.randn_like(batch.x))
        return batch.sample_mean((net(noisy) - batch.x).square()).mean()

    def dynamic_loss(self, net: Any, batch: Batch) -> Tensor:
        """Return the squared error of the dynamic autoencoder plus the judge's loss on pseudo-labels."""
        return self._second_stage(net, batch, 0.0)

    def spared_loss(self, net: Any, batch: Batch) -> Tensor:
        """Return :meth:`dynamic_loss` without the rows whose class the data leave most open."""
        return self._second_stage(net, batch, self.spare)

    def _second_stage(self, net: Any, batch: Batch, spare: float) -> Tensor:
        with torch.no_grad():
            static = net(batch.x)
            error = batch.sample_mean((static - batch.x).square())
            large = (error > torch.quantile(error, 1.0 - self.pseudo)).to(error.dtype)
        alpha = net.judge(static)
        loss = batch.sample_mean((net.dynamic(batch.x) - batch.x).square())
        loss = loss + self.evidence * evidential_loss(alpha, torch.stack([1.0 - large, large], 1))
        out = int(spare * len(loss))
        if out:
            kept = uncertainties(alpha.detach())[0].topk(len(loss) - out, largest=False).indices
            loss = loss[kept]
        return loss.mean()

    def finish(self, net: Any, samples: Samples) -> None:
        """Take the limit of uncertainty from the prefix, and remember its last rows."""
        batches = [batch for _, batch in iterate(samples, 2048)]
        net.reach.copy_(torch.stack([self._largest(net, batch) for batch in batches]).max())
        net.limit.copy_(torch.stack([self._judged(net, batch)[2].max() for batch in batches]).max())
        n = len(samples)
        net.remember(samples.batch(torch.arange(max(0, n - self.recent), n, device=self._device)))

    @staticmethod
    def _largest(net: Any, batch: Batch) -> Tensor:
        return batch.sample_mean((net(batch.x) - batch.x).square()).max()

    def _judged(self, net: Any, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return what each row is restored to, its score, and its distributional uncertainty."""
        static = net(batch.x)
        alpha = net.concentrations(batch, static)
        unknown = uncertainties(alpha)[1]
        static_will_do = (alpha[:, 0] >= alpha[:, 1]) & (unknown <= self.switch)
        restored = torch.where(static_will_do[:, None], static, net.dynamic(batch.x))
        return restored, batch.sample_mean((batch.x - restored).abs()), unknown

    def infer(self, net: Any, batch: Batch, want: frozenset[Want]) -> Inference:
        """Score rows by the autoencoders as they stand."""
        restored, score, _ = self._judged(net, batch)
        if not want:
            return Inference(score)
        return Inference(score, batch.keep_observed((batch.x - restored).abs()), restored)

    def stream(self, net: Any, batch: Batch) -> Tensor:
        """Score each row by the autoencoders as the rows before it left them, then retrain them under drift."""
        if not self.update:
            return self.score_batch(net, batch)
        scores = torch.empty(len(batch), dtype=torch.float64)
        at = 0
        while at < len(batch):
            block = torch.arange(at, at + _ROWS, device=batch.x.device).clamp_max(len(batch) - 1)
            rows = Batch(batch.x[block], None if batch.mask is None else batch.mask[block])
            _, score, unknown = self._judged(net, rows)
            count = min(_ROWS, len(batch) - at)
            flags = torch.cat([net.flags, (unknown[:count].double() > net.limit).to(net.flags)])
            end = self._drift(flags, len(net.flags))
            taken = count if end is None else end
            scores[at : at + taken] = score[:taken].double().cpu()
            mask = None if rows.mask is None else rows.mask[:taken]
            net.remember(Batch(rows.x[:taken], mask))
            net.total.add_(unknown[:taken].double().sum())
            net.count.add_(taken)
            net.flags = flags[-self.recent :]
            if end is not None:
                self._retrain(net)
            at += taken
        return scores

    def _drift(self, flags: Tensor, old: int) -> int | None:
        """Return after how many of the new rows there is drift, None if after none of them."""
        if len(flags) < self.recent:
            return None
        running = flags.unfold(0, self.recent, 1).sum(1)
        # Windows that end before the first new row were looked at when they were new.
        ends = torch.arange(self.recent, len(flags) + 1, device=flags.device)
        drifts = ends[(running > self.drifting) & (ends > old)]
        return int(drifts[0]) - old if len(drifts) else None

    def _retrain(self, net: Any) -> None:
        """Train all parts on the rows remembered, from where they are, and move the limit."""
        rows = net.remembered()
        net.retrained.add_(1)
        seed = self.seed_ + int(net.retrained)
        stages = (
            (self.static_loss, net.static, self.retrain),
            (self.spared_loss, nn.ModuleList([net.shift, net.judge]), int(_DYNAMIC * self.retrain)),
        )
        with isolated_rng(seed, self._device), torch.inference_mode(mode=False), torch.enable_grad():
            rows = Batch(rows.x.clone(), None if rows.mask is None else rows.mask.clone())
            for loss, part, updates in stages:
                part.requires_grad_()
                optimizer = torch.optim.Adam(part.parameters(), lr=_RATE)
                for _ in range(updates):
                    optimizer.zero_grad()
                    loss(net, rows).backward()
                    optimizer.step()
                part.requires_grad_(requires_grad=False)
            net.zero_grad()
        net.reach.mul_(1.0 - _FORGET).add_(_FORGET * self._largest(net, rows))
        net.limit.mul_(1.0 - _FORGET).add_(_FORGET * net.total / net.count)
        net.total.zero_()
        net.count.zero_()
        net.flags = net.flags[:0]
