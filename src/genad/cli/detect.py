"""`genad detect`: the whole job in one command."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from genad.cli import options
from genad.cli.groups import Columns, expanded
from genad.cli.logs import LogOptions, ModelOptions
from genad.cli.terminal import terminal_of

if TYPE_CHECKING:
    from genad.applications.data import Data
    from genad.cli.jobs import Request
    from genad.cli.terminal import Terminal
    from genad.core.detections import Detections
    from genad.core.detector import Detector

_OUTPUT = "Output"


@expanded
def detect(
    ctx: typer.Context,
    path: options.Data,
    *,
    train: options.Train = None,
    labels: options.Labels = None,
    kind: options.Kind = None,
    columns: Columns,
    size: options.Size = None,
    skip_broken: options.SkipBroken = False,
    logs: LogOptions,
    method: options.Method = None,
    window: options.Window = None,
    alpha: options.Alpha = None,
    fdr: options.Fdr = None,
    pixel_alpha: options.PixelAlpha = 0.01,
    settings: options.Settings = None,
    seed: options.Seed = 0,
    device: options.Device = None,
    model: ModelOptions,
    out: options.OutFolder = Path("genad-out"),
    format_: Annotated[
        options.FormatChoice,
        typer.Option("--format", help="Format of the scores.", rich_help_panel=_OUTPUT),
    ] = options.FormatChoice.CSV,
    no_report: Annotated[bool, typer.Option("--no-report", help="No report.html.", rich_help_panel=_OUTPUT)] = False,
    no_model: Annotated[bool, typer.Option("--no-model", help="No model.genad.", rich_help_panel=_OUTPUT)] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Find the anomalies in a file, a log or a folder of images: learn what is normal, score, say where and why.

    Writes scores.csv (one line a row, image or session), report.html and model.genad, and masks/ for images.
    """
    terminal = terminal_of(ctx, quiet=quiet)
    from genad.applications.detection import kind_for
    from genad.cli import jobs

    method = jobs.named(method)
    reading = {
        "labels": labels,
        "kind": kind_for(method, kind, window),
        "size": size,
        "skip_broken": skip_broken,
        **columns.arguments(),
        **logs.arguments(),
    }
    request = jobs.Request(method, window, alpha, settings or (), seed, device, model=model)
    answer = Answer(out, format_, fdr, pixel_alpha, report=not no_report, model=not no_model)
    run(terminal, path, train, reading, request, answer, as_json=as_json)


@dataclass(frozen=True)
class Answer:
    """How a job is to be answered.

    Attributes
    ----------
    out : Path
        Folder to write.
    format_ : FormatChoice
        Of the scores.
    fdr : float or None
        False discovery rate to flag at.
    pixel_alpha : float
        Share of a normal image's pixels that its mask may cover.
    report, model : bool
        Whether to write them.
    application : str
        ``"industrial"`` or ``"medical"`` adds what these want to know of images.
    """

    out: Path
    format_: options.FormatChoice
    fdr: float | None
    pixel_alpha: float
    report: bool = True
    model: bool = True
    application: str = ""


def run(
    terminal: Terminal,
    path: str,
    train: str | None,
    reading: dict[str, Any],
    request: Request,
    answer: Answer,
    *,
    as_json: bool,
) -> None:
    """Read, fit, write and say what was found."""
    from genad.applications.reading import read_both
    from genad.cli import jobs
    from genad.cli.logs import in_words_of_options, say_unjudged
    from genad.cli.summary import answer_facts, data_facts, detector_facts, label_facts, print_summary

    jobs.paths(path, train)
    given, learnt = read_both(path, train, **reading)
    for note in dict.fromkeys([*given.notes, *learnt.notes]):
        terminal.note(note)
    request = jobs.settled(request, given, learnt, answer.application)
    make_folder(answer.out)
    with in_words_of_options():
        detector = jobs.fit(learnt, request, answer.out / "fit.ckpt", terminal)
        jobs.remember(detector, reading)
        found = detector.detect(given.X, fdr=answer.fdr, pixel_alpha=answer.pixel_alpha)
    say_unjudged(detector, terminal)
    more: dict[str, Any] = {}
    files: dict[str, str] = {}
    if answer.application:
        from genad.cli.images import application_facts

        more, files = application_facts(answer.application, found, answer.out, terminal)
    files |= write(answer.out, detector, found, given, answer)
    facts: dict[str, Any] = {
        "data": data_facts(path, given),
        "train": None if learnt is given else data_facts(train or path, learnt),
        **detector_facts(detector, request),
        **answer_facts(found),
        "against_labels": label_facts(found, given.labels),
        **more,
        "files": files,
        "notes": terminal.notes,
    }
    if as_json:
        from genad.cli.output import write_json

        write_json(facts)
    elif not terminal.quiet:
        print_summary(facts, found)


def make_folder(out: Path) -> None:
    """Make the folder of the results before long work begins.

    Raises
    ------
    InputError
        When there is a file of that name, or the folder cannot be made.
    """
    from genad.errors import InputError

    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out: {out} cannot be made a folder ({error.strerror}); choose another name.") from error


def write(out: Path, detector: Detector, found: Detections, given: Data, answer: Answer) -> dict[str, str]:
    """Write scores, report and model, each whole or not at all, and return their paths."""
    from genad.cli.images import write_masks
    from genad.cli.output import score_columns
    from genad.core.pixels import ImageDetections
    from genad.data.writer import write_table

    files = {"scores": write_table(score_columns(found), out / f"scores.{answer.format_.value}")}
    if answer.report:
        from genad.report import write_report

        files["report"] = write_report(found, out / "report.html", detector=detector, truth=given.labels)
    if isinstance(found, ImageDetections):
        files["masks"] = write_masks(found, out / "masks")
    if answer.model:
        files["model"] = detector.save(out / "model.genad")
    return {name: str(path) for name, path in files.items()}
