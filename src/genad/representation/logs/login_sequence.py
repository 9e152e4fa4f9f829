"""Histories of users: a recurrent network foretells each field of the next login; surprising ones are anomalous."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from genad.core.inference import Answer, Inference, Want
from genad.core.parameters import check_number, check_whole
from genad.core.registry import Card, Family, register
from genad.core.training import Training, TrainingReport
from genad.data.adapters import Adapter, Loaded
from genad.data.kinds import Kind
from genad.data.log import Log, as_sessions, read_log
from genad.data.log.adapter import FIRST_EVENT, PADDING, UNSEEN_EVENT
from genad.data.log.fields import EVENT, GAP, GROUP, HOUR, USER, FieldAdapter, usual_user
from genad.data.samples import Batch, Samples, iterate
from genad.errors import InputError
from genad.representation.logs.history_net import HistoryNet
from genad.representation.logs.session_detector import SessionDetector

# Records in one pass of the heads, and what passes and sessions are filled up to, so that products take the same path.
_PASS, _ALIGN, _STEPS = 4096, 64, 16
# Times that a value must be in the training sessions to be more than a rare one.
_OFTEN = 2
# Smallest spread of surprise, in nats.
_STEADIEST = 0.25
# Median absolute deviations in a standard deviation.
_MAD = 1.4826
# Share of the training records whose value of a field is as expected.
_EXPECTED = 0.99
# One in so many records of a session counts at most.
_SHARE = 3


@register(
    Card(
        title="Recurrent Neural Network Language Models for Open Vocabulary Event-Level Cyber Anomaly Detection",
        authors="Tuor, Baerwolf, Knowles, Hutchinson, Nichols, Jasper",
        venue="AAAI Workshops",
        year=2018,
        family=Family.RECURRENT,
        kinds=(Kind.LOG,),
        summary="A recurrent network foretells when, where and how a user logs in next; scores what it did not.",
        tags=("log", "sequence", "login", "user", "security"),
    ),
    name="login_sequence",
)
@dataclass(eq=False, repr=False)
class LoginSequenceModel(SessionDetector):
    """Score a stretch of a user's history by its most surprising records, each against what is usual for that user.

    A record is read field by field: how long after the one before, at which hour, what, and each further field of
    the log. A GRU reads the user's records so far, and the surprise of a record is the sum over its fields of
    ``-log p(field | history, user, peers, fields before it)``; gaps have a mixture of log-normal densities. Median
    and deviation of a user's surprise bring all users to one scale. They are those of the group of peers as far as
    a user has few records, and those of everybody as far as a group has few. A session's score is the mean of its
    ``top`` highest records, of at most a third of them. Training now and then hides who acts, and even the group,
    so that someone new is expected to do what peers do. A value that is in the training sessions once is one with
    those that never are: how often peers come up with something new, and with how much, decides how far that
    surprises. The map has what each record's fields exceed their usual surprise by; the reasons name the field; in
    the restored session unexpected fields are the likely ones.

    A log with a field of users is cut into stretches of ``longest`` records of one user. Without users, times and
    fields, what is left is a recurrent model of events.

    **When to use.** Logins, accesses and transactions of many accounts, each with habits of its own. Services
    behave unlike people: give them a ``group``. Fit on the past and judge what comes after; ``calibrate`` on recent
    days. In a trial on :func:`~genad.data.log.logins.simulate_logins` (60 users, two weeks learnt, six days judged
    with 30 attacks, 3 seeds) AUROC / AP of stretches are 0.888 / 0.725; counts of ``"host>destination result"``
    under :class:`~genad.TemplateCountPCA` have 0.835 / 0.581, and such events under :class:`~genad.DeepLog`, with
    one seed, 0.724 / 0.491 where this model has 0.918 / 0.842. The rule for short stretches and the shared
    probability of rare values were chosen with AUROCs of other made-up sessions in view.

    **When it fails.** An intruder who does what the user does, or little of what he does not: in the same trial a
    day's theft of an account has AUROC 0.918, lateral movement 0.886, and work at night from the own computer
    0.870, since five odd records among sixty are little; shorter stretches point better. Accounts that several
    people share; a change of habits, which is flagged until the model is fitted anew. With so few stretches as
    there (about 130 learnt from) alpha = 0.01 cannot be promised, and next to nothing is flagged. Anomalies must be
    rare in what it learns from.

    Parameters
    ----------
    user, group : str, optional
        Fields of the log: who acts, found by common names when absent, and the peers (a department, a role), none when
        absent.
    fields : sequence of str, optional
        Further fields to read; all that the log has when absent.
    top : int
        Records of a session that its score is the mean of, at most; fewer of one with less than three times as many.
    few : int
        Records that a user needs for his own surprise to count as much as that of the peers.
    longest : int
        Records of a session when a log is given, and of a stretch in training.
    hidden, embedding, components : int
        Sizes of the network: of its state, of what stands for a value, and of the mixture of gaps.
    hide : float
        Share of users, groups and past values that training hides, in [0, 1).
    values : int
        Values of a field that are told apart, the most frequent ones.

    Examples
    --------
    >>> users = [f"u{i % 10}" for i in range(9000)]
    >>> log = Log.from_messages(["logon"] * 9000, user=users, host=[f"pc-{user}" for user in users])
    >>> settings = {"longest": 16, "hidden": 16, "training": Training(updates=100, lr=1e-2)}
    >>> detector = LoginSequenceModel(**settings).fit(log)
    >>> day = Log.from_messages(["logon"] * 4, user=["u3"] * 4, host=["pc-u3", "pc-u3", "pc-u7", "pc-u3"])
    >>> detector.detect(day).why(0)[0]
    "event 3: host 'pc-u7', where 'pc-u3' was expected"

    References
    ----------
    Tuor, Baerwolf, Knowles, Hutchinson, Nichols and Jasper, Recurrent neural network language models for open
    vocabulary event-level cyber anomaly detection, AAAI workshops 2018 (a language model of each user's events;
    factorising a record by its fields, gaps and peers are additions).
    """

    user: str | None = None
    group: str | None = None
    fields: Sequence[str] | None = None
    top: int = 3
    few: int = field(default=50, kw_only=True)
    longest: int = field(default=64, kw_only=True)
    hidden: int = field(default=64, kw_only=True)
    embedding: int = field(default=16, kw_only=True)
    components: int = field(default=3, kw_only=True)
    hide: float = field(default=0.1, kw_only=True)
    values: int = field(default=4096, kw_only=True)

    defaults: ClassVar[Training] = Training(
        epochs=30, min_updates=300, max_updates=400, batch_size=32, lr=3e-3, clip=1.0
    )

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_whole(self, "top", "few", "longest", "hidden", "embedding", "components", "values")
        check_number(self, "hide", "[0, 1)")
        for name in ("user", "group"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise InputError(f"{name}: {value!r} was given; use the name of a field of the log, or None.")
        listed = isinstance(self.fields, list | tuple) and all(isinstance(name, str) for name in self.fields)
        if self.fields is not None and not listed:
            raise InputError(f"fields: {self.fields!r} was given; use a list of names of fields of the log, or None.")

    # ------------------------------------------------------------------ what it reads

    def session_adapter(self) -> Adapter:
        """Return the unfitted bridge from records to samples."""
        return FieldAdapter(user=self.user, group=self.group, chosen=self.fields, most=self.values)

    def _ingest(self, X: Any, *, reset: bool, y: Any = None) -> Loaded:
        if isinstance(X, str) or hasattr(X, "__fspath__"):
            X = read_log(X)
        if isinstance(X, Log):
            user = self.user or usual_user(list(X.fields_by_name()))
            X = X.sessions() if user not in X.fields_by_name() else X.sessions(field=user, most=self.longest)
        return super()._ingest(as_sessions(X), reset=reset, y=y)

    # ------------------------------------------------------------------ learning

    def build(self, shape: tuple[int, ...]) -> nn.Module:  # noqa: ARG002 - any length of session will do
        """Make a network for the values of each field."""
        sizes = [len(values) for values in self.adapter_.values]  # type: ignore[attr-defined]
        return HistoryNet(sizes, self.embedding, self.hidden, self.components)

    def optimise(self, net: Any, samples: Samples) -> TrainingReport:
        """Count values and measure gaps before the training, which looks at them."""
        counts = torch.zeros(net.seen.shape, dtype=torch.int64, device=net.seen.device)
        gaps = []
        for _, batch in iterate(samples, self._block(samples.shape)):
            codes = net.codes(batch.x).flatten(0, -2)
            for k, column in enumerate(codes.unbind(-1)):
                counts[k] += torch.bincount(column, minlength=counts.shape[1])
            gap = net.gap_of(batch).flatten(0, -2)
            gaps.append(gap[gap[:, 1] > 0, 0])
        net.seen = counts >= _OFTEN
        rare = (counts > 0) & ~net.seen
        net.rare = rare[2:, FIRST_EVENT:].sum(1).to(net.rare.dtype).log1p()
        net.seen[:, :FIRST_EVENT] = True
        gap = torch.cat(gaps)
        if len(gap) > 1:
            net.gaps = torch.stack([gap.mean(), gap.std().clamp_min(1e-3)])
        return super().optimise(net, samples)

    def loss(self, net: Any, batch: Batch) -> Tensor:
        """Return the mean surprise of the records of a stretch of each session."""
        batch = self._stretches(batch)
        codes, gap, there = net.codes(batch.x), net.gap_of(batch), batch.x[..., EVENT] != PADDING
        past = codes
        if self.hide:
            shape = codes.shape
            hidden = torch.rand(shape, device=codes.device) < self.hide
            # Who acts is hidden for a whole session, and the group only together with the user.
            user = torch.rand(shape[0], device=codes.device) < self.hide
            hidden[..., USER] = user[:, None]
            hidden[..., GROUP] = (user & (torch.rand(shape[0], device=codes.device) < self.hide))[:, None]
            past = torch.where(hidden & (codes != PADDING), UNSEEN_EVENT, codes)
        context, added = net.contexts(past, gap)
        found, _ = net.surprise(context[there], [part[there] for part in added], gap[there], codes[there][:, 2:])
        return found.sum(1).mean()

    def _stretches(self, batch: Batch) -> Batch:
        """Return so many records in a row of each session as training looks at, from a random place of long ones."""
        length = batch.x.shape[1]
        if length <= self.longest:
            return batch
        room = (batch.x[..., EVENT] != PADDING).sum(1) - self.longest
        first = (torch.rand(len(batch), device=batch.x.device) * (room.clamp_min(0) + 1)).long()
        places = first[:, None] + torch.arange(self.longest, device=batch.x.device)
        rows = torch.arange(len(batch), device=batch.x.device)[:, None]
        return Batch(batch.x[rows, places], None if batch.mask is None else batch.mask[rows, places])

    def finish(self, net: Any, samples: Samples) -> None:
        """Learn what surprise is usual: of each field, each user, each group and everybody."""
        found, owners = [], []
        for _, batch in iterate(samples, self._block(samples.shape)):
            surprise, _, codes, there = self._read(net, batch)
            found.append(surprise[there].cpu().numpy())
            owners.append(codes[there][:, :2].cpu().numpy())
        nats, who = np.concatenate(found), np.concatenate(owners)
        net.typical = torch.from_numpy(np.median(nats, 0)).to(net.typical)
        net.limits = torch.from_numpy(np.quantile(nats, _EXPECTED, 0)).to(net.limits)
        total = nats.sum(1)
        middle = np.median(total)
        everybody = np.array([[middle], [_MAD * np.median(np.abs(total - middle))]])
        groups = _shrunk(total, who[:, GROUP], np.repeat(everybody, net.groups.shape[1], 1), self.few)
        peers = np.full(net.users.shape[1], UNSEEN_EVENT)
        peers[who[:, USER]] = who[:, GROUP]
        users = _shrunk(total, who[:, USER], groups[:, peers], self.few)
        net.groups, net.users = (torch.from_numpy(part).to(net.users) for part in (groups, users))

    # ------------------------------------------------------------------ judging

    def _read(self, net: Any, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return surprise and likely values (B, T, 1 + facts), codes, and where there are records (B, T)."""
        steps = batch.x.shape[1]
        room = (0, 0, 0, -steps % _STEPS)
        filled = Batch(F.pad(batch.x, room), None if batch.mask is None else F.pad(batch.mask, room))
        codes, gap = net.codes(filled.x), net.gap_of(filled)
        there = filled.x[..., EVENT] != PADDING
        context, added = net.contexts(codes, gap)
        rows = there.nonzero()
        rows = torch.cat([rows, rows[-1:].expand(-len(rows) % _ALIGN, -1)])
        parts = []
        for part in rows.split(_PASS):
            at = part.unbind(1)
            parts.append(net.surprise(context[at], [step[at] for step in added], gap[at], codes[at][:, 2:]))
        n = int(there.sum())
        surprise, likely = (torch.cat(values)[:n] for values in zip(*parts, strict=True))

        def spread(values: Tensor) -> Tensor:
            return values.new_zeros(*there.shape, values.shape[1]).masked_scatter(there[..., None], values)[:, :steps]

        return spread(surprise), spread(likely), codes[:, :steps], there[:, :steps]

    def infer(self, net: Any, batch: Batch, want: frozenset[Want]) -> Inference:
        """Compute score, map and restored session from one pass."""
        surprise, likely, codes, there = self._read(net, batch)
        user, group = codes[..., USER], codes[..., GROUP]
        usual = torch.where(user >= FIRST_EVENT, net.users[:, user], net.groups[:, group])
        above = torch.where(there, (surprise.sum(2) - usual[0]) / usual[1], -torch.inf)
        highest = above.topk(min(self.top, above.shape[1]), 1).values
        # Of a short session fewer count, or what is usual in it would outweigh what is not.
        most = (there.sum(1, keepdim=True) // _SHARE).clamp(1, self.top)
        counted = highest.isfinite() & (torch.arange(highest.shape[1], device=highest.device) < most)
        score = torch.where(counted, highest, 0.0).sum(1) / counted.sum(1).clamp_min(1)
        if not want:
            return Inference(score)
        excess = (surprise - net.typical).clamp_min(0) / usual[1][..., None]
        where = F.pad(torch.where(there[..., None], excess, 0.0), (GAP, 0))
        missing = torch.zeros_like(batch.x, dtype=torch.bool) if batch.mask is None else ~batch.mask
        odd = surprise > net.limits
        odd[..., EVENT - GAP] |= codes[..., EVENT - 1] == UNSEEN_EVENT
        odd &= ~missing[..., GAP:]
        restored = torch.cat([batch.x[..., :GAP], torch.where(odd, likely, batch.x[..., GAP:])], 2)
        return Inference(score, where, restored)

    def _answer(self, samples: Samples, *want: Want) -> Answer:
        """Note in ``reasons_`` which field makes the most telling record of each session unexpected."""
        answer = super()._answer(samples, *want)
        self.reasons_: list[str] = []
        if answer.maps is not None and answer.restored is not None:
            self.reasons_ = self._reasons(samples, answer.maps, answer.restored)
        return answer

    def _reasons(self, samples: Samples, maps: NDArray[Any], restored: NDArray[Any]) -> list[str]:
        adapter: Any = self.adapter_
        reasons = [""] * len(maps)
        record = maps.sum(2).argmax(1)
        column = maps[np.arange(len(maps)), record].argmax(1)
        names = {GAP: "time since the event before", HOUR: "hour", EVENT: "event"}
        names |= {EVENT + 1 + k: name for k, name in enumerate(adapter.fields)}
        for rows in np.array_split(np.arange(len(maps)), max(1, len(maps) // self._block(samples.shape))):
            values = samples.batch(torch.from_numpy(rows).to(self._device)).x.cpu().numpy()
            for i, value in zip(rows.tolist(), values, strict=True):
                t, place = int(record[i]), int(column[i])
                if value[t, place] == restored[i, t, place]:
                    continue
                said, hoped = (adapter.said(place, float(v[t, place])) for v in (value, restored[i]))
                what = f"{names[place]} {said!r}" if said else f"{names[place]} never learnt"
                reasons[i] = f"event {t + 1}: {what}, where {hoped!r} was expected"
        return reasons


def _shrunk(
    values: NDArray[Any], owners: NDArray[np.int64], prior: NDArray[np.float64], few: int
) -> NDArray[np.float64]:
    """Return median and spread of the values of each owner, drawn to a prior (2, owners) as if it were ``few`` values.

    Examples
    --------
    >>> values, owners = np.array([1.0, 2.0, 3.0, 9.0]), np.array([0, 0, 0, 1])
    >>> _shrunk(values, owners, np.array([[5.0, 5.0, 5.0], [1.0, 1.0, 1.0]]), few=3).round(2).tolist()
    [[3.5, 6.0, 5.0], [1.24, 0.75, 1.0]]
    """
    n = prior.shape[1]
    counts = np.bincount(owners, minlength=n)
    middle = _medians(values, owners, counts)
    spread = _MAD * _medians(np.abs(values - middle[owners]), owners, counts)
    own = counts / (counts + few)
    found = own * np.stack([middle, spread]) + (1 - own) * prior
    return np.stack([found[0], np.maximum(found[1], _STEADIEST)])


def _medians(values: NDArray[Any], owners: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the lower median of the values of each owner, 0 for one without any."""
    ordered = values[np.lexsort((values, owners))]
    places = np.cumsum(counts) - counts + (counts - 1).clip(0) // 2
    return np.where(counts > 0, ordered[places.clip(max=len(ordered) - 1)], 0.0)
