"""The rows of methods that ask a language model: all lines where that is quick, else some of them, drawn at random."""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.log_sets import Job, Split, bgl_lines, hdfs_labelled, hdfs_texts, measured, scored
from genad.foundation.llm import Prompt, TokenScores
from genad.foundation.model import Model

MODEL = "SmolLM2-135M"
# Anomalous sessions and lines whose labels the methods that need some are given, and normal lines beside them.
LABELLED_SESSIONS, LABELLED_LINES, USUAL = 30, 20, 200
# Characters of a session that are read.
_LONGEST = 400


class Even(Model):
    """Knows no language: every text is as probable as any other of so many.

    Parameters
    ----------
    texts : int
    """

    capabilities = frozenset({"log_likelihood"})

    def __init__(self, texts: int) -> None:
        super().__init__("even")
        self.texts = texts

    def log_likelihood(self, texts: Sequence[str], contexts: Sequence[Prompt] | None = None) -> list[TokenScores]:
        """Return one score for each text as a whole."""
        assert contexts is None or len(contexts) == len(texts)
        return [TokenScores(np.array([-math.log(self.texts)]), np.array([[0, len(text)]])) for text in texts]


def hdfs(seed: int, sessions: int) -> Iterator[Job]:
    """Yield what judges the sessions of HDFS by their templates."""
    from genad import Training
    from genad.representation.llm.dabl import DABL
    from genad.representation.llm.line_likelihood import LineLikelihood
    from genad.representation.llm.unstable_logs import UnstableLogs

    whole = hdfs_texts()
    known = len({event for session in whole.train + whole.test for event in session})
    with tempfile.TemporaryDirectory() as folder:
        # Both ways of pooling read the same lines: what one has asked, the other finds.
        kept = Path(folder) / "answers.sqlite"
        for pooled in ("max", "mean"):
            name = f"line_likelihood, {pooled}"
            read = LineLikelihood(score_by=pooled, cache=kept, random_state=seed)
            yield Job("HDFS", f"{name}, {MODEL}", lambda d=read: scored(d, whole))
            counted = LineLikelihood(score_by=pooled, llm=Even(known), random_state=seed)
            yield Job("HDFS", f"{name}, counts alone", lambda d=counted: scored(d, whole))
    for by in ("verdict", "likelihood"):
        detector = DABL(score_by=by, causes=False, random_state=seed)
        yield Job("HDFS", f"dabl, {by} of the tiny model", lambda d=detector: scored(d, whole))
    some = hdfs_labelled(sessions, LABELLED_SESSIONS, seed)
    data = f"HDFS, {sessions} sessions of it ({some.y.sum()} anomalous)"
    modes = {
        "zero_shot": {},
        "few_shot": {"shots": 2},
        "lora": {"training": Training(epochs=3, batch_size=4, lr=1e-3, schedule="constant")},
    }
    for mode, options in modes.items():
        detector = UnstableLogs(mode, longest=_LONGEST, random_state=seed, **options)
        yield Job(data, f"unstable_logs, {mode}, {MODEL}", lambda d=detector: scored(d, some, flags=False))


def bgl_whole(seed: int, *, by_time: bool) -> Iterator[Job]:
    """Yield what judges all lines of BGL."""
    from genad.representation.llm.aesop import AESOP
    from genad.representation.llm.line_likelihood import LineLikelihood
    from genad.representation.llm.log_config_localizer import LogConfigLocalizer

    held = bgl_lines(seed, by_time=by_time)
    split = Split(held.train.sessions("line"), held.test.sessions("line"), held.y)
    data = f"BGL_2k, {'by time' if by_time else 'at random'}"
    every = {
        f"line_likelihood, {MODEL}": LineLikelihood(random_state=seed),
        "line_likelihood, counts alone": LineLikelihood(llm=Even(len(held.train.miner)), random_state=seed),
        "aesop, first stage (MiniLM)": AESOP(reasoner=False, random_state=seed),
        "log_config_localizer, first stage (words)": LogConfigLocalizer(random_state=seed),
    }
    for name, detector in every.items():
        yield Job(data, name, lambda d=detector: scored(d, split))


