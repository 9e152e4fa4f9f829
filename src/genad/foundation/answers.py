"""Ask a language model and get a value: read, mend, ask again, fall back, and say which of these it took.

The same rules hold for every method. Bad text in an answer never raises; a service that fails for good does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from genad.errors import InputError
from genad.foundation.forms import Parsed, Reader, json_answer
from genad.foundation.llm import BudgetExhausted, Cancelled, LanguageModel, Reply
from genad.foundation.prompts import PromptTemplate, Request
from genad.foundation.schema import AnswerError, Schema
from genad.foundation.usage import Usage

Status = Literal["ok", "repaired", "retried", "fallback", "abstained", "unasked"]

_QUOTED = 2000  # characters of a bad answer that are shown to the model again
_PROBLEMS = {
    "empty": "it was empty",
    "refused": "it was a refusal",
    "malformed": "it did not arrive in the agreed form",
}


class _Abstain:
    """Stands for: no fallback; the question stays without an answer."""

    def __repr__(self) -> str:
        return "ABSTAIN"


#: The fallback of a method that would rather have no answer.
ABSTAIN: Final = _Abstain()


@dataclass(frozen=True)
class Answer:
    """What came of a question.

    Parameters
    ----------
    value : object
        What the answer says, or the fallback; None when abstained or unasked.
    status : {"ok", "repaired", "retried", "fallback", "abstained", "unasked"}
        ``"ok"``: read as it came; ``"repaired"``: mended; ``"retried"``: asked again; ``"fallback"``: no answer could
        be used and the method's own value stands; ``"abstained"``: none could be used and there is no such value;
        ``"unasked"``: the budget was spent, or the calls cancelled, before an answer.
    usage : Usage
        Calls and tokens, answers from a cache among them; what was paid for is counted by the model's meter.
    reference : str
        Which prompt was used: ``"pack/name@version"``.
    text : str
        The last answer as it came.
    problems : tuple of str
        Why answers could not be used, one for each.
    """

    value: Any
    status: Status
    usage: Usage = field(default_factory=Usage)
    reference: str = ""
    text: str = ""
    problems: tuple[str, ...] = ()

    @property
    def usable(self) -> bool:
        """Whether the model itself gave the value."""
        return self.status in ("ok", "repaired", "retried")


def ask(
    model: LanguageModel,
    prompt: PromptTemplate | Request,
    fields: Mapping[str, Any] | None = None,
    *,
    schema: Schema | None = None,
    read: Reader | None = None,
    check: Callable[[Any], None] | None = None,
    retries: int = 2,
    fallback: Any = ABSTAIN,
    temperature: float | None = None,
    warmer: float = 0.0,
    seed: int = 0,
) -> Answer:
    """Ask a question until an answer can be used.

    Parameters
    ----------
    model : LanguageModel
    prompt : PromptTemplate or Request
    fields : mapping or None
        Values for the fields of a template.
    schema : Schema or None
        Of the answer; None takes the prompt's own.
    read : callable or None
        Reads the text, see :mod:`genad.foundation.forms`; None reads JSON by the schema.
    check : callable or None
        Called with the value; raises AnswerError when it cannot be used after all.
    retries : int
        How often the question is asked again, the bad answer and what is wrong with it quoted.
    fallback : object
        The value when no answer can be used; ABSTAIN for none.
    temperature : float or None
        None takes the prompt's.
    warmer : float
        Added to the temperature each time the question is asked again.
    seed : int
        Of the sampling; raised by 1 each time.

    Returns
    -------
    Answer

    Raises
    ------
    InputError
        When the fields do not fit the prompt, or there is neither a schema nor a reader.
    BudgetExhausted, Cancelled, ModelServiceError
        From the model.

    Examples
    --------
    >>> from genad.foundation.prompts import load_prompt
    >>> from genad.foundation.scripted import Scripted
    >>> model = Scripted(["I cannot.", '[{"label": "abnormal", "reason": "the fan stopped"}]'])
    >>> answer = ask(model, load_prompt("example", "triage"), {"lines": ["fan stopped"], "count": 1})
    >>> answer.value, answer.status, answer.problems
    ([{'label': 'abnormal', 'reason': 'the fan stopped'}], 'retried', ('it is not JSON',))
    """
    request = prompt.render(**(fields or {})) if isinstance(prompt, PromptTemplate) else prompt
    schema = schema if schema is not None else request.schema
    if read is None:
        if schema is None:
            raise InputError(f"read: the prompt {request.reference} has no schema; give a schema or a reader.")
        read = json_answer(schema)
    heat = request.temperature if temperature is None else temperature
    messages, problems = list(request.messages), []
    usage, reply = Usage(), Reply("")
    for attempt in range(retries + 1):
        reply = model.chat(
            messages,
            schema=schema,
            max_tokens=request.max_tokens,
            temperature=heat + attempt * warmer,
            seed=seed + attempt,
            stop=request.stop,
        )
        usage += Usage(1, reply.tokens_in, reply.tokens_out)
        try:
            parsed = _parsed(reply, read, check)
        except AnswerError as error:
            problem = str(error)
            if reply.status == "cut":
                problem += f"; the answer was cut off after {request.max_tokens} tokens, so be brief"
            problems.append(problem)
            messages = [*request.messages, *_again(reply.text, problem)]
            continue
        status: Status = "retried" if attempt else "repaired" if parsed.repaired else "ok"
        return Answer(parsed.value, status, usage, request.reference, reply.text, tuple(problems))
    value, status = (None, "abstained") if fallback is ABSTAIN else (fallback, "fallback")
    return Answer(value, status, usage, request.reference, reply.text, tuple(problems))


def _parsed(reply: Reply, read: Reader, check: Callable[[Any], None] | None) -> Parsed:
    if reply.status in _PROBLEMS:
        raise AnswerError(_PROBLEMS[reply.status])
    parsed = read(reply.text)
    if check is not None:
        check(parsed.value)
    return parsed


def _again(text: str, problem: str) -> list[dict[str, str]]:
    """Return the messages that quote a bad answer and ask again."""
    said = [{"role": "assistant", "content": text[:_QUOTED]}] if text.strip() else []
    words = f"Your answer could not be used: {problem}. Answer again, in the form asked for and with nothing else."
    return [*said, {"role": "user", "content": words}]


def ask_each(
    model: LanguageModel,
    prompt: PromptTemplate,
    rows: Sequence[Mapping[str, Any]],
    **settings: Any,
) -> list[Answer]:
    """Ask a question about each of many things, side by side where the model allows it.

    When the budget is spent or the calls are cancelled, what was answered by then is returned and the rest is marked
    ``"unasked"``; with a cache, asking again goes on from there.

    Parameters
    ----------
    model : LanguageModel
    prompt : PromptTemplate
    rows : sequence of mappings
        The fields of each question.
    **settings
        Of :func:`ask`.

    Returns
    -------
    list of Answer
        In the order of ``rows``.

    Raises
    ------
    InputError, ModelServiceError
        As :func:`ask`; questions not yet asked are then given up.
    """
    requests = [prompt.render(**row) for row in rows]

    def one(request: Request) -> Answer:
        try:
            return ask(model, request, **settings)
        except (BudgetExhausted, Cancelled) as error:
            return Answer(None, "unasked", reference=request.reference, problems=(str(error),))

    workers = min(model.concurrency, len(requests))
    if workers <= 1:
        return [one(request) for request in requests]
    pool = ThreadPoolExecutor(workers)
    try:
        return list(pool.map(one, requests))
    except KeyboardInterrupt:
        model.cancel()
        pool.shutdown(wait=True, cancel_futures=True)
        model.resume()
        raise
    finally:
        # After an error no further question is asked.
        pool.shutdown(wait=True, cancel_futures=True)


def summary(answers: Sequence[Answer], model: LanguageModel) -> dict[str, Any]:
    """Return what the ``meta`` of a result says about its answers.

    Returns
    -------
    dict
        ``model``, ``prompts``, ``n_calls``, ``tokens_in``, ``tokens_out`` and ``llm_status``, the count of each status.

    Examples
    --------
    >>> from genad.foundation.scripted import Scripted
    >>> summary([Answer(1, "ok", Usage(1, 20, 5), "example/triage@1"), Answer(None, "abstained")], Scripted([]))
    {'model': 'scripted', 'prompts': ['example/triage@1'], 'n_calls': 1, 'tokens_in': 20, 'tokens_out': 5,
     'llm_status': {'ok': 1, 'abstained': 1}}
    """
    usage = sum((answer.usage for answer in answers), Usage())
    return {
        "model": model.name,
        "prompts": sorted({answer.reference for answer in answers if answer.reference}),
        "n_calls": usage.calls,
        "tokens_in": usage.tokens_in,
        "tokens_out": usage.tokens_out,
        "llm_status": dict(Counter(answer.status for answer in answers)),
    }
