"""The network of login histories: what each field of the next record will be, and how long it takes to come."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from genad.data.log.adapter import FIRST_EVENT, PADDING, UNSEEN_EVENT
from genad.data.log.fields import GAP
from genad.data.samples import Batch

# Smallest width of a component of the gaps, in standard deviations of all.
_NARROWEST = 0.1


class HistoryNet(nn.Module):
    """Foretells the gap before a record and each of its fields from the records before it and who acts.

    Parameters
    ----------
    sizes : sequence of int
        Values of user, group, hour, event and each field.
    embedding, hidden, components : int

    Attributes
    ----------
    seen : bool Tensor of shape (columns of codes, most codes)
        The codes that are in the training sessions often enough; the others count as unseen.
    rare : Tensor of shape (facts,)
        Logarithms of one plus the number of values of each field that are in the training sessions too rarely: those
        that count as unseen share the probability of something unseen with one more.
    gaps : Tensor of shape (2,)
        Mean and standard deviation of the logarithms of gaps.
    typical, limits : Tensor of shape (1 + facts,)
        Surprise of the gap and of each field among training records: the median, and what few exceed.
    users, groups : Tensor of shape (2, codes)
        Median and spread of the surprise of a record, by code.
    """

    seen: Tensor
    rare: Tensor
    gaps: Tensor
    typical: Tensor
    limits: Tensor
    users: Tensor
    groups: Tensor

    def __init__(self, sizes: Sequence[int], embedding: int, hidden: int, components: int) -> None:
        super().__init__()
        facts = sizes[2:]
        self.tables = nn.ModuleList(nn.Embedding(size + FIRST_EVENT, embedding) for size in sizes)
        self.recurrent = nn.GRU(2 + embedding * len(facts), hidden, batch_first=True)
        self.who = nn.Linear(2 * embedding, hidden)
        self.heads = nn.ModuleList([nn.Linear(hidden, 3 * components), *(nn.Linear(hidden, n + 1) for n in facts)])
        self.steps = nn.ModuleList([nn.Linear(2, hidden), *(nn.Linear(embedding, hidden) for _ in facts[:-1])])
        self.register_buffer("seen", torch.ones(len(sizes), max(sizes) + FIRST_EVENT, dtype=torch.bool))
        self.register_buffer("rare", torch.zeros(len(facts)))
        self.register_buffer("gaps", torch.tensor([0.0, 1.0]))
        self.register_buffer("typical", torch.zeros(1 + len(facts)))
        self.register_buffer("limits", torch.zeros(1 + len(facts)))
        for name, size in (("users", sizes[0]), ("groups", sizes[1])):
            self.register_buffer(name, torch.tensor([0.0, 1.0])[:, None].repeat(1, size + FIRST_EVENT))

    def codes(self, x: Tensor) -> Tensor:
        """Return the codes of records (..., columns) without the gap, those of values not learnt as unseen."""
        codes = torch.cat([x[..., :GAP], x[..., GAP + 1 :]], -1).long()
        known = self.seen[torch.arange(codes.shape[-1], device=x.device), codes]
        return torch.where(known, codes, UNSEEN_EVENT)

    def contexts(self, codes: Tensor, gap: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return what is known before each record (B, T, hidden), and what each of its fields adds to that.

        Parameters
        ----------
        codes : Tensor of shape (B, T, columns of codes)
        gap : Tensor of shape (B, T, 2)
            Standardised gaps, and whether they are known.
        """
        embedded = [table(codes[..., k]) for k, table in enumerate(self.tables)]
        records = torch.cat([gap, *embedded[2:]], -1)
        states, _ = self.recurrent(F.pad(records, (0, 0, 1, 0))[:, :-1])
        added = [step(part) for step, part in zip(self.steps, [gap, *embedded[2:-1]], strict=True)]
        return states + self.who(torch.cat(embedded[:2], -1)), added

    def surprise(self, context: Tensor, added: Sequence[Tensor], gap: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return -log p of the gap and of each field given the ones before it, 0 where missing, and what is likely.

        Parameters
        ----------
        context : Tensor of shape (N, hidden)
        added : sequence of Tensor of shape (N, hidden)
        gap : Tensor of shape (N, 2)
        targets : Tensor of shape (N, facts)
            Codes; 0 where missing.

        Returns
        -------
        tuple of Tensor of shape (N, 1 + facts)
            Nats, and the likely gap and codes.
        """
        weight, mean, width = self.heads[0](torch.tanh(context)).chunk(3, -1)
        weight, width = weight.log_softmax(-1), F.softplus(width) + _NARROWEST
        log_p = weight - 0.5 * ((gap[:, :1] - mean) / width).square() - width.log() - 0.5 * math.log(2 * math.pi)
        peak = (weight - width.log()).argmax(-1, keepdim=True)
        surprises = [-log_p.logsumexp(-1) * gap[:, 1]]
        likely = [mean.gather(1, peak)[:, 0] * self.gaps[1] + self.gaps[0]]
        for k, head in enumerate(self.heads[1:]):
            context = context + added[k]
            log_p = head(torch.tanh(context)).log_softmax(-1)
            own = log_p.gather(1, (targets[:, k : k + 1] - UNSEEN_EVENT).clamp_min(0))[:, 0]
            own = own - self.rare[k] * (targets[:, k] == UNSEEN_EVENT)
            surprises.append(torch.where(targets[:, k] == PADDING, 0.0, -own))
            likely.append((log_p[:, 1:].argmax(1) + FIRST_EVENT).to(own.dtype))
        return torch.stack(surprises, 1), torch.stack(likely, 1)

    def gap_of(self, batch: Batch) -> Tensor:
        """Return standardised gaps and whether they are known, (B, T, 2)."""
        gap = batch.x[..., GAP]
        known = torch.ones_like(gap) if batch.mask is None else batch.mask[..., GAP].to(gap.dtype)
        return torch.stack([(gap - self.gaps[0]) / self.gaps[1] * known, known], -1)
