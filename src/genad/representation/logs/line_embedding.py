"""Embeddings of log lines: what means something unlike all that was seen is anomalous."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from genad.core.parameters import check_flag
from genad.core.registry import Card, Family, register
from genad.data.adapters import Adapter
from genad.data.kinds import Kind
from genad.data.log.adapter import EmbeddingAdapter
from genad.density.implicit.nearest_memory import NearestMemory
from genad.representation.embedders import as_embedder
from genad.representation.logs.session_detector import SessionDetector

# Vectors of length 1 closer than this are of one text, whatever else was embedded along with it.
_SAME = 1e-3


@register(
    Card(
        title="Sentence-BERT: Sentence Embeddings using Siamese BERT-Networks",
        authors="Reimers, Gurevych",
        venue="EMNLP",
        year=2019,
        family=Family.MEMORY,
        kinds=(Kind.LOG,),
        summary="Embed the lines by a sentence model and score the distance to the nearest normal ones.",
        tags=("log", "text", "embedding", "knn", "baseline"),
    )
)
@dataclass(eq=False, repr=False)
class LineEmbedding(SessionDetector, NearestMemory):
    """Score a session by the distance of its mean embedding to the nearest remembered normal ones.

    The templates (or the messages) of a session are turned into vectors of length 1 by a sentence model, their mean
    stands for the session, and the score is the mean Euclidean distance to the ``neighbours`` nearest normal sessions,
    divided by the square root of the dimensions. Sessions of one line each (``log.sessions("line")``) judge lines.
    An unseen template is no alarm by itself: it counts by how far its meaning is from what is known. The map is on the
    dimensions of the embedding; :meth:`nearest` shows the remembered sessions behind a score.

    **When to use.** Templates that change with each release; few normal lines; as the fast stage before a language
    model. Lines of BGL with MiniLM: AUROC 0.979 when half of the normal lines, at random, are remembered.

    **When it fails.** When normal lines to come mean something new: AUROC 0.684 on the second half of the same log
    after the first, still ahead of the rivals that know templates alone (0.62 to 0.66). Anomalies of order or
    number, which hardly move the mean; lines that differ in one decisive number or name.

    Parameters
    ----------
    neighbours, size
        As for :class:`~genad.density.implicit.nearest_memory.NearestMemory`.
    embedder : callable, object with ``embed``, or str
        From a list of texts to an array (texts, dimensions). ``"minilm"`` is the sentence model of
        :mod:`genad.foundation.sentence`; another str is the folder of such a model. A detector can be saved when it is
        a str.
    raw : bool
        Embed the messages as they stand and not their templates; slower, since many more differ.

    Examples
    --------
    >>> def embed(texts):
    ...     return [[text.count("a"), text.count("e"), len(text)] for text in texts]
    >>> sessions = [["read", "seek"], ["seek", "write"], ["read", "write"]] * 200
    >>> detector = LineEmbedding(embedder=embed).fit(sessions)
    >>> detector.anomaly_score([["seek", "read"], ["panic", "alarm"]]).round(2).tolist()
    [0.0, 0.16]

    References
    ----------
    Reimers and Gurevych, Sentence-BERT: sentence embeddings using Siamese BERT-networks, EMNLP 2019 (the embeddings;
    the distance to the nearest ones is older).
    """

    embedder: Any = field(default="minilm", kw_only=True)
    raw: bool = field(default=False, kw_only=True)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_flag(self, "raw")
        as_embedder(self.embedder)

    def session_adapter(self) -> Adapter:
        """Return the unfitted bridge from sessions to their embeddings."""
        return EmbeddingAdapter(embed=as_embedder(self.embedder), raw=self.raw)

    def set_fitted_state(self, state: dict[str, Any]) -> None:
        """Put back what ``fitted_state`` returned, and the embedder by its name."""
        super().set_fitted_state(state)
        self.adapter_.embed = as_embedder(self.embedder)  # type: ignore[attr-defined]

    def _pass_over(self, distance: Tensor, index: Tensor, k: int, *, known: bool) -> tuple[Tensor, Tensor]:
        return super()._pass_over(torch.where(distance < _SAME, 0.0, distance), index, k, known=known)
