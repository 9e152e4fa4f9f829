"""A progress bar for long work, shown only when asked for."""

from __future__ import annotations

from types import TracebackType
from typing import Any


class Progress:
    """A progress bar with the time left and the current losses.

    Parameters
    ----------
    title : str
        What is going on.
    total : int
        Steps in all.
    show : bool
        Draw nothing when False.
    """

    def __init__(self, title: str, total: int, *, show: bool) -> None:
        self.title, self.total, self.show = title, total, show
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Progress:
        if self.show:
            from rich.console import Console
            from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as RichProgress

            self._bar = RichProgress(
                TextColumn("[bold]{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=Console(stderr=True),
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task(self.title, total=self.total, note="")
        return self

    def update(self, done: int, losses: dict[str, float]) -> None:
        """Move the bar to ``done`` and show the losses."""
        if self._bar is not None:
            note = "  ".join(f"{name} {value:.4g}" for name, value in losses.items())
            self._bar.update(self._task, completed=done, note=note)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
