"""Logs: text files read into records, templates mined from their messages, sessions of events."""

from __future__ import annotations

from genad.data.log.drain import Drain
from genad.data.log.grouping import sessions
from genad.data.log.log import Log, read_log, stream_log
from genad.data.log.recognising import holds_log
from genad.data.log.sessions import Sessions, as_sessions

__all__ = ["Drain", "Log", "Sessions", "as_sessions", "holds_log", "read_log", "sessions", "stream_log"]
