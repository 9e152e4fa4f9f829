"""What turns texts into vectors for detectors that compare meanings: a name, a folder, a function or a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from genad.data.log.adapter import Embedder
from genad.errors import InputError


def as_embedder(given: Any) -> Embedder:
    """Return the function behind what users give as ``embedder``; nothing is loaded before it is called.

    Parameters
    ----------
    given : callable, object with ``embed``, str or Path
        From a list of texts to an array (texts, dimensions). ``"minilm"`` is the sentence model of
        :mod:`genad.foundation.sentence`; another str is the folder of such a model.

    Returns
    -------
    callable

    Raises
    ------
    InputError
        When it is none of these, or there is no such folder.

    Examples
    --------
    >>> as_embedder(lambda texts: [[len(text)] for text in texts])(["disk", "fan"])
    [[4], [3]]
    """
    if isinstance(given, str | Path):
        from genad.foundation.sentence import SentenceModel

        if given == "minilm":
            return SentenceModel().embed
        if Path(given).is_dir():
            return SentenceModel(given).embed
    else:
        given = getattr(given, "embed", given)
        if callable(given):
            return given
    raise InputError(
        f"embedder: {given!r} was given; use 'minilm', the folder of a sentence model, or a function "
        "from a list of texts to an array of vectors."
    )
