"""What all language models of genad have in common: counting, refusals, one object wherever it is copied."""

# The base refuses what a backend does not offer and then uses none of the arguments.
# ruff: noqa: ARG002

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn, Self

import numpy as np
from numpy.typing import NDArray

from genad.foundation.llm import CapabilityError, Prompt, Reply, TokenScores
from genad.foundation.schema import Schema
from genad.foundation.usage import Meter


class Model:
    """Base of the backends: counting, refusals of what they cannot do, one object wherever it is copied.

    Parameters
    ----------
    name : str
    meter : Meter or None
        None counts without limit.
    """

    capabilities: frozenset[str] = frozenset()
    concurrency: int = 1

    def __init__(self, name: str, meter: Meter | None = None) -> None:
        self._name = name
        self.meter = meter if meter is not None else Meter()

    @property
    def name(self) -> str:
        """Which model this is, the same in every run: part of the key of cached answers."""
        return self._name

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # A copy of a detector works with the same model: its weights are large, its connections cannot be copied.
        return self

    def __sklearn_clone__(self) -> Self:
        return self

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
        """Answer a conversation.

        Parameters
        ----------
        messages : str or sequence of mappings
            A text, taken as one message of the user, or messages with ``role`` (``"system"``, ``"user"``,
            ``"assistant"``) and ``content``.
        schema : Schema or None
            What the answer shall hold, as JSON. Backends that declare ``"json_schema"`` hold the answer to it.
        max_tokens : int
            The most tokens written.
        temperature : float
            0 takes the most probable token each time.
        seed : int
            Of the sampling at a temperature above 0.
        stop : sequence of str
            The answer ends before the first of these.

        Returns
        -------
        Reply

        Raises
        ------
        CapabilityError
            When the model cannot chat.
        BudgetExhausted
            When the budget is spent.
        ModelServiceError
            When a service fails for good.
        """
        self._lacks("chat")

    def log_likelihood(self, texts: Sequence[str], contexts: Sequence[Prompt] | None = None) -> list[TokenScores]:
        """Return how probable the tokens of texts are, each text after its context.

        Parameters
        ----------
        texts : sequence of str
        contexts : sequence of (str or messages) or None
            What stands before each text; after messages the text is the answer of the assistant. A context and its
            text are cut into tokens apart, so that the space between two words belongs to the text.

        Returns
        -------
        list of TokenScores

        Raises
        ------
        CapabilityError
            When the model gives no likelihoods.
        BudgetExhausted
            When the budget is spent.
        """
        self._lacks("log_likelihood")

    def next_token_log_probs(self, prompts: Sequence[Prompt], candidates: Sequence[str]) -> NDArray[np.float64]:
        """Return how probable each candidate is as what comes next.

        Parameters
        ----------
        prompts : sequence of (str or messages)
            After a text the candidate goes on with it, after messages it begins the answer of the assistant.
        candidates : sequence of str
            A candidate of several tokens gets the log-probability of all of them in turn.

        Returns
        -------
        ndarray of shape (len(prompts), len(candidates))
            In nats, among all tokens and not the candidates alone.

        Raises
        ------
        CapabilityError
            When the model does not tell.
        BudgetExhausted
            When the budget is spent.
        """
        self._lacks("next_token")

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return a vector of length 1 for each text.

        Parameters
        ----------
        texts : sequence of str

        Returns
        -------
        ndarray of shape (len(texts), d)

        Raises
        ------
        CapabilityError
            When the model gives no vectors.
        BudgetExhausted
            When the budget is spent.
        """
        self._lacks("embedding")

    def cancel(self) -> None:
        """End the calls under way and refuse new ones, in backends that wait for a service; else do nothing."""

    def resume(self) -> None:
        """Accept calls again after :meth:`cancel`."""

    def _lacks(self, capability: str) -> NoReturn:
        able = ", ".join(sorted(self.capabilities)) or "nothing"
        raise CapabilityError(f"llm: {self.name} offers {able} and not {capability}; use a model that does.")
