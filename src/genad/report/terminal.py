"""A summary of an answer for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from genad.report.items import top_items
from genad.report.wording import file_name, promise, remarks, subject, verdict

if TYPE_CHECKING:
    from genad.core.detections import Detections


def terminal_summary(detections: Detections, console: Any, *, most: int = 10) -> None:
    """Print the verdict, what it rests on, and what to look at first.

    Parameters
    ----------
    detections : Detections
        What ``detect`` returned.
    console : rich.console.Console
        Where to print.
    most : int
        How many units or events to list.

    Examples
    --------
    >>> import sys
    >>> import numpy as np
    >>> from rich.console import Console
    >>> from genad import Detections, Kind
    >>> from genad.core.calibration import FittedThreshold
    >>> fixed = FittedThreshold(8.0, "FixedValue", "Flags scores above 8.", n=0)
    >>> scores = np.array([9.0, 1.0])
    >>> found = Detections(scores, scores / 10, scores > 8, fixed, Kind.TABLE)
    >>> terminal_summary(found, Console(file=sys.stdout, width=60), most=1)
    1 of 2 rows flagged (50 %).
    2 rows
    Flags scores above 8.
    <BLANKLINE>
     Top anomalies
     #  where  score  p-value
     1  row 0  9      0.9
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    flagged = bool(detections.is_anomaly.any())
    # Text objects throughout: a column called [red] must not be read as markup.
    console.print(Text(verdict(detections), style="bold red" if flagged else "bold green"))
    name = file_name(detections)
    console.print(Text(subject(detections) + (f" ({name})" if name else ""), style="dim"))
    console.print(Text(promise(detections)))
    for remark in remarks(detections):
        console.print(Text(remark, style="yellow"))
    items, heading, _ = top_items(detections)
    items = items[:most]
    if not items:
        return
    console.print()
    table = Table(
        title=Text(f" {heading}", style="bold"),
        title_justify="left",
        box=box.SIMPLE if console.is_terminal else None,
        padding=(0, 1),
    )
    shown = [
        ("#", "rank"),
        ("where", "where"),
        ("length", "length"),
        ("score", "score"),
        ("p-value", "p_value"),
        ("why", "features"),
    ]
    shown = [(head, key) for head, key in shown if any(getattr(item, key) for item in items)]
    for head, _ in shown:
        table.add_column(Text(head, style="dim"))
    for item in items:
        table.add_row(
            *(Text(str(getattr(item, key))) for _, key in shown),
            style="" if item.flagged else "dim",
        )
    console.print(table)
