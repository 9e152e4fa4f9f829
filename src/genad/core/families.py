"""What the methods of a family share: residual maps, likelihood maps, and how each restores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from genad.core.detector import Detector
from genad.core.inference import Inference, Want
from genad.core.runtime import isolated_rng
from genad.data.samples import Batch, Samples, everything, iterate
from genad.errors import InputError


@dataclass(eq=False, repr=False)
class ReconstructionDetector(Detector):
    """A detector that scores how far a sample is from its reconstruction.

    A method fills in :meth:`reconstruct`; the score is the root mean squared residual over the observed values, in
    standard deviations of the training data, the map is the squared residual, and the restored sample is the
    reconstruction.
    """

    def reconstruct(self, net: Any, batch: Batch) -> Tensor:
        """Return the reconstruction of a batch."""
        return net(batch.x)

    def residual_score(self, net: Any, batch: Batch, residual: Tensor) -> Tensor:  # noqa: ARG002 - for overriding
        """Turn residuals, in the batch's shape and 0 where missing, into scores."""
        if batch.mask is not None:
            return batch.sample_mean(residual.square()).sqrt()
        return torch.linalg.vector_norm(residual.flatten(1), dim=1) / residual[0].numel() ** 0.5

    def infer(self, net: Any, batch: Batch, want: frozenset[Want]) -> Inference:
        """Compute score, map and restored sample from one reconstruction."""
        restored = self.reconstruct(net, batch)
        residual = batch.keep_observed(batch.x - restored)
        return self.answer(batch, want, self.residual_score(net, batch, residual), restored)

    @staticmethod
    def answer(batch: Batch, want: frozenset[Want], score: Tensor, restored: Tensor) -> Inference:
        """Give a score the squared residual as its map, and the reconstruction as the restored sample."""
        return Inference(
            score,
            batch.keep_observed(batch.x - restored).square() if "map" in want else None,
            restored if "restored" in want else None,
        )


class DensityNet(nn.Module):
    """Base of the networks of density detectors: it also keeps the typical score of normal samples.

    Attributes
    ----------
    typical_score : Tensor
        Median score of the training samples, where a restoration may stop.
    """

    typical_score: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("typical_score", torch.zeros(()))


@dataclass(eq=False, repr=False)
class DensityDetector(Detector):
    """A detector that scores how unlikely a sample is under a density it has learnt.

    A method fills in :meth:`log_density`, differentiable in its input, and builds a :class:`DensityNet`. The score is
    its negative; the map is the part of the score that each value can win back on the way to the restored sample,
    which follows the gradient of the log-density uphill.
    """

    #: Gradient steps and step length (in standard deviations) of the restoration.
    restore_steps = 24
    restore_rate = 0.15
    grad_at_score = True

    def log_density(self, net: Any, x: Tensor) -> Tensor:
        """Return log p(x) of each sample, up to a constant, (B,)."""
        raise NotImplementedError

    def finish(self, net: Any, samples: Samples) -> None:
        """Note the typical score of the training samples."""
        few = everything(samples, torch.device(self.device_), 2000)
        net.typical_score = self.score_batch(net, few).median()

    def score_batch(self, net: Any, batch: Batch) -> Tensor:
        """Return the negative log-density, missing values taken as the batch holds them."""
        with torch.no_grad():
            return -self.log_density(net, batch.x)

    def reconstruct(self, net: Any, batch: Batch) -> Tensor:
        """Climb the log-density from each sample until it is as likely as a typical normal one.

        The step is a signed, shrinking gradient step, so that every row moves at its own pace whatever its scale; a
        row stops as soon as its score is no higher than the typical score of training samples.
        """
        return self._climb(net, batch, net.typical_score)

    def guess_missing(self, net: Any, batch: Batch) -> Tensor:
        """Climb the log-density along the missing values alone."""
        assert batch.mask is not None  # noqa: S101 - something is missing
        return self._climb(net, batch, -torch.inf, (~batch.mask).to(batch.x.dtype))

    def _climb(self, net: Any, batch: Batch, typical: Tensor | float, along: Tensor | None = None) -> Tensor:
        """Climb until a score is ``typical``, moving the values where ``along`` is 1; all when absent."""
        current, best = batch.x.clone(), batch.x.clone()
        lowest = self.score_batch(net, batch)
        moving = lowest > typical
        rate = self.restore_rate
        moment = torch.zeros_like(current)
        scale = batch.x.abs().flatten(1).amax(1).clamp_min(1.0).view(-1, *[1] * (batch.x.ndim - 1))
        for step in range(self.restore_steps):
            point = current.detach().requires_grad_()
            with torch.enable_grad():
                (gradient,) = torch.autograd.grad(self.log_density(net, point).sum(), point)
            if along is not None:
                gradient = gradient * along
            moment = 0.7 * moment + 0.3 * torch.nan_to_num(gradient)
            size = moment.flatten(1).abs().amax(1).clamp_min(1e-12).view_as(scale)
            shrink = 1.0 - step / self.restore_steps
            current = current + rate * scale * shrink * moment / size
            score = self.score_batch(net, Batch(current))
            better = (score < lowest) & moving
            lowest = torch.where(better, score, lowest)
            best = torch.where(better.view_as(scale), current, best)
            moving = moving & (lowest > typical)
        return best

    def infer(self, net: Any, batch: Batch, want: frozenset[Want]) -> Inference:
        """Compute the score, and the restoration once for both the map and the restored sample."""
        score = self.score_batch(net, batch)
        if not want:
            return Inference(score)
        restored = self.reconstruct(net, batch)
        moved = batch.keep_observed((batch.x - restored).square())
        gain = (score - self.score_batch(net, Batch(restored))).clamp_min(0.0)
        total = moved.flatten(1).sum(1).clamp_min(1e-12)
        share = moved * (gain / total).view(-1, *[1] * (moved.ndim - 1))
        return Inference(score, share, restored)

    def log_prob(self, X: Any) -> NDArray[np.float64]:
        """Return log p(x) of each sample on the standardised scale, in nats.

        For an energy-based density it is known up to a constant.
        """
        return -self.anomaly_score(X)


