"""DABL: a language model tuned on normal traces of a process and on anomalies made of them judges whole traces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from genad.core.inference import Answer, Want
from genad.core.parameters import check_choice, check_flag, check_whole
from genad.core.registry import Card, Family, register
from genad.core.training import Phase, Training, TrainingReport
from genad.data.adapters import Adapter, Loaded
from genad.data.kinds import Kind
from genad.data.log import Sessions
from genad.data.log.counts import used_events
from genad.data.samples import Batch, Samples, Subset
from genad.errors import InputError
from genad.foundation.answers import ask_each
from genad.foundation.closed_set import class_scores
from genad.foundation.llm import LanguageModel
from genad.foundation.local_lm import LocalModel
from genad.foundation.model import Model
from genad.foundation.prompts import load_prompt
from genad.representation.llm.tiny_lm import ANOMALOUS, FIRST_ACTIVITY, NORMAL, UNSEEN, Speech, TinyLM
from genad.representation.llm.trace_lessons import VERDICTS, Lessons, parsed_cause, question, surprise_of_activities
from genad.representation.llm.traces import Cause, Trace, TraceMutator, aligned, edit_distance
from genad.representation.prompting import (
    PromptDetector,
    PromptNet,
    Verdicts,
    from_buffer,
    padded,
    scored_once,
    to_buffer,
)
from genad.representation.units import TemplateAdapter, text_array, units_of

_TINY = Model("a tiny model of this process")
_STRANGER = "(an activity of another process)"
_CAUSE_TOKENS = 8
_VARIANTS, _FAR = 200, 20  # normal traces that restorations come from, and how far off they may be


@dataclass
class TraceAdapter(TemplateAdapter):
    """Sessions as lists of activities.

    Attributes
    ----------
    vocabulary : list of str
        The activities of the sessions fitted on.
    """

    vocabulary: list[str] = field(default_factory=list)

    def fit(self, X: Sessions) -> Loaded:
        """Learn the activities."""
        self.vocabulary = used_events(X)
        return super().fit(X)

    def state(self) -> dict[str, Any]:
        """Return the fitted state as plain JSON values."""
        return super().state() | {"vocabulary": self.vocabulary}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Make a fitted adapter again."""
        made = super().from_state(state)
        made.vocabulary = [str(name) for name in state["vocabulary"]]
        return made


class AdapterNet(nn.Module):
    """Low-rank adapters of a local model, and the most frequent normal traces."""

    variants: Tensor

    def __init__(self, adapters: nn.Module) -> None:
        super().__init__()
        self.adapters = adapters
        self.register_buffer("variants", torch.zeros(0, dtype=torch.uint8))


