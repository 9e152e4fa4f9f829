"""Why a service of the OpenAI protocol did not answer: whether to ask again, and what to tell the user."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from genad.extras import require
from genad.foundation.llm import ModelServiceError

_BUSY = frozenset({408, 409, 425, 429})
# Parts of a request that some services do not know; one that a service refuses is left out from then on.
_OPTIONAL = ("response_format", "temperature", "seed", "logprobs", "stop", "max_tokens")
_LONGEST = 300  # characters of what a service says


@dataclass(frozen=True)
class Problem:
    """Why an attempt failed; holds nothing of the request.

    Parameters
    ----------
    kind : {"timeout", "connection", "status"}
    status : int
        Of HTTP.
    text : str
        What the service, or the system, says.
    passing : bool
        Whether the same may work later.
    headers : mapping of str to str
        Of the refusal, names in lower case.
    refused_part : str or None
        The part of the request that the service does not know.
    """

    kind: Literal["timeout", "connection", "status"]
    status: int = 0
    text: str = ""
    passing: bool = True
    headers: Mapping[str, str] = field(default_factory=dict)
    refused_part: str | None = None


def problem_of(error: Exception, body: Mapping[str, Any]) -> Problem | None:
    """Return what an error of the client means; None when an answer came that could not be read.

    Parameters
    ----------
    error : Exception
    body : mapping
        Of the request.
    """
    openai = require("openai", "llm")
    if isinstance(error, TimeoutError | openai.APITimeoutError):
        return Problem("timeout")
    if isinstance(error, openai.APIConnectionError):
        return Problem("connection", text=type(error.__cause__ or error).__name__)
    if not isinstance(error, openai.APIStatusError):
        return None
    status, text = error.status_code, str(error.message)
    passing = (status in _BUSY or status >= 500) and "insufficient_quota" not in text
    headers = {name.lower(): value for name, value in error.response.headers.items()}
    part = _refused(str(getattr(error, "param", None) or ""), text, body) if status in (400, 422) else None
    return Problem("status", status, text, passing, headers, part)


def _refused(named: str, text: str, body: Mapping[str, Any]) -> str | None:
    """Return the part of the request that a refusal names, in its own place or in its words."""
    sent = [name for name in _OPTIONAL if name in body]
    return next((name for name in sent if named.startswith(name)), None) or next(
        (name for name in sent if name in text), None
    )


def shortened(text: str, key: str | None) -> str:
    """Return what a service says on one line, short, and without the key, which some services repeat."""
    text = " ".join((text.replace(key, "***") if key else text).split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def explain(
    problem: Problem,
    *,
    base_url: str,
    model: str,
    timeout: float,
    keyed: bool,
    attempts: int,
    offered: Sequence[str] = (),
) -> ModelServiceError:
    """Return the error for the user, which names the argument that is wrong and the mend.

    Parameters
    ----------
    problem : Problem
        Its text without the key.
    base_url, model, timeout
        Of the backend.
    keyed : bool
        Whether a key was sent.
    attempts : int
    offered : sequence of str
        Models the service says it has.

    Examples
    --------
    >>> print(explain(Problem("timeout"), base_url="http://h/v1", model="m", timeout=5, keyed=False, attempts=1))
    timeout: http://h/v1 gave no answer within 5 s after 1 attempt; raise timeout, or ask for fewer tokens.
    """
    after = f" after {attempts} attempt{'s' * (attempts > 1)}"
    status = problem.status
    if problem.kind == "connection":
        text = (
            f"base_url: {base_url} cannot be reached ({problem.text}){after}; start the service there, or give another "
            "address."
        )
    elif problem.kind == "timeout":
        text = (
            f"timeout: {base_url} gave no answer within {timeout:g} s{after}; raise timeout, or ask for fewer tokens."
        )
    elif status in (401, 403):
        how = "is not accepted" if keyed else "is needed, and none was given"
        text = (
            f"api_key_env: a key {how} by {base_url} (status {status}); name the environment variable that holds a "
            "valid key."
        )
    elif unknown_model(problem) and offered:
        text = f"model: {model!r} is not known to {base_url}; it offers {', '.join(offered)}."
    elif unknown_model(problem):
        text = (
            f"base_url: {base_url} does not serve the OpenAI protocol there, or not the model {model!r} (status "
            f"{status}: {problem.text}); addresses mostly end in /v1."
        )
    else:
        text = f"llm: {base_url} refuses (status {status}){after}: {problem.text}"
    return ModelServiceError(text)


def unknown_model(problem: Problem) -> bool:
    """Tell whether the service may not know the model, or not the address."""
    return problem.status == 404 or "model_not_found" in problem.text
