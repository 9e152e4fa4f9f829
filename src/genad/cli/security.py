"""`genad cybersecurity`: network flows or a log, from a file to alerts that a team can read."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from genad.cli import options
from genad.cli.groups import Flows, expanded
from genad.cli.logs import LogOptions, ModelOptions
from genad.cli.terminal import terminal_of

if TYPE_CHECKING:
    from genad.applications.cybersecurity import SecurityAnswer
    from genad.cli.jobs import Request
    from genad.cli.terminal import Terminal
    from genad.core.detector import Detector

_ALERTS = "Alerts"
_SHOWN = 5


@expanded
def cybersecurity(
    ctx: typer.Context,
    path: Annotated[
        str,
        typer.Argument(
            metavar="PATH",
            help="Network flows (CSV, TSV, Parquet, Feather, JSON, - for standard input) or a log.",
            show_default=False,
        ),
    ],
    *,
    train: options.Train = None,
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN|FILE",
            help="Known labels: 1 attack, 0 normal, -1 or nothing unknown; or a column that names attacks.",
            rich_help_panel="Reading",
        ),
    ] = None,
    flows: Flows,
    logs: LogOptions,
    alerts: Annotated[
        int, typer.Option(min=1, metavar="N", help="Alerts that can be read.", rich_help_panel=_ALERTS)
    ] = 50,
    group: Annotated[
        bool, typer.Option(help="Let flags that are alike make one alert.", rich_help_panel=_ALERTS)
    ] = True,
    method: options.Method = None,
    alpha: options.Alpha = None,
    fdr: options.Fdr = None,
    settings: options.Settings = None,
    seed: options.Seed = 0,
    device: options.Device = None,
    model: ModelOptions,
    out: options.OutFolder = Path("genad-out"),
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Find attacks in network flows or a log: alerts a team can read, why, and how much of each class was found.

    Writes alerts.csv (one line an alert), scores.csv (one line a flow or session), report.html and model.genad.
    """
    terminal = terminal_of(ctx, quiet=quiet)
    from genad.cli import jobs

    reading = {"labels": labels, **flows.arguments(), **logs.arguments()}
    request = jobs.Request(jobs.named(method), None, alpha, settings or (), seed, device, model=model)
    _run(terminal, path, train, reading, request, _Wanted(out, alerts, group, fdr), as_json=as_json)


@dataclasses.dataclass(frozen=True)
class _Wanted:
    """How the answer is wanted: the folder, how many alerts, whether alike ones are one, and the rate of the flags."""

    out: Path
    alerts: int
    group: bool
    fdr: float | None


def _run(
    terminal: Terminal,
    path: str,
    train: str | None,
    reading: dict[str, Any],
    request: Request,
    wanted: _Wanted,
    *,
    as_json: bool,
) -> None:
    """Read, fit, write and say what was found."""
    from genad.applications.cybersecurity import answer_of, choose_for_security
    from genad.applications.security_reading import read_security
    from genad.cli import jobs
    from genad.cli.detect import make_folder
    from genad.cli.logs import say_unjudged
    from genad.cli.summary import answer_facts, data_facts, detector_facts, label_facts, print_summary

    jobs.paths(path, train)
    data = read_security(path, train, **reading)
    given, learnt = data.given, data.learnt
    for note in dict.fromkeys([*given.notes, *learnt.notes]):
        terminal.note(note)
    choice = choose_for_security(data) if request.method is None else None
    if choice is not None:
        chosen = [f"{name}={value}" for name, value in choice.params.items()]
        request = dataclasses.replace(
            request, method=choice.method, why=choice.why, settings=[*chosen, *request.settings]
        )
    make_folder(wanted.out)
    detector = jobs.fit(learnt, request, wanted.out / "fit.ckpt", terminal)
    jobs.remember(detector, reading)
    found = detector.detect(given.X, fdr=wanted.fdr)
    say_unjudged(detector, terminal)
    answer = answer_of(found, data, alerts=wanted.alerts, group=wanted.group, choice=choice)
    facts: dict[str, Any] = {
        "data": data_facts(path, given),
        "train": None if learnt is given else data_facts(train or path, learnt),
        **detector_facts(detector, request),
        **answer_facts(found),
        "against_labels": label_facts(found, given.labels),
        **_alert_facts(answer),
        "files": _write(wanted.out, detector, answer, given.labels),
        "notes": terminal.notes,
    }
    if as_json:
        from genad.cli.output import write_json

        write_json(facts)
    elif not terminal.quiet:
        print_summary(facts, found)
        _print_alerts(answer)


def _alert_facts(answer: SecurityAnswer) -> dict[str, Any]:
    """Return alerts, their figures and the classes as plain values."""
    columns = answer.alert_columns()
    return {
        "alerts": [dict(zip(columns, line, strict=True)) for line in zip(*columns.values(), strict=True)],
        "alert_figures": dataclasses.asdict(answer.figures),
        "false_alarms": answer.false_alarms,
        "classes": [dataclasses.asdict(row) for row in answer.classes],
    }


def _write(out: Path, detector: Detector, answer: SecurityAnswer, labels: Any) -> dict[str, str]:
    """Write alerts, scores, report and model, each whole or not at all, and return their paths."""
    from genad.applications.security_report import write_security_report
    from genad.data.writer import write_table

    files = {
        "alerts": write_table(answer.alert_columns(), out / "alerts.csv"),
        "scores": write_table(answer.columns(), out / "scores.csv"),
        "report": write_security_report(answer, out / "report.html", detector=detector, truth=labels),
        "model": detector.save(out / "model.genad"),
    }
    return {name: str(path) for name, path in files.items()}


def _print_alerts(answer: SecurityAnswer) -> None:
    """Print the first alerts and how much of each class was found, for people."""
    import sys

    from rich.console import Console
    from rich.text import Text

    from genad.applications.security_report import alert_notes
    from genad.report.items import position

    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)

    def line(name: str, text: str) -> None:
        console.print(Text.assemble((f"{name:<13}", "bold"), text))

    console.print()
    for text in alert_notes(answer):
        line("Alerts", text)
    for alert in answer.alerts[:_SHOWN]:
        alike = f", {len(alert.positions):,} alike" if len(alert.positions) > 1 else ""
        line(f"Alert {alert.rank}", f"{position(answer.found, alert.position)}{alike}: {alert.why}")
    for row in answer.classes:
        line(
            "Class",
            f"{row.name}: {100 * row.flagged:.1f} % of {row.units:,} flagged, {100 * row.at_one_percent:.1f} % at 1 % "
            f"false alarms, AUROC {row.auroc:.3f}",
        )
    if answer.false_alarms is not None:
        line("False alarms", f"{100 * answer.false_alarms:.2g} % of the normal ones were flagged")
