"""Directly-follows frequencies: a session with a step that hardly ever comes after the one before is anomalous."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from genad.core.inference import Inference, Want
from genad.core.parameters import check_number
from genad.core.registry import Card, Family, register
from genad.data.kinds import Kind
from genad.data.log.adapter import FIRST_EVENT, PADDING, UNSEEN_EVENT
from genad.data.samples import Batch, Samples, iterate
from genad.representation.logs.session_detector import SessionDetector


class FollowsNet(nn.Module):
    """How often each event comes right after each other, the begin and the end of a session among them, as a buffer.

    Attributes
    ----------
    counts : Tensor of shape (K, K)
        By codes; code 0 stands for the begin as the first of a pair and for the end as the second.
    """

    counts: Tensor

    def __init__(self, codes: int) -> None:
        super().__init__()
        self.register_buffer("counts", torch.zeros(codes, codes))


@register(
    Card(
        title="Workflow Mining: Discovering Process Models from Event Logs",
        authors="van der Aalst, Weijters, Maruster",
        venue="TKDE",
        year=2004,
        family=Family.LINEAR,
        kinds=(Kind.LOG,),
        summary="Count which event directly follows which; scores the rarest step of a session.",
        tags=("log", "process", "sequence", "markov", "baseline"),
    )
)
@dataclass(eq=False, repr=False)
class DirectlyFollows(SessionDetector):
    """Score a session by its rarest step, -log of the share of an event among those that follow the one before it.

    The begin and the end of a session count as events, so that what may come first or last is learnt too. Steps that
    were never seen are as rare as ``smoothing`` of one occurrence, and rarer the better their first event is known.
    The map has the rarity of the step that leads to each event, that to the end with the last one; in the restored
    session an event that was never seen after the one before it is replaced by the most frequent follower.

    **When to use.** As the plain reference of process and sequence detectors: it costs next to nothing, and in a
    strict process it finds every swapped, skipped or repeated event.

    **When it fails.** Whatever needs a longer memory than one event: approvals one too few, loops one round too many,
    two exclusive branches with a common follower; free orders, where many steps are rare.

    Parameters
    ----------
    smoothing : float
        Occurrences that every possible step is given beforehand, above 0.

    Examples
    --------
    >>> sessions = [["order", "ship", "pay"], ["order", "pay", "ship"]] * 300
    >>> detector = DirectlyFollows().fit(sessions)
    >>> detector.anomaly_score([["order", "ship", "pay"], ["ship", "pay"]]).round(1).tolist()
    [0.7, 6.9]
    >>> detector.restore([["ship", "pay"]])
    [['order', 'pay']]

    References
    ----------
    van der Aalst, Weijters and Maruster, Workflow mining: discovering process models from event logs, IEEE TKDE 2004
    (the directly-follows relation).
    """

    smoothing: float = field(default=0.5)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_number(self, "smoothing", "(0, inf)")

    def build(self, shape: tuple[int, ...]) -> nn.Module:  # noqa: ARG002 - any length of session will do
        """Make a table of no steps yet."""
        return FollowsNet(len(self.adapter_.vocabulary) + FIRST_EVENT)  # type: ignore[attr-defined]

    def phases(self, net: nn.Module) -> list[Any]:  # noqa: ARG002 - there is nothing to optimise
        """Return no phases: counting is all there is."""
        return []

    @staticmethod
    def _steps(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return what each step (B, T + 1) leads from and to, and which of them count."""
        codes = batch.x.long()
        if batch.mask is not None:
            codes = torch.where(batch.mask, codes, PADDING)
        edge = codes.new_zeros(len(codes), 1)
        before, after = torch.cat([edge, codes], 1), torch.cat([codes, edge], 1)
        lengths = (codes != PADDING).sum(1, keepdim=True)
        return before, after, torch.arange(before.shape[1], device=codes.device) <= lengths

    def finish(self, net: Any, samples: Samples) -> None:
        """Count the steps."""
        flat = torch.zeros_like(net.counts).flatten()
        for _, batch in iterate(samples, self._block(samples.shape)):
            before, after, counts = self._steps(batch)
            places = (before * len(net.counts) + after)[counts]
            flat += torch.bincount(places, minlength=len(flat)).to(flat.dtype)
        net.counts = flat.view_as(net.counts)

    def infer(self, net: Any, batch: Batch, want: frozenset[Want]) -> Inference:
        """Compute score, map and restored session from the table."""
        before, after, counts = self._steps(batch)
        # Every follower may come: the events trained on, one that is new, and the end.
        totals = net.counts.sum(1, keepdim=True) + self.smoothing * len(net.counts)
        rarity = -torch.log((net.counts + self.smoothing) / totals)
        found = torch.where(counts, rarity[before, after], 0.0)
        score = found.amax(1)
        if not want:
            return Inference(score)
        inside = after[:, :-1] != PADDING
        where = torch.where(inside, found[:, :-1], 0.0)
        last = (inside.sum(1, keepdim=True) - 1).clamp_min(0)
        ending = torch.where(counts & (after == PADDING), found, 0.0).sum(1, keepdim=True)
        where = where.scatter_add(1, last, ending)
        likely = net.counts[:, UNSEEN_EVENT:].argmax(1) + UNSEEN_EVENT
        unheard = inside & (net.counts[before, after][:, :-1] == 0) & (net.counts.sum(1)[before[:, :-1]] > 0)
        restored = torch.where(unheard, likely[before[:, :-1]].to(batch.x.dtype), batch.x)
        return Inference(score, where, torch.where(inside, restored, 0.0))
