"""Counts of templates: sessions as rows of a table, one column an event."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from genad.data.container import Table
from genad.data.log.sessions import Sessions
from genad.data.table import as_table

#: The column of events that the vocabulary does not have.
UNSEEN_EVENTS = "unseen events"


def event_codes(vocabulary: Sequence[str], sessions: Sessions) -> NDArray[np.int64]:
    """Return the place in ``vocabulary`` of each event of the sessions, -1 for one that is not in it."""
    places = {text: i for i, text in enumerate(vocabulary)}
    return np.array([places.get(text, -1) for text in sessions.vocabulary], np.int64)[sessions.events]


def used_events(sessions: Sessions) -> list[str]:
    """Return the texts of the events that occur, each once, in the order of their numbers."""
    return list(dict.fromkeys(sessions.vocabulary[event] for event in np.unique(sessions.events).tolist()))


def template_counts(sessions: Sessions, vocabulary: Sequence[str] | None = None) -> Table:
    """Count the events of each session, so that any detector of tables applies.

    Parameters
    ----------
    sessions : Sessions
    vocabulary : sequence of str, optional
        The events that have columns, for data to score those of the training data; the events that occur when absent.

    Returns
    -------
    Table
        A row a session, a column an event, and a last one that counts the events of no column.

    Examples
    --------
    >>> train = Sessions.from_sequences([["open", "close"], ["open", "read", "read", "close"]])
    >>> counts = template_counts(train)
    >>> counts.names
    ['open', 'close', 'read', 'unseen events']
    >>> fresh = Sessions.from_sequences([["open", "crash"]])
    >>> row = template_counts(fresh, counts.names[:-1])
    >>> [float(row.column(name)[0]) for name in row.names]
    [1.0, 0.0, 0.0, 1.0]
    """
    known = used_events(sessions) if vocabulary is None else list(vocabulary)
    return as_table(count_array(sessions, known), [*known, UNSEEN_EVENTS])


def count_array(sessions: Sessions, vocabulary: Sequence[str]) -> NDArray[np.float64]:
    """Return the counts of :func:`template_counts` as an array; the last column is that of unseen events."""
    codes, width = event_codes(vocabulary, sessions), len(vocabulary) + 1
    owner = np.repeat(np.arange(len(sessions)), sessions.lengths)
    flat = np.bincount(owner * width + codes % width, minlength=len(sessions) * width)
    return flat.reshape(len(sessions), width).astype(np.float64)
