"""SigLLM's prompter: a language model names the odd values of overlapping windows, and two votes decide."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted
from torch import nn

from genad.core.parameters import check_number, check_whole
from genad.core.progress import Progress
from genad.core.registry import Card, Family, register
from genad.data.kinds import Kind
from genad.foundation.answers import Answer, Status, ask
from genad.foundation.forms import Parsed
from genad.foundation.llm import BudgetExhausted, Cancelled, LanguageModel
from genad.foundation.prompts import Request, load_prompt
from genad.foundation.schema import AnswerError
from genad.representation.prompting import PromptNet
from genad.representation.series.base import Floats, Judged, LanguageSeriesDetector, Track
from genad.representation.series.channel_codes import check_code, code_buffer, code_of, fit_codes, last_normal
from genad.representation.series.digits import DigitCode

# An answer names at most one value in so many of its window: what is common is no anomaly.
_RARE = 10
_NONE = re.compile(r"\[\s*\]|\b(no|none|not any|without)\b", re.IGNORECASE)
# From worst to best: a window is as well answered as its best sample.
_WORST_FIRST: tuple[Status, ...] = ("unasked", "abstained", "fallback", "retried", "repaired", "ok")


def named_values(text: str) -> Parsed:
    """Read the numbers that an answer names; all that is no digit is passed over.

    Raises
    ------
    AnswerError
        When it has no number and does not say that there are none.

    Examples
    --------
    >>> named_values("[12, 340]").value, named_values("No anomalies.").value
    ([12, 340], [])
    >>> named_values("Sure: 12 and 7")
    Parsed(value=[12, 7], repaired=True)
    """
    numbers = [int(digits) for digits in re.findall(r"\d{1,18}", text)]
    if not numbers and not _NONE.search(text):
        raise AnswerError("it names no number; answer with a JSON list, [] when nothing is anomalous")
    return Parsed(numbers, repaired=re.fullmatch(r"\s*\[[\d\s,]*\]\s*", text) is None)


def vote(named: Sequence[Sequence[int]], numbers: NDArray[np.int64], alpha: float) -> tuple[Floats, NDArray[np.bool_]]:
    """Count which values of a window the samples name.

    Parameters
    ----------
    named : sequence of sequences of int
        The values each sample names; one that does not occur in the window vanishes.
    numbers : ndarray of shape (m,)
        The window; every position that holds a named value counts.
    alpha : float
        Share of the samples, rounded up, that must name a value.

    Returns
    -------
    tuple of (ndarray, ndarray of bool), each of shape (m,)
        The share of the samples, and whether it is enough.

    Examples
    --------
    >>> shares, kept = vote([[7, 99], [7], [], [5]], np.array([5, 7, 6, 7]), alpha=0.5)
    >>> shares.tolist(), kept.tolist()
    ([0.25, 0.5, 0.0, 0.5], [False, True, False, True])
    """
    counts = np.sum([np.isin(numbers, list(set(values))) for values in named], axis=0)
    return counts / len(named), counts >= math.ceil(alpha * len(named) - 1e-9)


def padded_intervals(flags: NDArray[np.bool_], padding: int) -> list[tuple[int, int]]:
    """Return runs of flags, each made longer by ``padding`` steps on both sides, those that then touch made one.

    Examples
    --------
    >>> padded_intervals(np.isin(np.arange(20), [3, 8, 18]), 2)
    [(1, 11), (16, 20)]
    """
    near = np.zeros(len(flags) + 2, bool)
    for step in np.flatnonzero(flags).tolist():
        near[1 + max(0, step - padding) : 1 + min(len(flags), step + padding + 1)] = True
    changes = np.flatnonzero(near[1:] != near[:-1])
    return [(int(start), int(stop)) for start, stop in changes.reshape(-1, 2)]


@register(
    Card(
        title="Large language models can be zero-shot anomaly detectors for time series?",
        authors="Alnegheimish, Nguyen, Berti-Equille, Veeramachaneni",
        venue="DSAA",
        year=2024,
        family=Family.LANGUAGE_MODEL,
        kinds=(Kind.SERIES,),
        row="1.2.1-11",
        summary="A language model is asked which values of a window are odd; samples and windows vote.",
        tags=("prompt", "zero-shot", "votes", "digits"),
    )
)
@dataclass(eq=False, repr=False)
class SigLLMPrompter(LanguageSeriesDetector):
    """Score each step by the votes of a language model that is asked which values of a window are anomalous.

    A window is written as whole numbers with commas between them, and the model answers with a list of VALUES, several
    times at temperature 1. A value is kept if at least ``alpha`` of the samples name it, a step if at least ``beta`` of
    the windows that hold it keep its value. The score of a step is the mean share of the samples that name it, and 1
    more when it passes both votes, so that ``threshold=FixedValue(0.99)`` flags what the paper flags;
    :meth:`intervals` are its intervals.

    Values are counted wherever they stand in the window, and a value that does not occur there vanishes. An answer
    without a number that does not say "none" is asked again; a window without one usable answer abstains. The last
    window ends with the series, which in the paper's code may stay unread.

    Each window costs ``samples`` times ``window * (digits + 1)`` tokens read and up to half as many written, for
    ``stride`` new values: by default about 110 tokens read a value, and up to a second with the local model on one
    core, which reads 490 and writes 20 tokens a second. ``aggregate`` divides this, ``budget`` limits it. Fit asks
    about the steps it holds out, a fifth by default.

    **When to use.** With a large model behind a service, on short series, for a first look without any training.

    **When it fails.** With the small local model: asked in words it answers near chance, and what it names are mostly
    frequent values; :class:`SigLLM` reads the same digits and uses the model's likelihood instead. In the paper's
    figures, too, the prompter is far behind the detector (F1 0.223 against 0.525 with Mistral-7B). An odd value that
    also occurs at normal steps cannot be told from these.

    Parameters
    ----------
    digits : int
        Digits of a number, 1 to 9.
    decimals : int, optional
        The paper's coding: this many decimals of the standardised value, however many digits that takes.
    stride : int, optional
        Values from one window to the next; a fifth of the window when absent, as in the paper.
    samples : int
        Answers for each window; 10 in the paper.
    alpha : float
        Share of the samples that must name a value, in (0, 1].
    beta : float
        Share of the windows that must keep a step, in (0, 1].
    padding : int
        Steps that intervals are longer on both sides.
    reference : bool
        Show the model a stretch of normal data first, which doubles what it reads.
    spaced : bool
        Write spaces between digits, for models whose tokens hold several digits.

    Examples
    --------
    >>> import numpy as np
    >>> from genad.foundation.scripted import Scripted
    >>> def largest(messages):
    ...     sequence = messages[-1]["content"].split("<<<sequence")[1].split("sequence>>>")[0]
    ...     return str([max(int(number) for number in sequence.split(","))])
    >>> series = np.sin(np.arange(600) / 3)
    >>> detector = SigLLMPrompter(llm=Scripted(largest), window=50, padding=2).fit(series)
    >>> series[70] = 3.0
    >>> scores = detector.anomaly_score(series)
    >>> float(scores[70]), float(np.median(scores))
    (2.0, 0.0)

    References
    ----------
    Alnegheimish, Nguyen, Berti-Equille and Veeramachaneni (2024), Large language models can be zero-shot anomaly
    detectors for time series?, DSAA.
    """

    digits: int = 3
    decimals: int | None = field(default=None, kw_only=True)
    stride: int | None = field(default=None, kw_only=True)
    samples: int = field(default=5, kw_only=True)
    alpha: float = field(default=0.4, kw_only=True)
    beta: float = field(default=0.5, kw_only=True)
    padding: int = field(default=50, kw_only=True)
    reference: bool = field(default=False, kw_only=True)
    spaced: bool = field(default=False, kw_only=True)

    default_window: ClassVar[int] = 200

    def _check_parameters(self) -> None:
        check_code(self)
        check_whole(self, "samples")
        check_whole(self, "padding", low=0)
        check_number(self, "alpha", "(0, 1]")
        check_number(self, "beta", "(0, 1]")
        if self.stride is not None:
            check_whole(self, "stride")
        super()._check_parameters()

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """Make room for the codes (C, 3) and the normal reference (C, values)."""
        return PromptNet(codes=code_buffer([]), reference=torch.zeros(shape[1], 0, dtype=torch.int64))

    def study_tracks(self, net: Any, model: LanguageModel, tracks: Sequence[Track]) -> None:  # noqa: ARG002 - not asked
        """Choose the digits of each channel, and keep the end of the normal data as reference."""
        codes = fit_codes(self, tracks)
        net.codes = code_buffer(codes).to(self._device)
        net.reference = last_normal(codes, tracks, self.values_in_window).to(self._device)

    def judge_tracks(self, net: Any, model: LanguageModel, tracks: Sequence[Track]) -> list[Judged]:
        """Return the votes on each value."""
        found, total = [], sum(len(self._starts(len(track))) for track in tracks)
        done = 0
        with Progress(f"{self.name} asks about {total} windows", total, show=self.verbose) as progress:
            for track in tracks:
                code = code_of(net.codes, track.channel, padded=False, spaced=self.spaced)
                normal = code.write(net.reference[track.channel].cpu().numpy()).text
                numbers, answered = code.integers(track.values), []
                for start in self._starts(len(track)):
                    window = numbers[start : start + self.values_in_window]
                    answered.append(self._asked(model, code, window, normal))
                    done += 1
                    progress.update(done, {})
                found.append(self._judged(numbers, answered))
        return found

    def intervals(self, X: Any) -> list[tuple[int, int]]:
        """Return the paper's intervals: steps that pass both votes, padded, those that touch made one.

        Parameters
        ----------
        X : array, dataframe, Series or path
            As in :meth:`anomaly_score`.

        Returns
        -------
        list of (int, int)
            Half-open, in steps of ``X``.
        """
        check_is_fitted(self, "net_")
        maps = self.anomaly_map(X)
        passed = np.max(maps.reshape(len(maps), -1), axis=1) >= 1.0
        return padded_intervals(np.asarray(passed), self.padding)

    # ------------------------------------------------------------------ inside

    def _starts(self, n: int) -> list[int]:
        window = self.values_in_window
        step = self.stride or max(1, window // 5)
        last = max(0, n - window)
        return [*range(0, last, step), last]

    def _asked(self, model: LanguageModel, code: DigitCode, window: NDArray[np.int64], normal: str) -> list[Answer]:
        most = max(1, len(window) // _RARE)
        fields = {
            "sequence": code.write(window).text.removesuffix(code.separator),
            "count": len(window),
            "most": most,
            "limit": max(16, len(window) * code.tokens // 2),
        }
        if self.reference:
            fields["reference"] = normal.removesuffix(code.separator)
        prompt = load_prompt("sigllm", "anomalies_with_reference" if self.reference else "anomalies")
        request: Request = prompt.render(**fields)
        answers = []
        for k in range(self.samples):
            try:
                answers.append(ask(model, request, read=named_values, seed=self.seed_ + 1000 * k))
            except (BudgetExhausted, Cancelled) as error:
                answers.append(Answer(None, "unasked", problems=(str(error),)))
        return answers

    def _judged(self, numbers: NDArray[np.int64], answered: Sequence[Sequence[Answer]]) -> Judged:
        """Put the votes of the windows together."""
        n, window = len(numbers), self.values_in_window
        shares, kept, held = np.zeros(n), np.zeros(n), np.zeros(n)
        state = np.zeros(n, int)
        for start, answers in zip(self._starts(n), answered, strict=True):
            place = slice(start, start + window)
            state[place] = np.maximum(state[place], max(_WORST_FIRST.index(answer.status) for answer in answers))
            usable = [answer.value for answer in answers if answer.usable]
            if usable:
                share, enough = vote(usable, numbers[place], self.alpha)
                shares[place] += share
                kept[place] += enough
                held[place] += 1
        known = held > 0
        passed = known & (kept >= np.ceil(self.beta * held - 1e-9))
        scores = np.where(known, shares / np.maximum(held, 1) + passed, np.nan)
        named = [f"named in {share:.0%} of the answers" if share > 0 else "" for share in shares / np.maximum(held, 1)]
        return Judged(scores, [_WORST_FIRST[i] for i in state], named)
