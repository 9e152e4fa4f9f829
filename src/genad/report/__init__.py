"""Reports: one self-contained HTML file, and a summary for the terminal."""

from __future__ import annotations

from genad.report.page import write_report
from genad.report.terminal import terminal_summary

__all__ = ["terminal_summary", "write_report"]
