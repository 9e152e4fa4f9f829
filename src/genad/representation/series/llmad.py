"""LLMAD: a language model judges windows of a series beside normal and anomalous segments like them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from genad.core.parameters import check_number, check_whole
from genad.core.progress import Progress
from genad.core.registry import Card, Family, register
from genad.core.splits import Labels
from genad.core.windows import as_windows
from genad.data.kinds import Kind
from genad.data.samples import Samples
from genad.foundation.answers import Answer, ask
from genad.foundation.llm import BudgetExhausted, Cancelled, LanguageModel
from genad.foundation.prompts import load_prompt
from genad.foundation.schema import AnswerError
from genad.representation.prompting import PromptNet
from genad.representation.series.base import Floats, Judged, LanguageSeriesDetector, Track, averaged, filled
from genad.representation.series.segments import as_bank, from_bank, labelled_runs, nearest_segments, normal_segments

# The card of the method: how far values are scaled, from which quantiles, and what the banks hold.
_SCALE, _LOW, _HIGH = 1000.0, 0.001, 0.99
_PADDING, _LONGEST = 20, 200
_NORMALS, _ANOMALIES = 64, 64
_LEVELS = {"Warning": 1 / 3, "Important": 2 / 3, "Urgent": 1.0}
_MIDDLE = 2 / 3  # of an anomaly whose level was not told
_NO_EXAMPLE = "none is known"


@dataclass(frozen=True)
class Verdict:
    """What the model says of a window.

    Parameters
    ----------
    points : tuple of int
        Positions from 0.
    level : float
        0 without an anomaly, else 1/3 (Warning), 2/3 (Important) or 1 (Urgent).
    reason : str
        Type, level and why; "" without an anomaly.
    """

    points: tuple[int, ...]
    level: float
    reason: str


def read_verdict(value: Mapping[str, Any]) -> Verdict:
    """Return the verdict of an answer that holds to the schema; its indices count from 1.

    Examples
    --------
    >>> read_verdict({"is_anomaly": True, "anomalies": [3], "anomaly_type": "SingleDip", "alarm_level": "Warning",
    ...               "reason_for_anomaly_type": "one low point"})
    Verdict(points=(2,), level=0.3333333333333333, reason='SingleDip, Warning: one low point')
    """
    points = tuple(int(index) - 1 for index in value["anomalies"])
    if not points:
        return Verdict((), 0.0, "")
    kind, level = value.get("anomaly_type", "None"), value.get("alarm_level", "None")
    steps = value.get("briefExplanation", {})
    why = (value.get("reason_for_anomaly_type"), value.get("reason_for_alarm_level"), steps.get("step3_reassess"))
    words = next((text.strip() for text in why if text and text.strip()), "no reason given")
    label = ", ".join(name for name in (kind, level) if name != "None") or "anomaly"
    return Verdict(points, _LEVELS.get(level, _MIDDLE), f"{label}: {words}")


def consistent() -> Callable[[Any], None]:
    """Return a check that refuses once an answer whose truth value contradicts its list; said again, the list counts.

    Examples
    --------
    >>> check, answer = consistent(), {"is_anomaly": False, "anomalies": [7]}
    >>> check(answer)
    Traceback (most recent call last):
    genad.foundation.schema.AnswerError: is_anomaly is false but anomalies lists 1 points; say which is right
    >>> check(answer)
    """
    refused = False

    def check(value: Any) -> None:
        nonlocal refused
        named = len(value["anomalies"])
        if value["is_anomaly"] != bool(named) and not refused:
            refused = True
            said = "true" if value["is_anomaly"] else "false"
            raise AnswerError(f"is_anomaly is {said} but anomalies lists {named} points; say which is right")

    return check


@register(
    Card(
        title="Large language models can deliver accurate and interpretable time series anomaly detection",
        authors="Liu, Zhang, Qian, Ma, Qin, Bansal, Lin, Rajmohan, Zhang",
        venue="KDD",
        year=2025,
        family=Family.LANGUAGE_MODEL,
        kinds=(Kind.SERIES,),
        row="1.2.1-07",
        summary="A language model judges windows beside similar normal and anomalous segments, with reasons.",
        tags=("prompt", "retrieval", "chain of thought", "dynamic time warping", "explanations"),
    )
)
@dataclass(eq=False, repr=False)
class LLMAD(LanguageSeriesDetector):
    r"""Ask a language model for the anomalous points of each window, their type and alarm level, with reasons.

    Values are rescaled to whole numbers by percentiles of the training part, ``1000 (x - b) / a`` with b the 0.1 %
    quantile and a the ``alpha`` quantile of x - b; missing values are bridged and zeros kept, so that no step shifts.
    For each window the most similar normal segment and the ``anomalous`` most similar labelled anomalies, their points
    between stars, are found by dynamic time warping (of 64 points, in a band of 8) and shown. The prompt has the rules,
    eight types, three levels and three steps of reasoning that are part of the answer in JSON. Windows do not overlap;
    the last one ends with the series and answers for its new steps only.

    The score of a step the model names is 1/3 (Warning), 2/3 (Important) or 1 (Urgent), else 0, so that
    ``threshold=FixedValue(0.1)`` flags what the model flags; ``reasons_`` has type, level and reason of each step.
    Answers that cannot be used are asked again, an answer that contradicts itself once, indices outside the window are
    dropped, and a window without a usable answer abstains and counts as normal.

    Segments come from the data of fit alone: anomalies from steps with ``y = 1``, padded by 20, at most 200 steps and
    64 of them; without labels the prompt has none. Each window costs one call: about 650 tokens of rules, 7 a value of
    the window, 4 a value of the examples, and up to 700 written. That is about 25 tokens read a step by default, and up
    to 40 s a window with the local model on one core. The paper's window is 400, with a large model.

    **When to use.** With a large model behind a service, when reasons and types matter more than cost, on few short
    series with some labelled anomalies.

    **When it fails.** With the small local model: asked in words it answers near chance, whatever it is shown; only
    the form of its answers is sure. Most scores are 0, so that ranks among normal steps mean nothing and p-values are
    coarse. The paper's figures are after point adjustment, which flatters; compare without it.

    Parameters
    ----------
    alpha : float
        Quantile, in percent, that sets the scale, above 0 and at most 100.
    beta : float
        Share of the range below the lowest values that is kept free, at least 0.
    anomalous : int
        Labelled anomalies shown with each window, at least 0.
    normal : int
        Steps of a normal segment are this many windows, halved until some are that long.
    retries : int
        How often a bad answer is asked again.

    Examples
    --------
    >>> import numpy as np
    >>> from genad.core.calibration import FixedValue
    >>> from genad.foundation.scripted import Scripted
    >>> def highest(messages):
    ...     lines = messages[-1]["content"].split("<<<window")[1].split("window>>>")[0].split("\n")[1:-1]
    ...     values = [int(line.split()[1]) for line in lines]
    ...     found = [i for i, value in enumerate(values, 1) if value > 1200]
    ...     return str({"briefExplanation": {"step1_global": "", "step2_local": "", "step3_reassess": "one is high"},
    ...                 "is_anomaly": bool(found), "anomalies": found, "anomaly_type": "SingleSpike",
    ...                 "alarm_level": "Urgent" if found else "None"})
    >>> series = np.sin(np.arange(300) / 3)
    >>> detector = LLMAD(llm=Scripted(highest), window=50, threshold=FixedValue(0.1)).fit(series)
    >>> series[70] = 3.0
    >>> np.flatnonzero(detector.predict(series) == -1).tolist(), detector.reasons_[70]
    ([70], 'SingleSpike, Urgent: one is high')

    References
    ----------
    Liu, Zhang, Qian, Ma, Qin, Bansal, Lin, Rajmohan and Zhang (2025), Large language models can deliver accurate and
    interpretable time series anomaly detection, KDD.
    """

    alpha: float = 95.0
    beta: float = field(default=0.0, kw_only=True)
    anomalous: int = field(default=2, kw_only=True)
    normal: int = field(default=2, kw_only=True)
    retries: int = field(default=2, kw_only=True)

    default_window: ClassVar[int] = 100

    def _check_parameters(self) -> None:
        check_number(self, "alpha", "(0, 100]")
        check_number(self, "beta", "[0, inf)")
        check_whole(self, "anomalous", "retries", low=0)
        check_whole(self, "normal")
        super()._check_parameters()

    def build(self, shape: tuple[int, ...]) -> nn.Module:  # noqa: ARG002 - the banks depend on the data
        """Make room for the scales (C, 2), the normal segments (C, k, length) and the anomalous ones (C, k, 2, length).

        The second row of an anomalous segment says which of its points are anomalous; both are NaN after its end.
        """
        names = ("scales", "normals", "anomalies")
        return PromptNet(**{name: torch.zeros(0, dtype=torch.float64) for name in names})

    def _split(self, samples: Samples, labels: Labels) -> tuple[Samples, Samples]:
        # The anomalies are in no training window, so they are picked out while the labels are at hand.
        train, held = super()._split(samples, labels)
        windows = as_windows(samples)
        steps = np.arange(len(windows.x))
        # Those of the part to calibrate on must not be shown as examples.
        first_held = int(as_windows(held).starts.min()) if held is not train else len(steps)
        flags = labels.anomalous & (steps < first_held)
        values = windows.x.cpu().numpy().astype(np.float64)
        if windows.mask is not None:
            values[~windows.mask.cpu().numpy()] = np.nan
        runs = labelled_runs(flags, _PADDING * self.aggregate, _LONGEST * self.aggregate)
        chosen = np.random.default_rng(self.seed_).permutation(len(runs))[:_ANOMALIES]
        self.__dict__["_runs"] = [(values[a:b], flags[a:b]) for a, b in (runs[i] for i in sorted(chosen))]
        return train, held

    def study_tracks(self, net: Any, model: LanguageModel, tracks: Sequence[Track]) -> None:  # noqa: ARG002 - not asked
        """Set the scale of each channel, and fill the banks of segments."""
        runs = self.__dict__.pop("_runs", [])
        scales, normals, anomalies = [], [], []
        for channel in range(1 + max(track.channel for track in tracks)):
            mine = [track.values for track in tracks if track.channel == channel]
            scales.append(self._scale(np.concatenate(mine)))
            normals.append(normal_segments(mine, self.normal * self.values_in_window, _NORMALS))
            values = as_bank([averaged(filled(part[:, channel]), self.aggregate) for part, _ in runs])
            marks = as_bank([np.ceil(averaged(flags.astype(float), self.aggregate)) for _, flags in runs])
            anomalies.append(np.stack([values, marks], axis=1))
        for name, found in (("scales", scales), ("normals", normals), ("anomalies", anomalies)):
            setattr(net, name, torch.from_numpy(np.stack(found)).to(self._device))

    def judge_tracks(self, net: Any, model: LanguageModel, tracks: Sequence[Track]) -> list[Judged]:
        """Return score and reason of each value."""
        found = [Judged.unasked(len(track)) for track in tracks]
        parts = [(k, place) for k, track in enumerate(tracks) for place in self._windows(len(track))]
        with Progress(f"{self.name} asks about {len(parts)} windows", len(parts), show=self.verbose) as progress:
            for done, (k, (start, new, stop)) in enumerate(parts, 1):
                track, judged = tracks[k], found[k]
                answer = self._asked(net, model, track.values[start:stop], track.channel)
                judged.status[new:stop] = [answer.status] * (stop - new)
                if answer.usable:
                    verdict = read_verdict(answer.value)
                    judged.scores[new:stop] = 0.0
                    for point in verdict.points:
                        if start + point >= new:
                            judged.scores[start + point] = verdict.level
                            judged.reasons[start + point] = verdict.reason
                elif answer.status == "abstained":
                    judged.scores[new:stop] = 0.0
                progress.update(done, {})
        return found

    # ------------------------------------------------------------------ inside

    def _scale(self, values: Floats) -> tuple[float, float]:
        """Return (a, b) of a channel from its normal values."""
        low, high = np.quantile(values, (_LOW, _HIGH))
        b = float(low - self.beta * (high - low))
        a = float(np.quantile(values - b, self.alpha / 100.0))
        return (a if a > 1e-3 else 1.0), b

    def _windows(self, n: int) -> list[tuple[int, int, int]]:
        """Return (first value shown, first value answered for, end) of the windows of a track."""
        size = self.values_in_window
        return [(max(0, min(first, n - size)), first, min(first + size, n)) for first in range(0, n, size)]

    def _asked(self, net: Any, model: LanguageModel, values: Floats, channel: int) -> Answer:
        a, b = net.scales[channel].tolist()

        def whole(numbers: Floats) -> list[int]:
            return [int(number) for number in np.rint(_SCALE * (numbers - b) / a)]

        normals = net.normals[channel].cpu().numpy()
        (near,) = nearest_segments(values, normals, 1)
        segments, marks = net.anomalies[channel].cpu().numpy().transpose(1, 0, 2)
        alike = nearest_segments(values, segments, self.anomalous)
        starred = [_starred(whole(from_bank(segments[i])), from_bank(marks[i]) > 0) for i in alike]
        window = [f"{index} {number}" for index, number in enumerate(whole(values), 1)]
        fields = {
            "count": len(window),
            "normal": ",".join(map(str, whole(normals[near]))),
            "anomalous": "\n".join(starred) or _NO_EXAMPLE,
            "window": "\n".join(window),
        }
        try:
            return ask(
                model,
                load_prompt("llmad", "judge"),
                fields,
                check=consistent(),
                retries=self.retries,
                seed=self.seed_,
            )
        except (BudgetExhausted, Cancelled) as error:
            return Answer(None, "unasked", problems=(str(error),))


def _starred(numbers: Sequence[int], marks: NDArray[np.bool_]) -> str:
    return ",".join(f"*{number}*" if mark else str(number) for number, mark in zip(numbers, marks, strict=True))
