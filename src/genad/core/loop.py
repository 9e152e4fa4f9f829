"""The one training loop: phases in turn, no synchronisation within a round, exact resumption."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from genad.core.checkpoint import pack_optimizer, unpack_optimizer
from genad.core.folding import Folded
from genad.core.progress import Progress
from genad.core.stacking import Looped, Members, Stacked, call, parameters_of
from genad.core.training import Phase, Training, TrainingReport, last_stage
from genad.data.samples import Batch, Samples, Subset, everything
from genad.errors import InputError, ModelFileError, TrainingError
from genad.tensor_files import read_tensors, write_tensors

# A round is the stretch between two reads of the losses: an epoch, but at least this share of the training.
_ROUNDS = 50
# Held-out samples looked at in a round of early stopping; more would cost more than they tell.
_HELD_OUT = 4096
# Below this many parameters one thread beats several, because starting threads costs more than the products.
TINY = 300_000

# A batch of images is (B, C, H, W).
_IMAGE_AXES = 4


class IndexStream:
    """Endless passes over n samples, each a fresh permutation, cut into batches of one constant size.

    The batch at a step is a function of the seed and the step alone, so that training resumes exactly.
    Members of an ensemble read the same permutation from different places.
    """

    def __init__(self, n: int, size: int, seed: int, members: int, device: torch.device) -> None:
        self.n, self.size, self.seed, self.device = n, size, seed, device
        self.offsets = torch.arange(members) * n // max(members, 1)
        self._epochs: dict[int, Tensor] = {}

    def _permutation(self, epoch: int) -> Tensor:
        if epoch not in self._epochs:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            self._epochs = {k: v for k, v in self._epochs.items() if k >= epoch - 1}
            self._epochs[epoch] = torch.randperm(self.n, generator=generator)
        return self._epochs[epoch]

    def at(self, step: int, steps: int) -> Tensor:
        """Return the indices of ``steps`` batches from ``step`` on, shape (steps, members * size)."""
        first, last, n = step * self.size, (step + steps) * self.size, self.n
        parts = []
        for epoch in range(first // n, (last - 1) // n + 1):
            begin, end = max(first - epoch * n, 0), min(last - epoch * n, n)
            rows = self._permutation(epoch)
            parts.append(torch.stack([rows.roll(-offset)[begin:end] for offset in self.offsets.tolist()]))
        batches = torch.cat(parts, 1).view(len(self.offsets), steps, self.size)
        return batches.transpose(0, 1).reshape(steps, -1).to(self.device)


class _Interrupt:
    """Turns Ctrl-C into a flag that the loop reads between two updates, so that no update is torn apart."""

    def __init__(self) -> None:
        self.asked = False

    def _ask(self, _signal: int, _frame: FrameType | None) -> None:
        self.asked = True

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGINT, self._ask)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


def _optimizer(phase: Phase, training: Training, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    kind = phase.optimizer or training.optimizer
    lr = phase.lr or training.lr or 1e-3
    decay = training.weight_decay or 0.0
    fused = parameters[0].device.type in {"cpu", "cuda"}
    if kind == "sgd":
        return torch.optim.SGD(parameters, lr=lr, momentum=0.9, weight_decay=decay, fused=fused)
    if kind == "rmsprop":
        return torch.optim.RMSprop(parameters, lr=lr, weight_decay=decay)
    return torch.optim.AdamW(parameters, lr=lr, weight_decay=decay, fused=fused)


def _clip(net: nn.Module, parameters: list[nn.Parameter], limit: float) -> None:
    """Scale the gradient down to a norm of ``limit``; members of an ensemble each by their own norm."""
    if isinstance(net, Stacked):
        grads = net.gradients(parameters)
        norm = torch.stack([g.reshape(len(g), -1).square().sum(1) for g in grads]).sum(0).sqrt()
        scale = (limit / (norm + 1e-6)).clamp(max=1.0)
        for g in grads:
            g.mul_(scale.view(-1, *[1] * (g.ndim - 1)))
        return
    ours = set(parameters)
    for member in net.members if isinstance(net, Looped) else [net]:
        torch.nn.utils.clip_grad_norm_([p for p in member.parameters() if p in ours], limit)


class TrainingLoop:
    """Optimises a network by phases over samples.

    Parameters
    ----------
    net : nn.Module
        A network or several (:class:`genad.core.stacking.Members`).
    phases : sequence of Phase
        Run in this order on each batch.
    training : Training
        Every field set.
    seed : int
        Decides batches and noise.
    device : torch.device
        Where the network is.
    after_step : callable, optional
        ``after_step(net, batch)`` after every update, for rule-updated parts.
    verbose : bool
        Show a progress bar.
    title : str
        What the progress bar is called.
    """

    def __init__(
        self,
        net: nn.Module,
        phases: Sequence[Phase],
        training: Training,
        *,
        seed: int,
        device: torch.device,
        after_step: Any = None,
        verbose: bool = False,
        title: str = "training",
    ) -> None:
        self.net, self.phases, self.training = net, list(phases), training
        self.seed, self.device, self.after_step = seed, device, after_step
        self.verbose, self.title = verbose, title
        self.members = net.size if isinstance(net, Members) else 1
        self.groups = [parameters_of(net, phase.modules) for phase in self.phases]
        # An optimiser has less to do with few tensors than with many; parameters of two phases cannot be in both.
        self.merged = net if isinstance(net, Folded) and len(self.phases) == 1 else None
        if self.merged is not None:
            self.groups = [self.merged.merge()]
        self.optimizers = [_optimizer(phase, training, g) for phase, g in zip(self.phases, self.groups, strict=True)]
        self.peaks = [o.param_groups[0]["lr"] for o in self.optimizers]
        # With several phases a backward pass must not leave gradients in parts that another phase owns.
        self.exclusive = len(self.phases) > 1
        self.average = [p.detach().clone() for p in net.parameters()] if training.ema else []
        self.best: list[Tensor] = []
        self.best_loss, self.waited, self.step, self.elapsed = math.inf, 0, 0, 0.0
        self.history: dict[str, list[float]] = {phase.name: [] for phase in self.phases}

    def run(self, samples: Samples) -> TrainingReport:
        """Train and return the report; the network is left in evaluation mode.

        Raises
        ------
        TrainingError
            When a loss stops being finite.
        KeyboardInterrupt
            On Ctrl-C, after the checkpoint (when one is asked for) is written.
        """
        training = self.training
        held_out: Batch | None = None
        if training.patience and len(samples) >= 20:
            samples, held_out = self._hold_out(samples)
        n = len(samples)
        size = min(training.batch_size or n, n)
        total = training.total_updates(n)
        per_round = max(math.ceil(n / size), math.ceil(total / _ROUNDS))
        stream = IndexStream(n, size, self.seed, self.members, self.device)
        begins, watched = last_stage(self.phases, total)
        path = None if training.checkpoint is None else Path(training.checkpoint)
        fingerprint = self._fingerprint(n, total, samples.shape)
        noise = self._resume(path, fingerprint) if path is not None and path.exists() else None
        report = TrainingReport(
            planned=total,
            device=str(self.device),
            samples=n,
            parameters=sum(p.numel() for p in self.net.parameters()),
            history=self.history,
        )
        started = last_saved = time.perf_counter()
        before = self.elapsed
        interrupt = _Interrupt()
        self.net.train()
        with interrupt.watching(), Progress(self.title, total, show=self.verbose) as bar:
            while self.step < total:
                begin = self.step
                end = min((begin // per_round + 1) * per_round, total)
                if noise is None or begin % per_round == 0:
                    torch.manual_seed(self.seed * 7_919 + begin)
                else:
                    torch.set_rng_state(noise)
                noise = None
                sums = torch.zeros(len(self.phases), device=self.device)
                counts = [0] * len(self.phases)
                indices = stream.at(begin, end - begin)
                for row in indices:
                    self._update(self._augmented(samples.batch(row)), total, sums, counts)
                    self.step += 1
                    self.elapsed = before + time.perf_counter() - started
                    out_of_time = training.max_seconds is not None and self.elapsed > training.max_seconds
                    if interrupt.asked or out_of_time:
                        break
                mean = self._read(sums, counts)
                bar.update(self.step, mean)
                whole = self.step == end
                if whole and held_out is not None and self.step > begins and self._no_better(held_out, watched):
                    report.stopped = "early"
                    break
                if interrupt.asked:
                    self._interrupted(path, fingerprint)
                if not whole:
                    report.stopped = "time"
                    break
                if path is not None and time.perf_counter() - last_saved > (training.checkpoint_seconds or 0):
                    self._save(path, fingerprint)
                    last_saved = time.perf_counter()
        self._finish()
        if path is not None:
            path.unlink(missing_ok=True)
        report.updates, report.seconds = self.step, self.elapsed
        report.epochs = self.step * size / n
        return report

    def _augmented(self, batch: Batch) -> Batch:
        augment = self.training.augment
        if augment is None:
            return batch
        if batch.x.ndim != _IMAGE_AXES or batch.mask is not None:
            raise InputError("Training.augment: only images without missing pixels can be augmented; leave it out.")
        return Batch(augment(batch.x))

    def _update(self, batch: Batch, total: int, sums: Tensor, counts: list[int]) -> None:
        if self.members > 1 or isinstance(self.net, Members):
            mask = None if batch.mask is None else batch.mask.unflatten(0, (self.members, -1))
            batch = Batch(batch.x.unflatten(0, (self.members, -1)), mask)
        training = self.training
        for k, phase in enumerate(self.phases):
            if not phase.active(self.step, total):
                continue
            optimizer, group = self.optimizers[k], self.groups[k]
            self._set_rate(optimizer, self.peaks[k], total)
            for _ in range(phase.repeat):
                if self.merged is None:
                    optimizer.zero_grad()
                else:
                    self.merged.begin()
                if training.precision == "bfloat16":
                    with torch.autocast(self.device.type, torch.bfloat16):
                        loss = call(self.net, phase.loss, batch)
                else:
                    loss = call(self.net, phase.loss, batch)
                if self.exclusive:
                    loss.backward(inputs=group)
                else:
                    loss.backward()
                if self.merged is not None:
                    self.merged.collect()
                if training.clip:
                    _clip(self.net, group, training.clip)
                optimizer.step()
                sums[k] += loss.detach()
                counts[k] += 1
        if self.average:
            decay = min(training.ema or 0.0, (1 + self.step) / (10 + self.step))
            torch._foreach_lerp_(self.average, [p.detach() for p in self.net.parameters()], 1 - decay)
        if self.after_step is not None:
            self.after_step(self.net, batch)

    def _set_rate(self, optimizer: torch.optim.Optimizer, peak: float, total: int) -> None:
        rate = peak
        if self.training.schedule == "cosine":
            rate *= 0.5 * (1 + math.cos(math.pi * self.step / total))
        if self.training.warmup and self.step < self.training.warmup:
            rate = peak * (self.step + 1) / self.training.warmup
        optimizer.param_groups[0]["lr"] = rate

    def _read(self, sums: Tensor, counts: list[int]) -> dict[str, float]:
        """Read the losses of a round: the only point where the device is waited for."""
        mean = {}
        for phase, value, count in zip(self.phases, sums.tolist(), counts, strict=True):
            if not count:
                continue
            mean[phase.name] = value / count / self.members
            self.history[phase.name].append(mean[phase.name])
            if not math.isfinite(value):
                raise TrainingError(
                    f"training: the loss of phase {phase.name!r} became {value} by update {self.step}. "
                    "Try training=Training(lr=1e-4, clip=1.0), or look for extreme values in the data."
                )
        return mean

    def _hold_out(self, samples: Samples) -> tuple[Samples, Batch]:
        generator = torch.Generator().manual_seed(self.seed)
        order = torch.randperm(len(samples), generator=generator).to(self.device)
        share = max(1, int(len(samples) * (self.training.validation or 0.1)))
        held = everything(Subset(samples, order[:share]), self.device, _HELD_OUT)
        if isinstance(self.net, Members):
            mask = None if held.mask is None else held.mask.expand(self.members, *held.mask.shape)
            held = Batch(held.x.expand(self.members, *held.x.shape), mask)
        return Subset(samples, order[share:].sort().values), held

    def _no_better(self, held_out: Batch, watched: Phase) -> bool:
        self.net.eval()
        torch.manual_seed(self.seed)
        # Some losses differentiate inside (score matching), so gradients are not switched off here.
        loss = float(call(self.net, watched.loss, held_out).detach()) / self.members
        self.net.train()
        self.history.setdefault("held_out", []).append(loss)
        if loss < self.best_loss:
            self.best_loss, self.waited = loss, 0
            self.best = [p.detach().clone() for p in self.net.parameters()]
        else:
            self.waited += 1
        return self.waited >= (self.training.patience or 0)

    @torch.no_grad()
    def _finish(self) -> None:
        chosen = self.best or self.average
        for parameter, value in zip(self.net.parameters(), chosen, strict=bool(chosen)):
            parameter.copy_(value)
        if self.merged is not None:
            self.merged.part()
        self.net.zero_grad()
        self.net.eval()
        self.net.requires_grad_(requires_grad=False)

    def _interrupted(self, path: Path | None, fingerprint: str) -> None:
        if path is None:
            raise KeyboardInterrupt
        self._save(path, fingerprint)
        raise KeyboardInterrupt(f"training stopped at update {self.step}; run the same fit again to resume from {path}")

    def _fingerprint(self, n: int, total: int, shape: tuple[int, ...]) -> str:
        phases = [phase.name for phase in self.phases]
        sizes = sum(p.numel() for p in self.net.parameters())
        return f"{self.title} n={n} shape={shape} total={total} seed={self.seed} phases={phases} size={sizes}"

    def _save(self, path: Path, fingerprint: str) -> None:
        tensors = {f"state/{name}": value for name, value in self.net.state_dict().items()}
        for k, optimizer in enumerate(self.optimizers):
            tensors |= pack_optimizer(optimizer, f"optimizer{k}")
        for label, values in (("average", self.average), ("best", self.best)):
            tensors |= {f"{label}/{i}": value for i, value in enumerate(values)}
        # The generator's state lets an interrupted round go on with the very noise it would have drawn.
        tensors["noise"] = torch.get_rng_state()
        header = {
            "checkpoint": fingerprint,
            "step": self.step,
            "elapsed": self.elapsed,
            "waited": self.waited,
            "best_loss": self.best_loss if math.isfinite(self.best_loss) else None,
            "history": self.history,
        }
        write_tensors(path, tensors, header)

    def _resume(self, path: Path, fingerprint: str) -> Tensor | None:
        """Take up a checkpoint; return the state of the generator when it was made in the middle of a round."""
        tensors, header = read_tensors(path)
        if header.get("checkpoint") != fingerprint:
            raise ModelFileError(
                f"Training.checkpoint: {path} belongs to another fit (other data, method or settings); "
                "remove it, or name another file."
            )
        self.net.load_state_dict(
            {name.removeprefix("state/"): v for name, v in tensors.items() if name.startswith("state/")}
        )
        for k, optimizer in enumerate(self.optimizers):
            unpack_optimizer(optimizer, f"optimizer{k}", tensors)

        def listed(label: str) -> list[Tensor]:
            count = sum(name.startswith(label + "/") for name in tensors)
            return [tensors[f"{label}/{i}"].to(self.device) for i in range(count)]

        self.average, self.best = listed("average"), listed("best")
        self.step, self.elapsed, self.waited = header["step"], header["elapsed"], header["waited"]
        self.best_loss = math.inf if header["best_loss"] is None else header["best_loss"]
        self.history.update(header["history"])
        return tensors["noise"]
