"""Find anomalies in a real table and a real series, and write a report of each.

``make demo`` runs this. The evaluation data are used when they are there (``GENAD_DATA``, or
``../shared/data``): network connections (NSL-KDD) and the metrics of an application server (ASD).
Otherwise it takes real data that come with the libraries genad stands on: breast tumours
(scikit-learn) and half a century of the countries of the world (plotly).
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.text import Text

import genad
from genad.data.io import write_table
from genad.data.series import as_series
from genad.data.table import as_table
from genad.errors import GenadWarning
from genad.metrics import auroc
from genad.report import terminal_summary, write_report

if TYPE_CHECKING:
    import pyarrow as pa

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Task:
    """One run of the main job.

    Attributes
    ----------
    name : {"table", "series"}
        Kind of the data, and folder of the results.
    title, story : str
        Heading of the report, and what the data are.
    train, data : dict of str to array
        Columns to learn from and to look at.
    labels : int array or None
        1 for the anomalies of ``data``, 0 for the rest; only compared with, never learnt from.
    time, entity : str or None
        Columns of the time stamps and of what each of several series belongs to.
    alpha : float
        False-alarm rate asked for; small data cannot attain a low one.
    window : int
        Steps in a window of a series.
    """

    name: str
    title: str
    story: str
    train: dict[str, Any]
    data: dict[str, Any]
    labels: np.ndarray | None
    time: str | None = None
    entity: str | None = None
    alpha: float = 0.01
    window: int = 32


def columns_of(table: pa.Table) -> dict[str, Any]:
    """Return the columns of an arrow table, numbers as arrays and text as objects."""
    return {name: np.asarray(table.column(name).to_pylist()) for name in table.column_names}


def network_connections(folder: Path) -> Task:
    """Learn from normal connections; look at 3,000 later ones, many of them attacks."""
    from pyarrow import compute, parquet

    hidden = ["attack", "difficulty", "label"]
    known = parquet.read_table(folder / "cyber" / "nslkdd_train20.parquet")
    normal = known.filter(compute.equal(known["label"], 0)).slice(0, 8000)
    later = parquet.read_table(folder / "cyber" / "nslkdd_test.parquet").slice(0, 3000)
    # A column that never changes while learning says nothing about normal connections.
    constant = [name for name in normal.column_names if len(normal[name].unique()) == 1]
    drop = sorted({*hidden, *constant})
    return Task(
        name="table",
        title="Network connections (NSL-KDD)",
        story="8,000 normal network connections to learn from; 3,000 later ones to look at, 56 % "
        "of them attacks, some of kinds that were not known before.",
        train=columns_of(normal.drop_columns(drop)),
        data=columns_of(later.drop_columns(drop)),
        labels=later["label"].to_numpy().astype(int),
    )


def server_metrics(folder: Path) -> Task:
    """Learn from fifteen days of an application server's metrics; look at the next fifteen."""
    with np.load(folder / "series" / "asd" / "omi-2.npz", allow_pickle=False) as file:
        train, data, labels = file["train"][-4320:], file["test"], file["test_label"].astype(int)

    def named(values: np.ndarray, first: int) -> dict[str, Any]:
        hours = (first + np.arange(len(values))) / 12  # one step is five minutes
        return {"hour": hours} | {f"metric {j:02d}": values[:, j] for j in range(values.shape[1])}

    return Task(
        name="series",
        title="Application server (ASD omi-2)",
        story="19 metrics of a server, one step every 5 minutes: 15 days to learn from, the next 15 to look at.",
        train=named(train, 0),
        data=named(data, len(train)),
        labels=labels,
        time="hour",
    )


def tumours() -> Task:
    """Learn from benign tumours; look at other benign ones and at malignant ones."""
    from sklearn.datasets import load_breast_cancer

    found = load_breast_cancer()
    benign = np.random.default_rng(0).permutation(np.flatnonzero(found.target == 1))
    known, rest = benign[:250], np.r_[benign[250:], np.flatnonzero(found.target == 0)]

    def named(rows: np.ndarray) -> dict[str, Any]:
        return {str(name): found.data[rows, j] for j, name in enumerate(found.feature_names)}

    return Task(
        name="table",
        title="Breast tumours (Wisconsin)",
        story="250 benign tumours to learn from; 107 other benign ones and 212 malignant ones to look at.",
        train=named(known),
        data=named(rest),
        labels=(found.target[rest] == 0).astype(int),
        alpha=0.05,
    )


