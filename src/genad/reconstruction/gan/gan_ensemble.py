"""GAN ensemble: generators and critics trained crosswise, and scores averaged over all pairs of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from genad.core.detector import Detector
from genad.core.inference import Inference, Want
from genad.core.parameters import check_whole
from genad.core.registry import Card, Family, register
from genad.core.training import BASE_TRAINING, Loss, Phase, Training
from genad.core.windows import inner_detector
from genad.data.kinds import DENSE
from genad.data.samples import Batch
from genad.errors import InputError
from genad.reconstruction.gan.crossing import Crossable, Crossed
from genad.reconstruction.gan.egbad import EGBAD
from genad.reconstruction.gan.f_ano_gan import FAnoGAN
from genad.reconstruction.gan.ganomaly import GANomaly
from genad.reconstruction.gan.skip_ganomaly import SkipGANomaly

_BASES: dict[str, type[Detector]] = {
    "ganomaly": GANomaly,
    "f_ano_gan": FAnoGAN,
    "egbad": EGBAD,
    "skip_ganomaly": SkipGANomaly,
}


@register(
    Card(
        title="GAN ensemble for anomaly detection",
        authors="Han, Chen, Liu",
        venue="AAAI",
        year=2021,
        family=Family.GAN,
        kinds=DENSE,
        row="1.1.3-09",
        summary="Several generators meet several discriminators; scores are averaged over all pairs.",
        tags=("ensemble", "discriminator", "feature matching"),
    ),
    name="gan_ensemble",
)
@dataclass(eq=False, repr=False)
class GANEnsemble(Detector):
    """Train I generators against J critics crosswise, and average the score of a base method over all I x J pairs.

    These are not I separate networks: every generator meets every critic, so that none can settle on the weakness of
    one opponent. The base says how they meet. With GANomaly and f-AnoGAN each batch trains one pair drawn at random;
    with EGBAD and Skip-GANomaly each critic is trained against the average over all generators, and each generator
    against the average over all critics. A generator is all of a base's network that is not its critic: encoders
    belong to it. Map and restored sample are averages too. With one generator and one critic it is the base
    itself, to the last bit.

    Scores are averaged, not codes: the codes of two generators have no axes in common. (The authors' program for
    GANomaly averages codes.) The critics of f-AnoGAN stand still while encoders are trained, as in f-AnoGAN; in the
    authors' program they move.

    **When to use.** In place of one of its bases, when training twice or three times as long is no matter: results of
    adversarial training vary with the seed, and an average varies less.

    **When it fails.** Where the base does: members of one kind share its blind spots. A score costs J passes of each
    generator where the base looks at the critic, I x J in all. In a trial on three ADBench tables, cardio, ionosphere
    and thyroid, one-class, one seed, AUROC was 0.940, 0.984 and 0.988 with the defaults, where EGBAD alone had 0.885,
    0.983 and 0.975 and principal components (:class:`~genad.PPCA`) 0.945, 0.964 and 0.973; 0.853, 0.932 and 0.933 over
    GANomaly (alone 0.799, 0.916 and 0.879); and 0.946, 0.916 and 0.979 over f-AnoGAN, which alone had 0.956, 0.975 and
    0.968: the 112 rows of ionosphere are few to be shared out between two generators. EGBAD became the base for rows
    with these figures in view. On 14 ADBench tables, three seeds, the mean AUROC / AP is 0.936 / 0.761, where ``ppca``
    has 0.919 / 0.759.

    Parameters
    ----------
    base : {"ganomaly", "f_ano_gan", "egbad", "skip_ganomaly"} or Detector, optional
        The base method, by name or as a detector with parameters of its own; ``"skip_ganomaly"`` takes images only.
        Its ``training`` and ``backbone`` hold where the ensemble is given none. EGBAD for rows and GANomaly for other
        samples when absent, as in the paper.
    generators, critics : int
        How many, I and J, each at least 1; 3 in the paper.
    pairing : {"sample", "all"}, optional
        One random pair a batch, or each against the average of all; as the base says when absent. Where pairs are
        drawn, training is as many times longer as there are generators or critics, whichever are more.

    Examples
    --------
    Two features that lie on a parabola; the second test point is off the curve.

    >>> import numpy as np
    >>> from genad import GANomaly, Training
    >>> t = np.random.default_rng(0).uniform(-1, 1, 600)
    >>> X = np.column_stack([t, t**2])
    >>> detector = GANEnsemble(GANomaly(latent=1), training=Training(updates=200)).fit(X)
    >>> on, off = detector.anomaly_score([[0.5, 0.25], [2.0, -4.0]])
    >>> bool(off > 10 * on)
    True
    >>> detector.net_.met.shape, int(detector.net_.met.sum())
    (torch.Size([2, 2]), 200)

    References
    ----------
    Han, Chen and Liu (2021), GAN ensemble for anomaly detection, AAAI.
    """

    base: str | Detector | None = None
    generators: int = 2
    critics: int = 2
    pairing: Literal["sample", "all"] | None = None

    stackable = False

    def _check_parameters(self) -> None:
        super()._check_parameters()
        base = self.base
        if not (base is None or (base in _BASES if isinstance(base, str) else isinstance(base, Crossable))):
            raise InputError(f"base: {base!r} was given; use one of {', '.join(_BASES)}, a detector of these, or None.")
        check_whole(self, "generators", "critics")
        if self.pairing not in (None, "sample", "all"):
            raise InputError(f"pairing: {self.pairing!r} was given; use 'sample', 'all' or None.")
        if isinstance(base, Detector):
            base._check_parameters()  # noqa: SLF001 - the base speaks through its ensemble

    def _make(self, shape: tuple[int, ...]) -> Any:
        """Return a detector of the base that runs with the ensemble's seed, device and backbone."""
        base = self.base or ("egbad" if len(shape) == 1 else "ganomaly")
        inner = inner_detector(self, _BASES[base]() if isinstance(base, str) else base)
        if inner.backbone is None:
            inner.backbone = self.backbone
        return inner

    @property
    def _known(self) -> Any:
        """The base of a fit; before one, when the shape of the samples is not known, that of rows."""
        base = self.__dict__.get("detector_") or self.base or "egbad"
        return _BASES[base]() if isinstance(base, str) else base

    @property
    def _drawn(self) -> bool:
        """Whether a batch trains one pair."""
        return (self.pairing or self._known.pairing) == "sample"

    @property
    def _training(self) -> Training:
        inner = self._known
        usual = inner.defaults.over(BASE_TRAINING)
        if self._drawn:
            # A network takes part in some batches only, and is to see as many of them as it would alone.
            names = ("epochs", "updates", "min_updates", "max_updates")
            each = {name: getattr(usual, name) for name in names}
            times = max(self.generators, self.critics)
            usual = replace(usual, **{name: times * value for name, value in each.items() if value is not None})
        return (self.training or Training()).over((inner.training or Training()).over(usual))

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """Make as many networks of the base as there are generators or critics, and cross them."""
        self.detector_ = self._make(shape)
        nets = [self.detector_.build(shape) for _ in range(max(self.generators, self.critics))]
        return Crossed(nets, int(self.generators), int(self.critics), self.detector_.critic_side)

    def phases(self, net: Any) -> Sequence[Phase]:
        """Return the phases of the base, over the pairs of a batch."""
        side = self.detector_.critic_side
        return [
            replace(
                phase, loss=partial(self.crossed_loss, loss=phase.loss, critic=set(phase.modules or ()) <= set(side))
            )
            for phase in self.detector_.phases(net.pair(0, 0))
        ]

    def crossed_loss(self, net: Any, batch: Batch, *, loss: Loss, critic: bool) -> Tensor:
        """Return a loss of the base for the pair whose turn it is, or for each network against all its opponents.

        Parameters
        ----------
        net : Crossed
            The networks.
        batch : Batch
            Samples (B, *shape).
        loss : callable
            The base's.
        critic : bool
            Whether it moves critics; otherwise generators.

        Returns
        -------
        Tensor
            A scalar; against all, the sum over those that move of the mean over their opponents.
        """
        if self._drawn:
            return loss(net.pair(*net.turn.tolist()), batch)
        every = torch.stack([loss(net.pair(i, j), batch) for i, j in net.pairs()])
        return every.mean() * net.size[critic]

    def after_step(self, net: Any, batch: Batch) -> None:
        """Let the base do what it does after a step, once a critic, and draw the next pair."""
        pairs = [tuple(net.turn.tolist())] if self._drawn else net.pairs()
        for i, j in pairs:
            if self._drawn or i == 0:
                self.detector_.after_step(net.pair(i, j), batch)
        net.move_on(pairs)

    def infer(self, net: Any, batch: Batch, want: frozenset[Want]) -> Inference:
        """Average the base's scores over all pairs, and its maps and restored samples over the generators."""
        rows, columns = net.size
        scores: list[Tensor] = []
        found: list[Inference] = []
        for i in range(rows):
            found.append(self.detector_.infer(net.pair(i, 0), batch, want))
            scores.append(found[-1].score)
            if self.detector_.critic_scores:
                none: frozenset[Want] = frozenset()
                scores += [self.detector_.infer(net.pair(i, j), batch, none).score for j in range(1, columns)]

        def mean(parts: list[Tensor | None]) -> Tensor | None:
            known = [part for part in parts if part is not None]
            return torch.stack(known).mean(0) if known else None

        return Inference(
            torch.stack(scores).mean(0), mean([one.map for one in found]), mean([one.restored for one in found])
        )
