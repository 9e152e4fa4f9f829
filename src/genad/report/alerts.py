"""The section of alerts: what a team is to read, what each alert differs in, and how much of each class was found."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from genad.errors import InputError

if TYPE_CHECKING:
    from genad.report.items import Row

__all__ = ["AlertItem", "AlertSection", "ClassRow", "alert_section", "with_alerts"]

_ASSETS = Path(__file__).parent / "assets"
# The page's first list; alerts stand before it.
_BEFORE = '<section aria-labelledby="h-items">'


@dataclass(frozen=True)
class AlertItem:
    """One alert, written out.

    Attributes
    ----------
    rank : int
        From 1.
    where : str
        The unit with the highest score, and its class where known.
    alike : int
        Units that are flagged for the same reason.
    score, p_value : str
        Of that unit.
    features : str
        The most telling features with their shares, for one line.
    parts : list of Row
        The explanation; ``normal`` says what normal units have.
    why : str
        Reasons in words that the parts do not tell; "" without.
    """

    rank: int
    where: str
    alike: int
    score: str
    p_value: str
    features: str
    parts: list[Row]
    why: str = ""


@dataclass(frozen=True)
class ClassRow:
    """How much of one class was found; shares and the AUROC are from 0 to 1.

    Attributes
    ----------
    name : str
        The class.
    units : int
        How many there are.
    auroc : float
        Of these against all normal units.
    flagged : float
        Share flagged.
    at_one_percent : float
        Share above the threshold that flags 1 % of the normal units at hand.
    """

    name: str
    units: int
    auroc: float
    flagged: float
    at_one_percent: float


@dataclass(frozen=True)
class AlertSection:
    """What the section holds.

    Attributes
    ----------
    notes, class_notes : list of str
        Sentences above the alerts, and below the classes.
    items : list of AlertItem
        The alerts.
    classes : list of ClassRow
        The classes, the hardest first; empty when nothing is known of them.
    """

    notes: list[str]
    items: list[AlertItem]
    classes: list[ClassRow] = field(default_factory=list)
    class_notes: list[str] = field(default_factory=list)


def alert_section(section: AlertSection) -> str:
    """Return the section as HTML; all text of the user is escaped.

    Examples
    --------
    >>> html = alert_section(AlertSection(["2 alerts <stand> for 9 rows."], []))
    >>> "2 alerts &lt;stand&gt; for 9 rows." in html
    True
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_ASSETS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("alerts.html.j2").render(section=section)


def with_alerts(page: str, section: AlertSection) -> str:
    """Return a report's page with the alerts before its list of anomalies.

    Parameters
    ----------
    page : str
        From :func:`genad.report.page.render`.
    section : AlertSection
        The alerts.

    Raises
    ------
    InputError
        When the page is no report.
    """
    # User text is escaped in the page, so this can only be the page's own element.
    before, mark, after = page.partition(_BEFORE)
    if not mark:
        raise InputError("page: it has no list of anomalies; pass what genad.report.page.render returned.")
    return f"{before}{alert_section(section)}{mark}{after}"
