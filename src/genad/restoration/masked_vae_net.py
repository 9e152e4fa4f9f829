"""The networks of the masked VAE: a posterior, a prior that sees what is not hidden, a decoder by kind of feature."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from genad.data.coding import CategoryCode, NumericCode
from genad.nn.gaussian import DiagGaussianHead, gaussian_log_prob
from genad.nn.vae import log_mean_exp

# How a column is distributed: as a number, as one of a category's, or as a truth value.
NUMBER, LEVEL, TRUTH = 0, 1, 2
# Values enter the networks cut at this many standard deviations, and logits are bounded, so that nothing overflows.
_SEEN, _LOGIT = 10.0, 15.0


@dataclass(frozen=True)
class Layout:
    """How the encoded columns make up features.

    Attributes
    ----------
    owner : list of int
        Feature of each column.
    kinds : list of int
        Whether a column is a number, a level of a category, or a truth value.
    scale, shift : list of float
        ``z * scale + shift`` is 1 where a level or truth value is present and 0 where it is not; 1 and 0 for numbers.
    """

    owner: list[int]
    kinds: list[int]
    scale: list[float]
    shift: list[float]

    @staticmethod
    def plain(columns: int) -> Layout:
        """Return the layout of numbers alone."""
        return Layout(list(range(columns)), [NUMBER] * columns, [1.0] * columns, [0.0] * columns)

    @staticmethod
    def of(encoder: Any) -> Layout:
        """Read the layout off a fitted :class:`~genad.data.encoder.TableEncoder`."""
        found = Layout([], [], [], [])
        for code in encoder.codes:
            width = len(code.labels)
            kind, scale, shift = NUMBER, 1.0, [0.0] * width
            if isinstance(code, CategoryCode):
                kind, scale, shift = LEVEL, code.scale, list(code.shares)
            elif isinstance(code, NumericCode) and code.boolean:
                kind, scale, shift = TRUTH, code.scale, [code.mean]
            if width:
                found.owner.extend([found.owner[-1] + 1 if found.owner else 0] * width)
                found.kinds.extend([kind] * width)
                found.scale.extend([scale] * width)
                found.shift.extend(shift)
        return found


class MaskedVAENet(nn.Module):
    """A posterior that sees all of a row, a prior that sees what is not hidden, and a decoder by kind of feature.

    Parameters
    ----------
    layout : Layout
        The features.
    hidden : sequence of int
        Widths of the networks.
    latent : int
        Dimensions of the code.
    draws : int
        Rows of the noise banks.
    sets : int
        Most sets of features that are hidden in turn.
    min_std : float
        Smallest standard deviation of a number.

    Attributes
    ----------
    owner, kinds, scale, shift : Tensor
        Buffers (d,): the layout.
    turns : Tensor
        Buffer (3, F): in which turn each feature is hidden, when each is on its own (or in one of ``sets``), when it is
        hidden with half of all, and with all.
    noise, jitter : Tensor
        Buffers (draws, latent) and (draws, d): noise of codes and values, the same for all rows.
    centre, spread : Tensor
        Buffers (2, F): mean and standard deviation of the surprises of training rows, given the others and on average
        over all turns.
    limit : Tensor
        Buffer: the standardised surprise above which a value is restored.
    """

    owner: Tensor
    kinds: Tensor
    scale: Tensor
    shift: Tensor
    turns: Tensor
    noise: Tensor
    jitter: Tensor
    centre: Tensor
    spread: Tensor
    limit: Tensor

    def __init__(
        self, layout: Layout, hidden: Sequence[int], latent: int, draws: int, sets: int, min_std: float
    ) -> None:
        super().__init__()
        columns, self.features, self.min_std = len(layout.owner), layout.owner[-1] + 1, min_std
        first, *others = hidden

        def trunk(inputs: int) -> nn.Sequential:
            layers: list[nn.Module] = [nn.Linear(inputs, first), nn.ReLU()]
            for before, after in zip(hidden, others, strict=False):
                layers += [nn.Linear(before, after), nn.ReLU()]
            return nn.Sequential(*layers)

        self.posterior_net = nn.Sequential(trunk(3 * columns), DiagGaussianHead(hidden[-1], latent))
        self.prior_net = nn.Sequential(trunk(2 * columns), DiagGaussianHead(hidden[-1], latent))
        # The first layer of the decoder in two parts: what is seen is the same for all codes of a row.
        self.from_code = nn.Linear(latent, first, bias=False)
        decoder = list(trunk(2 * columns))
        self.from_seen, self.inner = decoder[0], nn.Sequential(*decoder[1:])
        self.output = nn.Linear(hidden[-1], 2 * columns)
        # What is linear in the visible values need not be learnt by the rest.
        self.straight = nn.Linear(2 * columns, columns, bias=False)
        nn.init.zeros_(self.straight.weight)
        for name in ("owner", "kinds"):
            self.register_buffer(name, torch.tensor(getattr(layout, name)))
        for name in ("scale", "shift"):
            self.register_buffer(name, torch.tensor(getattr(layout, name), dtype=torch.float32))
        place = torch.arange(self.features)
        self.register_buffer("turns", torch.stack([place % sets, place % 2, 0 * place]))
        self.register_buffer("noise", torch.randn(draws, latent))
        self.register_buffer("jitter", torch.randn(draws, columns))
        self.register_buffer("centre", torch.zeros(2, self.features))
        self.register_buffer("spread", torch.ones(2, self.features))
        self.register_buffer("limit", torch.tensor(torch.inf))

    def seen(self, x: Tensor, visible: Tensor) -> Tensor:
        """Return rows (B, 2 d) as the networks see them: visible values, 0 elsewhere, and which are visible."""
        return torch.cat([torch.where(visible, x.clamp(-_SEEN, _SEEN), 0.0), visible.to(x.dtype)], 1)

    def posterior(self, x: Tensor, observed: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation (B, latent) of q(z | x, b), which sees hidden values too."""
        gaussian: tuple[Tensor, Tensor] = self.posterior_net(
            torch.cat([self.seen(x, observed), visible.to(x.dtype)], 1)
        )
        return gaussian

    def prior(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation (B, latent) of p(z | visible values)."""
        gaussian: tuple[Tensor, Tensor] = self.prior_net(seen)
        return gaussian

    def decode(self, z: Tensor, seen: Tensor, columns: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return both outputs of the decoder, (..., B, d) each, for codes (..., B, latent) of rows (B, 2 d).

        With ``columns`` only theirs are computed.
        """
        h = self.inner(self.from_code(z) + self.from_seen(seen))
        size = len(self.owner)
        rows = torch.arange(size, device=h.device) if columns is None else columns
        both = torch.cat([rows, rows + size])
        first, second = F.linear(h, self.output.weight[both], self.output.bias[both]).chunk(2, -1)
        return first + F.linear(seen, self.straight.weight[rows]), second

    def log_prob(self, x: Tensor, outputs: tuple[Tensor, Tensor], columns: Tensor | None = None) -> Tensor:
        """Return log p of every feature, (..., B, F), in nats; 0 for features that have none of the ``columns``.

        Numbers are Gaussian, levels of a category share one softmax, truth values are Bernoulli.
        """
        first, second = outputs
        chosen = torch.arange(len(self.owner), device=x.device) if columns is None else columns
        x, kinds, owner = x[:, chosen], self.kinds[chosen], self.owner[chosen]
        found = gaussian_log_prob(x, first, F.softplus(second) + self.min_std)
        empty = found.new_zeros(*found.shape[:-1], self.features)
        if not bool((kinds != NUMBER).any()):
            return empty.index_add(-1, owner, found)
        logit = _LOGIT * torch.tanh(first / _LOGIT)
        value = x * self.scale[chosen] + self.shift[chosen]
        truth = value.clamp(0.0, 1.0)
        # Nothing says what lies between and beyond; the further off, the less likely.
        off = 0.5 * ((value - truth) / self.min_std).square()
        found = torch.where(kinds == TRUTH, truth * logit - F.softplus(logit) - off, found)
        level = kinds == LEVEL
        found = torch.where(level, (value > 0.5) * logit, found)
        total = empty.index_add(-1, owner, logit.exp() * level)
        normaliser = torch.where(total > 0, total.clamp_min(1e-30).log(), 0.0)
        return empty.index_add(-1, owner, found) - normaliser

    def expected(self, outputs: tuple[Tensor, Tensor], jitter: Tensor | None = None) -> Tensor:
        """Return the expected values (..., B, d) of all columns; with ``jitter`` (..., 1, d) draws of the numbers.

        For a category these are the shares of its levels, the largest of which is the likeliest one.
        """
        first, second = outputs
        number = first if jitter is None else first + (F.softplus(second) + self.min_std) * jitter
        logit = _LOGIT * torch.tanh(first / _LOGIT)
        odds = logit.exp() * (self.kinds == LEVEL)
        total = odds.new_zeros(*odds.shape[:-1], self.features).index_add(-1, self.owner, odds)
        share = odds / total[..., self.owner].clamp_min(1e-30)
        share = torch.where(self.kinds == TRUTH, logit.sigmoid(), share)
        return torch.where(self.kinds == NUMBER, number, (share - self.shift) / self.scale)

    def observed_features(self, observed: Tensor) -> Tensor:
        """Return which features of rows were observed, (B, F), from their columns (B, d)."""
        count = torch.zeros(len(observed), self.features, device=observed.device)
        return count.index_add(1, self.owner, observed.to(count.dtype)) > 0

    def surprises(self, x: Tensor, visible: Tensor, way: int = 0) -> Tensor:
        """Return ``-log p(x_j | visible values of features of other turns)`` of every feature, (B, F), in nats.

        The codes are drawn from the prior given those values; the densities of ``x_j`` under them are averaged.
        ``way`` is a row of ``turns``: on its own, a feature is judged by all others.
        """
        found = x.new_zeros(len(x), self.features)
        for turn in range(int(self.turns[way].max()) + 1):
            now = self.turns[way] == turn
            columns = now[self.owner].nonzero().squeeze(1)
            seen = self.seen(x, visible & ~now[self.owner])
            mean, std = self.prior(seen)
            z = mean + std * self.noise.unsqueeze(1)
            log_p = log_mean_exp(self.log_prob(x, self.decode(z, seen, columns), columns).movedim(0, -1))
            found = torch.where(now, -log_p, found)
        return found

    def both(self, x: Tensor, visible: Tensor) -> Tensor:
        """Return surprises given all others, and averaged over how many others are given, (2, B, F)."""
        ways = torch.stack([self.surprises(x, visible, way) for way in range(len(self.turns))])
        return torch.stack([ways[0], ways.mean(0)])
