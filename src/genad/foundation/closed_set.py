"""Scores from the probabilities of a few allowed words: nothing is written, so nothing can fail to be read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp, softmax

from genad.errors import InputError
from genad.foundation.llm import LanguageModel, Prompt


def class_scores(
    model: LanguageModel,
    prompts: Sequence[Prompt],
    positive: Sequence[str],
    negative: Sequence[str],
    *,
    neutral: Sequence[Prompt] = (),
) -> NDArray[np.float64]:
    """Return how much more probable the words of one class are than those of the other, for each prompt.

    Parameters
    ----------
    model : LanguageModel
        With ``"next_token"``.
    prompts : sequence of (str or messages)
        Each ends where the word stands.
    positive, negative : sequence of str
        The words of each class, with their leading space where one belongs there.
    neutral : sequence of (str or messages)
        The same question about nothing, for instance an empty line: its mean score is taken off.

    Returns
    -------
    ndarray of shape (len(prompts),)
        log P(positive) - log P(negative) in nats; above 0 the positive class is more probable.

    Raises
    ------
    InputError
        When a class has no word.

    References
    ----------
    Zhao et al. (2021), Calibrate before use: Improving few-shot performance of language models, ICML.

    Examples
    --------
    >>> from genad.foundation.scripted import Scripted
    >>> model = Scripted(next_token=lambda prompt, word: -1.0 if (word in prompt) else -3.0)
    >>> class_scores(model, ["error", "fine"], ["error"], ["fine"]).tolist()
    [2.0, -2.0]
    """
    if not positive or not negative:
        raise InputError("positive, negative: a class without words was given; give at least one word for each.")
    scores = model.next_token_log_probs([*prompts, *neutral], [*positive, *negative])
    ahead = logsumexp(scores[:, : len(positive)], axis=1) - logsumexp(scores[:, len(positive) :], axis=1)
    base = ahead[len(prompts) :].mean() if neutral else 0.0
    return np.asarray(ahead[: len(prompts)] - base, dtype=np.float64)


def expected_values(
    model: LanguageModel, prompts: Sequence[Prompt], options: Mapping[str, float]
) -> NDArray[np.float64]:
    """Return the mean of the values of some options, weighted by their probabilities among themselves.

    Parameters
    ----------
    model : LanguageModel
        With ``"next_token"``.
    prompts : sequence of (str or messages)
        Each ends where the option stands.
    options : mapping of str to float
        The value of each allowed answer.

    Returns
    -------
    ndarray of shape (len(prompts),)

    Raises
    ------
    InputError
        When there is no option.
    """
    if not options:
        raise InputError("options: none were given; give at least one allowed answer with its value.")
    shares = softmax(model.next_token_log_probs(prompts, list(options)), axis=1)
    return np.asarray(shares @ np.array(list(options.values()), dtype=np.float64))
