"""The slow stage of AESOP: a language model decides what to do about an alarm, and silence never means "go on"."""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import monotonic

import numpy as np

from genad.foundation.answers import Answer, ask
from genad.foundation.forms import Parsed
from genad.foundation.llm import BudgetExhausted, Cancelled, LanguageModel
from genad.foundation.prompts import load_prompt
from genad.foundation.schema import AnswerError

#: The decision that there is nothing to do; fallbacks are numbered from 1.
CONTINUE = 0

_DECISION = re.compile(r"DECISION\s*:\s*\**\s*<?\s*([+-]?\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Alarm:
    """An observation that the fast stage flagged.

    Attributes
    ----------
    observation : str
    score, level : float
        Its score, and the level of the alarm that it is above.
    nearest : list of (str, float)
        The nearest normal observations, with their similarities.
    """

    observation: str
    score: float
    level: float
    nearest: list[tuple[str, float]]


@dataclass(frozen=True)
class Decision:
    """What is done about an alarm.

    Attributes
    ----------
    number : int
        :data:`CONTINUE`, or the fallback from 1.
    status : str
        State of the answer; ``"fallback"`` when it came too late.
    reason : str
        The words before the decision. Data, never executed.
    steps : int
        Steps of the system that the answer took.
    """

    number: int
    status: str
    reason: str
    steps: int


@dataclass(frozen=True)
class Reasoner:
    r"""Asks a language model once about each alarm; what is no valid decision in time becomes the conservative one.

    Parameters
    ----------
    task : str
        What the system does.
    fallbacks : sequence of str
        What can be done instead of continuing.
    conservative : int
        The fallback, from 1, that is taken when no valid decision comes in time.
    step_seconds : float
    patience : int
        Steps that an answer may take.

    Examples
    --------
    >>> from genad.foundation.scripted import Scripted
    >>> reasoner = Reasoner("it delivers parcels.", ["land here", "fly home"])
    >>> said = Scripted(["A kite is harmless.\nDECISION: 0", "DECISION: 7", "DECISION: 7", "DECISION: 7"])
    >>> alarms = [Alarm(text, -0.2, -0.6, [("a bird ahead", 0.2)]) for text in ("a kite ahead", "smoke ahead")]
    >>> [(decision.number, decision.status) for decision in reasoner.decide(said, alarms)]
    [(0, 'ok'), (1, 'fallback')]
    """

    task: str
    fallbacks: Sequence[str]
    conservative: int = 1
    step_seconds: float = 1.0
    patience: int = 60

    def decide(self, model: LanguageModel, alarms: Sequence[Alarm]) -> list[Decision]:
        """Return the decision about each alarm, those of a model that takes several calls side by side."""
        if model.concurrency <= 1 or len(alarms) <= 1:
            return [self._decided(model, alarm) for alarm in alarms]
        with ThreadPoolExecutor(min(model.concurrency, len(alarms))) as pool:
            return list(pool.map(lambda alarm: self._decided(model, alarm), alarms))

    def _decided(self, model: LanguageModel, alarm: Alarm) -> Decision:
        fields = {
            "task": self.task,
            "patience": self.patience,
            "observation": alarm.observation,
            "score": round(alarm.score, 3),
            "alarm": round(alarm.level, 3),
            "nearest": [f"{text} [{similarity:.3f}]" for text, similarity in alarm.nearest],
            "fallbacks": "\n".join(f"{i} {text}" for i, text in enumerate(self.fallbacks, 1)),
        }
        begin = monotonic()
        try:
            answer = ask(
                model, load_prompt("aesop", "decide"), fields, read=self._read, fallback=(self.conservative, "")
            )
        except (BudgetExhausted, Cancelled) as error:
            answer = Answer((self.conservative, str(error)), "unasked")
        steps = int(np.ceil((monotonic() - begin) / self.step_seconds))
        number, reason = answer.value
        if steps > self.patience and answer.usable:
            late = f"The decision {number} came after {steps} steps, {self.patience} being allowed. {reason}"
            return Decision(self.conservative, "fallback", late, steps)
        return Decision(number, answer.status, reason or "No valid decision came; the alarm stands.", steps)

    def _read(self, text: str) -> Parsed:
        """Read the decision of the last line that has one, and the words before it."""
        found = list(_DECISION.finditer(text))
        if not found:
            raise AnswerError("it has no line 'DECISION: <number>'")
        number = int(found[-1][1])
        if not CONTINUE <= number <= len(self.fallbacks):
            raise AnswerError(f"the decision {number} is not one of 0 to {len(self.fallbacks)}")
        plain = f"DECISION: {number}"
        return Parsed((number, text[: found[-1].start()].strip() or plain), not text.rstrip().endswith(plain))
