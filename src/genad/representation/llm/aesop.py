"""AESOP: a fast detector on embeddings raises alarms, and a slow reasoner is asked about these alone."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from genad.core.parameters import check_choice, check_flag, check_number, check_whole
from genad.core.registry import Card, Family, register
from genad.data.kinds import Kind
from genad.data.log.adapter import embedded
from genad.data.samples import Samples
from genad.errors import InputError
from genad.foundation.exact_store import ExactStore
from genad.foundation.llm import LanguageModel
from genad.foundation.model import Model
from genad.foundation.store import VectorStore, open_store
from genad.representation.embedders import as_embedder
from genad.representation.llm.aesop_reasoner import CONTINUE, Alarm, Reasoner
from genad.representation.llm.branch_planner import BranchPlanner
from genad.representation.prompting import PromptDetector, PromptNet, Verdicts, from_buffer, padded, to_buffer
from genad.representation.units import lines_of, units_of

_NOBODY = Model("no reasoner")
_SHOWN = 3  # nearest normal observations that the reasoner sees
_CHARACTERS = 2000  # of an observation that are embedded


class MemoryNet(PromptNet):
    """The normal observations: their vectors and texts, and the level of the alarm.

    Attributes
    ----------
    vectors : float32 Tensor of shape (N, d)
        At length 1; no two of the same text, nor equal ones.
    texts : uint8 Tensor
    alarm : float64 Tensor
        Scores above it are alarms.
    typical : float64 Tensor
        Median score of a normal observation.
    mean : float64 Tensor of shape (d,)
    precision : float64 Tensor of shape (d, d)
        Of the vectors, shrunk, for the Mahalanobis distance.
    """

    vectors: Tensor
    texts: Tensor
    alarm: Tensor
    typical: Tensor
    mean: Tensor
    precision: Tensor

    def __init__(self) -> None:
        super().__init__(
            vectors=torch.zeros(0, 1),
            texts=to_buffer([]),
            alarm=torch.zeros((), dtype=torch.float64),
            typical=torch.zeros((), dtype=torch.float64),
            mean=torch.zeros(1, dtype=torch.float64),
            precision=torch.zeros(1, 1, dtype=torch.float64),
        )


@register(
    Card(
        title="Real-Time Anomaly Detection and Reactive Planning with Large Language Models",
        authors="Sinha, Elhafsi, Agia, Foutter, Schmerling, Pavone",
        venue="RSS",
        year=2024,
        family=Family.LANGUAGE_MODEL,
        kinds=(Kind.LOG,),
        row="1.2.1-06",
        summary="Nearest normal embeddings raise alarms at once; a language model is asked about the alarms alone.",
        tags=("log", "text", "llm", "embedding", "knn", "conformal", "retrieval"),
    ),
    name="aesop",
)
@dataclass(eq=False, repr=False)
class AESOP(PromptDetector):
    r"""Raise alarms by distance to normal embeddings, and ask a language model what to do about each alarm.

    Each observation (a line or event of a session) is embedded and compared with the normal ones, without writing a
    word: its score is minus the mean cosine similarity to the nearest, in [-1, 1]. The level of the alarm comes from
    the normal observations alone: each is scored against all others, and the conformal quantile at 1 - ``epsilon`` is
    taken; equal texts, and texts with equal vectors, are remembered once, since an observation that finds itself would
    set the level to -1. A session
    has the score of its most unusual observation, and the map has those of all, above -1.

    For a session above the alarm, and for no other, the reasoner is shown that observation, why it was flagged, and a
    numbered list: 0 continue, or one of the ``fallbacks``. If it decides to continue, the score is lowered to that of a
    typical normal observation; no answer can raise one, so that what the threshold promises holds whatever the
    reasoner says. An answer without a valid decision, or one that comes after ``patience`` steps, becomes the
    conservative fallback, never "continue". After each call :attr:`decisions_` has the decision a session (-1 where
    nothing was asked), :attr:`latencies_` the steps it took, and :attr:`alarms_` whether there was an alarm.

    **When to use.** Streams of short texts whose normal ones can be listed: events, states, descriptions of scenes;
    with a capable model that dismisses alarms, where alarms are costly and answers must come at once.

    **When it fails.** Anomalies of order or number; lines that differ in one decisive number. Texts that follow each
    other are alike, so that ``epsilon`` promises nothing about single steps of a stream. A reasoner as small as the
    local default can neither be trusted to judge nor to keep to the form; then take ``reasoner=False``. First stage on
    lines of BGL: AUROC 0.990 at random, 0.640 by time.

    Not all can stand still while they wait. :func:`~genad.representation.llm.branch_pilot.react` drives a vehicle by a
    ``planner`` whose plans keep every fallback possible for ``patience`` steps. It is a point that accelerates in the
    plane, with boxes as safe sets: the principle of the paper's planner, not its quadrotor.

    Parameters
    ----------
    neighbours : int
        Nearest normal observations that are averaged.
    epsilon : float
        Share of new normal observations that may raise an alarm, in (0, 0.5].
    distance : {"cosine", "mahalanobis"}
        To the nearest observations; or from their mean, as minus a similarity, with a shrunk covariance.
    reasoner : bool
        Whether ``llm`` is asked about alarms; without it, it is the fast stage alone, and no language model is opened.
    task : str
        What the system does, for the reasoner.
    fallbacks : sequence of str
        What can be done instead of continuing.
    conservative : int
        The fallback, from 1, that is taken when no valid decision comes in time.
    step_seconds, patience : float, int
        Length of a step of the system, and steps the reasoner may take.
    planner : BranchPlanner, optional
        Its safe sets are those of the ``fallbacks``, in their order, and its trajectories share ``patience`` steps or
        more. The scores do not depend on it.
    embedder : callable, object with ``embed``, or str
        From a list of texts to an array (texts, dimensions). ``"minilm"`` is the sentence model of
        :mod:`genad.foundation.sentence`; another str is the folder of such a model.
    size : int
        Most observations remembered, evenly spread over more.
    store : str, optional
        Where the memory is searched: in this process when absent, else a Milvus Lite file (``.db``) or the address of
        a server, see :func:`genad.foundation.store.open_store`. The detector itself keeps all it needs to fill it.

    Examples
    --------
    >>> from genad.foundation.scripted import Scripted
    >>> model = Scripted(lambda messages: "The word panic means harm.\nDECISION: 1")
    >>> sessions = [[f"read block {i}", f"write block {i}"] for i in range(500)]
    >>> detector = AESOP(llm=model, embedder=model).fit(sessions)
    >>> len(model.requests), detector.predict([sessions[0], ["kernel panic"]]).tolist(), len(model.requests)
    (0, [1, -1], 1)
    >>> detector.decisions_, detector.reasons_[1].splitlines()[0]
    ([-1, 1], 'The word panic means harm.')

    References
    ----------
    Sinha, Elhafsi, Agia, Foutter, Schmerling and Pavone, Real-time anomaly detection and reactive planning with large
    language models, RSS 2024 (arXiv 2407.08735).
    """

    neighbours: int = 1
    epsilon: float = 0.05
    distance: str = field(default="cosine", kw_only=True)
    reasoner: bool = field(default=True, kw_only=True)
    task: str = field(default="it runs software and writes what it does to a log.", kw_only=True)
    fallbacks: Sequence[str] = field(default=("raise an alarm, so that a person looks at it",), kw_only=True)
    conservative: int = field(default=1, kw_only=True)
    step_seconds: float = field(default=1.0, kw_only=True)
    patience: int = field(default=60, kw_only=True)
    planner: BranchPlanner | None = field(default=None, kw_only=True)
    embedder: Any = field(default="minilm", kw_only=True)
    size: int = field(default=20_000, kw_only=True)
    store: str | None = field(default=None, kw_only=True)

    needs: ClassVar[tuple[str, ...]] = ("chat",)

    # ------------------------------------------------------------------ parameters

    def _check_parameters(self) -> None:
        check_whole(self, "neighbours", "conservative", "patience", "size")
        check_number(self, "epsilon", "(0, 0.5]")
        check_number(self, "step_seconds", "(0, inf)")
        check_choice(self, "distance", ("cosine", "mahalanobis"))
        check_flag(self, "reasoner")
        if isinstance(self.fallbacks, str) or not self.fallbacks or not all(isinstance(f, str) for f in self.fallbacks):
            raise InputError(f"fallbacks: {self.fallbacks!r} was given; use a list of at least one description.")
        if self.conservative > len(self.fallbacks):
            raise InputError(
                f"conservative: {self.conservative!r} was given; there are {len(self.fallbacks)} fallbacks, numbered "
                "from 1."
            )
        if self.planner is not None:
            if not isinstance(self.planner, BranchPlanner):
                raise InputError(f"planner: a {type(self.planner).__name__} was given; use a BranchPlanner or None.")
            self.planner.check_fits(len(self.fallbacks), self.patience, self.step_seconds)
        where = str(self.store)
        if self.store is not None and not (where.endswith((".vectors", ".db")) or "://" in where):
            raise InputError(
                f"store: {self.store!r} was given; use None, a path that ends in .vectors or .db, or the address of a "
                "server."
            )
        as_embedder(self.embedder)
        super()._check_parameters()

    def language_model(self) -> LanguageModel:
        """Return the reasoner."""
        return super().language_model() if self.reasoner else _NOBODY

    @property
    def _reasoner(self) -> Reasoner:
        return Reasoner(self.task, self.fallbacks, self.conservative, self.step_seconds, self.patience)

    # ------------------------------------------------------------------ the memory

    def build(self, shape: tuple[int, ...]) -> nn.Module:  # noqa: ARG002 - texts have no shape
        """Make an empty memory."""
        return MemoryNet()

    def study(self, net: Any, model: LanguageModel, units: Sequence[Any]) -> None:  # noqa: ARG002 - nothing is asked
        """Remember the observations of the training sessions."""
        self._remember(net, [line for unit in units for line in lines_of(unit)])

    def absorb(self, net: Any, samples: Samples) -> None:
        """Remember those of the held-out sessions as well; they are judged by leaving each one out."""
        self._remember(net, [line for unit in units_of(samples) for line in lines_of(unit)])

    def _remember(self, net: Any, lines: Sequence[str]) -> None:
        held = list(from_buffer(net.texts))
        known = set(held)
        fresh = [line for line in dict.fromkeys(line[:_CHARACTERS] for line in lines) if line not in known]
        if fresh:
            found = embedded(fresh, as_embedder(self.embedder)).astype(np.float32)
            vectors = torch.from_numpy(found).to(net.vectors.device)
            texts = held + fresh
            vectors = torch.cat([net.vectors, vectors]) if held else vectors
            # Texts that only differ in what the embedder does not see would find each other when one is left out.
            places = _first_of_each(vectors.cpu().numpy())
            texts, vectors = [texts[i] for i in places.tolist()], vectors[torch.from_numpy(places)]
            if len(texts) > self.size:
                kept = np.linspace(0, len(texts) - 1, self.size).astype(int)
                texts, vectors = [texts[i] for i in kept], vectors[torch.from_numpy(kept)]
            net.texts, net.vectors = to_buffer(texts).to(vectors.device), vectors
        if self.distance == "mahalanobis":
            net.mean, net.precision = _shrunk(net.vectors.double())
        texts = list(from_buffer(net.texts))
        scores = self._scores(net, texts, net.vectors.cpu().numpy(), left_out=True)
        net.alarm = torch.tensor(_quantile(scores, self.epsilon), dtype=torch.float64)
        net.typical = torch.tensor(float(np.median(scores)), dtype=torch.float64)

    def _searched(self, net: Any) -> VectorStore:
        """Return the store that holds the memory, filled once for each state of it."""
        held = self.__dict__
        if held.get("_filled") is not net.vectors:
            vectors, texts = net.vectors.cpu().numpy(), from_buffer(net.texts)
            old: VectorStore | None = held.pop("_store_open", None)
            if old is not None:
                old.close()
            if self.store is None:
                store: VectorStore = ExactStore(vectors.shape[1])
            else:
                # One collection for each content, so that detectors may share a database.
                name = f"aesop_{zlib.crc32(vectors.tobytes()):08x}_{len(texts)}"
                store = open_store(self.store, vectors.shape[1], "cosine", collection=name)
            if store.count() != len(texts):
                store.add(vectors, [str(i) for i in range(len(texts))], [{"text": text} for text in texts])
            held["_store_open"], held["_filled"] = store, net.vectors
        return held["_store_open"]

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy shares: everything but the open store, which it opens itself."""
        return {key: value for key, value in super().__getstate__().items() if key not in ("_store_open", "_filled")}

    # ------------------------------------------------------------------ the fast stage

    def _neighbours(
        self, net: Any, texts: Sequence[str], vectors: NDArray[np.float32], k: int, *, left_out: bool
    ) -> list[list[tuple[str, float]]]:
        """Return for each text its nearest remembered ones with their similarities; itself left out if asked."""
        found = self._searched(net).search(vectors, k + left_out)
        out = []
        for text, payload, distances in zip(texts, found.payload, found.distances.tolist(), strict=True):
            near = [(part["text"], 1.0 - apart) for part, apart in zip(payload, distances, strict=True)]
            out.append([pair for pair in near if not (left_out and pair[0] == text)][:k])
        return out

    def _scores(
        self, net: Any, texts: Sequence[str], vectors: NDArray[np.float32], *, left_out: bool
    ) -> NDArray[np.float64]:
        """Return the score of each observation, higher is more unusual; as if it were not remembered if asked."""
        if self.distance == "mahalanobis":
            apart = vectors.astype(np.float64) - net.mean.cpu().numpy()
            square = np.einsum("nd,de,ne->n", apart, net.precision.cpu().numpy(), apart)
            n = len(net.vectors)
            if left_out and n > 1:
                # What the distance would be had the mean and covariance been taken without the observation.
                square = n / (n - 1) * square / np.maximum(1.0 - square / (n - 1), 1e-9)
            # At the scale of a similarity, so that the two variants are read alike.
            return -1.0 / (1.0 + square / vectors.shape[1])
        near = self._neighbours(net, texts, vectors, self.neighbours, left_out=left_out)
        return np.array([-np.mean([similarity for _, similarity in row]) if row else 1.0 for row in near])

    # ------------------------------------------------------------------ both stages

    def judge(self, net: Any, model: LanguageModel, units: Sequence[Any], *, known: bool) -> Verdicts:
        """Return scores of the fast stage, lowered where the reasoner dismissed the alarm."""
        units = [[line[:_CHARACTERS] for line in lines_of(unit)] for unit in units]
        distinct = list(dict.fromkeys(line for unit in units for line in unit))
        vectors = embedded(distinct, as_embedder(self.embedder), net.vectors.shape[1]).astype(np.float32)
        values = dict(zip(distinct, self._scores(net, distinct, vectors, left_out=known).tolist(), strict=True))
        places = {line: i for i, line in enumerate(distinct)}
        maps = padded([[values[line] + 1.0 for line in unit] for unit in units])
        worst = [max(unit, key=values.__getitem__) for unit in units]
        scores, level = np.array([values[line] for line in worst]), float(net.alarm)
        reasons, status = [""] * len(units), ["ok"] * len(units)
        self.decisions_, self.latencies_ = [-1] * len(units), [0] * len(units)
        self.alarms_ = (scores > level).tolist()
        # Held-out normal sessions are not asked about: an answer could only lower their scores.
        alarms = np.flatnonzero(scores > level).tolist() if self.reasoner and not known else []
        asked = list(dict.fromkeys(worst[i] for i in alarms))
        rows = vectors[[places[line] for line in asked]]
        near = self._neighbours(net, asked, rows, _SHOWN, left_out=False) if asked else []
        raised = [Alarm(line, values[line], level, row) for line, row in zip(asked, near, strict=True)]
        answers = dict(zip(asked, self._reasoner.decide(model, raised), strict=True))
        for i in alarms:
            decision = answers[worst[i]]
            status[i], reasons[i] = decision.status, decision.reason
            self.decisions_[i], self.latencies_[i] = decision.number, decision.steps
            if decision.number == CONTINUE:
                scores[i] = min(scores[i], float(net.typical))
        return Verdicts(scores, reasons, status, maps)

    def nearest(self, X: Any, i: int, k: int = 3) -> list[tuple[str, str, float]]:
        """Return for each observation of session ``i`` its nearest normal ones.

        Parameters
        ----------
        X : Log, Sessions, path or list of sequences
        i : int
            Position of the session.
        k : int
            How many for each observation.

        Returns
        -------
        list of (observation, normal observation, similarity)
            The most unusual observation first.
        """
        check_is_fitted(self, "net_")
        net: Any = self.net_
        units = units_of(self._ingest(X, reset=False).samples)
        if not -len(units) <= i < len(units):
            raise InputError(f"i: {i!r} was given; the data have {len(units)} sessions.")
        lines = list(dict.fromkeys(line[:_CHARACTERS] for line in lines_of(units[i])))
        vectors = embedded(lines, as_embedder(self.embedder), net.vectors.shape[1]).astype(np.float32)
        near = self._neighbours(net, lines, vectors, k, left_out=False)
        order = np.argsort(-self._scores(net, lines, vectors, left_out=False), kind="stable")
        return [(lines[j], text, similarity) for j in order.tolist() for text, similarity in near[j]]

    def expect(self, net: Any, units: Sequence[Any]) -> list[list[str]]:
        """Return sessions with every observation above the alarm replaced by the nearest normal one."""
        units = [[line[:_CHARACTERS] for line in lines_of(unit)] for unit in units]
        distinct = list(dict.fromkeys(line for unit in units for line in unit))
        vectors = embedded(distinct, as_embedder(self.embedder), net.vectors.shape[1]).astype(np.float32)
        scores = self._scores(net, distinct, vectors, left_out=False)
        near = self._neighbours(net, distinct, vectors, 1, left_out=False)
        level = float(net.alarm)
        normal = {
            line: row[0][0] if score > level and row else line
            for line, score, row in zip(distinct, scores.tolist(), near, strict=True)
        }
        return [[normal[line] for line in unit] for unit in units]


def _quantile(scores: NDArray[np.float64], epsilon: float) -> float:
    """Return the conformal quantile: the score of rank ceil((n + 1)(1 - epsilon)), the highest when n is too small."""
    rank = min(int(np.ceil((len(scores) + 1) * (1.0 - epsilon))), len(scores))
    return float(np.sort(scores)[rank - 1])


def _first_of_each(vectors: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the positions of vectors that differ by more than rounding, the first of equal ones, in their order."""
    return np.sort(np.unique(np.round(vectors, 3), axis=0, return_index=True)[1])


def _shrunk(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and precision of vectors, the covariance shrunk to a multiple of the identity."""
    from sklearn.covariance import ledoit_wolf_shrinkage

    mean = vectors.mean(0)
    centred = vectors - mean
    covariance = centred.T @ centred / len(vectors)
    share = float(ledoit_wolf_shrinkage(centred.cpu().numpy(), assume_centered=True)) if len(vectors) > 1 else 1.0
    scale = covariance.diagonal().mean().clamp_min(1e-12)
    shrunk = (1.0 - share) * covariance + max(share, 1e-6) * scale * torch.eye(len(mean), dtype=torch.float64)
    return mean, torch.linalg.inv(shrunk)
