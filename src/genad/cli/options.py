"""The options that several commands share, each written once."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class KindChoice(StrEnum):
    """Kinds of data that a file can hold."""

    TABLE = "table"
    SERIES = "series"
    IMAGE = "image"
    LOG = "log"


class FormatChoice(StrEnum):
    """Formats that scores are written in."""

    CSV = "csv"
    PARQUET = "parquet"
    JSONL = "jsonl"


def _open_share(value: float | None) -> float | None:
    """Check that a rate is above 0 and below 1."""
    if value is not None and not 0 < value < 1:
        raise typer.BadParameter(f"{value:g} was given; it must be above 0 and below 1.")
    return value


_READING, _METHOD, _OUTPUT = "Reading", "Method", "Output"

Data = Annotated[
    str,
    typer.Argument(
        metavar="PATH",
        help="CSV, TSV, Parquet, Feather, JSON lines, .npy or .npz file, - for standard input; a log or a folder of "
        "logs; or an image, or a folder of images (MVTec, BTAD or VisA layout, good/ beside others, or flat).",
        show_default=False,
    ),
]
Train = Annotated[
    str | None,
    typer.Option(
        "--train",
        metavar="PATH",
        help="Mostly normal data to learn from; the data themselves when absent.",
        rich_help_panel=_READING,
    ),
]
OutFolder = Annotated[
    Path,
    typer.Option("--out", "-o", metavar="DIR", help="Folder to write.", rich_help_panel=_OUTPUT),
]
Size = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="PIXELS",
        help="Images: working size of the longer side; found out when absent, at most 256.",
        rich_help_panel=_READING,
    ),
]
SkipBroken = Annotated[
    bool,
    typer.Option(
        "--skip-broken",
        help="Images: name files that cannot be read and go on without them.",
        rich_help_panel=_READING,
    ),
]
Labels = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN|FILE",
        help="Known labels: 1 anomaly, 0 normal, -1 or nothing unknown; of a log, also a file of session ids and "
        "labels. Labelled anomalies are not "
        "learnt from, and the answer is compared with the labels.",
        rich_help_panel=_READING,
    ),
]
Kind = Annotated[
    KindChoice | None,
    typer.Option(help="How to read the data; found out when absent.", rich_help_panel=_READING),
]
Time = Annotated[
    str | None,
    typer.Option(metavar="COLUMN", help="Column of the time stamps.", rich_help_panel=_READING),
]
Entity = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN",
        help="Column that tells several series apart.",
        rich_help_panel=_READING,
    ),
]
Delimiter = Annotated[
    str | None,
    typer.Option(
        metavar="CHARACTER",
        help="Column separator of a text file; found out when absent.",
        rich_help_panel=_READING,
    ),
]
Drop = Annotated[
    list[str] | None,
    typer.Option(metavar="COLUMN", help="Leave a column out; repeatable.", rich_help_panel=_READING),
]
Method = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Detector, see `genad list`; the default of the kind when absent.",
        rich_help_panel=_METHOD,
    ),
]
Window = Annotated[
    int | None,
    typer.Option(min=2, help="Steps in a window of a series.", rich_help_panel=_METHOD),
]
Alpha = Annotated[
    float | None,
    typer.Option(
        callback=_open_share,
        help="False-alarm rate on normal data, between 0 and 1; 0.01 when absent.",
        rich_help_panel=_METHOD,
    ),
]
Fdr = Annotated[
    float | None,
    typer.Option(
        callback=_open_share,
        help="Flag at this false discovery rate, between 0 and 1, instead of by the threshold.",
        rich_help_panel=_METHOD,
    ),
]
PixelAlpha = Annotated[
    float,
    typer.Option(
        min=0,
        max=0.5,
        help="Images: share of a normal image that its mask may cover on average.",
        rich_help_panel=_METHOD,
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Set a parameter, for instance latent=4, training.epochs=50 or threshold.rule=Quantile; repeatable.",
        rich_help_panel=_METHOD,
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of everything random.", rich_help_panel=_METHOD)]
Device = Annotated[
    str | None,
    typer.Option(
        help="cpu, cuda, cuda:0 or mps; the fastest there is when absent.",
        rich_help_panel=_METHOD,
    ),
]
Json = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Print the answer as JSON, and nothing else, on standard output.",
        rich_help_panel=_OUTPUT,
    ),
]
Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet",
        "-q",
        help="No progress, no notes and no summary.",
        rich_help_panel=_OUTPUT,
    ),
]
Model = Annotated[
    Path,
    typer.Option("--model", "-m", metavar="FILE", help="Model file that genad wrote.", show_default=False),
]
Out = Annotated[
    str,
    typer.Option(
        "--out",
        "-o",
        metavar="FILE|-",
        help="File to write, as its ending says: .csv, .tsv, .jsonl, .parquet or .feather; "
        "- is CSV on standard output.",
        rich_help_panel=_OUTPUT,
    ),
]
