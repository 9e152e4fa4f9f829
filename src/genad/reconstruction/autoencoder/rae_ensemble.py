"""Ensembles of recurrent autoencoders with sparse skip connections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from genad.core.families import ReconstructionDetector
from genad.core.inference import Inference, Want
from genad.core.parameters import check_choice, check_number, check_whole
from genad.core.registry import Card, Family, register
from genad.core.training import Training
from genad.data.kinds import Kind
from genad.data.samples import Batch
from genad.nn import SparseSkipRNN
from genad.reconstruction.strided import StridedDetector


class UnrolledSkipRNN(SparseSkipRNN):
    """A :class:`~genad.nn.SparseSkipRNN` that runs whole windows, also on its own output.

    The skip links pick each member's past state from the list of all of them, which costs a
    fifth of a delay line that moves ten states on at every step.
    """

    def unroll(
        self, gates: Tensor | None, state: Tensor, steps: int, emit: OutputLayer | None = None
    ) -> tuple[Tensor, Tensor]:
        """Run all members for ``steps`` steps.

        Parameters
        ----------
        gates : Tensor of shape (steps, K, 2, B, gates), or None
            The input's part of the gates; None feeds every step with the output before it.
        state : Tensor of shape (K, B, state_size)
            Initial state.
        steps : int
            How many.
        emit : OutputLayer, optional
            Makes the output of a step from its hidden state.

        Returns
        -------
        outputs : Tensor of shape (K, B, steps, C)
            Empty without ``emit``.
        state : Tensor of shape (K, B, state_size)
            Last state.
        """
        branch = self._links()[0].unbind(1)
        lags = self.lag.tolist()
        begin = state.unbind(0)
        past: list[tuple[Tensor, ...]] = []
        outputs: list[Tensor] = []
        # the first step of a decoder reads zeros
        out = state.new_zeros(*state.shape[:2], self.weight_input.shape[1])
        for t in range(steps):
            part = self.input_gates(out.unsqueeze(2))[0] if gates is None else gates[t]
            skip = [past[t - lag][k] if t >= lag else begin[k] for k, lag in enumerate(lags)]
            state = self._cell(part, branch[t], state, torch.stack(skip))
            past.append(state.unbind(0))
            if emit is not None:
                out = emit(state[..., : self.hidden_size])
                outputs.append(out)
        return torch.stack(outputs, 2) if outputs else state.new_zeros(0), state

    def input_gates(self, x: Tensor) -> Tensor:
        """Return the input's part of the gates of all steps, (T, K, 2, B, gates).

        Parameters
        ----------
        x : Tensor of shape (K, B, T, C)
            Inputs; a first axis of 1 serves all members.
        """
        _, batch, steps, width = x.shape
        flat = x.reshape(-1, batch * steps, width).expand(self.members, -1, -1)
        gates = torch.baddbmm(self.bias.unsqueeze(1), flat, self.weight_input)
        return gates.view(self.members, batch, steps, 2, -1).permute(2, 0, 3, 1, 4)

    def _cell(self, gates: Tensor, branch: Tensor, before: Tensor, skip: Tensor) -> Tensor:
        """Return the mean over the kept links of what the cell makes of each."""
        size = self.hidden_size
        linked = torch.stack([before, skip], dim=1)  # (K, 2, B, state)
        total = gates + linked[..., :size] @ self.weight_hidden
        if not self.lstm:
            return (branch * torch.tanh(total)).sum(1)
        enter, forget, leave = torch.sigmoid(total[..., : 3 * size]).chunk(3, dim=-1)
        cell = forget * linked[..., size:] + enter * torch.tanh(total[..., 3 * size :])
        return (branch * torch.cat([leave * torch.tanh(cell), cell], dim=-1)).sum(1)


class OutputLayer(nn.Module):
    """One linear map a member, from hidden states to values.

    Parameters
    ----------
    members, hidden_size, channels : int
        Sizes K, H and C.
    """

    def __init__(self, members: int, hidden_size: int, channels: int) -> None:
        super().__init__()
        bound = hidden_size**-0.5
        self.weight = nn.Parameter(torch.empty(members, hidden_size, channels).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(members, 1, channels))

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (K, B, H) to (K, B, C)."""
        return torch.baddbmm(self.bias, hidden, self.weight)


