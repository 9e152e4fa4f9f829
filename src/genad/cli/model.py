"""Commands around a model file: fit one, and score, explain or restore with it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from genad.cli import options
from genad.cli.groups import Columns, expanded
from genad.cli.logs import LogOptions, ModelOptions
from genad.cli.terminal import terminal_of


@expanded
def fit(
    ctx: typer.Context,
    path: options.Data,
    *,
    model: Annotated[Path, typer.Option("--model", "-m", metavar="FILE", help="Model file to write.")] = Path(
        "model.genad"
    ),
    labels: options.Labels = None,
    kind: options.Kind = None,
    columns: Columns,
    size: options.Size = None,
    skip_broken: options.SkipBroken = False,
    logs: LogOptions,
    method: options.Method = None,
    window: options.Window = None,
    alpha: options.Alpha = None,
    settings: options.Settings = None,
    seed: options.Seed = 0,
    device: options.Device = None,
    llm: ModelOptions,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Learn what is normal from mostly normal data and write a model file."""
    terminal = terminal_of(ctx, quiet=quiet)
    from genad.applications.detection import kind_for
    from genad.applications.reading import read_both
    from genad.cli import jobs
    from genad.cli.detect import make_folder
    from genad.cli.logs import in_words_of_options
    from genad.cli.output import write_json
    from genad.cli.summary import data_facts, detector_facts, print_summary

    method = jobs.named(method)
    _, data = read_both(
        path,
        kind=kind_for(method, kind, window),
        labels=labels,
        size=size,
        skip_broken=skip_broken,
        **columns.arguments(),
        **logs.arguments(),
    )
    for note in data.notes:
        terminal.note(note)
    request = jobs.Request(method, window, alpha, settings or (), seed, device, model=llm)
    # What is learnt from is given apart here, from data that are to come.
    request = jobs.settled(request, dataclasses.replace(data), data)
    make_folder(model.parent)
    with in_words_of_options():
        detector = jobs.fit(data, request, model.with_name(f"{model.name}.ckpt"), terminal)
    jobs.remember(detector, {"labels": labels, **columns.arguments(), **logs.arguments()})
    detector.save(model)
    facts: dict[str, Any] = {
        "data": data_facts(path, data),
        **detector_facts(detector, request),
        "files": {"model": str(model)},
        "notes": terminal.notes,
    }
    if as_json:
        write_json(facts)
    elif not quiet:
        print_summary(facts, None)


@expanded
def score(
    ctx: typer.Context,
    path: options.Data,
    model: options.Model,
    *,
    out: options.Out = "-",
    columns: Columns,
    logs: LogOptions,
    fdr: options.Fdr = None,
    quiet: options.Quiet = False,
) -> None:
    """Score new data with a model: one line a row with score, p-value, flag and main feature."""
    terminal_of(ctx, quiet=quiet)
    from genad.cli.jobs import read_for
    from genad.cli.output import check_target, score_columns, write_columns
    from genad.core.persistence import load

    check_target(out)
    detector = load(model)
    data = read_for(detector, path, columns, logs)
    found = detector.detect(data.X, fdr=fdr, restore=data.kind == "log")
    write_columns(score_columns(found), out)


@expanded
def explain(
    ctx: typer.Context,
    path: options.Data,
    model: options.Model,
    *,
    row: Annotated[int, typer.Option(min=0, help="Row to explain; 0 is the first.", show_default=False)],
    top: Annotated[int, typer.Option(min=1, help="Features to show.")] = 10,
    columns: Columns,
    logs: LogOptions,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Say why a row got its score: what was found and what would be normal."""
    terminal_of(ctx, quiet=quiet)
    from genad.cli.jobs import read_for
    from genad.cli.log_facts import session_explanation, session_facts
    from genad.cli.output import position_of, write_json, write_out
    from genad.cli.summary import explanation_lines
    from genad.core.log_detections import LogDetections
    from genad.core.nearest import RemembersNormals
    from genad.core.persistence import load

    detector = load(model)
    data = read_for(detector, path, columns, logs)
    found = detector.detect(data.X)
    i = position_of(found, row)
    explanation = found.explain(i, parts=top)
    if isinstance(detector, RemembersNormals):
        explanation = detector.with_nearest(explanation, data.X)
    if isinstance(found, LogDetections):
        if as_json:
            write_json(explanation.to_dict() | session_facts(found, i))
        else:
            write_out(("\n".join(session_explanation(found, i, explanation)) + "\n").encode("utf-8"))
        return
    explanation = dataclasses.replace(explanation, index=row)
    if as_json:
        write_json(explanation.to_dict())
    else:
        write_out(("\n".join(explanation_lines(explanation)) + "\n").encode("utf-8"))


@expanded
def restore(
    ctx: typer.Context,
    path: options.Data,
    model: options.Model,
    *,
    out: options.Out = "-",
    columns: Columns,
    logs: LogOptions,
    quiet: options.Quiet = False,
) -> None:
    """Replace every row or image by the nearest normal one, in the units of the data."""
    terminal_of(ctx, quiet=quiet)
    from genad.cli.images import restore_images
    from genad.cli.jobs import read_for
    from genad.cli.log_facts import restored_sessions
    from genad.cli.output import check_target, write_columns
    from genad.core.persistence import load
    from genad.data.series import Series
    from genad.data.table import as_table

    detector = load(model)
    if detector.describe()["kind"] != "image":
        check_target(out)
    data = read_for(detector, path, columns, logs)
    if data.kind == "image":
        restore_images(detector, data.X, out)
        return
    if data.kind == "log":
        write_columns(restored_sessions(detector, data.X), out)
        return
    original = as_table(data.X.original if isinstance(data.X, Series) else data.X)
    restored = as_table(detector.restore(data.X))
    # Time, entity and columns that the model leaves out come back as they are.
    answer = {name: (restored if name in restored.names else original).column(name) for name in original.names}
    write_columns(answer, out)
