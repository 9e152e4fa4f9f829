"""LogConfigLocalizer: log lines that fault-free runs never write, and the configuration property behind them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted
from torch import nn

from genad.core.detections import Detections
from genad.core.parameters import check_whole
from genad.core.registry import Card, Family, register
from genad.data.adapters import Adapter
from genad.data.kinds import Kind
from genad.data.log import Drain, Sessions
from genad.data.log.masking import mask
from genad.errors import InputError
from genad.foundation.answers import Answer, ask, ask_each
from genad.foundation.closed_set import class_scores
from genad.foundation.forms import key_blocks, number_answer
from genad.foundation.llm import BudgetExhausted, Cancelled, LanguageModel
from genad.foundation.prompts import load_prompt
from genad.foundation.schema import AnswerError
from genad.representation.llm.config_rules import (
    MISSING,
    Localization,
    Property,
    Suspect,
    count_negative,
    direct_hit,
    head,
)
from genad.representation.llm.log_prompt import chunks_by_budget
from genad.representation.prompting import (
    PromptDetector,
    PromptNet,
    UnitAdapter,
    Verdicts,
    from_buffer,
    padded,
    scored_once,
    to_buffer,
    units_of,
    worst,
)

_PASS = 90  # the probability, in percent, from which a direct hit stands
_WORD = 0.1  # what a negative word adds to the degree of a line
_LINE = 1000  # characters of a line in the question that lists them


@dataclass
class RunAdapter(UnitAdapter):
    """Runs as lists of (level, message)."""

    def unit(self, X: Sessions, i: int) -> list[tuple[str, str]]:
        """Return the levels and messages of run ``i``."""
        levels: Any = [""] * len(X[i])
        if X.log is not None and X.rows is not None and X.log.level is not None:
            levels = X.log.level[X.rows[X.offsets[i] : X.offsets[i + 1]]]
        return [(str(level or ""), text) for level, text in zip(levels, X.texts(i), strict=True)]

    def lines(self, unit: Any) -> list[str]:
        """Return the messages."""
        return [text for _, text in unit]


@register(
    Card(
        title="Face It Yourselves: An LLM-Based Two-Stage Strategy to Localize Configuration Errors via Logs",
        authors="Shan, Huo, Su, Li, Li, Zheng",
        venue="ISSTA",
        year=2024,
        family=Family.LANGUAGE_MODEL,
        kinds=(Kind.LOG,),
        row="1.2.1-02",
        summary="Finds log lines that fault-free runs never write, and names the configuration property behind them.",
        tags=("log", "configuration", "root cause", "reasons"),
    ),
    name="log_config_localizer",
)
@dataclass(eq=False, repr=False)
class LogConfigLocalizer(PromptDetector):
    """Score a run by its most alarming line of a template no fault-free run has, and name the property at fault.

    Stage 1 asks no model. Lines whose template occurs in no fault-free run get a degree: 0.1 for each negative word in
    the template and 0.1 for each in the line with its level. The score of a run is its highest degree, the map has
    that of each line, and a run whose degrees are all 0 shows no configuration error.

    Stage 2, in :meth:`localize` and :meth:`detect`, names suspects among the properties of ``configuration``. String
    rules come first: a line that holds a property's value, its name, or a piece of its name hits it, once a line. The
    model then rates each hit, and those it gives 90 % or more are votes; the property with most votes is the suspect.
    Only if no hit stands, one question lists all anomalous lines and properties, and the model infers up to three.

    Unlike the published code, values count as whole words only and truth values not at all, a hit counts once a line,
    and lines keep their own numbers, the evidence being their positions in the run.

    **When to use.** A system whose healthy runs are at hand, and a run that failed after its configuration changed.
    One session is one run: group the log accordingly.

    **When it fails.** Errors the log does not mention in words; healthy runs that differ much, since every new template
    with a negative word counts; a small model, whose ratings are near chance. Its list of words alone had AUROC 0.81 on
    lines of BGL at random and 0.69 by time.

    Parameters
    ----------
    configuration : sequence of (name, value) or (name, value, description)
        The properties that may be at fault.
    ceiling : int
        Characters of lines, and of properties, in the question that lists them; the first that fit are listed.
    retries : int
        How often a question is asked again when its answer cannot be read.

    Attributes
    ----------
    reasons_, status_ : list of str
        Of the runs of the last call.

    Examples
    --------
    >>> from genad.foundation.scripted import Scripted
    >>> healthy = [["namenode started", "replication set to 3", "job done"]] * 500
    >>> model = Scripted({"dfs.replication": "Probability is 95.", "": "Probability is 30."})
    >>> detector = LogConfigLocalizer([("dfs.replication", "900"), ("io.buffer", "4096")], llm=model).fit(healthy)
    >>> run = ["namenode started", "WARN invalid replication 900: error", "job done"]
    >>> detector.anomaly_score([healthy[0], run]).round(2).tolist()
    [0.0, 0.6]
    >>> found = detector.localize([run])[0]
    >>> found.suspects[0].name, found.suspects[0].lines, found.suspects[0].how
    ('dfs.replication', (1,), 'direct')

    References
    ----------
    Shan, Huo, Su, Li, Li and Zheng, Face it yourselves: an LLM-based two-stage strategy to localize
    configuration errors via logs, ISSTA 2024.
    """

    configuration: Any = ()
    ceiling: int = field(default=5000, kw_only=True)
    retries: int = field(default=2, kw_only=True)

    def _check_parameters(self) -> None:
        check_whole(self, "ceiling")
        check_whole(self, "retries", low=0)
        self._properties()
        super()._check_parameters()

    def _properties(self) -> list[Property]:
        found = []
        for entry in self.configuration:
            parts = [entry] if isinstance(entry, str) else list(entry)
            if not 2 <= len(parts) <= 3 or not str(parts[0]).strip():
                raise InputError(
                    f"configuration: {entry!r} was found; give tuples (name, value) or (name, value, description)."
                )
            found.append(Property(*(MISSING if part is None or part == "" else str(part) for part in parts)))
        names = Counter(known.name for known in found)
        twice = [name for name, count in names.items() if count > 1]
        if twice:
            raise InputError(f"configuration: {twice[0]!r} comes {names[twice[0]]} times; give each property once.")
        return found

    def unit_adapter(self) -> Adapter:
        """Return the bridge to runs of levels and messages."""
        return RunAdapter()

    # ------------------------------------------------------------------ stage 1

    def build(self, shape: tuple[int, ...]) -> nn.Module:  # noqa: ARG002 - units have no shape
        """Make a network that remembers the templates of fault-free runs."""
        return PromptNet(miner=to_buffer(Drain().to_dict()))

    def study(self, net: Any, model: LanguageModel, units: Sequence[Any]) -> None:  # noqa: ARG002 - nothing to ask
        """Mine the templates of fault-free runs."""
        miner = Drain()
        miner.learn([text for unit in units for text in self._lines(unit)])
        net.miner = to_buffer(miner.to_dict())

    def degrees(self, net: Any, unit: Sequence[tuple[str, str]]) -> tuple[list[float], list[int]]:
        """Return the degree of each line of a run, and the line of the highest degree of each anomalous template."""
        texts = [text for _, text in unit]
        # Strictly: a line that only resembles a fault-free template is a new one.
        numbers = self._miner(net).match(texts, strict=True)
        degrees, best = [], dict[str, int]()
        for i, ((level, text), number) in enumerate(zip(unit, numbers.tolist(), strict=True)):
            if number >= 0:
                degrees.append(0.0)
                continue
            template = mask(text.split("\n", 1)[0])
            degrees.append(_WORD * (count_negative(template) + count_negative(f"{level} {text}")))
            if degrees[i] > 0 and (template not in best or degrees[i] > degrees[best[template]]):
                best[template] = i
        return degrees, sorted(best.values(), key=lambda i: (-degrees[i], i))

    def _miner(self, net: Any) -> Drain:
        return Drain.from_dict(from_buffer(net.miner))

    def judge(self, net: Any, model: LanguageModel, units: Sequence[Any], *, known: bool) -> Verdicts:  # noqa: ARG002
        """Return the degrees; the model is not asked."""
        rows, reasons = [], []
        for unit in units:
            degrees, lines = self.degrees(net, unit)
            rows.append(degrees)
            reasons.append(f"event {lines[0] + 1}: {self._lines(unit)[lines[0]][:200]}" if lines else "")
        return Verdicts(np.array([max(row) for row in rows]), reasons, ["ok"] * len(units), padded(rows))

    # ------------------------------------------------------------------ stage 2

    def localize(self, X: Any) -> list[Localization]:
        """Name the properties that may be at fault, for each run.

        Parameters
        ----------
        X : Log, Sessions, path or list of sequences
            Runs, one a session.

        Returns
        -------
        list of Localization
            The model is asked nothing about a run without a sign of an error.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        ModelServiceError
            When a service fails for good.
        """
        check_is_fitted(self, "net_")
        return [self._localized(unit) for unit in units_of(self._ingest(X, reset=False).samples)]

    def detect(self, X: Any, **options: Any) -> Detections:
        """Score, flag and explain as every detector; ``meta["localized"]`` has the suspects of each run.

        Parameters
        ----------
        X : Log, Sessions, path or list of sequences
        **options
            As for every detector.

        Returns
        -------
        Detections
        """
        found = super().detect(X, **options)
        localized = self.localize(X)
        found.meta["localized"] = [
            {
                "degree": run.degree,
                "lines": list(run.lines),
                "suspects": [vars(suspect) | {"lines": list(suspect.lines)} for suspect in run.suspects],
                "status": run.status,
            }
            for run in localized
        ]
        status = Counter(run.status for run in localized)
        found.meta |= {"llm_status": dict(status), "llm_usage": str(self.language_model().meter.usage)}
        return found

    def _localized(self, unit: Sequence[tuple[str, str]]) -> Localization:
        degrees, lines = self.degrees(self.net_, unit)
        if not lines:
            return Localization(0.0)
        properties, model = self._properties(), self.language_model()
        texts = [text for _, text in unit]
        hits = [(known, i, rule) for i in lines for known in properties if (rule := direct_hit(texts[i], known))]
        answers = self._verified(model, hits, texts)
        passed = [hit for hit, answer in zip(hits, answers, strict=True) if answer.usable and answer.value >= _PASS]
        if passed:
            suspects = self._voted(model, passed, texts)
        elif properties:
            suspects, answer = self._inferred(model, properties, hits, lines, texts)
            answers = [*answers, answer]
        else:
            suspects = ()
        calls = sum(answer.usage.calls for answer in answers)
        return Localization(max(degrees), tuple(lines), suspects, worst([answer.status for answer in answers]), calls)

    def _fitting(self, texts: Sequence[str]) -> list[str]:
        """Return the first of some texts, as many as the ceiling allows."""
        return [texts[i] for i in next(chunks_by_budget(texts, self.ceiling))]

    def _verified(
        self, model: LanguageModel, hits: Sequence[tuple[Property, int, str]], texts: Sequence[str]
    ) -> list[Answer]:
        """Let the model rate each direct hit; one without a number has not passed."""
        rows = [_facts(known, texts[i]) for known, i, _ in hits]
        reader = number_answer(0, 100, after="Probability is")
        prompt = load_prompt("log_config_localizer", "verify")
        return ask_each(model, prompt, rows, read=reader, retries=self.retries, fallback=0.0, seed=self.seed_)

    def _voted(
        self, model: LanguageModel, passed: Sequence[tuple[Property, int, str]], texts: Sequence[str]
    ) -> tuple[Suspect, ...]:
        """Rank properties by their votes, and those with as many by how probable the model finds a yes."""
        votes: dict[str, list[tuple[Property, int, str]]] = {}
        for hit in passed:
            votes.setdefault(hit[0].name, []).append(hit)
        sure = dict.fromkeys(votes, 0.0)
        if "next_token" in model.capabilities:
            prompt = load_prompt("log_config_localizer", "confidence")
            asked = {
                name: prompt.render(**_facts(hits[0][0], texts[hits[0][1]])).messages[0]["content"].rstrip()
                for name, hits in votes.items()
            }
            odds = scored_once(lambda some: class_scores(model, some, [" yes"], [" no"]), list(asked.values()))
            # Below 1, so that it never outweighs a vote.
            sure = {n: 0.99 / (1.0 + np.exp(-v)) for n, v in zip(asked, np.nan_to_num(odds).tolist(), strict=True)}
        found = [
            Suspect(
                name,
                hits[0][0].value,
                float(len(hits) + sure[name]),
                "direct",
                tuple(i for _, i, _ in hits),
                f"the log has its {hits[0][2]}" if hits[0][2] != "piece" else "the log has a piece of its name",
            )
            for name, hits in votes.items()
        ]
        return tuple(sorted(found, key=lambda suspect: -suspect.score))

    def _inferred(
        self,
        model: LanguageModel,
        properties: Sequence[Property],
        hits: Sequence[tuple[Property, int, str]],
        lines: Sequence[int],
        texts: Sequence[str],
    ) -> tuple[tuple[Suspect, ...], Answer]:
        """Ask which properties explain the lines; the direct hits stand in when no answer can be used."""
        by_name = {known.name: known for known in properties}

        def check(blocks: list[dict[str, str]]) -> None:
            if not any(block["name"] in by_name for block in blocks):
                raise AnswerError("none of the names is that of a property given; use names as they are given")

        listed = self._fitting([str(known) for known in properties])
        heads = self._fitting([head(texts[i])[:_LINE] for i in lines])
        shown = list(lines[: len(heads)])
        prompt = load_prompt("log_config_localizer", "infer")
        fields = {"lines": heads, "properties": listed}
        reader = key_blocks(["name", "value", "relevant log", "explanation"], most=3)
        try:
            answer = ask(model, prompt, fields, read=reader, check=check, retries=self.retries, seed=self.seed_)
        except (BudgetExhausted, Cancelled) as error:
            answer = Answer(None, "unasked", reference=prompt.reference, problems=(str(error),))
        if not answer.usable:
            named: dict[str, Suspect] = {}
            for known, i, rule in hits:
                place = 1.0 / (1 + len(named))
                named.setdefault(
                    known.name, Suspect(known.name, known.value, place, "fallback", (i,), f"its {rule} is in the log")
                )
            return tuple(named.values()), answer if answer.status == "unasked" else _fallen_back(answer)
        found: dict[str, Suspect] = {}
        for block in answer.value:
            name = block["name"]
            if name in by_name and name not in found:
                evidence = _evidence(block.get("relevant log", ""), shown)
                place = 1.0 / (1 + len(found))
                why = block.get("explanation", "")
                found[name] = Suspect(name, by_name[name].value, place, "indirect", evidence, why)
        return tuple(found.values()), answer


def _facts(known: Property, text: str) -> dict[str, str]:
    return {"log": text, "name": known.name, "value": known.value, "description": known.description}


def _fallen_back(answer: Answer) -> Answer:
    return Answer(None, "fallback", answer.usage, answer.reference, answer.text, answer.problems)


def _evidence(relevant: str, shown: Sequence[int]) -> tuple[int, ...]:
    """Return the position of the line that an answer names by its number, if there is such a line."""
    match = re.match(r"\W*(\d{1,6})", relevant)
    return (shown[int(match[1]) - 1],) if match and 1 <= int(match[1]) <= len(shown) else ()
