"""SigLLM's detector: a language model reads a series digit by digit, and what it did not expect is anomalous."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from genad.core.parameters import check_choice, check_number, check_whole
from genad.core.progress import Progress
from genad.core.registry import Card, Family, register
from genad.data.kinds import Kind
from genad.errors import InputError
from genad.foundation.answers import ask
from genad.foundation.forms import Parsed
from genad.foundation.llm import BudgetExhausted, Cancelled, LanguageModel
from genad.foundation.prompts import load_prompt
from genad.foundation.schema import AnswerError
from genad.representation.prompting import PromptNet
from genad.representation.series.base import Floats, Judged, LanguageSeriesDetector, Track, filled, smoothed
from genad.representation.series.channel_codes import check_code, code_buffer, code_of, fit_codes, last_normal
from genad.representation.series.digits import DigitCode

Integers = NDArray[np.int64]

# Texts asked about at once: enough to fill a batch of the local model, few enough to stop soon when a budget is spent.
_AT_ONCE = 8
# Values' worth of tokens of a forecast, of which only the first are kept: room for a model that begins with a comma.
_WRITTEN = 5


@register(
    Card(
        title="Large language models can be zero-shot anomaly detectors for time series?",
        authors="Alnegheimish, Nguyen, Berti-Equille, Veeramachaneni",
        venue="DSAA",
        year=2024,
        family=Family.LANGUAGE_MODEL,
        kinds=(Kind.SERIES,),
        row="1.2.1-11",
        summary="A language model reads a series as digits; a step is as anomalous as its digits are surprising.",
        tags=("likelihood", "zero-shot", "forecast", "digits"),
    )
)
@dataclass(eq=False, repr=False)
class SigLLM(LanguageSeriesDetector):
    """Score each step by how surprising its digits are to a language model that has read the steps before.

    Each channel is written as whole numbers of a few digits with commas between them, digit by digit a token. With
    ``score_by="likelihood"`` the score of a step is the surprise of its number and the comma after it, in nats:

        s_t = -sum_k log p(digit_k of x_t | digits before it, the numbers before it)

    added up over the channels and smoothed over time. The model is not trained: fit learns the range of the digits and
    keeps the end of the normal data as what the model reads before the first steps of a new series. With
    ``score_by="forecast"`` it is the paper's detector: ``samples`` continuations are drawn, of digits and commas alone
    where the model can be held to them, the first ``keep`` numbers of each are read, and the score is the distance from
    their median. The paper's rule for flags is replaced by the calibrated threshold; its likelihood variant is genad's.

    A likelihood costs ``(digits + 1) / (1 - overlap)`` tokens read a value, 6 by default: on one core about 80 steps a
    second with the local model where it reads 490 tokens a second. A forecast costs ``window * (digits + 1)`` tokens
    read and ``samples * 5 * (digits + 1)`` written for every ``keep`` values: seconds a step. ``aggregate`` divides
    both, ``budget`` limits them. Fit judges the steps it holds out, a fifth by default.

    **When to use.** No normal data to train on to speak of, one or a few channels, patterns that repeat: the model
    picks up periods from the context alone. With the local model nothing leaves the machine.

    **When it fails.** Patterns longer than the window; many channels, each of which is read by itself, so that broken
    relations between them go unseen; slow drifts, which every step continues. A stretch that stays wrong becomes
    expected after some steps. On 21 NAB files with the local model the mean AUROC was 0.521, against 0.537 of the
    distance from the last value and 0.576 of the seasonal naive: it is behind both.

    Parameters
    ----------
    score_by : {"likelihood", "forecast"}
        Needs a model with ``"log_likelihood"``, or one that writes.
    digits : int
        Digits of a number, 1 to 9: the range of normal values takes half of the numbers there are, and values beyond
        half its width above or below are written as the highest or lowest. On noisy sines 2 digits did as well as 3.
    decimals : int, optional
        The paper's coding: this many decimals of the standardised value, however many digits that takes.
    overlap : float
        Share of a window that is only read, as context of the rest, in (0, 1).
    smoothing : float
        Span of the exponentially weighted mean over time, as a share of the training steps, at least 0.
    samples : int
        Forecasts of a step.
    keep : int
        Numbers of a forecast that are used, 1 to 5; more is cheaper by as much and looks further ahead.
    spaced : bool
        Write spaces between digits, for models whose tokens hold several digits.

    Examples
    --------
    >>> import numpy as np
    >>> from genad import Conformal
    >>> t = np.arange(260)
    >>> series = np.sin(t / 3) + 0.05 * np.random.default_rng(0).normal(size=260)
    >>> detector = SigLLM(window=40, smoothing=0.0, threshold=Conformal(alpha=0.1)).fit(series[:200])
    >>> series[235] += 2.0
    >>> int(detector.anomaly_score(series[200:]).argmax())
    35

    References
    ----------
    Alnegheimish, Nguyen, Berti-Equille and Veeramachaneni (2024), Large language models can be zero-shot anomaly
    detectors for time series?, DSAA.
    Gruver, Finzi, Qiu and Wilson (2023), Large language models are zero-shot time series forecasters, NeurIPS.
    """

    score_by: str = "likelihood"
    digits: int = 2
    decimals: int | None = field(default=None, kw_only=True)
    overlap: float = field(default=0.5, kw_only=True)
    smoothing: float = field(default=0.01, kw_only=True)
    samples: int = field(default=5, kw_only=True)
    keep: int = field(default=1, kw_only=True)
    spaced: bool = field(default=False, kw_only=True)

    default_window: ClassVar[int] = 140

    @property
    def needs(self) -> tuple[str, ...]:  # type: ignore[override]
        """What the model must be able to do."""
        return ("chat",) if self.score_by == "forecast" else ("log_likelihood",)

    def _check_parameters(self) -> None:
        check_choice(self, "score_by", ("likelihood", "forecast"))
        check_code(self)
        check_number(self, "overlap", "(0, 1)")
        check_number(self, "smoothing", "[0, 1]")
        check_whole(self, "samples", "keep")
        if self.keep > _WRITTEN:
            raise InputError(f"keep: {self.keep!r} was given; use at most {_WRITTEN}.")
        super()._check_parameters()

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """Make room for the codes (C, 3), the normal context (C, values) and the span of the smoothing."""
        empty = torch.zeros(shape[1], 0, dtype=torch.int64)
        return PromptNet(codes=code_buffer([]), context=empty, span=torch.ones(()))

    def study_tracks(self, net: Any, model: LanguageModel, tracks: Sequence[Track]) -> None:  # noqa: ARG002 - not asked
        """Choose the digits of each channel, and keep the end of the normal data as context."""
        codes = fit_codes(self, tracks)
        values = sum(len(track) for track in tracks if track.channel == 0)
        net.codes = code_buffer(codes).to(self._device)
        net.context = last_normal(codes, tracks, self._read_only).to(self._device)
        net.span = torch.tensor(max(1.0, round(self.smoothing * values)), device=self._device)

    def judge_tracks(self, net: Any, model: LanguageModel, tracks: Sequence[Track]) -> list[Judged]:
        """Return the surprise of each value in nats, or its distance from the forecast."""
        judge = self._surprise if self.score_by == "likelihood" else self._distance
        found = judge(net, model, tracks)
        for judged in found:
            judged.scores = smoothed(judged.scores, float(net.span))
        return found

    # ------------------------------------------------------------------ inside

    @property
    def _read_only(self) -> int:
        """Values of a window that are context and nothing else."""
        window = self.values_in_window
        return int(np.clip(round(self.overlap * window), 1, window - 1))

    def _coded(self, net: Any, track: Track) -> tuple[DigitCode, Integers, int]:
        """Return the code, the track's numbers after those of the normal context, and how many the context has."""
        code = code_of(net.codes, track.channel, padded=True, spaced=self.spaced)
        before = net.context[track.channel].cpu().numpy()
        return code, np.concatenate([before, code.integers(track.values)]), len(before)

    def _surprise(self, net: Any, model: LanguageModel, tracks: Sequence[Track]) -> list[Judged]:
        step = self.values_in_window - self._read_only
        parts, found = [], [Judged.unasked(len(track)) for track in tracks]
        for k, track in enumerate(tracks):
            code, numbers, before = self._coded(net, track)
            for start in range(before, len(numbers), step):
                context = code.write(numbers[max(0, start - self._read_only) : start]).text
                parts.append((k, start - before, context, code.write(numbers[start : start + step])))

        def work(group: Sequence[int]) -> None:
            chosen = [parts[i] for i in group]
            scores = model.log_likelihood([part[3].text for part in chosen], [part[2] for part in chosen])
            for (k, first, _, written), scored in zip(chosen, scores, strict=True):
                place = slice(first, first + len(written.spans))
                found[k].scores[place] = [scored.within(start, stop) for start, stop in written.spans.tolist()]
                found[k].status[place] = ["ok"] * len(written.spans)

        self._in_turn(len(parts), _AT_ONCE, work)
        return found

    def _distance(self, net: Any, model: LanguageModel, tracks: Sequence[Track]) -> list[Judged]:
        window = self.values_in_window
        parts: list[tuple[int, int, DigitCode, Integers]] = []
        found = [Judged.unasked(len(track)) for track in tracks]
        expected = [np.full(len(track), np.nan) for track in tracks]
        for k, track in enumerate(tracks):
            code, numbers, before = self._coded(net, track)
            starts = range(before, len(numbers), self.keep)
            parts += [(k, start - before, code, numbers[max(0, start - window) : start]) for start in starts]

        def work(group: Sequence[int]) -> None:
            for k, first, code, context in (parts[i] for i in group):
                drawn = self._forecasts(model, code, context)
                length = min(self.keep, len(found[k].scores) - first)
                place = slice(first, first + length)
                known = np.asarray(~np.isnan(drawn).all(axis=0))
                drawn[0, ~known] = 0.0
                median = np.where(known, code.values(np.nanmedian(drawn, axis=0)), np.nan)
                expected[k][place] = median[:length]
                found[k].status[place] = ["ok" if read else "fallback" for read in known[:length]]

        self._in_turn(len(parts), 1, work)
        for judged, forecast, track in zip(found, expected, tracks, strict=True):
            asked = np.array([state != "unasked" for state in judged.status])
            if not np.isnan(forecast).all():
                # A forecast that could not be read lies between those before and after it.
                judged.expected = np.where(asked, filled(forecast), np.nan)
                judged.scores = np.abs(track.values - judged.expected)
            else:
                judged.status = ["abstained" if state != "unasked" else state for state in judged.status]
        return found

    def _forecasts(self, model: LanguageModel, code: DigitCode, context: Integers) -> Floats:
        """Return what ``samples`` continuations say, (samples, keep), NaN where there is no number."""
        text, limit = code.write(context).text, _WRITTEN * code.tokens
        complete = getattr(model, "complete", None)
        if complete is not None:
            letters = f"0123456789{code.separator}{' ' * self.spaced}"
            answers = complete(text, samples=self.samples, max_tokens=limit, seed=self.seed_, characters=letters)
            rows = [code.read(answer) for answer in answers]
        else:
            request = load_prompt("sigllm", "forecast").render(sequence=text, count=_WRITTEN, limit=2 * limit)
            found = [ask(model, request, read=_numbers(code), seed=self.seed_ + 1000 * k) for k in range(self.samples)]
            rows = [np.array([]) if answer.value is None else answer.value for answer in found]
        out = np.full((self.samples, self.keep), np.nan)
        for row, numbers in zip(out, rows, strict=True):
            row[: len(numbers)] = numbers[: self.keep]
        return out

    def _in_turn(self, n: int, size: int, work: Callable[[Sequence[int]], None]) -> None:
        """Do ``n`` pieces of work in groups until the budget is spent; what was done by then stands."""
        title = f"{self.name} asks about {n} windows"
        with Progress(title, n, show=self.verbose) as progress:
            for start in range(0, n, size):
                try:
                    work(range(start, min(start + size, n)))
                except (BudgetExhausted, Cancelled):
                    return
                progress.update(min(start + size, n), {})


def _numbers(code: DigitCode) -> Callable[[str], Parsed]:
    """Return a reader of numbers of a code, NaN for what is none, that refuses an answer which begins with none."""

    def read(text: str) -> Parsed:
        numbers = code.read(text.strip().lstrip(code.separator))
        if not len(numbers) or np.isnan(numbers[0]):
            raise AnswerError(f"it does not begin with a number of {code.digits} digits and '{code.separator}'")
        return Parsed(numbers)

    return read
