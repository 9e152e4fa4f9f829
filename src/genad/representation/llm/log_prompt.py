"""LogPrompt: many numbered log lines in one prompt, a label and a reason for each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import nn

from genad.core.parameters import check_choice, check_flag, check_whole
from genad.core.registry import Card, Family, register
from genad.data.kinds import Kind
from genad.data.log.masking import mask
from genad.errors import InputError
from genad.foundation.answers import Answer, ask, ask_each
from genad.foundation.closed_set import class_scores
from genad.foundation.forms import numbered_slots
from genad.foundation.llm import LanguageModel, need
from genad.foundation.prompts import PromptTemplate, load_prompt, neutral
from genad.foundation.schema import AnswerError
from genad.representation.prompting import (
    PromptDetector,
    PromptNet,
    Verdicts,
    from_buffer,
    highest,
    padded,
    scored_once,
    to_buffer,
    worst,
)

#: The words of a verdict, by strategy: a reason follows the words, none the digits.
WORDS = {"normal": 0, "abnormal": 1}
DIGITS = {"0": 0, "1": 1}

TASK = "Say of each of these lines of a system log whether it is normal or abnormal."
#: The written chain of thought.
RULES = """
Judge each line by these steps, in this order:
(a) Values that look invalid, such as odd numbers, addresses or codes, do not make a line abnormal: it is normal.
(b) A line that says too little to be judged is normal.
(c) Masks such as <*> and missing values stand for anything: they never make a line abnormal.
(d) A line is abnormal only if its text states in so many words that something failed, was refused or needs attention.
"""
#: What a model is asked where it writes no task lines of its own.
CANDIDATES = (
    TASK,
    "You read the log of a computer. Decide for every line whether it reports trouble (abnormal) or not (normal).",
    "Find the lines of this log that an operator should look into: call these abnormal and all others normal.",
    "For each message decide whether the system works as intended when it writes it (normal) or not (abnormal).",
    "Label each log line: abnormal when it tells of an error or a failure, normal when it tells of usual work.",
)
_SAMPLE = 100  # lines on which candidates are tried
_SEED = 123  # of the order of the lines
_ANSWER_TOKENS = 40  # of one slot with its reason


def chunks_by_budget(texts: Sequence[str], ceiling: int) -> Iterator[list[int]]:
    """Yield the positions of texts that go together without passing a number of characters; a longer one goes alone.

    Examples
    --------
    >>> list(chunks_by_budget(["aaaa", "bb", "cccccccccc", "d"], 7))
    [[0, 1], [2], [3]]
    """
    part: list[int] = []
    used = 0
    for i, text in enumerate(texts):
        if part and used + len(text) > ceiling:
            yield part
            part, used = [], 0
        part.append(i)
        used += len(text)
    if part:
        yield part


@dataclass
class LineVerdict:
    """What is made of one line: log-odds or 0 and 1, NaN when unknown; the reason; the state of the answer."""

    score: float = float("nan")
    reason: str = ""
    status: str = "abstained"


@register(
    Card(
        title="Interpretable Online Log Analysis Using Large Language Models with Prompt Strategies",
        authors="Liu, Tao, Meng, Wang, Ma, Chen, Zhao, Yang, Jiang",
        venue="ICPC",
        year=2024,
        family=Family.LANGUAGE_MODEL,
        kinds=(Kind.LOG,),
        row="1.2.1-01",
        summary="A language model labels numbered log lines, many a prompt, and says why.",
        tags=("log", "zero-shot", "prompt", "reasons"),
    ),
    name="log_prompt",
)
@dataclass(eq=False, repr=False)
class LogPrompt(PromptDetector):
    """Ask a language model which lines of a log are abnormal, and why; a session is as abnormal as its worst line.

    Lines are numbered and packed into prompts up to a number of characters, and the answer has one slot
    ``(number)label-reason`` for each. An answer that lacks a slot is asked for again at a higher temperature; a line
    that still has none counts as unknown and takes the score of a usual session, unless another line of its session is
    known. Each different line is asked about once, in an order that is shuffled by a fixed seed.

    With a model that tells the probabilities of the next token, each line is read by itself up to the place of its
    label, and its score is the log-odds of abnormal against normal, less those of an empty line. Nothing is written,
    so nothing can go wrong in reading it, and a line's score depends on no other line. ``reasons=True`` then asks for
    the reasons of the lines whose log-odds are above 0. The map has the probability of abnormal for each line.

    **When to use.** A large model, few or no normal data, readers who want reasons.

    **When it fails.** Small models: with 135 million weights, log-odds of 120 lines of BGL, 40 of them abnormal, had
    AUROC 0.79 with the written rules and 0.30, worse than chance, with examples; such a model judges about one line a
    second on one core. When it had to write its labels, none of the 120 could be read, after 17 s of each. Lines that
    sound like an alarm and are routine ("error corrected"): the rules make the model spot keywords. Anomalies of order
    or number, since each line is judged without its session. Where labels are written, the answer for a line depends on
    those around it.

    Parameters
    ----------
    strategy : {"cot", "self", "in_context"}
        Written rules; the best of several wordings of the task, which the model itself proposes in ``fit`` and which
        are ranked by readable answers, then by agreement with the labels given or, without these, with each other;
        or examples with the categories 0 and 1.
    score_by : {"auto", "log_odds", "label"}
        Log-odds of the label, or the label that is written; "auto" takes log-odds where the model tells them.
    ceiling : int
        Characters of lines in a prompt.
    examples : sequence of (str, int), optional
        Lines with their category, 1 for abnormal, for "in_context". When absent, lines of the normal sessions of
        ``fit``, and lines of the sessions labelled anomalous that no normal session has.
    shots : int
        Most examples of each category, when taken from ``fit``.
    retries : int
        How often a prompt is asked again; the temperature rises from 0.5 to 0.9.
    reasons : bool
        With log-odds, ask for the reasons of suspicious lines.

    Attributes
    ----------
    reasons_, status_ : list of str
        Of the sessions of the last call.

    Examples
    --------
    >>> from genad.foundation.scripted import Scripted
    >>> def word(prompt, candidate):
    ...     return -1.0 if ("disk failed" in prompt) == (candidate == " abnormal") else -4.0
    >>> detector = LogPrompt(llm=Scripted(next_token=word), score_by="log_odds")
    >>> detector = detector.fit([["disk ready", "job started"]] * 500)
    >>> detector.anomaly_score([["job started"], ["disk ready", "disk failed"]]).tolist()
    [0.0, 6.0]
    >>> detector.reasons_[1]
    'event 2: log-odds 6.00'

    References
    ----------
    Liu, Tao, Meng, Wang, Ma, Chen, Zhao, Yang and Jiang, Interpretable online log analysis using large language models
    with prompt strategies, ICPC 2024.
    """

    strategy: str = "cot"
    score_by: str = "auto"
    ceiling: int = field(default=3000, kw_only=True)
    examples: Any = field(default=None, kw_only=True)
    shots: int = field(default=4, kw_only=True)
    retries: int = field(default=2, kw_only=True)
    reasons: bool = field(default=False, kw_only=True)

    needs = ()

    def _check_parameters(self) -> None:
        check_choice(self, "strategy", ("cot", "self", "in_context"))
        check_choice(self, "score_by", ("auto", "log_odds", "label"))
        check_whole(self, "ceiling", "shots")
        check_whole(self, "retries", low=0)
        check_flag(self, "reasons")
        for example in self.examples or ():
            if len(example) != 2 or not isinstance(example[0], str) or example[1] not in (0, 1):
                raise InputError(
                    f"examples: {example!r} was found; give pairs of a line and its category, 0 for normal or 1 for "
                    "abnormal."
                )
        super()._check_parameters()

    def language_model(self) -> LanguageModel:
        """Return the language model, which can do what ``score_by``, ``strategy`` and ``reasons`` ask for."""
        model = super().language_model()
        if self.score_by == "log_odds":
            need(model, "next_token", who=self.name)
        if not self._by_odds(model) or self.strategy == "self" or self.reasons:
            need(model, "chat", who=self.name)
        return model

    def _by_odds(self, model: LanguageModel) -> bool:
        return self.score_by == "log_odds" or (self.score_by == "auto" and "next_token" in model.capabilities)

    # ------------------------------------------------------------------ fit

    def build(self, shape: tuple[int, ...]) -> nn.Module:  # noqa: ARG002 - units have no shape
        """Make a network that remembers the wording of the task and the examples."""
        return PromptNet(task=to_buffer(TASK), examples=to_buffer([]), ranking=to_buffer([]))

    def study(self, net: Any, model: LanguageModel, units: Sequence[Any]) -> None:
        """Gather examples, or let the model propose wordings and keep the best."""
        if self.strategy == "cot":
            return
        if self.strategy == "in_context":
            net.examples = to_buffer(self._gathered(units))
            return
        sample, labels = self._sample(units)
        wordings = self._proposed(model)
        tried = [self._tried(model, wording, sample) for wording in wordings]
        read = np.array([np.isfinite(row).mean() for row in tried])
        agreement = np.array([_agreement(row, [labels] if labels is not None else tried) for row in tried])
        order = np.lexsort((np.arange(len(wordings)), -agreement, -read))
        net.task = to_buffer(wordings[order[0]])
        net.ranking = to_buffer([[wordings[i], float(read[i]), float(agreement[i])] for i in order])

    def _gathered(self, units: Sequence[Any]) -> list[list[Any]]:
        if self.examples is not None:
            return [[line, int(category)] for line, category in self.examples]
        normal = _one_a_template(units)
        odd = {key: line for key, line in _one_a_template(self.labelled_anomalies).items() if key not in normal}
        parts = [(_spread(list(lines.values()), self.shots), c) for lines, c in ((normal, 0), (odd, 1))]
        found = [[line, category] for lines, category in parts for line in lines]
        # Alternating, so that the last examples do not all have one category.
        return sorted(found, key=lambda example: [e for e in found if e[1] == example[1]].index(example))

    def _sample(self, units: Sequence[Any]) -> tuple[list[str], np.ndarray[Any, Any] | None]:
        """Return lines to try wordings on, with their labels if some sessions are labelled anomalous."""
        normal = _one_a_template(units)
        odd = {key: line for key, line in _one_a_template(self.labelled_anomalies).items() if key not in normal}
        few = _spread(list(odd.values()), _SAMPLE // 2)
        usual = _spread(list(normal.values()), _SAMPLE - len(few))
        labels = np.repeat([0.0, 1.0], [len(usual), len(few)]) if few else None
        return usual + few, labels

    def _proposed(self, model: LanguageModel) -> list[str]:
        answer = ask(
            model, load_prompt("log_prompt", "candidates"), {"count": 5}, seed=self.seed_, fallback=list(CANDIDATES)
        )
        # A wording stands outside the fences, so nothing in it may pass for one.
        wordings = [neutral(" ".join(text.split()), 400) for text in answer.value]
        return list(dict.fromkeys(wordings))

    def _tried(self, model: LanguageModel, wording: str, lines: list[str]) -> np.ndarray[Any, Any]:
        found = self._written(model, lines, wording, [])
        return np.array([found[line].score for line in lines])

    # ------------------------------------------------------------------ scores

    def judge(self, net: Any, model: LanguageModel, units: Sequence[Any], *, known: bool) -> Verdicts:  # noqa: ARG002
        """Judge the lines and take the worst of each session."""
        task, examples = from_buffer(net.task), from_buffer(net.examples)
        lines = list(dict.fromkeys(line for unit in units for line in self._lines(unit)))
        odds = self._by_odds(model)
        found = self._likely(model, lines, task, examples) if odds else self._written(model, lines, task, examples)
        scores, why, status, maps = [], [], [], []
        for unit in units:
            of_lines = [found[line] for line in self._lines(unit)]
            values = [verdict.score for verdict in of_lines]
            scores.append(highest(values))
            status.append(worst([verdict.status for verdict in of_lines]))
            maps.append([1.0 / (1.0 + np.exp(-value)) if odds else value for value in values])
            why.append(self._why(of_lines, odds=odds))
        return Verdicts(np.array(scores), why, status, padded(maps))

    @staticmethod
    def _why(of_lines: Sequence[LineVerdict], *, odds: bool) -> str:
        values = np.array([verdict.score for verdict in of_lines])
        if np.isnan(values).all():
            return ""
        top = int(np.nanargmax(values))
        said = of_lines[top].reason or (f"log-odds {values[top]:.2f}" if odds else "")
        return f"event {top + 1}: {said}" if said else ""

    def _written(
        self, model: LanguageModel, lines: Sequence[str], task: str, examples: Sequence[Sequence[Any]]
    ) -> dict[str, LineVerdict]:
        """Let the model write labels and reasons of many lines at a time."""
        order = np.random.default_rng(_SEED).permutation(len(lines))
        shuffled = [lines[i] for i in order]
        chunks = [[shuffled[i] for i in part] for part in chunks_by_budget(shuffled, self.ceiling)]
        labels = DIGITS if self.strategy == "in_context" else WORDS
        prompt = load_prompt("log_prompt", "learn" if self.strategy == "in_context" else "judge")
        found: dict[str, LineVerdict] = {line: LineVerdict() for line in lines}
        # Chunks of one size share a reader; the slots asked for differ with the size alone.
        for count in sorted({len(chunk) for chunk in chunks}):
            alike = [chunk for chunk in chunks if len(chunk) == count]
            ids = list(range(1, count + 1))
            answers = ask_each(
                model,
                prompt,
                [self._fields(prompt, chunk, task, examples) for chunk in alike],
                read=numbered_slots(ids, labels),
                retries=self.retries,
                warmer=0.4 / max(1, self.retries),
                seed=self.seed_,
            )
            for chunk, answer in zip(alike, answers, strict=True):
                found.update(zip(chunk, _slots(answer, ids, labels), strict=True))
        return found

    def _fields(
        self, prompt: PromptTemplate, chunk: Sequence[str], task: str, examples: Sequence[Sequence[Any]]
    ) -> dict[str, Any]:
        labels = "category" if self.strategy == "in_context" else "label-reason"
        values = {
            "task": task,
            "rules": RULES.strip() if self.strategy == "cot" else "",
            "examples": [f"{line} Category {category}" for line, category in examples],
            "slots": " ".join(f"({i}){labels}" for i in range(1, len(chunk) + 1)),
            "count": len(chunk),
            "room": 30 + _ANSWER_TOKENS * len(chunk),
            "lines": list(chunk),
            "line": chunk[0],
        }
        return {name: values[name] for name in prompt.fields}

    def _likely(
        self, model: LanguageModel, lines: Sequence[str], task: str, examples: Sequence[Sequence[Any]]
    ) -> dict[str, LineVerdict]:
        """Ask how probable each label is as the next word, one line at a time."""
        learnt = self.strategy == "in_context"
        prompt = load_prompt("log_prompt", "learnt_verdict" if learnt else "verdict")
        positive, negative = ([" 1"], [" 0"]) if learnt else ([" abnormal"], [" normal"])

        def text(line: str) -> str:
            return prompt.render(**self._fields(prompt, [line], task, examples)).messages[0]["content"].rstrip()

        def score(some: list[str]) -> Any:
            return class_scores(model, some, positive, negative)

        base = scored_once(score, [text("")])[0]
        odds = scored_once(score, [text(line) for line in lines]) - base
        found = {
            line: LineVerdict(value, "", "unasked" if np.isnan(value) else "ok")
            for line, value in zip(lines, odds.tolist(), strict=True)
        }
        if self.reasons:
            suspicious = [line for line in lines if found[line].score > 0]
            for line, verdict in self._written(model, suspicious, task, examples).items():
                found[line].reason = verdict.reason if verdict.score == 1 else ""
        return found


def _slots(answer: Answer, ids: Sequence[int], labels: dict[str, int]) -> list[LineVerdict]:
    """Return the verdict of each slot; of an answer that stayed incomplete, what it has."""
    value, status = answer.value, answer.status
    if status == "abstained":
        try:
            value, status = numbered_slots(ids, labels, partial=True)(answer.text).value, "repaired"
        except AnswerError:
            value = {}
    missing = status if status == "unasked" else "abstained"
    return [
        LineVerdict(float(value[i][0]), value[i][1], status) if value and i in value else LineVerdict(status=missing)
        for i in ids
    ]


def _agreement(row: np.ndarray[Any, Any], others: Sequence[np.ndarray[Any, Any]]) -> float:
    """Return the share of lines on which labels agree with others, balanced over the two labels of each of these."""
    shares = []
    for other in others:
        if other is row:
            continue
        parts = [(row[other == label] == label).mean() for label in (0.0, 1.0) if (other == label).any()]
        shares.append(float(np.mean(parts)) if parts else 0.0)
    return float(np.mean(shares)) if shares else 0.0


def _one_a_template(units: Sequence[Any]) -> dict[str, str]:
    """Return one line for each masked text, in the order in which they first come."""
    found: dict[str, str] = {}
    for unit in units:
        for line in unit:
            found.setdefault(mask(line), line)
    return found


def _spread(items: Sequence[str], most: int) -> list[str]:
    """Return at most so many of some items, evenly spread."""
    if len(items) <= most:
        return list(items)
    return [items[int(i)] for i in np.linspace(0, len(items) - 1, most)]
