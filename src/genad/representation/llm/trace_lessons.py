"""What a language model is asked about a trace, whether it is normal and why not, and what it learns to answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from genad.foundation.forms import Parsed
from genad.foundation.llm import LanguageModel
from genad.foundation.prompts import PromptTemplate, load_prompt
from genad.foundation.schema import AnswerError
from genad.representation.llm.tiny_lm import Pair, Speech
from genad.representation.llm.traces import Trace, TraceMutator, read_cause

#: The two answers to the first question.
VERDICTS = {False: "The trace is normal.", True: "The trace is anomalous."}

_VERDICT_WORDINGS, _CAUSE_WORDINGS = 4, 2  # wordings of the questions in the pack


@dataclass
class Lessons:
    """Questions about normal traces and about anomalies made of them, with the answers.

    Attributes
    ----------
    traces : list of traces
        All samples, by position.
    mutator : TraceMutator
        Of the training traces.
    speech : Speech

    Examples
    --------
    >>> traces = [("order", "approve", "pay")]
    >>> lessons = Lessons(traces, TraceMutator(traces), Speech(traces[0]))
    >>> [answer for _, answer in lessons.words(traces[0], np.random.default_rng(2))][:2]
    ['The trace is normal.', 'The trace is anomalous.']
    """

    traces: list[Trace]
    mutator: TraceMutator
    speech: Speech

    def pairs(self, trace: Trace, rng: np.random.Generator) -> list[Pair]:
        """Return what a tiny model learns of a normal trace: two verdicts, a cause, and the trace itself."""
        pairs = [self.speech.verdict(trace, anomalous=False), self.speech.recall(trace)]
        made = self.mutator.mutate(trace, rng)
        if made is not None:
            pairs += [self.speech.verdict(made[0], anomalous=True), self.speech.cause(*made)]
        return pairs

    def words(self, trace: Trace, rng: np.random.Generator) -> list[tuple[list[dict[str, str]], str]]:
        """Return the two verdicts and the cause in words, each question in a random wording."""
        lessons = [(question(_wording("verdict", rng, _VERDICT_WORDINGS), trace), VERDICTS[False])]
        made = self.mutator.mutate(trace, rng)
        if made is not None:
            lessons.append((question(_wording("verdict", rng, _VERDICT_WORDINGS), made[0]), VERDICTS[True]))
            lessons.append((question(_wording("cause", rng, _CAUSE_WORDINGS), made[0]), str(made[1])))
        return lessons


def question(prompt: PromptTemplate, trace: Sequence[str]) -> list[dict[str, str]]:
    """Return the messages that ask about a trace."""
    return prompt.render(trace=list(trace)).messages


def _wording(name: str, rng: np.random.Generator, count: int) -> PromptTemplate:
    return load_prompt("dabl", f"{name}_{int(rng.integers(count)) + 1}")


def parsed_cause(text: str) -> Parsed:
    """Return the cause that an answer states; what is said around it counts as repaired.

    Raises
    ------
    AnswerError
        When it states none.
    """
    cause = read_cause(text)
    if cause is None:
        raise AnswerError("it has none of the sentences")
    return Parsed(cause, repaired=text.strip() != str(cause))


def surprise_of_activities(model: LanguageModel, trace: Trace) -> list[float]:
    """Return the surprise of each activity in nats after those before it, by a model that gives likelihoods."""
    text, spans = "", []
    for name in trace:
        begin = len(text)
        text += f" {name};"
        spans.append((begin, len(text)))
    scores = model.log_likelihood([text], ["The activities of a normal case:"])[0]
    return [scores.within(*span) for span in spans]