@register(
    Card(
        title="DABL: Detecting Semantic Anomalies in Business Processes Using Large Language Models",
        authors="Guan, Cao, Gao, Zhao, Qian",
        venue="AAAI",
        year=2025,
        family=Family.LANGUAGE_MODEL,
        kinds=(Kind.LOG,),
        row="1.2.1-12",
        summary="A language model tuned on made anomalies judges whole process traces and names the cause.",
        tags=("process", "log", "llm", "lora", "sequence"),
    ),
    name="dabl",
)
@dataclass(eq=False, repr=False)
class DABL(PromptDetector):
    """Judge whole traces of a process by a language model that was tuned on anomalies made of normal traces.

    Training makes an anomaly of each normal trace it sees: activities skipped, done again, too early, too late or
    inserted, or a choice taken both ways (see :class:`~genad.representation.llm.traces.TraceMutator`). The model learns
    to answer two questions, whether the trace is normal or anomalous, and then, told that it is anomalous, why; only
    the words of the answers carry loss. The score is log P(anomalous) - log P(normal) at the verdict, in nats, above 0
    where the model itself would say anomalous. The map has the surprise of each activity after those before it, that of
    the end with the last one; :attr:`reasons_` has the cause in words for every trace whose score is above 0, without
    activities that neither the trace nor the process has. The restored trace is the nearest of the most frequent
    normal ones.

    The paper tunes a model of 13 billion weights once, on play-outs of 143,137 process models, and then judges
    processes it has never seen. That does not run on a processor in reasonable time, so that the default differs and
    says so: a transformer of some hundred thousand weights whose words are the activities of the one process at hand,
    trained from nothing in some seconds on its own normal traces. It asks the paper's two questions and learns from the
    paper's anomalies, but of what names mean it knows nothing, and it cannot judge another process.

    **When to use.** Event logs of a process with mostly normal traces. ``tuning="lora"`` tunes adapters of the small
    local model by the same pairs, in words, which without a graphics card takes seconds to minutes an update.
    ``tuning="none"`` asks any model as it is, without training.

    **When it fails.** Anomalies unlike the made ones, such as those of users, times and amounts; rare normal variants;
    ``tuning="none"`` with a small model, whose judgement cannot be expected to beat chance by much. In a strict process
    directly-follows frequencies do as well at a hundredth of the time: on the labelled log p2p (600 cases to train,
    means of three seeds) DABL has AUROC 0.98 to 1.00 by type, like the frequencies, and 0.50 for wrong users, where
    they have 0.46. With made anomalies, which suit it, it has AP 0.965 against 0.909 on the log helpdesk and 0.954
    against 0.813 on receipt.

    Parameters
    ----------
    tuning : {"tiny", "lora", "none"}
        Which model is asked: a tiny one of this process, the local one with adapters, or ``llm`` as it is.
    score_by : {"verdict", "likelihood"}
        The verdict, or the surprise of the most surprising activity in nats; the latter needs a model that gives
        likelihoods.
    causes : bool
        Whether causes are written for traces judged anomalous.
    width, layers : int
        Sizes of the tiny model; the width a multiple of 8.
    rank : int
        Of the adapters, on queries and values, as in the paper.

    Examples
    --------
    >>> traces = [["order", "approve", "ship", "pay"], ["order", "ship", "pay"]] * 300
    >>> detector = DABL(training=Training(updates=60)).fit(traces)
    >>> scores = detector.anomaly_score([traces[0], ["order", "pay", "ship", "pay"], ["ship", "order", "pay"]])
    >>> (scores > 0).tolist()
    [False, True, True]

    References
    ----------
    Guan, Cao, Gao, Zhao and Qian, DABL: detecting semantic anomalies in business processes using large language
    models, AAAI 2025 (arXiv 2406.15781).
    """

    tuning: str = "tiny"
    score_by: str = "verdict"
    causes: bool = field(default=True, kw_only=True)
    width: int = field(default=64, kw_only=True)
    layers: int = field(default=2, kw_only=True)
    rank: int = field(default=8, kw_only=True)

    needs: ClassVar[tuple[str, ...]] = ()
    defaults: ClassVar[Training] = Training(updates=400, batch_size=32, lr=2e-3, clip=1.0)

    # ------------------------------------------------------------------ the model

    def _check_parameters(self) -> None:
        check_choice(self, "tuning", ("tiny", "lora", "none"))
        check_choice(self, "score_by", ("verdict", "likelihood"))
        check_whole(self, "width", "layers", "rank")
        if self.width % 8:
            raise InputError(f"width: {self.width!r} was given; use a multiple of 8.")
        check_flag(self, "causes")
        super()._check_parameters()

    def language_model(self) -> LanguageModel:
        """Return the language model; the tiny one has no other interface than this detector."""
        if self.tuning == "tiny":
            return _TINY
        model = super().language_model()
        if self.tuning == "lora" and not isinstance(model, LocalModel):
            raise InputError(
                f"llm: {model.name} cannot be tuned here; use tuning='none' with it, or llm=None or the path of a GGUF "
                "file for tuning='lora' (without a cache)."
            )
        wanted = "next_token" if self.score_by == "verdict" else "log_likelihood"
        if wanted not in model.capabilities:
            raise InputError(f"llm: {model.name} does not offer {wanted}, which score_by={self.score_by!r} needs.")
        return model

    def unit_adapter(self) -> Adapter:
        """Return the unfitted bridge from sessions to traces."""
        return TraceAdapter()

    def build(self, shape: tuple[int, ...]) -> nn.Module:  # noqa: ARG002 - traces have no shape
        """Make the tiny model, the adapters, or nothing to be tuned."""
        if self.tuning == "tiny":
            return TinyLM(len(self._speech), self.width, self.layers)
        if self.tuning == "lora":
            model: Any = self.language_model()
            return AdapterNet(model.lora(self.rank, 2.0 * self.rank, seed=self.seed_))
        return PromptNet(variants=torch.zeros(0, dtype=torch.uint8))

    @property
    def _speech(self) -> Speech:
        return Speech(self.adapter_.vocabulary)  # type: ignore[attr-defined]

    # ------------------------------------------------------------------ training

    def optimise(self, net: nn.Module, samples: Samples) -> TrainingReport:
        """Tune on the training traces, which batches name by their positions."""
        root = samples
        while isinstance(root, Subset):
            root = root.samples
        traces = [tuple(unit) for unit in units_of(samples)]
        lessons = Lessons([tuple(unit) for unit in units_of(root)], TraceMutator(traces, [_STRANGER]), self._speech)
        if isinstance(net, TinyLM):
            net.trained[FIRST_ACTIVITY:] = False
            net.trained[[lessons.speech.code(name) for name in lessons.mutator.activities]] = True
        self.__dict__["_lessons"] = lessons
        try:
            return super().optimise(net, samples)
        finally:
            del self.__dict__["_lessons"]

    def phases(self, net: nn.Module) -> list[Phase]:  # noqa: ARG002 - the hook's signature
        """Return one phase, none where nothing is tuned."""
        return [] if self.tuning == "none" else [Phase("loss", self.loss)]

    def loss(self, net: Any, batch: Batch) -> Tensor:
        """Return the mean surprise of the answers about normal traces and anomalies made of them."""
        lessons: Lessons = self.__dict__["_lessons"]
        # Drawn by the loop's generator, so that a seed decides the anomalies too.
        rng = np.random.default_rng(int(torch.randint(2**62, ())))
        traces = [lessons.traces[int(i)] for i in batch.x[:, 0].tolist()]
        if self.tuning == "tiny":
            return net.answer_loss([pair for trace in traces for pair in lessons.pairs(trace, rng)])
        model: Any = self.language_model()
        words = [pair for trace in traces for pair in lessons.words(trace, rng)]
        questions, answers = [question for question, _ in words], [answer for _, answer in words]
        return model.answer_loss(questions, answers, net.adapters)

    def finish(self, net: Any, samples: Samples) -> None:  # noqa: ARG002 - the lessons have them
        """Keep the most frequent normal traces."""
        frequent = self.__dict__["_lessons"].mutator.normal.most_common(_VARIANTS)
        net.variants = to_buffer([list(trace) for trace, _ in frequent]).to(self._device)

    # ------------------------------------------------------------------ judging

    def judge(self, net: Any, model: LanguageModel, units: Sequence[Any], *, known: bool) -> Verdicts:
        """Return verdicts, the surprise of each activity, and causes; equal traces are judged once."""
        traces = [tuple(unit) for unit in units]
        if self.tuning == "tiny":
            found, surprise = self._tiny_judgement(net, list(dict.fromkeys(traces)))
        else:
            found, surprise = self._judgement(net, model, traces)
        scores = np.array([found[trace] for trace in traces], np.float64)
        if self.score_by == "likelihood":
            highest = {trace: max(values, default=np.nan) for trace, values in surprise.items()}
            scores = np.array([highest[trace] for trace in traces], np.float64)
        # While the threshold is set, nobody reads causes.
        odd = [trace for trace in dict.fromkeys(traces) if found[trace] > 0] if self.causes and not known else []
        causes = dict(zip(odd, self._causes(net, model, odd), strict=True))
        reasons = [self._reason(found[trace], causes.get(trace, (None, "ok"))[0]) for trace in traces]
        status = [
            "unasked" if np.isnan(score) else causes.get(trace, (None, "ok"))[1]
            for trace, score in zip(traces, scores, strict=True)
        ]
        return Verdicts(scores, reasons, status, padded([surprise[trace] for trace in traces]))

    @staticmethod
    def _reason(odds: float, cause: Cause | None) -> str:
        if np.isnan(odds):
            return ""
        return f"{VERDICTS[bool(odds > 0)]} {cause}" if cause is not None else VERDICTS[bool(odds > 0)]

    def _tiny_judgement(self, net: TinyLM, traces: list[Trace]) -> tuple[dict[Trace, float], dict[Trace, list[float]]]:
        speech = self._speech
        found, surprise = {}, {}
        verdicts = net.log_probs([speech.verdict(trace, anomalous=True)[0] for trace in traces])
        for trace, scores in zip(traces, verdicts, strict=True):
            found[trace] = float(scores[-1, ANOMALOUS] - scores[-1, NORMAL])
        recalled = [speech.recall(trace) for trace in traces]
        rows = net.log_probs([[*prompt, *answer[:-1]] for prompt, answer in recalled])
        for trace, (_, answer), scores in zip(traces, recalled, rows, strict=True):
            targets = torch.tensor(answer, device=scores.device)
            targets = torch.where(net.trained[targets], targets, UNSEEN)
            values = (-scores.gather(1, targets[:, None])[:, 0]).tolist()
            values[-2:] = [sum(values[-2:])]
            surprise[trace] = values + [0.0] * (len(trace) - len(values))
        return found, surprise

    def _asked(self, net: Any, model: LanguageModel) -> LanguageModel:
        return model.adapted(net.adapters) if self.tuning == "lora" and isinstance(model, LocalModel) else model

    def _judgement(
        self, net: Any, model: LanguageModel, traces: Sequence[Trace]
    ) -> tuple[dict[Trace, float], dict[Trace, list[float]]]:
        asked, prompt = self._asked(net, model), load_prompt("dabl", "verdict_1")
        odds = np.full(len(traces), np.nan)
        if "next_token" in asked.capabilities:

            def verdicts(some: list[Trace]) -> NDArray[np.float64]:
                prompts = [question(prompt, trace) for trace in some]
                return class_scores(asked, prompts, [VERDICTS[True]], [VERDICTS[False]])

            odds = scored_once(verdicts, traces)
        surprise = {trace: [0.0] * len(trace) for trace in traces}
        if "log_likelihood" in asked.capabilities and (self.score_by == "likelihood" or self.tuning == "lora"):
            for trace in surprise:
                surprise[trace] = surprise_of_activities(asked, trace)
        return dict(zip(traces, odds.tolist(), strict=True)), surprise

    def _causes(self, net: Any, model: LanguageModel, traces: list[Trace]) -> list[tuple[Cause | None, str]]:
        """Return the cause of each anomalous trace, and how it was come by."""
        vocabulary = set(self.adapter_.vocabulary)  # type: ignore[attr-defined]
        if self.tuning == "tiny":
            speech = self._speech
            written = net.write([speech.cause_prompt(trace) for trace in traces], _CAUSE_TOKENS)
            found = [(speech.read_cause(answer, trace), "ok") for answer, trace in zip(written, traces, strict=True)]
        else:
            asked = self._asked(net, model)
            if "chat" not in asked.capabilities:
                return [(None, "ok")] * len(traces)
            rows = [{"trace": list(trace)} for trace in traces]
            answers = ask_each(asked, load_prompt("dabl", "cause_1"), rows, read=parsed_cause, fallback=None)
            found = [(answer.value, answer.status) for answer in answers]
        # A cause that names what neither the trace nor the process has is dropped; the verdict stays.
        return [
            (None if cause is None else cause.within(vocabulary | set(trace)), status)
            for trace, (cause, status) in zip(traces, found, strict=True)
        ]

    def _run(self, samples: Samples, *want: Want, known: bool = False) -> Answer:
        """Judge the traces; what detections show as expected stands at the places of the trace."""
        answer = super()._run(samples, *want, known=known)
        if answer.restored is not None:
            units = units_of(samples)
            rows = zip(units, self.expect(self.net_, units), strict=True)
            answer.restored = text_array([aligned(unit, expected) for unit, expected in rows])
        return answer

    def expect(self, net: Any, units: Sequence[Any]) -> list[list[str]]:
        """Return the nearest of the most frequent normal traces, the more frequent of equally near ones."""
        variants = [tuple(trace) for trace in from_buffer(net.variants)]
        nearest: dict[Trace, Trace] = {}
        for trace in dict.fromkeys(tuple(unit) for unit in units):
            best, least = trace, _FAR + 1
            for variant in variants:
                apart = edit_distance(trace, variant, least - 1)
                if apart < least:
                    best, least = variant, apart
                if not least:
                    break
            nearest[trace] = best
        return [list(nearest[tuple(unit)]) for unit in units]
