"""Language models behind one small interface: chat, likelihoods of text, the next token, embeddings.

A backend declares what it can do, and a method asks for what it needs; everything else, such as budgets, caches and
the mending of answers, is the same for all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from genad.errors import GenadError, InputError, ServiceError
from genad.foundation.usage import Budget, BudgetExhausted, Meter, Usage

if TYPE_CHECKING:
    from genad.foundation.schema import Schema

__all__ = [
    "CAPABILITIES",
    "Budget",
    "BudgetExhausted",
    "Cancelled",
    "CapabilityError",
    "LanguageModel",
    "Message",
    "Meter",
    "ModelServiceError",
    "Prompt",
    "Reply",
    "TokenScores",
    "Usage",
    "as_messages",
    "model_file",
    "names_llama_cpp",
    "need",
    "open_model",
]

#: What a model may be able to do.
CAPABILITIES = ("chat", "json_schema", "log_likelihood", "next_token", "embedding")

Message = Mapping[str, str]
#: Plain text to go on with, or a conversation.
Prompt = str | Sequence[Message]

ReplyStatus = Literal["ok", "cut", "refused", "empty", "malformed"]

#: What stands before the path of a file that llama.cpp is to compute.
_LLAMA_CPP = "llamacpp:"

_ROLES = ("system", "user", "assistant")


class ModelServiceError(ServiceError):
    """A language model cannot be reached or refuses to serve; bad text in an answer is no such error."""


class Cancelled(GenadError):  # noqa: N818
    """The calls were cancelled by the caller; answers got before stand."""


class CapabilityError(InputError):
    """A language model cannot do what is asked of it."""


@dataclass(frozen=True)
class Reply:
    """An answer of a language model, whatever it is worth.

    Parameters
    ----------
    text : str
    finish_reason : str
        ``"stop"``, ``"length"`` when the limit of tokens cut it, or what the server says.
    tokens_in, tokens_out : int
    log_probs : tuple of float or None
        Log-probability in nats of each token written, where the backend tells.
    status : {"ok", "cut", "refused", "empty", "malformed"}
        ``"cut"``: ended by the limit of tokens; ``"refused"``: the service declined; ``"empty"``: no text;
        ``"malformed"``: the service sent no answer in the agreed form.
    """

    text: str
    finish_reason: str = "stop"
    tokens_in: int = 0
    tokens_out: int = 0
    log_probs: tuple[float, ...] | None = None
    status: ReplyStatus = "ok"


@dataclass(frozen=True, eq=False)
class TokenScores:
    """How probable each token of a text is after what stands before it.

    Parameters
    ----------
    log_probs : ndarray of shape (n,)
        In nats; NaN for a token that nothing stands before.
    spans : ndarray of int, shape (n, 2)
        Characters [start, stop) of the text that each token stands for.

    Examples
    --------
    >>> scores = TokenScores(np.array([np.nan, -1.0, -3.0]), np.array([[0, 2], [2, 3], [3, 5]]))
    >>> scores.nats, scores.within(0, 3)
    (2.0, 1.0)
    """

    log_probs: NDArray[np.float64]
    spans: NDArray[np.int64]

    @property
    def nats(self) -> float:
        """Mean surprise of a token in nats; NaN when no token has something before it."""
        known = self.log_probs[~np.isnan(self.log_probs)]
        return float(-known.mean()) if len(known) else float("nan")

    def within(self, start: int, stop: int) -> float:
        """Return the surprise in nats of characters [start, stop): that of all tokens that begin there, added up."""
        inside = (self.spans[:, 0] >= start) & (self.spans[:, 0] < stop)
        return float(-np.nansum(self.log_probs[inside]))


@runtime_checkable
class LanguageModel(Protocol):
    """What every backend and every wrapper of one offers.

    A method that a model does not declare in ``capabilities`` raises :class:`CapabilityError`; ``"json_schema"`` says
    that :meth:`chat` holds answers to a schema while they are written.
    """

    @property
    def name(self) -> str:
        """Which model this is, the same in every run: part of the key of cached answers."""
        ...

    @property
    def capabilities(self) -> frozenset[str]:
        """Those of :data:`CAPABILITIES` it has."""
        ...

    @property
    def concurrency(self) -> int:
        """How many calls it serves side by side."""
        ...

    @property
    def meter(self) -> Meter:
        """Counts what its calls take."""
        ...

    def chat(
        self,
        messages: Prompt,
        *,
        schema: Schema | None = None,
        max_tokens: int = 256,
        temperature: float = 0.0,
        seed: int = 0,
        stop: Sequence[str] = (),
    ) -> Reply:
        """Answer a conversation."""
        ...

    def log_likelihood(self, texts: Sequence[str], contexts: Sequence[Prompt] | None = None) -> list[TokenScores]:
        """Return how probable the tokens of texts are, each text after its context."""
        ...

    def next_token_log_probs(self, prompts: Sequence[Prompt], candidates: Sequence[str]) -> NDArray[np.float64]:
        """Return the log-probabilities (prompts, candidates) in nats of what may come next."""
        ...

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return vectors (texts, d) of length 1."""
        ...

    def cancel(self) -> None:
        """End the calls under way, where that is possible, and refuse new ones."""
        ...

    def resume(self) -> None:
        """Accept calls again."""
        ...