@dataclass(eq=False, repr=False)
class SampleMixin:
    """Adds :meth:`sample` to a detector whose network can generate."""

    def generate(self, net: Any, n: int) -> Tensor:
        """Return ``n`` generated samples on the standardised scale; a network's own, unless a method says otherwise."""
        drawn: Tensor = net.generate(n)
        return drawn

    def sample(self, n: int, *, random_state: int = 0) -> NDArray[np.float64]:
        """Draw normal samples from the learnt distribution.

        Parameters
        ----------
        n : int
            How many, at least 1.
        random_state : int
            Seed of the draw.

        Returns
        -------
        array of shape (n, *sample shape)
            In the user's units, for data whose features are all numbers.
        """
        check_is_fitted(self, "net_")
        if n < 1:
            raise InputError(f"n: {n!r} was given; draw at least 1 sample.")
        me: Any = self
        with isolated_rng(random_state, me._device), torch.no_grad():  # noqa: SLF001 - a mixin of Detector
            values = self.generate(me.net_, n).cpu().numpy()
        columns = me.adapter_.columns(values)
        return np.column_stack(list(columns.values())) if isinstance(columns, dict) else np.asarray(columns)


@dataclass(eq=False, repr=False)
class EncodeMixin:
    """Adds :meth:`encode` to a detector whose network has a code."""

    def code(self, net: Any, batch: Batch) -> Tensor:
        """Return the code of each sample, (B, latent)."""
        raise NotImplementedError

    def encode(self, X: Any) -> NDArray[np.float32]:
        """Return the code of each sample; codes of anomalies differ from those of normal samples.

        Parameters
        ----------
        X : array, dataframe, Table, Series or path
            Data of the kind the detector was fitted on.

        Returns
        -------
        float32 array of shape (n, latent)
            One code a sample; a window, for series.
        """
        check_is_fitted(self, "net_")
        me: Any = self
        samples = me._ingest(X, reset=False).samples  # noqa: SLF001 - a mixin of Detector
        with torch.inference_mode():
            parts = [
                self.code(me.net_, batch).cpu().numpy()
                for _, batch in iterate(samples, me._block(samples.shape))  # noqa: SLF001
            ]
        return np.concatenate(parts)


@dataclass(eq=False, repr=False)
class PosteriorMixin(EncodeMixin):
    """Adds :meth:`encode` to a detector whose network has a posterior of the code, of which it gives the mean."""

    def code(self, net: Any, batch: Batch) -> Tensor:
        """Return the mean of the posterior."""
        mean: Tensor = net.posterior(batch.x)[0]
        return mean