def countries() -> Task:
    """Learn from every other country of the world, by name; look at those in between."""
    from plotly import data

    table = data.gapminder(return_type="pyarrow").sort_by([("country", "ascending"), ("year", "ascending")])
    column = columns_of(table)
    later = np.flatnonzero(column["country"][1:] == column["country"][:-1]) + 1
    now, before = ({name: values[rows] for name, values in column.items()} for rows in (later, later - 1))
    changes = {
        "country": now["country"],
        "year": now["year"],
        "life expectancy (years)": now["lifeExp"] - before["lifeExp"],
        "population (%)": 100 * (now["pop"] / before["pop"] - 1),
        "income per head (%)": 100 * (now["gdpPercap"] / before["gdpPercap"] - 1),
    }
    place = np.unique(changes["country"], return_inverse=True)[1]
    return Task(
        name="series",
        title="Countries of the world, 1957 to 2007 (Gapminder)",
        story="By how much life expectancy, population and income change in five years: 71 countries to learn "
        "from, 71 others to look at. There are no labels, but wars and famines that are known.",
        train={name: values[place % 2 == 1] for name, values in changes.items()},
        data={name: values[place % 2 == 0] for name, values in changes.items()},
        labels=None,
        time="year",
        entity="country",
        alpha=0.02,
        window=3,
    )


def make_detector(task: Task, method: str | None) -> genad.Detector:
    """Return the default detector of the task's kind, or the one asked for."""
    threshold = genad.Conformal(task.alpha)
    if task.name == "table":
        return (
            genad.create(method, threshold=threshold)
            if method
            else genad.default_detector("table", threshold=threshold)
        )
    if method:
        return genad.Windowed(genad.create(method), window=task.window, threshold=threshold)
    return genad.default_detector("series", window=task.window, threshold=threshold)


def run(task: Task, out: Path, console: Console, method: str | None = None) -> genad.Detections:
    """Fit, look, print a summary, and write the data, the scores, the model and the report."""
    folder = out / task.name
    folder.mkdir(parents=True, exist_ok=True)
    console.rule(Text(task.title, style="bold"), align="left")
    console.print(Text(task.story + "\n", style="dim"))
    # The same data as files, so that the command line can be tried on them.
    labelled = {} if task.labels is None else {"label": task.labels}
    write_table(task.train, folder / "train.csv")
    write_table(task.data | labelled, folder / "data.csv")

    read = as_table if task.name == "table" else partial(as_series, time=task.time, entity=task.entity)
    train, data = read(task.train), read(task.data)
    begin = time.perf_counter()
    detector = make_detector(task, method).fit(train)
    found = detector.detect(data)
    seconds = time.perf_counter() - begin

    terminal_summary(found, console, most=5)
    report = write_report(found, folder / "report.html", detector=detector, truth=task.labels, title=task.title)
    scores = write_table(found.columns(), folder / "scores.csv")
    model = detector.save(folder / "model.genad")
    if task.labels is not None:
        normal = task.labels == 0
        unit = "rows" if task.time is None else "time steps"
        console.print(
            Text(
                f"\nAgainst the labels: AUROC {auroc(task.labels, found.scores):.3f}; "
                f"{found.is_anomaly[normal].mean():.1%} of the normal {unit} were flagged "
                f"({task.alpha:.0%} was asked for), and {found.is_anomaly[~normal].mean():.0%} of "
                "the anomalous ones."
            )
        )
    console.print(Text(f"Learnt and looked in {seconds:.1f} s with {detector.name}."))
    for path in (report, scores, model):
        console.print(Text(f"  {path}"), soft_wrap=True)
    options = " --labels label" if labelled else ""
    options += f" --time {task.time}" if task.time else ""
    options += f" --entity {task.entity}" if task.entity else ""
    options += f" --window {task.window}" if task.time else ""
    options += f" --method {method}" if method else ""
    options += f" --alpha {task.alpha}" if task.alpha != Task.alpha else ""
    command = f"genad detect {folder / 'data.csv'} --train {folder / 'train.csv'}{options}"
    console.print(Text(f"The same from the command line:\n  {command}\n"), soft_wrap=True)
    return found


def main(arguments: list[str] | None = None) -> None:
    """Run both tasks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder of the results")
    parser.add_argument("--method", help="a detector of `genad list` instead of the defaults")
    chosen = parser.parse_args(arguments)
    console = Console(width=100 if not os.isatty(1) else None)
    data = Path(os.environ.get("GENAD_DATA", ROOT.parent / "shared" / "data"))
    tasks: list[Task] = []
    for make, spare in ((network_connections, tumours), (server_metrics, countries)):
        try:
            tasks.append(make(data))
        except FileNotFoundError:
            tasks.append(spare())
            note = f"The evaluation data are not in {data}, so the {tasks[-1].name} is another: "
            console.print(Text(note + tasks[-1].title, style="yellow"))
    with warnings.catch_warnings():
        # What a warning says stands in the summary and the report as well.
        warnings.simplefilter("ignore", GenadWarning)
        for task in tasks:
            run(task, chosen.out, console, chosen.method)
    pages = " and ".join(str(chosen.out / task.name / "report.html") for task in tasks)
    console.print(Text(f"Open {pages}."), soft_wrap=True)


if __name__ == "__main__":
    main()