def bgl_some(seed: int, lines: int, patience: float) -> Iterator[Job]:
    """Yield what judges some lines of BGL, with plain rivals on the same lines.

    A few anomalous lines, which are not judged, have labels for the methods that need some.
    """
    from genad.data.log import Log
    from genad.foundation.llm import Budget, Meter, open_model
    from genad.representation.llm.aesop import AESOP
    from genad.representation.llm.log_prompt import LogPrompt
    from genad.representation.llm.unstable_logs import UnstableLogs
    from genad.representation.logs.template_counts import TemplateCountPCA

    held, rng = bgl_lines(seed, by_time=False), np.random.default_rng([seed, 1])
    # A third of the judged lines is anomalous, where chance would leave too few to rank methods by.
    odd, rest = (rng.permutation(np.flatnonzero(held.y == label)) for label in (1, 0))
    odd, third = odd[:LABELLED_LINES], odd[LABELLED_LINES : LABELLED_LINES + lines // 3]
    judged = np.sort(np.concatenate([third, rest[: lines - len(third)]]))
    usual = np.sort(rng.permutation(len(held.train))[:USUAL])
    normal, known = [list(log.message[rows]) for log, rows in ((held.train, usual), (held.test, odd))]
    labels = np.repeat([0, 1], [len(normal), len(known)])
    test, y = held.test.take(judged), held.y[judged]
    labelled = Split(Log.from_messages(normal + known).sessions("line"), test.sessions("line"), y, labels)
    split = Split(held.train.sessions("line"), test.sessions("line"), y)
    few = Split(Log.from_messages(normal[:: USUAL // 50]).sessions("line"), test.sessions("line"), y)
    data = f"BGL_2k, at random, {lines} lines of it ({y.sum()} anomalous)"
    yield Job(data, "unseen template", lambda: measured(test.unseen.astype(float), None, y))
    yield Job(data, "template_count_pca", lambda: scored(TemplateCountPCA(random_state=seed), split, flags=False))
    yield Job(data, f"log_prompt, cot, {MODEL}", lambda: scored(LogPrompt(random_state=seed), few, flags=False))

    def written() -> dict[str, Any]:
        detector = LogPrompt(score_by="label", random_state=seed)
        row = scored(detector, few, flags=False)
        states = Counter(detector.status_)
        said = ", ".join(f"{state} {count}" for state, count in sorted(states.items()))
        return row | {"remark": f"{row.pop('remark', 'answers')}; {said}"}

    yield Job(data, f"log_prompt, cot, label as written, {MODEL}", written)
    shown = LogPrompt("in_context", random_state=seed)
    yield Job(data, f"log_prompt, in_context, {MODEL}", lambda: scored(shown, labelled, flags=False))
    for mode in ("zero_shot", "few_shot", "lora"):
        detector = UnstableLogs(mode, longest=_LONGEST, random_state=seed)
        yield Job(data, f"unstable_logs, {mode}, {MODEL}", lambda d=detector: scored(d, labelled, flags=False))

    def both() -> dict[str, Any]:
        model = open_model(meter=Meter(Budget(seconds=patience)))
        task = "a supercomputer runs jobs, and its nodes write what happens to a log."
        detector = AESOP(llm=model, task=task, random_state=seed)
        row = scored(detector, split, flags=False)
        decisions, states = np.array(detector.decisions_), Counter(detector.status_)
        said = f"{(decisions >= 0).sum()} alarms, {(decisions == 0).sum()} dismissed"
        return row | {"remark": f"{said}; answers not in time: {states['unasked']}, unreadable: {states['fallback']}"}

    yield Job(data, f"aesop, both stages (MiniLM, {MODEL})", both)
