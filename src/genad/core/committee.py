"""Committees: different detectors on the same samples, their scores made comparable and averaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import nn

from genad.core.detector import Detector
from genad.core.inference import Inference, Want
from genad.core.registry import Card, Family, register
from genad.core.tail import LogLogistic, Tail
from genad.core.training import TrainingReport
from genad.core.windows import check_inner, inner_detector
from genad.data.kinds import DENSE
from genad.data.samples import Batch, Samples, everything
from genad.errors import InputError

# Training samples whose scores say how rare a score is.
_REFERENCE = 4000


class CommitteeNet(nn.Module):
    """The members' networks and the tails of their scores."""

    def __init__(self, members: Sequence[nn.Module], law: type[Tail | LogLogistic] = Tail) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.tails = nn.ModuleList(law() for _ in members)


@dataclass(eq=False, repr=False)
class CommitteeBase(Detector):
    """Base of committees: subclasses say who sits on them, and with what weight."""

    #: How the rarity of a member's score is judged.
    law: ClassVar[type[Tail | LogLogistic]] = Tail

    stackable = False

    def seats(self) -> list[tuple[Detector, float]]:
        """Return the members and their weights; the first also restores."""
        raise NotImplementedError

    def _check_parameters(self) -> None:
        super()._check_parameters()
        for detector, _ in self.seats():
            check_inner("detectors", detector)

    def _prepare(self) -> None:
        seats = self.seats()
        self.members_ = [inner_detector(self, detector) for detector, _ in seats]
        self.weights_ = [float(weight) for _, weight in seats]

    @property
    def grad_at_score(self) -> bool:  # type: ignore[override]
        """Whether some member needs gradients to score."""
        return any(member.grad_at_score for member in self.members_)

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """Build every member's network."""
        return CommitteeNet([member.build(shape) for member in self.members_], self.law)

    def optimise(self, net: Any, samples: Samples) -> TrainingReport:
        """Train the members in turn, then learn how rare their scores are on training samples."""
        whole = TrainingReport(device=self.device_, samples=len(samples))
        reference = everything(samples, torch.device(self.device_), _REFERENCE)
        reference.known = True
        for member, part, tail in zip(self.members_, net.members, net.tails, strict=True):
            report = member.optimise(part, samples)
            with member._scoring():  # noqa: SLF001 - a committee speaks for its members
                tail.fit(member.score_batch(part, member.fill_missing(part, reference)).detach())
            whole.updates += report.updates
            whole.planned += report.planned
            whole.seconds += report.seconds
            whole.history |= {f"{member.name}/{name}": losses for name, losses in report.history.items()}
        whole.parameters = sum(p.numel() for p in net.parameters())
        return whole

    def absorb(self, net: Any, samples: Samples) -> None:
        """Let the members take in the held-out samples."""
        for member, part in zip(self.members_, net.members, strict=True):
            member.absorb(part, samples)

    def infer(self, net: Any, batch: Batch, want: frozenset[Want]) -> Inference:
        """Average the members' -log tail shares; their maps in the same proportion; the first member restores."""
        total = torch.zeros(len(batch), dtype=torch.float64, device=batch.x.device)
        places = torch.zeros_like(batch.x) if "map" in want else None
        restored = None
        for k, (member, weight) in enumerate(zip(self.members_, self.weights_, strict=True)):
            mine = want if k == 0 else want - {"restored"}
            out = member.infer(net.members[k], member.fill_missing(net.members[k], batch), mine)
            rarity = weight / sum(self.weights_) * net.tails[k](out.score.detach())
            total = total + rarity
            if out.map is not None and places is not None:
                parts = out.map.detach().clamp_min(0)
                whole = parts.flatten(1).sum(1).clamp_min(1e-12)
                places = places + parts * (rarity / whole).float().view(-1, *[1] * (parts.ndim - 1))
            restored = out.restored if k == 0 else restored
        return Inference(total, places, restored)


@register(
    Card(
        title="Committee of detectors",
        authors="genad",
        venue="",
        year=2026,
        family=Family.COMMITTEE,
        kinds=DENSE,
        summary="Averages how rare each member finds a sample.",
    )
)
@dataclass(eq=False, repr=False)
class Committee(CommitteeBase):
    """Let different detectors judge the same samples and average how rare each finds them.

    A member's score is turned into the negative logarithm of the share of training samples that score higher, with
    an exponential tail beyond them; these are averaged. No labels are used.

    **When to use.** Members fail on different data and it is not known beforehand which will.

    **When it fails.** A member that is no better than chance drags the others down: an average has no veto. It
    costs as much as its members together.

    Parameters
    ----------
    detectors : tuple of Detector
        Members, of dense samples. The first one also restores.
    weights : tuple of float, optional
        One a member, above 0; equal when absent.

    Examples
    --------
    >>> import numpy as np
    >>> from genad import Autoencoder, Committee, Training, create
    >>> X = np.random.default_rng(0).normal(size=(600, 3))
    >>> members = (Autoencoder(training=Training(updates=50)), create("nearest_memory"))
    >>> committee = Committee(members).fit(X)
    >>> committee.predict([[0.0, 0.0, 0.0], [8.0, 8.0, 8.0]])
    array([ 1, -1])
    """

    detectors: tuple[Detector, ...] = ()
    weights: tuple[float, ...] | None = field(default=None, kw_only=True)

    takes_backbone = False

    def _check_parameters(self) -> None:
        if not self.detectors:
            raise InputError("detectors: none was given; use at least one, for instance (Autoencoder(), VAE()).")
        if self.weights is not None and (
            len(self.weights) != len(self.detectors) or not all(weight > 0 for weight in self.weights)
        ):
            raise InputError(
                f"weights: {self.weights!r} was given for {len(self.detectors)} detectors; give one above 0 for each."
            )
        super()._check_parameters()

    def seats(self) -> list[tuple[Detector, float]]:
        """Return the members and their weights."""
        return list(zip(self.detectors, self.weights or (1.0,) * len(self.detectors), strict=True))
