"""What flows over the sensors of a series share: windows are scored by their mean negative log-density."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from genad.core.inference import Inference, Want
from genad.core.parameters import check_number, check_whole
from genad.core.training import Training
from genad.core.windows import SeriesDetector
from genad.data.samples import Batch

# A block is padded to a multiple of this, as everywhere.
_ALIGN = 16


@dataclass(eq=False, repr=False)
class SensorFlowDetector(SeriesDetector):
    """A detector whose network is a :class:`~genad.nn.graph_flow.SensorFlow`.

    The score of a window is the mean of ``-log p`` over its sensors and steps, in nats on the standardised scale, and
    that of a step the mean over the windows that hold it. The map is ``-log p`` of each value, above the lowest that a
    value can have, and so says which sensor it is; the restored window has every value where its density peaks.

    Parameters
    ----------
    hidden : int
        Width of all layers, at least 1.
    min_std : float
        Smallest standard deviation of a value given the others, in (0, 1), in those of the training data. It keeps
        sensors that hardly move from outweighing all others.
    """

    hidden: int = field(default=32, kw_only=True)
    min_std: float = field(default=0.1, kw_only=True)

    default_window: ClassVar[int] = 32
    # torch.vmap has no rule for recurrent layers.
    stackable = False
    defaults = Training(
        epochs=10, min_updates=100, max_updates=250, batch_size=32, lr=1e-2, weight_decay=5e-4, clip=10.0
    )
    takes_backbone = False

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_whole(self, "hidden")
        check_number(self, "min_std", "(0, 1)")

    def _block(self, shape: tuple[int, ...]) -> int:
        # Every value of a window is held as several vectors of the hidden width.
        return max(_ALIGN, super()._block(shape) // 8 // _ALIGN * _ALIGN)

    def loss(self, net: Any, batch: Batch) -> Tensor:
        """Return the mean negative log-density of the observed values, in nats a value."""
        condition = net.condition(batch.x, net.graph(batch.x))
        return batch.sample_mean(net.nll(batch.x, condition)).mean()

    def infer(self, net: Any, batch: Batch, want: frozenset[Want]) -> Inference:
        """Score windows, and say where the score comes from by the density of each value."""
        condition = net.condition(batch.x, net.graph(batch.x))
        nll = net.nll(batch.x, condition)
        return Inference(
            batch.sample_mean(nll),
            batch.keep_observed((nll - net.lowest).clamp_min(0.0)) if "map" in want else None,
            net.expected(condition) if "restored" in want else None,
        )