def need(model: LanguageModel, *capabilities: str, who: str) -> None:
    """Refuse a model that lacks what a method needs, before anything is asked of it.

    Parameters
    ----------
    model : LanguageModel
    *capabilities : str
        Of :data:`CAPABILITIES`.
    who : str
        The method, for the message.

    Raises
    ------
    CapabilityError
        When one is missing.
    """
    missing = [capability for capability in capabilities if capability not in model.capabilities]
    if missing:
        able = ", ".join(sorted(model.capabilities)) or "nothing"
        raise CapabilityError(
            f"llm: {who} needs {' and '.join(missing)}; {model.name} offers {able}. "
            "The local model (llm=None) offers all of them."
        )


def as_messages(prompt: Prompt) -> list[dict[str, str]]:
    """Return a conversation; a text becomes one message of the user.

    Raises
    ------
    InputError
        When a message lacks its role or content, or there is none.
    """
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    messages = [dict(message) for message in prompt]
    for message in messages:
        if message.get("role") not in _ROLES or not isinstance(message.get("content"), str):
            raise InputError(
                f"messages: {sorted(message)} with role {message.get('role')!r} was found; each message needs a role "
                f"({', '.join(_ROLES)}) and content (text)."
            )
    if not messages:
        raise InputError("messages: none were given; give at least one.")
    return messages


def names_llama_cpp(where: str | Path | None) -> bool:
    """Return whether llama.cpp is to compute the model: ``"llamacpp:"`` stands before its path."""
    return where is not None and str(where).startswith(_LLAMA_CPP)


def model_file(where: str | Path | None) -> Path | None:
    """Return the file or folder of a model of this process; None for the small local model.

    Examples
    --------
    >>> model_file("llamacpp:models/qwen3.gguf").name, model_file("llamacpp:"), model_file(None)
    ('qwen3.gguf', None, None)
    """
    named = "" if where is None else str(where).removeprefix(_LLAMA_CPP)
    return Path(named) if named else None


def open_model(
    where: str | Path | None = None,
    model: str | None = None,
    *,
    api_key_env: str | None = None,
    meter: Meter | None = None,
    **settings: Any,
) -> LanguageModel:
    """Return the language model that a few words of a user name.

    Parameters
    ----------
    where : str, Path or None
        None is the small local model that a package brings; an address (``http://`` or ``https://``) any service that
        speaks the OpenAI protocol; ``"llamacpp:"`` and the path of a GGUF file, or none for the small local model, has
        llama.cpp compute it; otherwise the path of a GGUF file or of a folder in the format of Hugging Face.
    model : str or None
        The name of the model at the service.
    api_key_env : str or None
        The environment variable that holds the key of the service; None sends no key.
    meter : Meter or None
        With a budget and prices, if wanted.
    **settings
        Of :class:`~genad.foundation.openai_backend.OpenAIBackend`,
        :class:`~genad.foundation.llama_cpp.LlamaCppModel` or :class:`~genad.foundation.local_lm.LocalModel`.

    Returns
    -------
    LanguageModel
        Nothing is loaded or asked before it is used.

    Raises
    ------
    InputError
        When an address comes without the name of a model, or a file with one.

    Examples
    --------
    >>> open_model("http://localhost:11434/v1", "qwen3")
    OpenAIBackend('qwen3 at http://localhost:11434/v1')
    >>> open_model("llamacpp:models/qwen3.gguf")
    LlamaCppModel('models/qwen3.gguf')
    """
    if where is not None and str(where).startswith(("http://", "https://")):
        from genad.foundation.openai_backend import OpenAIBackend

        if not model:
            raise InputError(f"llm_model: none was given; name the model that {where} shall use.")
        return OpenAIBackend(str(where), model, api_key_env=api_key_env, meter=meter, **settings)
    if model:
        raise InputError(f"llm_model: {model!r} was given without an address; give llm='http://...' with it.")
    if names_llama_cpp(where):
        from genad.foundation.llama_cpp import LlamaCppModel

        return LlamaCppModel(model_file(where), meter=meter, **settings)
    from genad.foundation.local_lm import LocalModel

    return LocalModel(where, meter=meter, **settings)
