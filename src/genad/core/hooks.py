"""The hooks of a method: what its class fills in, and the defaults of what it leaves out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

from torch import Tensor, nn

from genad.core.inference import Inference, Want
from genad.core.registry import Card
from genad.core.training import Phase, Training
from genad.data.kinds import Kind
from genad.data.samples import Batch, Samples


class Hooks:
    """What makes a method: its network, its objective and how the trained network is read; a part of every detector."""

    #: How a file was read for the fit, by names of arguments of :func:`genad.read`; kept in the model file.
    reading_: Mapping[str, Any] = MappingProxyType({})

    card: ClassVar[Card]
    name: ClassVar[str]
    #: The method's own training; fields left empty come from ``BASE_TRAINING``.
    defaults: ClassVar[Training] = Training()
    #: Whether scoring differentiates (energies, latent search).
    grad_at_score: ClassVar[bool] = False
    #: Whether an :class:`~genad.Ensemble` may stack the networks under ``torch.func.vmap``.
    stackable: ClassVar[bool] = True
    #: Whether loss, score, map and restoration treat each sample alone, the loss ending in their mean; an ensemble of
    #: multilayer perceptrons then folds its members' rows into one batch.
    rowwise: ClassVar[bool] = False
    #: The kind that an array given to ``fit`` is read as; None goes by the array's rank.
    reads_as: ClassVar[Kind | None] = None

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """Make the untrained network for samples of ``shape``."""
        raise NotImplementedError

    def loss(self, net: Any, batch: Batch) -> Tensor:
        """Return the scalar that training minimises on a batch."""
        raise NotImplementedError

    def phases(self, net: nn.Module) -> Sequence[Phase]:  # noqa: ARG002 - methods may look at the network
        """Return the phases of the optimisation; one, of :meth:`loss`, unless a method says otherwise."""
        return [Phase("loss", self.loss)]

    def after_step(self, net: Any, batch: Batch) -> None:
        """Update rule-driven parts of the network after a gradient step."""

    def finish(self, net: Any, samples: Samples) -> None:
        """Compute what has a closed form once the gradient is done, from all training samples."""

    def score_batch(self, net: Any, batch: Batch) -> Tensor:
        """Return the anomaly score of each sample, (B,), or of each step of a window, (B, T)."""
        return self._part(net, batch).score

    def error_map(self, net: Any, batch: Batch) -> Tensor:
        """Return where the score comes from, in the batch's shape."""
        found = self._part(net, batch, "map").map
        assert found is not None  # noqa: S101 - asked for
        return found

    def reconstruct(self, net: Any, batch: Batch) -> Tensor:
        """Return the nearest normal samples, in the batch's shape."""
        found = self._part(net, batch, "restored").restored
        assert found is not None  # noqa: S101 - asked for
        return found

    def infer(self, net: Any, batch: Batch, want: frozenset[Want]) -> Inference:
        """Compute what is wanted of a batch.

        A method fills in either :meth:`score_batch`, :meth:`error_map` and :meth:`reconstruct`, or this one, to share
        work between them; the others follow.
        """
        return Inference(
            self.score_batch(net, batch),
            self.error_map(net, batch) if "map" in want else None,
            self.reconstruct(net, batch) if "restored" in want else None,
        )

    def _part(self, net: Any, batch: Batch, *want: Want) -> Inference:
        if type(self).infer is Hooks.infer:
            raise NotImplementedError(f"{type(self).__name__} fills in neither infer nor the hook that was asked for")
        return self.infer(net, batch, frozenset(want))
