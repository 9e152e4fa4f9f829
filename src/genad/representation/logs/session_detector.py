"""What detectors of sessions share: how a log, a file or sequences of events reach them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from genad.core.detector import Detector
from genad.core.splits import rows_to_scale
from genad.data.adapters import Adapter, Loaded
from genad.data.log.adapter import SessionAdapter
from genad.data.log.sessions import as_sessions


@dataclass(eq=False, repr=False)
class SessionDetector(Detector):
    """A detector whose unit is a session: a sequence of events.

    It takes a path of a log file, a `Log`, `Sessions`, or a list of sequences of whole numbers or names. A log is
    grouped into sessions by itself; call `Log.sessions` to choose how. To score, messages are matched to the templates
    of the log that was fitted on.
    """

    stackable = False
    takes_backbone = False

    def session_adapter(self) -> Adapter:
        """Return the unfitted bridge from sessions to samples."""
        return SessionAdapter()

    def _ingest(self, X: Any, *, reset: bool, y: Any = None) -> Loaded:
        sessions = as_sessions(X)
        if reset:
            self.adapter_ = self.session_adapter()
            rows = rows_to_scale(y, len(sessions))
            self.adapter_.fit(sessions if rows is None else sessions.take(rows))
        loaded = self.adapter_.transform(sessions)
        if reset:
            self.n_features_in_ = int(np.prod(loaded.samples.shape))
        loaded.samples = loaded.samples.to(self._device)
        return loaded

    def set_fitted_state(self, state: dict[str, Any]) -> None:
        """Put back what ``fitted_state`` returned; the vocabulary comes first, since it decides the network's size."""
        adapter = state["adapter"]
        self.adapter_ = Adapter.types[adapter["type"]].from_state(adapter["state"])
        super().set_fitted_state(state)