class RecurrentEnsembleNet(nn.Module):
    """All autoencoders of the ensemble as one batched network.

    Parameters
    ----------
    shape : tuple of int
        Steps T and channels C of a window.
    members, hidden : int
        Number of autoencoders K, and the width H of each.
    cell : {"lstm", "rnn"}
        Kind of recurrent cell.
    shared : bool
        Whether the encoders meet in one code.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        members: int,
        hidden: int,
        cell: Literal["lstm", "rnn"],
        *,
        shared: bool,
    ) -> None:
        super().__init__()
        steps, channels = shape
        self.encoder = UnrolledSkipRNN(members, channels, hidden, steps, cell=cell)
        self.decoder = UnrolledSkipRNN(members, channels, hidden, steps, cell=cell)
        self.output = OutputLayer(members, hidden, channels)
        size = self.encoder.state_size
        self.joint = nn.Linear(members * size, size) if shared else None

    def encode(self, x: Tensor) -> Tensor:
        """Return the states the decoders start from: (K, B, S), or (1, B, S) when it is shared."""
        start = x.new_zeros(self.encoder.members, len(x), self.encoder.state_size)
        _, state = self.encoder.unroll(self.encoder.input_gates(x.unsqueeze(0)), start, x.shape[1])
        if self.joint is None:
            return state
        return torch.tanh(self.joint(state.transpose(0, 1).flatten(1))).unsqueeze(0)

    def decode(self, code: Tensor, steps: int) -> Tensor:
        """Return each member's window, (K, B, T, C); it is emitted from the last step to the first."""
        start = code.expand(self.decoder.members, -1, -1)
        backwards, _ = self.decoder.unroll(None, start, steps, self.output)
        return backwards.flip(2)

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct windows (B, T, C) by every member, (K, B, T, C)."""
        return self.decode(self.encode(x), x.shape[1])


def middle(values: Tensor) -> Tensor:
    """Return the median over the first axis; of an even number, the mean of the two in the middle."""
    ordered = values.sort(0).values
    n = len(ordered)
    return 0.5 * (ordered[(n - 1) // 2] + ordered[n // 2])


@register(
    Card(
        title="Outlier detection for time series with recurrent autoencoder ensembles",
        authors="Kieu, Yang, Guo, Jensen",
        venue="IJCAI",
        year=2019,
        family=Family.AUTOENCODER,
        kinds=(Kind.SERIES,),
        row="1.1.1-05",
        summary="Median error of recurrent autoencoders that each miss other connections.",
        tags=("recurrent", "ensemble", "skip connections", "sparse"),
    ),
    name="rae_ensemble",
)
@dataclass(eq=False, repr=False)
class RecurrentAEEnsemble(ReconstructionDetector, StridedDetector):
    """Score steps by the median error of recurrent autoencoders with different connections.

    Every member reads a window with a recurrent cell that has a link to the step before and a
    skip link some steps back, and writes it again from the last step to the first, each step fed
    with its own output. At each step one of the two links, or neither, is cut by a mask that is
    drawn once for each member. Members fail on different things, and the median over them does
    not follow any single one that learnt to copy anomalies:

        score(x_t) = median_k mean_c (x_tc - x^_tc^k)^2

    ``framework="independent"`` trains each member for itself, ``J_k = ||x - x^^k||^2``. In the
    ``"shared"`` one all encoders meet in one code h that every decoder starts from, and
    ``J = sum_k ||x - x^^k||^2 + sparsity ||h||_1``.

    **When to use.** Short patterns of few channels. The errors are those of steps, so maps
    and restored values are sharp.

    **When it fails.** The code is a handful of numbers for a whole window, so what is irregular when normal has a large
    error too. Every step of every window is computed in sequence, which makes it one of the slower methods; see
    ``step``. Mean AUROC / AP / VUS-PR over the SKAB recordings, one seed: 0.728 / 0.729 / 0.764, behind PCA of windows
    at 0.848 / 0.848 / 0.876 and nearest windows at 0.749 / 0.742 / 0.781. It misses the subtle anomalies of two UCR
    recordings (AP 0.020). On two recordings of each of seven sets AUROC / AP / VUS-PR are 0.717 / 0.408 / 0.432 on
    average, those of PCA of windows 0.803 / 0.611 / 0.606; in AUROC it is furthest behind on SKAB (0.695, 0.945) and
    UCR (0.794, 1.000). On all recordings (one seed) they are 0.734 / 0.419 / 0.442, those of PCA of windows 0.816 /
    0.632 / 0.638.

    Parameters
    ----------
    framework : {"independent", "shared"}
        Whether members share their code.
    members : int
        Number of autoencoders, at least 1.
    hidden : int
        Width of each recurrent cell, at least 1.
    cell : {"rnn", "lstm"}
        Tanh cell, or an LSTM at three times its cost.
    sparsity : float
        Weight of the L1 norm of a shared code, at least 0.

    Examples
    --------
    >>> import numpy as np
    >>> from genad import Training
    >>> series = np.sin(np.arange(600) / 3)
    >>> detector = RecurrentAEEnsemble(window=16, members=4, training=Training(updates=60))
    >>> other = series.copy()
    >>> other[300:310] += 2
    >>> scores = detector.fit(series).anomaly_score(other)
    >>> bool(scores[300:310].mean() > 3 * scores[:290].mean())
    True

    References
    ----------
    Kieu, Yang, Guo and Jensen (2019), Outlier detection for time series with recurrent autoencoder
    ensembles, IJCAI.
    """

    framework: Literal["independent", "shared"] = "independent"
    members: int = 10
    hidden: int = 8
    cell: Literal["rnn", "lstm"] = "rnn"
    sparsity: float = 0.005

    stackable = False
    defaults = Training(updates=200, batch_size=32, lr=1e-2, clip=5.0)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_choice(self, "framework", ("independent", "shared"))
        check_choice(self, "cell", ("rnn", "lstm"))
        check_whole(self, "members", "hidden")
        check_number(self, "sparsity", "[0, inf)")

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """Make all members."""
        shared = self.framework == "shared"
        return RecurrentEnsembleNet(shape, self.members, self.hidden, self.cell, shared=shared)

    def member_errors(self, net: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the members' windows and squared residuals, both (K, B, T, C), 0 where missing."""
        restored = net(batch.x)
        return restored, batch.keep_observed((restored - batch.x).square())

    def loss(self, net: Any, batch: Batch) -> Tensor:
        """Return the sum of the members' mean squared residuals, and the norm of a shared code."""
        code = net.encode(batch.x)
        restored = net.decode(code, batch.x.shape[1])
        squared = (restored - batch.x).square()
        total = torch.stack([batch.sample_mean(member).mean() for member in squared]).sum()
        if self.framework == "shared":
            total = total + self.sparsity * code.abs().sum(-1).mean()
        return total

    def infer(self, net: Any, batch: Batch, want: frozenset[Want]) -> Inference:
        """Score steps, and take medians of residuals and of windows over the members."""
        restored, squared = self.member_errors(net, batch)
        return Inference(
            middle(batch.step_mean(squared)),
            middle(squared) if "map" in want else None,
            middle(restored) if "restored" in want else None,
        )
